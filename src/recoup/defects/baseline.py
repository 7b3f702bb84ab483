"""Who is expected to go on: a ridge logistic regression on who came, learned from all sessions.

Traffic whose mix shifts changes who is at risk, and so what is expected; it raises no alarm by
itself. Values of an attribute that are rare share one coefficient.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

_RIDGE: Final = 4.0
_STEPS: Final = 50
_HALVINGS: Final = 30
_TOLERANCE: Final = 1e-6
_MOST_VALUES: Final = 24
_LEAST_ROWS: Final = 30
_LEAST, _MOST = 1e-4, 0.995
_HOUR_US: Final = 3_600_000_000


class Design(msgspec.Struct, frozen=True):
    """Who came and when, n rows, as a logistic regression reads it: sparse, for speed.

    Parameters
    ----------
    numbers
        Intercept first, then what is a number: shape (n, p) float64.
    places
        For each attribute, the coefficient of the row's value, from p on; -1 where the value is
        rare or alone: shape (n, k) int64.
    width
        Coefficients in all.
    """

    numbers: NDArray[np.float64]
    places: NDArray[np.int64]
    width: int

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.numbers)

    def __getitem__(self, rows: NDArray[np.bool_]) -> "Design":
        """Pick rows."""
        return Design(self.numbers[rows], self.places[rows], self.width)

    def beside(self, number: NDArray[np.float64]) -> "Design":
        """Add a number to every row; shape (n,)."""
        places = np.where(self.places >= 0, self.places + 1, -1)
        return Design(np.column_stack([self.numbers, number]), places, self.width + 1)


def design(sessions: pl.DataFrame, contexts: Sequence[str], at: NDArray[np.int64]) -> Design:
    """Encode who came and when.

    Parameters
    ----------
    sessions
        One row per shopper at risk, with the context columns.
    at
        When they came to be at risk, int64 microseconds: shape (n,).
    """
    angle = 2 * np.pi * ((at // _HOUR_US) % 24) / 24
    weekend = ((at // (24 * _HOUR_US)) + 3) % 7 >= 5  # noqa: PLR2004
    numbers = np.stack([np.ones(len(at)), np.sin(angle), np.cos(angle), weekend], axis=1)
    width, places = numbers.shape[1], np.full((len(at), len(contexts)), -1, np.int64)
    for index, name in enumerate(contexts):
        codes, values = _common_values(sessions[name])
        places[:, index] = np.where(codes >= 0, codes + width, -1)
        width += values
    return Design(numbers, places, width)


def _common_values(column: pl.Series) -> tuple[NDArray[np.int64], int]:
    """Give a number to each value common enough for a coefficient: codes (n,), and how many."""
    filled = column.cast(pl.String).fill_null("")
    counts = filled.value_counts(sort=False).sort("count", column.name, descending=[True, False])
    common = counts.filter(pl.col("count") >= _LEAST_ROWS)[column.name].head(_MOST_VALUES)
    if len(common) + (counts.height > len(common)) < 2:  # noqa: PLR2004
        return np.full(len(column), -1, np.int64), 0
    ranks = pl.Series(range(len(common)), dtype=pl.Int64)
    codes = filled.replace_strict(common, ranks, default=-1, return_dtype=pl.Int64)
    return codes.to_numpy(), len(common)


def fit_probability(
    known: Design, happened: NDArray[np.bool_], wanted: Design
) -> NDArray[np.float64]:
    """Fit P(happens | design row) and give it for other rows, clipped to [1e-4, 0.995].

    Ridge-penalised Newton steps (iteratively reweighted least squares), halved until they help.

    Parameters
    ----------
    known, happened
        Design and outcome to learn from, n rows and shape (n,).
    wanted
        Design of the m rows to predict for.

    Examples
    --------
    >>> same = Design(np.ones((100, 1)), np.empty((100, 0), np.int64), 1)
    >>> float(fit_probability(same, np.arange(100) < 20, same).round(3)[0])
    0.2
    """
    if not len(happened):
        return np.full(len(wanted), 0.5)
    penalty = np.full(known.width, _RIDGE)
    penalty[0] = 1e-3
    rate = np.clip(happened.mean(), _LEAST, _MOST)
    weights = np.zeros(known.width)
    weights[0] = np.log(rate / (1 - rate))
    loss = _penalised(known, happened, weights, penalty)
    for _ in range(_STEPS):
        gradient, hessian = np.zeros(known.width), np.diag(penalty)
        _accumulate(known.numbers, known.places, happened, weights, gradient, hessian)
        step = np.linalg.solve(hessian, gradient - penalty * weights)
        # Halved as a whole: a step cut coordinate by coordinate points elsewhere and may never end.
        for _ in range(_HALVINGS):
            after = _penalised(known, happened, weights + step, penalty)
            if after <= loss:
                break
            step /= 2.0
        else:
            break
        weights, loss = weights + step, after
        if np.abs(step).max() < _TOLERANCE:
            break
    return np.clip(_chances(wanted.numbers, wanted.places, weights), _LEAST, _MOST)


def _penalised(
    known: Design,
    happened: NDArray[np.bool_],
    weights: NDArray[np.float64],
    penalty: NDArray[np.float64],
) -> float:
    loss = _loss(known.numbers, known.places, happened, weights)
    return loss + float(penalty @ weights**2) / 2


@njit(cache=True, nogil=True)
def _loss(
    numbers: NDArray[np.float64],
    places: NDArray[np.int64],
    happened: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> float:
    total = 0.0
    for row in range(numbers.shape[0]):
        chance = _chance(numbers, places, row, weights)
        total -= np.log(chance if happened[row] else 1.0 - chance)
    return total


@njit(cache=True, nogil=True)
def _chance(
    numbers: NDArray[np.float64],
    places: NDArray[np.int64],
    row: int,
    weights: NDArray[np.float64],
) -> float:
    score = 0.0
    for column in range(numbers.shape[1]):
        score += numbers[row, column] * weights[column]
    for column in range(places.shape[1]):
        if places[row, column] >= 0:
            score += weights[places[row, column]]
    return float(1.0 / (1.0 + np.exp(-min(max(score, -30.0), 30.0))))


@njit(cache=True, nogil=True)
def _chances(
    numbers: NDArray[np.float64], places: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    chances = np.empty(numbers.shape[0])
    for row in range(numbers.shape[0]):
        chances[row] = _chance(numbers, places, row, weights)
    return chances


@njit(cache=True, nogil=True)
def _accumulate(
    numbers: NDArray[np.float64],
    places: NDArray[np.int64],
    happened: NDArray[np.bool_],
    weights: NDArray[np.float64],
    gradient: NDArray[np.float64],
    hessian: NDArray[np.float64],
) -> None:
    """Add every row's part to the gradient and to the (symmetric) Hessian."""
    dense, sparse = numbers.shape[1], places.shape[1]
    at, by = np.empty(dense + sparse, np.int64), np.ones(dense + sparse)
    for row in range(numbers.shape[0]):
        count = dense
        for column in range(dense):
            at[column], by[column] = column, numbers[row, column]
        for column in range(sparse):
            if places[row, column] >= 0:
                at[count], by[count] = places[row, column], 1.0
                count += 1
        chance = _chance(numbers, places, row, weights)
        curve = max(chance * (1.0 - chance), 1e-6)
        for i in range(count):
            gradient[at[i]] += by[i] * (happened[row] - chance)
            for j in range(count):
                hessian[at[i], at[j]] += curve * by[i] * by[j]
