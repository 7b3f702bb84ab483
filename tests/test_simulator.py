import datetime as dt
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.decisions import DECISION_SCHEMA
from recoup.errors import ConfigError
from recoup.events import EventBatch, check_batch, concat_batches, hash_column
from recoup.friction.signals import SIGNAL_INDEX, SignalDetector
from recoup.simulator import (
    KINDS,
    SCENARIOS,
    DefectSpec,
    EffectSpec,
    Scenario,
    Shop,
    load_scenario,
    simulate,
    write_simulation,
)

QUIET = SCENARIOS["quiet"]
DEFAULT = SCENARIOS["default"]
HOUR = 3_600_000_000
ENTITY = {
    "S1": {"query": "lamp"},
    "S6": {"device": "mobile"},
    "D1": {"category": "lighting"},
    "D2": {"country": "DE"},
    "D6": {"browser": "Chrome"},
    "D8": {"page": "/c/lighting"},
    "C2": {"country": "FR"},
    "K5": {"payment_method": "card"},
    "K8": {"os": "iOS"},
    "K11": {"region": "DE-BE"},
    "L3": {"category": "lighting"},
    "D7": {"device": "mobile"},
    "C1": {"country": "DE"},
    "C3": {"category": "lighting"},
    "C4": {"channel": "direct"},
    "K2": {"os": "Android"},
    "K3": {"country": "DE"},
    "K4": {"country": "FR"},
}
SIZE = {"S6": 5000.0, "D2": 6.0, "D8": 8000.0, "C2": 0.3, "K11": 4.0, "C1": 0.1}


def whole(visitors: int, days: float, seed: int, scenario: Scenario) -> EventBatch:
    shop = Shop(visitors, days, seed, scenario)
    return shop.step(shop.end)


def one_defect(kind: str, **more: float) -> Scenario:
    defect = DefectSpec("it", kind, ENTITY[kind], size=SIZE.get(kind, 0.0), **more)
    return Scenario("one", (defect,), DEFAULT.effects, warmth=1.0)


def rows(frame: pl.DataFrame, event: str) -> pl.DataFrame:
    return frame.filter(pl.col("event") == event)


def test_batches_keep_the_contract() -> None:
    simulation = simulate(500, 1.5, 3, DEFAULT)
    batches = [check_batch(batch) for batch in simulation.batches]
    assert len(batches) == 36
    events = concat_batches(batches).events
    assert events.height > 2000
    assert events["id"].is_unique().all()
    assert events.equals(events.sort("ts", "visitor", "seq"))


def test_funnel_is_that_of_a_shop() -> None:
    events = whole(20_000, 3.0, 1, QUIET).events
    sessions = events["session"].n_unique()
    share = {
        name: rows(events, name)["session"].n_unique() / sessions
        for name in ("view_item", "add_to_cart", "begin_checkout", "purchase")
    }
    assert 0.40 < share["view_item"] < 0.60
    assert 0.08 < share["add_to_cart"] < 0.18
    assert 0.04 < share["begin_checkout"] < 0.09
    assert 0.035 < share["purchase"] < 0.055
    sizes = events.group_by("session").len()["len"]
    assert 0.40 < (sizes == 1).mean() < 0.55  # type: ignore[operator]
    by_hour = events.group_by(pl.col("ts").dt.hour()).len().sort("ts")["len"].to_list()
    assert by_hour[20] > 4 * by_hour[3]


def test_sessions_are_split_by_half_an_hour_and_never_within() -> None:
    events = whole(3_000, 5.0, 4, QUIET).events.sort("visitor", "seq")
    gap = events.select(
        (pl.col("ts").diff().dt.total_microseconds()).alias("gap"),
        (pl.col("visitor") == pl.col("visitor").shift()).alias("same"),
        (pl.col("session") == pl.col("session").shift()).alias("within"),
    ).filter("same")
    within = gap.filter("within")["gap"]
    between = gap.filter(~pl.col("within"))["gap"]
    assert within.min() > 0  # type: ignore[operator]
    assert within.max() < HOUR // 2  # type: ignore[operator]
    assert between.len() > 500
    assert between.min() > HOUR // 2  # type: ignore[operator]


