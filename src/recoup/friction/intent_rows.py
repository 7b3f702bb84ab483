"""The rows that purchase intent is trained and judged on: one per event of a session yet to buy."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import CODE, EventBatch, encode
from recoup.friction.explained import JourneyDetector
from recoup.friction.intent_context import CONTEXT_COLUMNS, Labelled
from recoup.friction.moment import NO_ROWS, Rows
from recoup.friction.signals import Detected
from recoup.non_shoppers import NonShoppers, Rules

MOST_ROWS: Final = 1_000_000
"""Events held in memory unless the caller says otherwise: some 7 GB while a model is fitted."""

STRANGERS: Final = "bots, monitors, staff and test orders are no shoppers: see --rules"
"""What to say where nobody else is in a log."""

_META: Final = ("ts", "seq", "key", "event", "order", "visitor")


class Store(Protocol):
    """What rows need of a feature store: ``recoup.features.FeatureStore`` has it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that :meth:`step` reads."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        ...

    def step(self, columns: Mapping[str, NDArray[Any]], /) -> Rows:
        """Fold events and give their rows."""
        ...


class Period(msgspec.Struct, frozen=True):
    """A half-open span of time, int64 microseconds UTC; None is unbounded."""

    start: int | None = None
    until: int | None = None

    def contains(self, ts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which times lie in it."""
        inside = np.ones(len(ts), bool)
        if self.start is not None:
            inside &= ts >= self.start
        if self.until is not None:
            inside &= ts < self.until
        return inside


class IntentRows(msgspec.Struct, frozen=True):
    """Rows in order of (session, time): n of them.

    Parameters
    ----------
    names, values
        Features by name, and their values, shape (n, d).
    context
        Values of :data:`CONTEXT_COLUMNS`, shape (n, k).
    positive
        Whether a purchase follows later in the session.
    session, visitor, ts
        Whose row it is, and when.
    event_number
        Position of the event in its session, from 1.
    first_cart
        Whether the event is its session's first add-to-cart.
    now, before
        Signals that the event shows, and that its session showed before it: a bit each, as
        :class:`recoup.friction.signals.Detected` has them.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    context: NDArray[np.int64]
    positive: NDArray[np.bool_]
    session: NDArray[np.int64]
    visitor: NDArray[np.int64]
    ts: NDArray[np.int64]
    event_number: NDArray[np.int64]
    first_cart: NDArray[np.bool_]
    now: NDArray[np.int64]
    before: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.positive)

    def where(self, keep: NDArray[np.bool_]) -> "IntentRows":
        """Keep some of the rows."""
        arrays = self.__struct_fields__[1:]
        return IntentRows(self.names, *(getattr(self, name)[keep] for name in arrays))

    @property
    def labelled(self) -> Labelled:
        """What a vocabulary is learned from."""
        return Labelled(self.context, self.positive, self.session)


def collect_rows(
    batches: Iterable[EventBatch],
    store: Store,
    period: Period,
    *,
    history: Iterable[EventBatch] = (),
    rules: Rules | None = None,
    progress: Callable[[int], object] | None = None,
    most_rows: int = MOST_ROWS,
) -> IntentRows:
    """Fold a log through a feature store and keep the rows of a period.

    Whatever lies before the period, and all of ``history``, is folded for its features and its
    purchases, not kept. A purchase counts once by its order: the receipt viewed again is none.

    Parameters
    ----------
    rules
        By which bots, monitors, staff and test orders are recognised; their sessions are left out.
    progress
        Called with the number of events of each batch folded.
    most_rows
        Events held in memory. A log that has more is sampled by visitor: half of them, a quarter,
        and so on, with all that they did. The features are those of the whole log.

    Raises
    ------
    ModelError
        If the period holds no row of a shopper.
    """
    sample, signals = Sample(most_rows), JourneyDetector()
    non_shoppers, strangers = NonShoppers(rules), [np.zeros(0, np.int64)]
    wanted = tuple(dict.fromkeys((*store.columns, *_META, *CONTEXT_COLUMNS)))
    for past, batch in chain(history, batches):
        arrays: dict[str, NDArray[Any]] = dict(encode(batch, wanted))
        rows = store.step(arrays)
        shown = signals.step(batch, rows.session)
        seen = non_shoppers.step(batch, rows.session)
        strangers.append(np.unique(rows.session[seen.mask]))
        kept = period.contains(arrays["ts"]) & ~np.isin(rows.status, NO_ROWS) & (not past)
        sample.add(_describe(arrays, rows, shown, kept), rows.values)
        if progress is not None:
            progress(len(batch))
    told, values = sample.joined()
    if not len(values):
        raise ModelError(
            "Expected events in the period to score, got none", hint="see --from and --until"
        )
    labelled = _label(store.names, values, told)
    kept_rows = labelled.where(~np.isin(labelled.session, np.concatenate(strangers)))
    if not len(kept_rows):
        raise ModelError(
            "Expected events before a purchase, of shoppers, to score, got none", hint=STRANGERS
        )
    return kept_rows


