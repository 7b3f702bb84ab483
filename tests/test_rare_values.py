"""Means of values that are mostly nothing: coverage where few buy, and limits that are known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from recoup.causal.estimate import Estimate
from recoup.causal.rare_values import difference, difference_of_rare_means, rare_mean

Floats = NDArray[np.float64]


def _orders(rng: np.random.Generator, rows: int, share: float, spread: float) -> Floats:
    return (rng.random(rows) < share) * rng.lognormal(4.0, spread, rows)


def _welch(one: Floats, other: Floats) -> Estimate:
    found = stats.ttest_ind(one, other, equal_var=False)
    low, high = found.confidence_interval(0.95)
    return Estimate(float(one.mean() - other.mean()), low, high, math.nan)


@pytest.mark.parametrize(
    ("treated", "holdout", "spread"),
    [((1_200, 0.04), (300, 0.025), 0.8), ((700, 0.03), (180, 0.015), 0.8),
     ((1_600, 0.25), (400, 0.22), 1.0)],
)  # fmt: skip
def test_differences_are_covered_where_a_holdout_has_few_orders(
    treated: tuple[int, float], holdout: tuple[int, float], spread: float
) -> None:
    rng = np.random.default_rng(11)
    true = (treated[1] - holdout[1]) * math.exp(4.0 + spread**2 / 2)
    pairs = [(_orders(rng, *treated, spread), _orders(rng, *holdout, spread)) for _ in range(600)]
    found = [difference_of_rare_means(*pair) for pair in pairs]
    missed = [sum(f.low > true for f in found), sum(f.high < true for f in found)]
    low, high = stats.binomtest(600 - sum(missed), 600).proportion_ci(0.999)
    assert low <= 0.95 <= high, missed
    assert max(missed) <= 32, missed


def test_the_usual_interval_misses_on_the_side_of_few_orders() -> None:
    rng = np.random.default_rng(12)
    pairs = [(_orders(rng, 1_200, 0.04, 0.8), _orders(rng, 300, 0.025, 0.8)) for _ in range(400)]
    true = 0.015 * math.exp(4.0 + 0.32)
    usual, ours = (
        np.mean([each.low > true for each in (how(*pair) for pair in pairs)])
        for how in (_welch, difference_of_rare_means)
    )
    assert ours < 0.04
    assert usual > 0.05


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.5])
def test_an_act_that_changes_how_large_orders_are_leaves_more_covered_than_usual(
    factor: float,
) -> None:
    """Such as a coupon: the holdout then borrows a size that its own orders have not."""
    rng = np.random.default_rng(15)
    true = (factor * 0.03 - 0.015) * math.exp(4.0 + 0.32)
    pairs = [
        (factor * _orders(rng, 700, 0.03, 0.8), _orders(rng, 180, 0.015, 0.8)) for _ in range(400)
    ]
    usual, ours = (
        [each.low <= true <= each.high for each in (how(*pair) for pair in pairs)]
        for how in (_welch, difference_of_rare_means)
    )
    assert np.mean(ours) >= (0.9 if factor < 0.7 else 0.93)
    assert sum(ours) > sum(usual) - 8


def test_who_has_enough_orders_borrows_none_and_has_the_usual_interval() -> None:
    rng = np.random.default_rng(13)
    one, other = rng.normal(5, 3, 6_000), rng.normal(-4, 2, 6_000)
    found, want = difference_of_rare_means(one, other), _welch(one, other)
    assert found.low == pytest.approx(want.low, rel=1e-3)
    assert found.high == pytest.approx(want.high, rel=1e-3)
    mixed = rng.normal(1, 10, 6_000)
    ends = stats.ttest_1samp(mixed, 0).confidence_interval(0.95)
    alone = rare_mean(mixed, other)
    assert alone.low == pytest.approx(ends.low, abs=0.01)
    assert alone.high == pytest.approx(ends.high, abs=0.01)


def test_of_equal_orders_limits_are_those_of_a_count() -> None:
    """Seven of ten thousand: limits between Clopper and Pearson's and their mid-P ones."""
    values = np.zeros(10_000)
    values[:7] = 50.0
    found = rare_mean(values, values)
    exact = stats.binomtest(7, 10_000).proportion_ci(0.95)
    assert found.value == pytest.approx(0.035)
    assert exact.low <= found.low / 50 <= 1.15 * exact.low
    assert 0.9 * exact.high <= found.high / 50 <= exact.high
    assert rare_mean(values, values, level=0.99).high > found.high


def test_a_side_without_orders_has_a_limit_all_the_same() -> None:
    """The rule of three, with orders as large as the other side's."""
    none, others = np.zeros(200), np.repeat([0.0, 60.0], [90, 10])
    found = rare_mean(none, others)
    assert (found.low, found.value) == (0.0, 0.0)
    assert 60 * 2.0 / 200 < found.high < 60 * 4.0 / 200
    assert rare_mean(-none, -others).low == pytest.approx(-found.high)
    difference_found = difference_of_rare_means(others, none)
    assert difference_found.low < rare_mean(others, none).low


def test_values_turned_round_have_limits_turned_round() -> None:
    rng = np.random.default_rng(14)
    values = _orders(rng, 300, 0.05, 0.8) - _orders(rng, 300, 0.03, 0.4)
    others = _orders(rng, 900, 0.05, 0.8)
    one, turned = rare_mean(values, others), rare_mean(-values, -others)
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low))
    scaled = rare_mean(1e6 * values, 1e6 * others)
    assert (scaled.low, scaled.high) == pytest.approx((1e6 * one.low, 1e6 * one.high))


def test_where_nothing_varies_there_is_no_interval() -> None:
    zeros = np.zeros(50)
    assert math.isnan(difference_of_rare_means(zeros, zeros).low)
    assert math.isnan(difference_of_rare_means(np.ones(1), zeros).low)
    assert math.isnan(difference_of_rare_means(np.array([1.0, math.nan]), zeros).high)
    alike = rare_mean(np.full(50, 3.0), np.full(50, 3.0))
    assert alike.low == alike.value == 3.0
    equal = Estimate(2.0, 1.0, 3.0, 0.5)
    assert difference(equal, equal).high == pytest.approx(math.sqrt(2))
