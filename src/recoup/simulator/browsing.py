"""The law up to the cart: landing, searching, lists, items. Each function gives one event."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.simulator import catalogue, rates
from recoup.simulator import layout as at
from recoup.simulator.moves import (
    CHOICE,
    FIFTH,
    FOURTH,
    LATENCY,
    SECOND,
    THIRD,
    chance,
    go,
    harm,
    leave,
    met,
    size_of,
    skewed,
)
from recoup.simulator.people import pick
from recoup.simulator.randomness import uniform
from recoup.simulator.world import Rules

Row = NDArray[np.int64]
_PAGE_VIEW = CODE["page_view"]
_SEARCHED = CODE["view_search_results"]
_LISTED = CODE["view_item_list"]
_SELECTED = CODE["select_item"]
_VIEWED = CODE["view_item"]
_EACH = catalogue.ITEMS_EACH


@njit(cache=True, nogil=True)
def arrive(own: Row, person: Row, world: Rules) -> None:
    """Begin a visit: where it lands, and with which build. Emits nothing."""
    key = own[at.KEY]
    where = uniform(key, CHOICE)
    own[at.LANDING] = 1 if where < world.shares[rates.LAND_HOME] else 2
    if where >= world.shares[rates.LAND_HOME] + world.shares[rates.LAND_CATEGORY]:
        own[at.LANDING] = 3
    build = 0
    for index in range(world.build_since.shape[0]):
        if world.build_since[index] <= own[at.NEXT_TS]:
            build = index
    if build > 0 and uniform(key, SECOND) < catalogue.LAGGARDS:
        build -= 1
    own[at.BUILD] = build + 1
    own[at.BOUGHT] = 0
    own[at.SPARED] = 0
    own[at.QUERY] = 0
    own[at.METHOD] = person[at.PREFERRED]
    own[at.ATTEMPT] = 0
    own[at.OFFER] = 0
    own[at.OFFER_PPM] = 0
    _to_category(own, pick(world.goods.category_chance, uniform(key, THIRD)) + 1)
    own[at.ITEM] = (own[at.CATEGORY] - 1) * _EACH + 1 + int(uniform(key, LATENCY) ** 2 * _EACH)
    own[at.STATE] = at.LAND


@njit(cache=True, nogil=True)
def _to_category(own: Row, category: int) -> None:
    own[at.CATEGORY] = category
    own[at.OFFSET] = 0


@njit(cache=True, nogil=True)
def land(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    """Show the landing page; nearly half leave it at once."""
    row[at.E_EVENT] = _PAGE_VIEW
    own[at.PAGE] = catalogue.HOME
    to = at.LIST
    if own[at.LANDING] == 2:  # noqa: PLR2004
        own[at.PAGE] = catalogue.CATEGORY_PAGE + own[at.CATEGORY]
    elif own[at.LANDING] == 3:  # noqa: PLR2004
        own[at.PAGE] = catalogue.ITEM_PAGE + own[at.ITEM]
        to = at.VIEW
    else:
        where = uniform(own[at.KEY], SECOND)
        to = at.SEARCH if where < world.shares[rates.HOME_SEARCH] else at.OPEN_CATEGORY
        known = world.shares[rates.HOME_SEARCH] + world.shares[rates.HOME_CATEGORY]
        to = at.SELECT if where >= known else to
    if own[at.LOADED] > 0 and uniform(own[at.KEY], THIRD) < world.shares[rates.RESUME_CART]:
        to = at.CART
    _page_loads(own, person, world, row)
    when = own[at.NEXT_TS]
    if uniform(own[at.KEY], CHOICE) < chance(world.lines[rates.BOUNCE], warmth):
        leave(own, at.LIST)
    else:
        go(own, world.gaps, to)
    _slow_page(own, world, when)


@njit(cache=True, nogil=True)
def _page_loads(own: Row, person: Row, world: Rules, row: Row) -> None:
    own[at.FOUND] = met(own, person, world.troubles, world.natural[at.RATE, at.D8], at.D8)
    row[at.E_LATENCY] = int(
        skewed(own[at.KEY], LATENCY, rates.LATENCY_MS, rates.LATENCY_SIGMA)
        + size_of(own[at.FOUND], at.D8, world.troubles, world.natural)
    )


@njit(cache=True, nogil=True)
def _slow_page(own: Row, world: Rules, when: int) -> None:
    harm(own, world.troubles, world.natural, own[at.FOUND], at.D8, when)


@njit(cache=True, nogil=True)
def search(own: Row, person: Row, warmth: float, world: Rules, row: Row) -> None:
    """Search: results, none, or slowly."""
    key = own[at.KEY]
    row[at.E_EVENT] = _SEARCHED
    own[at.PAGE] = catalogue.SEARCH_PAGE
    own[at.QUERY] = pick(world.goods.query_chance, uniform(key, SECOND)) + 1
    own[at.CATEGORY] = world.goods.queries[own[at.QUERY], catalogue.QUERY_CATEGORY]
    own[at.OFFSET] = world.goods.queries[own[at.QUERY], catalogue.QUERY_OFFSET]
    slow = met(own, person, world.troubles, world.natural[at.RATE, at.S6], at.S6)
    row[at.E_LATENCY] = int(
        skewed(key, LATENCY, rates.SEARCH_LATENCY_MS, rates.LATENCY_SIGMA)
        + size_of(slow, at.S6, world.troubles, world.natural)
    )
    empty = met(own, person, world.troubles, world.natural[at.RATE, at.S1], at.S1)
    row[at.E_RESULTS] = (
        world.goods.queries[own[at.QUERY], catalogue.QUERY_RESULTS] if empty == at.UNMET else 0
    )
    row[at.E_LIST] = catalogue.SEARCH_LIST
    row[at.E_POSITION] = own[at.OFFSET]
    when = own[at.NEXT_TS]
    _from_list(own, warmth, world)
    if empty != at.UNMET:
        _nothing_found(own, world, empty, when)
    harm(own, world.troubles, world.natural, slow, at.S6, when)


@njit(cache=True, nogil=True)
def _nothing_found(own: Row, world: Rules, found: int, when: int) -> None:
    """Leave, or try other words; without results there is nothing to select."""
    if own[at.STATE] == at.LEAVE:
        return
    harm(own, world.troubles, world.natural, found, at.S1, when)
    if own[at.STATE] == at.SELECT:
        again = uniform(own[at.KEY], THIRD) < world.shares[rates.REFORMULATE]
        own[at.STATE] = at.SEARCH if again else at.OPEN_CATEGORY


@njit(cache=True, nogil=True)
def open_category(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Open a category's page; its list follows."""
    row[at.E_EVENT] = _PAGE_VIEW
    if own[at.QUERY] == 0:
        chosen = pick(world.goods.category_chance, uniform(own[at.KEY], SECOND)) + 1
        _to_category(own, chosen)
    own[at.QUERY] = 0
    own[at.OFFSET] = 0
    own[at.PAGE] = catalogue.CATEGORY_PAGE + own[at.CATEGORY]
    _page_loads(own, person, world, row)
    when = own[at.NEXT_TS]
    go(own, world.gaps, at.LIST)
    _slow_page(own, world, when)


