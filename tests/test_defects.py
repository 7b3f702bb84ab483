"""Defects: a broken step is found where and when it is; a quiet shop is not blamed."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.defects.baseline import design, fit_probability
from recoup.defects.ranking import Ranking, rank
from recoup.defects.risks import Step
from recoup.defects.scan import _intervals, scan
from recoup.defects.severity import lost_share
from recoup.defects.slices import Slice, slices_of, slices_within
from recoup.defects.tables import CONTEXTS, LEVELS
from recoup.friction.signals import SIGNALS

HOUR = 3_600_000_000
START = 400_000 * HOUR
DAYS = 14
LADDER = (1.0, 0.9, 0.4, 0.3, 0.6, 0.95, 0.9, 0.85)


class Shop:
    """Sessions of a small shop as tables of evidence; each reaches a level by its own chance."""

    def __init__(self, seed: int, count: int = 9000) -> None:
        rng = np.random.default_rng(seed)
        self.browser = rng.choice(["Chrome", "Safari", "Edge"], count, p=[0.6, 0.3, 0.1])
        self.device = rng.choice(["desktop", "mobile"], count)
        self.channel = rng.choice(["search", "social"], count, p=[0.7, 0.3])
        self.at = np.sort(START + rng.integers(0, DAYS * 24 * HOUR, count))
        warmth = np.where(self.channel == "social", 0.6, 1.0)
        passed = rng.random((count, len(LEVELS))) < np.array(LADDER) * warmth[:, None] ** 0.5
        self.level = np.minimum.accumulate(passed, axis=1).sum(axis=1) - 1
        self.level = np.maximum(self.level, 0)
        self.hidden: set[int] = set()

    def hours(self) -> np.ndarray:
        return (self.at - START) // HOUR

    def tables(self) -> dict[str, pl.DataFrame]:
        count = len(self.at)
        columns: dict[str, object] = {"session": np.arange(1, count + 1), "first": self.at}
        columns |= {"last": self.at + len(LEVELS) * 10_000_000, "events": self.level + 1}
        for level in range(1, len(LEVELS)):
            times = np.where(self.level >= level, self.at + level * 10_000_000, -1)
            columns[f"t{level}"] = [int(t) if t >= 0 else None for t in times]
        columns |= dict.fromkeys(CONTEXTS, [None] * count)
        columns |= {"device": self.device, "browser": self.browser, "channel": self.channel}
        sessions = pl.DataFrame(columns).with_columns(pl.col(CONTEXTS).cast(pl.String))
        bought = np.flatnonzero(self.level == len(LEVELS) - 1)
        orders = pl.DataFrame(
            {"session": bought + 1, "order": [str(n) for n in bought], "ts": self.at[bought]}
        ).with_columns(value=pl.lit(40_000_000))
        kinds = {"session": pl.Int64, "attribute": pl.String, "value": pl.String, "ts": pl.Int64}
        kinds |= {"intent": pl.Float64, "mask": pl.Int64, "shown": pl.Int64}
        return {"sessions": sessions, "touches": pl.DataFrame(schema=kinds), "orders": orders}

    def rank(self) -> Ranking:
        return rank(self.tables(), START + (DAYS * 24 + 2) * HOUR)


def hours_of(when: dt.datetime | None) -> float:
    assert when is not None
    return (when.timestamp() * 1e6 - START) / HOUR


@pytest.mark.parametrize("seed", range(4))
def test_a_quiet_shop_has_no_defects(seed: int) -> None:
    told = Shop(seed).rank()
    assert [each for each in told.defects if each.confidence > 0.5] == []
    assert told.findings == []


@pytest.mark.parametrize(("seed", "browser"), [(10, "Safari"), (11, "Chrome")])
def test_a_broken_step_is_found_where_and_when_it_is(seed: int, browser: str) -> None:
    shop = Shop(seed)
    broken = (shop.browser == browser) & (shop.hours() >= 120) & (shop.hours() < 192)
    before = (shop.level == 7).sum()
    shop.level[broken] = np.minimum(shop.level[broken], 3)
    lost = before - (shop.level == 7).sum()
    told = shop.rank().defects[0]
    assert told.entity == {"browser": browser}
    assert told.type == "unexplained_drop"
    assert told.confidence > 0.9
    assert hours_of(told.since) == pytest.approx(120, abs=12)
    assert hours_of(told.until) == pytest.approx(192, abs=12)
    length = hours_of(told.until) - hours_of(told.since)
    assert told.lost_orders_per_hour.value * length == pytest.approx(lost, rel=0.35)
    assert told.recommended is not None


def test_a_pair_is_found_and_not_told_again_as_its_parents() -> None:
    shop = Shop(12, count=20_000)
    broken = (shop.browser == "Safari") & (shop.device == "mobile") & (shop.hours() >= 200)
    shop.level[broken] = np.minimum(shop.level[broken], 3)
    sure = [each for each in shop.rank().defects if each.confidence > 0.5]
    assert [each.entity for each in sure] == [{"browser": "Safari", "device": "mobile"}]
    assert sure[0].until is None


def test_lost_events_are_a_fault_of_the_data_and_not_of_the_shop() -> None:
    shop = Shop(13)
    lost = (shop.hours() >= 100) & (shop.hours() < 220)
    tables = shop.tables()
    tables["sessions"] = tables["sessions"].with_columns(
        t4=pl.when(pl.Series(lost)).then(None).otherwise(pl.col("t4"))
    )
    told = rank(tables, START + (DAYS * 24 + 2) * HOUR)
    assert [each for each in told.defects if each.confidence > 0.5] == []
    assert [(each.kind, each.column) for each in told.findings][:1] == [
        ("tracking_break", "begin_checkout")
    ]


def test_a_surge_of_visits_without_intent_raises_no_alarm() -> None:
    shop, crowd = Shop(14), Shop(15, count=4000)
    crowd.at = np.sort(START + 150 * HOUR + crowd.at % (20 * HOUR))
    crowd.channel[:] = "social"
    crowd.level = np.minimum(crowd.level, 2)
    for name in ("browser", "device", "channel", "at", "level"):
        setattr(shop, name, np.concatenate([getattr(shop, name), getattr(crowd, name)]))
    assert [each for each in shop.rank().defects if each.confidence > 0.5] == []


def test_the_scan_pays_for_the_intervals_it_searched() -> None:
    rng = np.random.default_rng(3)
    factors = []
    for _ in range(200):
        went_on = rng.random(600) < 0.3
        factors.append(scan(np.sort(rng.integers(0, 336, 600)), np.full(600, 0.3), went_on, 1.0)[0])
    assert np.mean(np.array(factors) > np.log(20)) < 0.05


def _broken(start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give hours 0 to 99 with ten shoppers each, of whom half go on, and fewer in some hours."""
    hours = np.repeat(np.arange(100), 10)
    went_on = np.arange(1000) % 2 == 0
    went_on[(hours >= start) & (hours < stop) & (np.arange(1000) % 4 == 0)] = False
    return hours, went_on


