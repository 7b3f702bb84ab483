"""The report in sentences: what happened, what is wrong, what to do first."""

import math
from typing import Final, NamedTuple

import msgspec

from recoup.decisions import Defect, Interval
from recoup.report import words
from recoup.report.summary import Decided, Summary

LIKELY: Final = 0.8
"""A defect at least this probable is spoken of; below, it is a suspicion."""

POWER_REACH: Final = 1.96 + 0.84
"""Standard errors that a loss must measure to be seen with 80 % power at the 95 % level."""


class Rate(NamedTuple):
    """The unit in which losses are told: one for the whole report, so that they compare."""

    name: str
    hours: float

    @property
    def each(self) -> str:
        """The unit with its article: ``an hour``, ``a day``."""
        return f"{'an' if self.name == 'hour' else 'a'} {self.name}"

    def of(self, per_hour: Interval) -> Interval:
        """Turn what is lost per hour into this unit."""
        return per_hour.scaled(self.hours)


HOUR: Final = Rate("hour", 1.0)
DAY: Final = Rate("day", 24.0)
WEEK: Final = Rate("week", 168.0)


def loss_rate(summary: Summary) -> Rate:
    """Choose the unit in which the shop's orders, and so its losses, are numbers one can picture.

    Examples
    --------
    >>> from recoup.report.summary import Journeys, Period, summarise
    >>> import datetime as dt
    >>> begin = dt.datetime(2016, 9, 1, tzinfo=dt.timezone.utc)
    >>> period = Period(begin, begin + dt.timedelta(days=25))
    >>> loss_rate(summarise(source="s", events=9, journeys=Journeys(orders=697, period=period)))
    Rate(name='day', hours=24.0)
    """
    hours = summary.period.hours
    per_hour = summary.orders / hours if hours else 0.0
    if per_hour >= 20:  # noqa: PLR2004 - a twentieth of them is still one order an hour
        return HOUR
    return DAY if per_hour * DAY.hours >= 20 else WEEK  # noqa: PLR2004


def headline(summary: Summary) -> list[str]:
    """Say in a few sentences what an owner should know first."""
    if not summary.events:
        return ["The log holds no event that could be read, so there is nothing to report."]
    return [_business(summary), *_trouble(summary), *_acted(summary)]


def likely_defects(summary: Summary) -> list[Defect]:
    """Give the defects probable enough to speak of, in rank order."""
    return [defect for defect in summary.defects if defect.confidence >= LIKELY]


def lost_so_far(defect: Defect, summary: Summary) -> Interval:
    """Give the value lost from the defect's beginning to its end, or to the last event."""
    until = defect.until or summary.period.until or defect.since
    hours = max((until - defect.since).total_seconds() / 3600, 0.0)
    return defect.lost_value_per_hour.scaled(hours)


def smallest_visible_loss(summary: Summary, touched: float = 0.1) -> float | None:
    """Tell the smallest loss, in orders per hour, that this log could have shown.

    A defect that touches a share of the visits hides in the chance variation of their orders: to
    be seen four times in five at the 95 % level, it must cost 2.8 standard deviations of a Poisson
    count. None where there are no orders or no time.
    """
    hours = summary.period.hours
    if not hours or not summary.orders:
        return None
    return POWER_REACH * math.sqrt(summary.orders * touched) / hours


def todo(defect: Defect) -> str:
    """Say what to do about a defect."""
    if defect.recommended is None:
        return words.FIX
    return words.intervention_words(defect.recommended.intervention)


def since_words(defect: Defect) -> str:
    """Say from when to when."""
    begin = f"since {words.moment(defect.since)}"
    if defect.until is None:
        return begin
    return f"{words.moment(defect.since)} to {words.moment(defect.until)}"


def _business(summary: Summary) -> str:
    visits = f"{words.count(summary.sessions)} visit{'s' * (summary.sessions != 1)}"
    visitors = f"{words.count(summary.visitors)} visitor{'s' * (summary.visitors != 1)}"
    orders = _orders(summary)
    return f"{_when(summary)}, {visits} by {visitors} brought {orders}."


