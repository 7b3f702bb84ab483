"""A log in, tables and a report out: complete, and the same after a run that was cut."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import ConfigError
from recoup.friction.reasons import REASON_SCHEMA
from recoup.report import Summary
from recoup.runners import replay
from recoup.runners.backfill import backfill_to
from recoup.runners.explaining import explain_sessions
from recoup.runners.replay import replay_source
from recoup.runners.training import evaluate_intent_on, load_intent, train_intent_on
from recoup.simulator import load_scenario, write_simulation
from recoup.sources import open_source

TABLES = ("defects", "decisions", "features", "dead_letters")
TIMED = {"seconds", "events_per_second", "peak_rss_mb"}


class CutError(Exception):
    """Stands for the moment at which a run ends unasked."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_simulation(folder, visitors=4000, days=1.5, seed=5, scenario=load_scenario("default"))
    return folder / "events.parquet"


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "ROWS", 2048)
        patch.setattr(replay, "SNAPSHOT_BATCHES", 3)
        yield


def run(log: Path, out: Path) -> Summary:
    return replay_source(open_source(log), out, title="shop", identity="shop")


@pytest.fixture(scope="module")
def whole(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(log, out)
    return out


def told(out: Path) -> dict[str, object]:
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {key: value for key, value in summary.items() if key not in TIMED}


def test_everything_is_there(log: Path, whole: Path) -> None:
    events = pl.read_parquet(log)
    summary = told(whole)
    assert summary["events"] == events.height
    assert summary["visitors"] == events["visitor"].n_unique()
    assert summary["orders"] == events.filter(pl.col("event") == "purchase")["order"].n_unique()
    features = pl.read_parquet(whole / "features.parquet")
    assert features["id"].to_list() == events["id"].to_list()
    decisions = pl.read_parquet(whole / "decisions.parquet")
    assert decisions.height == summary["decisions"]
    assert decisions.height > 0
    assert not decisions["executed"].any()
    assert summary["saved"] is None
    assert (whole / "report.html").read_text(encoding="utf-8").startswith("<!")
    assert not (whole / "features").exists()


def test_the_ranked_list_is_the_table(whole: Path) -> None:
    defects = told(whole)["defects"]
    assert isinstance(defects, list)
    table = pl.read_parquet(whole / "defects.parquet")
    assert table["id"].to_list() == [defect["id"] for defect in defects]
    assert table["rank"].to_list() == list(range(1, len(defects) + 1))
    assert any(defect["type"] == "K5" and defect["confidence"] > 0.9 for defect in defects)


@pytest.mark.parametrize("cut_after", [1, 5, 9])
def test_a_cut_run_goes_on_to_the_same_end(
    log: Path, whole: Path, tmp_path: Path, cut_after: int
) -> None:
    seen = 0

    def cut(_events: int) -> None:
        nonlocal seen
        seen += 1
        if seen == cut_after:
            raise CutError

    with pytest.raises(CutError):
        replay_source(open_source(log), tmp_path, title="shop", identity="shop", progress=cut)
    run(log, tmp_path)
    assert told(tmp_path) == told(whole)
    for table in TABLES:
        found, want = (pl.read_parquet(out / f"{table}.parquet") for out in (tmp_path, whole))
        assert found.equals(want), table
    assert journalled(tmp_path) == journalled(whole)


def journalled(out: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give all that a replay's journal holds, byte for byte."""
    tables = ("records", "stages", "states", "positions")
    with contextlib.closing(sqlite3.connect(out / "journal.db")) as journal:
        return {
            table: journal.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608
            for table in tables
        }


def test_replayed_again_it_says_the_same(log: Path, tmp_path: Path) -> None:
    first, again = run(log, tmp_path), run(log, tmp_path)
    assert (again.events, again.defects) == (first.events, first.defects)
    assert pl.read_parquet(tmp_path / "features.parquet").height == first.events


def test_a_directory_keeps_to_one_log(log: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match="replay of another, got one of shop"):
        replay_source(open_source(log), whole, title="shop", identity="another")


def test_backfilled_rows_are_the_served_ones(log: Path, whole: Path, tmp_path: Path) -> None:
    told = backfill_to(open_source(log), tmp_path / "rows.parquet", how="served")
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    served = pl.read_parquet(whole / "features.parquet")
    assert told["rows"] == served.height
    names = [name for name in served.columns if name in rows.columns]
    assert len(names) > 80
    assert rows.select(names).equals(served.select(names))


def test_a_model_is_trained_kept_judged_and_used(log: Path, tmp_path: Path) -> None:
    source, registry = open_source(log), tmp_path / "models"
    trained = train_intent_on(source, registry)
    again = train_intent_on(source, registry)
    assert trained["model"] == again["model"]
    assert (trained["version"], again["version"]) == (1, 2)
    judged = evaluate_intent_on(source, registry)
    assert judged["model"] == trained["model"]
    assert isinstance(judged["auc"], float)
    assert judged["auc"] > 0.6
    model, served = load_intent(registry, serving=True)
    used = replay_source(
        open_source(log),
        tmp_path / "out",
        title="s",
        identity="s",
        intent=model,
        served={"intent": served},
    )
    assert used.decisions > 0
    health = used.models[0]
    assert (health.name, health.version, health.hash) == ("intent", 2, trained["model"])
    assert health.rows == used.events
    assert health.largest_psi is not None
    assert health.calibration_error is not None
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Can the predictions be trusted?" in page
    decided = pl.read_parquet(tmp_path / "out" / "decisions.parquet")
    assert set(decided["model"]) == {trained["model"]}
    reasons = pl.read_parquet(tmp_path / "out" / "reasons.parquet")
    assert reasons.schema == REASON_SCHEMA
    told = used.reasons
    assert told is not None
    lost = {each.signal: each.lost for each in (*told.signals, *told.wavering)}
    assert sum(lost.values()) == pytest.approx(reasons["lost"].sum())
    assert set(lost) == set(reasons.filter("shown")["signal"])
    moments = reasons.group_by("id").agg(pl.col("share").sum(), pl.col("^intent|unspoilt$").first())
    apart = moments["intent"] - moments["unspoilt"] - moments["share"]
    assert float(apart.abs().max()) < 1e-9  # type: ignore[arg-type]
    rows = pl.read_parquet(tmp_path / "out" / "features.parquet").select("id", as_served="intent")
    beside = reasons.join(rows, on="id")
    assert beside["intent"].to_list() == pytest.approx(beside["as_served"].to_list(), abs=1e-9)
    visitor, session = reasons.select("visitor", "session").row(0)
    [own] = explain_sessions(open_source(log), model, session=str(session))
    assert (own.visitor, own.session) == (visitor, session)
    first = next(each for each in own.events if each.reasons)
    assert sum(each.share for each in first.reasons) == pytest.approx(first.intent - first.unspoilt)
    assert session in {
        each.session for each in explain_sessions(open_source(log), model, visitor=visitor)
    }
    with pytest.raises(ConfigError, match="nobody"):
        explain_sessions(open_source(log), model, visitor="nobody")
    with pytest.raises(ConfigError, match="neither"):
        explain_sessions(open_source(log), model)
