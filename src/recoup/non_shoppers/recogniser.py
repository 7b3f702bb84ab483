"""The stage that marks non-shoppers: from the event that gives them away on."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, MICROS, EventBatch
from recoup.non_shoppers.declared import Declared
from recoup.non_shoppers.rules import Behaviour, Rules

VERSION: Final = 1
MAX_KNOWN: Final = 200_000
"""Visitors known as non-shoppers; the longest known are forgotten first."""
MAX_WATCHED: Final = 500_000
"""Visitors watched at a time; those first seen longest ago are forgotten first."""
HOUR_US: Final = 3600 * MICROS
MINUTE_US: Final = 60 * MICROS
LEAST_GAP_US: Final = 2 * MICROS
JITTER_US: Final = 50_000
JITTER: Final = 0.02
PAGES: Final = frozenset(
    CODE[name] for name in ("page_view", "view_item", "view_item_list", "view_search_results")
)
AROUND_PAGES: Final = frozenset(
    CODE[name]
    for name in ("page_timing", "session_start", "scroll", "page_leave", "view_promotion")
)
"""Events that come with a page: they neither count as one nor as anything else."""


class Counted(msgspec.Struct):
    """How many events, sessions and visitors a kind has had.

    Examples
    --------
    >>> Counted(events=3).sessions
    0
    """

    events: int = 0
    sessions: int = 0
    visitors: int = 0


class Recognised(msgspec.Struct, frozen=True):
    """What is known of a batch of n events.

    Parameters
    ----------
    mask
        Whether each event is a non-shopper's, shape (n,).
    visitors, sessions
        Those recognised in this batch, by name and by key: what came before them in the same
        session was not masked.
    """

    mask: NDArray[np.bool_]
    visitors: tuple[str, ...] = ()
    sessions: tuple[int, ...] = ()


class _Watched(msgspec.Struct):
    """What a visitor has done of late."""

    last: int
    session: int
    events: int = 0
    minute: int = 0
    in_minute: int = 0
    gap: int = 0
    alike: int = 0
    pages: int = 0
    first_hour: int = 0


class _Known(msgspec.Struct):
    kind: str
    session: int


class _State(msgspec.Struct):
    version: int
    rules: Rules
    hour: int
    watched: dict[int, _Watched]
    known: dict[int, _Known]
    counts: dict[str, Counted]


class NonShoppers:
    """A fold of events into who is no shopper: declared rules first, then behaviour.

    A visitor is marked from the event on that gives them away, in this and all later sessions; the
    same for batches of any size. Memory is bounded: visitors are watched while they are active, an
    hour's pause begins anew.

    Parameters
    ----------
    rules
        The shop's rules and limits.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> batch = random_batch(100, seed=1)
    >>> NonShoppers().step(batch, np.zeros(100, np.int64)).mask.sum()
    np.int64(0)
    """

    name: Final = "non_shoppers"

    def __init__(self, rules: Rules | None = None) -> None:
        self._state = _State(VERSION, rules or Rules(), 0, {}, {}, {})
        self._declared = Declared(self._state.rules)

    @property
    def counts(self) -> dict[str, Counted]:
        """Events, sessions and visitors by kind; those before the recognition are counted, too."""
        return dict(sorted(self._state.counts.items()))

    def step(self, batch: EventBatch, session: NDArray[np.int64]) -> Recognised:
        """Fold a batch; ``session`` holds each event's session key, shape (n,)."""
        if not len(batch):
            return Recognised(np.zeros(0, np.bool_))
        told = self._declared.kinds(batch.events)
        columns = [batch.column(name).tolist() for name in ("visitor", "ts", "event")]
        marked: list[int] = []
        new: list[int] = []
        for row, (visitor, ts, event, key) in enumerate(
            zip(*columns, session.tolist(), strict=True)
        ):
            known = self._state.known.get(visitor)
            if known is not None:
                self._count(known, key)
                marked.append(row)
            elif self._judge(visitor, ts, event, key, None if told is None else told[row]):
                marked.append(row)
                new.append(row)
        self._forget(int(batch.column("ts").max()))
        mask = np.zeros(len(batch), np.bool_)
        mask[marked] = True
        names = batch.events["visitor"]
        return Recognised(
            mask, tuple(names[row] for row in new), tuple(int(session[row]) for row in new)
        )

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of other rules.
        """
        try:
            told = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of non-shoppers: {error}") from error
        if (told.version, told.rules) != (VERSION, self._state.rules):
            raise SnapshotError(
                f"Expected non-shoppers of version {VERSION} by the same rules, got other ones",
                hint="go on with the rules that the journal was begun with, or begin a new one",
            )
        self._state = told

    def _judge(self, visitor: int, ts: int, event: int, key: int, told: str | None) -> bool:
        """Watch an event; say whether it gives its visitor away."""
        watched = self._watch(visitor, ts, event, key)
        kind = told or _behaves(watched, ts, self._state.rules.behaviour)
        if kind is None:
            return False
        del self._state.watched[visitor]
        self._state.known[visitor] = _Known(kind, key)
        if len(self._state.known) > MAX_KNOWN:
            del self._state.known[next(iter(self._state.known))]
        count = self._state.counts.setdefault(kind, Counted())
        count.events += watched.events
        count.sessions += 1
        count.visitors += 1
        return True

    def _count(self, known: _Known, key: int) -> None:
        count = self._state.counts[known.kind]
        count.events += 1
        if known.session != key:
            known.session = key
            count.sessions += 1

    def _watch(self, visitor: int, ts: int, event: int, key: int) -> _Watched:
        watched = self._state.watched.get(visitor)
        if watched is None or ts - watched.last > HOUR_US:
            watched = _Watched(ts, key, first_hour=ts // HOUR_US)
            self._state.watched[visitor] = watched
        if watched.session != key:
            watched.session, watched.events, watched.pages = key, 0, 0
        watched.events += 1
        _note_page(watched, event)
        _note_time(watched, ts)
        return watched

    def _forget(self, now: int) -> None:
        """Forget, once an hour of event time, who paused for an hour: they would begin anew."""
        hour = now // HOUR_US
        if hour <= self._state.hour and len(self._state.watched) <= MAX_WATCHED:
            return
        self._state.hour = max(hour, self._state.hour)
        kept = {k: w for k, w in self._state.watched.items() if now - w.last <= 2 * HOUR_US}
        excess = max(len(kept) - MAX_WATCHED, 0)
        self._state.watched = dict(list(kept.items())[excess:])


def _note_page(watched: _Watched, event: int) -> None:
    if event in PAGES:
        watched.pages += 1
    elif event not in AROUND_PAGES:
        watched.pages = 0


def _note_time(watched: _Watched, ts: int) -> None:
    minute = ts // MINUTE_US
    if minute != watched.minute:
        watched.minute, watched.in_minute = minute, 0
    watched.in_minute += 1
    gap = ts - watched.last
    if gap <= 0:
        return
    if ts // HOUR_US > watched.last // HOUR_US + 1:
        watched.first_hour = ts // HOUR_US
    even = abs(gap - watched.gap) <= min(JITTER * gap, JITTER_US) and gap >= LEAST_GAP_US
    watched.alike = watched.alike + 1 if even else 0
    watched.gap, watched.last = gap, ts


def _behaves(watched: _Watched, ts: int, limits: Behaviour) -> str | None:
    """Name what no shopper does, where a visitor does it."""
    if 0 < limits.events_per_minute < watched.in_minute:
        return "too_fast"
    if 0 < limits.regular_gaps <= watched.alike:
        return "regular_gaps"
    if 0 < limits.pages_only <= watched.pages:
        return "pages_only"
    if 0 < limits.hours_on_end <= ts // HOUR_US - watched.first_hour + 1:
        return "round_the_clock"
    return None
