"""Each command run as a user would, on a small simulated shop: in words, and as JSON."""

import json
from pathlib import Path

import pytest

from recoup.cli import main


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
    assert json.loads(run(monkeypatch, capsys, *using))["decisions"] > 0


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
