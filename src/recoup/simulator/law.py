"""The law of a journey: one kernel that lets every visitor live until a moment."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.simulator import browsing, buying, catalogue, rates, sight
from recoup.simulator import layout as at
from recoup.simulator.clock import activity_at, time_of
from recoup.simulator.moves import CHOICE, FOURTH, SECOND, THIRD, chance, harm, leave, skewed
from recoup.simulator.randomness import derive, normal, uniform
from recoup.simulator.symptoms import AT_BEGIN, AT_CART, AT_VIEW, HOOK_OF, show, strikes
from recoup.simulator.world import Rules, World

Row = NDArray[np.int64]
Table = NDArray[np.int64]
_PURCHASE = CODE["purchase"]
_SEARCHED = CODE["view_search_results"]
_LISTED = CODE["view_item_list"]
_ADDED = CODE["add_to_cart"]
_VIEWED = CODE["view_item"]
_SELECTED = CODE["select_item"]
_REMOVED = CODE["remove_from_cart"]
_CARTS = (CODE["view_cart"], CODE["begin_checkout"], CODE["add_shipping_info"], _PURCHASE)
_WARMTH_OF_VISIT = 24
VISIT_SIGMA = 0.6


@njit(cache=True, nogil=True)
def live(
    state: Table,
    world: World,
    until: int,
    first: int,
    events: Table,
    lines: Table,
    counts: Row,
    writes: bool,  # noqa: FBT001
) -> int:
    """Let visitors from ``first`` on live until a moment, and give the first that has yet to.

    Parameters
    ----------
    state
        Shape (visitors, STATE_WIDTH), changed in place.
    world
        What the law reads.
    until
        Microseconds UTC; events before it are emitted.
    events, lines
        Written from ``counts[0]`` and ``counts[1]`` on; when one is nearly full the kernel stops.
    counts
        Rows used of each, shape (2,), changed in place.
    writes
        Whether rows are kept; else each is written over the last.
    """
    for visitor in range(first, state.shape[0]):
        if state[visitor, at.NEXT_TS] >= until:
            continue
        if not live_one(visitor, state, world, until, events, lines, counts, writes):
            return visitor
    return int(state.shape[0])


@njit(cache=True, nogil=True)
def live_one(
    visitor: int,
    state: Table,
    world: World,
    until: int,
    events: Table,
    lines: Table,
    counts: Row,
    writes: bool,  # noqa: FBT001
) -> bool:
    """Let one visitor live until a moment; False if there is no room for the next event."""
    own, person = state[visitor], world.people[visitor]
    until = min(until, own[at.END])
    while own[at.NEXT_TS] < until:
        if counts[0] >= events.shape[0] - 1 or counts[1] >= lines.shape[0] - at.SHOWN - 1:
            return False
        state_now = own[at.STATE]
        if state_now in (at.ARRIVE, at.LEAVE):
            _between_visits(visitor, own, person, world)
            continue
        row = events[counts[0]]
        _begin_row(visitor, own, row)
        if state_now not in (at.SYMPTOM, at.DECLINED):
            own[at.STEP] += 1
            own[at.KEY] = derive(derive(own[at.SEED], own[at.VISIT]), 256 + own[at.STEP])
        _emit(own, person, own[at.MOOD] * at.MOOD_UNIT, world.rules, row)
        _end_row(own, world.rules, row)
        sight.notice(own, row)
        added = _item_lines(own, row, lines, counts)
        if row[at.E_EVENT] == _PURCHASE:
            own[at.LOADED] = 0
            own[at.OFFER] = 0
            own[at.OFFER_PPM] = 0
        if own[at.STEP] >= rates.MOST_STEPS and own[at.STATE] != at.LEAVE:
            leave(own, at.LEAVE)
        own[at.EVENTS] += 1
        if writes:
            counts[0] += 1
            counts[1] += added
    return True


@njit(cache=True, nogil=True)
def _mood(visitor: int, own: Row, world: World) -> int:
    """Give the intent of this visit: the visitor's, the visit's own, and more on each return."""
    key = derive(own[at.SEED], own[at.VISIT])
    mood = world.warmth[visitor] + VISIT_SIGMA * normal(key, _WARMTH_OF_VISIT)
    mood += 0.12 * min(own[at.VISIT] - 1 + own[at.VISITS_BEFORE], 4)
    mood += rates.NEED_WARMTH * own[at.DUE]
    person = world.people[visitor]
    for index in range(world.swings.warmth.shape[0]):
        if world.swings.since[index] <= own[at.NEXT_TS] < world.swings.until[index]:
            mood += world.swings.warmth[index] * _agrees(person, world.swings.match[index])
    return int(mood / at.MOOD_UNIT)


@njit(cache=True, nogil=True)
def _agrees(person: Row, match: Row) -> float:
    for column in range(at.CIRCUMSTANCES):
        if match[column] not in (0, person[column]):
            return 0.0
    return 1.0


@njit(cache=True, nogil=True)
def _hours_away(own: Row, key: int, world: World, warmth: float) -> float:
    """Give the hours of mean activity until the next visit; below 0 if there is none.

    Who bought may need the same again after a cycle of their own.
    """
    share, cycle_h, sigma = world.rules.habits
    own[at.DUE] = int(own[at.BOUGHT] > 0 and uniform(key, FOURTH) < share)
    if own[at.DUE] > 0:
        cycle_h *= math.exp(rates.CYCLE_SPREAD * own[at.TRAIT] * at.MOOD_UNIT)
        return skewed(key, THIRD, cycle_h, sigma)
    if uniform(key, CHOICE) >= chance(world.rules.lines[rates.RETURN], warmth):
        return -1.0
    return skewed(key, SECOND, rates.RETURN_MEDIAN_H, rates.RETURN_SIGMA)


@njit(cache=True, nogil=True)
def _between_visits(visitor: int, own: Row, person: Row, world: World) -> None:
    """Begin a visit; or, after one, settle whether and when the visitor comes back."""
    key = derive(own[at.SEED], own[at.VISIT])
    if own[at.STATE] == at.LEAVE:
        own[at.STATE] = at.ARRIVE
        hours = _hours_away(own, key, world, world.warmth[visitor])
        if hours < 0.0:
            own[at.NEXT_TS] = at.FOREVER
            return
        now = own[at.NEXT_TS] - world.begin + int(rates.RETURN_LEAST_S * 1e6)
        activity = activity_at(world.clock, now) + hours
        own[at.NEXT_TS] = at.FOREVER
        if activity < world.clock[-1]:
            own[at.NEXT_TS] = world.begin + max(now, time_of(world.clock, activity))
        return
    own[at.VISIT] += 1
    own[at.STEP] = 0
    own[at.KEY] = derive(derive(own[at.SEED], own[at.VISIT]), 255)
    own[at.MOOD] = _mood(visitor, own, world)
    sight.forget(own)
    browsing.arrive(own, person, world.rules)


@njit(cache=True, nogil=True)
def _emit(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    """Emit the event of the state, and settle what follows: a symptom, or the way on."""
    state = own[at.STATE]
    if state == at.SYMPTOM:
        show(own, person, world, row)
        when, found, kind = own[at.NEXT_TS], own[at.FOUND], own[at.SHOWS]
        _go_on(own, person, warmth, world, own[at.RESUME])
        harm(own, world.troubles, world.natural, found, kind, when)
        return
    if state >= at.CART:
        _emit_later(own, person, warmth, world, row)
    else:
        _emit_early(own, person, warmth, world, row)
    hook = HOOK_OF[state]
    if hook >= 0 and not strikes(own, person, world, hook):
        _go_on(own, person, warmth, world, hook)


@njit(cache=True, nogil=True)
def _go_on(own: Row, person: Row, warmth: float, world: Rules, hook: int) -> None:
    """Take the way on from a step that a symptom may follow."""
    if hook == AT_VIEW:
        browsing.from_item(own, person, warmth, world)
    elif hook == AT_CART:
        buying.from_cart(own, warmth, world)
    elif hook == AT_BEGIN:
        buying.to_shipping(own, warmth, world)
    else:
        buying.from_shipping(own, person, warmth, world)


@njit(cache=True, nogil=True)
def _emit_early(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    state = own[at.STATE]
    if state == at.LIST:
        browsing.list_items(own, warmth, world, row)
    elif state == at.VIEW:
        browsing.view_item(own, person, world, row)
    elif state == at.SELECT:
        browsing.select(own, world, row)
    elif state == at.LAND:
        browsing.land(own, person, warmth, world, row)
    elif state == at.SEARCH:
        browsing.search(own, person, warmth, world, row)
    elif state == at.OPEN_CATEGORY:
        browsing.open_category(own, person, world, row)
    else:
        buying.add(own, person, world, row)


@njit(cache=True, nogil=True)
def _emit_later(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    state = own[at.STATE]
    if state == at.CART:
        buying.show_cart(own, world, row)
    elif state == at.REMOVE:
        buying.remove(own, world, row)
    elif state == at.BEGIN:
        buying.begin(own, person, world, row)
    elif state == at.SHIP:
        buying.ship(own, person, world, row)
    elif state == at.PAY:
        buying.pay(own, person, warmth, world, row)
    elif state == at.BUY:
        buying.buy(own, world, row)
    else:
        buying.declined(own, world, row)


@njit(cache=True, nogil=True)
def _begin_row(visitor: int, own: Row, row: Row) -> None:
    row[: at.CODES] = 0
    row[at.CODES :] = at.NOTHING
    row[at.E_VISITOR] = visitor
    row[at.E_VISIT] = own[at.VISIT]
    row[at.E_NUMBER] = own[at.EVENTS] + 1
    row[at.E_TS] = own[at.NEXT_TS]
    visits = own[at.VISIT] + own[at.VISITS_BEFORE]
    row[at.E_VISIT_NUMBER] = visits
    row[at.E_NEW] = int(visits == 1)


@njit(cache=True, nogil=True)
def _end_row(own: Row, world: Rules, row: Row) -> None:
    """Name the entities that the event is about."""
    event = row[at.E_EVENT]
    row[at.E_BUILD] = own[at.BUILD]
    row[at.E_PAGE] = own[at.PAGE]
    if event in (_SEARCHED, _LISTED, _SELECTED) and own[at.QUERY] > 0:
        row[at.E_QUERY] = own[at.QUERY]
    if event in (_LISTED, _SELECTED):
        row[at.E_CATEGORY] = own[at.CATEGORY]
    if event in (_VIEWED, _ADDED, _REMOVED, _SELECTED) or row[at.E_OPTION] == 1:
        _name_item(row, own[at.ITEM] if event != _VIEWED else _viewed(row), world)


@njit(cache=True, nogil=True)
def _viewed(row: Row) -> int:
    """Give the item whose page this is: the journey may have moved on to the next already."""
    return int(row[at.E_PAGE] - catalogue.ITEM_PAGE)


@njit(cache=True, nogil=True)
def _name_item(row: Row, item: int, world: Rules) -> None:
    row[at.E_ITEM] = item
    row[at.E_CATEGORY] = world.goods.items[item, catalogue.ITEM_CATEGORY]
    row[at.E_PRICE] = world.goods.items[item, catalogue.ITEM_PRICE]


@njit(cache=True, nogil=True)
def _item_lines(own: Row, row: Row, lines: Table, counts: Row) -> int:
    """Write the event's item lines behind those there are, and give how many."""
    event = row[at.E_EVENT]
    start = counts[1]
    if event in (_SEARCHED, _LISTED):
        shown = min(row[at.E_RESULTS], at.SHOWN)
        # The list's own offset waits here: the journey may have turned the page already.
        offset = row[at.E_POSITION]
        row[at.E_POSITION] = at.NOTHING
        for place in range(shown):
            item = browsing.shown_item(own[at.CATEGORY], offset, place + 1)
            _line(lines[start + place], counts[0], 2, item, place + 1, row[at.E_LIST])
        return int(shown)
    if event in _CARTS:
        for place in range(own[at.LOADED]):
            line = lines[start + place]
            _line(line, counts[0], 1, own[at.CART_ITEM + place], place + 1, 0)
            line[at.L_QUANTITY] = own[at.CART_COUNT + place]
        return int(own[at.LOADED])
    return 0


@njit(cache=True, nogil=True)
def _line(line: Row, event: int, role: int, item: int, position: int, list_name: int) -> None:
    line[at.L_EVENT] = event
    line[at.L_ROLE] = role
    line[at.L_ITEM] = item
    line[at.L_QUANTITY] = at.NOTHING
    line[at.L_POSITION] = position
    line[at.L_LIST] = list_name
