"""The law from the cart on: adding, checkout, payment, purchase. Each function gives one event."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.interventions import INTERVENTIONS
from recoup.simulator import catalogue, rates
from recoup.simulator import layout as at
from recoup.simulator.browsing import promise
from recoup.simulator.moves import (
    CHOICE,
    SECOND,
    THIRD,
    cart_value,
    chance,
    give_up,
    go,
    harm,
    leave,
    met,
    onward,
    put_in_cart,
    size_of,
    take_from_cart,
)
from recoup.simulator.randomness import uniform
from recoup.simulator.symptoms import LATER_US
from recoup.simulator.world import Rules

Row = NDArray[np.int64]
_METHODS = len(catalogue.METHODS)
_ADDED = CODE["add_to_cart"]
_REMOVED = CODE["remove_from_cart"]
_CART_VIEWED = CODE["view_cart"]
_BEGUN = CODE["begin_checkout"]
_UI_ERROR = CODE["ui_error"]
_SHIPPING = CODE["add_shipping_info"]
_PAYMENT = CODE["add_payment_info"]
_DECLINED = CODE["payment_error"]
_PURCHASE = CODE["purchase"]
_INTERVENTIONS = [each.id for each in INTERVENTIONS]
_WAIVER = _INTERVENTIONS.index("fee_waiver")
_COUPON = _INTERVENTIONS.index("coupon")


@njit(cache=True, nogil=True)
def add(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Add the item to the cart, or fail to."""
    broken = met(own, person, world.troubles, world.natural[at.RATE, at.D6], at.D6)
    if broken != at.UNMET:
        _add_fails(own, world, row, broken)
        return
    row[at.E_EVENT] = _ADDED
    count = 1 + int(uniform(own[at.KEY], SECOND) < rates.TWO_OF_IT)
    row[at.E_QUANTITY] = count
    row[at.E_VALUE] = count * world.goods.items[own[at.ITEM], catalogue.ITEM_PRICE]
    put_in_cart(own, own[at.ITEM], count)
    own[at.ATTEMPT] = 0
    if uniform(own[at.KEY], CHOICE) < world.shares[rates.ADD_TO_CART_PAGE]:
        go(own, world.gaps, at.CART)
    elif uniform(own[at.KEY], THIRD) < 0.5:  # noqa: PLR2004
        go(own, world.gaps, at.LIST)
    else:
        leave(own, at.CART)


@njit(cache=True, nogil=True)
def _add_fails(own: Row, world: Rules, row: Row, found: int) -> None:
    """Show an error; try again, at most three times."""
    row[at.E_EVENT] = _UI_ERROR
    row[at.E_OPTION] = catalogue.ADD_OPTION
    row[at.E_ERROR] = catalogue.ADD_FAILED
    own[at.ATTEMPT] += 1
    row[at.E_ATTEMPT] = own[at.ATTEMPT]
    when = own[at.NEXT_TS]
    go(own, world.gaps, at.ADD)
    if own[at.ATTEMPT] >= rates.MOST_ATTEMPTS:
        own[at.ATTEMPT] = 0
        own[at.STATE] = at.LIST
    harm(own, world.troubles, world.natural, found, at.D6, when)


@njit(cache=True, nogil=True)
def show_cart(own: Row, world: Rules, row: Row) -> None:
    """Show the cart; from here on the journey is about its lines."""
    row[at.E_EVENT] = _CART_VIEWED
    row[at.E_VALUE] = cart_value(own, world.goods.items)
    own[at.PAGE] = catalogue.CART_PAGE


@njit(cache=True, nogil=True)
def from_cart(own: Row, warmth: float, world: Rules) -> None:
    """Leave the cart, begin the checkout, take something out, or shop on."""
    if uniform(own[at.KEY], CHOICE) < chance(world.lines[rates.CART_LEAVE], warmth):
        leave(own, onward(at.CART))
    elif uniform(own[at.KEY], SECOND) < chance(world.lines[rates.CART_BEGIN], warmth):
        go(own, world.gaps, at.BEGIN)
    elif uniform(own[at.KEY], THIRD) < world.shares[rates.REMOVE]:
        go(own, world.gaps, at.REMOVE)
    else:
        go(own, world.gaps, at.LIST)


@njit(cache=True, nogil=True)
def remove(own: Row, world: Rules, row: Row) -> None:
    """Take the oldest line out of the cart."""
    row[at.E_EVENT] = _REMOVED
    own[at.ITEM] = own[at.CART_ITEM]
    row[at.E_QUANTITY] = own[at.CART_COUNT]
    row[at.E_VALUE] = own[at.CART_COUNT] * world.goods.items[own[at.ITEM], catalogue.ITEM_PRICE]
    take_from_cart(own)
    go(own, world.gaps, at.CART if own[at.LOADED] else at.LIST)


