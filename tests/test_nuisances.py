import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from recoup.errors import ConfigError
from recoup.events import check_batch, concat_batches
from recoup.simulator import (
    KINDS,
    SCENARIOS,
    EffectSpec,
    HabitSpec,
    NuisanceSpec,
    RobotSpec,
    Scenario,
    Shop,
    StockSpec,
    load_scenario,
    potential_outcomes,
    simulate,
    write_simulation,
)


def run(scenario: Scenario, visitors: int = 4_000, days: float = 2.0) -> tuple[pl.DataFrame, Any]:
    shop = Shop(visitors, days, 7, scenario)
    batch = check_batch(shop.step(shop.end))
    return batch.events, shop.truth()


@pytest.fixture(scope="module")
def usual() -> pl.DataFrame:
    return run(Scenario("usual"))[0]


def inside(events: pl.DataFrame, told: dict[str, Any]) -> pl.Expr:
    since = dt.datetime.fromisoformat(told["from"])
    until = dt.datetime.fromisoformat(told["to"]) if told["to"] else events["ts"].max()
    return (pl.col("ts") >= since) & (pl.col("ts") < until)


def buying_share(events: pl.DataFrame) -> float:
    bought = events.filter(pl.col("event") == "purchase")["session"].n_unique()
    return bought / events["session"].n_unique()


def test_a_surge_brings_many_of_low_intent_and_changes_nobody_else(usual: pl.DataFrame) -> None:
    spec = NuisanceSpec("surge", 0.5, 0.75, {"channel": "social"}, size=2.0, warmth=-1.5)
    events, truth = run(Scenario("surge", nuisances=(spec,)))
    told = truth["nuisances"][0]
    assert (told["kind"], told["entity"], told["size"]) == ("surge", {"channel": "social"}, 2.0)
    extra = events.filter(pl.col("visitor") > "v0004000")
    assert events.filter(pl.col("visitor") <= "v0004000").equals(usual)
    assert set(extra["channel"]) == {"social"}
    assert extra.group_by("visitor").agg(pl.min("ts")).select(inside(extra, told)).to_series().all()
    assert 1_000 < extra["visitor"].n_unique() < 4_000
    assert buying_share(extra) < 0.4 * buying_share(usual)
    assert truth["defects"] == []


def test_a_mix_shift_changes_who_comes(usual: pl.DataFrame) -> None:
    spec = NuisanceSpec("mix_shift", 0.5, None, {"device": "mobile"}, size=0.8)
    events, truth = run(Scenario("shift", nuisances=(spec,)))
    after = inside(events, truth["nuisances"][0])
    first = events.group_by("visitor").agg(pl.first("ts"), pl.first("device", "os"))
    late, early = first.filter(after), first.filter(~after)
    assert (late["device"] == "mobile").mean() > 0.85  # type: ignore[operator]
    assert (early["device"] == "mobile").mean() < 0.65  # type: ignore[operator]
    assert set(late.filter(pl.col("device") == "mobile")["os"]) == {"iOS", "Android"}
    assert first["visitor"].n_unique() == usual["visitor"].n_unique()


def test_a_tracking_break_loses_events_and_no_purchase(usual: pl.DataFrame) -> None:
    spec = NuisanceSpec("tracking_break", 0.25, 0.75, {"browser": "Safari"}, size=0.9)
    events, truth = run(Scenario("break", nuisances=(spec,)))
    told = truth["nuisances"][0]
    gone = usual.join(events, on="id", how="anti")
    assert told["events_lost"] == gone.height == usual.height - events.height > 500
    assert gone.select(inside(usual, told) & (pl.col("browser") == "Safari")).to_series().all()
    bought = [frame.filter(pl.col("event") == "purchase") for frame in (usual, events)]
    assert bought[0].equals(bought[1])
    assert truth["totals"]["orders"] == bought[0].height


