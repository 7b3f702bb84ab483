"""Who came, how far they got and what they bought: one compact row per session."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, MICROS, event_keys, hash_column
from recoup.parts import Runs, frame_bytes, gather, read_frame, under
from recoup.report.funnel import BOUGHT, SEGMENT_LIMIT, tell_journeys, tell_totals
from recoup.report.summary import SEGMENTS, Journeys, Totals
from recoup.state import Changes

VERSION: Final = 1
MAGIC: Final = b"recoup.report.journeys"
PENDING_LIMIT: Final = 50_000
"""Events held before they are folded into the rows; bounds the work of a fold per event."""

INTENT_BINS: Final = 20

_TABLES: Final = ("rows", "orders", "scored")
_KEYS: Final = ("session", "visitor", "named", *SEGMENTS)


class Steps(msgspec.Struct, frozen=True):
    """Events with the session and the furthest step of each, as :class:`SessionTally` takes them.

    Parameters
    ----------
    events
        Frame of EVENT_SCHEMA, n rows.
    session
        Shape (n,): the session's hash.
    stage
        Shape (n,): furthest funnel step of the session up to and including the event, 0 to 5.
    intent
        Shape (n,): P(purchase later in this session), in [0, 1]; NaN where not scored. None where
        there is no model.
    """

    events: pl.DataFrame
    session: NDArray[np.int64]
    stage: NDArray[np.int8]
    intent: NDArray[np.float64] | None = None


class SessionTally:
    """Fold events into sessions, orders and days; exact for every order of arrival.

    All that is kept are minima, maxima and sums, by session and attribute values: batches of any
    size, in any order, give the same. Sessions that a late event joins (a visitor's, less than
    ``session_gap_s`` apart, without differing session ids of the source) are joined when the
    result is asked for. Memory is one row of about 200 bytes per session.

    Parameters
    ----------
    session_gap_s
        Silence that ends a session, in seconds.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.events import EVENT_SCHEMA, conform
    >>> events = pl.DataFrame(
    ...     {
    ...         "ts": [dt.datetime(2016, 9, 1, 7, tzinfo=dt.timezone.utc)] * 2,
    ...         "source": ["shop"] * 2,
    ...         "id": ["a", "b"],
    ...         "seq": [0, 1],
    ...         "event": ["view_item", "add_to_cart"],
    ...         "visitor": ["v1"] * 2,
    ...     }
    ... )
    >>> tally = SessionTally()
    >>> tally.step(Steps(conform(events, EVENT_SCHEMA), np.array([7, 7]), np.array([2, 3])))
    >>> tally.result().funnel.counts
    (1, 1, 1, 1, 0, 0)
    """

    name = "report.journeys"

    def __init__(self, *, session_gap_s: float = 1800) -> None:
        self._gap_us = round(session_gap_s * MICROS)
        self._pending: list[Steps] = []
        self._waiting = 0
        self._rows = Runs(_merge_rows, _no_rows())
        self._orders = Runs(_merge_orders, _no_orders())
        self._scored = Runs(_merge_scored, _no_scored())

    def step(self, batch: Steps, /) -> None:
        """Take a batch; it is folded in once enough have come."""
        self._pending.append(batch)
        self._waiting += batch.events.height
        if self._waiting >= PENDING_LIMIT:
            self._fold()

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Take out sessions that turned out to be no shopper's."""
        left = list(sessions)
        if not left:
            return
        self._fold()
        for runs in self._state():
            runs.replace(runs.whole().filter(~pl.col("session").is_in(left)))

    def result(self, *, segment_limit: int = SEGMENT_LIMIT) -> Journeys:
        """Give what the events so far say; more may follow."""
        self._fold()
        rows, orders, scored = (runs.whole() for runs in self._state())
        return tell_journeys(rows, orders, scored, gap_us=self._gap_us, limit=segment_limit)

    def totals(self) -> Totals:
        """Give the totals of :meth:`result` alone: quick enough to look at while a run goes on."""
        self._fold()
        rows, orders, _ = (runs.whole() for runs in self._state())
        return tell_totals(rows, orders, gap_us=self._gap_us)

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        self._fold()
        frames = [frame_bytes(_in_order(runs.whole())) for runs in self._state()]
        return msgspec.msgpack.encode((MAGIC, VERSION, self._gap_us, frames))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another session gap.
        """
        for runs, frame in zip(self._state(), self._check(state), strict=True):
            runs.replace(read_frame(frame))
        self._pending, self._waiting = [], 0

    def changes(self) -> Changes:
        """Give the rows that are new since the last call, as parts to save."""
        self._fold()
        settings = msgspec.msgpack.encode((MAGIC, VERSION, self._gap_us, []))
        runs = zip(_TABLES, self._state(), strict=True)
        return gather({"settings": settings, **{name: each.changes() for name, each in runs}})

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If a part is missing, of another version, or of another session gap.
        """
        self._check(parts.get("settings", b""))
        for name, runs in zip(_TABLES, self._state(), strict=True):
            runs.restore_parts(under(name, parts))
        self._pending, self._waiting = [], 0

    def _check(self, state: bytes) -> list[bytes]:
        """Give the frames of a snapshot, if it is one of ours."""
        try:
            magic, version, gap_us, frames = msgspec.msgpack.decode(
                state, type=tuple[bytes, int, int, list[bytes]]
            )
        except msgspec.DecodeError as error:
            raise SnapshotError(f"Expected the state of {self.name}, got {error}") from error
        if (magic, version, gap_us) != (MAGIC, VERSION, self._gap_us):
            raise SnapshotError(
                f"Expected {self.name} version {VERSION} with a gap of {self._gap_us} us, "
                f"got version {version} with {gap_us} us",
                hint="replay the journal from its start",
            )
        return frames

    def _fold(self) -> None:
        if not self._waiting:
            return
        self._rows.add(pl.concat([_partial_rows(steps) for steps in self._pending]))
        self._orders.add(pl.concat([_partial_orders(steps) for steps in self._pending]))
        self._scored.add(pl.concat([_partial_scored(steps) for steps in self._pending]))
        self._pending, self._waiting = [], 0

    def _state(self) -> tuple[Runs, Runs, Runs]:
        return self._rows, self._orders, self._scored


