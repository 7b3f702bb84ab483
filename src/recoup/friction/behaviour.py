"""Signals of behaviour: revisits, oscillation, comparison loops, rage, dead and error clicks.

What shoppers do, where :mod:`recoup.friction.signals` tells what happens to them. The definitions
are exact, and each leaves out what looks alike: a rage click must be dead as well, since steppers,
calendars, pagination and triple-click selection are clicked fast; a comparison shopper goes to and
fro between items, which is no hesitation over one; a careful reader stays, and returns to nothing.

Sources for clicks: PostHog (three clicks within a second; no reaction within 2,500 ms) and Datadog
(a click just before a script error; on mobile within 100 ms), as their documentation defines them.
"""

from collections import OrderedDict
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, EventBatch, encode, hash64
from recoup.friction.steps import is_click, is_page

BEHAVIOURS: Final = (
    "revisits", "oscillation", "comparison_loop", "rage_click", "dead_click", "error_click",
)  # fmt: skip
"""What :class:`BehaviourDetector` looks for, a column each: append, never reorder.

- ``revisits``: an item's page is returned to for the third time or more in a session, after
  something else was opened, and no other item was returned to more than once. It counts anew once
  the item is put in the cart: who takes it each time is buying. A page that is loaded again, or
  told by a second event, is nothing else;
- ``oscillation``: an item is added to the cart, removed (all of it, where quantities are named),
  and added again;
- ``comparison_loop``: two items or more were each returned to twice;
- ``rage_click``: the third dead click on one element within a second;
- ``dead_click``: a click that its tag calls dead, or a ``click_frustration`` whose reaction took
  over 2,500 ms: other events tell by ``latency_ms`` how long a page took;
- ``error_click``: a click that its tag says met an error, or a script error within 100 ms of one.
"""

REVISITS: Final = 3
COMPARED: Final = 2
RAGE_CLICKS: Final = 3
RAGE_US: Final = 1_000_000
DEAD_MS: Final = 2_500.0
ERROR_US: Final = 100_000
MOST_ITEMS: Final = 64
"""Items of a session that are remembered; of more, the first are forgotten."""

IDLE_US: Final = 1_800_000_000
FORGET_US: Final = 4 * IDLE_US
"""A session's memory is dropped once it has been silent for so long before the newest event."""

VERSION: Final = 3

_DEAD: Final = frozenset(hash64(word) for word in ("dead", "dead_rage", "rage_dead"))
_ERROR: Final = hash64("error")
_COLUMNS: Final = ("ts", "event", "item", "page", "quantity", "element", "option", "latency_ms")
_REVISITS, _OSCILLATION, _LOOP, _RAGE, _DEAD_CLICK, _ERROR_CLICK = range(6)
_CLICKED: Final = [_RAGE, _DEAD_CLICK, _ERROR_CLICK]
_FRUSTRATED: Final = CODE["click_frustration"]
_PAGE: Final = CODE["page_view"]
_VIEW, _ADD, _REMOVE = CODE["view_item"], CODE["add_to_cart"], CODE["remove_from_cart"]
_ELSEWHERE: Final = 0
"""Stands for a page that is no item's."""


class _Session(msgspec.Struct, array_like=True):
    """What is remembered of a session; times are int64 microseconds UTC.

    ``switches`` counts an item's turns in the cart: odd while it lies in it, so many ``units`` of
    it as far as quantities are named; ``told`` are the behaviours told so far, a bit each.
    """

    ts: int = 0
    at: int = _ELSEWHERE
    page: int = 0
    returns: dict[int, int] = {}
    switches: dict[int, int] = {}
    units: dict[int, int] = {}
    clicked: int = 0
    dead: list[int] = []
    last_click: int = -ERROR_US - 1
    told: int = 0


class Behaved(msgspec.Struct, frozen=True):
    """What :class:`BehaviourDetector` gives for a batch of n events.

    Parameters
    ----------
    shown
        Which behaviours each event shows, bool, shape (n, len(BEHAVIOURS)).
    told, before
        Those that add to what else the event tells, and those of its session before it, a bit each:
        shape (n,). Of clicks it is the worst, and none where a symptom tells of the same.
    """

    shown: NDArray[np.bool_]
    told: NDArray[np.int64]
    before: NDArray[np.int64]


