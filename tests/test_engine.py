"""The whole flow as a fold: deterministic, restorable anywhere, silent on a foreign log."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from recoup.decisions import DECISION_SCHEMA, Defect, Interval, Recommendation
from recoup.engine import Engine, Settings
from recoup.errors import SnapshotError
from recoup.events import EventBatch
from recoup.simulator import load_scenario, simulate
from recoup.state import Changes


@pytest.fixture(scope="module")
def batches() -> list[EventBatch]:
    shop = simulate(visitors=1500, days=1.0, seed=3, scenario=load_scenario("default"))
    return [batch for batch in shop.batches if len(batch)]


def decisions_of(engine: Engine, batches: list[EventBatch]) -> pl.DataFrame:
    return pl.concat([engine.step(batch).decisions for batch in batches])


def test_decisions_carry_their_exact_propensities(batches: list[EventBatch]) -> None:
    made = decisions_of(Engine(), batches)
    assert made.height > 50
    assert made.schema == DECISION_SCHEMA
    assert made["id"].is_unique().all()
    totals = made["propensities"].list.sum().to_numpy()
    np.testing.assert_allclose(totals, 1.0, atol=1e-12)
    for action, chosen, options, odds in made.select(
        "action", "propensity", "options", "propensities"
    ).iter_rows():
        assert odds[options.index(action)] == chosen
    holdout = made.filter(pl.col("slice") == "holdout")
    assert holdout.height
    assert set(holdout["action"]) == {"never"}


def test_a_foreign_log_is_decided_on_but_never_acted_on(batches: list[EventBatch]) -> None:
    engine = Engine(Settings(executes=False, horizon_s=3600.0))
    steps = [engine.step(batch) for batch in batches]
    assert not pl.concat([step.decisions for step in steps])["executed"].any()
    assert sum(step.outcomes.height for step in steps) == 0


def test_outcomes_come_back_where_decisions_are_executed(batches: list[EventBatch]) -> None:
    engine = Engine(Settings(horizon_s=3600.0))
    steps = [engine.step(batch) for batch in batches]
    outcomes = pl.concat([step.outcomes for step in steps])
    made = pl.concat([step.decisions for step in steps])
    assert outcomes.height > 0
    assert set(outcomes["decision"]) <= set(made["id"])


@pytest.mark.parametrize("cut", [1, 7, 15])
def test_restored_anywhere_it_goes_on_as_if_never_stopped(
    batches: list[EventBatch], cut: int
) -> None:
    settings = Settings(horizon_s=3600.0, review_s=1800.0)
    whole, first, again = (Engine(settings) for _ in range(3))
    want = decisions_of(whole, batches)
    before = decisions_of(first, batches[:cut])
    again.restore(first.snapshot())
    after = decisions_of(again, batches[cut:])
    assert pl.concat([before, after]).equals(want)
    assert again.ranking() == whole.ranking()
    assert again.carts() == whole.carts()


@pytest.mark.parametrize("cut", [3, 12])
def test_changes_kept_call_by_call_are_the_state(batches: list[EventBatch], cut: int) -> None:
    chosen = Settings(horizon_s=3600.0, review_s=1800.0)
    whole, again, parts = Engine(chosen), Engine(chosen), dict[str, bytes]()
    for batch in batches[:cut]:
        whole.step(batch)
        keep(parts, whole.changes())
    again.restore(parts)
    for number, batch in enumerate(batches[cut:]):
        assert again.step(batch).decisions.equals(whole.step(batch).decisions)
        if number % 2:
            assert again.changes() == whole.changes()
    assert again.snapshot() == whole.snapshot()
    assert again.ranking() == whole.ranking()


def keep(parts: dict[str, bytes], changes: Changes) -> None:
    for name in changes.dropped:
        del parts[name]
    parts |= changes.saved


def test_a_snapshot_of_other_settings_is_refused() -> None:
    parts = Engine(Settings(horizon_s=3600.0)).snapshot()
    with pytest.raises(SnapshotError, match="these settings"):
        Engine(Settings(horizon_s=7200.0)).restore(parts)
    with pytest.raises(SnapshotError, match="without"):
        Engine().restore({})


def watchable(entity: dict[str, str]) -> Defect:
    interval = Interval(1.0, 0.5, 1.5)
    return Defect(
        id="x",
        type="unexplained_drop",
        entity=entity,
        since=dt.datetime(2026, 3, 2, tzinfo=dt.UTC),
        until=None,
        observed=1.0,
        expected=9.0,
        exposed=99,
        lost_orders_per_hour=interval,
        lost_value_per_hour=interval,
        confidence=1.0,
        recommended=Recommendation("error_recovery", 1.0, interval, 600.0),
        evidence="",
    )


ENTITIES: tuple[dict[str, str], ...] = (
    {"step": "payment"},
    {"is_new_visitor": "true"},
    {"source": "google", "device": "mobile"},
    {"no_such_attribute": "x"},
    {},
)


@pytest.mark.parametrize("entity", ENTITIES, ids=str)
def test_a_watched_defect_may_be_about_anything(
    batches: list[EventBatch], entity: dict[str, str]
) -> None:
    engine = Engine()
    engine.policy.watch([watchable(entity)])
    watched = engine.step(batches[10]).decisions
    plain = Engine().step(batches[10]).decisions
    assert watched.height >= plain.height


def test_a_watched_defect_opens_decision_points_on_its_entity(batches: list[EventBatch]) -> None:
    engine = Engine()
    engine.policy.watch([watchable({"device": "mobile"})])
    made = decisions_of(engine, batches)
    drops = made.filter(pl.col("reason") == "unexplained_drop")
    assert drops.height > 0
    mobile = pl.concat([b.events for b in batches]).filter(pl.col("device") == "mobile")
    assert set(drops["visitor"]) <= set(mobile["visitor"])
