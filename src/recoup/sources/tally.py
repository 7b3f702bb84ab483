"""What is noticed over a whole log, beside its rows."""

from collections import Counter
from typing import Final

import polars as pl

from recoup.decisions import Finding
from recoup.events import iso
from recoup.sources.convert import Converted, read_columns
from recoup.sources.drift import Watch
from recoup.sources.follow import Renamed
from recoup.sources.mapping import Mapping

NAMING: Final = ("visitor", "session", "id", "item", "order", "promotion")
WATCHED: Final = ("item", "order", "value", "price", "query", "session", "coupon", "payment_method")
"""Fields that only some events have: their gaps are judged among those."""
KINDS: Final = (
    "view_item", "add_to_cart", "view_search_results", "search", "begin_checkout",
    "add_payment_info", "purchase",
)  # fmt: skip
LATE_US: Final = 3_600_000_000
MANY_LATE: Final = 0.01
SHOWN: Final = 20
AMOUNTS: Final = ("value", "price")
CENT: Final = 10_000
"""A hundredth of the currency, in micro-units: hardly any shop sells for less."""
ENOUGH_AMOUNTS: Final = 5
MOST_TINY: Final = 0.9


class Tally:
    """Counts over the log, and the findings they give at its end.

    Parameters
    ----------
    mapping
        How the log is read.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        named = {
            name for f in NAMING if f in mapping.columns for name in mapping.columns[f].sources
        }
        self._read = read_columns(mapping)
        self._all = Watch(named)
        self._of = {kind: Watch(named, scope=f" of `{kind}` events") for kind in KINDS}
        self._unknown: Counter[str] = Counter()
        self._ignored = self._made = self._events = self._late = 0
        self._latest: int | None = None
        self._amounts: Counter[str] = Counter()
        self._tiny: Counter[str] = Counter()
        self._pending: list[tuple[Renamed, int]] = []

    def add(
        self, converted: Converted, renamed: tuple[tuple[Renamed, int], ...]
    ) -> tuple[Finding, ...]:
        """Count a stretch, and give what must be said at once: a change of names with its date.

        Parameters
        ----------
        renamed
            Changes of names, each with the number of the row in which it begins.
        """
        self._unknown.update({n: c for n, c in converted.unknown.items() if n != "custom"})
        self._ignored += converted.ignored
        self._made += converted.made_ids
        self._events += converted.events.height
        self._count_late(converted.events["ts"])
        self._count_amounts(converted.events)
        frame = converted.block.frame
        self._all.observe({name: frame[name] for name in frame.columns}, converted.ts)
        self._observe_kinds(converted)
        self._pending += renamed
        return self._dated(converted)

    def _observe_kinds(self, converted: Converted) -> None:
        frame = converted.block.frame
        names = {
            name
            for field in WATCHED
            if field in self._mapping.columns
            for name in self._mapping.columns[field].sources
            if name in frame.columns
        }
        for kind in converted.names.unique().to_list():
            if kind in self._of:
                rows = converted.names == kind
                columns = {name: frame[name].filter(rows) for name in names}
                self._of[kind].observe(columns, converted.ts.filter(rows))

    def _count_late(self, ts: pl.Series) -> None:
        if ts.is_empty():
            return
        moments = ts.to_physical()
        first = moments[0] if self._latest is None else self._latest
        highest = moments.cum_max().clip(lower_bound=first)
        self._late += int((highest - moments > LATE_US).sum())
        self._latest = int(highest[-1])

    def _count_amounts(self, events: pl.DataFrame) -> None:
        for name in AMOUNTS:
            amounts = events[name].drop_nulls()
            self._amounts[name] += int((amounts > 0).sum())
            self._tiny[name] += int(amounts.is_between(1, CENT - 1).sum())

    def _dated(self, converted: Converted) -> tuple[Finding, ...]:
        """Give the findings of changes whose first row has come."""
        found: list[Finding] = []
        waiting: list[tuple[Renamed, int]] = []
        for change, number in self._pending:
            moments = converted.ts.filter(converted.block.rows >= number).drop_nulls()
            if moments.is_empty():
                waiting.append((change, number))
                continue
            detail = f"`{change.new}` is read on as `{change.old}`: {change.reason}."
            since = iso(int(moments.to_physical()[0]))
            found.append(Finding("column_renamed", change.old, since, None, detail))
        self._pending = waiting
        return tuple(found)

    def findings(self) -> tuple[Finding, ...]:
        """Give what can be said once the log has ended."""
        found = [
            *self._drift(),
            *self._ids(),
            *self._names(),
            *self._tiny_amounts(),
            *self._order(),
        ]
        if self._ignored:
            detail = f"{self._ignored:,} rows were left out, as the mapping says."
            found.append(Finding("rows_ignored", "*", None, None, detail))
        return tuple(found)

    def _drift(self) -> list[Finding]:
        found = list(self._all.findings())
        said = {finding.column for finding in found}
        for watch in self._of.values():
            for finding in watch.findings():
                if finding.column not in said:
                    found.append(finding)
                    said.add(finding.column)
        return found

    def _ids(self) -> list[Finding]:
        if not self._made:
            return []
        mapped = "id" in self._mapping.columns
        column = self._mapping.columns["id"].sources[0] if mapped else "id"
        lacking = "had no id" if mapped else "have no column for their id"
        detail = (
            f"{self._made:,} of {self._events:,} events {lacking}; ids were made from their "
            "content and place, so repeats cannot be told."
        )
        return [Finding("ids_made", column, None, None, detail)]

    def _names(self) -> list[Finding]:
        if not self._unknown:
            return []
        column = "".join(self._mapping.event.sources[:1])
        common = ", ".join(f"`{name}` {n:,}" for name, n in self._unknown.most_common(SHOWN))
        more = len(self._unknown) - SHOWN
        tail = f" and {more:,} names more" if more > 0 else ""
        detail = f"Event names outside the vocabulary, kept as `custom`: {common}{tail}."
        return [Finding("unknown_event", column, None, None, detail)]

    def _tiny_amounts(self) -> list[Finding]:
        """Say where amounts are so small that their unit must be another one."""
        return [
            Finding(
                "amounts_tiny",
                name,
                None,
                None,
                f"{tiny:,} of {self._amounts[name]:,} amounts are below 0.01 of their currency; a "
                "native log holds micro-units (12.50 is 12500000), a mapping may name the `unit`.",
            )
            for name, tiny in self._tiny.items()
            if self._amounts[name] >= ENOUGH_AMOUNTS and tiny >= MOST_TINY * self._amounts[name]
        ]

    def _order(self) -> list[Finding]:
        if self._late <= MANY_LATE * self._events or self._mapping.order == "time":
            return []
        share = self._late / self._events
        detail = (
            f"{self._late:,} events ({share:.1%}) stand more than an hour behind a later one; "
            '`order = "time"` in the mapping sorts them first.'
        )
        return [Finding("unordered", self._mapping.ts.sources[0], None, None, detail)]