class BehaviourDetector:
    """A stage that finds signals of behaviour, event by event, in a session's memory.

    At most 64 items a session, and ``max_sessions`` sessions; beyond it, and after two hours of
    silence, the longest silent are forgotten. The same for batches of any size.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> batch = random_batch(50, seed=1)
    >>> BehaviourDetector().step(batch, np.ones(50, np.int64)).shape
    (50, 6)
    """

    name = "behaviour"

    def __init__(self, *, max_sessions: int = 1 << 18) -> None:
        self.max_sessions = max_sessions
        self._sessions: OrderedDict[int, _Session] = OrderedDict()

    def step(self, batch: EventBatch, session: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which signals each event shows: shape (n, len(BEHAVIOURS)).

        Parameters
        ----------
        session
            Each event's session key, shape (n,).
        """
        return self.detect(batch, session, np.zeros(len(batch), np.bool_)).shown

    def detect(
        self, batch: EventBatch, session: NDArray[np.int64], symptoms: NDArray[np.bool_]
    ) -> Behaved:
        """Say which signals each event shows, and which of its session before it were told.

        Parameters
        ----------
        symptoms
            Events that show a symptom, shape (n,).
        """
        told = encode(batch, _COLUMNS)
        kinds = (is_page(told["event"], told["element"]), is_click(told["event"], told["element"]))
        shown = np.zeros((len(batch), len(BEHAVIOURS)), np.bool_)
        columns = (session, *(told[name] for name in _COLUMNS), *kinds)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        owners = []
        for out, (
            key,
            ts,
            event,
            item,
            page,
            count,
            element,
            option,
            latency_ms,
            opens,
            clicks,
        ) in zip(shown, rows, strict=True):
            own = self._recall(key, ts)
            owners.append(own)
            if opens:
                _visit(own, event, item, page, out)
            elif event in (_ADD, _REMOVE):
                _switch(own, event, item, count, out)
            if clicks:
                dead = option in _DEAD or (event == _FRUSTRATED and latency_ms > DEAD_MS)
                _click(own, ts, element, dead, out)
                out[_ERROR_CLICK] = option == _ERROR
            elif event == CODE["ui_error"]:
                out[_ERROR_CLICK] = 0 <= ts - own.last_click <= ERROR_US
        bits = _told(shown, symptoms)
        return Behaved(shown, bits, _before(owners, bits))

    def snapshot(self) -> bytes:
        """Give the sessions' memory as versioned bytes, the longest silent first."""
        return msgspec.msgpack.encode((VERSION, list(self._sessions.items())))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        try:
            version, sessions = msgspec.msgpack.decode(
                state, type=tuple[int, list[tuple[int, _Session]]]
            )
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of behaviours: {error}") from error
        if version != VERSION:
            raise SnapshotError(f"Expected behaviours of version {VERSION}, got {version}")
        self._sessions = OrderedDict(sessions)

    def _recall(self, key: int, ts: int) -> _Session:
        own = self._sessions.pop(key, None)
        if own is None or ts - own.ts > IDLE_US:
            own = _Session()
        own.ts = max(own.ts, ts)
        self._sessions[key] = own
        self._forget(ts)
        return own

    def _forget(self, ts: int) -> None:
        """Drop the longest silent, at most two an event, so that the work of one is bounded."""
        for _ in range(2):
            oldest = next(iter(self._sessions))
            silent = self._sessions[oldest].ts < ts - FORGET_US
            if silent or len(self._sessions) > self.max_sessions:
                del self._sessions[oldest]


def _visit(own: _Session, event: int, item: int, page: int, out: NDArray[np.bool_]) -> None:
    """Note a page: an item's counts as a return where something else was opened since."""
    if event == _PAGE and page != 0 and page == own.page:
        return
    own.page = page or own.page
    at = item if event == _VIEW else _ELSEWHERE
    if at not in (_ELSEWHERE, own.at):
        own.returns[at] = own.returns.get(at, -1) + 1
        _bound(own.returns)
        compared = sum(count >= COMPARED for count in own.returns.values())
        out[_REVISITS] = own.returns[at] >= REVISITS and compared < COMPARED
        out[_LOOP] = own.returns[at] >= COMPARED and compared >= COMPARED
    own.at = at


def _switch(own: _Session, event: int, item: int, count: int, out: NDArray[np.bool_]) -> None:
    """Note a change of the cart; one more of what lies in it, or one less, is no turn.

    What is put in the cart ends its revisits. ``count`` is 0 where the quantity is not named: one
    is put in, and all are taken out.
    """
    turns, units, added = own.switches.get(item, 0), own.units.get(item, 0), event == _ADD
    held = turns % 2 == 1
    if added:
        own.returns.pop(item, None)
    if item == _ELSEWHERE or not (held or added):
        return
    if held and (added or 0 < count < units):
        own.units[item] = units + (max(count, 1) if added else -count)
        return
    own.switches[item] = turns + 1
    own.units[item] = max(count, 1) if added else 0
    _bound(own.switches)
    _bound(own.units)
    out[_OSCILLATION] = added and turns > 0


def _click(own: _Session, ts: int, element: int, dead: bool, out: NDArray[np.bool_]) -> None:  # noqa: FBT001
    if element != own.clicked or not dead:
        own.clicked, own.dead = element, []
    if dead:
        own.dead = [*own.dead, ts][-RAGE_CLICKS:]
    out[_DEAD_CLICK] = dead
    out[_RAGE] = len(own.dead) == RAGE_CLICKS and ts - own.dead[0] <= RAGE_US
    own.last_click = ts


def _told(shown: NDArray[np.bool_], symptoms: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give what events tell beyond their symptoms, a bit each: of clicks the worst alone."""
    told = shown.copy()
    told[:, _CLICKED] &= ~symptoms[:, None]
    told[:, _ERROR_CLICK] &= ~told[:, _RAGE]
    told[:, _DEAD_CLICK] &= ~(told[:, _RAGE] | told[:, _ERROR_CLICK])
    return np.asarray(told @ (1 << np.arange(len(BEHAVIOURS), dtype=np.int64)))


def _before(owners: list[_Session], bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give what the events' sessions had told before, and remember what they tell."""
    before = np.zeros(len(owners), np.int64)
    for row, (own, told) in enumerate(zip(owners, bits.tolist(), strict=True)):
        if own.told:
            before[row] = own.told
        own.told |= told
    return before


def _bound(items: dict[int, int]) -> None:
    if len(items) > MOST_ITEMS:
        del items[next(iter(items))]
