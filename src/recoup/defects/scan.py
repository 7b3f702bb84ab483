"""Find when a slice's shoppers went on less than expected: a Bayesian scan over all intervals.

Within a slice each shopper at risk goes on with odds of ``level`` times those expected; during a
defect with odds of ``ratio`` times those, fewer. The level is unknown, about 1. Against "no
defect" stands "a defect in some interval of hours", averaged over levels, ratios and all intervals,
so that the number of places searched is paid for (Bayes factor). Bernoulli likelihoods are summed
by hour and divided by an overdispersion, so that shops noisier than coin flips raise no alarms.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

GRID: Final = np.array([0.002, 0.01, 0.03, 0.08, 0.18, 0.35, 0.55, 0.75, 0.87, 1.0, 1.2, 1.5, 2.0])
"""Multiples of the expected odds that are considered."""
FIRST_LEVEL: Final = 8
LEVEL_PRIOR: Final = np.log(np.array([0.12, 0.5, 0.22, 0.12, 0.04]))
"""Log prior of the level outside a defect, over ``GRID[FIRST_LEVEL:]``."""
LEAST_LOSS: Final = 0.2
"""A defect takes at least this share of those who would have gone on."""
_HUGE: Final = 1e200
_TINY: Final = 1e-200


class Found(NamedTuple):
    """Log Bayes factor, level and ratio of the best fit, and its hours [start, stop)."""

    log_factor: float
    level: float
    ratio: float
    start: int
    stop: int


@njit(cache=True, nogil=True)
def scan(
    hours: NDArray[np.int64],
    expected: NDArray[np.float64],
    went_on: NDArray[np.bool_],
    overdispersion: float,
) -> Found:
    """Weigh "a defect in some interval" against "none" for the rows of one slice.

    Parameters
    ----------
    hours
        Hour of each shopper at risk, ascending, from 0: shape (n,).
    expected
        P(goes on) without a defect, in (0, 1): shape (n,).
    went_on
        Whether they did: shape (n,).
    overdispersion
        At least 1; the likelihood is raised to its inverse.

    Examples
    --------
    >>> hours = np.repeat(np.arange(100), 10)
    >>> went_on = np.arange(1000) % 2 == 0
    >>> went_on[400:600] = False
    >>> found = scan(hours, np.full(1000, 0.5), went_on, 1.0)
    >>> found.start, found.stop, bool(found.log_factor > 50)
    (40, 60, True)
    """
    logs, reach, at = _hourly(hours, expected, went_on, overdispersion)
    levels = GRID.shape[0] - FIRST_LEVEL
    nothing, something, best = -np.inf, -np.inf, -np.inf
    found = Found(0.0, 1.0, 1.0, 0, 0)
    for level in range(levels):
        own = logs[FIRST_LEVEL + level]
        whole = LEVEL_PRIOR[level] + own.sum()
        nothing = np.logaddexp(nothing, whole)
        for ratio in range(FIRST_LEVEL + level):
            if reach[ratio] > (1.0 - LEAST_LOSS) * reach[FIRST_LEVEL + level] + 1e-9:
                continue
            weight, top, start, stop = _intervals(logs[ratio] - own)
            joint = whole - np.log(FIRST_LEVEL + level)
            something = np.logaddexp(something, joint + weight)
            if joint + top > best:
                best = joint + top
                multiple = (GRID[FIRST_LEVEL + level], GRID[ratio])
                found = Found(0.0, multiple[0], multiple[1], at[start], at[stop - 1] + 1)
    return Found(something - nothing, found.level, found.ratio, found.start, found.stop)


@njit(cache=True, nogil=True)
def _hourly(
    hours: NDArray[np.int64],
    expected: NDArray[np.float64],
    went_on: NDArray[np.bool_],
    overdispersion: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Sum the log-likelihood of each multiple over the hours that have rows.

    Beside it, how many would go on at each multiple. Factors are multiplied before their logarithm
    is taken: one logarithm an hour, not one a row.
    """
    logs = np.zeros((GRID.shape[0], hours.shape[0]))
    reach, factors = np.zeros(GRID.shape[0]), np.ones(GRID.shape[0])
    at = np.zeros(hours.shape[0], np.int64)
    used, gone_on, last = -1, 0, hours.shape[0] - 1
    for row in range(hours.shape[0]):
        if used < 0 or at[used] != hours[row]:
            used += 1
            at[used] = hours[row]
        base = expected[row] / (1.0 - expected[row])
        gone_on += went_on[row]
        ends = row == last or hours[row + 1] != hours[row]
        for index in range(GRID.shape[0]):
            odds = GRID[index] * base
            reach[index] += odds / (1.0 + odds)
            factors[index] *= (base if went_on[row] else 1.0) / (1.0 + odds)
            if ends or not _HUGE > factors[index] > _TINY:
                logs[index, used] += np.log(factors[index])
                factors[index] = 1.0
        if ends:
            for index in range(GRID.shape[0]):
                logs[index, used] += gone_on * np.log(GRID[index])
            gone_on = 0
    return logs[:, : used + 1] / overdispersion, reach, at[: used + 1]


@njit(cache=True, nogil=True)
def _intervals(gain: NDArray[np.float64]) -> tuple[float, float, int, int]:
    """Give the log of the mean over intervals of exp(gain within), and the best interval.

    Half of the prior lies on intervals that last until the end (the defect is open), half on all.
    """
    count = gain.shape[0]
    any_weight = 0.5 / (0.5 * count * (count + 1))
    open_weight = 0.5 / count
    log_any, log_open = np.log(any_weight), np.log(any_weight + open_weight)
    total, running = 0.0, 0.0
    top, start, stop = -np.inf, 0, 1
    best, begin = 0.0, 0
    for hour in range(count):
        running = min((running + 1.0) * np.exp(min(gain[hour], 200.0)), _HUGE)
        total = min(total + running, _HUGE)
        if best <= 0.0:
            best, begin = 0.0, hour
        best += gain[hour]
        weighed = best + (log_open if hour == count - 1 else log_any)
        if weighed > top:
            top, start, stop = weighed, begin, hour + 1
    mass = any_weight * total + open_weight * running  # may be too small for a number; `top` is not
    return max(np.log(mass), top) if mass > 0.0 else top, top, start, stop
