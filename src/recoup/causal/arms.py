"""The mean of an experiment's arm, from sums or rows, and the comparison of two of them."""

import math
from typing import Final, Self

import msgspec
import numpy as np
from scipy import stats

from recoup.causal.estimate import Estimate, Floats, Ints, normal_quantile, standard_error
from recoup.causal.sequences import normal_log_mixture, normal_mixture_bound
from recoup.errors import ConfigError, SchemaError

_SCALE_ERRORS: Final = 4.0


class Sums(msgspec.Struct, frozen=True):
    """Sums over an arm's units of one column, which suffice for its mean and variance.

    Parameters
    ----------
    units
        How many.
    total, squares
        Sum of the values, and of their squares.

    Examples
    --------
    >>> round(Sums(4, 10.0, 30.0).variance, 4)
    1.6667
    """

    units: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        """Mean of the units."""
        return self.total / self.units

    @property
    def variance(self) -> float:
        """Sample variance of the units."""
        return self.covariance(self, self.squares)

    def covariance(self, other: "Sums", products: float) -> float:
        """Give the sample covariance with another column of the same units."""
        return (products - self.total * other.total / self.units) / (self.units - 1)


class ArmMean(msgspec.Struct, frozen=True):
    """A metric's mean in one arm.

    Parameters
    ----------
    units
        How many were drawn independently: rows, or clusters.
    mean
        The metric, adjusted by covariates where there are any.
    variance
        Of one unit: ``variance / units`` is that of the mean.
    plain
        The metric as it is, which relative effects are relative to.

    Examples
    --------
    >>> control, treated = ArmMean.proportion(1000, 100), ArmMean.proportion(1010, 140)
    >>> effect = compare_arms(control, treated, test="z")
    >>> round(effect.value, 5), round(effect.p_value, 5)
    (0.03861, 0.00745)
    """

    units: float
    mean: float
    variance: float
    plain: float

    @classmethod
    def from_sums(cls, column: Sums) -> Self:
        """Make the mean of a column."""
        return cls(column.units, column.mean, column.variance, column.mean)

    @classmethod
    def proportion(cls, units: int, successes: float) -> Self:
        """Make the share of units with a success."""
        rate = successes / units
        return cls(units, rate, rate * (1 - rate), rate)

    @classmethod
    def ratio(cls, top: Sums, bottom: Sums, products: float) -> Self:
        """Make the ratio of two means by the delta method; ``products`` sums top times bottom."""
        value = top.mean / bottom.mean
        covariance = top.covariance(bottom, products)
        spread = top.variance - 2 * value * covariance + value**2 * bottom.variance
        return cls(top.units, value, spread / bottom.mean**2, value)

    @classmethod
    def adjusted(cls, after: Sums, before: Sums, products: float, slope: float) -> Self:
        """Make the mean less ``slope`` times that of a covariate from before (CUPED).

        References
        ----------
        Deng, Xu, Kohavi & Walker (2013), Improving the sensitivity of online controlled
        experiments by utilizing pre-experiment data.
        """
        covariance = after.covariance(before, products)
        spread = after.variance - 2 * slope * covariance + slope**2 * before.variance
        return cls(after.units, after.mean - slope * before.mean, spread, after.mean)

    @classmethod
    def from_influence(
        cls, mean: float, influence: Floats, clusters: Ints | None, *, plain: float
    ) -> Self:
        """Make a mean from the centred influence of each row, shape (n,), on it."""
        units = len(influence) if clusters is None else len(np.unique(clusters))
        codes = None if clusters is None else np.unique(clusters, return_inverse=True)[1]
        return cls(units, mean, standard_error(influence, codes) ** 2 * units, plain)

    @property
    def mean_variance(self) -> float:
        """Variance of the mean."""
        return self.variance / self.units

    @property
    def is_scale(self) -> bool:
        """Whether the mean is far enough from 0, four errors, for others to be relative to it."""
        return abs(self.plain) > _SCALE_ERRORS * math.sqrt(self.mean_variance)


class Comparison(Estimate, frozen=True, kw_only=True):
    """How far one arm's mean lies from another's.

    Parameters
    ----------
    p_value
        Of no difference, two-sided; under a sequential test, valid at every look.
    relative
        Whether the difference is in units of the control's mean.

    Examples
    --------
    >>> Comparison(0.1, 0.0, 0.2, 0.05, p_value=0.05, relative=False).p_value
    0.05
    """

    p_value: float
    relative: bool


