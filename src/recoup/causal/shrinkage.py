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

    Examples
    --------
    >>> Shrinkage(clip=5).clip
    5
    """

    clip: float = 10.0
    switch: float = 10.0
    optimistic: float = 100.0
    sub_gaussian: float = 0.05

    def __post_init__(self) -> None:
        if not (self.clip > 0 and self.switch >= 0 and self.optimistic > 0):
            raise ConfigError(f"Expected positive limits on weights, got {self}")
        if not 0 <= self.sub_gaussian <= 1:
            raise ConfigError(f"Expected sub_gaussian in [0, 1], got {self.sub_gaussian}")


def tune(log: LoggedDecisions) -> Shrinkage:
    """Choose each limit by least estimated mean squared error, over quantiles of the weights.

    The error of a limit is the variance of its estimate plus the square of its difference from
    the unbiased one (IPS without a model, else DR).

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
    return Shrinkage(*best)


def _least_error(
    candidates: Mapping[float, Floats], weights: Floats, residual: Floats, offset: Floats | float
) -> float:
    errors = {}
    for limit, shrunk in candidates.items():
        bias = float(((shrunk - weights) * residual).mean())
        spread = float((offset + shrunk * residual).var()) / len(weights)
        errors[limit] = bias**2 + spread
    return min(errors, key=lambda limit: errors[limit])