def test_item_lines_stay_with_their_events_where_others_are_lost() -> None:
    spec = NuisanceSpec("tracking_break", size=0.5)
    whole = [concat_batches(simulate(800, 1.0, 3, Scenario("x", nuisances=n)).batches)
             for n in ((), (spec,))]  # fmt: skip
    lines = [
        batch.items.join(batch.events.select("id").with_row_index("event"), on="event")
        .drop("event")
        .sort("id", "position")
        for batch in whole
    ]
    assert 0 < lines[1].height < lines[0].height
    assert lines[1].equals(
        lines[0].join(lines[1].select("id").unique(), on="id").sort("id", "position")
    )


def test_a_change_of_the_flow_loses_a_page_and_no_order(usual: pl.DataFrame) -> None:
    spec = NuisanceSpec("flow_change", 0.5, None)
    events, truth = run(Scenario("flow", nuisances=(spec,)))
    after = inside(events, truth["nuisances"][0])
    carts = pl.col("event") == "view_cart"
    assert events.filter(after & carts).is_empty()
    assert events.filter(~carts).equals(usual.filter(~carts))


def test_a_promotion_sells_and_a_trend_grows(usual: pl.DataFrame) -> None:
    spec = NuisanceSpec("promotion", 0.5, 0.75, size=0.5, warmth=0.8)
    events, truth = run(Scenario("promotion", nuisances=(spec,)))
    during = inside(events, truth["nuisances"][0])
    assert buying_share(events.filter(during)) > 1.3 * buying_share(usual.filter(during))
    grown, _ = run(Scenario("trend", nuisances=(NuisanceSpec("trend", size=2.0),)), days=14.0)
    half = grown["ts"].min() + dt.timedelta(days=7)  # type: ignore[operator]
    share = grown.group_by("visitor").agg(pl.min("ts"))["ts"] >= half
    assert 0.58 < share.mean() < 0.72  # type: ignore[operator]


def test_robots_come_beside_the_shoppers_in_steps_of_any_length(usual: pl.DataFrame) -> None:
    specs = (RobotSpec("monitor", 2), RobotSpec("checkout_monitor"), RobotSpec("crawler"))
    scenario = Scenario("robots", non_shoppers=specs)
    events, truth = run(scenario)
    named = {each["visitor"]: each["kind"] for each in truth["non_shoppers"]}
    robots = events.filter(pl.col("visitor").is_in(list(named)))
    assert sorted(named.values()) == ["checkout_monitor", "crawler", "monitor", "monitor"]
    assert events.filter(~pl.col("visitor").is_in(list(named))).equals(usual)
    assert set(robots["visitor"]) == set(named)
    assert robots.filter(pl.col("event") == "purchase").is_empty()
    probes = robots.filter(pl.col("visitor") == "v0004001").sort("ts")
    assert set(probes["ts"].diff().drop_nulls()) == {dt.timedelta(seconds=300)}
    assert robots["id"].is_unique().all()
    shop = Shop(4_000, 2.0, 7, scenario)
    parts = []
    while not shop.done:
        parts.append(shop.step(shop.now + 5_000_000_000))
    assert concat_batches(parts).events.equals(events)


def test_stock_runs_out_and_comes_back() -> None:
    events, truth = run(Scenario("stock", stock=StockSpec(0.2, 1.0)), visitors=6_000)
    views = events.filter((pl.col("event") == "view_item") & (pl.col("item") == "lighting-01"))
    gone = [each for each in truth["stock"] if each["item"] == "lighting-01"]
    assert gone
    out = pl.lit(value=False)
    for each in gone:
        out |= inside(views, each)
    assert not views.filter(out)["in_stock"].any()
    assert views.filter(~out)["in_stock"].mean() > 0.9  # type: ignore[operator]


def test_buyers_need_the_same_again() -> None:
    orders = []
    for share in (0.0, 0.8):
        scenario = Scenario("weeks", habits=HabitSpec(share, 10.0))
        events, _ = run(scenario, visitors=3_000, days=60.0)
        orders.append(events.filter(pl.col("event") == "purchase"))
    gaps = [
        each.sort("visitor", "ts").select(pl.col("ts").diff().over("visitor")).drop_nulls()["ts"]
        for each in orders
    ]
    assert gaps[1].len() > 1.5 * gaps[0].len()
    assert 4 < gaps[1].median() / dt.timedelta(days=1) < 20  # type: ignore[operator]


