"""What to do about a defect, and how surely it recovers more than it costs."""

from typing import Final

import numpy as np
from scipy.stats import beta

from recoup.decisions import Interval, Recommendation
from recoup.events import MICROS
from recoup.friction.moment import CARTED, CHECKOUT, LANDED, LISTED, VIEWED
from recoup.interventions import Intervention, best_for

_STAGE_OF_LEVEL: Final = (LANDED, LISTED, VIEWED, CARTED, CHECKOUT, CHECKOUT, CHECKOUT, CHECKOUT)
MARGIN: Final = 0.4
"""Share of an order's value that is left once the goods are paid."""


def recommend(
    reason: str, level: int, lost: Interval, order_value: float, *, anyway: float = 0.5
) -> Recommendation | None:
    """Give the intervention with the highest expected net value, or None where none fits.

    Parameters
    ----------
    reason
        Defect type.
    level
        Funnel level at which shoppers are lost.
    lost
        Orders lost per hour.
    order_value
        Mean order value, micro-units.
    anyway
        Orders that still come per order lost: they cost the share, too.
    """
    choices = best_for(reason, _STAGE_OF_LEVEL[level])
    if not choices:
        return None
    best = max(choices, key=lambda each: _net(each, each.prior_mean, order_value, anyway))
    return _judge(best, lost, order_value, anyway)


def _net(each: Intervention, recovered: float, order_value: float, anyway: float) -> float:
    """Give the net value in micro-units per lost order."""
    cost = each.cost_micros * (1 + anyway) + each.cost_share * order_value * (anyway + recovered)
    return recovered * MARGIN * order_value - cost


def _judge(each: Intervention, lost: Interval, order_value: float, anyway: float) -> Recommendation:
    effect = beta(each.prior_wins, each.prior_losses)
    gain = (MARGIN - each.cost_share) * order_value
    cost = each.cost_micros * (1 + anyway) + each.cost_share * order_value * anyway
    confidence = float(effect.sf(min(cost / gain, 1.0))) if gain > 0 else 0.0
    low, high = (float(effect.ppf(at)) for at in (0.025, 0.975))
    value = order_value / MICROS
    recoverable = Interval(
        lost.value * each.prior_mean * value, lost.low * low * value, lost.high * high * value
    )
    sure = float(np.clip(confidence, 0, 1))
    return Recommendation(each.id, sure, recoverable, float(each.deadline_s))