def test_orders_are_worth_their_lines() -> None:
    batch = whole(4_000, 2.0, 5, DEFAULT)
    bought = batch.events.with_row_index("row").filter(pl.col("event") == "purchase")
    lines = (
        batch.items.filter(pl.col("role") == "subject")
        .group_by("event")
        .agg(pl.col("value").sum().alias("lines"))
    )
    joined = bought.join(lines, left_on="row", right_on="event")
    assert joined.height == bought.height > 50
    assert (joined["value"] == joined["lines"]).all()
    assert joined["order"].is_unique().all()


@pytest.mark.parametrize("cuts", [1, 7, 500])
def test_steps_of_any_length_give_the_same_events(cuts: int) -> None:
    once = whole(800, 1.0, 11, DEFAULT)
    shop = Shop(800, 1.0, 11, DEFAULT)
    span = (shop.end - shop.begin) // cuts + 1
    parts = []
    while not shop.done:
        parts.append(shop.step(shop.now + span))
    again = concat_batches(parts)
    assert again.events.equals(once.events)
    assert again.items.equals(once.items)


def test_many_kernel_calls_give_the_same_events(monkeypatch: pytest.MonkeyPatch) -> None:
    once = whole(600, 1.0, 2, DEFAULT)
    monkeypatch.setattr("recoup.simulator.shop.ROOM", 64)
    again = whole(600, 1.0, 2, DEFAULT)
    assert again.events.equals(once.events)
    assert again.items.equals(once.items)


def test_files_have_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> tuple[str, ...]:
        folder = tmp_path / name
        write_simulation(folder, visitors=1_500, days=1.0, seed=seed, scenario=DEFAULT)
        files = ("decisions.parquet", "events.parquet", "potential_outcomes.parquet", "truth.json")
        assert sorted(path.name for path in folder.iterdir()) == sorted(files)
        return tuple(hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files)

    assert digest("a", 1) == digest("b", 1)
    assert digest("c", 2)[0] != digest("a", 1)[0]


def test_written_events_are_those_simulated(tmp_path: Path) -> None:
    written = write_simulation(tmp_path, visitors=700, days=1.0, seed=9, scenario=DEFAULT)
    batch = whole(700, 1.0, 9, DEFAULT)
    frame = pl.read_parquet(tmp_path / "events.parquet")
    assert frame.drop("items").equals(batch.events)
    lines = frame["items"].list.len().fill_null(0).sum()
    assert lines == batch.items.height
    assert json.loads((tmp_path / "truth.json").read_text()) == written
    assert written["totals"]["events"] == frame.height


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_spoils_only_the_journeys_that_meet_it(kind: str) -> None:
    with_it = Shop(4_000, 2.0, 21, one_defect(kind, share=1.0, effect=0.8))
    events = with_it.step(with_it.end).events
    without = whole(4_000, 2.0, 21, Scenario("none", warmth=1.0)).events
    truth = with_it.truth()["defects"][0]
    orders = rows(without, "purchase").height - rows(events, "purchase").height
    value = spent(without) - spent(events)
    assert truth["lost_orders"] == orders > 0
    assert truth["lost_value"] == pytest.approx(value / 1e6)
    other = changed_visitors(events, without)
    assert 0 < len(other) <= truth["met_by"]


def spent(events: pl.DataFrame) -> int:
    return int(rows(events, "purchase")["value"].sum())


def changed_visitors(one: pl.DataFrame, two: pl.DataFrame) -> set[str]:
    """Visitors whose journeys differ in any column."""
    keys = [frame.with_columns(hash=frame.hash_rows()) for frame in (one, two)]
    left = keys[0].join(keys[1], on=["visitor", "hash"], how="anti")["visitor"]
    right = keys[1].join(keys[0], on=["visitor", "hash"], how="anti")["visitor"]
    return {*left, *right}


