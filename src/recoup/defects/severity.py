"""How much is lost: the posterior of the share of shoppers who should have gone on and did not."""

import math

from scipy.stats import gamma

from recoup.decisions import Interval

_SHAPE = 0.5
_NORMAL_95 = 1.96


def widened(lost: Interval, expected: float) -> Interval:
    """Widen an interval of lost orders by the chance of what would have been ordered: Poisson.

    Examples
    --------
    >>> widened(Interval(9.0, low=8.0, high=9.5), 10.0).low > 2.5
    True
    """
    chance = _NORMAL_95 * lost.value / max(expected, 1e-9) * math.sqrt(max(expected, 1.0))
    low = lost.value - math.hypot(lost.value - lost.low, chance)
    return Interval(
        lost.value, max(low, 0.0), lost.value + math.hypot(lost.high - lost.value, chance)
    )


def lost_share(seen: float, expected: float) -> Interval:
    """Give the lost share with its 95 % interval, within [0, 1].

    The ratio of seen to expected has a Gamma posterior: Poisson counts, Jeffreys prior.

    Examples
    --------
    >>> share = lost_share(20.0, 80.0)
    >>> round(share.value, 2), round(share.low, 2), round(share.high, 2)
    (0.75, 0.62, 0.84)
    """
    ratio = gamma(seen + _SHAPE, scale=1.0 / max(expected, 1e-9))
    low, middle, high = (1.0 - float(ratio.ppf(at)) for at in (0.975, 0.5, 0.025))
    return Interval(*(min(max(each, 0.0), 1.0) for each in (middle, low, high)))
