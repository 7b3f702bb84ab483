"""What the policy earned, against visitors who are never acted on."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recoup.decisions import Interval
from recoup.events import MICROS


class Lift(msgspec.Struct, frozen=True):
    """Net value per visitor with the policy, less that of the permanent holdout.

    Parameters
    ----------
    per_visitor
        Difference of means, in currency units.
    total
        The same for all visitors the policy could act on: what it saved, in currency units.
    treated, holdout
        Visitors on either side.
    """

    per_visitor: Interval
    total: Interval
    treated: int
    holdout: int


def holdout_lift(
    net_value_micros: NDArray[np.int64], is_holdout: NDArray[np.bool_], *, level: float = 0.95
) -> Lift | None:
    """Compare visitors whom the policy could act on with the permanent holdout.

    The unit is the visitor from the first moment at which a decision was due: that moment is
    defined alike on both sides and before anything was done, so the two groups differ by chance
    and by the policy alone. Welch's interval for a difference of means of unequal variance.

    Parameters
    ----------
    net_value_micros
        Shape (n,): one visitor's net value within the horizon after that moment.
    is_holdout
        Shape (n,): whether the visitor is in the permanent holdout.
    level
        Confidence level, in (0, 1).

    Returns
    -------
    Lift | None
        None where a side has fewer than two visitors, or no value varies: no interval exists.

    Examples
    --------
    >>> value = np.array([3, 5, 4, 1, 2, 1]) * 1_000_000
    >>> lift = holdout_lift(value, np.array([False] * 3 + [True] * 3))
    >>> round(lift.per_visitor.value, 3), round(lift.total.value, 3)
    (2.667, 8.0)

    References
    ----------
    Welch, B. L. (1947). The generalization of "Student's" problem when several different
    population variances are involved. Biometrika 34, 28-35.
    """
    values = net_value_micros / MICROS
    treated, holdout = values[~is_holdout], values[is_holdout]
    if min(len(treated), len(holdout)) < 2:  # noqa: PLR2004 - a variance needs two
        return None
    shares = [float(side.var(ddof=1)) / len(side) for side in (treated, holdout)]
    spread = sum(shares)
    if spread == 0:
        return None
    freedom = spread**2 / sum(
        share**2 / (len(side) - 1) for share, side in zip(shares, (treated, holdout), strict=True)
    )
    difference = float(treated.mean() - holdout.mean())
    reach = float(stats.t.ppf(0.5 + level / 2, freedom)) * math.sqrt(spread)
    per_visitor = Interval(difference, difference - reach, difference + reach)
    return Lift(per_visitor, per_visitor.scaled(len(treated)), len(treated), len(holdout))
