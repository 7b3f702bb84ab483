"""Symptoms that show by an event of their own: when they strike, and what their event says."""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.simulator import catalogue
from recoup.simulator import layout as at
from recoup.simulator.browsing import promise
from recoup.simulator.moves import met, size_of
from recoup.simulator.world import Rules

Row = NDArray[np.int64]

AT_VIEW, AT_CART, AT_BEGIN, AT_SHIP = range(4)
STRIKING: Final = np.array(
    [
        [at.L3, at.D7, -1, -1],
        [at.C1, at.C3, at.C4, -1],
        [at.K8, at.K11, at.K2, at.K4],
        [at.K3, -1, -1, -1],
    ]
)
"""Which symptoms can follow the view of an item, of the cart, the begin of the checkout, and the
shipping step; the first that strikes is alone."""
HOOK_OF: Final = np.full(at.LEAVE + 1, -1)
"""State -> the place among these, -1 for steps that no symptom follows."""
HOOK_OF[[at.VIEW, at.CART, at.BEGIN, at.SHIP]] = [AT_VIEW, AT_CART, AT_BEGIN, AT_SHIP]
LATER_US: Final = 1_500_000

_EVENTS: Final = {
    at.L3: "ui_error", at.D7: "click_frustration", at.C1: "price_change", at.C3: "stock_status",
    at.C4: "coupon_attempt", at.K2: "auth_error", at.K3: "form_error", at.K4: "shipping_quote",
    at.K8: "ui_error", at.K11: "promise_change",
}  # fmt: skip
_ERRORS: Final = {
    at.L3: catalogue.IMAGE_MISSING, at.C4: catalogue.COUPON_REFUSED,
    at.K2: catalogue.LOGIN_FAILED, at.K3: catalogue.FIELD_REFUSED,
    at.K4: catalogue.UNDELIVERABLE, at.K8: catalogue.CHECKOUT_FAILED,
}  # fmt: skip
_ALL: Final = range(len(at.KINDS))
_EVENT_OF: Final = np.array([CODE[_EVENTS.get(kind, "custom")] for kind in _ALL])
_ERROR_OF: Final = np.array([_ERRORS.get(kind, 0) for kind in _ALL])


@njit(cache=True, nogil=True)
def strikes(own: Row, person: Row, world: Rules, hook: int) -> bool:
    """Say whether a symptom follows a step; its event comes a moment later, in the same step."""
    for kind in STRIKING[hook]:
        if kind < 0:
            return False
        found = met(own, person, world.troubles, world.natural[at.RATE, kind], kind)
        if found != at.UNMET:
            own[at.FOUND], own[at.SHOWS], own[at.RESUME] = found, kind, hook
            own[at.STATE] = at.SYMPTOM
            own[at.NEXT_TS] += LATER_US
            return True
    return False


@njit(cache=True, nogil=True)
def show(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Emit the symptom's event."""
    kind = own[at.SHOWS]
    row[at.E_EVENT] = _EVENT_OF[kind]
    row[at.E_ERROR] = _ERROR_OF[kind]
    if kind in (at.K2, at.K3):
        row[at.E_ATTEMPT] = 2
    if own[at.RESUME] in (AT_BEGIN, AT_SHIP):
        row[at.E_STEP] = 1 + int(own[at.RESUME] == AT_SHIP)
    if kind in (at.L3, at.D7, at.K8):
        _interface(kind, row)
    elif kind in (at.C1, at.C3):
        _of_cart(own, world, row, kind)
    elif kind == at.C4:
        row[at.E_COUPON] = catalogue.REFUSED_COUPON
    elif kind == at.K3:
        row[at.E_ELEMENT] = catalogue.POSTCODE
    elif kind == at.K4:
        row[at.E_RESULTS] = 0
    elif kind == at.K11:
        size = size_of(own[at.FOUND], kind, world.troubles, world.natural)
        row[at.E_PROMISE] = promise(own, person, world, at.UNMET) + int(size)
    if kind == at.L3:
        row[at.E_ITEM], row[at.E_CATEGORY] = own[at.ITEM], own[at.CATEGORY]


@njit(cache=True, nogil=True)
def _interface(kind: int, row: Row) -> None:
    if kind == at.L3:
        row[at.E_OPTION] = catalogue.IMAGE_OPTION
    elif kind == at.D7:
        row[at.E_OPTION] = catalogue.DEAD_OPTION
        row[at.E_ELEMENT] = catalogue.GALLERY
    else:
        row[at.E_OPTION] = catalogue.CHECKOUT_OPTION


@njit(cache=True, nogil=True)
def _of_cart(own: Row, world: Rules, row: Row, kind: int) -> None:
    """Speak of the item put in last: its price rose, or it is gone. Orders keep the old price."""
    item = own[at.CART_ITEM + own[at.LOADED] - 1]
    row[at.E_ITEM] = item
    row[at.E_CATEGORY] = world.goods.items[item, catalogue.ITEM_CATEGORY]
    price = world.goods.items[item, catalogue.ITEM_PRICE]
    if kind == at.C3:
        row[at.E_IN_STOCK] = 0
    else:
        size = size_of(own[at.FOUND], kind, world.troubles, world.natural)
        row[at.E_PRICE] = int(price * (1.0 + size))
