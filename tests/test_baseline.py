"""Who is expected to go on: the regression finds its optimum, whatever its columns look like."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from recoup.defects.baseline import Design, fit_probability

RIDGE = 4.0


def _design(seed: int, center: float, spread: float, n: int = 8_000) -> Design:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    numbers = np.column_stack(
        [np.ones(n), np.sin(angle), np.cos(angle), center + spread * rng.normal(size=n)]
    )
    places = np.column_stack([4 + rng.integers(0, 3, n), 7 + rng.integers(0, 5, n)])
    places[rng.random(n) < 0.1, 1] = -1
    return Design(numbers, places, 12)


def _dense(design: Design) -> NDArray[np.float64]:
    whole = np.zeros((len(design), design.width))
    whole[:, : design.numbers.shape[1]] = design.numbers
    for places in design.places.T:
        known = np.flatnonzero(places >= 0)
        whole[known, places[known]] = 1.0
    return whole


@pytest.mark.parametrize(("center", "spread"), [(0.0, 1.0), (-3.2, 0.2), (-3.2, 0.02), (40.0, 5.0)])
@pytest.mark.parametrize("rate", [0.004, 0.06, 0.6, 0.97])
def test_the_fit_is_the_optimum(center: float, spread: float, rate: float) -> None:
    design = _design(1, center, spread)
    rng = np.random.default_rng(2)
    slope = 0.7 * (design.numbers[:, 3] - center) / spread
    odds = np.log(rate / (1 - rate)) + slope + 0.5 * design.numbers[:, 1]
    happened = rng.random(len(design)) < 1 / (1 + np.exp(-odds))
    found = fit_probability(design, happened, design)
    assert found.mean() == pytest.approx(happened.mean(), rel=0.02)

    dense, penalty = _dense(design), np.r_[1e-3, np.full(design.width - 1, RIDGE)]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = dense @ weights
        value = float((np.logaddexp(0, z) - happened * z).sum() + penalty @ weights**2 / 2)
        return value, dense.T @ (1 / (1 + np.exp(-z)) - happened) + penalty * weights

    start = np.zeros(design.width)
    best = optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-3})
    theirs = 1 / (1 + np.exp(-np.clip(dense @ best.x, -30, 30)))
    np.testing.assert_allclose(found, np.clip(theirs, 1e-4, 0.995), atol=2e-3)


def test_what_separates_perfectly_stays_finite() -> None:
    design = _design(3, -3.2, 0.2)
    happened = design.numbers[:, 3] > -3.2
    found = fit_probability(design, happened, design)
    assert np.isfinite(found).all()
    assert found[happened].mean() > 0.8
    assert found[~happened].mean() < 0.2
