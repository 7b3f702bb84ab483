"""Squashed features: ``sign(x) log(1 + |x|)``, scaled, as models that add them up read them."""

import math
from collections.abc import Iterator
from typing import Final, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

FARTHEST: Final = 4.0
"""How far from 0 a scaled value is held."""
_LEAST_SPREAD: Final = 1e-6
_CHUNK: Final = 1 << 14

Reals = NDArray[np.float64]
Table = TypeVar("Table", NDArray[np.float32], NDArray[np.float64])


def squash(features: Reals, out: Table) -> Table:
    """Squash features of shape (n, d) into ``out``, which is given back; NaN stays.

    Beside ``out`` it takes memory for some rows only.
    """
    for into, part in zip(_chunks(out), _chunks(features), strict=True):
        into[:] = np.sign(part) * np.log1p(np.abs(part))
    return out


def center_and_spread(squashed: Table) -> tuple[Reals, Reals]:
    """Give the mean and the standard deviation of each column's known values; never a spread of 0.

    Examples
    --------
    >>> center_and_spread(np.array([[1.0], [np.nan], [3.0]]))
    (array([2.]), array([1.]))
    """
    known = np.maximum(sum((~np.isnan(part)).sum(axis=0) for part in _chunks(squashed)), 1)
    total = sum(np.nansum(part, axis=0, dtype=np.float64) for part in _chunks(squashed))
    center = np.asarray(total / known)
    square = sum(np.nansum((part - center) ** 2, axis=0) for part in _chunks(squashed))
    return center, np.maximum(np.sqrt(square / known), _LEAST_SPREAD)


def scale(squashed: Table, center: Table, spread: Table) -> Table:
    """Put squashed values on one scale, within 4 of 0; NaN stays."""
    scaled: Table = np.clip((squashed - center) / spread, -FARTHEST, FARTHEST)
    return scaled


@njit(cache=True, nogil=True)
def squash_one(x: float, center: float, spread: float) -> float:
    """Squash and scale one known value, in compiled code."""
    z = math.log1p(abs(x))
    z = ((z if x >= 0.0 else -z) - center) / spread
    return min(max(z, -FARTHEST), FARTHEST)


def _chunks(table: Table) -> Iterator[Table]:
    for start in range(0, len(table), _CHUNK):
        yield table[start : start + _CHUNK]
