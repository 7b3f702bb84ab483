"""How much of a log stands behind the estimates of delay at each decision point."""

import msgspec
import numpy as np

from recoup.causal.estimate import Floats
from recoup.causal.journeys import Journeys
from recoup.causal.off_policy import refusal


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the log stands behind the estimates at one point.

    Parameters
    ----------
    open, acted
        Journeys that came here without an act, and those acted on here.
    effective_sample_size, largest_weight
        Of the weights 1/G of the open journeys (G shrinks geometrically with time).
    act_effective_sample_size, act_largest_weight
        Of the weights 1/(G e) of those acted on.
    refused
        Why nothing should be read off this point, or None.

    Examples
    --------
    >>> Support(
    ...     time=1,
    ...     open=10,
    ...     acted=5,
    ...     effective_sample_size=10,
    ...     largest_weight=1,
    ...     act_effective_sample_size=5,
    ...     act_largest_weight=2,
    ...     refused="too few",
    ... ).refused
    'too few'
    """

    time: object
    open: float
    acted: float
    effective_sample_size: float
    largest_weight: float
    act_effective_sample_size: float
    act_largest_weight: float
    refused: str | None


def support_at(journeys: Journeys, point: int) -> Support:
    """Tell how much of the log stands behind the estimates at one decision point."""
    here, acted = journeys.is_open[:, point], journeys.act_at == point
    weight, act_weight = here / journeys.untreated[:, point], act_weights(journeys, point)
    count = np.ones(len(here)) if journeys.count is None else journeys.count
    effective, _ = effective_size(weight, journeys.count)
    act_effective, act_share = effective_size(act_weight, journeys.count)
    return Support(
        time=journeys.times[point],
        open=float(count[here].sum()),
        acted=float(count[acted].sum()),
        effective_sample_size=effective,
        largest_weight=float(weight.max()),
        act_effective_sample_size=act_effective,
        act_largest_weight=float(act_weight.max()),
        refused=refusal(act_effective, act_share),
    )


def act_weights(journeys: Journeys, point: int) -> Floats:
    """Give 1 / P(untreated so far, acted on here) of those acted on here, shape (n,); else 0."""
    acted = journeys.act_at == point
    chance = np.where(acted, journeys.untreated[:, point] * journeys.propensity[:, point], 1.0)
    return np.where(acted, 1.0 / chance, 0.0)


def effective_size(weight: Floats, count: Floats | None) -> tuple[float, float]:
    """Give the effective sample size of weights, shape (n,), and the share of the largest."""
    number = np.ones(len(weight)) if count is None else count
    total, square = float(weight @ number), float(weight**2 @ number)
    if total == 0:
        return 0.0, 1.0
    return total**2 / square, float(weight.max()) / total
