"""Who is expected to go on: a ridge logistic regression on who came, learned from all sessions.

Traffic whose mix shifts changes who is at risk, and so what is expected; it raises no alarm by
itself. Values of an attribute that are rare share one coefficient.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

_RIDGE: Final = 4.0
_STEPS: Final = 12
_MOST_VALUES: Final = 24
_LEAST_ROWS: Final = 30
_LEAST, _MOST = 1e-4, 0.995
_HOUR_US: Final = 3_600_000_000


def design(
    sessions: pl.DataFrame, contexts: Sequence[str], at: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Encode who came and when: shape (n, d), an intercept first.

    Parameters
    ----------
    sessions
        One row per shopper at risk, with the context columns.
    at
        When they came to be at risk, int64 microseconds: shape (n,).
    """
    hour = (at // _HOUR_US) % 24
    angle = 2 * np.pi * hour / 24
    weekend = (((at // (24 * _HOUR_US)) + 3) % 7 >= 5).astype(np.float64)  # noqa: PLR2004
    columns = [np.ones(len(at)), np.sin(angle), np.cos(angle), weekend]
    for name in contexts:
        columns.extend(_one_hot(sessions[name]))
    return np.stack(columns, axis=1)


def _one_hot(column: pl.Series) -> list[NDArray[np.float64]]:
    filled = column.fill_null("")
    counts = filled.value_counts(sort=False).sort("count", column.name, descending=[True, False])
    common = counts.filter(pl.col("count") >= _LEAST_ROWS)[column.name].head(_MOST_VALUES)
    if len(common) + (counts.height > len(common)) < 2:  # noqa: PLR2004
        return []
    return [(filled == value).to_numpy().astype(np.float64) for value in common]


def fit_probability(
    known: NDArray[np.float64], happened: NDArray[np.bool_], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fit P(happens | design row) and give it for other rows, clipped to [1e-4, 0.995].

    Parameters
    ----------
    known, happened
        Design and outcome to learn from, shapes (n, d) and (n,).
    wanted
        Design to predict for, shape (m, d).

    Examples
    --------
    >>> ones = np.ones((100, 1))
    >>> float(fit_probability(ones, np.arange(100) < 20, ones[:1]).round(3)[0])
    0.2
    """
    if not len(happened):
        return np.full(len(wanted), 0.5)
    penalty = np.full(known.shape[1], _RIDGE)
    penalty[0] = 1e-3
    rate = np.clip(happened.mean(), _LEAST, _MOST)
    weights = np.zeros(known.shape[1])
    weights[0] = np.log(rate / (1 - rate))
    for _ in range(_STEPS):
        chance = _logistic(known @ weights)
        curve = np.maximum(chance * (1 - chance), 1e-6)
        gradient = known.T @ (happened - chance) - penalty * weights
        hessian = (known * curve[:, None]).T @ known + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-6:  # noqa: PLR2004
            break
    return np.clip(_logistic(wanted @ weights), _LEAST, _MOST)


def _logistic(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(score, -30, 30)))
