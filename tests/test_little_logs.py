"""A log of next to nothing trains no model: it is refused by name, whatever it lacks."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recoup.cli.app import app
from recoup.errors import RecoupError
from recoup.features import FeatureStore, standard_features
from recoup.friction.intent_rows import Period, collect_rows
from recoup.friction.waits import collect_waits
from recoup.sources import open_source

Log = list[dict[str, Any]]


def events(count: int, every_s: int, event: str, visitors: int = 7, **more: str) -> Log:
    return [
        {"ts": 1_767_225_600 + every_s * k, "event": event, "visitor": f"v{k % visitors}"}
        | {"id": str(k), "order": f"o{k}" if event == "purchase" else None, **more}
        for k in range(count)
    ]


LOGS = {
    "one event": events(1, 1, "page_view"),
    "no page": events(5, 10, "scroll"),
    "one moment": events(5, 0, "page_view", visitors=1),
    "bots alone": events(400, 5_000, "page_view", browser="Googlebot/2.1"),
    "one that is no shopper": events(900, 1, "page_view", visitors=1),
    "purchases alone": events(300, 9_000, "purchase"),
}


def written(log: Log, folder: Path) -> Path:
    path = folder / "log.ndjson"
    path.write_text("".join(json.dumps(event) + "\n" for event in log))
    return path


@pytest.mark.parametrize("command", ["hesitation", "intent"])
@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS.keys())
def test_what_is_too_little_to_train_on_is_refused(tmp_path: Path, log: Log, command: str) -> None:
    path = written(log, tmp_path)
    asked = ["train", command, str(path), "--registry", str(tmp_path / "models")]
    found = CliRunner().invoke(app, asked)
    assert isinstance(found.exception, RecoupError)
    assert "Expected" in str(found.exception)


@pytest.mark.parametrize("log", ["bots alone", "one that is no shopper"])
def test_who_is_no_shopper_makes_no_row(tmp_path: Path, log: str) -> None:
    batches = [found.batch for found in open_source(written(LOGS[log], tmp_path)).batches()]
    for collect in (collect_rows, collect_waits):
        with pytest.raises(RecoupError, match="of shoppers"):
            collect(batches, FeatureStore(standard_features()), Period())
