"""Who is waiting now: one wait per open session, and at a tick those that have become too long."""

from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError, SnapshotError
from recoup.events import MICROS, EventBatch, encode
from recoup.friction.hesitation import Expected, HesitationModel, hesitation, p_returns
from recoup.friction.memory import Memory, find
from recoup.friction.moment import Rows
from recoup.friction.waits import LIMIT_S, is_step

LEVEL: Final = 0.9
"""A wait is too long when this share of those who go on would have gone on by then."""

_LIMIT_US: Final = int(LIMIT_S * MICROS)
_TS, _GOES_ON, _CENTER, _SPREAD, _SHAPE, _EVENT, _TOLD, _WIDTH = range(8)
_FORMAT: Final = b"recoup.waiting/1"
_REPEATED: Final = (2, 3)


class Due(msgspec.Struct, frozen=True):
    """Waits that have become too long, the longest first: n of them.

    Parameters
    ----------
    session, event
        Whose wait it is, and the key of the event that it began with, shape (n,).
    since
        When it began, int64 microseconds UTC.
    hesitation
        P(would have gone on by now, given that they go on at all).
    p_returns
        P(still comes back by themselves within the session).
    """

    session: NDArray[np.int64]
    event: NDArray[np.int64]
    since: NDArray[np.int64]
    hesitation: NDArray[np.float64]
    p_returns: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the waits."""
        return len(self.session)


class Waiting:
    """A stage that keeps the wait of every open session, and tells at ticks which are too long.

    Each wait is told once. State is 64 bytes a session with a step in the last 30 minutes; beyond
    ``max_sessions`` the longest waiting are forgotten. The same for batches of any size.

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
        self._memory = Memory(_WIDTH)

    def step(self, batch: EventBatch, rows: Rows, stage: NDArray[np.int8]) -> None:
        """Fold events: a step ends its session's wait and begins the next.

        Parameters
        ----------
        rows, stage
            Their feature rows, in the model's order, and funnel stages: n of them.
        """
        told = encode(batch, ("ts", "event", "element", "key"))
        steps = is_step(told["event"], told["element"]) & ~np.isin(rows.status, _REPEATED)
        at = np.flatnonzero(steps)
        if not len(at):
            return
        expected = self.model.expect(batch, rows, stage).where(at)
        begun = _as_row(told["ts"][at], told["key"][at], expected)
        session = np.ascontiguousarray(rows.session[at], np.int64)
        self._memory.reserve(len(at), _LIMIT_US, self.max_sessions)
        _take_up(self._memory.keys, self._memory.rows, self._memory.used, session, begun)

    def tick(self, now_us: int, *, most: int = 1_000) -> Due:
        """Give the waits that are too long by now and were not told before, at most so many.

        Those that began first come first; what is left over waits for the next tick.

        Parameters
        ----------
        now_us
            The tick's time, int64 microseconds UTC.
        """
        rows = self._memory.rows
        open_ = (self._memory.keys != 0) & (rows[:, _TOLD] == 0) & (rows[:, _TS] <= now_us)
        at = np.flatnonzero(open_ & (rows[:, _TS] > now_us - _LIMIT_US))
        told, hope = self._judge(rows[at], now_us)
        late = told >= self.level
        at, told, hope = at[late], told[late], hope[late]
        order = np.lexsort((self._memory.keys[at], rows[at, _TS]))[:most]
        chosen = at[order]
        rows[chosen, _TOLD] = 1
        return Due(
            self._memory.keys[chosen],
            rows[chosen, _EVENT],
            rows[chosen, _TS],
            told[order],
            hope[order],
        )

    def _judge(
        self, rows: NDArray[np.int64], now_us: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        elapsed = (now_us - rows[:, _TS]) / MICROS
        reals = np.ascontiguousarray(rows[:, _GOES_ON : _SPREAD + 1]).view(np.float64)
        wait = Expected(reals[:, 0], reals[:, 1], reals[:, 2], rows[:, _SHAPE])
        shapes = self.model.shapes
        return hesitation(shapes, wait, elapsed), p_returns(shapes, wait, elapsed)

    def snapshot(self) -> bytes:
        """Give the waits as versioned bytes, ordered by session."""
        head = msgspec.msgpack.encode((self.model.hash, self.level))
        return _FORMAT + len(head).to_bytes(4, "little") + head + self._memory.dump()

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, model or level.
        """
        body = state.removeprefix(_FORMAT)
        size = int.from_bytes(body[:4], "little")
        head = msgspec.msgpack.encode((self.model.hash, self.level))
        if len(body) == len(state) or body[4 : 4 + size] != head:
            raise SnapshotError("Expected waits of version 1, of this model and level")
        self._memory.load(body[4 + size :])


def _as_row(ts: NDArray[np.generic], key: NDArray[np.generic], wait: Expected) -> NDArray[np.int64]:
    rows = np.zeros((len(ts), _WIDTH), np.int64)
    rows[:, _TS], rows[:, _EVENT], rows[:, _SHAPE] = ts, key, wait.shape
    for column, part in zip((_GOES_ON, _CENTER, _SPREAD), wait[:3], strict=True):
        rows[:, column] = np.ascontiguousarray(part).view(np.int64)
    return rows


@njit(cache=True, nogil=True)
def _take_up(
    keys: NDArray[np.int64],
    rows: NDArray[np.int64],
    used: NDArray[np.int64],
    session: NDArray[np.int64],
    begun: NDArray[np.int64],
) -> None:
    """Let each session's latest step stand, in the order of arrival where two share a moment."""
    for row in range(session.shape[0]):
        at = find(keys, used, session[row])
        if begun[row, _TS] >= rows[at, _TS]:
            rows[at] = begun[row]
