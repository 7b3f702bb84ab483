"""Defects: a broken step is found where and when it is; a quiet shop is not blamed."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from recoup.defects.baseline import design, fit_probability
from recoup.defects.ranking import Ranking, rank
from recoup.defects.scan import scan
from recoup.defects.severity import lost_share
from recoup.defects.tables import CONTEXTS, LEVELS

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
