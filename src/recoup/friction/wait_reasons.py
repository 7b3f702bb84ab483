"""Why intent is low while nothing happens: the reasons of waits that have become too long."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import MICROS, TIMESTAMP
from recoup.friction.moment import NO_ROWS, Moment
from recoup.friction.reasons import REASON_SCHEMA, WHOSE, Explainer, reason_frame
from recoup.friction.waiting import Due
from recoup.friction.waits import LIMIT_S

VERSION: Final = 1
_Bits = tuple[NDArray[np.int64], NDArray[np.int64]]
_LIMIT_US: Final = int(LIMIT_S * MICROS)


class _Latest(msgspec.Struct, array_like=True, frozen=True):
    """A session's latest event: when, its signals and those before it, and whose it is."""

    ts: int
    now: int
    before: int
    whose: tuple[str | None, ...]


class WaitReasons:
    """A stage that remembers the latest event of each session, and explains who waits too long.

    A wait is explained once, at the tick that tells it first: the signals of the session, and the
    wait beside them, at the page where it is waited. Memory is a row a session with an event in the
    last 30 minutes, at most ``max_sessions``. The same for batches of any size.

    Parameters
    ----------
    explainer
        Of the model whose intent the waits hold.
    """

    name = "wait_reasons"

    def __init__(self, explainer: Explainer, *, max_sessions: int = 1 << 20) -> None:
        self.max_sessions = max_sessions
        self._explainer = explainer
        self._latest: OrderedDict[int, _Latest] = OrderedDict()

    def step(
        self, moment: Moment, now: NDArray[np.int64], before: NDArray[np.int64], due: Due
    ) -> pl.DataFrame:
        """Fold shoppers' events, and give the reasons of waits: frame of ``REASON_SCHEMA``.

        Parameters
        ----------
        now, before
            Signals that these events, and their sessions before them, showed: a bit each, (n,).
        due
            Waits that are too long at the ticks among them.
        """
        live = np.flatnonzero(~np.isin(moment.rows.status, NO_ROWS))
        told = np.flatnonzero(due.look == 0)
        session = moment.rows.session
        concerned = live[np.isin(session[live], due.session[told])]
        bits = now, before
        arrivals = zip(concerned.tolist(), _rows(moment, bits, concerned), strict=True)
        latest = self._at_ticks(due, told, session, list(arrivals))
        self._remember(moment, bits, live)
        return self._frame(due, told, latest)

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Forget sessions that turned out to be no shopper's."""
        for key in sessions:
            self._latest.pop(key, None)

    def _at_ticks(
        self,
        due: Due,
        told: NDArray[np.int64],
        session: NDArray[np.int64],
        arrivals: list[tuple[int, "_Latest"]],
    ) -> list["_Latest | None"]:
        """Give the latest event of each wait's session, as of its tick."""
        passing: dict[int, _Latest] = {}
        found, at = [], 0
        for row, key in zip(due.row[told].tolist(), due.session[told].tolist(), strict=True):
            while at < len(arrivals) and arrivals[at][0] < row:
                own = int(session[arrivals[at][0]])
                passing[own] = _later(passing.get(own, self._latest.get(own)), arrivals[at][1])
                at += 1
            found.append(passing.get(key, self._latest.get(key)))
        return found

    def _remember(self, moment: Moment, bits: _Bits, live: NDArray[np.int64]) -> None:
        """Keep the latest event of each session, and forget who has been silent."""
        session = moment.rows.session
        ts = moment.batch.column("ts").astype(np.int64)
        order = live[np.argsort(ts[live], kind="stable")]
        last: dict[int, int] = {}
        for key, at in zip(session[order].tolist(), order.tolist(), strict=True):
            last.pop(key, None)
            last[key] = at
        rows = _rows(moment, bits, np.fromiter(last.values(), np.int64, len(last)))
        for key, row in zip(last, rows, strict=True):
            self._latest[key] = _later(self._latest.pop(key, None), row)
        if last:
            self._forget(int(ts[order[-1]]) - _LIMIT_US)

    def _forget(self, before_us: int) -> None:
        while self._latest:
            oldest = next(iter(self._latest))
            if len(self._latest) <= self.max_sessions and self._latest[oldest].ts >= before_us:
                return
            del self._latest[oldest]

    def _frame(
        self, due: Due, told: NDArray[np.int64], latest: list["_Latest | None"]
    ) -> pl.DataFrame:
        known = [(wait, row) for wait, row in zip(told.tolist(), latest, strict=True) if row]
        if not known:
            return pl.DataFrame(schema=REASON_SCHEMA)
        at = np.array([wait for wait, _ in known])
        now, before = np.array([(row.now, row.before) for _, row in known]).T
        of, numbers = self._explainer.explain_waits(due.intent[at], now, before, due.loss[at])
        whose = pl.DataFrame([row.whose for _, row in known], _WHOSE, orient="row")
        times = pl.Series(due.ts[at]).cast(TIMESTAMP)
        whose = whose.with_columns(ts=times, session=pl.Series(due.session[at]))
        return reason_frame(whose[of], numbers)

    def snapshot(self) -> bytes:
        """Give the latest events as versioned bytes, the longest silent first."""
        return msgspec.msgpack.encode((VERSION, list(self._latest.items())))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        kind = tuple[int, list[tuple[int, _Latest]]]
        try:
            version, latest = msgspec.msgpack.decode(state, type=kind)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of reasons of waits: {error}") from error
        if version != VERSION:
            raise SnapshotError(f"Expected reasons of waits of version {VERSION}, got {version}")
        self._latest = OrderedDict(latest)


_WHOSE: Final = dict.fromkeys(WHOSE, pl.String())


def _rows(moment: Moment, bits: _Bits, at: NDArray[np.int64]) -> list[_Latest]:
    """Give events of a batch as they are remembered."""
    whose = moment.batch.events.select(pl.col(WHOSE).gather(at).cast(pl.String)).rows()
    ts = moment.batch.column("ts").astype(np.int64)
    numbers = (each[at].tolist() for each in (ts, *bits))
    return [_Latest(*row) for row in zip(*numbers, whose, strict=True)]


def _later(known: _Latest | None, row: _Latest) -> _Latest:
    return row if known is None or row.ts >= known.ts else known