@njit(cache=True, nogil=True)
def list_items(own: Row, warmth: float, world: Rules, row: Row) -> None:
    """Show a page of a category."""
    row[at.E_EVENT] = _LISTED
    row[at.E_POSITION] = own[at.OFFSET]
    row[at.E_LIST] = catalogue.CATEGORY_LIST
    row[at.E_RESULTS] = _EACH
    own[at.PAGE] = catalogue.CATEGORY_PAGE + own[at.CATEGORY]
    _from_list(own, warmth, world)
    if own[at.STATE] == at.LIST:
        own[at.OFFSET] = (own[at.OFFSET] + at.SHOWN) % _EACH


@njit(cache=True, nogil=True)
def _from_list(own: Row, warmth: float, world: Rules) -> None:
    """Leave, select, search, or turn the page."""
    key = own[at.KEY]
    if uniform(key, CHOICE) < chance(world.lines[rates.LIST_LEAVE], warmth):
        leave(own, at.SELECT)
    elif uniform(key, FOURTH) < chance(world.lines[rates.LIST_SELECT], warmth):
        go(own, world.gaps, at.SELECT)
    elif uniform(key, THIRD) < world.shares[rates.LIST_SEARCH]:
        go(own, world.gaps, at.SEARCH)
    else:
        go(own, world.gaps, at.LIST)