def test_slices_hold_who_met_a_value_while_at_risk_in_order_of_time() -> None:
    rng = np.random.default_rng(4)
    count = 200
    at = rng.integers(0, 1000, count)
    leaves = at + rng.integers(1, 300, count)
    went_on, share = rng.random(count) < 0.5, np.full(count, 0.5)
    step = Step(0, 1, np.arange(count), at, leaves, went_on, went_on, share, share)
    none = {name: pl.Series([None] * count, dtype=pl.String) for name in CONTEXTS}
    sessions = pl.DataFrame(none | {"browser": rng.choice(["Chrome", "Edge"], count)})
    sessions = sessions.with_columns(session=pl.int_range(count))
    met, when = rng.integers(0, count, 900), rng.integers(0, 1300, 900)
    item = rng.choice(["a", "b"], 900)
    touches = pl.DataFrame({"session": met, "attribute": "item", "value": item, "ts": when})
    found = {tuple(one.entity.values()): one for one in slices_of(step, sessions, touches)}
    for name in ("Chrome", "Edge"):
        rows = np.flatnonzero(sessions["browser"].to_numpy() == name)
        _holds(found[name,], at[rows], rows)
    for name in ("a", "b"):
        inside = (item == name) & (at[met] <= when) & (when < leaves[met])
        _holds(found[name,], when[inside], met[inside])
    alone = sessions.with_columns(row=pl.int_range(count), at=at, p=share)
    (edge,) = [one for one in slices_within(alone) if one.entity == {"browser": "Edge"}]
    np.testing.assert_array_equal(edge.rows, found["Edge",].rows)


