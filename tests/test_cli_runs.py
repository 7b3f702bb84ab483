"""Each command run as a user would, on a small simulated shop: in words, and as JSON."""

import json
from pathlib import Path

import polars as pl
import pytest

from recoup.cli import main
from recoup.cli.on_log import Metrics, OnLog
from recoup.sources import Source


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    monkeypatch.setattr("sys.argv", ["recoup", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert not ended.value.code, captured.err
    return captured.out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


def test_a_users_first_hour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shop: Path
) -> None:
    log, models = str(shop / "events.parquet"), str(shop / "models")
    size = ("--visitors", "2500", "--days", "1", "--seed", "2")
    assert "truth.json" in run(monkeypatch, capsys, "simulate", *size, "--out", str(shop))

    mapping = run(monkeypatch, capsys, "inspect", log)
    (shop / "mapping.toml").write_text(mapping, encoding="utf-8")
    found = json.loads(run(monkeypatch, capsys, "inspect", log, "--json"))
    assert set(found) == {"mapping", "answers", "cannot_answer", "drift"}

    out = str(shop / "out")
    assert "report.html" in run(monkeypatch, capsys, "replay", log, "--out", out)
    again = ("replay", log, "--mapping", str(shop / "mapping.toml"), "--out", out + "2", "--json")
    assert json.loads(run(monkeypatch, capsys, *again))["events"] > 1000

    trained = json.loads(
        run(monkeypatch, capsys, "train", "intent", log, "--registry", models, "--json")
    )
    assert trained["version"] == 1
    assert "at event 5" in run(monkeypatch, capsys, "evaluate", "intent", log, "--registry", models)
    using = ("replay", log, "--registry", models, "--out", out + "3", "--json")
    assert json.loads(run(monkeypatch, capsys, *using))["reasons"]["lost"] >= 0
    visitor = pl.read_parquet(out + "3/reasons.parquet")["visitor"][0]
    why = ("explain", log, "--registry", models, "--visitor", visitor)
    assert "not proof of cause" in run(monkeypatch, capsys, *why)
    [session, *_] = json.loads(run(monkeypatch, capsys, *why, "--json"))["sessions"]
    assert session["visitor"] == visitor
    assert {"intent", "unspoilt", "reasons"} <= set(session["events"][0])


def test_features_are_listed_and_backfilled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shop: Path
) -> None:
    assert "session_events" in run(monkeypatch, capsys, "features", "list")
    listed = json.loads(run(monkeypatch, capsys, "features", "list", "--json"))
    assert len(listed["features"]) >= 40
    rows = (
        "features",
        "backfill",
        str(shop / "events.parquet"),
        "--out",
        str(shop / "rows.parquet"),
    )
    assert "rows" in run(monkeypatch, capsys, *rows, "--as", "settled")


def test_the_demo_ends_with_the_truth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(monkeypatch, capsys, "demo", "--visitors", "2500", "--days", "0.5")
    assert "The truth beside it" in told
    assert "In truth it saved" in told


def test_the_log_and_its_history_are_read_by_the_same_mapping(tmp_path: Path) -> None:
    for name in ("before", "now"):
        (tmp_path / f"{name}.csv").write_text(f"wann,wer,was\n2026-03-01T10:00:00Z,{name},view\n")
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        '[ts]\ncolumn = "wann"\n[event]\ncolumn = "was"\n[event.names]\nview = "page_view"\n'
        '[columns]\nvisitor = "wer"\n'
    )

    def visitors(source: Source, _: Path, *, history: Source, **_more: object) -> Metrics:
        logs = {"source": source, "history": history}
        return {n: next(iter(s.batches())).batch.events["visitor"][0] for n, s in logs.items()}

    asked = OnLog(
        tmp_path / "now.csv", tmp_path, None, tmp_path / "before.csv", None, mapping, None
    )
    told = asked.run(visitors, "reading")
    assert (told["source"], told["history"]) == ("now", "before")
