"""What an observer of the events knows of a visit: its last event, how far it came, its trouble.

A policy may use this and nothing else; moods and intentions stay hidden. The symptoms are those
of :data:`recoup.friction.signals.SIGNALS`, with the same thresholds.
"""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE, EVENT_NAMES
from recoup.friction.signals import (
    AGAIN,
    FEE_SHARE,
    SIGNAL_INDEX,
    SLOW_PAGE_MS,
    SLOW_PROMISE_DAYS,
    SLOW_SEARCH_MS,
)
from recoup.simulator import layout as at
from recoup.simulator.catalogue import ADD_OPTION, IMAGE_OPTION

Row = NDArray[np.int64]

_DEPTHS: Final = {
    "view_search_results": 1, "view_item_list": 1, "select_item": 2, "view_item": 3,
    "add_to_cart": 4, "remove_from_cart": 4, "view_cart": 5, "begin_checkout": 6,
    "add_shipping_info": 7, "add_payment_info": 8, "purchase": 9,
}  # fmt: skip
DEPTH_OF: Final = np.array([_DEPTHS.get(name, 0) for name in EVENT_NAMES])
"""Event code -> how far in the funnel it stands; 0 for what stands nowhere."""
CARTED_DEPTH: Final = _DEPTHS["add_to_cart"]
CHECKOUT_DEPTH: Final = _DEPTHS["begin_checkout"]

PAYMENT: Final = CODE["add_payment_info"]


def _code(signal: str) -> int:
    return 1 + SIGNAL_INDEX[signal]


_S1, _S6, _D1, _D2, _D6, _D8, _C2, _K8, _L3 = (
    _code(name) for name in ("S1", "S6", "D1", "D2", "D6", "D8", "C2", "K8", "L3")
)
_PAGE = CODE["page_view"]
_SEARCHED = CODE["view_search_results"]
_VIEWED = CODE["view_item"]
_ADDED = CODE["add_to_cart"]
_SHIPPING = CODE["add_shipping_info"]
_UI_ERROR = CODE["ui_error"]

_ALWAYS, _UNSTOCKED, _FAILED, _AGAIN, _EMPTY = range(5)
_SIMPLE: Final = {
    "payment_error": ("K5", _ALWAYS),
    "promise_change": ("K11", _ALWAYS),
    "click_frustration": ("D7", _ALWAYS),
    "price_change": ("C1", _ALWAYS),
    "stock_status": ("C3", _UNSTOCKED),
    "coupon_attempt": ("C4", _FAILED),
    "auth_error": ("K2", _AGAIN),
    "form_error": ("K3", _AGAIN),
    "shipping_quote": ("K4", _EMPTY),
}
"""Events that can show one symptom alone, and when they do."""
_SHOWS: Final = np.array(
    [_code(_SIMPLE[name][0]) if name in _SIMPLE else 0 for name in EVENT_NAMES]
)
_WHEN: Final = np.array([_SIMPLE[name][1] if name in _SIMPLE else 0 for name in EVENT_NAMES])


@njit(cache=True, nogil=True)
def forget(own: Row) -> None:
    """Begin a visit of which nothing was seen."""
    own[at.SEEN], own[at.DEPTH], own[at.SIGNAL], own[at.SIGNAL_DEPTH] = 0, 0, 0, 0


@njit(cache=True, nogil=True)
def notice(own: Row, row: Row) -> None:
    """Take an event in; trouble is over once the visit gets past the step that it struck.

    The first trouble, or the first item in the cart, is the visitor's entry: from there on it is
    worth asking whether to act.
    """
    event = row[at.E_EVENT]
    depth = DEPTH_OF[event]
    if depth > own[at.SIGNAL_DEPTH]:
        own[at.SIGNAL] = 0
    if depth > 0:
        own[at.DEPTH] = depth
    signal = _signal(row, event)
    if signal > 0:
        own[at.SIGNAL], own[at.SIGNAL_DEPTH] = signal, own[at.DEPTH]
    own[at.SEEN], own[at.SEEN_TS] = event, row[at.E_TS]
    if own[at.ENTRY_TS] == 0 and (signal > 0 or event == _ADDED):
        own[at.ENTRY_TS], own[at.ENTRY_VISIT] = row[at.E_TS], own[at.VISIT]


@njit(cache=True, nogil=True)
def _signal(row: Row, event: int) -> int:
    """Give the symptom that an event shows, as 1 + its index among the signals; 0 for none."""
    if event == _PAGE:
        return _D8 if row[at.E_LATENCY] > SLOW_PAGE_MS else 0
    if event == _SEARCHED:
        slow = _S6 if row[at.E_LATENCY] > SLOW_SEARCH_MS else 0
        return _S1 if row[at.E_RESULTS] == 0 else slow
    if event == _VIEWED:
        late = _D2 if row[at.E_PROMISE] >= SLOW_PROMISE_DAYS else 0
        return _D1 if row[at.E_IN_STOCK] == 0 else late
    if event == _UI_ERROR:
        other = _L3 if row[at.E_OPTION] == IMAGE_OPTION else _K8
        return _D6 if row[at.E_OPTION] == ADD_OPTION else other
    if event == _SHIPPING:
        return _C2 if row[at.E_SHIPPING] > FEE_SHARE * row[at.E_VALUE] else 0
    return int(_SHOWS[event]) if _holds(row, _WHEN[event]) else 0


@njit(cache=True, nogil=True)
def _holds(row: Row, when: int) -> bool:
    if when == _UNSTOCKED:
        return bool(row[at.E_IN_STOCK] == 0)
    if when == _FAILED:
        return bool(row[at.E_ERROR] > 0)
    if when == _AGAIN:
        return bool(row[at.E_ATTEMPT] >= AGAIN)
    return bool(row[at.E_RESULTS] == 0) if when == _EMPTY else True
