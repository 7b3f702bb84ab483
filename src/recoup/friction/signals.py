"""Observable symptoms in an event or a journey: which rows of the defect catalogue an event shows.

A signal is a symptom, not a defect: only the comparison of those who met it with those who did not
(``recoup.defects``) says whether it costs orders. Thresholds are starting points.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, EVENT_NAMES, EventBatch, encode, hash64
from recoup.friction.moment import CARTED, CHECKOUT, STAGE_OF_CODE, Rows
from recoup.friction.signal_kinds import Signal
from recoup.parts import SavedTable
from recoup.state import Changes

SIGNALS: Final = (
    Signal("S1", "no search results", ("results",), "search", "query"),
    Signal("S3", "searching again and again", ("query",), "search", "query"),
    Signal("S5", "a filter left nothing", ("results",), "filter", "category"),
    Signal("S6", "slow or failed search", ("latency_ms", "error_code"), "search"),
    Signal("L3", "broken image", ("error_code",), "page", "item"),
    Signal("D1", "out of stock", ("in_stock",), "item", "item"),
    Signal("D2", "slow delivery promise", ("promise_days",), "item", "item"),
    Signal("D6", "adding to the cart failed", ("error_code",), "add", "item"),
    Signal("D7", "clicks without reaction", ("option",), "page", "page"),
    Signal("D8", "slow page", ("latency_ms",), "page", "page"),
    Signal("C1", "price rose in the cart", ("item", "price"), "cart", "item"),
    Signal("C2", "fees appeared late", ("shipping", "tax", "value"), "checkout", "country"),
    Signal("C3", "out of stock in the cart", ("in_stock",), "cart", "item"),
    Signal("C4", "coupon refused", ("error_code",), "cart", "coupon"),
    Signal("K2", "log-in failed again", ("attempt",), "checkout"),
    Signal("K3", "the same field refused again", ("element", "attempt"), "checkout", "element"),
    Signal("K4", "cannot be delivered", ("results", "error_code"), "shipping", "region"),
    Signal("K5", "payment declined", ("error_code",), "payment", "payment_method"),
    Signal("K8", "checkout error or time-out", ("error_code", "latency_ms"), "checkout"),
    Signal("K11", "delivery promise got worse", ("promise_days",), "checkout", "item"),
)
"""What :func:`detect_signals` looks for, one column each: append, never reorder."""

SIGNAL_INDEX: Final = {signal.id: index for index, signal in enumerate(SIGNALS)}

SLOW_SEARCH_MS: Final = 3_000.0
SLOW_PAGE_MS: Final = 6_000.0
SLOW_CHECKOUT_MS: Final = 10_000.0
SLOW_PROMISE_DAYS: Final = 7.0
FEE_SHARE: Final = 0.12
"""Fees above this share of the cart's value are a shock when they are first shown."""
SEARCH_WINDOW_US: Final = 120_000_000
AGAIN: Final = 2.0
"""From this attempt on, a refused log-in or form field is a loop."""
IDLE_US: Final = 86_400_000_000
"""A session's memory is dropped once it has been silent for a day."""

COLUMNS: Final = (
    "ts", "event", "results", "latency_ms", "error_code", "in_stock", "promise_days", "option",
    "item", "price", "value", "shipping", "tax", "attempt", "element", "query",
)  # fmt: skip
"""Event columns that the detector reads."""

_TS, _STAGE, _AUTH, _ELEMENT, _ITEM, _PRICE, _FEES, _QUERY, _SEARCH1, _SEARCH2 = range(10)
_PROMISE, _SHOWN, _CALM, _VIEWED, _VIEWED_DAYS, _WIDTH = range(10, 16)
_EVENT, _RESULTS, _LATENCY, _ERROR, _STOCK, _DAYS, _OPTION, _ITEM_IN, _PRICE_IN, _VALUE = range(
    1, 11
)
_SHIPPING, _TAX, _ATTEMPT, _ELEMENT_IN, _QUERY_IN = range(11, 16)
_DEAD: Final = np.array([hash64(word) for word in ("dead", "dead_rage", "rage_dead", "error")])
_ADD_OPTION: Final = hash64("add_to_cart")
_IMAGE_OPTION: Final = hash64("image")
_FORMAT: Final = b"recoup.signals/3"


