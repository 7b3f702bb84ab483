"""The shop's clock: how much activity each hour of a run sees."""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import MICROS
from recoup.simulator import catalogue

HOUR_US: Final = 3_600 * MICROS
DAY_US: Final = 24 * HOUR_US


def clock_of(begin: int, end: int, growth: float) -> NDArray[np.float64]:
    """Give the activity up to each full hour of a run, in hours of mean activity.

    Parameters
    ----------
    growth
        How much more traffic there is at the end than at the beginning, as a share.
    """
    hours = np.arange(-(-(end - begin) // HOUR_US) + 1)
    of_week = ((begin // HOUR_US) + hours + 3 * 24) % (7 * 24)
    weights = catalogue.RHYTHM[of_week] / catalogue.RHYTHM.mean()
    weights = weights * (1.0 + growth * hours / max(len(hours) - 1, 1))
    return np.concatenate([[0.0], np.cumsum(weights)])


def moment_at(begin: int, end: int, share: float) -> int:
    """Give the moment at which a share of the run has passed, on a full second."""
    return begin + round(share * (end - begin) / MICROS) * MICROS


def bounds(begin: int, end: int, since: float, until: float | None) -> tuple[int, int]:
    """Give two moments stated as shares of the run; None is its end."""
    return moment_at(begin, end, since), moment_at(begin, end, 1.0 if until is None else until)


@njit(cache=True, nogil=True)
def time_of(clock: NDArray[np.float64], activity: float) -> int:
    """Give the microseconds since the run began at which the rhythm has made this much activity."""
    low, high = 0, clock.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if clock[middle] <= activity:
            low = middle
        else:
            high = middle
    part = (activity - clock[low]) / (clock[high] - clock[low])
    return int((low + part) * 3.6e9)


@njit(cache=True, nogil=True)
def activity_at(clock: NDArray[np.float64], since_begin: int) -> float:
    """Give the activity up to a moment, microseconds since the run began."""
    hour = min(since_begin // 3_600_000_000, clock.shape[0] - 2)
    part = (since_begin - hour * 3_600_000_000) / 3.6e9
    return float(clock[hour] + part * (clock[hour + 1] - clock[hour]))