def _holds(found: Slice, at: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    order = np.lexsort((rows, at))
    np.testing.assert_array_equal(found.at, at[order])
    np.testing.assert_array_equal(found.rows, rows[order])


def test_rows_that_say_the_same_twice_weigh_once() -> None:
    hours, went_on = _broken(40, 60)
    once = scan(hours, np.full(1000, 0.5), went_on, 1.0)
    twice = scan(np.repeat(hours, 2), np.full(2000, 0.5), np.repeat(went_on, 2), 2.0)
    np.testing.assert_allclose(twice, once, rtol=1e-9)


def test_a_defect_that_still_lasts_is_likelier_than_one_that_ended() -> None:
    ended, lasting = (
        scan(hours, np.full(1000, 0.5), went_on, 1.0)
        for hours, went_on in (_broken(40, 60), _broken(80, 100))
    )
    assert (lasting.start, lasting.stop) == (80, 100)
    assert lasting.log_factor > ended.log_factor + 1.0


@given(st.lists(st.floats(-3, 3).filter(bool), min_size=1, max_size=12))
def test_all_intervals_are_weighed_and_the_best_is_named(gains: list[float]) -> None:
    count, sums = len(gains), np.concatenate([[0.0], np.cumsum(gains)])
    weighed = {
        (start, stop): sums[stop]
        - sums[start]
        + np.log(1 / (count * (count + 1)) + (stop == count) * 0.5 / count)
        for start in range(count)
        for stop in range(start + 1, count + 1)
    }
    weight, top, start, stop = _intervals(np.array(gains))
    assert weight == pytest.approx(np.logaddexp.reduce(list(weighed.values())), abs=1e-9)
    assert top == pytest.approx(max(weighed.values()), abs=1e-9)
    assert weighed[start, stop] == pytest.approx(top, abs=1e-9)


def test_an_hour_may_have_any_number_of_shoppers() -> None:
    hours, went_on = _broken(40, 60)
    hours, went_on = np.repeat(hours[300:700] - 30, 2_000), np.repeat(went_on[300:700], 2_000)
    found = scan(hours, np.full(800_000, 0.5), went_on, 1.0)
    assert (found.start, found.stop) == (10, 30)
    assert np.isfinite(found.log_factor)


def test_the_baseline_knows_who_came() -> None:
    shop = Shop(16, count=20_000)
    sessions = shop.tables()["sessions"]
    who = design(sessions, CONTEXTS, shop.at)
    expected = fit_probability(who, shop.level >= 2, who)
    for channel in ("search", "social"):
        own = shop.channel == channel
        assert expected[own].mean() == pytest.approx((shop.level[own] >= 2).mean(), abs=0.01)


def test_intervals_of_the_lost_share_cover() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        share = lost_share(float(rng.poisson(60 * 0.4)), 60.0)
        covered += share.low <= 0.6 <= share.high
    assert covered / 400 > 0.92


def spoilt(shop: Shop, signal: str, met: str, shows: str) -> tuple[dict[str, pl.DataFrame], int]:
    """Show a signal to Safari's shoppers from the fifth day on, where they come to ``shows``.

    Half of them leave there. The intent known at that moment knows of it already. Where ``met``,
    the opportunity, is an earlier step, half of all shoppers do not come on from it.
    """
    bit = next(1 << place for place, each in enumerate(SIGNALS) if each.id == signal)
    family = next(each.family for each in SIGNALS if each.id == signal)
    start, there = LEVELS.index(met), LEVELS.index(shows)
    rng = np.random.default_rng(len(shop.level))
    outlasted = rng.random(len(shop.level)) < 0.5
    shop.level = np.where(outlasted | (start == there), shop.level, np.minimum(shop.level, start))
    saw = (shop.browser == "Safari") & (shop.hours() >= 96) & (shop.level >= there)
    gone = saw & (rng.random(len(saw)) < 0.5)
    bought = shop.level == len(LEVELS) - 1
    keen = np.where(shop.level > there + 1, 0.6, 0.2)
    shop.level = np.where(gone, there, shop.level)
    tables = shop.tables()
    had = shop.level >= start
    intent = np.where(saw & (start == there), 0.05, keen)
    touches = [
        pl.DataFrame(
            {
                "session": np.flatnonzero(had) + 1,
                "attribute": attribute,
                "value": value,
                "ts": shop.at[had] + at * 10 * 1_000_000,
                "intent": np.where(told, intent[had], 0.3),
                "mask": np.where(saw[had] & told, bit, 0),
                "shown": pl.Series(shop.at[had] + there * 10 * 1_000_000, dtype=pl.Int64).set(
                    pl.Series(~(saw[had] & told)), None
                ),
            }
        )
        for attribute, value, at, told in (
            ("page", "/", 0, np.zeros(had.sum(), bool)),
            ("family", family, start, np.ones(had.sum(), bool)),
        )
    ]
    tables["touches"] = pl.concat(touches).cast(tables["touches"].schema)
    return tables, int((gone & bought).sum())


@pytest.mark.parametrize(
    ("signal", "met", "shows"),
    [("D2", "view_item", "view_item"), ("C2", "begin_checkout", "add_shipping_info")],
)
def test_the_loss_is_neither_explained_away_nor_hidden_by_who_got_so_far(
    signal: str, met: str, shows: str
) -> None:
    off, most = [], []
    for seed in range(6):
        tables, lost = spoilt(Shop(seed, 12_000), signal, met, shows)
        found = rank(tables, START + (DAYS * 24 + 2) * HOUR).defects
        each = next(defect for defect in found if defect.type == signal)
        assert each.entity == {"browser": "Safari"}
        off.append(each.expected - each.observed - lost)
        most.append(each.expected)
    # What is expected is learned from four days of them, and errs about twice as much as they do.
    assert abs(np.mean(off)) < 2 * np.sqrt(3 * np.mean(most) / len(off))
