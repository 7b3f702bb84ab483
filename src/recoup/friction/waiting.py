"""Who is waiting now: one wait per open session, and at ticks those that have become too long."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError, SnapshotError
from recoup.events import MICROS, TIMESTAMP, encode
from recoup.friction.hesitation import (
    Expected,
    HesitationModel,
    hesitation,
    p_returns,
    patience_s,
)
from recoup.friction.memory import Memory, find
from recoup.friction.moment import NO_ROWS, PURCHASED, STAGES, Moment
from recoup.friction.steps import is_act, is_step
from recoup.friction.waits import LIMIT_S
from recoup.parts import gather, under
from recoup.state import Changes

Words = NDArray[np.int64]
Floats = NDArray[np.float64]

LEVEL: Final = 0.9
"""A wait is too long when this share of those who go on would have gone on by then."""

LOOKS_S: Final = (30, 120, 600)
"""How long after a wait was told it is looked at again, in seconds; also the policy's waits."""

_LIMIT_US: Final = int(LIMIT_S * MICROS)
_USED, _INTENT, _STAGE, _SINCE, _DUE, _LOOK, _EVENT = range(7)
_GOES_ON, _CENTER, _SPREAD, _SHAPE, _PATIENCE, _PRESENT = range(7, 13)
_WIDTH: Final = 13
_WAITS: Final = slice(_SINCE, _WIDTH)
_OF, _TS, _WATERMARK, _WAIT, _COUNTS, _TOLD, _REACHED, _ACTED = range(8)
_SESSION, _TICK = _WIDTH, _WIDTH + 1
_REALS: Final = (_INTENT, _GOES_ON, _CENTER, _SPREAD)
_AGAIN_US: Final = np.diff(np.array((0, *LOOKS_S)), append=0) * MICROS
_FORMAT: Final = b"recoup.waiting/3"


class Due(msgspec.Struct, frozen=True):
    """Waits that are too long at ticks, in the order of ticks: m of them.

    Parameters
    ----------
    ts, row
        The tick, int64 microseconds UTC, and how many events of the batch came before it.
    session, visitor
        Whose wait it is.
    event, since
        Key of the event that it began with, and when, int64 microseconds UTC.
    look
        0 where it is told for the first time, then 1, 2, 3.
    intent, stage
        P(purchase later in this session) and funnel stage, as of the session's latest event.
    goes_on, hesitation, p_returns
        P(goes on within the session) as the wait began; P(would have gone on by now, given that
        they go on at all); P(still comes back by themselves within the session), given when they
        were last seen to do something.
    """

    ts: Words
    row: Words
    session: Words
    visitor: pl.Series
    event: Words
    since: Words
    look: Words
    intent: Floats
    stage: Words
    goes_on: Floats
    hesitation: Floats
    p_returns: Floats

    def __len__(self) -> int:
        """Count the waits."""
        return len(self.ts)

    @property
    def loss(self) -> Floats:
        """Share of those who were to buy that the wait has taken, shape (m,)."""
        return np.clip(1.0 - self.p_returns / np.maximum(self.goes_on, 1e-12), 0.0, 1.0)

    def frame(self) -> pl.DataFrame:
        """Give those told for the first time as rows of :data:`HESITATION_SCHEMA`."""
        micros = ("ts", "since")
        arrays = {name: getattr(self, name) for name in HESITATION_SCHEMA if hasattr(self, name)}
        arrays["waited_s"] = (self.ts - self.since) / MICROS
        arrays["stage"] = np.array(STAGES)[self.stage]
        frame = pl.DataFrame(arrays).filter(pl.Series(self.look == 0))
        return frame.select(
            pl.col(name).cast(pl.Int64 if name in micros else kind).cast(kind)
            for name, kind in HESITATION_SCHEMA.items()
        )


