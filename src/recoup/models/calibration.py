"""Calibration: a monotone map that makes a score mean what it says."""

import math
from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError

_CLIP: Final = 1e-12
_STEPS: Final = 50
_RIDGE: Final = 1e-9
_TOLERANCE: Final = 1e-12


class Calibration(msgspec.Struct, frozen=True):
    """The beta map: ``logit q = a ln p - b ln(1 - p) + c``.

    With ``a = b`` it is Platt's map; ``a = b = 1, c = 0`` changes nothing.

    Parameters
    ----------
    a, b
        At least 0, so that the order of scores never turns round.
    c
        Shift of the log-odds.

    References
    ----------
    Kull, Silva Filho and Flach, "Beta calibration", AISTATS 2017.

    Examples
    --------
    >>> Calibration(1.0, 1.0, 0.0).apply(np.array([0.1, 0.9])).round(3).tolist()
    [0.1, 0.9]
    >>> round(Calibration(0.5, 0.5, -1.0).apply_one(0.9), 3)
    0.525
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate probabilities, shape (n,)."""
        p = np.clip(probability, _CLIP, 1.0 - _CLIP)
        return np.asarray(
            1.0 / (1.0 + np.exp(-(self.a * np.log(p) - self.b * np.log1p(-p) + self.c)))
        )

    def apply_one(self, probability: float) -> float:
        """Calibrate one probability."""
        return float(calibrate_one(probability, self.a, self.b, self.c))


@njit(cache=True, nogil=True)
def calibrate_one(probability: float, a: float, b: float, c: float) -> float:
    """Calibrate one probability: :class:`Calibration` for compiled code."""
    p = min(max(probability, _CLIP), 1.0 - _CLIP)
    return 1.0 / (1.0 + math.exp(-(a * math.log(p) - b * math.log1p(-p) + c)))


def fit_calibration(
    probability: NDArray[np.float64],
    positive: NDArray[np.generic],
    weight: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit the beta map by maximum likelihood.

    A coefficient that comes out negative is set to 0 and the rest fitted again, as the paper does.

    Parameters
    ----------
    probability, positive, weight
        Held-out scores in [0, 1], their labels (0 or 1) and weights: shape (n,).

    Raises
    ------
    ModelError
        If the labels are not of both kinds.
    """
    y = np.asarray(positive, np.float64)
    if not 0.0 < y.mean() < 1.0:
        raise ModelError("Expected labels of both kinds to calibrate on, got one kind only")
    w = np.ones(len(y)) if weight is None else weight
    p = np.clip(probability, _CLIP, 1.0 - _CLIP)
    columns = np.column_stack([np.log(p), -np.log1p(-p), np.ones(len(p))])
    used = [0, 1, 2]
    while True:
        fitted = _logistic(columns[:, used], y, w / w.sum())
        negative = [k for k, value in zip(used, fitted, strict=True) if value < 0.0 and k < 2]  # noqa: PLR2004
        if not negative:
            break
        used.remove(negative[0])
    coefficients = dict(zip(used, fitted.tolist(), strict=True))
    return Calibration(coefficients.get(0, 0.0), coefficients.get(1, 0.0), coefficients[2])


def _logistic(
    columns: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit a logistic regression by damped Newton steps."""
    beta = np.zeros(columns.shape[1])
    loss = _loss(columns, y, w, beta)
    for _ in range(_STEPS):
        q = _sigmoid(columns @ beta)
        gradient = columns.T @ (w * (q - y))
        curvature = (columns * (w * q * (1.0 - q))[:, None]).T @ columns
        step = np.linalg.solve(curvature + _RIDGE * np.eye(len(beta)), gradient)
        size = 1.0
        while size > _TOLERANCE and _loss(columns, y, w, beta - size * step) > loss:
            size /= 2.0
        beta = beta - size * step
        previous, loss = loss, _loss(columns, y, w, beta)
        if previous - loss < _TOLERANCE:
            break
    return np.asarray(beta)


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def _loss(
    columns: NDArray[np.float64],
    y: NDArray[np.float64],
    w: NDArray[np.float64],
    beta: NDArray[np.float64],
) -> float:
    z = columns @ beta
    return float(np.sum(w * (np.logaddexp(0.0, z) - y * z)))