def _when(summary: Summary) -> str:
    begin, end = summary.period.since, summary.period.until
    if begin is None or end is None:
        return "In this log"
    if begin.date() == end.date():
        return f"On {words.day(begin)}"
    return f"Between {words.day(begin)} and {words.day(end)}"


def _orders(summary: Summary) -> str:
    if not summary.orders:
        return "no order"
    worth = f" worth {words.money(summary.revenue, summary.currency)}"
    buying = words.share(summary.funnel.purchase, summary.funnel.sessions)
    plural = "s" * (summary.orders != 1)
    return f"{words.count(summary.orders)} order{plural}{worth}; {buying} of the visits bought"


def _trouble(summary: Summary) -> list[str]:
    likely = likely_defects(summary)
    if not likely:
        return _no_trouble(summary)
    foremost = _foremost(likely)
    sentences = [_worst(foremost, summary)]
    if len(likely) > 1:
        sentences.append(_others([defect for defect in likely if defect is not foremost]))
    return sentences


def _foremost(likely: list[Defect]) -> Defect:
    """Pick the costliest that is still there, else the costliest that was."""
    return next((defect for defect in likely if defect.until is None), likely[0])


def _worst(worst: Defect, summary: Summary) -> str:
    rate = loss_rate(summary)
    loss = rate.of(worst.lost_orders_per_hour)
    worth = words.money(rate.of(worst.lost_value_per_hour).value, summary.currency)
    name = f"\u201c{words.defect_words(worst.type).name}\u201d"
    where, when = words.entity_words(worst.entity), since_words(worst)
    orders = f"{words.figure(loss.value)} orders {rate.each}"
    cost = f"{orders} (between {words.between(loss, 'and')}), worth about {worth} {rate.each}"
    if worst.until is None:
        opening = f"The costliest thing wrong is {name} ({where}), {when}: it costs about {cost}."
        return f"{opening} What to do: {todo(worst)}."
    opening = f"The costliest thing wrong was {name} ({where}), {when}: it cost about {cost}."
    return f"{opening} It is over, and nothing as likely goes on."


def _others(others: list[Defect]) -> str:
    number, over = len(others), sum(defect.until is not None for defect in others)
    which = "1 more defect is" if number == 1 else f"{number} more defects are"
    past = ", but over by now" if over == number else f", {over} of them over by now"
    likely = f"{which} likely{past if over else ''}"
    return f"{likely}; the list below ranks all by what they cost and how sure that is."


def _no_trouble(summary: Summary) -> list[str]:
    visible = smallest_visible_loss(summary)
    if visible is None:
        return ["Without orders in the log, what a defect costs cannot be seen."]
    rate = loss_rate(summary)
    suspicion = ""
    if summary.defects:
        suspicion = " What is listed below are suspicions: more visits would settle them."
    text = (
        "No defect stands out. With this many orders, a defect that touches one visit in ten "
        f"would have to cost about {words.figure(visible * rate.hours)} orders {rate.each} "
        f"to be seen; smaller losses may be there.{suspicion}"
    )
    return [text]


def _acted(summary: Summary) -> list[str]:
    decided, saved = summary.decided, summary.saved
    if not decided.total:
        return []
    if not decided.executed:
        worked_out = f"For this log of the past, {words.count(decided.total)} decisions"
        nothing = "no shopper saw any of it, and no money is counted as saved"
        return [f"{worked_out} were worked out but none was executed: {nothing}."]
    done = decided_words(decided)
    if saved is None:
        return [f"{done} What they earned cannot be measured yet: the holdout is too small."]
    return [f"{done} {saved_words(summary)}"]


def decided_words(decided: Decided) -> str:
    """Say how many decisions were carried out: to offer help, to wait, to leave alone.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.report.summary import DayDecisions
    >>> day = DayDecisions(date=dt.date(2024, 5, 1), act=2, wait=3, never=1)
    >>> decided_words(Decided(total=6, executed=6, daily=[day]))
    '6 decisions were carried out: to offer help (2), to wait (3), to leave the shopper alone (1).'
    """
    if decided.executed < decided.total:
        done, total = words.count(decided.executed), words.count(decided.total)
        return f"{done} of {total} decisions were carried out."
    acts, waits, nothing = (
        words.count(sum(getattr(day, kind) for day in decided.daily))
        for kind in ("act", "wait", "never")
    )
    return (
        f"{words.count(decided.total)} decisions were carried out: to offer help ({acts}), to wait "
        f"({waits}), to leave the shopper alone ({nothing})."
    )


