"""Decision -> outcome: what a visitor bought, and gave back, within a horizon of a decision.

Each executed decision opens a window of its own, ``(ts, ts + horizon]``, so that an order may count
in the windows of several decisions of its visitor. A window matures once the watermark has passed
its end; an order or refund that arrives later, within the allowed lateness, revises it, and so does
a later refund of an order that it counts. Decisions that were not executed are never joined.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import OUTCOME_SCHEMA, Action, Outcome
from recoup.errors import ConfigError, SnapshotError
from recoup.events import MICROS, TIMESTAMP, EventBatch

VERSION: Final = 2
DAY_S: Final = 86_400.0

UNNAMED: Final = "\x1f"
"""Begins the key of an order that its source did not name."""

WAITING, REVISABLE, REFUNDABLE = range(3)
"""Phases of a window: not matured; a late event may revise it; only a refund may."""


class Cost(msgspec.Struct, frozen=True):
    """What an intervention costs.

    Parameters
    ----------
    fixed_micros
        Each time it is used, in micro-units of the shop's currency.
    order_share
        Share of the value of each order placed in the decision's window, in [0, 1].

    Examples
    --------
    >>> Cost(20_000, order_share=0.1).of([50_000_000])
    5020000
    """

    fixed_micros: int = 0
    order_share: float = 0.0

    def of(self, order_values: list[int]) -> int:
        """Give the cost of one use, after which orders of these values were placed."""
        share = round(self.order_share * MICROS)
        return self.fixed_micros + sum(
            (value * share + MICROS // 2) // MICROS for value in order_values
        )


class Followed(msgspec.Struct, frozen=True):
    """Events, the decisions they led to, and the time it is.

    Parameters
    ----------
    batch
        Admitted events.
    decisions
        Frame of ``DECISION_SCHEMA``: those made on these events, executed or not.
    now
        A tick, int64 microseconds UTC; the time of the latest event counts in any case.
    """

    batch: EventBatch
    decisions: pl.DataFrame
    now: int | None = None


class _Window(msgspec.Struct, array_like=True):
    visitor: str
    start: int
    end: int
    intervention: str
    reported: tuple[int, int, int] | None = None
    revision: int = 0
    later: list[tuple[int, str]] = []


class _Ledger(msgspec.Struct, array_like=True):
    """A visitor's orders, (ts, value) by order; and refunds, (ts, value, order) by event."""

    orders: dict[str, tuple[int, int]] = {}
    refunds: dict[str, tuple[int, int | None, str]] = {}

    def times(self) -> list[tuple[str, int]]:
        orders = [(order, ts) for order, (ts, _) in self.orders.items()]
        return [*orders, *((UNNAMED, ts) for ts, _, _ in self.refunds.values())]


class _State(msgspec.Struct, frozen=True, array_like=True):
    version: int
    settings: tuple[int, int, int]
    watermark: int | None
    windows: dict[int, _Window]
    ledgers: dict[str, _Ledger]


