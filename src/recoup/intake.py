"""Intake: the first stage of the fold, which decides which events enter the journal.

Events are judged one by one in arrival order against a running watermark, the latest time admitted
so far, so that the size of the batches they come in changes nothing:

- one whose ``(source, id)`` was admitted within the allowed lateness is a duplicate, and dropped,
  if it is of the same moment, to a second; of another moment it is another event that was given the
  same id: a dead letter, ``id_reused``;
- one older than the watermark less the allowed lateness is a dead letter, ``too_late``;
- one that lies years ahead of the watermark is a dead letter, ``far_ahead``, unless it is the last
  of a run from several visitors: a shop's clock moves for everybody, a broken one for itself;
- any other is admitted, and counted as late where the watermark had passed it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError, SnapshotError
from recoup.events import (
    DEAD_LETTER_SCHEMA,
    MICROS,
    EventBatch,
    take,
)

VERSION: Final = 1
FAR_AHEAD_S: Final = 366 * 86_400.0
CONFIRMING_VISITORS: Final = 3
"""How many visitors in a row must be far ahead before the watermark follows them."""

SAME_US: Final = MICROS
"""Moments of an event that was sent twice may differ so far: some tags set their clock anew."""

IN_ORDER, LATE, DUPLICATE, TOO_LATE, FAR_AHEAD, REUSED = range(6)

FIRST_CAPACITY: Final = 1024

STRETCHES: Final = 16
"""Parts of a snapshot within the allowed lateness; what is older than the oldest is forgotten."""


class Admitted(msgspec.Struct, frozen=True):
    """What became of a batch.

    Parameters
    ----------
    batch
        The events that enter the journal, in arrival order.
    duplicates
        How many were dropped because they had been admitted before.
    late
        How many of the admitted ones the watermark had passed.
    dead_letters
        Frame of ``DEAD_LETTER_SCHEMA``: what came too late, lies far ahead, or has another's id.
    watermark
        Latest time admitted so far, int64 microseconds UTC; None before the first event.
    """

    batch: EventBatch
    duplicates: int
    late: int
    dead_letters: pl.DataFrame
    watermark: int | None


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """The small part of the intake's state: its watermark, and who has been far ahead of it."""

    watermark: int | None = None
    ahead: tuple[int, ...] = ()


class _Header(msgspec.Struct, frozen=True, array_like=True):
    version: int
    lateness: int
    far_ahead: int
    clock: Clock


