"""The interventions: scope, cost, cap, cooldown, deadline, and what is believed of their effect."""

from typing import Final

import msgspec

from recoup.errors import ConfigError
from recoup.friction.moment import CARTED, CHECKOUT, LANDED, LISTED

DAY_S: Final = 86_400
UNEXPLAINED: Final = "unexplained_drop"
"""Defect type of a loss that no signal explains."""

HESITATES: Final = "D9"
"""Reason of a decision point that a tick opens: this shopper has waited unusually long."""


class Intervention(msgspec.Struct, frozen=True):
    """Something that can be done. "Do nothing" is the arm ``never``, and costs nothing.

    The effect is the *recovered share*: of the orders that the defect would cost, the part that
    the intervention saves. Its prior is Beta(prior_wins, prior_losses), our judgement [J], and is
    replaced by what executed decisions show.

    Parameters
    ----------
    id, name
        Stable id, and what it does in a few words.
    reasons
        Defect catalogue ids that it answers.
    unexplained_at
        Stage of an ``unexplained_drop`` from which it may help, or -1: it needs a named reason.
    stages
        First and last funnel stage at which it can be shown.
    cost_micros
        Cost of showing it once, in micro-units.
    cost_share
        Share of the order's value that it costs if they buy, even if they would have bought anyway.
    prior_wins, prior_losses
        Beta prior of the recovered share.
    deadline_s
        Seconds after the reason within which the shopper must be reached.
    cap_per_day
        Times a visitor may have it within 24 hours.
    cooldown_s
        Seconds between two of the same to one visitor.
    general
        Whether it fits any reason at its stages.

    Examples
    --------
    >>> retry = intervention("payment_retry")
    >>> retry.prior_mean, retry.cost_of(80_000_000)
    (0.35, 820000.0)
    """

    id: str
    name: str
    reasons: tuple[str, ...]
    unexplained_at: int
    stages: tuple[int, int]
    cost_micros: int
    cost_share: float
    prior_wins: float
    prior_losses: float
    deadline_s: int
    cap_per_day: int
    cooldown_s: int
    general: bool = False

    @property
    def prior_mean(self) -> float:
        """Expected recovered share before any outcome is seen."""
        return self.prior_wins / (self.prior_wins + self.prior_losses)

    def cost_of(self, order_value_micros: float) -> float:
        """Cost in micro-units if an order of this value follows."""
        return self.cost_micros + self.cost_share * order_value_micros


INTERVENTIONS: Final = (
    Intervention(
        "payment_retry", "offer another payment method or route", ("K5", "K6", "K7"),
        CHECKOUT, (CHECKOUT, CHECKOUT), 20_000, 0.01, 3.5, 6.5, 600, 2, 120,
    ),
    Intervention(
        "fee_waiver", "waive or share the fee that appeared", ("C2", "C5"),
        -1, (CARTED, CHECKOUT), 0, 0.08, 4.0, 6.0, 900, 1, 3_600,
    ),
    Intervention(
        "substitute_offer", "show a close item that can be had", ("D1", "C3", "S7"),
        -1, (LISTED, CHECKOUT), 10_000, 0.02, 3.0, 7.0, 600, 3, 120,
    ),
    Intervention(
        "search_assist", "relax the query and guide the search", ("S1", "S2", "S3", "S5", "S6"),
        -1, (LANDED, CARTED), 5_000, 0.0, 2.0, 8.0, 300, 3, 60,
    ),
    Intervention(
        "error_recovery", "resume link, retry, or another way around the error",
        ("K8", "D6", "D7", "D8", "K2", "K3", "L3"),
        CARTED, (LANDED, CHECKOUT), 10_000, 0.0, 3.5, 6.5, 600, 3, 60,
    ),
    Intervention(
        "promise_hold", "hold the delivery promise that was shown", ("D2", "K4", "K11"),
        -1, (LISTED, CHECKOUT), 0, 0.05, 3.0, 7.0, 900, 1, 3_600,
    ),
    Intervention(
        "coupon", "a general coupon", ("C1", "C4", "C7", "D3", "D9"),
        -1, (CARTED, CHECKOUT), 0, 0.10, 0.8, 9.2, 3_600, 1, DAY_S, general=True,
    ),
)  # fmt: skip
"""In the order of their codes: append, never reorder."""

_BY_ID: Final = {each.id: each for each in INTERVENTIONS}


def intervention(key: str) -> Intervention:
    """Give an intervention by its id.

    Raises
    ------
    ConfigError
        If there is none of this id.
    """
    if key not in _BY_ID:
        raise ConfigError(
            f"Expected an intervention of the catalogue, got `{key}`",
            hint=f"one of {', '.join(_BY_ID)}",
        )
    return _BY_ID[key]


def best_for(reason: str, stage: int) -> tuple[Intervention, ...]:
    """Give the interventions that answer a reason, the most specific first.

    Parameters
    ----------
    reason
        A defect catalogue id, or ``unexplained_drop``.
    stage
        Funnel stage at which the loss happens, 0 to 5.

    Examples
    --------
    >>> [each.id for each in best_for("K5", 4)]
    ['payment_retry']
    """
    if reason == UNEXPLAINED:
        return tuple(each for each in INTERVENTIONS if 0 <= each.unexplained_at <= stage)
    return tuple(each for each in INTERVENTIONS if reason in each.reasons)
