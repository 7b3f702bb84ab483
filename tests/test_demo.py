"""The closed loop on a small shop: decisions reach it, outcomes return, the truth stands beside."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from recoup.causal.holdout import HoldoutComparison
from recoup.decisions import Defect, Interval
from recoup.report import DemoView
from recoup.runners.demo import DemoResult, found_defects, run_demo
from recoup.stores import SqliteJournal


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, Path]:
    folder = tmp_path_factory.mktemp("demo")
    with DemoView(None, title="demo") as view:
        return run_demo(folder, view, visitors=4000, days=0.5, seed=4), folder


def test_the_loop_is_closed(demo: tuple[DemoResult, Path]) -> None:
    result, folder = demo
    with SqliteJournal(folder / "demo.db", read_only=True) as journal:
        decisions = pl.concat([record.frame for record in journal.read(kind="decisions")])
        outcomes = pl.concat([record.frame for record in journal.read(kind="outcomes")])
        events = sum(record.frame.height for record in journal.read(kind="events"))
    assert events == result.events
    assert decisions["executed"].all()
    assert sum(result.decisions.values()) == decisions.height
    assert any(action.startswith("act:") for action in result.decisions)
    assert outcomes["decision"].is_in(decisions["id"].implode()).all()
    acted = decisions.filter(pl.col("action").str.starts_with("act:"))
    assert "holdout" not in set(acted["slice"])
    assert set(decisions["policy"]) != set(decisions["policy"].head(1))


def test_shoppers_who_wait_too_long_are_decided_on_and_told(
    demo: tuple[DemoResult, Path],
) -> None:
    result, folder = demo
    with SqliteJournal(folder / "demo.db", read_only=True) as journal:
        made = pl.concat([record.frame for record in journal.read(kind="decisions")])
        waits = pl.concat([record.frame for record in journal.read(kind="hesitations")])
    assert made.filter(pl.col("reason") == "D9").height > 50
    assert waits.height > 1_000
    total = result.hesitation.total
    assert total is not None
    assert total.long == pytest.approx(total.expected_long, abs=0.05)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where and when shoppers hesitate" in page
    assert "The costliest thing wrong" in page


def test_why_shoppers_leave_is_told(demo: tuple[DemoResult, Path]) -> None:
    result, folder = demo
    shown = pl.read_parquet(folder / "reasons.parquet").filter(pl.col("shown"))
    met = ~pl.col("signal").str.contains("D9|:")
    assert result.reasons.lost == pytest.approx(shown.filter(met)["lost"].sum())
    waited = result.reasons.wavering[0]
    assert (waited.signal, waited.lost > 0) == ("D9", True)
    assert result.reasons.lost > 0
    assert "K5" in {each.signal for each in result.reasons.signals}
    assert "Why shoppers leave" in (folder / "report.html").read_text(encoding="utf-8")


def test_its_models_have_cards_and_are_watched(demo: tuple[DemoResult, Path]) -> None:
    result, folder = demo
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["models"]
    assert [each["name"] for each in told] == ["intent", "hesitation"]
    assert all(each["rows"] > 5_000 for each in told)
    assert all(each["calibration_error"] < 0.1 for each in told)
    assert (told[0]["hash"], told[0]["version"]) == (result.intent["model"], 1)
    cards = {path.name for path in (folder / "models" / "cards").iterdir()}
    assert {"intent-1.md", "intent-1.json", "intent-1.svg", "hesitation-1.md"} <= cards


def test_what_was_measured_is_told_with_the_truth(demo: tuple[DemoResult, Path]) -> None:
    result, _ = demo
    assert result.saved is not None
    assert isinstance(result.saved.total, Interval)
    assert np.isfinite(result.truly_saved)
    assert set(result.found) <= {true["id"] for true in result.truth}
    assert msgspec.json.encode(result).startswith(b"{")


def test_a_defect_is_named_only_where_its_entity_agrees(demo: tuple[DemoResult, Path]) -> None:
    result, _ = demo
    sure = [defect for defect in result.defects if defect.confidence > 0.5]
    assert sure
    true = {"id": "t", "type": sure[0].type, "entity": dict(sure[0].entity)}
    assert found_defects([true], sure) == ["t"]
    other = true | {"entity": dict.fromkeys(sure[0].entity, "elsewhere")}
    assert found_defects([other], sure) == []


def test_what_is_ranked_below_a_half_is_told_as_suspected() -> None:
    when = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    none = Interval(0.0, 0.0, 1.0)
    ranked = Defect(
        id="slow", type="D2", entity={"country": "PL"}, since=when, until=None, observed=3.0,
        expected=5.0, exposed=9, lost_orders_per_hour=none, lost_value_per_hour=none,
        confidence=0.4, recommended=None, evidence="",
    )  # fmt: skip
    true = [{"id": "slow", "type": "D2", "entity": {"country": "PL"}}]
    assert found_defects(true, [ranked]) == []
    assert found_defects(true, [ranked], 0.0) == ["slow"]


def test_only_the_first_executed_decision_of_a_visitor_counts() -> None:
    compared = HoldoutComparison()
    decisions = pl.DataFrame(
        {
            "id": [1, 2, 3, 4, 5, 6],
            "visitor": ["a", "a", "b", "c", "d", "e"],
            "executed": [True, True, True, True, True, False],
            "slice": ["policy", "policy", "policy", "holdout", "holdout", "policy"],
        }
    )
    outcomes = pl.DataFrame(
        {
            "decision": [1, 2, 3, 4, 5, 6],
            "net_value_micros": [v * 1_000_000 for v in (5, 100, 2, 1, 1, 100)],
            "later_cost_micros": [v * 1_000_000 for v in (1, 0, 0, 0, 0, 0)],
        }
    )
    compared.step(decisions, outcomes)
    lift = compared.lift()
    assert lift is not None
    assert (lift.per_visitor.value, lift.treated, lift.holdout) == (2.0, 2, 2)
    revised = pl.DataFrame({"decision": [1], "net_value_micros": [0], "later_cost_micros": 0})
    compared.step(decisions.clear(), revised)
    after = compared.lift()
    assert after is not None
    assert after.per_visitor.value == 0.0
