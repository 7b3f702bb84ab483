"""What a log can and cannot answer, from the events it gives."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from typing import Final

import polars as pl

from recoup.decisions import Finding
from recoup.events import COUNTS, FLAGS, MONEY, REALS
from recoup.friction.signal_kinds import FAMILIES, Signal
from recoup.friction.signals import SIGNALS
from recoup.sources.base import SourceBatch

SEGMENTS: Final = (
    "device", "browser", "os", "channel", "traffic_source", "country", "region", "build",
)  # fmt: skip
FUNNEL: Final = {
    "an item viewed": ("view_item",),
    "added to the cart": ("add_to_cart",),
    "checkout begun": ("begin_checkout", "add_shipping_info", "add_payment_info"),
    "purchased": ("purchase",),
}
SPARSE: Final = 0.05
"""Share of events with a latency below which single pages are hard to blame."""
ALONE: Final = 0.95
BACKGROUND: Final = ("item", "value", "element")
"""Fields that a signal needs beside another, which alone tell nothing."""
MIN_STEPS: Final = 2
BUYING: Final = {"purchase", "refund", "return"}
"""Events that come after a journey, or end it."""
PRESENT: Final = ("session", "item", "order", "query", "page", "category", *SEGMENTS,
                  "payment_method", "error_code", "element", "option", "coupon", "arm", "currency",
                  *MONEY, *COUNTS, *REALS, *FLAGS)  # fmt: skip


class Census:
    """What a log holds: how many events of each name, and in how many each field has a value."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.filled: Counter[tuple[str, str]] = Counter()
        self.fields: Counter[str] = Counter()
        self.visitors: set[str] = set()
        self.sessions: set[str] = set()
        self.dead: Counter[str] = Counter()
        self.lines = 0
        self.first: dt.datetime | None = None
        self.last: dt.datetime | None = None

    def add(self, batch: SourceBatch) -> None:
        """Count a batch."""
        self.dead.update(batch.dead_letters["reason"].to_list())
        events = batch.batch.events
        if events.is_empty():
            return
        self.lines += batch.batch.items.height
        counts = events.group_by("event").agg(
            pl.len().alias("len"), *(pl.col(name).count() for name in PRESENT)
        )
        for row in counts.iter_rows(named=True):
            name = row["event"]
            self.events[name] += row["len"]
            for field in PRESENT:
                self.filled[name, field] += row[field]
                self.fields[field] += row[field]
        self.visitors.update(events["visitor"].unique())
        self.sessions.update(events["session"].drop_nulls().unique())
        low, high = events.select(low=pl.col("ts").min(), high=pl.col("ts").max()).row(0)
        self.first = low if self.first is None else min(self.first, low)
        self.last = high if self.last is None else max(self.last, high)


def judge(batches: Iterable[SourceBatch]) -> tuple[list[str], list[str], list[Finding]]:
    """Say what a log can answer, what it cannot, and what is wrong with its data."""
    census, findings = Census(), list[Finding]()
    for batch in batches:
        census.add(batch)
        findings += batch.findings
    answers, cannot = _overview(census), list[str]()
    for can, sentence in (
        _funnel(census), _intent(census), _value(census), _abandonment(census), _sessions(census),
        _segments(census), _latency(census), _promise(census), _identity(census),
        *_signals(census), _experiment(census), _refunds(census),
    ):  # fmt: skip
        (answers if can else cannot).append(sentence)
    return answers, cannot, findings


def _overview(census: Census) -> list[str]:
    total = sum(census.events.values())
    if census.first is None or census.last is None:
        return []
    days = (census.last - census.first).total_seconds() / 86_400
    names = ", ".join(f"{name} {count:,}" for name, count in census.events.most_common(12))
    period = f"from {census.first:%Y-%m-%d %H:%M} to {census.last:%Y-%m-%d %H:%M} UTC"
    people = f"{len(census.visitors):,} visitors"
    said = [f"{total:,} events of {people} {period} ({days:.1f} days): {names}."]
    if census.lines:
        said.append(f"Item lines: {census.lines:,}, so single items can be judged.")
    return said


def _funnel(census: Census) -> tuple[bool, str]:
    found = [step for step, names in FUNNEL.items() if any(census.events[n] for n in names)]
    lacking = [step for step in FUNNEL if step not in found]
    if len(found) < MIN_STEPS:
        return False, f"Funnel: only `{'`, `'.join(found) or 'no step'}` is recorded."
    tail = f" (not recorded: {', '.join(lacking)})" if lacking else ""
    return True, f"Funnel by step: {', '.join(found)}{tail}."


