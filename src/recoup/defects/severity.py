"""How much is lost: the posterior of the share of shoppers who should have gone on and did not."""

from scipy.stats import gamma

from recoup.decisions import Interval

_SHAPE = 0.5


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