class Sample:
    """Events and rows of all visitors, or of a random share of them once they are too many.

    Whether a visitor is in it hangs on the visitor's key alone, so it is the same sample for any
    order and size of batches; all that a visitor did is in it, or nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._halvings = np.uint64(0)
        self._parts: list[tuple[dict[str, NDArray[Any]], NDArray[np.float64]]] = []

    def add(self, told: dict[str, NDArray[Any]], values: NDArray[np.float64]) -> None:
        """Take a batch: what is told of its events, and the feature rows of all of them."""
        self._put(told, values[told["kept"]])
        while self._held > self._most:
            self._halvings += np.uint64(1)
            parts, self._parts, self._held = self._parts, [], 0
            for part in parts:
                self._put(*part)

    def joined(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
        """Give everything end to end; the rows are those of the events that are kept."""
        if not self._parts:
            return {}, np.empty((0, 0))
        first, _ = self._parts[0]
        told = {name: np.concatenate([part[name] for part, _ in self._parts]) for name in first}
        return told, np.concatenate([values for _, values in self._parts])

    def _put(self, told: dict[str, NDArray[Any]], values: NDArray[np.float64]) -> None:
        stays = self._chosen(told["visitor"])
        if not stays.all():
            values = values[stays[told["kept"]]]
            told = {name: column[stays] for name, column in told.items()}
        self._parts.append((told, values))
        self._held += len(told["ts"])

    def _chosen(self, visitor: NDArray[np.int64]) -> NDArray[np.bool_]:
        mixed = visitor.view(np.uint64) * _ODD
        return np.asarray(mixed >> (np.uint64(63) - self._halvings) >> np.uint64(1) == 0)


_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
"""Mixes a visitor's key, so that the sample knows nothing of the folds."""


def chain(
    history: Iterable[EventBatch], batches: Iterable[EventBatch]
) -> Iterable[tuple[bool, EventBatch]]:
    """Give the batches of a history, then those of a log; each with whether it is of the past."""
    yield from ((True, batch) for batch in history if len(batch))
    yield from ((False, batch) for batch in batches if len(batch))


def _describe(
    arrays: dict[str, NDArray[Any]], rows: Rows, shown: Detected, kept: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    steps = {**arrays, "event": shown.step}
    context = np.column_stack([steps[name] for name in CONTEXT_COLUMNS]).astype(np.int64)
    told = {name: arrays[name] for name in _META} | {"now": shown.now, "before": shown.before}
    return {**told, "session": rows.session, "status": rows.status, "kept": kept, "at": context}


def _label(
    names: tuple[str, ...], values: NDArray[np.float64], told: dict[str, NDArray[Any]]
) -> IntentRows:
    """Sort by session and time, label, and keep what was asked for before the first purchase."""
    row = np.cumsum(told["kept"]) - 1
    valid = np.flatnonzero(~np.isin(told["status"], NO_ROWS))
    by_time = valid[np.lexsort([told[name][valid] for name in ("key", "seq", "ts")])]
    bought = np.zeros(len(row), bool)
    bought[by_time] = _first_purchases(told["event"][by_time], told["order"][by_time])
    order = by_time[np.argsort(told["session"][by_time], kind="stable")]
    session = told["session"][order]
    starts = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    sizes = np.diff(np.r_[starts, len(session)])
    purchases = bought[order].astype(np.int64)
    before = _since_start(purchases, starts, sizes)
    total = np.repeat(np.add.reduceat(purchases, starts), sizes)
    carts = (told["event"][order] == CODE["add_to_cart"]).astype(np.int64)
    first_cart = (carts == 1) & (_since_start(carts, starts, sizes) == 1)
    number = np.arange(len(session)) - np.repeat(starts, sizes) + 1
    keep = told["kept"][order] & (before == 0)
    picked = order[keep]
    return IntentRows(
        names=names,
        values=values[row[picked]],
        context=told["at"][picked].astype(np.int64),
        positive=total[keep] > 0,
        session=session[keep].astype(np.int64),
        visitor=told["visitor"][picked].astype(np.int64),
        ts=told["ts"][picked].astype(np.int64),
        event_number=number[keep],
        first_cart=first_cart[keep],
        now=told["now"][picked].astype(np.int64),
        before=told["before"][picked].astype(np.int64),
    )


def _since_start(
    counts: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sum within runs, up to and including each element."""
    running = np.cumsum(counts)
    return np.asarray(running - np.repeat(running[starts] - counts[starts], sizes))


def _first_purchases(event: NDArray[Any], order: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which events, in order of time, are purchases of an order not seen before."""
    purchase = event == CODE["purchase"]
    at = np.flatnonzero(purchase & (order != 0))
    _, first = np.unique(order[at], return_index=True)
    counted = purchase & (order == 0)
    counted[at[first]] = True
    return np.asarray(counted)
