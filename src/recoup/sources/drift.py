"""What is wrong with the columns of a log, and since when.

Per column the rows with and without a value are counted by the hour of event time, so that the
order and the batches in which rows come change nothing. At the end the counts are judged: a column
that falls silent (``column_missing``), one that begins (``column_added``), and one whose share of
missing values lies apart for a while (``ids_missing`` for what names things, else
``null_rate_shift``).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Finding
from recoup.events import iso
from recoup.sources.values import NULLS

HOUR_US: Final = 3_600_000_000
SHORT_HOURS: Final = 96
"""A log shorter than this is judged by the hour, a longer one by the day."""
OWED: Final = 50.0
"""How many values a column must owe before its silence is reported."""
COMMON: Final = 0.05
"""Share of rows that must have a value for its beginning to be worth saying."""
RARER: Final = 3.0
"""A silence must owe this many times what any other silence of the column owes."""
MIN_ROWS: Final = 30
MIN_SHIFT: Final = 0.1
PLAIN_SHIFT: Final = 0.25
"""The same for a column that names nothing: a weekend shifts a region by 0.16."""
MIN_BUCKETS: Final = 4
MAX_BUCKETS: Final = 64
MIN_SIDE: Final = 2
DEVIATIONS: Final = 4.0

Counts = NDArray[np.float64]


class Silence(msgspec.Struct, frozen=True):
    """A stretch of time, in microseconds; ``until`` is None where it lasts to the end.

    Examples
    --------
    >>> Silence(0, None).until is None
    True
    """

    since: int
    until: int | None


class Watch:
    """Counts where columns have values.

    Parameters
    ----------
    names
        Columns that name things (visitors, sessions, items, orders): their loss is
        ``ids_missing``.
    table
        Put before the name of each column, where a log has several tables.
    scope
        Which rows are counted, where these are not all: words for the finding.

    Examples
    --------
    >>> watch = Watch({"user_id"})
    >>> hours = pl.Series([hour * HOUR_US for hour in range(20) for _ in range(100)])
    >>> users = pl.Series(["u" if row < 1500 or row % 2 else None for row in range(2000)])
    >>> watch.observe({"user_id": users}, hours)
    >>> [(finding.kind, finding.since) for finding in watch.findings()]
    [('ids_missing', '1970-01-01T15:00:00Z')]
    """

    def __init__(
        self, names: Collection[str] = frozenset(), *, table: str = "", scope: str = ""
    ) -> None:
        self._names = names
        self._table = table
        self._scope = scope
        self._rows: defaultdict[int, int] = defaultdict(int)
        self._present: dict[str, defaultdict[int, int]] = {}
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def observe(self, columns: Mapping[str, pl.Series], ts: pl.Series) -> None:
        """Count a stretch of rows.

        Parameters
        ----------
        columns
            Raw columns, each of shape (n,).
        ts
            Moments, as int64 microseconds or as datetimes; rows without one are not counted.
        """
        placed = ts.is_not_null()
        moments = ts.filter(placed).to_physical().cast(pl.Int64).to_numpy()
        if not len(moments):
            return
        hours, bucket = np.unique(moments // HOUR_US, return_inverse=True)
        for hour, count in zip(hours.tolist(), np.bincount(bucket).tolist(), strict=True):
            self._rows[hour] += count
        for name, column in columns.items():
            present = has_value(column).filter(placed).to_numpy()
            counted = self._present.setdefault(name, defaultdict(int))
            if not present.any():
                continue
            counts = np.bincount(bucket[present], minlength=len(hours))
            for hour, count in zip(hours.tolist(), counts.tolist(), strict=True):
                counted[hour] += count
            seen = moments[present]
            self._first[name] = min(int(seen.min()), self._first.get(name, int(seen.min())))
            self._last[name] = max(int(seen.max()), self._last.get(name, int(seen.max())))

    def findings(self) -> tuple[Finding, ...]:
        """Judge what was counted."""
        if not self._rows:
            return ()
        return tuple(finding for name in self._present for finding in self._judge(name))

    def _judge(self, name: str) -> Iterator[Finding]:
        starts, rows, present = self._buckets(name)
        if name not in self._first:
            return
        silences = list(_silences(rows, present))
        title = f"`{self._table}{name}`{self._scope}"
        for first, last in silences:
            until = None if last == len(rows) else int(starts[last])
            since = self._last[name] if last == len(rows) else int(starts[first])
            if first == 0 and present.sum() < COMMON * rows[last:].sum():
                continue
            if first == 0:
                began = self._first[name]
                yield self._finding(
                    "column_added", name, began, None, f"{title} has no value before this."
                )
                continue
            missed = int(rows[first:last].sum())
            usual = _rate(rows, present, 0, first)
            detail = (
                f"{title} has no value in {missed:,} rows; before, {usual:.1%} of rows had one."
            )
            yield self._finding("column_missing", name, since, until, detail)
        if not silences:
            yield from self._shift(name, title, starts, rows, present)

    def _shift(
        self, name: str, title: str, starts: NDArray[np.int64], rows: Counts, present: Counts
    ) -> Iterator[Finding]:
        found = apart(rows, present)
        if found is None:
            return
        first, last = found
        inside = 1 - _rate(rows, present, first, last)
        outside = 1 - (present.sum() - present[first:last].sum()) / (
            rows.sum() - rows[first:last].sum()
        )
        least = MIN_SHIFT if name in self._names else PLAIN_SHIFT
        if inside - outside < least:
            return
        kind = "ids_missing" if name in self._names else "null_rate_shift"
        until = None if last == len(rows) else int(starts[last])
        detail = (
            f"{title} is missing from {inside:.1%} of rows, against {outside:.1%} at other times."
        )
        yield self._finding(kind, name, int(starts[first]), until, detail)

    def _buckets(self, name: str) -> tuple[NDArray[np.int64], Counts, Counts]:
        """Give the buckets' beginnings (us), rows, and rows with a value."""
        hours = sorted(self._rows)
        width = 1 if hours[-1] - hours[0] < SHORT_HOURS else 24
        counted = self._present[name]
        buckets: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        for hour in hours:
            pair = buckets[hour // width]
            pair[0] += self._rows[hour]
            pair[1] += counted.get(hour, 0)
        order = sorted(buckets)
        pairs = np.array([buckets[bucket] for bucket in order], np.float64)
        return np.array(order, np.int64) * width * HOUR_US, pairs[:, 0], pairs[:, 1]

    def _finding(self, kind: str, name: str, since: int, until: int | None, detail: str) -> Finding:
        return Finding(
            kind, f"{self._table}{name}", iso(since), None if until is None else iso(until), detail
        )


def has_value(column: pl.Series) -> pl.Series:
    """Say in which rows a column has a value."""
    if column.dtype == pl.String:
        return column.is_not_null() & ~column.is_in(NULLS).fill_null(value=False)
    return column.is_not_null()


def _rate(rows: Counts, present: Counts, first: int, last: int) -> float:
    return float(present[first:last].sum() / max(1.0, rows[first:last].sum()))


def _silences(rows: Counts, present: Counts) -> Iterator[tuple[int, int]]:
    """Find runs of buckets in which a column owes many values, more than at any other time."""
    empty = np.concatenate(([False], present == 0, [False]))
    edges = np.flatnonzero(empty[1:] != empty[:-1]).reshape(-1, 2)
    lengths = [float(rows[first:last].sum()) for first, last in edges]
    for (first, last), length in zip(edges.tolist(), lengths, strict=True):
        shorter = max((other for other in lengths if other < length), default=0.0)
        seen = present[:first].sum() if first else present.sum()
        rate = _rate(rows, present, 0, first) if first else _rate(rows, present, last, len(rows))
        if seen >= OWED and rate * length >= OWED and length >= RARER * shorter:
            yield first, last


def _merged(counts: Counts, width: int) -> Counts:
    return np.add.reduceat(counts, np.arange(0, len(counts), width))


def apart(rows: Counts, present: Counts) -> tuple[int, int] | None:
    """Find the stretch of buckets whose share of values lies wholly apart from all others'.

    Parameters
    ----------
    rows, present
        Rows, and rows with a value, per bucket: shape (n,).

    Returns
    -------
    tuple or None
        First bucket, and the one behind the last.
    """
    width = -(-len(rows) // MAX_BUCKETS)
    if width > 1:
        found = apart(_merged(rows, width), _merged(present, width))
        return None if found is None else (found[0] * width, min(found[1] * width, len(rows)))
    usable = np.flatnonzero(rows >= MIN_ROWS)
    if len(usable) < MIN_BUCKETS:
        return None
    share = present[usable] / rows[usable]
    if share.max() - share.min() < MIN_SHIFT:
        return None
    best: tuple[float, int, int] | None = None
    for first in range(len(usable)):
        for last in range(first + 1, len(usable) + 1):
            outside = np.concatenate((share[:first], share[last:]))
            inside = share[first:last]
            if first == 0 or len(outside) < MIN_SIDE or len(inside) < MIN_SIDE:
                continue
            gap = max(inside.min() - outside.max(), outside.min() - inside.max())
            if gap <= 0:
                continue
            shift = abs(float(inside.mean() - outside.mean()))
            spread = max(float(inside.std()), float(outside.std()))
            if shift >= max(MIN_SHIFT, DEVIATIONS * spread) and (best is None or shift > best[0]):
                best = shift, first, last
    if best is None:
        return None
    _, first, last = best
    behind = len(rows) if last == len(usable) else int(usable[last])
    return int(usable[first]), behind
