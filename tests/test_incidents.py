"""What an incident cost: coverage on frames and in the simulated shop, refusals, session tables."""

import datetime as dt
import json
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from benchmarks import incident_coverage
from scipy import stats

from recoup.causal import Incident, episodes, incident_cost, session_table
from recoup.causal.incidents import DAY_US
from recoup.cli import main
from recoup.errors import ConfigError, SchemaError
from recoup.events import EVENT_SCHEMA, EventBatch, conform, empty_frames
from recoup.simulator import Shop
from recoup.simulator.scenario import DefectSpec, Scenario
from recoup.simulator.scenarios import EFFECTS
from recoup.sources import write_native

START, END = 6 * DAY_US, 8 * DAY_US


def _sessions(seed: int, loss: float = 0.6, n: int = 30_000) -> tuple[pl.DataFrame, float]:
    """A shop whose mix and mood change from day to day, with a broken browser for two days."""
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(0, 12 * DAY_US, n))
    day = ts // DAY_US
    mobile = rng.random(n) < 0.3 + 0.03 * day
    safari = rng.random(n) < np.where(mobile, 0.5, 0.15)
    rate = 0.04 * np.where(mobile, 0.5, 1.0) * np.where(safari, 1.3, 1.0)
    rate *= rng.uniform(0.7, 1.4, 12)[day]
    broken = safari & (ts >= START) & (ts < END)
    due = rng.random(n) < rate
    bought = due & ~(broken & (rng.random(n) < loss))
    table = pl.DataFrame(
        {
            "ts": ts,
            "visitor": rng.integers(0, n, n),
            "touched": safari,
            "device": np.where(mobile, "mobile", "desktop"),
            "orders": bought.astype(int),
            "value": bought * rng.lognormal(4, 0.6, n),
        }
    )
    return table, float((due & ~bought).sum())


def test_losses_are_covered_though_mix_and_mood_change() -> None:
    held, error = [], []
    for seed in range(100):
        table, true = _sessions(seed)
        found = incident_cost(table, Incident("touched", START, END), adjust=["device"])
        held.append(found.lost_orders.low <= true <= found.lost_orders.high)
        error.append(found.lost_orders.value - true)
    low, high = stats.binomtest(sum(held), len(held)).proportion_ci(0.99)
    assert low <= 0.95 <= high
    assert abs(np.mean(error)) < 3 * np.std(error) / 10


def test_where_nothing_happened_the_interval_holds_nothing_and_so_do_placebos() -> None:
    found = [
        incident_cost(_sessions(seed, loss=0.0)[0], Incident("touched", START, END))
        for seed in range(40)
    ]
    assert sum(f.lost_orders.low <= 0 <= f.lost_orders.high for f in found) >= 34
    placebos = [each for f in found for each in f.placebo]
    assert len(placebos) == 80
    assert np.mean([p.low <= 0 <= p.high for p in placebos]) > 0.87


def test_a_plain_before_and_after_would_be_wrong() -> None:
    """The days of the incident were slow for everybody: before and after charges it for that."""
    naive, ours = [], []
    for seed in range(30):
        table, _ = _sessions(seed, loss=0.0)
        slow = (table["ts"] >= START) & (table["ts"] < END)
        keep = ~(slow & pl.Series(np.random.default_rng(seed).random(table.height) < 0.5))
        table = table.with_columns(orders=pl.when(keep).then("orders").otherwise(0))
        own = table.filter("touched")
        inside = own.filter((pl.col("ts") >= START) & (pl.col("ts") < END))
        outside = own.filter((pl.col("ts") < START) | (pl.col("ts") >= END))
        expected = float(outside["orders"].mean()) * inside.height  # type: ignore[arg-type]
        naive.append(expected - float(inside["orders"].sum()))
        found = incident_cost(table, Incident("touched", START, END), adjust=["device"])
        ours.append(found.lost_orders.value)
    assert np.mean(naive) > 10
    assert abs(np.mean(ours)) < 3


def test_what_cannot_be_told_is_refused_with_its_reason() -> None:
    table, _ = _sessions(1)
    few = table.with_columns(
        orders=pl.when(pl.col("touched") & (pl.col("ts") < START)).then(0).otherwise("orders")
    ).filter(pl.col("ts") < END)
    found = incident_cost(few, Incident("touched", START, END))
    assert found.refused is not None
    assert "0 orders outside" in found.refused
    alone = table.filter(pl.col("touched") | (pl.col("ts") < START))
    refused = incident_cost(alone, Incident("touched", START, END)).refused
    assert refused is not None
    assert "untouched" in refused
    while_it_lasted = pl.col("ts").is_between(START, END, closed="left")
    for here, said in ((while_it_lasted, "0 orders while"), (~while_it_lasted, "0 orders outside")):
        bought = pl.when(~pl.col("touched") & here).then(0).otherwise("orders")
        told = incident_cost(table.with_columns(orders=bought), Incident("touched", START, END))
        assert told.refused is not None
        assert f"the others have {said}" in told.refused
    with pytest.raises(SchemaError, match="got none"):
        incident_cost(table.filter(~pl.col("touched")), Incident("touched", START, END))
    with pytest.raises(ConfigError, match="ends after"):
        incident_cost(table, Incident("touched", END, START))
    with pytest.raises(SchemaError):
        incident_cost(table.drop("orders"), Incident("touched", START, END))


