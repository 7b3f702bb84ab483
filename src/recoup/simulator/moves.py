"""How a journey goes on: draws, waits, leaving, and what a defect takes from it."""

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.simulator import rates
from recoup.simulator.catalogue import ITEM_PRICE
from recoup.simulator.layout import (
    ADD,
    BEGIN,
    BUILD,
    BUY,
    CART,
    CART_COUNT,
    CART_ITEM,
    CART_SIZE,
    CAUSE,
    CAUSE_TS,
    CIRCUMSTANCES,
    D_KIND,
    D_MATCH,
    D_ON,
    D_SINCE,
    D_UNTIL,
    EFFECT,
    KEY,
    KINDS,
    LASTING,
    LEAVE,
    LOADED,
    MET,
    MOOD,
    MOOD_UNIT,
    NATURAL,
    NEXT_TS,
    PAY,
    RATE,
    SHIP,
    SIZE,
    SPARED,
    STATE,
    UNMET,
    WHIM,
    WOULD,
)
from recoup.simulator.randomness import normal, uniform
from recoup.simulator.world import Troubles

Row = NDArray[np.int64]

# Purposes of draws: each step of a visit has its own key, so these only differ within a step.
GAP, CHOICE, SECOND, THIRD, LATENCY, LINGER, FOURTH, FIFTH = 1, 3, 4, 5, 6, 8, 10, 11
MEET, HARM, RESCUE, ANNOY = 16, 32, 48, 64
SLOT: Final = np.array([*range(10), *range(100, 90 + len(KINDS))])
"""Kind -> what is added to MEET and HARM, so that no two draws share a purpose."""


@njit(cache=True, nogil=True)
def chance(line: NDArray[np.float64], warmth: float) -> float:
    """Give the probability whose log-odds are intercept + slope * warmth."""
    return 1.0 / (1.0 + math.exp(-(line[0] + line[1] * warmth)))


@njit(cache=True, nogil=True)
def skewed(key: int, purpose: int, median: float, sigma: float) -> float:
    """Draw from a log-normal."""
    return median * math.exp(sigma * normal(key, purpose))


@njit(cache=True, nogil=True)
def go(own: Row, gaps: NDArray[np.float64], to: int) -> None:
    """Let a state follow after a wait; ``gaps`` has each state's median and sigma."""
    wait = skewed(own[KEY], GAP, gaps[to, 0], gaps[to, 1])
    own[STATE] = to
    own[NEXT_TS] += 1 + int(min(wait, rates.GAP_MOST_S) * 1e6)


@njit(cache=True, nogil=True)
def leave(own: Row, would: int) -> None:
    """Let a shopper go who has had enough; ``would`` is where a good offer would lead."""
    wait = skewed(own[KEY], LINGER, rates.LINGER_MEDIAN_S, rates.LINGER_SIGMA)
    own[STATE] = LEAVE
    own[WOULD] = would
    own[CAUSE] = WHIM
    own[CAUSE_TS] = own[NEXT_TS]
    own[NEXT_TS] += 1 + int(min(wait, rates.LINGER_MOST_S) * 1e6)


@njit(cache=True, nogil=True)
def met(own: Row, person: Row, troubles: Troubles, natural: float, kind: int) -> int:
    """Give the defect of a kind that the shopper meets now, or UNMET, or NATURAL."""
    if own[SPARED] >> kind & 1:
        return UNMET
    draw = uniform(own[KEY], MEET + SLOT[kind])
    for index in range(troubles.table.shape[0]):
        defect = troubles.table[index]
        if (
            defect[D_KIND] == kind
            and defect[D_ON] == 1
            and defect[D_SINCE] <= own[NEXT_TS] < defect[D_UNTIL]
            and draw < troubles.numbers[index, RATE]
            and _fits(own, person, defect[D_MATCH:])
        ):
            own[MET] |= 1 << index
            return index
    return NATURAL if draw > 1.0 - natural else UNMET


@njit(cache=True, nogil=True)
def _fits(own: Row, person: Row, match: Row) -> bool:
    for column in range(match.shape[0]):
        wanted = match[column]
        if wanted == 0:
            continue
        if column < CIRCUMSTANCES:
            if person[column] != wanted:
                return False
        elif own[BUILD + column - CIRCUMSTANCES] != wanted:
            return False
    return True


@njit(cache=True, nogil=True)
def size_of(found: int, kind: int, troubles: Troubles, natural: NDArray[np.float64]) -> float:
    """Give how bad the symptom is; 0 if it was not met."""
    if found == UNMET:
        return 0.0
    return float(natural[SIZE, kind] if found == NATURAL else troubles.numbers[found, SIZE])


@njit(cache=True, nogil=True)
def harm(
    own: Row,
    troubles: Troubles,
    natural: NDArray[np.float64],
    found: int,
    kind: int,
    shown_at: int,
) -> None:
    """Take from those who met a symptom and would go on the share that leaves for it.

    The draw stands apart from the draws of the journey: who is not taken goes on as if there had
    been no symptom, but for what lasts: it is taken from the intent of the steps to come.
    """
    if found >= 0:
        own[MOOD] -= int(troubles.numbers[found, LASTING] / MOOD_UNIT)
    if found == UNMET or own[STATE] == LEAVE:
        return
    effect = natural[EFFECT, kind] if found == NATURAL else troubles.numbers[found, EFFECT]
    if uniform(own[KEY], HARM + SLOT[kind]) < effect:
        give_up(own, kind, shown_at)


@njit(cache=True, nogil=True)
def give_up(own: Row, kind: int, shown_at: int) -> None:
    """Let a shopper leave for a cause, after hesitating; the next state is what they would do."""
    wait = skewed(own[KEY], LINGER, rates.LINGER_CAUSE_MEDIAN_S, rates.LINGER_SIGMA)
    own[WOULD] = own[STATE]
    own[STATE] = LEAVE
    own[CAUSE] = kind
    own[CAUSE_TS] = shown_at
    own[NEXT_TS] = shown_at + 1 + int(min(wait, rates.LINGER_MOST_S) * 1e6)


@njit(cache=True, nogil=True)
def onward(state: int) -> int:
    """Give where a good offer leads who is about to leave at a state."""
    if state == CART:
        return BEGIN
    if state == BEGIN:
        return SHIP
    if state == SHIP:
        return PAY
    if state == PAY:
        return BUY
    return ADD if state < ADD else CART


@njit(cache=True, nogil=True)
def cart_value(own: Row, items: NDArray[np.int64]) -> int:
    """Give the value of the cart's lines, micro-units."""
    total = 0
    for place in range(own[LOADED]):
        total += own[CART_COUNT + place] * items[own[CART_ITEM + place], ITEM_PRICE]
    return total


@njit(cache=True, nogil=True)
def put_in_cart(own: Row, item: int, count: int) -> None:
    """Add a line, or to the line of the same item; a full cart loses its oldest line."""
    for place in range(own[LOADED]):
        if own[CART_ITEM + place] == item:
            own[CART_COUNT + place] += count
            return
    if own[LOADED] == CART_SIZE:
        take_from_cart(own)
    own[CART_ITEM + own[LOADED]] = item
    own[CART_COUNT + own[LOADED]] = count
    own[LOADED] += 1


@njit(cache=True, nogil=True)
def take_from_cart(own: Row) -> None:
    """Take the oldest line out."""
    for place in range(own[LOADED] - 1):
        own[CART_ITEM + place] = own[CART_ITEM + place + 1]
        own[CART_COUNT + place] = own[CART_COUNT + place + 1]
    own[LOADED] -= 1