def detect_signals(batch: EventBatch, names: tuple[str, ...], rows: Rows) -> NDArray[np.bool_]:
    """Say which signals each event shows, from this batch alone. Shape (n, len(SIGNALS)).

    A detector that remembers sessions from batch to batch is :class:`SignalDetector`; use that in
    a stream. ``names`` is accepted so that definitions over features can join.
    """
    del names
    return SignalDetector().step(batch, rows.session).signals


class Detected(msgspec.Struct, frozen=True):
    """What :class:`SignalDetector` gives for a batch of n events.

    Parameters
    ----------
    signals
        Which signals each event shows, bool, shape (n, len(SIGNALS)).
    stage
        Furthest funnel stage of the session, the event included, shape (n,).
    before
        Signals that the session showed before the event, a bit each, shape (n,).
    step
        Code of the event; of one that is nothing but a symptom, that of the event before it: where
        the journey would stand without it (for a failed add, ``add_to_cart``). Shape (n,).
    behaved
        Which signals of behaviour each event shows, bool, shape (n, m); None: not looked for.
    told
        Those that reasons tell beside the signals, a bit each behind theirs, shape (n,).
    """

    signals: NDArray[np.bool_]
    stage: NDArray[np.int8]
    before: NDArray[np.int64]
    step: NDArray[np.int64]
    behaved: NDArray[np.bool_] | None = None
    told: NDArray[np.int64] | None = None

    @property
    def now(self) -> NDArray[np.int64]:
        """Signals that each event shows, a bit each, shape (n,)."""
        own = bits_of(self.signals)
        return own if self.told is None else own | self.told


