"""What waiting with each of several actions cost, where a journey sees at most one act.

The question about one action compares taking it now with taking it at the next point at which it is
possible. An act of another kind ends a journey for this question as leaving does not: it happened
by the log's choice, with a known probability, and is weighed out like every other choice, also at
points at which the action asked about was not possible.
"""

import msgspec

from recoup.causal.delay import AtTime, Delayed, evaluate_delay
from recoup.causal.delay_scores import Variant
from recoup.causal.delay_support import Support
from recoup.causal.journeys import Journeys
from recoup.causal.nuisance import RegressorFactory


class ActionDelay(msgspec.Struct, frozen=True, kw_only=True):
    """The costs of delay of one action; see `recoup.causal.delay.Delay` for each.

    Examples
    --------
    See `evaluate_delay_by_action`.
    """

    action: str
    delta_by_time: list[AtTime]
    delay_cost_by_state: list[AtTime]
    miss_cost_by_state: list[AtTime]
    delay_cost_by_label: dict[str, list[AtTime]]
    miss_cost_by_label: dict[str, list[AtTime]]
    delta_by_segment: list[AtTime]
    value_against_delay: list[Delayed]
    diagnostics: list[Support]


def evaluate_delay_by_action(
    journeys: Journeys,
    *,
    regressor: RegressorFactory | None = None,
    variant: Variant = "adr",
    level: float = 0.95,
) -> list[ActionDelay]:
    """Estimate the cost of waiting with each action, against taking that same one later.

    Parameters
    ----------
    journeys
        With ``actions``, see `recoup.causal.journeys.journeys_from_table`.

    Notes
    -----
    What the log gave up against a policy of several actions is told by
    `recoup.causal.policy_value.evaluate_policy`: an act of the wrong kind is neither early nor
    late.

    Examples
    --------
    >>> import numpy as np
    >>> import polars as pl
    >>> from recoup.causal.journeys import journeys_from_table
    >>> rng = np.random.default_rng(0)
    >>> what = rng.choice(["none", "chat", "coupon"], size=4_000, p=[0.4, 0.4, 0.2])
    >>> worth = np.select([what == "chat", what == "coupon"], [1.0, 3.0], 0.0)
    >>> log = pl.DataFrame(
    ...     {
    ...         "j": np.arange(4_000),
    ...         "what": what,
    ...         "act": (what != "none").astype(int),
    ...         "y": worth + rng.normal(size=4_000),
    ...     }
    ... ).with_columns(t=1, s=0, p=0.6, p_chat=0.4, p_coupon=0.2)
    >>> made = journeys_from_table(
    ...     log,
    ...     journey="j",
    ...     time="t",
    ...     state=["s"],
    ...     act="act",
    ...     propensity="p",
    ...     outcome="y",
    ...     action="what",
    ...     action_propensities={"chat": "p_chat", "coupon": "p_coupon"},
    ... )
    >>> [round(each.delta_by_time[0].value) for each in evaluate_delay_by_action(made)]
    [1, 3]

    References
    ----------
    Nie, Brunskill & Wager (2021), Learning when-to-treat policies, JASA 116, section 5 (several
    treatments).
    """
    names = [] if journeys.actions is None else journeys.actions.names
    found = []
    for code, name in enumerate(names):
        own = evaluate_delay(
            journeys.of_action(code), regressor=regressor, variant=variant, level=level
        )
        parts = {field: getattr(own, field) for field in ActionDelay.__struct_fields__[1:]}
        found.append(ActionDelay(action=name, **parts))
    return found
