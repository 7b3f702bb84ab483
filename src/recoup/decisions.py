"""The types that stages meet through: decisions, outcomes, defects, and what they are made of."""

import datetime as dt
import math
from typing import Final, Literal

import msgspec
import polars as pl

from recoup.events import TIMESTAMP

NEVER: Final = "never"
"""The arm "leave this journey alone for good"."""

Slice = Literal["policy", "random", "holdout"]
"""Whom a visitor belongs to: the policy, permanent randomisation, or the permanent holdout."""


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its 95 % interval.

    Examples
    --------
    >>> Interval(1.0, low=0.5, high=1.5).width
    1.0
    """

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance from the lower to the upper end."""
        return self.high - self.low

    def scaled(self, factor: float) -> "Interval":
        """Multiply value and ends by a factor of at least 0."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


class Action(msgspec.Struct, frozen=True, order=True, gc=False):
    """One option at a decision point: act, wait, or never.

    Parameters
    ----------
    kind
        ``act``, ``wait`` or ``never``.
    intervention
        Which one, for ``act``.
    wait_s
        How many seconds, for ``wait``; from the policy's finite grid.

    Examples
    --------
    >>> Action("act", "free_shipping").label, Action("wait", wait_s=60).label, Action("never").label
    ('act:free_shipping', 'wait:60', 'never')
    >>> Action.parse("wait:60")
    Action(kind='wait', intervention='', wait_s=60)
    """

    kind: Literal["act", "wait", "never"]
    intervention: str = ""
    wait_s: int = 0

    @property
    def label(self) -> str:
        """The action as one word, as journals and tables hold it."""
        if self.kind == "act":
            return f"act:{self.intervention}"
        return f"wait:{self.wait_s}" if self.kind == "wait" else NEVER

    @staticmethod
    def parse(label: str) -> "Action":
        """Read :attr:`label` back."""
        kind, _, rest = label.partition(":")
        if kind == "act":
            return Action("act", rest)
        return Action("wait", wait_s=int(rest)) if kind == "wait" else Action("never")


class Option(msgspec.Struct, frozen=True, gc=False):
    """An eligible action, what the policy thinks of it, and how likely it takes it.

    Parameters
    ----------
    action
        What could be done.
    propensity
        Probability in (0, 1]; those of one decision sum to 1.
    value_micros
        Expected net value against ``never``, in micro-units of the shop's currency.
    """

    action: Action
    propensity: float
    value_micros: float


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What was decided for a journey at a moment, and all it takes to replay it.

    Parameters
    ----------
    id
        Stable hash of (journey, event, policy version); the counter of its random draw.
    ts
        When, int64 microseconds UTC.
    visitor, session, event
        Whose journey, which session, and the (source, id) hash of the event that opened it.
    slice, slice_probability
        The visitor's slice, and the probability of being in it.
    options
        Every eligible option, with its propensity.
    chosen
        Index into ``options``.
    intent
        P(purchase later in this session), as the policy saw it.
    reason
        The defect or signal that opened the decision point.
    policy, model
        Version of the policy, and hash of the intent model's artefact.
    executed
        Whether it reached the shopper. A decision on a foreign log never does.
    """

    id: int
    ts: int
    visitor: str
    session: int
    event: int
    slice: Slice
    slice_probability: float
    options: tuple[Option, ...]
    chosen: int
    intent: float
    reason: str
    policy: str
    model: str
    executed: bool

    @property
    def action(self) -> Action:
        """The option taken."""
        return self.options[self.chosen].action

    @property
    def propensity(self) -> float:
        """Probability with which it was taken."""
        return self.options[self.chosen].propensity


