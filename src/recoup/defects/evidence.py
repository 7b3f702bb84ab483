"""What sessions met, how far they came, and what they bought: the evidence that defects rest on."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Defect, Finding
from recoup.defects.ranking import Ranking, rank
from recoup.defects.tables import CONTEXTS, LEVELS, TOUCHED
from recoup.errors import SnapshotError
from recoup.events import EVENT_NAMES
from recoup.friction.moment import Moment
from recoup.friction.signal_kinds import FAMILIES
from recoup.friction.signals import SIGNALS
from recoup.parts import Runs, frame_bytes, gather, read_frame, under
from recoup.state import Changes

MAX_SESSIONS: Final = 1_000_000
MAX_HOURS: Final = 24 * 45
MAX_TOUCHES_PER_SESSION: Final = 200
_COMPACT_ROWS: Final = 200_000
_FRESH_ROWS: Final = 8_192
_LATE: Final = 1
"""Statuses beyond this one are of repeated events, and of those that came too late."""
_FORMAT: Final = b"recoup.evidence/1"

_LEVEL_OF: Final = {
    **dict.fromkeys(EVENT_NAMES, 0),
    **dict.fromkeys(("search", "view_search_results", "view_item_list", "select_item"), 1),
    **{name: level for level, name in enumerate(LEVELS) if level},
    "payment_error": 6,
    "shipping_quote": 5,
}


class Evidence:
    """A fold of moments into sessions, their steps, touches and orders.

    Bounded: the newest ``max_sessions`` within ``max_hours`` are kept, and 200 touches a session;
    what is older is forgotten before a ranking, and when as much has come in as is kept. The same
    for batches of any size.

    Parameters
    ----------
    max_sessions, max_hours
        What is kept, by event time.
    review_growth
        Share by which the events must grow from one review's ranking to the next.

    Examples
    --------
    >>> Evidence().ranked(0)
    []
    """

    name = "evidence"

    def __init__(
        self,
        *,
        max_sessions: int = MAX_SESSIONS,
        max_hours: int = MAX_HOURS,
        review_growth: float = 0.25,
    ) -> None:
        self._growth = review_growth
        self.max_sessions = max_sessions
        self.max_hours = max_hours
        self._tables = {
            name: Runs(merge, pl.DataFrame(schema=_TABLES[name]), ordered=True)
            for name, merge in _MERGES.items()
        }
        self._loose = 0
        self._compact_at = _COMPACT_ROWS
        self._left_out: set[int] = set()
        self._fresh: list[_Arrived] = []
        self._waiting = 0
        self._taken = 0
        self._review_at = 2_000
        self._reviewed: list[Defect] = []

    def step(self, moment: Moment) -> int:
        """Fold a batch and give the number of events that were taken in."""
        taken = int(np.count_nonzero(moment.rows.status <= _LATE))
        if not taken:
            return 0
        self._fresh.append(_arrived(moment))
        self._waiting += len(moment)
        self._taken += taken
        if self._waiting >= _FRESH_ROWS:
            self._fold()
        return taken

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Take out sessions that turned out to be no shopper's, with all that they told."""
        self._left_out.update(sessions)

    def _take_out(self) -> None:
        """Take out what was to be left out."""
        if self._left_out:
            self._fold()
            left = pl.col("session").is_in(list(self._left_out))
            for runs in self._tables.values():
                runs.replace(runs.whole().filter(~left))
            self._left_out.clear()

    def _fold(self) -> None:
        """Sum up what came in, many small batches at once: queries cost more than rows."""
        if not self._fresh:
            return
        events = _annotated(_joined(self._fresh))
        self._fresh, self._waiting = [], 0
        self._tables["sessions"].add(_sessions_of(events))
        self._tables["touches"].add(_touches_of(events))
        self._tables["orders"].add(_orders_of(events))
        self._loose += events.height
        if self._loose >= self._compact_at:
            self.tables()

    def tables(self) -> dict[str, pl.DataFrame]:
        """Give the tables ``sessions``, ``touches`` and ``orders``, one row per key, in order."""
        self._fold()
        self._take_out()
        self._forget(self._tables["sessions"].whole())
        tables = {name: runs.whole() for name, runs in self._tables.items()}
        self._loose = 0
        self._compact_at = max(_COMPACT_ROWS, int(tables["sessions"]["events"].sum()))
        return tables

    def _forget(self, sessions: pl.DataFrame) -> None:
        if sessions.is_empty():
            return
        horizon = int(sessions["last"].max()) - self.max_hours * 3_600_000_000  # type: ignore[arg-type]
        kept = sessions.filter(pl.col("last") >= horizon)
        if kept.height > self.max_sessions:
            kept = kept.sort("last", "session", descending=True).head(self.max_sessions)
            kept = kept.sort("session")
        if kept.height < sessions.height:
            for name, runs in self._tables.items():
                rows = runs.whole().join(kept, on="session", how="semi")
                runs.replace(rows.sort(_KEYS[name]))

    def ranking(self, now: int) -> Ranking:
        """Rank the defects as of ``now`` (int64 microseconds), and list tracking breaks."""
        return rank(self.tables(), now)

    def review(self, now: int) -> list[Defect]:
        """Give the defects as of the last ranking, made anew once enough more is known.

        Ranking costs time in proportion to what is known; so all reviews together cost about
        ``1 + 1 / review_growth`` times the last.
        """
        if self._taken >= self._review_at:
            self._reviewed = self.ranking(now).defects
            self._review_at = self._taken + max(int(self._taken * self._growth), 2_000)
        return self._reviewed

    def ranked(self, now: int) -> list[Defect]:
        """Give the defects as of ``now``, the costliest sure ones first."""
        return self.ranking(now).defects

    def findings(self, now: int) -> list[Finding]:
        """Give the tracking breaks as of ``now``: events lost while shoppers go on buying."""
        return self.ranking(now).findings

    def snapshot(self) -> bytes:
        """Give the tables as versioned bytes."""
        frames = {name: frame_bytes(frame) for name, frame in self.tables().items()}
        return _FORMAT + msgspec.msgpack.encode(
            (frames, self._taken, self._review_at, self._reviewed)
        )

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        body = state.removeprefix(_FORMAT)
        if len(body) == len(state):
            raise SnapshotError("Expected evidence of version 1, got other bytes")
        kind = tuple[dict[str, bytes], int, int, list[Defect]]
        frames, self._taken, self._review_at, self._reviewed = msgspec.msgpack.decode(
            body, type=kind
        )
        for name, runs in self._tables.items():
            runs.replace(read_frame(frames[name]))
        self._loose = 0

    def changes(self) -> Changes:
        """Give the rows that are new since the last call, as parts to save."""
        self._take_out()
        self._fold()
        told = (self._taken, self._review_at, self._reviewed, self._loose, self._compact_at)
        runs = {name: runs.changes() for name, runs in self._tables.items()}
        return gather({"reviewed": _FORMAT + msgspec.msgpack.encode(told), **runs})

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version.
        """
        state = parts.get("reviewed", b"")
        if not state.startswith(_FORMAT):
            raise SnapshotError("Expected evidence of version 1, got other bytes")
        kind = tuple[int, int, list[Defect], int, int]
        told = msgspec.msgpack.decode(state.removeprefix(_FORMAT), type=kind)
        self._taken, self._review_at, self._reviewed, self._loose, self._compact_at = told
        for name, runs in self._tables.items():
            runs.restore_parts(under(name, parts))


class _Arrived(msgspec.Struct, frozen=True):
    """What evidence keeps of a moment until it is summed up: n events."""

    events: pl.DataFrame
    session: NDArray[np.int64]
    intent: NDArray[np.float64]
    mask: NDArray[np.int64]
    status: NDArray[np.int8]


def _arrived(moment: Moment) -> _Arrived:
    bits = np.left_shift(np.int64(1), np.arange(len(SIGNALS), dtype=np.int64))
    mask = np.where(moment.signals, bits, 0).sum(axis=1)
    rows = moment.rows
    return _Arrived(moment.batch.events, rows.session, moment.intent, mask, rows.status)


def _joined(parts: list[_Arrived]) -> _Arrived:
    if len(parts) == 1:
        return parts[0]
    events = pl.concat([part.events for part in parts])
    columns = ("session", "intent", "mask", "status")
    return _Arrived(events, *(np.concatenate([getattr(p, c) for p in parts]) for c in columns))


def _annotated(arrived: _Arrived) -> pl.DataFrame:
    """Put session, level, intent and signals beside the events; repeated and late rows stay out."""
    wanted = ["seq", "event", "order", "value", "element", *CONTEXTS, *TOUCHED]
    return (
        arrived.events.select(pl.col("ts").to_physical(), *wanted)
        .with_columns(
            pl.Series("session", arrived.session, pl.Int64),
            pl.Series("intent", arrived.intent, pl.Float64),
            pl.Series("mask", arrived.mask, pl.Int64),
            pl.Series("status", arrived.status, pl.Int8),
            pl.col("event")
            .cast(pl.String)
            .replace_strict(_LEVEL_OF, return_dtype=pl.Int8)
            .alias("level"),
            pl.col("is_new_visitor").cast(pl.String),
        )
        .filter(pl.col("status") <= _LATE)
    )


def _sessions_of(events: pl.DataFrame) -> pl.DataFrame:
    ordered = events.sort("session", "ts", "seq", maintain_order=True)
    reached = [
        pl.col("ts").filter(pl.col("level") == level).min().alias(f"t{level}")
        for level in range(1, len(LEVELS))
    ]
    return (
        ordered.group_by("session", maintain_order=True)
        .agg(
            pl.col("ts").min().alias("first"),
            pl.col("ts").max().alias("last"),
            pl.len().cast(pl.Int64).alias("events"),
            *reached,
            *(_first(pl.col(name)) for name in CONTEXTS),
        )
        .select(_TABLES["sessions"].names())
    )


def _first(column: pl.Expr) -> pl.Expr:
    return column.drop_nulls().first()


def _touches_of(events: pl.DataFrame) -> pl.DataFrame:
    frames = [_touch(events, pl.lit(name), pl.col(name)) for name in TOUCHED]
    for family, names in FAMILIES.items():
        bits = sum(1 << i for i, signal in enumerate(SIGNALS) if signal.family == family)
        chance = pl.col("event").cast(pl.String).is_in(names)
        shown = (pl.col("mask") & bits) != 0
        picked = events.filter(chance | shown).with_columns(mask=pl.col("mask") & bits)
        frames.append(_touch(picked, pl.lit("family"), pl.lit(family)))
    return _merge_touches(pl.concat(frames))


def _touch(events: pl.DataFrame, attribute: pl.Expr, value: pl.Expr) -> pl.DataFrame:
    shown = pl.when(pl.col("mask") != 0).then(pl.col("ts"))
    return events.select(
        "session", attribute.alias("attribute"), value.alias("value"),
        "ts", "intent", "mask", shown.alias("shown"),
    ).filter(pl.col("value").is_not_null())  # fmt: skip


def _orders_of(events: pl.DataFrame) -> pl.DataFrame:
    bought = events.filter(pl.col("event") == "purchase")
    return _merge_orders(
        bought.select(
            "session", pl.col("order").fill_null("").alias("order"), "ts",
            pl.col("value").fill_null(0).alias("value"),
        )
    )  # fmt: skip


def _merge_sessions(frame: pl.DataFrame) -> pl.DataFrame:
    return (
        frame.sort("session", "first", maintain_order=True)
        .group_by("session", maintain_order=True)
        .agg(
            pl.col("first").min(),
            pl.col("last").max(),
            pl.col("events").sum(),
            *(pl.col(f"t{level}").min() for level in range(1, len(LEVELS))),
            *(_first(pl.col(name)) for name in CONTEXTS),
        )
    )


def _merge_touches(frame: pl.DataFrame) -> pl.DataFrame:
    return (
        frame.sort("session", "attribute", "value", "ts", maintain_order=True)
        .group_by("session", "attribute", "value", maintain_order=True)
        .agg(
            pl.col("ts").first(),
            pl.col("intent").first(),
            pl.col("mask").bitwise_or(),
            pl.col("shown").min(),
        )
        .sort("session", "ts", "attribute", "value")
        .group_by("session", maintain_order=True)
        .head(MAX_TOUCHES_PER_SESSION)
    )


def _merge_orders(frame: pl.DataFrame) -> pl.DataFrame:
    """Keep one row per order: a receipt viewed again is no second order."""
    return (
        frame.sort("session", "order", "ts")
        .group_by("session", "order", maintain_order=True)
        .first()
    )


_MERGES: Final = {
    "sessions": _merge_sessions,
    "touches": _merge_touches,
    "orders": _merge_orders,
}
_KEYS: Final = {
    "sessions": ["session"],
    "touches": ["session", "ts", "attribute", "value"],
    "orders": ["session", "order"],
}
_TABLES: Final = {
    "sessions": pl.Schema(
        {"session": pl.Int64(), "first": pl.Int64(), "last": pl.Int64(), "events": pl.Int64()}
        | {f"t{level}": pl.Int64() for level in range(1, len(LEVELS))}
        | {name: pl.String() for name in CONTEXTS}
    ),
    "touches": pl.Schema(
        {"session": pl.Int64(), "attribute": pl.String(), "value": pl.String(), "ts": pl.Int64()}
        | {"intent": pl.Float64(), "mask": pl.Int64(), "shown": pl.Int64()}
    ),
    "orders": pl.Schema(
        {"session": pl.Int64(), "order": pl.String(), "ts": pl.Int64(), "value": pl.Int64()}
    ),
}
