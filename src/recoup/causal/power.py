"""How large an experiment must be, and what a given size can find.

All of it for a two-sided test of one arm against a control; for several arms, give the share of
the one arm. Clusters (visitors with several rows, blocks of a switchback) count by their design
effect: what assigning them as a whole multiplies the variance by.
"""

import math

import msgspec
import numpy as np
from scipy import optimize, stats

from recoup.causal.estimate import Floats, Ints
from recoup.causal.sequences import normal_mixture_bound
from recoup.errors import ConfigError


class Strictness(msgspec.Struct, frozen=True):
    """How sure an experiment shall be.

    Parameters
    ----------
    level
        One less the chance to find an effect where there is none.
    power
        Chance to find an effect of the size looked for.
    sequential
        Whether it may be read, and stopped, at every look (``test="anytime"``), tuned at the size
        that is planned. By that size the effect is found with the power asked for, often sooner.

    Examples
    --------
    >>> round(Strictness().reach(), 4)
    2.8016
    >>> round((Strictness(sequential=True).reach() / Strictness().reach()) ** 2, 2)  # more rows
    1.91
    """

    level: float = 0.95
    power: float = 0.8
    sequential: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.power < 1:
            raise ConfigError(f"Expected a power in (0, 1), got {self.power}", hint="use 0.8")

    def reach(self, freedom: float = math.inf) -> float:
        """Give the standard errors that an effect must be away from 0.

        Parameters
        ----------
        freedom
            Degrees of freedom of the errors' estimate; many in a sequential test.
        """
        if self.sequential:
            alpha = 1 - self.level
            bound = normal_mixture_bound(1.0, alpha, 1.0, alpha_optimal=alpha, sides=2)
            return bound + float(stats.norm.ppf(self.power))
        sides = (0.5 + self.level / 2, self.power)
        return sum(float(stats.t.ppf(side, freedom)) for side in sides)


def rows_needed(
    variance: float,
    effect: float,
    *,
    share: float = 0.5,
    treated_variance: float | None = None,
    design_effect: float = 1.0,
    strictness: Strictness | None = None,
) -> float:
    """Give the rows, of both arms together, that an effect needs to be found.

    Parameters
    ----------
    variance, treated_variance
        Of a row in the control and in the arm; the same where None.
    effect
        Difference of means to be found, not 0.
    share
        Of the rows in the arm, in (0, 1).

    Examples
    --------
    >>> round(rows_needed(0.1 * 0.9, 0.02))
    7064
    """
    if effect == 0 or not 0 < share < 1:
        raise ConfigError(
            f"Expected an effect other than 0 and a share in (0, 1), got {effect} and {share}"
        )
    other = variance if treated_variance is None else treated_variance
    sure = strictness or Strictness()
    each = variance / (1 - share) + other / share
    return design_effect * each * (sure.reach() / effect) ** 2


def detectable_effect(
    variance: float,
    control: float,
    treated: float,
    *,
    design_effect: float = 1.0,
    freedom: float = math.inf,
    strictness: Strictness | None = None,
) -> float:
    """Give the smallest difference of means found with the power asked for.

    Parameters
    ----------
    variance
        Of a row; the arm's is taken to be the control's.
    control, treated
        Rows of either side.
    freedom
        Degrees of freedom, where rows (or clusters) are few.

    Examples
    --------
    >>> round(detectable_effect(0.09, 3532, 3532), 4)
    0.02
    """
    sure = strictness or Strictness()
    return sure.reach(freedom) * math.sqrt(design_effect * variance * (1 / control + 1 / treated))


def detectable_rise(
    rate: float, control: float, treated: float, *, strictness: Strictness | None = None
) -> float:
    """Give the smallest rise of a rate found with the power asked for; 1 - rate where none is.

    The arm's variance is that of the risen rate.

    Examples
    --------
    >>> round(detectable_rise(0.1, 1000, 1010), 4)
    0.0406
    """
    reach, room = (strictness or Strictness()).reach(), 1 - rate

    def excess(rise: float) -> float:
        risen = rate + rise
        variance = rate * (1 - rate) / control + risen * (1 - risen) / treated
        return rise - reach * math.sqrt(variance)

    return room if excess(room) <= 0 else float(optimize.brentq(excess, 0.0, room, xtol=1e-12))


def correlation_within(values: Floats, clusters: Ints) -> float:
    """Give the intra-cluster correlation by analysis of variance; at least 0.

    Parameters
    ----------
    values, clusters
        Shape (n,); codes 0..k-1.

    Examples
    --------
    >>> correlation_within(np.array([1.0, 1.0, 5.0, 5.0]), np.array([0, 0, 1, 1]))
    1.0

    References
    ----------
    Donner & Klar (2000), Design and analysis of cluster randomization trials in health research.
    """
    sizes, totals = np.bincount(clusters).astype(float), np.bincount(clusters, values)
    groups, rows = len(sizes), len(values)
    if groups < 2 or rows <= groups:  # noqa: PLR2004 - between needs two, within a repeated one
        return 0.0
    means = totals / sizes
    within = float(((values - means[clusters]) ** 2).sum()) / (rows - groups)
    between = float(sizes @ (means - values.mean()) ** 2) / (groups - 1)
    typical = (rows - float(sizes @ sizes) / rows) / (groups - 1)
    spread = between + (typical - 1) * within
    return 0.0 if spread == 0 else max(0.0, (between - within) / spread)


def design_effect(clusters: Ints, correlation: float) -> float:
    """Give what assigning clusters as a whole multiplies the variance by.

    Examples
    --------
    >>> design_effect(np.repeat(np.arange(10), 5), 0.1)
    1.4

    References
    ----------
    Eldridge, Ashby & Kerry (2006), Sample size for cluster randomized trials: effect of coefficient
    of variation of cluster size.
    """
    sizes = np.bincount(clusters)
    mean = float(sizes.mean())
    variation = float(sizes.std()) / mean
    return 1 + ((variation**2 + 1) * mean - 1) * correlation
