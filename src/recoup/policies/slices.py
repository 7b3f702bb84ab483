"""Counter-based randomness, and the slice that each visitor belongs to for good."""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.decisions import Slice

SLICES: Final[tuple[Slice, ...]] = ("policy", "random", "holdout")
"""Names of the slices; a slice's position is its code."""

POLICY, RANDOM, HOLDOUT = range(3)
_LOW: Final = 0xFFFFFFFF
_HALF: Final = 1 << 31


@njit(cache=True, nogil=True)
def uniform(seed: int, counter: int) -> float:
    """Give the uniform draw in (0, 1) that belongs to a seed and a counter, the same for ever.

    Two rounds of a 32-bit mixer (Wellons' low-bias search) over both halves of each number; 2**32
    distinct values.

    Examples
    --------
    >>> round(uniform(7, 1), 6), round(uniform(7, 2), 6)
    (0.817243, 0.763149)
    """
    return (_absorb(_absorb(0x9E37, seed), counter) + 0.5) / 4294967296.0


@njit(cache=True, nogil=True)
def combine(first: int, second: int) -> int:
    """Hash two int64 numbers into one, int64.

    Examples
    --------
    >>> combine(1, 2) == combine(2, 1)
    False
    """
    low = _absorb(_absorb(0x51ED, first), second)
    high = _absorb(_absorb(0x2C1B, second), first)
    return (high - _HALF) * (_LOW + 1) + low


@njit(cache=True, nogil=True)
def slice_of(seed: int, visitor: int, shares: NDArray[np.float64]) -> int:
    """Give the code of a visitor's slice; ``shares`` are those of random and holdout, (2,).

    Examples
    --------
    >>> SLICES[slice_of(0, 17, np.array([0.0, 1.0]))]
    'holdout'
    """
    draw = uniform(seed, visitor)
    if draw < shares[1]:
        return HOLDOUT
    return RANDOM if draw < shares[0] + shares[1] else POLICY


@njit(cache=True, nogil=True)
def _absorb(state: int, number: int) -> int:
    low = _mix(state ^ (number & _LOW))
    return _mix(low ^ ((number >> 32) & _LOW))


@njit(cache=True, nogil=True)
def _mix(word: int) -> int:
    """Mix 32 bits; both factors stay below 2**31, so that no product leaves int64."""
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _LOW
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _LOW
    return word ^ (word >> 15)