@njit(cache=True, nogil=True)
def select(own: Row, world: Rules, row: Row) -> None:
    """Select one of the items shown; the eye goes down the list."""
    row[at.E_EVENT] = _SELECTED
    draw = uniform(own[at.KEY], CHOICE)
    position, left = 1, 1.0 - rates.NEXT_POSITION
    while draw > left and position < at.SHOWN:
        draw = (draw - left) / (1.0 - left)
        position += 1
    row[at.E_POSITION] = position
    row[at.E_LIST] = catalogue.CATEGORY_LIST if own[at.QUERY] == 0 else catalogue.SEARCH_LIST
    own[at.ITEM] = shown_item(own[at.CATEGORY], own[at.OFFSET], position)
    go(own, world.gaps, at.VIEW)


@njit(cache=True, nogil=True)
def shown_item(category: int, offset: int, position: int) -> int:
    """Give the item at a position, from 1, of a list."""
    return (category - 1) * _EACH + 1 + (offset + position - 1) % _EACH


@njit(cache=True, nogil=True)
def view_item(own: Row, person: Row, world: Rules, row: Row) -> None:
    """Show an item: its price, whether it is there, and when it would arrive."""
    key = own[at.KEY]
    row[at.E_EVENT] = _VIEWED
    own[at.CATEGORY] = world.goods.items[own[at.ITEM], catalogue.ITEM_CATEGORY]
    own[at.PAGE] = catalogue.ITEM_PAGE + own[at.ITEM]
    late = met(own, person, world.troubles, world.natural[at.RATE, at.D2], at.D2)
    row[at.E_IN_STOCK] = int(missing_here(own, person, world) == at.UNMET)
    row[at.E_PROMISE] = promise(own, person, world, late)
    row[at.E_LATENCY] = int(skewed(key, LATENCY, rates.LATENCY_MS, rates.LATENCY_SIGMA))


@njit(cache=True, nogil=True)
def missing_here(own: Row, person: Row, world: Rules) -> int:
    """Give the defect by which the visit's item is out of stock; its own cycle is bad luck."""
    cycle = world.stock[own[at.ITEM]]
    if cycle[1] > 0 and (own[at.NEXT_TS] + cycle[2]) % cycle[0] < cycle[1]:
        return int(at.NATURAL)
    return int(met(own, person, world.troubles, world.natural[at.RATE, at.D1], at.D1))


@njit(cache=True, nogil=True)
def from_item(own: Row, person: Row, warmth: float, world: Rules) -> None:
    """Leave the item, put it in the cart, or look on."""
    key = own[at.KEY]
    missing = missing_here(own, person, world)
    late = met(own, person, world.troubles, world.natural[at.RATE, at.D2], at.D2)
    when = own[at.NEXT_TS]
    if uniform(key, CHOICE) < chance(world.lines[rates.VIEW_LEAVE], warmth):
        leave(own, at.ADD if missing == at.UNMET else at.VIEW)
    elif uniform(key, SECOND) < chance(world.lines[rates.VIEW_ADD], warmth):
        go(own, world.gaps, at.ADD)
    elif uniform(key, THIRD) < world.shares[rates.VIEW_RELATED]:
        _to_related(own)
        go(own, world.gaps, at.VIEW)
    else:
        go(own, world.gaps, at.LIST)
    if missing != at.UNMET and own[at.STATE] == at.ADD:
        _cannot_have(own, world, missing, when)
    harm(own, world.troubles, world.natural, late, at.D2, when)


@njit(cache=True, nogil=True)
def _to_related(own: Row) -> None:
    hop = 1 + int(uniform(own[at.KEY], FIFTH) * 5)
    within = (own[at.ITEM] - 1) % _EACH
    own[at.ITEM] += (within + hop) % _EACH - within


@njit(cache=True, nogil=True)
def _cannot_have(own: Row, world: Rules, found: int, when: int) -> None:
    """Look at another item instead of adding this one, or leave for it."""
    _to_related(own)
    own[at.STATE] = at.VIEW
    harm(own, world.troubles, world.natural, found, at.D1, when)


@njit(cache=True, nogil=True)
def promise(own: Row, person: Row, world: Rules, late: int) -> int:
    """Give the days promised for the visit's item."""
    days = world.promise[person[at.COUNTRY]] + world.goods.items[own[at.ITEM], catalogue.ITEM_DAYS]
    return int(days + size_of(late, at.D2, world.troubles, world.natural))