def compare_arms(
    control: ArmMean,
    treated: ArmMean,
    *,
    relative: bool = False,
    test: str = "t",
    tuned_at: float = 5_000,
    level: float = 0.95,
) -> Comparison:
    """Estimate the difference of two arms, with its interval and p-value.

    Parameters
    ----------
    relative
        Divide by the size of the control's mean, whose own error the interval holds (delta method).
    test
        ``t``: Welch's, at a horizon fixed beforehand. ``z``: the same, normal. ``anytime``: a
        confidence sequence, to be looked at as often as one likes.
    tuned_at
        Units of both arms at which ``anytime`` is tightest.

    Raises
    ------
    ConfigError
        If ``test`` is none of them, or a relative difference has a control of mean 0.
    SchemaError
        If an arm has fewer than two units.

    Examples
    --------
    >>> control = ArmMean.from_sums(Sums(3407, 1396.87, 52377.9767))
    >>> treated = ArmMean.from_sums(Sums(3461, 2422.7, 134698.29))
    >>> round(compare_arms(control, treated).p_value, 6)
    0.020158
    >>> round(compare_arms(control, treated, test="anytime").p_value, 6)
    0.290745

    References
    ----------
    Welch (1947). Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), Time-uniform central limit
    theory and asymptotic confidence sequences, Annals of Statistics 52 (``anytime``: it holds for
    samples large enough for a normal approximation from the first look on).
    """
    if min(control.units, treated.units) < 2:  # noqa: PLR2004 - a variance needs two
        raise SchemaError("Expected at least two units in either arm, got fewer")
    if relative and control.plain == 0:
        raise ConfigError(
            "Expected a control mean other than 0 for a relative effect", hint="compare absolutely"
        )
    difference, variance = treated.mean - control.mean, control.mean_variance
    if relative:
        variance *= (treated.plain / control.plain) ** 2
    scale = abs(control.plain) if relative else 1.0  # so that the direction stays
    value = difference / scale
    se = math.sqrt(treated.mean_variance + variance) / scale
    reach, p_value = _judge(value, se, (control, treated), test, tuned_at, level)
    low, high = value - reach, value + reach
    return Comparison(value, low, high, se, p_value=p_value, relative=relative)


def optimal_slope(covariances: Floats, spreads: Floats) -> Floats:
    """Solve for the covariates' common slope that leaves a difference of arms the least variance.

    Parameters
    ----------
    covariances
        Shape (k,): sum over arms of the covariance of covariates and outcome over the arm's units.
    spreads
        Shape (k, k): the same of the covariates among themselves.

    Notes
    -----
    With weights 1 / units, adjusting never loses against not adjusting, however unequal the arms.
    """
    return np.asarray(np.linalg.lstsq(spreads, covariances, rcond=None)[0], np.float64)


def _judge(
    value: float,
    se: float,
    arms: tuple[ArmMean, ArmMean],
    test: str,
    tuned_at: float,
    level: float,
) -> tuple[float, float]:
    """Give the interval's half width and the p-value."""
    normal = normal_quantile(level)
    if se == 0:
        return 0.0, 1.0 if value == 0 else 0.0
    match test:
        case "z":
            return normal * se, float(2 * stats.norm.sf(abs(value) / se))
        case "t":
            freedom = _freedom(*arms)
            reach = float(stats.t.ppf(0.5 + level / 2, freedom)) * se
            return reach, float(2 * stats.t.sf(abs(value) / se, freedom))
        case "anytime":
            return _judge_anytime(value / se, arms[0].units + arms[1].units, tuned_at, level, se)
    raise ConfigError(f"Expected test `t`, `z` or `anytime`, got {test!r}")


def _judge_anytime(
    standardised: float, units: float, tuned_at: float, level: float, se: float
) -> tuple[float, float]:
    """Treat the arms as one sum of ``units`` steps of variance 1."""
    alpha, root = 1 - level, math.sqrt(units)
    bound = normal_mixture_bound(units, alpha, tuned_at, alpha_optimal=alpha, sides=2)
    evidence = normal_log_mixture(standardised * root, units, tuned_at, alpha_optimal=alpha)
    return bound / root * se, min(1.0, math.exp(-min(evidence, 700.0)))


def _freedom(control: ArmMean, treated: ArmMean) -> float:
    one, other = control.mean_variance, treated.mean_variance
    return (one + other) ** 2 / (one**2 / (control.units - 1) + other**2 / (treated.units - 1))
