"""Means of values that are mostly nothing, and their differences: few buy, and carts are skewed.

A handful of orders says little of how large an order can be: the sample variance is too small just
where the mean came out too low, so that the usual interval misses on one side. Here a mean is that
of a compound Poisson sum, whose interval is skewed as the mean itself is; and until a side has
orders enough of its own, how large they are is told by both sides together.
"""

import math
from typing import Final

import msgspec
import numpy as np
from scipy import special

from recoup.causal.estimate import NOTHING, Estimate, Floats, standard_error

ENOUGH_ORDERS: Final = 50.0
"""Orders of a side (as many as would vary so if all were alike) from which on none is borrowed."""

EVEN: Final = 1e-14
"""Relative variance of a mean under which nothing varies."""


def rare_mean(values: Floats, others: Floats, *, level: float = 0.95) -> Estimate:
    """Estimate a mean of values, most of which may be 0; they may have either sign.

    Parameters
    ----------
    values
        Shape (n,), n at least 2.
    others
        Shape (m,): whose values, beside the own ones, say how large an order is where ``values``
        hold few. Orders ought to be about as large there (how many they are does not matter): the
        limits move with what is borrowed, the value never.
    level
        Confidence of the interval.

    Notes
    -----
    With s = sum x^2 / sum x, the size of an order, a mean m of n values has the variance
    m (s - m) / (n - 1): that of a compound Poisson sum where few are not 0, and always the sample's
    own where s is. The limits are those of a gamma law of that mean and variance; the upper one
    counts half an order more, as a mid-P limit does. Losses are a second such mean, taken off.

    Examples
    --------
    >>> few = np.array([60.0, 30.0, 240.0] + [0.0] * 297)
    >>> found = rare_mean(few, few)
    >>> [round(end, 2) for end in (found.low, found.value, found.high)]
    [0.11, 1.1, 3.76]

    References
    ----------
    Fay, M. P., Feuer, E. J. (1997). Confidence intervals for directly standardized rates: a method
    based on the gamma distribution. Statistics in Medicine 16, 791-801.
    """
    gains, losses = (
        _one_signed(np.maximum(sign * values, 0.0), np.maximum(sign * others, 0.0), level)
        for sign in (1.0, -1.0)
    )
    both = math.sqrt(gains.variance * losses.variance) * len(values)
    shared = min(gains.mean * losses.mean / both, 1.0) if both > 0 else 0.0
    value = float(values.mean())
    below = _joined(gains.mean - gains.low, losses.high - losses.mean, shared)
    above = _joined(gains.high - gains.mean, losses.mean - losses.low, shared)
    return Estimate(value, value - below, value + above, standard_error(values - value))


def difference_of_rare_means(one: Floats, other: Floats, *, level: float = 0.95) -> Estimate:
    """Estimate the difference of means of two independent groups, few of whom have a value.

    NaN where a side has fewer than two rows, or nothing varies.

    Examples
    --------
    >>> treated = np.array([60.0, 30.0, 240.0, 50.0, 90.0] + [0.0] * 295)
    >>> found = difference_of_rare_means(treated, np.array([40.0] + [0.0] * 99))
    >>> [round(end, 2) for end in (found.low, found.value, found.high)]
    [-3.21, 1.17, 3.68]
    """
    if min(len(one), len(other)) < 2 or max(np.ptp(one), np.ptp(other)) == 0:  # noqa: PLR2004
        return NOTHING
    return difference(rare_mean(one, other, level=level), rare_mean(other, one, level=level))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """Take an independent estimate from another of the same level; intervals may be skewed.

    Examples
    --------
    >>> found = difference(Estimate(5.0, 2.0, 9.0, 1.0), Estimate(1.0, 0.0, 5.0, 1.0))
    >>> found.value, found.low, round(found.high, 3)
    (4.0, -1.0, 8.123)

    References
    ----------
    Zou, G. Y., Donner, A. (2008). Construction of confidence limits about effect measures: a
    general approach. Statistics in Medicine 27, 1693-1702.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, math.hypot(one.se, other.se))


class _Mean(msgspec.Struct, frozen=True):
    """A mean of values that are at least 0, its limits, and the variance of the mean."""

    mean: float
    low: float
    high: float
    variance: float


def _one_signed(values: Floats, others: Floats, level: float) -> _Mean:
    size, rows, mean = _size(values, others), len(values), float(values.mean())
    more, tail = mean + size / rows / 2, (1.0 - level) / 2
    variance, wider = (each * max(size - each, 0.0) / (rows - 1) for each in (mean, more))
    low, high = _gamma_quantile(mean, variance, tail), _gamma_quantile(more, wider, 1.0 - tail)
    return _Mean(mean, low, high, variance)


def _size(values: Floats, others: Floats) -> float:
    """Give the size of an order, by the own ones as far as they are enough."""
    own, both = (float(x.sum()) for x in (values, np.concatenate([values, others])))
    if both == 0:
        return 0.0
    square = float(values @ values)
    together = (square + float(others @ others)) / both
    if own == 0:
        return together
    borrowed = max(0.0, 1.0 - own**2 / square / ENOUGH_ORDERS)
    return (1.0 - borrowed) * square / own + borrowed * together


def _gamma_quantile(mean: float, variance: float, probability: float) -> float:
    if not variance > EVEN * mean**2:  # NaN too
        return mean
    return float(special.gammaincinv(mean**2 / variance, probability)) * variance / mean


def _joined(one: float, other: float, shared: float) -> float:
    """Join distances to limits of two means, of gains and of losses, which cannot both be had."""
    return math.sqrt(one**2 + other**2 + 2 * shared * one * other)
