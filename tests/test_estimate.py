import numpy as np
import pytest
from scipy import stats

from recoup.causal.estimate import freedom, mean_estimate, normal_estimate, ratio_estimate


def test_freedom_is_that_of_the_variance() -> None:
    """Satterthwaite: 2 / the relative variance of the sample variance, seen over many samples."""
    rng = np.random.default_rng(1)
    draws = rng.exponential(size=(4_000, 400))
    variances = draws.var(axis=1, ddof=1)
    seen = 2 * variances.mean() ** 2 / variances.var()
    told = np.median([freedom(row - row.mean()) for row in draws])
    assert told == pytest.approx(seen, rel=0.25)


def test_freedom_counts_clusters_and_equal_rows() -> None:
    rng = np.random.default_rng(2)
    one = rng.normal(size=300)
    centred = one - one.mean()
    twice = np.repeat(centred, 2)
    assert freedom(twice, clusters=np.repeat(np.arange(300), 2)) == pytest.approx(freedom(centred))
    assert freedom(centred, count=np.full(300, 2.0)) == pytest.approx(
        2 * freedom(centred), rel=0.01
    )
    assert freedom(np.zeros(5)) == np.inf
    assert freedom(np.array([0.0])) == np.inf


def test_where_few_scores_make_up_the_variance_the_interval_is_wider() -> None:
    scores = np.zeros(1_000)
    scores[:4] = 100.0
    found = mean_estimate(scores)
    plain = normal_estimate(found.value, found.se)
    assert found.se == plain.se
    assert found.high - found.low > 1.15 * (plain.high - plain.low)
    even = np.random.default_rng(3).normal(size=5_000)
    narrow, normal = (
        mean_estimate(even),
        normal_estimate(float(even.mean()), mean_estimate(even).se),
    )
    assert narrow.high == pytest.approx(normal.high, abs=1e-4)


def test_means_of_what_few_have_are_covered_better_than_by_normal_intervals() -> None:
    rng = np.random.default_rng(4)
    held, plain = 0, 0
    for _ in range(2_000):
        scores = (rng.random(300) < 0.03) * rng.lognormal(0, 0.5, 300)
        truth = 0.03 * np.exp(0.125)
        found = mean_estimate(scores)
        normal = normal_estimate(found.value, found.se)
        held += found.low <= truth <= found.high
        plain += normal.low <= truth <= normal.high
    assert plain < 0.92 * 2_000
    assert held > plain + 20


def test_a_ratio_has_it_too() -> None:
    rng = np.random.default_rng(5)
    bottom = np.ones(200)
    top = np.where(rng.random(200) < 0.03, 50.0, 0.0)
    found = ratio_estimate(top, bottom)
    reach = stats.t.ppf(0.975, freedom(top - top.mean())) * found.se
    assert found.high == pytest.approx(found.value + reach)