def saved_words(summary: Summary) -> str:
    """Say what acting earned against the permanent holdout."""
    saved = summary.saved
    if saved is None:
        return "What acting earned is not measured."
    ends = words.between_money(saved.total, summary.currency, "and")
    amount = words.money(saved.total.value, summary.currency)
    basis = (
        f"measured on {words.count(saved.treated)} visitors against {words.count(saved.holdout)} "
        "who were never helped"
    )
    if saved.total.low > 0:
        return f"They earned about {amount} (between {ends}), {basis}."
    if saved.total.high < 0:
        return f"They lost about {amount} (between {ends}), {basis}: stop and look at the policy."
    return f"Whether they earned anything is open: {amount} (between {ends}), {basis}."


def of_thousand(summary: Summary) -> str:
    """Say how far a thousand visits get."""
    visits, *later = summary.funnel.counts
    if not visits:
        return ""
    verbs = ("saw a list or searched", "looked at a product", "opened a cart", "started checkout")
    parts = [f"{1000 * n / visits:.0f} {verb}" for n, verb in zip(later, verbs, strict=False)]
    bought = words.figure(1000 * later[-1] / visits)
    return f"Out of 1,000 visits, {', '.join(parts)}, and {bought} bought."


def carts(summary: Summary) -> str:
    """Say what became of the carts."""
    horizon = summary.abandonment_horizon_s
    within = f" within {words.span(horizon)}" if horizon else ""
    left = sum(summary.abandoned_carts.values())
    bought = summary.carts - left - summary.waiting_carts
    told = (
        f"{words.count(summary.carts)} carts were opened, each counted once over all visits of its "
        f"shopper: {words.count(bought)} were bought, {words.count(left)} left for good (no "
        f"purchase and no return{within})"
    )
    if not summary.waiting_carts:
        return f"{told}."
    return f"{told}, and of {words.count(summary.waiting_carts)} it cannot be known yet."


def intake(summary: Summary) -> str:
    """Say what came in, what was dropped, and what came late."""
    repeats = words.count(summary.duplicates) if summary.duplicates else "none"
    late = words.count(summary.late_events) if summary.late_events else "none"
    return (
        f"{words.count(summary.events)} events were taken in. Repeats dropped: {repeats}. "
        f"Come late and put in their place in time: {late}."
    )


class Cost(msgspec.Struct, frozen=True):
    """What the likely defects cost together, in currency units.

    Parameters
    ----------
    lost_per_hour, recoverable_per_hour
        By those still open.
    costliest_per_hour
        By the costliest open one of each type alone: those of one type often meet the same visits.
    lost_before
        In all, by those that are over.
    """

    lost_per_hour: float
    recoverable_per_hour: float
    costliest_per_hour: float
    lost_before: float


def total_cost(summary: Summary) -> Cost:
    """Add up what likely defects cost, and what could be recovered of it.

    Defects overlap (one visit can meet several), so this is an upper end, and the report says so.
    """
    likely = likely_defects(summary)
    now = [defect for defect in likely if defect.until is None]
    over = [defect for defect in likely if defect.until is not None]
    return Cost(
        sum(max(defect.lost_value_per_hour.value, 0.0) for defect in now),
        sum(
            max(defect.recommended.recoverable_value_per_hour.value, 0.0)
            for defect in now
            if defect.recommended
        ),
        sum(_costliest(now).values()),
        sum(max(lost_so_far(defect, summary).value, 0.0) for defect in over),
    )


def _costliest(defects: list[Defect]) -> dict[str, float]:
    worst: dict[str, float] = {}
    for defect in defects:
        worst[defect.type] = max(worst.get(defect.type, 0.0), defect.lost_value_per_hour.value)
    return worst
