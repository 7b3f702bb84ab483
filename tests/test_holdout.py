import numpy as np
import pytest
from scipy import stats

from recoup.causal import holdout_lift


def test_interval_is_welchs_where_values_are_normal() -> None:
    rng = np.random.default_rng(7)
    treated, holdout = rng.normal(5, 3, 4_000), rng.normal(4, 1, 1_500)
    micros = (np.concatenate([treated, holdout]) * 1e6).round().astype(np.int64)
    found = holdout_lift(micros, np.arange(5_500) >= 4_000)
    assert found is not None
    want = stats.ttest_ind(micros[:4_000] / 1e6, micros[4_000:] / 1e6, equal_var=False)
    interval = want.confidence_interval(0.95)
    assert found.per_visitor.low == pytest.approx(interval.low, rel=1e-3)
    assert found.per_visitor.high == pytest.approx(interval.high, rel=1e-3)
    assert found.total.value == pytest.approx(4_000 * found.per_visitor.value)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_visitors_give_no_interval(count: int) -> None:
    values = np.arange(10, dtype=np.int64)
    assert holdout_lift(values, np.arange(10) < count) is None
    assert holdout_lift(np.zeros(10, np.int64), np.arange(10) < 5) is None


def test_coverage_on_skewed_values_with_many_zeros() -> None:
    # Most visitors buy nothing and orders are log-normal: what net value looks like in a shop.
    rng = np.random.default_rng(20_240_601)
    repetitions, covered = 1_000, 0
    is_holdout = np.arange(4_000) < 800
    buy_rate = np.where(is_holdout, 0.10, 0.13)
    truth = 0.03 * np.exp(3 + 0.5**2 / 2)
    for _ in range(repetitions):
        orders = rng.random(4_000) < buy_rate
        values = (orders * rng.lognormal(3, 0.5, 4_000) * 1e6).astype(np.int64)
        found = holdout_lift(values, is_holdout)
        assert found is not None
        covered += found.per_visitor.low <= truth <= found.per_visitor.high
    low, high = stats.binomtest(covered, repetitions).proportion_ci(0.99)
    assert low <= 0.95 <= high