def _intent(census: Census) -> tuple[bool, str]:
    bought, others = census.events["purchase"], sum(census.events.values())
    if not bought:
        return False, "Purchase intent and lost orders: no purchase is recorded."
    if not set(census.events) - BUYING:
        return False, "Purchase intent: only purchases are recorded, not what led to them."
    return True, f"Purchase intent, and orders lost: {bought:,} purchases among {others:,} events."


def _value(census: Census) -> tuple[bool, str]:
    bought, valued = census.events["purchase"], census.filled["purchase", "value"]
    if not valued:
        return False, "Money lost: no purchase has a value, so losses count orders only."
    return True, f"Money lost: {valued:,} of {bought:,} purchases have a value."


def _abandonment(census: Census) -> tuple[bool, str]:
    if not census.events["add_to_cart"] and not census.events["begin_checkout"]:
        return False, "Abandoned carts: neither carts nor checkouts are recorded."
    if not census.events["purchase"]:
        return False, "Abandoned carts: without purchases none can be told from a bought one."
    return True, "Abandoned carts and checkouts, by the last step reached."


def _sessions(census: Census) -> tuple[bool, str]:
    if census.sessions:
        return True, f"Sessions: the log has its own, {len(census.sessions):,} of them."
    return True, "Sessions: the log has none; they are split on 30 minutes of silence."


def _segments(census: Census) -> tuple[bool, str]:
    found = [name for name in SEGMENTS if census.fields[name]]
    if not found:
        return (
            False,
            "Where a defect sits by device, browser, channel or country: none is recorded.",
        )
    return True, f"Where a defect sits, by {', '.join(found)}."


def _latency(census: Census) -> tuple[bool, str]:
    timed, total = census.fields["latency_ms"], sum(census.events.values())
    if not timed:
        return False, "Slowness: no latency is recorded."
    share = timed / total
    sparse = "" if share >= SPARSE else ": too few to blame single pages with certainty"
    return True, f"Slowness: {timed:,} events ({share:.1%}) have a latency{sparse}."


def _promise(census: Census) -> tuple[bool, str]:
    found = [name for name in ("promise_days", "in_stock") if census.fields[name]]
    if not found:
        return False, "Stock and delivery promises: neither is recorded."
    return True, f"Stock and delivery promises: {', '.join(found)}."


def _identity(census: Census) -> tuple[bool, str]:
    total = sum(census.events.values())
    if len(census.visitors) >= ALONE * total:
        return (
            False,
            "Journeys: nearly every event has a visitor of its own, so nothing joins them.",
        )
    per = total / max(1, len(census.visitors))
    return True, f"Journeys: {per:.1f} events a visitor on average."


def _signals(census: Census) -> list[tuple[bool, str]]:
    """Say of each signal whether it can be seen; those lacking the same events together."""
    unseen: dict[tuple[str, ...], list[str]] = {}
    said = list[tuple[bool, str]]()
    for signal in SIGNALS:
        names = FAMILIES.get(signal.family, ())
        if any(census.events[name] for name in names):
            said.append(_signal(census, signal, names))
        else:
            unseen.setdefault(names, []).append(_title(signal))
    for names, titles in unseen.items():
        said.append((False, f"{', '.join(titles)}: no event of {', '.join(names)} is recorded."))
    return said


def _title(signal: Signal) -> str:
    return f"{signal.id} ({signal.name})"


def _signal(census: Census, signal: Signal, names: tuple[str, ...]) -> tuple[bool, str]:
    """Say whether the events a signal is looked for in carry what it needs."""
    seen = sum(census.events[name] for name in names)
    filled = {field: sum(census.filled[name, field] for name in names) for field in signal.fields}
    telling = [field for field in signal.fields if field not in BACKGROUND] or signal.fields
    if any(filled[field] for field in telling):
        which = ", ".join(f"{field} in {count:,}" for field, count in filled.items() if count)
        return True, f"{_title(signal)}: {which} of {seen:,} events of {', '.join(names)}."
    return False, f"{_title(signal)}: {', '.join(signal.fields)} missing from {', '.join(names)}."


def _experiment(census: Census) -> tuple[bool, str]:
    if census.fields["arm"] and census.fields["propensity"]:
        return True, "What an intervention did: arms and propensities are recorded."
    said = (
        "What an intervention did: no arm with its propensity is recorded, so causes of "
        "differences between shoppers cannot be told apart."
    )
    return False, said


def _refunds(census: Census) -> tuple[bool, str]:
    count = census.events["refund"] + census.events["return"]
    if not count:
        return False, "Refunds and returns: none is recorded."
    return True, f"Refunds and returns: {count:,} are recorded."
