"""What was decided, counted by day, action, reason and slice."""

import datetime as dt
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Action
from recoup.errors import SnapshotError
from recoup.parts import frame_bytes, read_frame
from recoup.report.funnel import FILLED_DAYS
from recoup.report.summary import DayDecisions, Decided

VERSION: Final = 1
MAGIC: Final = b"recoup.report.decided"

_CELL: Final = ("date", "action", "reason", "slice", "executed")


class DecisionTally:
    """Fold decisions into counts; bounded by days x actions x reasons x slices.

    Examples
    --------
    >>> from recoup.decisions import DECISION_SCHEMA
    >>> row = {
    ...     "action": "wait:60",
    ...     "reason": "K5",
    ...     "slice": "policy",
    ...     "executed": False,
    ...     "ts": dt.datetime(2016, 9, 1, tzinfo=dt.timezone.utc),
    ... }
    >>> columns = {name: [row.get(name)] for name in DECISION_SCHEMA}
    >>> tally = DecisionTally()
    >>> tally.step(pl.DataFrame(columns, schema=DECISION_SCHEMA))
    >>> tally.result().by_action
    {'wait:60': 1}
    """

    name = "report.decided"

    def __init__(self) -> None:
        self._cells = _no_cells()

    def step(self, batch: pl.DataFrame, /) -> None:
        """Count a frame of DECISION_SCHEMA."""
        if batch.is_empty():
            return
        date, one = pl.col("ts").dt.date().alias("date"), pl.lit(1, pl.Int64).alias("n")
        both = pl.concat([self._cells, batch.select(date, *_CELL[1:], one)])
        self._cells = both.group_by(_CELL).agg(pl.col("n").sum())

    def result(self) -> Decided:
        """Give the counts so far."""
        cells = self._cells
        return Decided(
            total=int(cells["n"].sum()),
            executed=int(cells.filter(pl.col("executed"))["n"].sum()),
            by_action=_counts(cells, "action"),
            by_reason=_counts(cells, "reason"),
            by_slice=_counts(cells, "slice"),
            daily=_daily(cells),
        )

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        cells = frame_bytes(self._cells.sort(_CELL))
        return msgspec.msgpack.encode((MAGIC, VERSION, cells))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another stage or version.
        """
        try:
            magic, version, cells = msgspec.msgpack.decode(state, type=tuple[bytes, int, bytes])
        except msgspec.DecodeError as error:
            raise SnapshotError(f"Expected the state of {self.name}, got {error}") from error
        if (magic, version) != (MAGIC, VERSION):
            raise SnapshotError(
                f"Expected {self.name} version {VERSION}, got version {version}",
                hint="replay the journal from its start",
            )
        self._cells = read_frame(cells)


def _counts(cells: pl.DataFrame, by: str) -> dict[str, int]:
    sums = cells.group_by(pl.col(by).fill_null("")).agg(pl.col("n").sum())
    return dict(sums.sort("n", by, descending=[True, False]).iter_rows())


def _daily(cells: pl.DataFrame) -> list[DayDecisions]:
    counts: dict[dt.date, dict[str, int]] = {}
    for date, action, n in cells.select("date", "action", "n").iter_rows():
        kinds = counts.setdefault(date, {})
        kind = Action.parse(action).kind
        kinds[kind] = kinds.get(kind, 0) + n
    if not counts:
        return []
    first, last = min(counts), max(counts)
    whole = (last - first).days < FILLED_DAYS
    every = (first + dt.timedelta(days=k) for k in range((last - first).days + 1))
    days = list(every) if whole else sorted(counts)
    return [DayDecisions(day, **counts.get(day, {})) for day in days]


def _no_cells() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "date": pl.Date(), "action": pl.String(), "reason": pl.String(),
            "slice": pl.String(), "executed": pl.Boolean(), "n": pl.Int64(),
        }
    )  # fmt: skip