def test_shoppers_take_offers_differently() -> None:
    effect = EffectSpec("coupon", {"whim": 0.3}, fade_s=1e6, spread=1.0, warm=-0.5)
    scenario = msgspec.structs.replace(SCENARIOS["logged"], effects=(effect,))
    found = potential_outcomes(12_000, 2.0, 3, scenario, draws=16)
    gain = found.expected[:, :, 6] - found.expected_never
    known = gain[~np.isnan(gain)]
    assert (known < -1.0).mean() > 0.03
    assert (known > 1.0).mean() > 0.05


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_runs_and_is_written(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(name)
    truth = write_simulation(tmp_path, visitors=400, days=1.0, seed=2, scenario=scenario, draws=1)
    assert [each["kind"] for each in truth["nuisances"]] == [n.kind for n in scenario.nuisances]
    events = pl.read_parquet(tmp_path / "events.parquet")
    assert events["id"].is_unique().all()
    robots = [each["visitor"] for each in truth["non_shoppers"]]
    lost = sum(each.get("events_lost", 0) for each in truth["nuisances"])
    lived = events.filter(~pl.col("visitor").is_in(robots)).height
    assert truth["totals"]["events"] - lost == lived


def test_everything_has_every_defect() -> None:
    assert {defect.type for defect in SCENARIOS["everything"].defects} == set(KINDS)
    assert len(KINDS) >= 15


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[nuisances]]\nkind = "flood"\n', "flood"),
        ('[[nuisances]]\nkind = "surge"\nsince = 0.9\nuntil = 0.1\n', "since"),
        ('[[nuisances]]\nkind = "surge"\nsize = 0.0\n', "size"),
        ('[[nuisances]]\nkind = "mix_shift"\nsize = 0.5\n', "entity"),
        ('[[nuisances]]\nkind = "mix_shift"\nentity = {page = "/"}\nsize = 0.5\n', "attributes"),
        ('[[nuisances]]\nkind = "surge"\nentity = {channel = "moon"}\n', "moon"),
        ('[[nuisances]]\nkind = "tracking_break"\nevents = ["nothing"]\n', "events"),
        ('[[non_shoppers]]\nkind = "crawler"\nevery_s = 60\n', "between runs"),
        ('[[non_shoppers]]\nkind = "monitor"\ncount = 0\n', "1,000"),
        ("[stock]\nout_share = 0.9\n", "out_share"),
        ("[habits]\nshare = 2.0\n", "habits"),
        ("[rates]\nbounces = [0.0, 1.0]\n", "bounces"),
        ("[rates]\nland_home = 2.0\n", "land_home"),
        ("[rates]\nbounce = [nan, 0.0]\n", "log-odds"),
        ("[rates]\nland_home = 0.9\n", "`land_home` and `land_category`"),
        ("warmth = nan\n", "warmth"),
        ("warmth = 1e9\n", "warmth"),
        ('[[nuisances]]\nkind = "surge"\nwarmth = -1e9\n', "warmth"),
        ('[[nuisances]]\nkind = "tracking_break"\nsize = 3.0\n', r"\(0, 1\]"),
        (
            '[[effects]]\nintervention = "coupon"\nrecovered = {}\nfade_s = 1.0\n' * 2,
            "at most one effect",
        ),
        ("[logging]\ntrouble = inf\n", "finite factors"),
        ("[mix.planet]\nmars = 1.0\n", "planet"),
        ("[mix.device]\nmobile = 0.0\n", "weight above 0"),
        ("gap_scale = 0.0\n", "gap_scale"),
        ("[logging]\ntimes_s = [5, 1]\n", "times_s"),
    ],
)
def test_a_wrong_statement_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        Shop(10, 1.0, 1, load_scenario(path))


def test_a_run_too_short_for_any_journey_is_written_all_the_same(tmp_path: Path) -> None:
    scenario = load_scenario("default")
    truth = write_simulation(tmp_path, visitors=5, days=0.05, seed=1, scenario=scenario)
    assert truth["decisions"]["journeys"] == 0
    assert truth["decisions"]["value_a_journey"] is None