DECISION_SCHEMA: Final = pl.Schema(
    {
        "id": pl.Int64(),
        "ts": TIMESTAMP,
        "visitor": pl.String(),
        "session": pl.Int64(),
        "event": pl.Int64(),
        "slice": pl.String(),
        "slice_probability": pl.Float64(),
        "action": pl.String(),
        "propensity": pl.Float64(),
        "options": pl.List(pl.String()),
        "propensities": pl.List(pl.Float64()),
        "values_micros": pl.List(pl.Float64()),
        "intent": pl.Float64(),
        "reason": pl.String(),
        "policy": pl.String(),
        "model": pl.String(),
        "executed": pl.Boolean(),
    }
)
"""Decisions as the journal and ``decisions.parquet`` hold them."""


class Outcome(msgspec.Struct, frozen=True):
    """What followed a decision within the horizon.

    Parameters
    ----------
    decision
        The decision's id.
    horizon_s
        Length of the window that was waited for, in seconds.
    net_value_micros
        Value of purchases less refunds less the cost of the intervention.
    orders
        Purchases within the horizon.
    matured_at
        When the horizon had passed, int64 microseconds UTC.
    revision
        0 at first; a refund or a late event raises it.
    later_cost_micros
        What acts on the same visitor that followed within the window cost in it; not taken off
        the net value, which is this decision's alone.
    """

    decision: int
    horizon_s: int
    net_value_micros: int
    orders: int
    matured_at: int
    revision: int = 0
    later_cost_micros: int = 0


OUTCOME_SCHEMA: Final = pl.Schema(
    {
        "decision": pl.Int64(),
        "horizon_s": pl.Int64(),
        "net_value_micros": pl.Int64(),
        "orders": pl.Int64(),
        "matured_at": TIMESTAMP,
        "revision": pl.Int64(),
        "later_cost_micros": pl.Int64(),
    }
)


class Recommendation(msgspec.Struct, frozen=True):
    """The best thing to do about a defect, and how sure we are of it.

    Parameters
    ----------
    intervention
        Its id in the catalogue.
    confidence
        P(it recovers more than it costs), in [0, 1].
    recoverable_value_per_hour
        In currency units.
    deadline
        Seconds within which a shopper must be reached after meeting the defect.
    """

    intervention: str
    confidence: float
    recoverable_value_per_hour: Interval
    deadline: float


class Defect(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """A defect type on an entity whose shoppers buy less than they would.

    Parameters
    ----------
    id
        Stable name: type and entity.
    type
        An id of the catalogue, or ``unexplained_drop``.
    entity
        Attribute -> value, e.g. ``{"browser": "Safari", "page": "/basket.html"}``.
    since, until
        When it began and ended; ``until`` is None while it is open. ``from`` and ``to`` in JSON.
    observed, expected
        Orders seen among the exposed sessions, and orders expected from who they were.
    exposed
        Sessions exposed.
    lost_orders_per_hour, lost_value_per_hour
        Severity, the second in currency units.
    confidence
        P(real), in [0, 1].
    recommended
        What to do, or None where no intervention fits.
    evidence
        What it rests on, in words a shop's owner understands.
    """

    id: str
    type: str
    entity: dict[str, str]
    since: dt.datetime
    until: dt.datetime | None
    observed: float
    expected: float
    exposed: int
    lost_orders_per_hour: Interval
    lost_value_per_hour: Interval
    confidence: float
    recommended: Recommendation | None
    evidence: str

    def __post_init__(self) -> None:
        """Refuse a confidence that is no probability: a bug of ours, never of the input."""
        assert math.isfinite(self.confidence)  # noqa: S101
        assert 0.0 <= self.confidence <= 1.0  # noqa: S101


class Finding(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """Something wrong with the data rather than with the shop.

    Parameters
    ----------
    kind
        ``column_missing``, ``column_renamed``, ``ids_missing``, ``tracking_break``, ...
    column
        Which column, or which event's tracking.
    since, until
        The dates between which it held (ISO 8601 UTC); ``until`` is None while it holds.
    detail
        One sentence with the figures.
    """

    kind: str
    column: str
    since: str | None
    until: str | None
    detail: str