def _events(rows: list[tuple[float, str, str, str | None, float | None]]) -> EventBatch:
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    frame = pl.DataFrame(
        {
            "ts": [noon + dt.timedelta(minutes=row[0]) for row in rows],
            "source": "s",
            "id": [str(n) for n in range(len(rows))],
            "seq": 0,
            "visitor": [row[1] for row in rows],
            "event": [row[2] for row in rows],
            "order": [row[3] for row in rows],
            "value": [None if row[4] is None else round(row[4] * 1e6) for row in rows],
        },
        schema_overrides={"order": pl.String, "value": pl.Int64},
    )
    return EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])


def test_sessions_and_episodes_count_each_order_once() -> None:
    batch = _events(
        [
            (0, "a", "view_item", None, None),
            (5, "a", "purchase", "o1", 10.0),
            (6, "a", "purchase", "o1", 10.0),
            (100, "a", "purchase", "o1", 10.0),
            (200, "a", "purchase", "o2", 5.0),
            (3, "b", "purchase", None, 2.0),
            (4, "b", "purchase", None, 3.0),
        ]
    )
    table = session_table([batch], {}).sort("visitor", "ts")
    assert table["visitor"].to_list() == ["a", "a", "a", "b"]
    assert table["orders"].to_list() == [1, 0, 1, 2]
    assert table["value"].to_list() == [10.0, 0.0, 5.0, 5.0]
    assert table["visitor_type"].to_list() == ["new", "returning", "returning", "new"]
    joined = episodes(table, 3 * 3600.0).sort("visitor", "ts")
    assert joined["orders"].to_list() == [1, 1, 2]
    assert episodes(table, 1e6)["orders"].sum() == 4
    moment = table["ts"].cast(pl.Int64)[1]
    cut = episodes(table, 3 * 3600.0, cut=moment).sort("visitor", "ts")
    assert cut["orders"].to_list() == [1, 1, 2]
    assert cut["ts"].to_list() == [table["ts"][0], table["ts"][1], table["ts"][3]]
    assert episodes(table, 1e6, cut=moment)["orders"].to_list() == [1, 1, 2]


