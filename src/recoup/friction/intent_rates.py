"""Purchase intent before any model is trained: how often sessions at a stage go on to buy."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, MICROS
from recoup.friction.moment import PURCHASED, STAGES

_VERSION: Final = 1
_PRIOR_SESSIONS: Final = 50.0
_STAGE_WEIGHT: Final = 20.0
_REFRESH_US: Final = 3600 * MICROS
_ANY: Final = 1 << len(STAGES)
"""Bit of a session that stands for all sessions, beside those of the stages."""


class Visits(msgspec.Struct, frozen=True):
    """What stage rates read of a batch, in order of arrival, each of shape (n,).

    Parameters
    ----------
    ts
        Int64 microseconds UTC.
    session
        Session keys.
    stage
        Furthest funnel stage of the session, the event included.
    event
        Event codes.
    """

    ts: NDArray[np.int64]
    session: NDArray[np.int64]
    stage: NDArray[np.int8]
    event: NDArray[np.int64]


class _Open(msgspec.Struct):
    """An open session: its last event, the stages it stood at, and those it bought from."""

    last_ts: int
    stage: int
    stood: int
    bought_from: int


class _State(msgspec.Struct):
    version: int
    gap_us: int
    watermark: int
    published_at: int
    tried: list[int]
    bought: list[int]
    rates: list[float]
    sessions: dict[int, _Open]


class StageRates:
    """P(purchase later in the session | furthest stage), learned online: an untrained default.

    Closed sessions count once for each stage they stood at; a rate is shrunken towards the overall
    one, and that towards 1 in 50. Rates are published at each full hour of event time and hold
    until the next, so that scores do not depend on how events are cut into batches.

    Parameters
    ----------
    gap_s
        A session is closed once event time is this far past its last event.

    Examples
    --------
    >>> rates = StageRates()
    >>> visits = Visits(np.array([0]), np.array([7]), np.array([3], np.int8), np.array([15]))
    >>> rates.step(visits).tolist()
    [0.02]
    """

    name: Final = "stage_rates"

    def __init__(self, *, gap_s: int = 1800) -> None:
        count = len(STAGES) + 1
        rates = _shrink([0] * count, [0] * count)
        self._state = _State(_VERSION, gap_s * MICROS, -1, -1, [0] * count, [0] * count, rates, {})

    @property
    def rates(self) -> NDArray[np.float64]:
        """The published rate of each funnel stage, shape (stages,)."""
        return np.array(self._state.rates)

    def step(self, visits: Visits, /) -> NDArray[np.float64]:
        """Score events, then learn from them: shape (n,)."""
        scores = np.empty(len(visits.ts))
        clock = np.maximum(np.maximum.accumulate(visits.ts), self._state.watermark)
        hours = clock // _REFRESH_US
        cuts = np.flatnonzero(np.diff(hours)) + 1
        for part in np.split(np.arange(len(clock)), cuts):
            if len(part):
                self._publish(int(hours[part[0]]) * _REFRESH_US)
                scores[part] = self.rates[visits.stage[part]]
                self._learn(visits, part)
                self._state.watermark = int(clock[part[-1]])
        return scores

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        return msgspec.msgpack.encode(self._state)

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another session gap.
        """
        try:
            told = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of stage rates: {error}") from error
        if (told.version, told.gap_us) != (_VERSION, self._state.gap_us):
            raise SnapshotError(
                f"Expected stage rates of version {_VERSION} and the same gap, got other ones"
            )
        self._state = told

    def _publish(self, now: int) -> None:
        state = self._state
        if now <= state.published_at:
            return
        closed = [k for k, seen in state.sessions.items() if seen.last_ts < now - state.gap_us]
        for key in closed:
            self._count(state.sessions.pop(key))
        state.rates = _shrink(state.tried, state.bought)
        state.published_at = now

    def _count(self, session: _Open) -> None:
        for stage in range(len(STAGES) + 1):
            self._state.tried[stage] += session.stood >> stage & 1
            self._state.bought[stage] += session.bought_from >> stage & 1

    def _learn(self, visits: Visits, part: NDArray[np.int64]) -> None:
        columns = (visits.ts, visits.session, visits.stage, visits.event)
        for ts, key, stage, event in _rows(columns, part):
            seen = self._state.sessions.get(key)
            if seen is None:
                seen = self._state.sessions[key] = _Open(ts, 0, _ANY, 0)
            if event == CODE["purchase"]:
                seen.bought_from |= seen.stood
                seen.stage = PURCHASED
            seen.last_ts = max(seen.last_ts, ts)
            seen.stage = max(seen.stage, stage)
            seen.stood |= 1 << seen.stage


def _rows(
    columns: tuple[NDArray[np.generic], ...], part: NDArray[np.int64]
) -> Iterable[tuple[int, ...]]:
    return zip(*(column[part].tolist() for column in columns), strict=True)


def _shrink(tried: list[int], bought: list[int]) -> list[float]:
    """Shrink each stage's rate towards that of all sessions, which come last."""
    overall = (bought[-1] + 1.0) / (tried[-1] + _PRIOR_SESSIONS)
    return [
        (b + _STAGE_WEIGHT * overall) / (n + _STAGE_WEIGHT)
        for n, b in zip(tried[:-1], bought[:-1], strict=True)
    ]
