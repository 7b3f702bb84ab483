"""Who may have an intervention now: reason, stage, deadline, cap and cooldown.

Eligibility is settled before any propensity is computed, so that logs stay valid for off-policy
evaluation.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.friction.signals import SIGNALS
from recoup.interventions.catalogue import (
    DAY_S,
    HESITATES,
    INTERVENTIONS,
    UNEXPLAINED,
    Intervention,
)

MICROS_PER_S: Final = 1_000_000


class Limits:
    """The catalogue's rules as arrays that kernels read; m interventions, k signals.

    Attributes
    ----------
    answers
        Whether an intervention answers a signal, bool (m, k + 2); the last columns stand for an
        unexplained drop, which some answer from a stage on, and for hesitation.
    rules
        First stage, last stage, cap, cooldown and deadline (microseconds), int64 (m, 5).
    unexplained_at
        Stage from which it answers an unexplained drop, or -1; int64 (m,).
    costs
        Micro-units per showing, and share of the order's value; float64 (m, 2).

    Examples
    --------
    >>> Limits().answers.sum(axis=1).tolist()
    [2, 1, 2, 4, 8, 3, 22]
    """

    def __init__(self) -> None:
        reasons = [*(signal.id for signal in SIGNALS), UNEXPLAINED, HESITATES]
        self.answers = np.array(
            [[_answers(each, reason) for reason in reasons] for each in INTERVENTIONS]
        )
        self.rules = np.array([_rule(each) for each in INTERVENTIONS], np.int64)
        self.unexplained_at = np.array([each.unexplained_at for each in INTERVENTIONS], np.int64)
        self.costs = np.array([(each.cost_micros, each.cost_share) for each in INTERVENTIONS])


def _answers(each: Intervention, reason: str) -> bool:
    if reason == UNEXPLAINED:
        return each.general or each.unexplained_at >= 0
    return each.general or reason in each.reasons


def _rule(each: Intervention) -> tuple[int, ...]:
    first, last = each.stages
    waits = (each.cooldown_s * MICROS_PER_S, each.deadline_s * MICROS_PER_S)
    return (first, last, each.cap_per_day, *waits)


@njit(cache=True, nogil=True)
def eligible(
    rule: NDArray[np.int64], stage: int, now: int, reason_at: int, acted_at: NDArray[np.int64]
) -> bool:
    """Say whether a visitor who met a reason at ``reason_at`` may have an intervention ``now``.

    Parameters
    ----------
    rule
        Its row of :attr:`Limits.rules`, shape (5,).
    acted_at
        When this visitor last had it: the newest times first, 0 where never; shape (>= cap,).

    Examples
    --------
    >>> rule, never = np.array([4, 4, 2, 120, 600]), np.zeros(3, np.int64)
    >>> bool(eligible(rule, 4, 10, 5, never)), bool(eligible(rule, 3, 10, 5, never))
    (True, False)
    """
    if stage < rule[0] or stage > rule[1] or now - reason_at > rule[4]:
        return False
    if acted_at[0] != 0 and now - acted_at[0] < rule[3]:
        return False
    oldest = acted_at[rule[2] - 1]
    return bool(oldest == 0 or now - oldest >= DAY_S * MICROS_PER_S)