class OutcomeJoin:
    """The stage that joins executed decisions with what their visitors bought and gave back.

    An order counts once however often its receipt is seen, at its earliest time. A refund that
    names an order counts with it, up to its value, from the decision on; one that names none counts
    where its time lies in the window. What an order costs the intervention is not given back by a
    refund. What acts that follow on the same visitor cost within the window stands beside the net
    value.

    Parameters
    ----------
    costs
        Intervention -> its cost.
    horizon_s
        Length of a window, in seconds; at least the allowed lateness.
    lateness_s
        The allowed lateness, in seconds, as the intake's.
    refund_s
        How long after a window's end a refund of its orders still revises it, in seconds; also
        how long an order's name is remembered, so that its receipt seen again is no new order.

    Raises
    ------
    ConfigError
        If a length of time is negative, or the horizon is shorter than the allowed lateness.

    Examples
    --------
    >>> from recoup.decisions import DECISION_SCHEMA
    >>> from recoup.testing import random_batch
    >>> batch = random_batch(200, seed=1, visitors=1)
    >>> decisions = pl.DataFrame(
    ...     {
    ...         "id": 1,
    ...         "ts": batch.events["ts"].min(),
    ...         "visitor": "visitor-0",
    ...         "action": "act:coupon",
    ...         "executed": True,
    ...     }
    ... )
    >>> join = OutcomeJoin({"coupon": Cost(order_share=0.1)}, horizon_s=60, lateness_s=10)
    >>> join.step(Followed(batch, decisions))["net_value_micros"].to_list()
    [45600000]
    """

    name = "outcomes"

    def __init__(
        self,
        costs: Mapping[str, Cost],
        *,
        horizon_s: float = DAY_S,
        lateness_s: float = 3600.0,
        refund_s: float = 28 * DAY_S,
    ) -> None:
        if not 0 <= lateness_s <= horizon_s < float("inf") or not 0 <= refund_s < float("inf"):
            raise ConfigError(
                "Expected 0 <= lateness_s <= horizon_s and 0 <= refund_s, all finite, got "
                f"{lateness_s}, {horizon_s} and {refund_s}"
            )
        self._costs = dict(costs)
        self._horizon = round(horizon_s * MICROS)
        self._lateness = round(lateness_s * MICROS)
        self._refund = round(refund_s * MICROS)
        self._take_up(None, {}, {})

    def _take_up(
        self, watermark: int | None, windows: dict[int, _Window], ledgers: dict[str, _Ledger]
    ) -> None:
        self._watermark = watermark
        self._windows = windows
        self._ledgers = ledgers
        self._of_visitor: dict[str, list[int]] = {}
        for decision, window in windows.items():
            self._of_visitor.setdefault(window.visitor, []).append(decision)
        self._due = [self._next_due(decision, window) for decision, window in windows.items()]
        self._aging = [
            (self._forget_at(ts, order), visitor)
            for visitor, ledger in ledgers.items()
            for order, ts in ledger.times()
        ]
        heapq.heapify(self._due)
        heapq.heapify(self._aging)

    @property
    def waiting(self) -> int:
        """Decisions whose outcome has not matured."""
        return sum(window.reported is None for window in self._windows.values())

    def step(self, batch: Followed, /) -> pl.DataFrame:
        """Fold events and decisions, and give the outcomes that matured or were revised.

        Returns
        -------
        Frame of ``OUTCOME_SCHEMA``.

        Raises
        ------
        ConfigError
            If an executed intervention has no cost.
        """
        outcomes = [*self._open(batch.decisions)]
        for row in _money(batch.batch.events):
            outcomes += self._advance(row[0])
            outcomes += self._book(*row[1:])
        outcomes += self._advance(_latest(batch))
        return _frame(outcomes)

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes, the same for any size of batches."""
        windows = {decision: self._windows[decision] for decision in sorted(self._windows)}
        ledgers = {visitor: _sorted(self._ledgers[visitor]) for visitor in sorted(self._ledgers)}
        state = _State(VERSION, self._settings, self._watermark, windows, ledgers)
        return msgspec.msgpack.encode(state)

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of other lengths of time.
        """
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected a snapshot of the outcome join, got {error}") from error
        if (found.version, found.settings) != (VERSION, self._settings):
            raise SnapshotError(
                f"Expected version {VERSION} and lengths {self._settings} us, got "
                f"{found.version} and {found.settings}",
                hint="restore with the settings that the snapshot was taken with",
            )
        self._take_up(found.watermark, found.windows, found.ledgers)

    @property
    def _settings(self) -> tuple[int, int, int]:
        return self._horizon, self._lateness, self._refund

    def _open(self, decisions: pl.DataFrame) -> Iterator[Outcome]:
        """Open a window for every decision that was executed; give those that it revises."""
        if not decisions.height:
            return
        executed = decisions.filter("executed").select("id", _MICROS, "visitor", "action")
        for decision, ts, visitor, label in executed.iter_rows():
            intervention = Action.parse(label).intervention
            if intervention and intervention not in self._costs:
                raise ConfigError(
                    f"Expected the cost of every intervention, got none of `{intervention}`"
                )
            if decision not in self._windows:
                window = _Window(visitor, ts, ts + self._horizon, intervention)
                yield from self._note_later(window)
                self._windows[decision] = window
                self._of_visitor.setdefault(visitor, []).append(decision)
                heapq.heappush(self._due, self._next_due(decision, window))

    def _note_later(self, new: _Window) -> Iterator[Outcome]:
        """Note which acts lie in the windows of the same visitor's earlier decisions."""
        for decision in self._of_visitor.get(new.visitor, ()):
            window = self._windows[decision]
            if new.intervention and window.start <= new.start <= window.end:
                window.later.append((new.start, new.intervention))
                if window.reported is not None:
                    yield from self._report(decision, window)
            elif window.intervention and new.start < window.start <= new.end:
                new.later.append((window.start, window.intervention))

    def _book(
        self, ts: int, visitor: str, event: str, order: str | None, value: int | None, name: str
    ) -> Iterator[Outcome]:
        """Write an order or a refund down, and revise the matured windows that it changes."""
        ledger = self._ledgers.setdefault(visitor, _Ledger())
        key = order or UNNAMED + event
        if name == "refund":
            ledger.refunds[event] = ts, value, order or ""
            key = UNNAMED
        else:
            ledger.orders[key] = min(ledger.orders.get(key, (ts, value or 0)), (ts, value or 0))
        heapq.heappush(self._aging, (self._forget_at(ts, key), visitor))
        for decision in self._of_visitor.get(visitor, ()):
            window = self._windows[decision]
            if window.reported is not None:
                yield from self._report(decision, window)

    def _advance(self, watermark: int | None) -> Iterator[Outcome]:
        """Move the watermark: mature and forget what it passes."""
        if watermark is None or (self._watermark is not None and watermark <= self._watermark):
            return
        self._watermark = watermark
        while self._due and self._due[0][0] < watermark:
            _, decision, phase = heapq.heappop(self._due)
            window = self._windows[decision]
            if phase == WAITING:
                yield from self._report(decision, window)
                heapq.heappush(self._due, (window.end + self._lateness, decision, REVISABLE))
            elif phase == REVISABLE and window.reported and window.reported[1]:
                time = window.end + self._lateness + self._refund
                heapq.heappush(self._due, (time, decision, REFUNDABLE))
            else:
                self._forget_window(decision)
        while self._aging and self._aging[0][0] < watermark:
            self._forget_entries(heapq.heappop(self._aging)[1])

    def _next_due(self, decision: int, window: _Window) -> tuple[int, int, int]:
        """Give when something becomes of a window, its decision, and the phase that then ends."""
        if window.reported is None:
            return window.end, decision, WAITING
        time = window.end + self._lateness
        if self._watermark is None or time >= self._watermark:
            return time, decision, REVISABLE
        return time + self._refund, decision, REFUNDABLE

    def _report(self, decision: int, window: _Window) -> Iterator[Outcome]:
        """Give a window's outcome, unless it is the one already given."""
        found = self._net_value(window)
        if found == window.reported:
            return
        window.revision += window.reported is not None
        window.reported = found
        net, orders, later = found
        horizon_s = self._horizon // MICROS
        yield Outcome(decision, horizon_s, net, orders, window.end, window.revision, later)

    def _net_value(self, window: _Window) -> tuple[int, int, int]:
        """Give orders less refunds less cost, the number of orders, and what later acts cost."""
        ledger = self._ledgers.get(window.visitor, _Ledger())
        orders = _placed(ledger, window.start, window.end)
        cost = self._costs[window.intervention].of([*orders.values()]) if window.intervention else 0
        later = sum(
            self._costs[intervention].of([*_placed(ledger, start, window.end).values()])
            for start, intervention in window.later
        )
        refunded = self._refunded(window, ledger, orders)
        return sum(orders.values()) - refunded - cost, len(orders), later

    def _refunded(self, window: _Window, ledger: _Ledger, orders: dict[str, int]) -> int:
        named = dict.fromkeys(orders, 0)
        unnamed = 0
        for ts, value, order in ledger.refunds.values():
            if order in orders and window.start < ts <= window.end + self._refund:
                named[order] += orders[order] if value is None else value
            elif not order and window.start < ts <= window.end:
                unnamed += value or 0
        return unnamed + sum(min(named[order], orders[order]) for order in orders)

    def _forget_window(self, decision: int) -> None:
        window = self._windows.pop(decision)
        others = self._of_visitor[window.visitor]
        others.remove(decision)
        if not others:
            del self._of_visitor[window.visitor]
        self._forget_entries(window.visitor)

    def _forget_at(self, ts: int, order: str) -> int:
        """Give until when an order, or a refund (UNNAMED), can matter to a decision to come."""
        named = not order.startswith(UNNAMED)
        return ts + self._lateness + (self._refund if named else 0)

    def _forget_entries(self, visitor: str) -> None:
        """Drop what no window of the visitor, open or still to come, can count."""
        ledger = self._ledgers.get(visitor)
        if ledger is None or self._watermark is None:
            return
        starts = [self._windows[decision].start for decision in self._of_visitor.get(visitor, ())]
        oldest = min(starts, default=self._watermark)
        ledger.orders = {
            order: entry
            for order, entry in ledger.orders.items()
            if entry[0] >= oldest or self._forget_at(entry[0], order) >= self._watermark
        }
        ledger.refunds = {
            event: entry
            for event, entry in ledger.refunds.items()
            if entry[0] >= oldest or self._forget_at(entry[0], UNNAMED) >= self._watermark
        }
        if not ledger.orders and not ledger.refunds:
            del self._ledgers[visitor]


