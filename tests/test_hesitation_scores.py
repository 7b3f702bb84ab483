"""The scores of a wait's distribution, against what they are by definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import check_grad

from recoup.friction.hesitation_baselines import _weibull_loss
from recoup.friction.hesitation_scores import (
    GRID_S,
    bins_of,
    chance_error,
    concordance,
    log_scores,
    mean_gain,
    transform_error,
)

Floats = NDArray[np.float64]


@st.composite
def waits(draw: st.DrawFn) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Draw predictions, waits and whether they ended, with many ties."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans()), min_size=1, max_size=40
        )
    )
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return columns[0].astype(float), columns[1].astype(float), columns[2]


@given(waits())
def test_concordance_is_the_share_of_comparable_pairs_in_order(
    drawn: tuple[Floats, Floats, NDArray[np.bool_]],
) -> None:
    expected, wait, ended = drawn
    wins, pairs = 0.0, 0
    for i in np.flatnonzero(ended):
        for j in range(len(wait)):
            if wait[j] > wait[i] or (wait[j] == wait[i] and not ended[j]):
                pairs += 1
                wins += (expected[i] < expected[j]) + 0.5 * (expected[i] == expected[j])
    found = concordance(expected, wait, ended)
    assert (found is None) == (pairs == 0)
    if found is not None:
        assert abs(found - wins / pairs) < 1e-12


def test_the_likelihood_of_all_that_can_happen_is_one() -> None:
    rng = np.random.default_rng(1)
    surviving = np.sort(rng.random(len(GRID_S)))[::-1]
    ended = np.r_[np.ones(len(GRID_S), bool), False]
    times = np.r_[GRID_S, GRID_S[-1]]
    every = np.tile(np.r_[1.0, surviving], (len(times), 1))
    assert abs(np.exp(log_scores(every, times, ended)).sum() - 1.0) < 1e-6


def test_bins_close_on_the_right_and_the_censored_count_what_they_outlasted() -> None:
    wait = np.array([0.01, 0.05, 0.06, 1_800.0, 0.06, 1_800.0])
    ended = np.array([True, True, True, True, False, False])
    assert bins_of(wait, ended).tolist() == [0, 0, 1, len(GRID_S) - 1, 1, len(GRID_S)]


@pytest.mark.parametrize("seed", range(3))
def test_the_transform_of_the_truth_is_uniform_however_much_is_censored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, seen = rng.random(5_000), rng.random(5_000) ** 0.3
    assert transform_error(np.minimum(u, seen), u <= seen) < 0.04
    assert transform_error(np.minimum(u**1.3, seen), u**1.3 <= seen) > 0.06


def test_right_predictions_exceed_what_chance_gives_one_time_in_twenty() -> None:
    rng = np.random.default_rng(5)
    goes_on = rng.uniform(0.3, 1.0, 400)
    limit, above = chance_error(goes_on, draws=400), 0
    for _ in range(400):
        u = rng.random(400)
        above += transform_error(np.minimum(u, goes_on), u <= goes_on) > limit
    assert 0.02 < above / 400 < 0.09
    u = rng.random(400) ** 1.5
    assert transform_error(np.minimum(u, goes_on), u <= goes_on) > limit


def test_nothing_observed_is_no_error() -> None:
    assert transform_error(np.array([0.4, 0.2]), np.zeros(2, bool)) == 0.0


def test_sessions_are_drawn_together() -> None:
    rng = np.random.default_rng(2)
    gain = np.repeat(rng.normal(0.3, 1.0, 100), 10)
    together = mean_gain(gain, np.repeat(np.arange(100), 10))
    apart = mean_gain(gain, np.arange(1_000))
    assert together.width > 2.5 * apart.width
    assert together.low < gain.mean() == together.value < together.high


def test_the_gradient_of_the_weibull_likelihood_is_right() -> None:
    rng = np.random.default_rng(3)
    design = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    told = (design, rng.normal(2.0, 1.0, 60), rng.random(60) < 0.7)
    weights = rng.normal(0.0, 0.3, 7)

    def loss(at: Floats) -> float:
        return _weibull_loss(at, *told)[0]

    def gradient(at: Floats) -> Floats:
        return _weibull_loss(at, *told)[1]

    assert check_grad(loss, gradient, weights) < 1e-5
