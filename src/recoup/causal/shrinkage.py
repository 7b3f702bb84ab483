"""How far biased off-policy estimators hold large weights down, and how to choose it."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from recoup.causal.estimate import Floats
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.errors import ConfigError

_GRID_QUANTILES: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


class Shrinkage(msgspec.Struct, frozen=True):
    """How far the biased estimators hold large weights down.

    Parameters
    ----------
    clip
        Largest weight that ``clipped_ips`` and ``clipped_dr`` use; positive.
    switch
        Weight above which ``switch_dr`` trusts the model alone; not negative.
    optimistic
        Lambda of ``dr_os``; positive, infinite = DR.
    sub_gaussian
        Lambda of ``sg_ips`` and ``sg_dr``, in [0, 1]; 0 = IPS and DR.
    clip_ips, sub_gaussian_ips
        Those of ``clipped_ips`` and ``sg_ips`` where they differ: what is cut off of a residual is
        little beside what is cut off of a reward. The same where None.

    Examples
    --------
    >>> Shrinkage(clip=5).clip
    5
    """

    clip: float = 10.0
    switch: float = 10.0
    optimistic: float = 100.0
    sub_gaussian: float = 0.05
    clip_ips: float | None = None
    sub_gaussian_ips: float | None = None

    @property
    def without_model(self) -> tuple[float, float]:
        """The limits of ``clipped_ips`` and ``sg_ips``."""
        return (
            self.clip if self.clip_ips is None else self.clip_ips,
            self.sub_gaussian if self.sub_gaussian_ips is None else self.sub_gaussian_ips,
        )

    def __post_init__(self) -> None:
        clip, smooth = self.without_model
        if not (self.clip > 0 and clip > 0 and self.switch >= 0 and self.optimistic > 0):
            raise ConfigError(f"Expected positive limits on weights, got {self}")
        if not (0 <= self.sub_gaussian <= 1 and 0 <= smooth <= 1):
            raise ConfigError(f"Expected sub_gaussian in [0, 1], got {self.sub_gaussian}")


def tune(log: LoggedDecisions) -> Shrinkage:
    """Choose each limit by least estimated mean squared error, over quantiles of the weights.

    The error of a limit is the variance of its estimate plus the square of its difference from
    the unbiased one: DR, and IPS for the estimates without a model.

    References
    ----------
    Su et al. (2020), Doubly robust off-policy evaluation with shrinkage, section 5.
    """
    weights = log.weights
    quality, value = log.model
    residual, offset = (log.reward - quality, value) if len(quality) else (log.reward, 0.0)
    grid = np.unique(np.quantile(weights, _GRID_QUANTILES))
    grid = grid[grid > 0] if (grid > 0).any() else np.ones(1)
    clips = {limit: np.minimum(weights, limit) for limit in grid.tolist()}
    switches = {limit: weights * (weights <= limit) for limit in grid.tolist()}
    optimistic = {
        lam: lam * weights / (weights**2 + lam) for lam in np.unique(grid**2 * 4).tolist()
    }
    smooth = {
        lam: weights / (1 - lam + lam * weights) for lam in (0.0, 0.001, 0.01, 0.05, 0.1, 0.3)
    }
    best = [
        _least_error(candidates, weights, residual, offset)
        for candidates in (clips, switches, optimistic, smooth)
    ]
    if not len(quality):
        return Shrinkage(*best)
    alone = [_least_error(each, weights, log.reward, 0.0) for each in (clips, smooth)]
    return Shrinkage(*best, *alone)


def _least_error(
    candidates: Mapping[float, Floats], weights: Floats, residual: Floats, offset: Floats | float
) -> float:
    errors = {}
    for limit, shrunk in candidates.items():
        bias = float(((shrunk - weights) * residual).mean())
        spread = float((offset + shrunk * residual).var()) / len(weights)
        errors[limit] = bias**2 + spread
    return min(errors, key=lambda limit: errors[limit])
