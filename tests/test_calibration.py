import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.errors import ModelError
from recoup.models.calibration import Calibration, fit_calibration

coefficients = st.floats(0.0, 5.0)


def sample(calibration: Calibration, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.beta(0.6, 3.0, 40_000)
    return score, rng.random(len(score)) < calibration.apply(score)


def log_loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.mean(np.where(y, np.log(p), np.log1p(-p))))


@pytest.mark.parametrize(
    "truth", [Calibration(), Calibration(0.6, 1.4, -0.5), Calibration(1.5, 0.5, 0.7)]
)
def test_the_map_that_made_the_labels_is_found(truth: Calibration) -> None:
    score, label = sample(truth, seed=3)
    found = fit_calibration(score, label)
    np.testing.assert_allclose(found.apply(score), truth.apply(score), atol=0.025)
    assert abs(found.apply(score).mean() - label.mean()) < 1e-6


def test_no_small_change_of_the_fit_is_better() -> None:
    score, label = sample(Calibration(0.7, 1.2, 0.3), seed=4)
    found = fit_calibration(score, label)
    best = log_loss(found.apply(score), label)
    for step in (-1e-3, 1e-3):
        for near in (
            Calibration(found.a + step, found.b, found.c),
            Calibration(found.a, found.b + step, found.c),
            Calibration(found.a, found.b, found.c + step),
        ):
            assert log_loss(near.apply(score), label) > best


def test_weights_count_as_repeats() -> None:
    score, label = sample(Calibration(0.8, 0.9, 0.1), seed=5)
    score, label = score[:2_000], label[:2_000]
    times = np.random.default_rng(6).integers(0, 4, len(score))
    weighted = fit_calibration(score, label, times.astype(float))
    repeated = fit_calibration(np.repeat(score, times), np.repeat(label, times))
    np.testing.assert_allclose(weighted.apply(score), repeated.apply(score), atol=1e-5)


def test_scores_that_mislead_are_flattened_not_turned_round() -> None:
    rng = np.random.default_rng(7)
    score = rng.random(5_000)
    found = fit_calibration(score, rng.random(5_000) < 1.0 - score)
    assert found.a == found.b == 0.0
    assert np.ptp(found.apply(score)) < 1e-9


@given(a=coefficients, b=coefficients, c=st.floats(-5.0, 5.0))
def test_order_is_kept_and_one_equals_many(a: float, b: float, c: float) -> None:
    calibration = Calibration(a, b, c)
    score = np.concatenate([[0.0, 1.0], np.linspace(0.001, 0.999, 50)])
    out = calibration.apply(score)
    assert np.all(np.diff(out[np.argsort(score)]) >= -1e-15)
    assert np.all((out >= 0.0) & (out <= 1.0))
    ones = [calibration.apply_one(float(p)) for p in score]
    np.testing.assert_allclose(ones, out, rtol=1e-12, atol=1e-300)


def test_labels_of_one_kind_are_refused() -> None:
    with pytest.raises(ModelError, match="both kinds"):
        fit_calibration(np.array([0.1, 0.2]), np.array([0, 0]))