HESITATION_SCHEMA: Final = pl.Schema(
    {
        "ts": TIMESTAMP, "visitor": pl.String(), "session": pl.Int64(), "event": pl.Int64(),
        "since": TIMESTAMP, "waited_s": pl.Float64(), "stage": pl.String(),
        "intent": pl.Float64(), "hesitation": pl.Float64(), "p_returns": pl.Float64(),
    }
)  # fmt: skip
"""Waits that have become too long, as the journal and ``hesitations.parquet`` hold them."""


class Waited(msgspec.Struct, frozen=True):
    """What followed from a batch of n events and its ticks.

    Parameters
    ----------
    goes_on, patience_s
        What is expected of the wait that an event begins: P(goes on within the session), and after
        how many seconds it is too long; NaN where it begins none. Shape (n,).
    due
        Waits that are too long at the ticks.
    """

    goes_on: Floats
    patience_s: Floats
    due: Due


class Waiting:
    """A stage that keeps the wait of every open session, and tells at ticks which are too long.

    A tick comes before the first event later than it, so that events may be folded in batches of
    any size with their ticks among them. When a wait becomes too long is known as it begins: a tick
    costs what is due, and a batch with ticks one comparison a place in the table. A wait is told
    when it is too long, and again :data:`LOOKS_S` later while it lasts: that is when waits that a
    policy chose end. Who does something on the page is still there, a careful reader, say: a wait
    is told no sooner than nothing at all was done for as long as makes it too long. State is
    112 bytes a session with a step in the last 30 minutes; beyond ``max_sessions`` the longest
    silent are forgotten.

    Parameters
    ----------
    model
        Says what is expected of a wait as it begins.
    level
        Hesitation from which a wait is too long, in (0, 1).
    max_sessions
        Bound on the sessions remembered.

    Raises
    ------
    ConfigError
        If the level is no probability above 0 and below 1.
    """

    name = "waiting"

    def __init__(
        self, model: HesitationModel, *, level: float = LEVEL, max_sessions: int = 1 << 20
    ) -> None:
        if not 0.0 < level < 1.0:
            raise ConfigError(f"Expected a level of hesitation in (0, 1), got {level}")
        self.model = model
        self.level = level
        self.max_sessions = max_sessions
        self._hash = model.hash
        self._memory = Memory(_WIDTH)
        self._visitors: dict[int, str | None] = {}
        self._now_us = 0

    def step(self, moment: Moment, ticks: Words) -> Waited:
        """Fold shoppers' events and the ticks among them.

        Parameters
        ----------
        ticks
            Int64 microseconds UTC, ascending.
        """
        batch, count = moment.batch, len(moment)
        told = encode(batch, ("ts", "event", "element", "key"))
        ts = told["ts"].astype(np.int64)
        live = ~np.isin(moment.rows.status, NO_ROWS)
        at = np.flatnonzero(is_step(told["event"], told["element"]) & live)
        acted = is_act(told["event"], told["element"])
        expected = self.model.expect(batch, moment.rows, moment.stage, at)
        patience = patience_s(self.model.shapes, expected, self.level)
        which = np.full(count, -1)
        which[at] = np.arange(len(at))
        watermark = np.maximum.accumulate(np.append(self._now_us, ts))[1:]
        row = np.searchsorted(watermark, ticks, side="right")
        intent = _words(moment.intent)
        events = np.column_stack(
            [moment.rows.session, ts, watermark, which, live, intent, moment.stage, acted]
        ).astype(np.int64)
        begun = _begun(ts[at], told["key"][at], expected, patience)
        self._note(moment, at)
        due = self._fold(events, begun, ticks, row)
        latest = [self._now_us, *watermark[-1:], *ticks[-1:]]
        self._now_us = int(max(latest))
        return Waited(_spread(expected.goes_on, at, count), _spread(patience, at, count), due)

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Forget the waits of sessions that turned out to be no shopper's."""
        left = np.fromiter(sessions, np.int64)
        if len(left):
            self._memory.rows[np.isin(self._memory.keys, left), _DUE] = 0

    def _fold(self, events: Words, begun: Words, ticks: Words, row: Words) -> Due:
        memory = self._memory
        memory.reserve(len(events), _LIMIT_US, self.max_sessions)
        waits = 0
        if len(ticks):
            carried = memory.rows[:, _DUE]
            waits = len(begun) + int(np.count_nonzero((carried > 0) & (carried <= ticks[-1])))
        out = np.zeros((waits * len(_AGAIN_US), _WIDTH + 2), np.int64)
        made = _fold(memory.keys, memory.rows, memory.used, events, begun, ticks, row, out)
        found = out[:made]
        found = found[np.lexsort((found[:, _SESSION], found[:, _SINCE], found[:, _TICK]))]
        return self._due(found, ticks, row)

    def _due(self, found: Words, ticks: Words, row: Words) -> Due:
        since = found[:, _SINCE]
        ts = ticks[found[:, _TICK]]
        intent, goes_on, center, spread = (_floats(found[:, column]) for column in _REALS)
        wait = Expected(goes_on, center, spread, found[:, _SHAPE])
        elapsed_s = (ts - since) / MICROS
        present_s = np.minimum((found[:, _PRESENT] - since) / MICROS, elapsed_s)
        session = found[:, _SESSION]
        visitors = [self._visitors.get(key) for key in session.tolist()]
        return Due(
            ts=ts,
            row=row[found[:, _TICK]],
            session=session,
            visitor=pl.Series(visitors, dtype=pl.String),
            event=found[:, _EVENT],
            since=since,
            look=found[:, _LOOK],
            intent=intent,
            stage=found[:, _STAGE],
            goes_on=goes_on,
            hesitation=hesitation(self.model.shapes, wait, elapsed_s),
            p_returns=p_returns(self.model.shapes, wait, elapsed_s, present_s),
        )

    def _note(self, moment: Moment, at: Words) -> None:
        """Remember who the sessions' visitors are, for as long as they may wait."""
        names = moment.batch.events["visitor"].gather(at).to_list()
        self._visitors.update(zip(moment.rows.session[at].tolist(), names, strict=True))
        if len(self._visitors) > 2 * len(self._memory.keys):
            self._forget()

    def _forget(self) -> None:
        memory = self._memory
        fresh = memory.keys[(memory.keys != 0) & (memory.rows[:, _USED] > self._now_us - _LIMIT_US)]
        known = self._visitors
        self._visitors = {key: known[key] for key in sorted(fresh.tolist()) if key in known}

    def snapshot(self) -> bytes:
        """Give the waits as versioned bytes, ordered by session."""
        return msgspec.msgpack.encode((self._head(), self._memory.dump()))

    def changes(self) -> Changes:
        """Give what changed since the last call, as parts to save."""
        return gather({"head": self._head(), "waits": self._memory.changes()})

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, model or level.
        """
        head, waits = _decode(state, tuple[bytes, bytes])
        self._take_up(head)
        self._memory.load(waits)

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version, model or level.
        """
        self._take_up(parts.get("head", b""))
        self._memory.restore_parts(under("waits", parts))

    def _head(self) -> bytes:
        self._forget()
        settings = (_FORMAT, self._hash, self.level)
        return msgspec.msgpack.encode((settings, self._now_us, list(self._visitors.items())))

    def _take_up(self, head: bytes) -> None:
        kind = tuple[tuple[bytes, str, float], int, list[tuple[int, str | None]]]
        settings, now_us, visitors = _decode(head, kind)
        if settings != (_FORMAT, self._hash, self.level):
            raise SnapshotError("Expected waits of version 3, of this model and level")
        self._now_us, self._visitors = now_us, dict(visitors)