def _placed(ledger: _Ledger, start: int, end: int) -> dict[str, int]:
    """Give the values of the orders in ``(start, end]``."""
    return {order: value for order, (ts, value) in ledger.orders.items() if start < ts <= end}


_MICROS: Final = pl.col("ts").to_physical()


def _money(
    events: pl.DataFrame,
) -> Iterator[tuple[int, int, str, str, str | None, int | None, str]]:
    """Give the orders and refunds, each with the watermark as of its arrival."""
    columns = (
        _MICROS.cum_max().alias("watermark"),
        _MICROS,
        "visitor",
        pl.concat_str("source", pl.lit("\x1f"), "id"),
        "order",
        "value",
        pl.col("event").cast(pl.String),
    )
    rows = events.select(*columns).filter(pl.col("event").is_in(["purchase", "refund"]))
    yield from rows.iter_rows()


def _latest(batch: Followed) -> int | None:
    times = [int(time) for time in (_last_time(batch.batch.events), batch.now) if time is not None]
    return max(times, default=None)


def _last_time(events: pl.DataFrame) -> int | None:
    return int(events["ts"].to_physical().max()) if events.height else None  # type: ignore[arg-type]


def _sorted(ledger: _Ledger) -> _Ledger:
    return _Ledger(dict(sorted(ledger.orders.items())), dict(sorted(ledger.refunds.items())))


def _frame(outcomes: list[Outcome]) -> pl.DataFrame:
    rows = [msgspec.structs.astuple(outcome) for outcome in outcomes]
    physical = {**OUTCOME_SCHEMA, "matured_at": pl.Int64()}
    frame = pl.DataFrame(rows, physical, orient="row")
    return frame.with_columns(pl.col("matured_at").cast(TIMESTAMP))
