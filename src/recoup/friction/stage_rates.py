"""Purchase intent before any model is trained: how often sessions at a stage go on to buy."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, MICROS, EventBatch
from recoup.friction.moment import PURCHASED, STAGES, Rows
from recoup.friction.signals import Detected
from recoup.models.packing import digest

_VERSION: Final = 1
_PRIOR_SESSIONS: Final = 50.0
_STAGE_WEIGHT: Final = 20.0
_REFRESH_US: Final = 3600 * MICROS
_ANY: Final = 1 << len(STAGES)
"""Bit of a session that stands for all sessions, beside those of the stages."""


class _Open(msgspec.Struct):
    """An open session: its last event, the stages it stood at, and those it bought from."""

    last_ts: int
    stage: int
    stood: int
    bought_from: int


class _State(msgspec.Struct):
    version: int
    gap_us: int
    published_at: int
    tried: list[int]
    bought: list[int]
    rates: list[float]
    sessions: dict[int, _Open]


class StageRates:
    """P(purchase later in the session | furthest stage), learned online: an untrained default.

    Closed sessions count once for each stage they stood at; a rate is shrunken towards the overall
    one, and that towards 1 in 50. Rates are published at full hours of event time, between
    batches: within a batch they hold, as a policy does.

    Parameters
    ----------
    session_gap_s
        A session is closed once event time is this far past its last event.

    Examples
    --------
    >>> rates = StageRates()
    >>> rates.rates.round(2).tolist()
    [0.02, 0.02, 0.02, 0.02, 0.02, 0.02]
    """

    name: Final = "stage_rates"

    def __init__(self, *, session_gap_s: float = 1800.0) -> None:
        count = len(STAGES) + 1
        gap_us = int(session_gap_s * MICROS)
        rates = _shrink([0] * count, [0] * count)
        self._state = _State(_VERSION, gap_us, -1, [0] * count, [0] * count, rates, {})

    @property
    def rates(self) -> NDArray[np.float64]:
        """The published rate of each funnel stage, shape (stages,)."""
        return np.array(self._state.rates)

    @property
    def hash(self) -> str:
        """Name of the rule; what it learned is state, and lies in the snapshot."""
        rule = (self.name, _VERSION, self._state.gap_us, _PRIOR_SESSIONS, _STAGE_WEIGHT)
        return digest(msgspec.json.encode(rule))

    def score(
        self,
        batch: EventBatch,  # noqa: ARG002
        rows: Rows,  # noqa: ARG002
        seen: Detected,
    ) -> NDArray[np.float64]:
        """Give the published rate of each event's furthest stage, shape (n,)."""
        return self.rates[seen.stage]

    def step(self, batch: EventBatch, rows: Rows, stage: NDArray[np.int8]) -> None:
        """Learn from a batch: sessions that it carries on, and those that its time closes."""
        if not len(batch):
            return
        ts, event = (batch.column(name) for name in ("ts", "event"))
        columns = (ts, rows.session, stage, event)
        for told in zip(*(column.tolist() for column in columns), strict=True):
            self._learn(*told)
        self._publish(int(ts.max()) // _REFRESH_US * _REFRESH_US)

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Forget open sessions that turned out to be no shopper's."""
        for key in sessions:
            self._state.sessions.pop(key, None)

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

    def _publish(self, hour: int) -> None:
        state = self._state
        if hour <= state.published_at:
            return
        closed = [k for k, seen in state.sessions.items() if seen.last_ts < hour - state.gap_us]
        for key in closed:
            self._count(state.sessions.pop(key))
        state.rates = _shrink(state.tried, state.bought)
        state.published_at = hour

    def _count(self, session: _Open) -> None:
        for bit in range(len(STAGES) + 1):
            self._state.tried[bit] += session.stood >> bit & 1
            self._state.bought[bit] += session.bought_from >> bit & 1

    def _learn(self, ts: int, key: int, stage: int, event: int) -> None:
        seen = self._state.sessions.get(key)
        if seen is None:
            seen = self._state.sessions[key] = _Open(ts, 0, _ANY, 0)
        if event == CODE["purchase"]:
            seen.bought_from |= seen.stood
            seen.stage = PURCHASED
        seen.last_ts = max(seen.last_ts, ts)
        seen.stage = max(seen.stage, stage)
        seen.stood |= 1 << seen.stage


def _shrink(tried: list[int], bought: list[int]) -> list[float]:
    """Shrink each stage's rate towards that of all sessions, which come last."""
    overall = (bought[-1] + 1.0) / (tried[-1] + _PRIOR_SESSIONS)
    return [
        (b + _STAGE_WEIGHT * overall) / (n + _STAGE_WEIGHT)
        for n, b in zip(tried[:-1], bought[:-1], strict=True)
    ]