def _partial_rows(steps: Steps) -> pl.DataFrame:
    at = pl.col("ts").to_physical()
    return steps.events.select(
        session=pl.Series(steps.session, dtype=pl.Int64),
        visitor=pl.Series(hash_column(steps.events["visitor"]), dtype=pl.Int64),
        named=pl.col("session").is_not_null(),
        device="device",
        channel="channel",
        country="country",
        visitor_type=pl.when("is_new_visitor").then(pl.lit("new")).otherwise(
            pl.when(pl.col("is_new_visitor").not_()).then(pl.lit("returning"))
        ),
        browser="browser",
        start=at,
        end=at,
        stage=pl.Series(steps.stage, dtype=pl.Int8),
    )  # fmt: skip


def _merge_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by(_KEYS).agg(
        pl.col("start").min(), pl.col("end").max(), pl.col("stage").max()
    )


def _partial_orders(steps: Steps) -> pl.DataFrame:
    bought = (steps.events["event"].to_physical() == CODE["purchase"]).to_numpy()
    if not bought.any():
        return _no_orders()
    events = steps.events.filter(bought)
    keys = pl.Series(event_keys(events), dtype=pl.Int64).cast(pl.String)
    return events.select(
        order=pl.coalesce(pl.concat_str(pl.lit("order "), "order"), pl.lit("event ") + keys),
        ts=pl.col("ts").to_physical(),
        session=pl.Series(steps.session[bought], dtype=pl.Int64),
        value=pl.col("value").fill_null(0),
        currency="currency",
    )


def _merge_orders(orders: pl.DataFrame) -> pl.DataFrame:
    """Keep each order once: its earliest purchase event, since a receipt is looked at again."""
    return orders.sort("order", "ts", "value", "session", "currency").unique(
        "order", keep="first", maintain_order=True
    )


def _partial_scored(steps: Steps) -> pl.DataFrame:
    if steps.intent is None:
        return _no_scored()
    known = np.isfinite(steps.intent) & (steps.stage < BOUGHT)
    intent = np.clip(steps.intent[known], 0.0, 1.0)
    return pl.DataFrame(
        {
            "session": steps.session[known],
            "bin": _intent_bin(intent),
            "events": np.ones(len(intent), np.int64),
            "micros": np.rint(intent * MICROS).astype(np.int64),
        },
        schema=_no_scored().schema,
    )


def _merge_scored(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.group_by("session", "bin").agg(pl.col("events").sum(), pl.col("micros").sum())


def _intent_bin(intent: NDArray[np.float64]) -> NDArray[np.int8]:
    """Bin on the square root: most events have a small intent, and those differ most."""
    bins: NDArray[np.float64] = np.sqrt(intent) * INTENT_BINS
    return np.minimum(bins, INTENT_BINS - 1).astype(np.int8)


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "session": pl.Int64(), "visitor": pl.Int64(), "named": pl.Boolean(),
            **dict.fromkeys(SEGMENTS, pl.String()),
            "start": pl.Int64(), "end": pl.Int64(), "stage": pl.Int8(),
        }
    )  # fmt: skip


def _no_orders() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "order": pl.String(), "ts": pl.Int64(), "session": pl.Int64(),
            "value": pl.Int64(), "currency": pl.String(),
        }
    )  # fmt: skip


def _no_scored() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"session": pl.Int64(), "bin": pl.Int8(), "events": pl.Int64(), "micros": pl.Int64()}
    )


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(frame.columns)
