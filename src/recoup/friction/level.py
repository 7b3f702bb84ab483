"""The level of a shop: how much more its customers buy, of late, than what is known of them tells.

Seasons and campaigns move all customers at once, and a year of orders cannot tell a season. What it
can tell is how far the level of one horizon lasts into the next: an autoregression of order one
over the horizons behind, drawn towards 0 where these are few or disagree.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPREAD: Final = 0.25
"""How far, in log-odds, a level commonly lies from 0: the deviation of the priors."""

_STEPS: Final = 20


def level_of(positive: NDArray[np.bool_], log_odds: Floats) -> float:
    """Give what, added to log-odds, makes as many buyers expected as there were.

    Few customers tell little of it: a normal prior about 0, of deviation :data:`SPREAD`, draws it
    in.

    Parameters
    ----------
    positive, log_odds
        Who bought, and what was said of them: shape (n,).

    Examples
    --------
    >>> bought = np.arange(4_000) % 2 == 0
    >>> [round(level_of(bought[:n], np.full(n, -1.0)), 2) for n in (4_000, 4)]
    [0.98, 0.06]
    """
    level, prior = 0.0, SPREAD**-2
    for _ in range(_STEPS):
        said = 0.5 * (1.0 + np.tanh(0.5 * (log_odds + level)))
        excess = float(positive.sum() - said.sum()) - prior * level
        level += excess / (float((said * (1.0 - said)).sum()) + prior)
    return level


def expected_level(levels: Sequence[float]) -> float:
    """Give the next horizon's level, from those behind, the latest first.

    Examples
    --------
    >>> round(expected_level([0.4, 0.3, 0.25, 0.1]), 2)  # it lasts
    0.39
    >>> expected_level([0.4, -0.3, 0.4, -0.3]), expected_level([0.4])  # it does not; who knows
    (0.0, 0.0)
    """
    found = np.asarray(levels, np.float64)
    later, earlier = found[:-1], found[1:]
    lasting = float(later @ earlier) / (float(earlier @ earlier) + SPREAD**2)
    return max(0.0, min(1.0, lasting)) * float(found[0]) if len(found) else 0.0
