"""What a run found, as one value: the report, `summary.json` and the terminal all render it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from recoup.causal import Lift
from recoup.decisions import Defect, Finding
from recoup.non_shoppers import Counted
from recoup.report.hesitation import Hesitation
from recoup.report.model_health import ModelHealth
from recoup.report.reasons import Reasons
from recoup.report.repeat import Repeat

STAGES: Final = ("sessions", "listing", "item", "cart", "checkout", "purchase")
"""Funnel steps by stage code: landed, listing or search, item, cart, checkout, bought."""

SEGMENTS: Final = ("device", "channel", "country", "visitor_type", "browser")
"""Attributes that the funnel is split by; ``visitor_type`` is ``new`` or ``returning``."""


class Funnel(msgspec.Struct, frozen=True):
    """Sessions that reached each step, or a later one; each session counts once.

    Examples
    --------
    >>> funnel = Funnel(sessions=200, listing=120, item=80, cart=20, checkout=8, purchase=4)
    >>> funnel.conversion
    0.02
    >>> funnel.counts
    (200, 120, 80, 20, 8, 4)
    """

    sessions: int = 0
    listing: int = 0
    item: int = 0
    cart: int = 0
    checkout: int = 0
    purchase: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """Sessions by step, in the order of :data:`STAGES`; never increasing."""
        return tuple(getattr(self, stage) for stage in STAGES)

    @property
    def conversion(self) -> float:
        """Share of the sessions that bought; 0 without sessions."""
        return self.purchase / self.sessions if self.sessions else 0.0


class Segment(msgspec.Struct, frozen=True):
    """The funnel of the sessions that share a value of an attribute.

    Parameters
    ----------
    value
        The value; ``(unknown)`` where the log has none, ``(other)`` for all beyond the largest.
    funnel
        Sessions by step.
    orders, revenue
        Orders placed in those sessions, and their value in currency units.
    """

    value: str
    funnel: Funnel
    orders: int
    revenue: float


class Day(msgspec.Struct, frozen=True):
    """One day, UTC.

    Parameters
    ----------
    date
        The day.
    sessions, buyers
        Sessions that began on it, and how many of them bought.
    orders, revenue
        Orders placed on it, and their value in currency units.
    """

    date: dt.date
    sessions: int
    buyers: int
    orders: int
    revenue: float


class IntentBin(msgspec.Struct, frozen=True):
    """Events of sessions that had not bought yet, by what the intent model said of them.

    Parameters
    ----------
    predicted
        Mean P(purchase later in this session), as served.
    observed
        Share that a purchase did follow.
    events
        How many.
    """

    predicted: float
    observed: float
    events: int


class Period(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """From the first event to the last, UTC; None where there was no event."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None

    @property
    def hours(self) -> float:
        """Length in hours, 0 without events."""
        if self.since is None or self.until is None:
            return 0.0
        return (self.until - self.since).total_seconds() / 3600


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, distinct orders, and their revenue; see :class:`Journeys` for each."""

    sessions: int = 0
    orders: int = 0
    revenue: float = 0.0
    currency: str | None = None
    other_currency_orders: int = 0


class Journeys(msgspec.Struct, frozen=True, kw_only=True):
    """Who came, how far they got and what they bought: what :class:`SessionTally` gives.

    Parameters
    ----------
    visitors, sessions
        How many distinct ones.
    period
        From the first event to the last.
    orders, revenue, currency
        Distinct orders; the value of those in ``currency`` (that of most orders), in its units.
    other_currency_orders
        Orders in another currency, whose value ``revenue`` leaves out.
    funnel, segments, daily
        By step; by attribute, then value, largest first; by day, without gaps.
    intent
        Reliability of purchase intent, by bin; empty where it was not given.
    """

    visitors: int = 0
    sessions: int = 0
    period: Period = Period()
    orders: int = 0
    revenue: float = 0.0
    currency: str | None = None
    other_currency_orders: int = 0
    funnel: Funnel = Funnel()
    segments: dict[str, list[Segment]] = {}
    daily: list[Day] = []
    intent: list[IntentBin] = []


class DayDecisions(msgspec.Struct, frozen=True):
    """Decisions of one day, by kind of action."""

    date: dt.date
    act: int = 0
    wait: int = 0
    never: int = 0


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, counted: what :class:`DecisionTally` gives.

    Parameters
    ----------
    total, executed
        Decisions made, and those that reached a shopper.
    by_action, by_reason, by_slice
        Counts, largest first. An action is ``act:<intervention>``, ``wait:<seconds>`` or
        ``never``; a reason is the defect or signal that opened the decision point.
    daily
        By day and kind of action, UTC, without gaps.
    """

    total: int = 0
    executed: int = 0
    by_action: dict[str, int] = {}
    by_reason: dict[str, int] = {}
    by_slice: dict[str, int] = {}
    daily: list[DayDecisions] = []


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run found; ``summary.json`` is this, and the report is drawn from it.

    Parameters
    ----------
    source
        Name of the log or shop.
    events, visitors, sessions
        How many were admitted.
    duplicates, late_events
        Repeats dropped; events put in place behind the watermark.
    dead_letters
        Reason -> rows that could not be understood, or came too late.
    warnings
        What was noticed and survived, one sentence each.
    decisions
        How many were made; ``decided`` counts them by action, reason and slice.
    defects
        Ranked, the costliest first.
    data_quality
        What is wrong with the data rather than with the shop.
    carts, abandoned_carts
        Shoppers' carts; those with neither purchase nor return in time, by last step reached.
    waiting_carts
        Carts neither bought nor left for good: their time is not over.
    abandonment_horizon_s
        How long a return was waited for, in seconds.
    non_shoppers
        Bots, monitors, staff and test orders by kind: they are in ``events``, and in nothing else.
    privacy
        What was taken off at the door, by kind: addresses, fields, identifiers, whole events.
    saved
        Net value against the permanent holdout; None unless decisions were executed.
    models
        The trained models that were used, and whether they still hold.
    hesitation
        Where and when shoppers waited, and their signals of behaviour.
    repeat
        Customers who are overdue; None without a model of repeat purchase.
    reasons
        What signals took from purchase intent, by a trained model; None without one.
    seconds, events_per_second, peak_rss_mb
        What the run took.

    Examples
    --------
    >>> import json
    >>> json.loads(to_json(summarise(source="shop", journeys=Journeys(), events=3)))["events"]
    3
    """

    source: str
    events: int = 0
    visitors: int = 0
    sessions: int = 0
    duplicates: int = 0
    late_events: int = 0
    dead_letters: dict[str, int] = {}
    warnings: list[str] = []
    decisions: int = 0
    defects: list[Defect] = []
    data_quality: list[Finding] = []
    carts: int = 0
    abandoned_carts: dict[str, int] = {}
    waiting_carts: int = 0
    abandonment_horizon_s: int | None = None
    non_shoppers: dict[str, Counted] = {}
    privacy: dict[str, int] = {}
    seconds: float = 0.0
    events_per_second: float = 0.0
    peak_rss_mb: float = 0.0
    period: Period = Period()
    orders: int = 0
    revenue: float = 0.0
    currency: str | None = None
    funnel: Funnel = Funnel()
    segments: dict[str, list[Segment]] = {}
    daily: list[Day] = []
    intent: list[IntentBin] = []
    decided: Decided = Decided()
    saved: Lift | None = None
    models: list[ModelHealth] = []
    hesitation: Hesitation = Hesitation()
    repeat: Repeat | None = None
    reasons: Reasons | None = None


def summarise(  # noqa: PLR0913
    *,
    source: str,
    events: int,
    journeys: Journeys,
    decided: Decided | None = None,
    defects: Sequence[Defect] = (),
    data_quality: Sequence[Finding] = (),
    duplicates: int = 0,
    late_events: int = 0,
    dead_letters: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
    carts: int = 0,
    abandoned_carts: Mapping[str, int] | None = None,
    waiting_carts: int = 0,
    abandonment_horizon_s: int | None = None,
    non_shoppers: Mapping[str, Counted] | None = None,
    privacy: Mapping[str, int] | None = None,
    saved: Lift | None = None,
    models: Sequence[ModelHealth] = (),
    hesitation: Hesitation | None = None,
    repeat: Repeat | None = None,
    reasons: Reasons | None = None,
    seconds: float = 0.0,
    peak_rss_mb: float = 0.0,
) -> Summary:
    """Put together what the stages of a run counted.

    ``saved`` is left out unless decisions were executed: what a foreign log was merely decided on
    is never counted as money saved.
    """
    decided = decided or Decided()
    return Summary(
        source=source,
        events=events,
        visitors=journeys.visitors,
        sessions=journeys.sessions,
        duplicates=duplicates,
        late_events=late_events,
        dead_letters=dict(dead_letters or {}),
        warnings=[*warnings, *_currency_warning(journeys)],
        decisions=decided.total,
        defects=list(defects),
        data_quality=list(data_quality),
        carts=carts,
        abandoned_carts=dict(abandoned_carts or {}),
        waiting_carts=waiting_carts,
        abandonment_horizon_s=abandonment_horizon_s,
        non_shoppers=dict(non_shoppers or {}),
        privacy=dict(privacy or {}),
        seconds=seconds,
        events_per_second=events / seconds if seconds > 0 else 0.0,
        peak_rss_mb=peak_rss_mb,
        period=journeys.period,
        orders=journeys.orders,
        revenue=journeys.revenue,
        currency=journeys.currency,
        funnel=journeys.funnel,
        segments=journeys.segments,
        daily=journeys.daily,
        intent=journeys.intent,
        decided=decided,
        saved=saved if decided.executed else None,
        models=list(models),
        hesitation=hesitation or Hesitation(),
        repeat=repeat,
        reasons=reasons,
    )


def to_json(summary: Summary) -> str:
    """Write a summary as one JSON object; times are ISO 8601 UTC, unknown numbers null."""
    return msgspec.json.encode(summary).decode()


def _currency_warning(journeys: Journeys) -> list[str]:
    if not journeys.other_currency_orders:
        return []
    others = f"{journeys.other_currency_orders} orders are in another currency"
    return [f"{others} than {journeys.currency or 'most'}; revenue leaves them out."]