class Intake:
    """The stage that drops duplicates and refuses what comes too late.

    Parameters
    ----------
    lateness_s
        Allowed lateness, in seconds; also how long an event's ``(source, id)`` is remembered, in
        event time, so that the state is bounded by the events of that long.
    far_ahead_s
        Jump of the watermark, in seconds, that takes several visitors in a row to be believed.

    Raises
    ------
    ConfigError
        If a length of time is not positive and finite.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.events import EVENT_SCHEMA, conform, empty_frames
    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone.utc)
    >>> events = conform(
    ...     pl.DataFrame(
    ...         {
    ...             "ts": [noon, noon, noon - dt.timedelta(hours=2)],
    ...             "source": "shop",
    ...             "id": ["a", "a", "b"],
    ...             "seq": 0,
    ...             "event": "page_view",
    ...             "visitor": "v",
    ...         }
    ...     ),
    ...     EVENT_SCHEMA,
    ... )
    >>> admitted = Intake(lateness_s=3600).step(EventBatch(events, empty_frames()[1]))
    >>> len(admitted.batch), admitted.duplicates, admitted.dead_letters["reason"].to_list()
    (1, 1, ['too_late'])
    """

    name = "intake"

    def __init__(self, *, lateness_s: float = 3600.0, far_ahead_s: float = FAR_AHEAD_S) -> None:
        self._lateness = _micros("lateness_s", lateness_s)
        self._far_ahead = _micros("far_ahead_s", far_ahead_s)
        self._stretch = max(1, self._lateness // STRETCHES)
        self._clock = Clock()
        self._table = _empty_table(FIRST_CAPACITY)
        self._used = 0

    @property
    def clock(self) -> Clock:
        """The small part of the state, which :meth:`learn` takes beside a journalled batch."""
        return self._clock

    @property
    def watermark(self) -> int | None:
        """Latest time admitted so far, int64 microseconds UTC; None before the first event."""
        return self._clock.watermark

    def step(self, batch: EventBatch, /) -> Admitted:
        """Judge a batch, and give what may enter the journal."""
        if not len(batch):
            return Admitted(batch, 0, 0, pl.DataFrame(schema=DEAD_LETTER_SCHEMA), self.watermark)
        verdicts, behind = self._judge(batch)
        admitted = verdicts <= LATE
        return Admitted(
            batch if admitted.all() else take(batch, np.flatnonzero(admitted)),
            int(np.count_nonzero(verdicts == DUPLICATE)),
            int(np.count_nonzero(verdicts == LATE)),
            _dead_letters(batch.events, verdicts, behind),
            self.watermark,
        )

    def learn(self, batch: EventBatch, clock: Clock) -> None:
        """Take up a batch that an earlier run admitted, and the clock it left.

        Parameters
        ----------
        batch
            What :meth:`step` admitted then.
        clock
            What :attr:`clock` was behind it.
        """
        keys, ts = _column(batch, "key"), _column(batch, "ts")
        self._reserve(len(keys))
        self._used += insert(self._table, keys, ts)
        self._clock = clock

    def parts(self) -> dict[str, bytes]:
        """Give the whole state in parts, of which only those of recent times change.

        ``clock`` is one; each other holds the keys of a stretch of event time.
        """
        keys, times = self._live()
        stretch = times // self._stretch
        order = np.lexsort((keys, times, stretch))
        names, starts = np.unique(stretch[order], return_index=True)
        pairs = np.column_stack([keys[order], times[order]])
        header = _Header(VERSION, self._lateness, self._far_ahead, self._clock)
        return {
            "clock": msgspec.msgpack.encode(header),
            **{
                str(name): pairs[start:end].tobytes()
                for name, start, end in zip(names, starts, [*starts[1:], len(pairs)], strict=False)
            },
        }

    def restore_parts(self, parts: Mapping[str, bytes], /) -> None:
        """Take up the state that :meth:`parts` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another allowed lateness.
        """
        header = self._checked_header(parts.get("clock", b""))
        data = b"".join(state for name, state in parts.items() if name != "clock")
        pairs = np.frombuffer(data, np.int64).reshape(-1, 2)
        self._table, self._used = _empty_table(FIRST_CAPACITY), 0
        self._clock = header.clock
        self._reserve(len(pairs))
        self._used = insert(self._table, pairs[:, 0].copy(), pairs[:, 1].copy())

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes, the same for any size of batches."""
        return msgspec.msgpack.encode(self.parts())

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another allowed lateness.
        """
        try:
            parts = msgspec.msgpack.decode(state, type=dict[str, bytes])
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected a snapshot of the intake, got {error}") from error
        self.restore_parts(parts)

    def _checked_header(self, state: bytes) -> _Header:
        try:
            header = msgspec.msgpack.decode(state, type=_Header)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected a snapshot of the intake, got {error}") from error
        got = header.version, header.lateness, header.far_ahead
        if got != (VERSION, self._lateness, self._far_ahead):
            raise SnapshotError(
                f"Expected version {VERSION}, lateness {self._lateness} us and far-ahead "
                f"{self._far_ahead} us, got {got}",
                hint="restore with the settings that the snapshot was taken with",
            )
        return header

    def _judge(self, batch: EventBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give each event's verdict, and how far it stands behind the watermark, or behind the one
        that had its id before (us).
        """  # noqa: D205
        keys, ts = _column(batch, "key"), _column(batch, "ts")
        self._reserve(len(keys))
        first = self._clock.watermark
        watermark = int(ts[0]) if first is None else first
        far = int(ts.max()) > watermark + self._far_ahead
        visitors = _column(batch, "visitor") if far else keys
        ahead = np.zeros(CONFIRMING_VISITORS + 1, np.int64)
        ahead[0] = len(self._clock.ahead)
        ahead[1 : 1 + len(self._clock.ahead)] = self._clock.ahead
        judged = np.empty((len(keys), 2), np.int64)
        settings = np.array([self._lateness, self._far_ahead, CONFIRMING_VISITORS], np.int64)
        watermark, added = judge(
            self._table, keys, ts, visitors, watermark, ahead, settings, judged
        )
        self._used += int(added)
        self._clock = Clock(int(watermark), tuple(ahead[1 : 1 + ahead[0]].tolist()))
        return judged[:, 0], judged[:, 1]

    def _reserve(self, count: int) -> None:
        """Make room for new keys, forgetting those that the lateness has left behind."""
        if 2 * (self._used + count) <= len(self._table):
            return
        keys, times = self._live()
        capacity = FIRST_CAPACITY
        while capacity < 4 * (len(keys) + count):
            capacity *= 2
        self._table = _empty_table(capacity)
        self._used = insert(self._table, keys, times)

    def _live(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys, times = self._table[:, 0], self._table[:, 1]
        live = keys != 0
        if self._clock.watermark is not None:
            oldest = (self._clock.watermark - self._lateness) // self._stretch
            live &= times >= oldest * self._stretch
        return keys[live], times[live]


def _micros(name: str, seconds: float) -> int:
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"Expected a positive, finite `{name}`, got {seconds}")
    return round(seconds * MICROS)


def _column(batch: EventBatch, name: str) -> NDArray[np.int64]:
    """Give a column as an array that may be written to, for which the kernels are compiled."""
    return np.array(batch.column(name), np.int64)


def _empty_table(capacity: int) -> NDArray[np.int64]:
    """Make an open-addressing table of (key, time); no key is 0."""
    return np.zeros((capacity, 2), np.int64)


def _dead_letters(
    events: pl.DataFrame, verdicts: NDArray[np.int64], behind: NDArray[np.int64]
) -> pl.DataFrame:
    rows = np.flatnonzero(verdicts >= TOO_LATE)
    if not len(rows):
        return pl.DataFrame(schema=DEAD_LETTER_SCHEMA)
    refused = events[rows]
    verdict = pl.lit(pl.Series(verdicts[rows]))
    seconds = pl.Series(np.abs(behind[rows]) / MICROS).round(3).cast(pl.String)
    return refused.select(
        path=pl.concat_str("source", pl.lit("/"), "id"),
        reason=verdict.replace_strict(REASONS, return_dtype=pl.String),
        detail=pl.concat_str(seconds, verdict.replace_strict(DETAILS, return_dtype=pl.String)),
        raw=pl.Series(_as_json(refused), dtype=pl.String),
    )


REASONS: Final = {TOO_LATE: "too_late", FAR_AHEAD: "far_ahead", REUSED: "id_reused"}
DETAILS: Final = {
    TOO_LATE: " s behind the watermark",
    FAR_AHEAD: " s ahead of the watermark",
    REUSED: " s from another event of the same source and id; an id names one event",
}


def _as_json(events: pl.DataFrame) -> list[str]:
    """Give each event as a JSON object of what it has."""
    filled = events[[column.name for column in events if column.null_count() < events.height]]
    return [
        msgspec.json.encode(
            {name: value for name, value in row.items() if value is not None}
        ).decode()
        for row in filled.iter_rows(named=True)
    ]


@njit(cache=True, nogil=True)
def _slot(table: NDArray[np.int64], key: int) -> int:
    """Give where a key stands, or the empty place where it would."""
    mask = len(table) - 1
    place = key & mask
    while table[place, 0] != 0 and table[place, 0] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def insert(table: NDArray[np.int64], keys: NDArray[np.int64], ts: NDArray[np.int64]) -> int:
    """Put keys in with their times, and give how many are new."""
    added = 0
    for row in range(len(keys)):
        place = _slot(table, keys[row])
        added += table[place, 0] == 0
        table[place, 0] = keys[row]
        table[place, 1] = ts[row]
    return added


@njit(cache=True, nogil=True)
def _believed(ahead: NDArray[np.int64], visitor: int, enough: int) -> bool:
    """Note that a visitor is far ahead; say whether enough of them are, in a row."""
    count = ahead[0]
    for known in range(1, count + 1):
        if ahead[known] == visitor:
            return False
    if count + 1 < enough:
        ahead[count + 1] = visitor
        ahead[0] = count + 1
        return False
    return True


@njit(cache=True, nogil=True)
def judge(
    table: NDArray[np.int64],
    keys: NDArray[np.int64],
    ts: NDArray[np.int64],
    visitors: NDArray[np.int64],
    watermark: int,
    ahead: NDArray[np.int64],
    settings: NDArray[np.int64],
    judged: NDArray[np.int64],
) -> tuple[int, int]:
    """Judge events in arrival order; give the watermark behind them and how many keys are new."""
    lateness, far_ahead, enough = settings[0], settings[1], settings[2]
    added = 0
    for row in range(len(keys)):
        time = ts[row]
        judged[row, 1] = watermark - time
        if time < watermark - lateness:
            judged[row, 0] = TOO_LATE
            continue
        place = _slot(table, keys[row])
        if table[place, 0] != 0 and table[place, 1] >= watermark - lateness:
            apart = table[place, 1] - time
            judged[row, 0] = DUPLICATE if abs(apart) <= SAME_US else REUSED
            if judged[row, 0] == REUSED:
                judged[row, 1] = apart
            continue
        if time > watermark + far_ahead and not _believed(ahead, visitors[row], enough):
            judged[row, 0] = FAR_AHEAD
            continue
        ahead[0] = 0
        added += table[place, 0] == 0
        table[place, 0] = keys[row]
        table[place, 1] = time
        judged[row, 0] = LATE if time < watermark else IN_ORDER
        watermark = max(watermark, time)
    return watermark, added