def _decode(state: bytes, kind: Any) -> Any:  # noqa: ANN401
    try:
        return msgspec.msgpack.decode(state, type=kind)
    except msgspec.MsgspecError as error:
        raise SnapshotError(
            f"Expected waits of version 3, of this model and level: {error}"
        ) from error


def _begun(ts: Words, key: NDArray[np.generic], wait: Expected, patience: Floats) -> Words:
    """Give waits as rows of the memory."""
    rows = np.zeros((len(ts), _WIDTH), np.int64)
    rows[:, _SINCE], rows[:, _EVENT], rows[:, _SHAPE] = ts, key, wait.shape
    rows[:, _PRESENT] = ts
    rows[:, _PATIENCE] = np.ceil(patience * MICROS).astype(np.int64)
    rows[:, _DUE] = ts + rows[:, _PATIENCE]
    for column, part in zip(_REALS[1:], wait[:3], strict=True):
        rows[:, column] = _words(part)
    return rows


def _words(reals: Floats) -> Words:
    return np.ascontiguousarray(reals, np.float64).view(np.int64)


def _floats(words: Words) -> Floats:
    return np.ascontiguousarray(words).view(np.float64)


def _spread(values: Floats, at: Words, count: int) -> Floats:
    whole = np.full(count, np.nan)
    whole[at] = values
    return whole


