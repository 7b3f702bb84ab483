"""An estimate with its interval, and the ways to get one from scores."""

import math
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from recoup.errors import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

IntervalKind = Literal["analytic", "cluster", "bootstrap"]

BOOTSTRAP_SEED: Final = 12_345
BOOTSTRAP_RESAMPLES: Final = 1_000


class Estimate(msgspec.Struct, frozen=True):
    """A number estimated from a log, with its standard error and interval.

    Parameters
    ----------
    value
        The point estimate.
    low, high
        The interval's ends; both NaN where no interval exists.
    se
        Standard error, in the unit of ``value``.

    Examples
    --------
    >>> estimate = normal_estimate(2.0, 0.5)
    >>> round(estimate.low, 3), round(estimate.high, 3)
    (1.02, 2.98)
    """

    value: float
    low: float
    high: float
    se: float


NOTHING: Final = Estimate(math.nan, math.nan, math.nan, math.nan)
"""Where no estimate exists."""


def normal_estimate(value: float, se: float, *, level: float = 0.95) -> Estimate:
    """Put a normal interval of confidence ``level``, in (0, 1), around a value."""
    reach = normal_quantile(level) * se
    return Estimate(float(value), float(value - reach), float(value + reach), float(se))


def normal_quantile(level: float) -> float:
    """Give the half width, in standard errors, of a two-sided normal interval.

    Raises
    ------
    ConfigError
        If ``level`` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError(f"Expected a confidence level in (0, 1), got {level}", hint="use 0.95")
    return float(special.ndtri(0.5 + level / 2))


def mean_estimate(
    scores: Floats,
    *,
    level: float = 0.95,
    clusters: Ints | None = None,
    count: Floats | None = None,
) -> Estimate:
    """Estimate a mean from scores, rows or whole clusters being independent.

    Parameters
    ----------
    scores
        Shape (n,).
    clusters
        Shape (n,): codes 0..k-1 of what is drawn independently; each row on its own where None.
    count
        Shape (n,): how many equal rows each stands for; 1 where None.

    Notes
    -----
    The interval is Student's, with the `freedom` that the scores' kurtosis leaves: a normal one is
    too narrow where a few scores make up the variance.

    Examples
    --------
    >>> mean_estimate(np.array([1.0, 2.0, 3.0, 4.0])).value
    2.5
    """
    value = mean(scores, count)
    return _student(value, scores - value, clusters, count, level)


def mean(values: Floats, count: Floats | None = None) -> float:
    """Give the mean of rows, shape (n,), that each stand for ``count`` equal ones."""
    return float(values.mean() if count is None else values @ count / count.sum())


def standard_error(
    influence: Floats, clusters: Ints | None = None, count: Floats | None = None
) -> float:
    """Give the standard error of a mean whose rows have these centred influences, shape (n,)."""
    rows = float(len(influence) if count is None else count.sum())
    if clusters is None:
        units, weighed = rows, influence if count is None else influence * count
        spread = float(influence @ weighed)
    else:
        sums = np.bincount(clusters, influence if count is None else influence * count)
        units, spread = float(len(sums)), float(sums @ sums)
    if units <= 1:
        return math.nan
    return math.sqrt(spread * units / (units - 1)) / rows


def ratio_estimate(
    top: Floats,
    bottom: Floats,
    *,
    level: float = 0.95,
    clusters: Ints | None = None,
    count: Floats | None = None,
) -> Estimate:
    """Estimate a ratio of means by the delta method, from paired rows of shape (n,)."""
    denominator = mean(bottom, count)
    if denominator == 0:
        return NOTHING
    value = mean(top, count) / denominator
    influence = (top - value * bottom) / denominator
    return _student(value, influence, clusters, count, level)


def _student(
    value: float, influence: Floats, clusters: Ints | None, count: Floats | None, level: float
) -> Estimate:
    se = standard_error(influence, clusters, count)
    return student_estimate(value, se, freedom(influence, clusters, count), level=level)


def freedom(influence: Floats, clusters: Ints | None = None, count: Floats | None = None) -> float:
    """Give how many degrees of freedom the variance of centred influences, shape (n,), has.

    Satterthwaite's, 2 / the relative variance of the sample variance: 2 n / (kurtosis - 1), which
    is n for normal scores, and few where a few large ones make up the variance. At most n - 1.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> int(freedom(rng.normal(size=10_000))) > 9_000  # normal
    True
    >>> round(freedom(np.array([1.0] * 5 + [-5 / 995] * 995)), 1)  # five of a thousand count
    10.2
    """
    number = np.ones(len(influence)) if count is None else count
    if clusters is not None:
        influence = np.bincount(clusters, influence * number).astype(np.float64)
        number = np.ones(len(influence))
    units = float(number.sum())
    square = float(influence**2 @ number)
    if units <= 1 or square == 0:
        return math.inf
    kurtosis = units * float(influence**4 @ number) / square**2
    return min(2.0 * units / max(kurtosis - 1.0, 1e-9), units - 1.0)


def student_estimate(value: float, se: float, freedom: float, *, level: float = 0.95) -> Estimate:
    """Put an interval around a value whose variance has so many degrees of freedom."""
    normal = normal_estimate(value, se, level=level)
    if math.isinf(freedom) or math.isnan(se):
        return normal
    reach = float(special.stdtrit(freedom, 0.5 + level / 2)) * se
    return Estimate(normal.value, value - reach, value + reach, normal.se)


def bootstrap_estimate(
    scores: Floats,
    *,
    level: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Estimate:
    """Estimate a mean with a percentile interval over resampled rows.

    Notes
    -----
    The generator is numpy's frozen MT19937 stream, not its newest one: that stream never changes
    between releases, and it is the one published off-policy results were made with.

    Examples
    --------
    >>> estimate = bootstrap_estimate(np.arange(100.0), resamples=200)
    >>> estimate.low < estimate.value < estimate.high
    True
    """
    draws = np.random.RandomState(seed)
    means = np.array([scores[_resample(draws, len(scores))].mean() for _ in range(resamples)])
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(float(scores.mean()), float(low), float(high), float(means.std(ddof=1)))


def _resample(draws: np.random.RandomState, count: int) -> Ints:
    return np.asarray(draws.randint(0, count, size=count), np.int64)
