"""Counter-based randomness: every draw is a hash of who draws, where in the journey, and for what.

A journey that does not meet a defect draws the same numbers whether the defect is there or not,
which makes two runs comparable shopper by shopper (common random numbers). All arithmetic stays
below 2**63, so that it is the same with the compiler and without.
"""

import math
from typing import Final

from numba import njit

WORD: Final = 0xFFFFFFFF
_SPREAD: Final = 0x3C6EF372
_SCALE: Final = 1.0 / 4294967296.0


@njit(cache=True, nogil=True)
def mix(word: int) -> int:
    """Scramble 32 bits (lowbias32 with the multipliers 21f0aaad and 735a2d97; Ettinger 2022)."""
    word &= WORD
    word ^= word >> 16
    word = (word * 0x21F0AAAD) & WORD
    word ^= word >> 15
    word = (word * 0x735A2D97) & WORD
    return word ^ (word >> 15)


@njit(cache=True, nogil=True)
def derive(key: int, counter: int) -> int:
    """Give the key of a part: of a visitor under a seed, of a step of a visit, ..."""
    return mix(mix(key ^ ((counter & WORD) * _SPREAD & WORD)) + (counter & WORD))


@njit(cache=True, nogil=True)
def uniform(key: int, purpose: int) -> float:
    """Draw from the open interval (0, 1)."""
    return (derive(key, purpose) + 0.5) * _SCALE


@njit(cache=True, nogil=True)
def normal(key: int, purpose: int) -> float:
    """Draw a standard normal (Box and Muller); uses ``purpose`` and ``purpose + 1``."""
    radius = math.sqrt(-2.0 * math.log(uniform(key, purpose)))
    return radius * math.cos(2.0 * math.pi * uniform(key, purpose + 1))
