"""Who was at risk of not going on, step by step: the rows that defects are judged on."""

import itertools
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.defects.baseline import design, fit_probability
from recoup.defects.tables import CONTEXTS, LEVELS

NEVER_US: Final = np.iinfo(np.int64).max
HOUR_US: Final = 3_600_000_000
SETTLED_US: Final = 1_800_000_000
"""A session counts once it has been silent for half an hour: till then it may still go on."""
_LEAST_SHARE: Final = 0.05
PURCHASE: Final = len(LEVELS) - 1
CHECKOUT_LEVEL: Final = LEVELS.index("begin_checkout")


class Step(msgspec.Struct, frozen=True):
    """A step of the funnel: n sessions that came to ``level``, and whether they went on.

    Parameters
    ----------
    level, onward
        Index into ``LEVELS`` of where they stood, and of where the step leads.
    session
        Row of each session in the sessions table, ascending: shape (n,).
    at
        When they came to ``level``, int64 microseconds.
    leaves
        When they went on, or ``NEVER_US``.
    went_on, bought
        Whether they reached ``onward``, and whether they bought.
    expected
        P(goes on), from who they are.
    orders
        P(buys), from who they are.
    """

    level: int
    onward: int
    session: NDArray[np.int64]
    at: NDArray[np.int64]
    leaves: NDArray[np.int64]
    went_on: NDArray[np.bool_]
    bought: NDArray[np.bool_]
    expected: NDArray[np.float64]
    orders: NDArray[np.float64]


def settled(sessions: pl.DataFrame, now: int) -> pl.DataFrame:
    """Keep the sessions that have ended, in order of key."""
    return sessions.filter(pl.col("last") <= now - SETTLED_US)


def reach_times(sessions: pl.DataFrame) -> NDArray[np.int64]:
    """Give when each session reached each level, ``NEVER_US`` where never: shape (n, levels).

    A level is reached with its own event, or with that of a later level: a lost or skipped step
    does not look like a shopper who left.
    """
    times = np.full((sessions.height, len(LEVELS)), NEVER_US)
    times[:, 0] = sessions["first"].to_numpy()
    for level in range(1, len(LEVELS)):
        times[:, level] = sessions[f"t{level}"].fill_null(NEVER_US).to_numpy()
    return np.minimum.accumulate(times[:, ::-1], axis=1)[:, ::-1]


def used_levels(sessions: pl.DataFrame) -> list[int]:
    """Give the levels that this shop's buyers pass through, the first and last always.

    Lists are no step: shops show them anywhere.
    """
    buyers = sessions.filter(pl.col(f"t{PURCHASE}").is_not_null())
    seen = [buyers[f"t{level}"].is_not_null().mean() or 0.0 for level in range(1, PURCHASE)]
    inner = [level + 1 for level, share in enumerate(seen) if level and share >= _LEAST_SHARE]  # type: ignore[operator]
    return [0, *inner, PURCHASE]


def steps_of(sessions: pl.DataFrame) -> list[Step]:
    """Give the steps of the funnel with what is expected of each session at risk.

    Where the checkout has steps of its own, it is also taken as a whole: their tags may be lost.
    """
    reached = reach_times(sessions)
    levels = used_levels(sessions)
    pairs = list(itertools.pairwise(levels))
    if any(CHECKOUT_LEVEL < level < PURCHASE for level in levels):
        pairs.append((CHECKOUT_LEVEL, PURCHASE))
    return [_step(sessions, reached, level, onward) for level, onward in pairs]


def _step(sessions: pl.DataFrame, reached: NDArray[np.int64], level: int, onward: int) -> Step:
    rows = np.flatnonzero(reached[:, level] < NEVER_US)
    at = reached[rows, level]
    leaves = reached[rows, onward]
    went_on = leaves < NEVER_US
    bought = reached[rows, PURCHASE] < NEVER_US
    who = design(sessions[rows], CONTEXTS, at)
    expected = fit_probability(who, went_on, who)
    orders = expected if onward == PURCHASE else fit_probability(who, bought, who)
    return Step(level, onward, rows, at, leaves, went_on, bought, expected, orders)