def test_a_defect_holds_only_for_its_time() -> None:
    scenario = one_defect("K5", share=1.0, effect=0.8, since=0.5, until=0.75)
    shop = Shop(6_000, 2.0, 8, scenario)
    events = shop.step(shop.end).events
    without = whole(6_000, 2.0, 8, Scenario("none", warmth=1.0)).events
    truth = shop.truth()["defects"][0]
    since = dt.datetime.fromisoformat(truth["from"])
    until = dt.datetime.fromisoformat(truth["to"])
    assert (until - since) == dt.timedelta(hours=12)
    before = pl.col("ts") < since
    assert events.filter(before).equals(without.filter(before))
    card = rows(events, "payment_error").filter(pl.col("payment_method") == "card")
    inside = card.filter(pl.col("ts").is_between(since, until + dt.timedelta(seconds=2)))
    assert inside.height > 10 * (card.height - inside.height) / 3


SHOWS = {
    "S1": ("view_search_results", pl.col("results") == 0),
    "S6": ("view_search_results", pl.col("latency_ms") > 3000),
    "D1": ("view_item", ~pl.col("in_stock")),
    "D2": ("view_item", pl.col("promise_days") >= 7),
    "D6": ("ui_error", pl.col("option") == "add_to_cart"),
    "D8": ("page_view", pl.col("latency_ms") > 6000),
    "C2": ("add_shipping_info", pl.col("shipping") > 0.25 * pl.col("value")),
    "K5": ("payment_error", pl.col("error_code") == "card_declined"),
    "K8": ("ui_error", pl.col("option") == "checkout"),
    "K11": ("promise_change", pl.col("promise_days") >= 6),
    "L3": ("ui_error", pl.col("option") == "image"),
    "D7": ("click_frustration", pl.col("option") == "dead"),
    "C1": ("price_change", pl.col("price") > 0),
    "C3": ("stock_status", ~pl.col("in_stock")),
    "C4": ("coupon_attempt", pl.col("error_code") == "coupon_invalid"),
    "K2": ("auth_error", pl.col("attempt") == 2),
    "K3": ("form_error", pl.col("element") == "postcode"),
    "K4": ("shipping_quote", pl.col("results") == 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_sees_the_signal_of_a_defect(kind: str) -> None:
    counts = []
    for scenario in (one_defect(kind, share=1.0), Scenario("none", warmth=1.0)):
        batch = whole(3_000, 1.0, 5, scenario)
        found = SignalDetector().step(batch, hash_column(batch.events["session"]))
        counts.append(int(found.signals[:, SIGNAL_INDEX[kind]].sum()))
    assert counts[0] > 1.6 * counts[1] + 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_shows_its_symptom(kind: str) -> None:
    name, symptom = SHOWS[kind]
    counts = []
    for scenario in (one_defect(kind, share=1.0), Scenario("none", warmth=1.0)):
        events = whole(3_000, 1.0, 5, scenario).events
        counts.append(rows(events, name).filter(symptom).height)
    assert counts[0] > 2 * counts[1] + 10


def test_a_stronger_effect_costs_more() -> None:
    lost = []
    for effect in (0.0, 0.4, 0.9):
        shop = Shop(6_000, 2.0, 3, one_defect("C2", share=1.0, effect=effect))
        shop.step(shop.end)
        lost.append(shop.truth()["defects"][0]["lost_orders"])
    assert lost[0] == 0
    assert 0 < 1.7 * lost[1] < lost[2]


def test_harm_that_lasts_takes_orders_later_and_none_at_once() -> None:
    def run(lasting: float) -> tuple[pl.DataFrame, int]:
        defect = DefectSpec("it", "D2", {"country": "DE"}, effect=0.0, size=7.0, lasting=lasting)
        shop = Shop(4_000, 1.0, 5, Scenario("one", (defect,), warmth=1.0))
        return shop.step(shop.end).events, shop.truth()["defects"][0]["lost_orders"]

    harmless, harmful = run(0.0), run(2.0)
    assert harmless[1] == 0
    assert harmful[1] > 20
    met = pl.col("promise_days").ge(7.0).fill_null(value=False)
    earlier = met.cum_sum().over("visitor", order_by="ts") - met.cast(pl.UInt32)
    until = [events.filter(earlier == 0).select("id", "event") for events, _ in (harmless, harmful)]
    assert until[0].join(until[1], on="id", how="anti").is_empty()
    assert until[1].join(until[0], on="id", how="anti").is_empty()


def test_quiet_has_no_defect() -> None:
    shop = Shop(500, 1.0, 1, QUIET)
    shop.step(shop.end)
    assert shop.truth()["defects"] == []


def test_default_loses_orders_to_every_defect() -> None:
    shop = Shop(30_000, 2.0, 1, DEFAULT)
    shop.step(shop.end)
    assert len(DEFAULT.defects) >= 6
    assert all(defect["lost_orders"] > 0 for defect in shop.truth()["defects"])


def decisions(events: pl.DataFrame, action: str, *, executed: bool = True) -> pl.DataFrame:
    made = events.select(
        pl.int_range(pl.len()).alias("id"), "ts", "visitor",
        pl.lit(action).alias("action"), pl.lit(executed).alias("executed"),
    )  # fmt: skip
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in DECISION_SCHEMA.items()
        if name not in made.columns
    ]
    return made.with_columns(missing).select(DECISION_SCHEMA.names()).cast(DECISION_SCHEMA)


def run_loop(scenario: Scenario, reason: pl.Expr, action: str, *, tick_s: int = 30) -> Shop:
    shop, made = Shop(20_000, 0.3, 17, scenario), None
    while not shop.done:
        batch = shop.step(shop.now + tick_s * 1_000_000, made)
        made = decisions(batch.events.filter(reason), action)
    return shop


def recovering(intervention: str, cause: str, share: float) -> Scenario:
    effect = EffectSpec(intervention, {cause: share}, fade_s=1e9)
    defect = DefectSpec("it", cause, ENTITY[cause], share=1.0, effect=0.8, size=SIZE.get(cause, 0))
    return Scenario("loop", (defect,), (effect,), warmth=1.0)


def test_decisions_that_do_nothing_change_nothing() -> None:
    once = whole(800, 0.5, 6, DEFAULT).events
    for action, executed in (("never", True), ("wait:60", True), ("act:payment_retry", False)):
        shop, made, parts = Shop(800, 0.5, 6, DEFAULT), None, []
        while not shop.done:
            batch = shop.step(shop.now + HOUR, made)
            made = decisions(batch.events, action, executed=executed)
            parts.append(batch)
        assert concat_batches(parts).events.equals(once)


@pytest.mark.parametrize(
    ("intervention", "cause", "reason"),
    [
        ("payment_retry", "K5", pl.col("event") == "payment_error"),
        ("fee_waiver", "C2", pl.col("event") == "add_shipping_info"),
        ("error_recovery", "K8", pl.col("option") == "checkout"),
    ],
)
def test_the_right_intervention_recovers_its_share(
    intervention: str, cause: str, reason: pl.Expr
) -> None:
    saved = []
    for share in (0.0, 0.3, 0.6):
        shop = run_loop(recovering(intervention, cause, share), reason, f"act:{intervention}")
        truth = shop.truth()
        lost = truth["defects"][0]["lost_orders"]
        totals = truth["totals"]
        saved.append((totals["orders"] - totals["orders_without_acts"]) / lost)
    assert saved[0] == pytest.approx(0.0, abs=0.03)
    assert saved[1] == pytest.approx(0.3, abs=0.07)
    assert saved[2] == pytest.approx(0.6, abs=0.08)


def test_the_wrong_intervention_recovers_nothing_and_costs() -> None:
    reason = pl.col("event") == "payment_error"
    shop = run_loop(recovering("search_assist", "S1", 0.9), reason, "act:search_assist")
    totals = shop.truth()["totals"]
    assert totals["orders"] == totals["orders_without_acts"]
    assert totals["cost_of_acts"] > 0


def test_help_fades_with_delay() -> None:
    defect = DefectSpec("it", "K5", ENTITY["K5"], share=1.0, effect=0.8)
    effect = EffectSpec("payment_retry", {"K5": 0.9}, fade_s=60.0)
    scenario = Scenario("fade", (defect,), (effect,), warmth=1.0)
    reason = pl.col("event") == "payment_error"
    back = [
        run_loop(scenario, reason, "act:payment_retry", tick_s=tick).truth()["interventions"][0]
        for tick in (20, 240)
    ]
    assert back[0]["brought_back"] > 2 * back[1]["brought_back"] > 0


def test_a_needless_popup_drives_shoppers_away() -> None:
    effect = EffectSpec("search_assist", {}, fade_s=100.0, annoys=0.9)
    scenario = Scenario("annoy", (), (effect,), warmth=1.0)
    shop = run_loop(scenario, pl.col("event") == "begin_checkout", "act:search_assist")
    truth = shop.truth()
    assert truth["interventions"][0]["driven_away"] > 20
    assert truth["totals"]["orders"] < 0.7 * truth["totals"]["orders_without_acts"]


def test_a_coupon_is_paid_by_those_who_would_have_bought() -> None:
    effect = EffectSpec("coupon", {}, fade_s=100.0)
    scenario = Scenario("coupon", (), (effect,), warmth=1.0)
    shop = run_loop(scenario, pl.col("event") == "add_payment_info", "act:coupon")
    totals = shop.truth()["totals"]
    assert totals["orders"] == totals["orders_without_acts"]
    assert 0.03 * totals["value"] < totals["cost_of_acts"] <= 0.1 * totals["value"]


def test_acts_in_the_future_wait_and_strangers_are_ignored() -> None:
    shop = Shop(500, 0.5, 3, DEFAULT)
    batch = shop.step(shop.begin + 2 * HOUR)
    later = decisions(batch.events.head(5), "act:coupon").with_columns(
        ts=pl.col("ts") + pl.duration(hours=5), visitor=pl.lit("v0000001")
    )
    strangers = later.with_columns(visitor=pl.lit("somebody"))
    shop.step(shop.begin + 3 * HOUR, pl.concat([later, strangers]))
    assert acts(shop) == 0
    shop.step(shop.end)
    assert acts(shop) == 5


def acts(shop: Shop) -> int:
    return int(sum(each["acts"] for each in shop.truth()["interventions"]))


def test_scenario_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[defects]]\nid = "x"\ntype = "K5"\nentity = {payment_method = "paypal"}\nsince = 0.5\n'
    )
    scenario = load_scenario(path)
    assert scenario.name == "mine"
    assert scenario.defects == (DefectSpec("x", "K5", {"payment_method": "paypal"}, 0.5),)
    assert scenario.effects == DEFAULT.effects


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[defects", "mine.toml"),
        ('[[defects]]\nid = "x"\ntype = "K5"\n', "entity"),
        ('[[defects]]\nid = "x"\ntype = "Z9"\nentity = {item = "a"}', "type"),
        ('[[defects]]\nid = "x"\ntype = "K5"\nentity = {moon = "a"}', "attributes"),
        ('[[defects]]\nid = "x"\ntype = "K5"\nentity = {item = "a"}\nsince = 2.0', "since"),
        ('[[defects]]\nid = "x"\ntype = "K5"\nentity = {item = "a"}\nshare = 2.0', "share"),
        ('[[defects]]\nid = "x"\ntype = "D8"\nentity = {item = "a"}', "size"),
        ('[[effects]]\nintervention = "coupon"\nrecovered = {Z = 1.0}\nfade_s = 1.0', "causes"),
        ('[[effects]]\nintervention = "coupon"\nrecovered = {}\nfade_s = 0.0', "fade_s"),
    ],
)
def test_a_wrong_scenario_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_scenario(path)


def test_what_the_shop_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-item"):
        Shop(10, 1.0, 1, Scenario("x", (DefectSpec("a", "D1", {"item": "no-such-item"}),)))
    with pytest.raises(ConfigError, match="teleport"):
        Shop(10, 1.0, 1, Scenario("x", (), (EffectSpec("teleport", {}, 1.0),)))
    with pytest.raises(ConfigError, match="nowhere"):
        load_scenario("nowhere")
    for visitors, days, seed in ((0, 1.0, 1), (1, 0.0, 1), (1, float("nan"), 1), (1, 1.0, -1)):
        with pytest.raises(ConfigError):
            Shop(visitors, days, seed, QUIET)


def test_draws_are_even_and_apart() -> None:
    from recoup.simulator.randomness import derive, uniform  # noqa: PLC0415

    draws = np.array([[uniform(derive(5, who), what) for what in range(20)] for who in range(2000)])
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(draws.var() - 1 / 12) < 0.002
    apart = np.corrcoef(draws.T) - np.eye(20)
    assert np.abs(apart).max() < 0.1
