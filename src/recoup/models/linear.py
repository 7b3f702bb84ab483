"""A logistic regression over squashed features: steadier than trees where purchases are few."""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models.squash import center_and_spread, scale, squash, squash_one

_STEPS: Final = 30
_TOLERANCE: Final = 1e-10


class LinearModel(NamedTuple):
    """Log-odds ``bias + sum of weight * z``, with ``missing`` in the place of an unknown value.

    ``z`` is ``sign(x) log(1 + |x|)``, less ``center``, over ``spread``, held within 4 of 0.

    Parameters
    ----------
    center, spread, weight, missing
        One per feature, shape (d,).
    bias
        Shape (1,).

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [np.nan]])
    >>> model = fit_linear(x, np.array([False, False, True, True, False]), np.ones(5), l2=0.01)
    >>> linear_rows(x, model).round(1).tolist()
    [-6.7, -1.6, 1.3, 3.4, -2.5]
    """

    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    weight: NDArray[np.float64]
    missing: NDArray[np.float64]
    bias: NDArray[np.float64]


def fit_linear(
    features: NDArray[np.float64],
    positive: NDArray[np.bool_],
    weight: NDArray[np.float64],
    *,
    l2: float,
) -> LinearModel:
    """Fit by Newton's method to the mean log loss plus ``l2 / 2`` times the squared weights.

    Parameters
    ----------
    features, positive, weight
        Shapes (n, d), (n,), (n,); NaN is missing.

    Raises
    ------
    ModelError
        If the penalty is not positive.
    """
    if l2 <= 0.0:
        raise ModelError(f"Expected a positive penalty, got {l2}")
    missing = np.isnan(features)
    squashed = squash(features, np.empty(features.shape))
    center, spread = center_and_spread(squashed)
    z = scale(squashed, center, spread)
    z[missing] = 0.0
    design = np.column_stack([z, missing, np.ones(len(z))])
    fitted = _newton(design, positive.astype(np.float64), weight / weight.sum(), l2)
    d = features.shape[1]
    return LinearModel(center, spread, fitted[:d], fitted[d : 2 * d], fitted[2 * d :])


def no_linear(width: int) -> LinearModel:
    """Make the model that gives log-odds of 0 to every row of ``width`` features."""
    zeros = np.zeros(width)
    return LinearModel(zeros, np.ones(width), zeros, zeros, np.zeros(1))


def linear_rows(features: NDArray[np.float64], model: LinearModel) -> NDArray[np.float64]:
    """Give the log-odds of rows of shape (n, d): shape (n,)."""
    out = np.empty(len(features))
    _score_rows(np.ascontiguousarray(features), model, out)
    return out


@njit(cache=True, nogil=True)
def linear_one(row: NDArray[np.float64], model: LinearModel) -> float:
    """Give the log-odds of one row, in compiled code."""
    total = model.bias[0]
    for j in range(row.shape[0]):
        x = row[j]
        if x != x:  # noqa: PLR0124
            total += model.missing[j]
        else:
            total += model.weight[j] * squash_one(x, model.center[j], model.spread[j])
    return float(total)


@njit(cache=True, nogil=True)
def _score_rows(
    features: NDArray[np.float64], model: LinearModel, out: NDArray[np.float64]
) -> None:
    for i in range(features.shape[0]):
        out[i] = linear_one(features[i], model)


def _newton(
    design: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], l2: float
) -> NDArray[np.float64]:
    penalty = np.full(design.shape[1], l2)
    penalty[-1] = 1e-9
    beta = np.zeros(design.shape[1])

    def loss(beta: NDArray[np.float64]) -> float:
        z = design @ beta
        return float(w @ (np.logaddexp(0.0, z) - y * z) + 0.5 * penalty @ beta**2)

    now = loss(beta)
    for _ in range(_STEPS):
        p = 0.5 * (1.0 + np.tanh(0.5 * (design @ beta)))
        gradient = design.T @ (w * (p - y)) + penalty * beta
        curvature = (design * (w * p * (1.0 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > _TOLERANCE and loss(beta - size * step) > now:
            size /= 2.0
        beta = beta - size * step
        before, now = now, loss(beta)
        if before - now < _TOLERANCE:
            break
    return np.asarray(beta)