@njit(cache=True, nogil=True)
def begin(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Begin the checkout; an error or a worse promise may follow."""
    row[at.E_EVENT] = _BEGUN
    row[at.E_STEP] = 1
    row[at.E_VALUE] = cart_value(own, world.goods.items)
    own[at.PAGE] = catalogue.CHECKOUT_PAGE
    own[at.ITEM] = own[at.CART_ITEM + own[at.LOADED] - 1]
    row[at.E_PROMISE] = promise(own, person, world, at.UNMET)


@njit(cache=True, nogil=True)
def to_shipping(own: Row, warmth: float, world: Rules) -> None:
    """Go on to the shipping step, or leave."""
    if uniform(own[at.KEY], CHOICE) < chance(world.lines[rates.BEGIN_LEAVE], warmth):
        leave(own, onward(at.BEGIN))
    else:
        go(own, world.gaps, at.SHIP)


@njit(cache=True, nogil=True)
def ship(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Show what the delivery costs."""
    row[at.E_EVENT] = _SHIPPING
    row[at.E_STEP] = 2
    own[at.PAGE] = catalogue.SHIPPING_PAGE
    value = cart_value(own, world.goods.items)
    fees = met(own, person, world.troubles, world.natural[at.RATE, at.C2], at.C2)
    row[at.E_VALUE] = value
    row[at.E_SHIPPING] = _shipping_fee(own, value)
    if fees != at.UNMET and not own[at.OFFER] >> _WAIVER & 1:
        row[at.E_SHIPPING] += int(value * size_of(fees, at.C2, world.troubles, world.natural))
    row[at.E_SHIPPING_METHOD] = 1


@njit(cache=True, nogil=True)
def from_shipping(own: Row, person: Row, warmth: float, world: Rules) -> None:
    """Go on to the payment, or leave, perhaps for the fees."""
    fees = met(own, person, world.troubles, world.natural[at.RATE, at.C2], at.C2)
    when = own[at.NEXT_TS]
    if uniform(own[at.KEY], CHOICE) < chance(world.lines[rates.SHIP_LEAVE], warmth):
        leave(own, onward(at.SHIP))
    else:
        go(own, world.gaps, at.PAY)
    own[at.ATTEMPT] = 0
    harm(own, world.troubles, world.natural, fees, at.C2, when)


@njit(cache=True, nogil=True)
def _shipping_fee(own: Row, value: int) -> int:
    free = value >= rates.FREE_SHIPPING or bool(own[at.OFFER] >> _WAIVER & 1)
    return 0 if free else rates.SHIPPING_FEE


@njit(cache=True, nogil=True)
def pay(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    """Enter the payment; it may be declined."""
    row[at.E_EVENT] = _PAYMENT
    row[at.E_STEP] = 3
    row[at.E_VALUE] = cart_value(own, world.goods.items)
    own[at.PAGE] = catalogue.PAYMENT_PAGE
    own[at.ATTEMPT] += 1
    row[at.E_METHOD] = own[at.METHOD]
    row[at.E_ATTEMPT] = own[at.ATTEMPT]
    own[at.FOUND] = met(own, person, world.troubles, world.natural[at.RATE, at.K5], at.K5)
    if own[at.FOUND] != at.UNMET:
        own[at.STATE] = at.DECLINED
        own[at.NEXT_TS] += LATER_US
    elif uniform(own[at.KEY], CHOICE) < chance(world.lines[rates.PAY_LEAVE], warmth):
        leave(own, onward(at.PAY))
    else:
        go(own, world.gaps, at.BUY)


@njit(cache=True, nogil=True)
def declined(own: Row, world: Rules, row: Row) -> None:
    """Decline the payment; who does not leave tries again, half of them another way."""
    row[at.E_EVENT] = _DECLINED
    row[at.E_METHOD] = own[at.METHOD]
    row[at.E_ERROR] = catalogue.PAYMENT_FAILED
    row[at.E_ATTEMPT] = own[at.ATTEMPT]
    when, found = own[at.NEXT_TS], own[at.FOUND]
    go(own, world.gaps, at.PAY)
    if own[at.ATTEMPT] >= rates.MOST_ATTEMPTS:
        give_up(own, at.K5, when)
    harm(own, world.troubles, world.natural, found, at.K5, when)
    if own[at.STATE] == at.PAY and uniform(own[at.KEY], SECOND) < rates.OTHER_METHOD:
        own[at.METHOD] = own[at.METHOD] % _METHODS + 1


@njit(cache=True, nogil=True)
def buy(own: Row, world: Rules, row: Row) -> None:
    """Place the order: the value of its lines, and the delivery beside it."""
    row[at.E_EVENT] = _PURCHASE
    own[at.PAGE] = catalogue.DONE_PAGE
    value = cart_value(own, world.goods.items)
    own[at.ORDERS] += 1
    own[at.SPENT] += value
    own[at.COST] += value * own[at.OFFER_PPM] // 1_000_000
    row[at.E_ORDER] = own[at.ORDERS]
    row[at.E_VALUE] = value
    row[at.E_SHIPPING] = _shipping_fee(own, value)
    row[at.E_METHOD] = own[at.METHOD]
    row[at.E_COUPON] = (own[at.OFFER] >> _COUPON & 1) * catalogue.OWN_COUPON
    own[at.BOUGHT] = 1
    leave(own, at.LEAVE)