@njit(cache=True, nogil=True)
def _fold(
    keys: Words,
    rows: Words,
    used: Words,
    events: Words,
    begun: Words,
    ticks: Words,
    before: Words,
    out: Words,
) -> int:
    """Fold events with ticks among them; give the number of rows of ``out`` that are filled.

    Parameters
    ----------
    events
        Session, time, running maximum of time, row of ``begun`` or -1, whether it counts, intent
        (as a word), stage, and whether it is an act on a page: int64 (n, 8).
    before
        Number of events before each tick.
    """
    made = 0
    for row in range(events.shape[0]):
        event = events[row]
        if event[_COUNTS] == 0:
            continue
        own = rows[find(keys, used, event[_OF])]
        made = _tell(event[_OF], own, ticks, before, row, out, made)
        if event[_WAIT] >= 0 and event[_TS] >= own[_SINCE]:
            own[_WAITS] = begun[event[_WAIT], _WAITS]
            own[_DUE] = max(own[_DUE], event[_WATERMARK])
        elif event[_ACTED]:
            _stay(own, event[_TS])
        if event[_TS] >= own[_USED]:
            own[_USED], own[_INTENT] = event[_TS], event[_TOLD]
        own[_STAGE] = event[_REACHED]
        if own[_STAGE] == PURCHASED:
            own[_DUE] = 0
    if ticks.shape[0] == 0:
        return made
    for at in range(keys.shape[0]):
        if keys[at] != 0 and 0 < rows[at, _DUE] <= ticks[-1]:
            made = _tell(keys[at], rows[at], ticks, before, events.shape[0], out, made)
    return made


@njit(cache=True, nogil=True)
def _stay(own: Words, ts: int) -> None:
    """Note that the shopper did something on the page: the silence begins anew."""
    own[_PRESENT] = max(own[_PRESENT], ts)
    if own[_DUE] > 0 and own[_LOOK] == 0:
        own[_DUE] = max(own[_DUE], ts + own[_PATIENCE])


@njit(cache=True, nogil=True)
def _tell(
    session: int, own: Words, ticks: Words, before: Words, row: int, out: Words, made: int
) -> int:
    """Tell a session's wait at the ticks before an event at which it is due."""
    while own[_DUE] > 0:
        tick = np.searchsorted(ticks, own[_DUE])
        if tick == ticks.shape[0] or before[tick] > row:
            break
        if ticks[tick] - own[_SINCE] >= _LIMIT_US:
            own[_DUE] = 0
            break
        out[made, :_WIDTH] = own
        out[made, _SESSION], out[made, _TICK] = session, tick
        made += 1
        again = _AGAIN_US[own[_LOOK]]
        own[_DUE] = ticks[tick] + again if again > 0 else 0
        own[_LOOK] += 1
    return made