def test_sessions_that_never_came_that_far_say_nothing_of_it() -> None:
    batch = _events([(0, "a", "view_item", None, None), (1, "b", "purchase", "o", 1.0)])
    paid = batch.events.with_columns(
        payment_method=pl.when(pl.col("visitor") == "b").then(pl.lit("card"))
    )
    table = session_table([EventBatch(paid, batch.items)], {"payment_method": "card"})
    assert table["visitor"].to_list() == ["b"]
    assert table["touched"].to_list() == [True]


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = DefectSpec("x", "K8", {"browser": "Safari"}, 0.4, 0.7, 0.9, 0.9)
    shop = Shop(8_000, 5.0, 1, Scenario("t", (spec,), EFFECTS))
    write_native([shop.step(shop.end)], tmp_path / "events.parquet")
    true = shop.truth()["defects"][0]
    options = ["--entity", "browser=Safari", "--from", true["from"], "--until", true["to"]]
    options += ["--horizon-h", "0"]
    command = ["recoup", "evaluate", "incident", str(tmp_path / "events.parquet"), *options]
    monkeypatch.setattr("sys.argv", [*command, "--json"])
    with pytest.raises(SystemExit):
        main()
    found = json.loads(capsys.readouterr().out)
    assert found["lost_orders"]["low"] <= true["lost_orders"] <= found["lost_orders"]["high"]
    assert found["lost_orders"]["low"] > 0
    monkeypatch.setattr("sys.argv", [*command, "--entity", "nonsense=1", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "nonsense" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_moments_may_be_of_any_unit_and_zone(unit: Literal["ms", "us", "ns"]) -> None:
    table, _ = _sessions(3, n=8_000)
    incident = Incident("touched", START, END)
    whole = table.with_columns(ts=pl.col("ts") // 1_000 * 1_000)
    want = incident_cost(whole, incident)
    moments = pl.col("ts").cast(pl.Datetime("us")).cast(pl.Datetime(unit))
    for zone in (None, "UTC", "Asia/Tokyo"):
        here = moments if zone is None else moments.dt.replace_time_zone("UTC")
        zoned = here if zone is None else here.dt.convert_time_zone(zone)
        assert incident_cost(whole.with_columns(ts=zoned), incident) == want
    with pytest.raises(SchemaError, match="microseconds"):
        incident_cost(whole.with_columns(ts=pl.col("ts").cast(pl.String)), incident)


def test_money_is_right_where_those_who_come_back_have_fuller_carts() -> None:
    """Half of the lost orders come back within their row, twice as large."""
    errors, orders_times_mean, held = [], [], 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = 20_000
        ts = np.sort(rng.integers(0, 12 * DAY_US, n))
        safari = rng.random(n) < 0.4
        due = (rng.random(n) < 0.06) * rng.lognormal(4, 0.5, n)
        broken = safari & (ts >= START) & (ts < END) & (due > 0) & (rng.random(n) < 0.6)
        back = broken & (rng.random(n) < 0.5)
        value = np.where(back, 2 * due, np.where(broken, 0.0, due))
        table = pl.DataFrame(
            {
                "ts": ts,
                "visitor": np.arange(n),
                "touched": safari,
                "orders": (value > 0).astype(int),
                "value": value,
            }
        )
        found = incident_cost(table, Incident("touched", START, END))
        true = float((due - value).sum())
        held += found.lost_value.low <= true <= found.lost_value.high
        errors.append(found.lost_value.value - true)
        own = table.filter("touched")
        mean = float(own["value"].sum()) / float(own["orders"].sum())
        orders_times_mean.append(found.lost_orders.value * mean - true)
    assert held >= 26
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(30)
    assert np.mean(orders_times_mean) > 5 * np.std(orders_times_mean) / np.sqrt(30)


def _dearer_days(rng: np.random.Generator, days: int) -> tuple[pl.DataFrame, float]:
    """Half of Safari's orders are lost on days when everybody's orders are worth twice as much."""
    n = 6_000
    ts = np.sort(rng.integers(0, 12 * DAY_US, n))
    safari, inside = rng.random(n) < 0.4, (ts >= 3 * DAY_US) & (ts < (3 + days) * DAY_US)
    due = (rng.random(n) < 0.12) * rng.lognormal(4, 1.05, n) * np.where(inside, 2.0, 1.0)
    value = np.where(safari & inside & (rng.random(n) < 0.5), 0.0, due)
    table = pl.DataFrame(
        {
            "ts": ts,
            "visitor": np.arange(n),
            "touched": safari,
            "orders": (value > 0).astype(int),
            "value": value,
        }
    )
    return table, float((due - value).sum())


@pytest.mark.parametrize("days", [2, 9])
def test_money_is_right_where_orders_are_worth_more_in_those_days(days: int) -> None:
    """Over two days the error is in who would have bought; over nine, in what an order is worth."""
    errors, told = [], []
    for seed in range(400):
        table, true = _dearer_days(np.random.default_rng(seed), days)
        found = incident_cost(table, Incident("touched", 3 * DAY_US, (3 + days) * DAY_US))
        errors.append(found.lost_value.value - true)
        told.append(found.lost_value.se)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / 20
    assert 0.88 < np.mean(told) / np.std(errors) < 1.1


def test_orders_that_are_worth_nothing_lose_nothing() -> None:
    table = _sessions(4)[0].with_columns(value=pl.lit(0.0))
    found = incident_cost(table, Incident("touched", START, END))
    assert (found.lost_value.value, found.lost_value.se) == (0.0, 0.0)
    assert found.lost_orders.value > 0


def test_who_comes_back_after_the_horizon_counts_as_lost() -> None:
    """Everybody who is stopped comes back two days later, with a cart of twice the size."""
    error: dict[float, list[float]] = {24.0: [], 72.0: []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = 12_000
        ts = np.sort(rng.integers(0, 12 * DAY_US, n))
        safari = rng.random(n) < 0.4
        due = (rng.random(n) < 0.1) * rng.lognormal(4, 0.5, n)
        stopped = safari & (ts >= START) & (ts < END) & (due > 0) & (rng.random(n) < 0.6)
        first = pl.DataFrame(
            {"ts": ts, "visitor": np.arange(n), "touched": safari, "value": due * ~stopped}
        )
        back = pl.DataFrame(
            {
                "ts": ts[stopped] + 2 * DAY_US,
                "visitor": np.flatnonzero(stopped),
                "touched": True,
                "value": 2 * due[stopped],
            }
        )
        log = pl.concat([first, back]).with_columns(orders=(pl.col("value") > 0).cast(pl.Int64))
        true = -float(due[stopped].sum())
        for hours, errors in error.items():
            rows = episodes(log, hours * 3600, cut=START)
            errors.append(
                incident_cost(rows, Incident("touched", START, END)).lost_value.value - true
            )
    assert abs(np.mean(error[72.0])) < 3 * np.std(error[72.0]) / np.sqrt(20)
    assert np.mean(error[24.0]) > 5 * np.std(error[24.0]) / np.sqrt(20)


@pytest.mark.slow
def test_in_the_simulated_shop_the_cost_is_covered() -> None:
    runs = [incident_coverage.run(seed, visitors=12_000, days=5.0) for seed in range(24)]
    lines = {line["figure"]: line for line in incident_coverage.judge(runs)}
    assert lines["orders"]["passes"], lines
    assert lines["value"]["passes"], lines
