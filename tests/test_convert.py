"""`recoup convert`: any log becomes a native one that says the same."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from recoup.cli import app
from recoup.errors import ConfigError
from recoup.sources import open_source, write_native
from recoup.testing import random_batch

PAYLOADS = Path(__file__).parent / "fixtures" / "payloads"

SPEC = """
[[defect]]
id = "thrice"
kind = "duplicate"
step = "add_to_cart"
times = 2
"""


def converted(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["convert", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, object] = json.loads(result.stdout)
    return told


@pytest.mark.parametrize("name", sorted(path.name for path in PAYLOADS.iterdir()))
@pytest.mark.parametrize("ending", ["", ".parquet", ".ndjson"])
def test_events_and_items_are_the_same(tmp_path: Path, name: str, ending: str) -> None:
    told = converted(str(PAYLOADS / name), "--out", str(tmp_path / f"shop{ending}"))
    there = list(open_source(PAYLOADS / name).batches())
    here = list(open_source(Path(str(told["out"])), format="native").batches())
    for kind in ("events", "items"):
        before, after = (
            pl.concat([getattr(each.batch, kind) for each in batches]) for batches in (there, here)
        )
        assert after.equals(before), kind
    assert told["events"] == sum(len(each.batch) for each in there) > 0
    assert not sum(each.dead_letters.height for each in here)


def test_payloads_can_be_injected_into_once_they_are_converted(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(SPEC)
    options = ["--spec", str(tmp_path / "spec.toml"), "--out", str(tmp_path / "broken")]
    refused = CliRunner().invoke(app, ["inject", str(PAYLOADS / "segment.ndjson"), *options])
    assert "recoup convert" in str(getattr(refused.exception, "hint", ""))
    converted(str(PAYLOADS / "segment.ndjson"), "--out", str(tmp_path / "shop"))
    result = CliRunner().invoke(app, ["inject", str(tmp_path / "shop"), *options])
    assert result.exit_code == 0, result.output
    carts = [
        sum(
            (each.batch.events["event"] == "add_to_cart").sum()
            for each in open_source(log).batches()
        )
        for log in (tmp_path / "shop", tmp_path / "broken")
    ]
    assert carts[1] == 3 * carts[0] > 0


def test_what_cannot_be_read_is_counted_and_the_place_is_not_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_native([random_batch(30, seed=1)], log / "a.ndjson")
    with (log / "a.ndjson").open("a") as stream:
        stream.write("no json\n")
    told = converted(str(log), "--out", str(tmp_path / "shop"))
    assert told["events"] == 30
    assert sum(told["dead_letters"].values()) == 1  # type: ignore[attr-defined]
    inside = CliRunner().invoke(app, ["convert", str(log), "--out", str(log / "b.ndjson")])
    assert isinstance(inside.exception, ConfigError)
    assert "outside the log" in str(inside.exception)
    with pytest.raises(ConfigError, match=r"ending in \.parquet or"):
        write_native([], tmp_path / "shop.csv")