def bits_of(signals: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give signals, shape (n, len(SIGNALS)), as a bit each: shape (n,).

    Examples
    --------
    >>> bits_of(np.array([[True, False, True]])).tolist()
    [5]
    """
    return np.asarray(signals @ (1 << np.arange(signals.shape[1], dtype=np.int64)))


class SignalDetector:
    """A fold over sessions that finds signals and the furthest funnel stage.

    Memory is about 120 bytes a session seen within the last day, at most ``max_sessions``; beyond
    it the longest silent are forgotten. The same for batches of any size.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA, conform
    >>> when = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    >>> search = {"ts": when, "source": "web", "id": "1", "seq": 0, "visitor": "v", "results": 0}
    >>> events = conform(pl.DataFrame([search | {"event": "search"}]), EVENT_SCHEMA)
    >>> batch = EventBatch(events, pl.DataFrame(schema=ITEM_SCHEMA))
    >>> found = SignalDetector().step(batch, np.array([1]))
    >>> [signal.id for signal, shown in zip(SIGNALS, found.signals[0]) if shown]
    ['S1']
    """

    name = "signals"

    def __init__(self, *, max_sessions: int = 1 << 21) -> None:
        self.max_sessions = max_sessions
        self._keys = np.zeros(1 << 10, np.int64)
        self._memory = np.zeros((1 << 10, _WIDTH), np.float64)
        self._used = 0
        self._saved = SavedTable(_WIDTH)

    def step(self, batch: EventBatch, session: NDArray[np.int64]) -> Detected:
        """Fold a batch: ``session`` holds each event's session key, shape (n,)."""
        return self.detect(signal_inputs(batch), session)

    def detect(self, inputs: NDArray[np.float64], session: NDArray[np.int64]) -> Detected:
        """Fold encoded events, of :func:`signal_inputs`, shape (n, len(COLUMNS))."""
        count = session.shape[0]
        self._reserve(count)
        signals = np.zeros((count, len(SIGNALS)), np.bool_)
        stage = np.zeros(count, np.int8)
        before, step = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._used += _detect(
            inputs, session, self._keys, self._memory, signals, stage, before, step
        )
        return Detected(signals, stage, before, step)

    def _reserve(self, count: int) -> None:
        if (self._used + count) * 2 <= len(self._keys):
            return
        live = self._keys != 0
        keys, memory = self._keys[live], self._memory[live]
        if len(keys):
            fresh = memory[:, _TS] >= memory[:, _TS].max() - IDLE_US
            keys, memory = keys[fresh], memory[fresh]
        if len(keys) > self.max_sessions:
            newest = np.lexsort((keys, memory[:, _TS]))[-self.max_sessions :]
            keys, memory = keys[newest], memory[newest]
        self._rebuild(keys, memory, count)

    def _rebuild(self, keys: NDArray[np.int64], memory: NDArray[np.float64], room: int) -> None:
        size = 1 << 10
        while size < 4 * (len(keys) + room):
            size *= 2
        self._keys = np.zeros(size, np.int64)
        self._memory = np.zeros((size, _WIDTH), np.float64)
        _insert(keys, memory, self._keys, self._memory)
        self._used = len(keys)

    def snapshot(self) -> bytes:
        """Give the sessions' memory as versioned bytes, ordered by key."""
        live = np.flatnonzero(self._keys)
        live = live[np.argsort(self._keys[live])]
        return _FORMAT + self._keys[live].tobytes() + self._memory[live].tobytes()

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        body = state.removeprefix(_FORMAT)
        if len(body) == len(state) or len(body) % (8 * (_WIDTH + 1)):
            raise SnapshotError("Expected the state of a signal detector of version 1")
        count = len(body) // (8 * (_WIDTH + 1))
        keys = np.frombuffer(body, np.int64, count)
        memory = np.frombuffer(body, np.float64, offset=8 * count).reshape(count, _WIDTH)
        self._rebuild(keys, memory, 0)

    def changes(self) -> Changes:
        """Give the sessions that changed since the last call, as parts to save."""
        live = np.flatnonzero(self._keys)
        return self._saved.changes(self._keys[live], self._memory[live].view(np.int64))

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together."""
        keys, memory = self._saved.restore_parts(parts)
        self._rebuild(keys, memory.view(np.float64), 0)


def signal_inputs(batch: EventBatch) -> NDArray[np.float64]:
    """Encode what the detector reads: shape (n, len(COLUMNS)), NaN where a count is absent.

    Entities stand as hashes cut to 52 bits, which floats hold exactly; 0 where absent.
    """
    columns = encode(batch, COLUMNS)
    inputs = np.empty((len(batch), len(COLUMNS)), np.float64)
    for index, name in enumerate(COLUMNS):
        column = columns[name]
        entity = batch.events[name].dtype == pl.String
        inputs[:, index] = column.astype(np.int64) >> 12 if entity else column
    for name in ("results", "attempt"):
        inputs[:, COLUMNS.index(name)] = (
            batch.events[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        )
    return inputs


def _symptoms() -> NDArray[np.bool_]:
    told = np.zeros(len(EVENT_NAMES), np.bool_)
    told[[CODE[name] for name in SYMPTOMS]] = True
    return told


SYMPTOMS: Final = (
    "ui_error", "click_frustration", "price_change", "stock_status", "coupon_attempt",
    "auth_error", "form_error", "shipping_quote", "payment_error", "promise_change",
)  # fmt: skip
"""Events that tell of a symptom where they show a signal, and of no step of the journey."""
_IS_SYMPTOM: Final = _symptoms()
_DEAD_CUT: Final = (_DEAD >> 12).astype(np.float64)
_ADD_CUT: Final = float(_ADD_OPTION >> 12)
_IMAGE_CUT: Final = float(_IMAGE_OPTION >> 12)
_S1, _S3, _S5, _S6, _L3, _D1, _D2, _D6, _D7, _D8 = range(10)
_C1, _C2, _C3, _C4, _K2, _K3, _K4, _K5, _K8, _K11 = range(10, 20)
_SEARCH_A: Final = CODE["search"]
_SEARCH_B: Final = CODE["view_search_results"]
_FILTER: Final = CODE["filter_results"]
_UI_ERROR: Final = CODE["ui_error"]
_VIEW_ITEM: Final = CODE["view_item"]
_STOCK_EVENT: Final = CODE["stock_status"]
_ADD: Final = CODE["add_to_cart"]
_VIEW_CART: Final = CODE["view_cart"]
_CLICK: Final = CODE["click_frustration"]
_PAGE: Final = CODE["page_view"]
_TIMING: Final = CODE["page_timing"]
_PROMISE_EVENT: Final = CODE["promise_change"]
_PRICE_EVENT: Final = CODE["price_change"]
_COUPON: Final = CODE["coupon_attempt"]
_AUTH_ERROR: Final = CODE["auth_error"]
_FORM_ERROR: Final = CODE["form_error"]
_QUOTE: Final = CODE["shipping_quote"]
_PAYMENT_ERROR: Final = CODE["payment_error"]
_PAYMENT: Final = CODE["add_payment_info"]
_BEGIN: Final = CODE["begin_checkout"]
_SHIP: Final = CODE["add_shipping_info"]


@njit(cache=True, nogil=True)
def _slot(keys: NDArray[np.int64], key: np.int64) -> int:
    mask = keys.shape[0] - 1
    at = (key ^ (key >> 29) ^ (key >> 47)) & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & mask
    return int(at)


@njit(cache=True, nogil=True)
def _insert(
    keys: NDArray[np.int64],
    memory: NDArray[np.float64],
    to_keys: NDArray[np.int64],
    to_memory: NDArray[np.float64],
) -> None:
    for row in range(keys.shape[0]):
        at = _slot(to_keys, keys[row])
        to_keys[at] = keys[row]
        to_memory[at] = memory[row]


@njit(cache=True, nogil=True)
def _detect(
    inputs: NDArray[np.float64],
    session: NDArray[np.int64],
    keys: NDArray[np.int64],
    memory: NDArray[np.float64],
    signals: NDArray[np.bool_],
    stage: NDArray[np.int8],
    before: NDArray[np.int64],
    step: NDArray[np.int64],
) -> int:
    added = 0
    for row in range(session.shape[0]):
        key = np.int64(session[row]) if session[row] != 0 else np.int64(1)
        at = _slot(keys, key)
        if keys[at] == 0:
            keys[at] = key
            memory[at] = 0.0
            memory[at, _PROMISE] = np.nan
            memory[at, _VIEWED_DAYS] = np.nan
            memory[at, _CALM] = -1.0
            added += 1
        event = inputs[row]
        own = memory[at]
        own[_TS] = max(own[_TS], event[0])
        own[_STAGE] = max(own[_STAGE], STAGE_OF_CODE[np.int64(event[_EVENT])])
        stage[row] = np.int8(own[_STAGE])
        _on_the_way(event, own, signals[row])
        _in_the_cart(event, own, signals[row])
        _at_checkout(event, own, signals[row])
        before[row] = np.int64(own[_SHOWN])
        step[row] = _stands_at(event, own, signals[row])
    return added


@njit(cache=True, nogil=True)
def _stands_at(
    event: NDArray[np.float64], own: NDArray[np.float64], shown: NDArray[np.bool_]
) -> int:
    """Remember what the event shows, and give the step at which the journey stands without it."""
    code = np.int64(event[_EVENT])
    bits = np.int64(own[_SHOWN])
    any_shown = False
    for index in range(shown.shape[0]):
        if shown[index]:
            any_shown = True
            bits |= 1 << index
    own[_SHOWN] = float(bits)
    if shown[_D6]:
        return _ADD
    if any_shown and _IS_SYMPTOM[code] and own[_CALM] >= 0.0:
        return int(own[_CALM])
    own[_CALM] = float(code)
    return int(code)


@njit(cache=True, nogil=True)
def _on_the_way(
    event: NDArray[np.float64], own: NDArray[np.float64], shown: NDArray[np.bool_]
) -> None:
    code = np.int64(event[_EVENT])
    failed = event[_ERROR] != 0.0
    if code in (_SEARCH_A, _SEARCH_B):
        shown[_S1] = event[_RESULTS] == 0.0
        shown[_S3] = _searches_again(event, own)
        shown[_S6] = failed or event[_LATENCY] > SLOW_SEARCH_MS
    elif code == _FILTER:
        shown[_S5] = event[_RESULTS] == 0.0
    elif code in (_VIEW_ITEM, _STOCK_EVENT):
        if code == _VIEW_ITEM:
            own[_VIEWED], own[_VIEWED_DAYS] = event[_ITEM_IN], event[_DAYS]
        looked_at = own[_STAGE] < CARTED or _is_of_page(event, own)
        shown[_D1] = event[_STOCK] == 0.0 and (code == _VIEW_ITEM or looked_at)
        shown[_D2] = event[_DAYS] >= SLOW_PROMISE_DAYS
    elif code in (_PAGE, _TIMING):
        shown[_D8] = event[_LATENCY] > SLOW_PAGE_MS
    elif code == _CLICK:
        for word in _DEAD_CUT:
            shown[_D7] |= event[_OPTION] == word
    elif code == _UI_ERROR:
        shown[_L3] = event[_OPTION] == _IMAGE_CUT


@njit(cache=True, nogil=True)
def _is_of_page(event: NDArray[np.float64], own: NDArray[np.float64]) -> bool:
    """Say whether an event tells of the item looked at, which is not the last put in the cart."""
    item = event[_ITEM_IN]
    return bool(item not in (0.0, own[_ITEM]) and item == own[_VIEWED])


@njit(cache=True, nogil=True)
def _searches_again(event: NDArray[np.float64], own: NDArray[np.float64]) -> bool:
    """Count a search only where its query differs from the last: turning pages is no search."""
    query = event[_QUERY_IN]
    if query == 0.0 or query == own[_QUERY]:
        return False
    again = own[_SEARCH1] > 0.0 and event[0] - own[_SEARCH1] <= SEARCH_WINDOW_US
    own[_QUERY] = query
    own[_SEARCH1] = own[_SEARCH2]
    own[_SEARCH2] = event[0]
    return bool(again)


@njit(cache=True, nogil=True)
def _in_the_cart(
    event: NDArray[np.float64], own: NDArray[np.float64], shown: NDArray[np.bool_]
) -> None:
    code = np.int64(event[_EVENT])
    failed = event[_ERROR] != 0.0
    if code == _ADD:
        shown[_D6] = failed
        _take_promise(event, own)
        own[_ITEM] = event[_ITEM_IN]
        own[_PRICE] = event[_PRICE_IN]
    elif code == _UI_ERROR and event[_OPTION] == _ADD_CUT:
        shown[_D6] = True
    elif code == _PRICE_EVENT:
        same = event[_ITEM_IN] != 0.0 and event[_ITEM_IN] == own[_ITEM]
        shown[_C1] = same and own[_PRICE] > 0.0 and event[_PRICE_IN] > own[_PRICE]
    elif code == _COUPON:
        shown[_C4] = failed
    if code in (_VIEW_CART, _STOCK_EVENT):
        mine = code == _VIEW_CART or not _is_of_page(event, own)
        shown[_C3] = event[_STOCK] == 0.0 and own[_STAGE] >= CARTED and mine
    fees = event[_SHIPPING] + event[_TAX]
    if code in (_VIEW_CART, _QUOTE, _BEGIN, _SHIP) and fees > 0.0:
        shown[_C2] = own[_FEES] == 0.0 and event[_VALUE] > 0.0 and fees > FEE_SHARE * event[_VALUE]
        own[_FEES] = 1.0


@njit(cache=True, nogil=True)
def _at_checkout(
    event: NDArray[np.float64], own: NDArray[np.float64], shown: NDArray[np.bool_]
) -> None:
    code = np.int64(event[_EVENT])
    failed = event[_ERROR] != 0.0
    if code == _AUTH_ERROR:
        own[_AUTH] += 1.0
        shown[_K2] = own[_AUTH] >= AGAIN or event[_ATTEMPT] >= AGAIN
    elif code == _FORM_ERROR:
        same = event[_ELEMENT_IN] != 0.0 and event[_ELEMENT_IN] == own[_ELEMENT]
        own[_ELEMENT] = event[_ELEMENT_IN]
        shown[_K3] = same or event[_ATTEMPT] >= AGAIN
    elif code == _QUOTE:
        shown[_K4] = failed or event[_RESULTS] == 0.0
    elif code == _PAYMENT_ERROR:
        shown[_K5] = True
    elif code == _PAYMENT:
        shown[_K5] = failed
    elif code == _UI_ERROR:
        step = event[_OPTION] not in (_ADD_CUT, _IMAGE_CUT)
        shown[_K8] = step and own[_STAGE] == CHECKOUT
    if code in (_BEGIN, _SHIP):
        shown[_K8] = failed or event[_LATENCY] > SLOW_CHECKOUT_MS
    if code in (_VIEW_CART, _BEGIN):
        own[_VIEWED], own[_VIEWED_DAYS] = 0.0, np.nan
    days = event[_DAYS]
    told = code in (_VIEW_CART, _PROMISE_EVENT) or own[_STAGE] == CHECKOUT
    if told and code not in (_VIEW_ITEM, _STOCK_EVENT, _ADD) and not np.isnan(days):
        shown[_K11] = own[_STAGE] == CHECKOUT and days >= own[_PROMISE] + 1.0
        own[_PROMISE] = days


@njit(cache=True, nogil=True)
def _take_promise(event: NDArray[np.float64], own: NDArray[np.float64]) -> None:
    """Note what is promised for an item put in the cart; of several the latest day counts."""
    days = event[_DAYS]
    if np.isnan(days) and event[_ITEM_IN] == own[_VIEWED]:
        days = own[_VIEWED_DAYS]
    if not np.isnan(days) and not own[_PROMISE] >= days:
        own[_PROMISE] = days
