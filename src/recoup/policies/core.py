"""The kernel that folds events into decisions: one code for batches and for single events."""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.friction.memory import find
from recoup.friction.moment import CARTED, PURCHASED
from recoup.models.addresses import flags_at, last_axis, reals_at, words_at
from recoup.policies.slices import HOLDOUT, RANDOM, combine, slice_of, uniform
from recoup.policies.value import (
    ACTS,
    FIRST_ACT,
    FLOOR,
    TEMPERATURE,
    WAITS_S,
    Tables,
    allow,
    draw,
    propensities,
    value_options,
)

TS, KEY, EVENT, VISITOR, VALUE, PRICE, QUANTITY, SESSION, STAGE, STATUS = range(10)
"""Columns of the encoded events, int64 (n, 10)."""
NUMBERS: Final = STATUS + 2
"""Those, and the reason's code."""

SESSION_WIDTH: Final = 8
_USED, _CART, _UNTIL, _CLOSED, _REASON, _REASON_AT, _LOSS, _BOUGHT = range(SESSION_WIDTH)
ACTED: Final = 3
VISITOR_WIDTH: Final = 1 + ACTS * ACTED
WHOLE: Final = 6
ROW, COUNT, CHOSEN, ID, SLICE, REASON = range(WHOLE)
"""Columns of what is drawn, int64 (d, 6)."""

_ADD: Final = CODE["add_to_cart"]
_REMOVE: Final = CODE["remove_from_cart"]
_MICROS: Final = 1_000_000
_WAITS_US: Final = np.array(WAITS_S, np.int64) * _MICROS
_PPM: Final = 1e6


class Constants(NamedTuple):
    """Seed of slices and draws, hash of the policy version, mean order value in micro-units."""

    seed: int
    version: int
    order_value: int
    shares: NDArray[np.float64]


class Stores(NamedTuple):
    """Memory of sessions and of visitors: keys, rows and number used of each."""

    session_keys: NDArray[np.int64]
    sessions: NDArray[np.int64]
    session_used: NDArray[np.int64]
    visitor_keys: NDArray[np.int64]
    visitors: NDArray[np.int64]
    visitor_used: NDArray[np.int64]


class Outputs(NamedTuple):
    """What is drawn: ``whole`` int64 (n, 6), option ``codes`` int64 and ``odds``, ``values``."""

    whole: NDArray[np.int64]
    codes: NDArray[np.int64]
    odds: NDArray[np.float64]
    values: NDArray[np.float64]


@njit(cache=True, nogil=True)
def decide_events(
    tables: Tables,
    constants: Constants,
    stores: Stores,
    numbers: NDArray[np.int64],
    reals: NDArray[np.float64],
    outputs: Outputs,
) -> int:
    """Fold n encoded events and give the number d of decisions made, filled from row 0 on.

    Parameters
    ----------
    numbers
        Int64 (n, 11): the columns above, then the reason's code or -1.
    reals
        Intent and the reason's loss share, float64 (n, 2).
    """
    made = 0
    allowed = np.zeros(ACTS, np.bool_)
    for row in range(numbers.shape[0]):
        event = numbers[row]
        if event[STATUS] != 0:
            continue
        own = stores.sessions[find(stores.session_keys, stores.session_used, event[SESSION])]
        _follow(event, own)
        if not _is_point(event, reals[row, 1], own):
            continue
        visitor = stores.visitors[find(stores.visitor_keys, stores.visitor_used, event[VISITOR])]
        visitor[0] = max(visitor[0], event[TS])
        acted_at = visitor[1:].reshape(ACTS, ACTED)
        reason = (own[_REASON], own[_REASON_AT])
        if not allow(tables, event[STAGE], event[TS], reason, acted_at, allowed):
            continue
        group = slice_of(constants.seed, event[VISITOR], constants.shares)
        whole = outputs.whole[made]
        whole[ROW], whole[SLICE], whole[REASON] = row, group, own[_REASON]
        whole[ID] = combine(combine(event[SESSION], event[KEY]), constants.version)
        shopper = _shopper(reals[row, 0], own, constants.order_value)
        _draw_option(tables, constants.seed, shopper, allowed, outputs, made)
        _remember(event[TS], outputs.codes[made, whole[CHOSEN]], own, acted_at)
        made += 1
    return made


@njit(cache=True, nogil=True)
def decide_located(policy: NDArray[np.int64], own: NDArray[np.int64]) -> int:
    """Fold one event as :func:`decide_events` does; -1, and nothing done, if memory has no room.

    Parameters
    ----------
    policy
        Places of the tables, of the constants (three words, then the shares) and of the stores.
    own
        Places of numbers, reals and outputs, each of one row.
    """
    session_keys, session_used = words_at(policy, 8), words_at(policy, 10)
    visitor_keys, visitor_used = words_at(policy, 11), words_at(policy, 13)
    full = 2 * (session_used[0] + 1) > len(session_keys)
    if full or 2 * (visitor_used[0] + 1) > len(visitor_keys):
        return -1
    tables = Tables(
        flags_at(policy, 0).reshape(-1, last_axis(policy, 0)),
        words_at(policy, 1).reshape(-1, last_axis(policy, 1)),
        words_at(policy, 2),
        reals_at(policy, 3).reshape(-1, last_axis(policy, 3)),
        reals_at(policy, 4).reshape(-1, last_axis(policy, 4)),
        reals_at(policy, 5),
    )
    words = words_at(policy, 6)
    constants = Constants(words[0], words[1], words[2], reals_at(policy, 7))
    sessions = words_at(policy, 9).reshape(-1, SESSION_WIDTH)
    visitors = words_at(policy, 12).reshape(-1, VISITOR_WIDTH)
    stores = Stores(session_keys, sessions, session_used, visitor_keys, visitors, visitor_used)
    numbers, reals = words_at(own, 0).reshape(1, -1), reals_at(own, 1).reshape(1, -1)
    outputs = Outputs(
        words_at(own, 2).reshape(1, -1),
        words_at(own, 3).reshape(1, -1),
        reals_at(own, 4).reshape(1, -1),
        reals_at(own, 5).reshape(1, -1),
    )
    return int(decide_events(tables, constants, stores, numbers, reals, outputs))


@njit(cache=True, nogil=True)
def _follow(event: NDArray[np.int64], own: NDArray[np.int64]) -> None:
    """Keep the session's cart value: what was added less what was removed, or what was told."""
    own[_USED] = max(own[_USED], event[TS])
    line = event[VALUE] if event[VALUE] > 0 else event[PRICE] * max(event[QUANTITY], 1)
    if event[EVENT] == _ADD:
        own[_CART] += line
    elif event[EVENT] == _REMOVE:
        own[_CART] = max(own[_CART] - line, 0)
    elif event[STAGE] >= CARTED and event[VALUE] > 0:
        own[_CART] = event[VALUE]


@njit(cache=True, nogil=True)
def _is_point(event: NDArray[np.int64], loss: float, own: NDArray[np.int64]) -> bool:
    if event[STAGE] == PURCHASED or own[_CLOSED] == 1:
        return False
    reason = event[STATUS + 1]
    waited = own[_UNTIL] != 0 and event[TS] >= own[_UNTIL]
    if reason < 0:
        return bool(waited)
    if own[_UNTIL] != 0 and not waited and reason == own[_REASON]:
        return False
    own[_REASON], own[_REASON_AT] = reason, event[TS]
    own[_LOSS] = np.int64(loss * _PPM)
    return True


@njit(cache=True, nogil=True)
def _shopper(intent: float, own: NDArray[np.int64], order_value: int) -> tuple[float, float, float]:
    lost = intent * own[_LOSS] / _PPM
    value = own[_CART] if own[_CART] > 0 else order_value
    return intent - lost, lost, float(value)


@njit(cache=True, nogil=True)
def _draw_option(
    tables: Tables,
    seed: int,
    shopper: tuple[float, float, float],
    allowed: NDArray[np.bool_],
    outputs: Outputs,
    made: int,
) -> None:
    whole, codes, values = outputs.whole[made], outputs.codes[made], outputs.values[made]
    odds = outputs.odds[made]
    count = 1
    codes[0], values[0] = 0, 0.0
    if whole[SLICE] != HOLDOUT:
        count = value_options(tables, shopper, whole[REASON], allowed, codes, values)
    heat = np.inf if whole[SLICE] == RANDOM else tables.settings[TEMPERATURE]
    propensities(values[:count], tables.settings[FLOOR], heat, odds[:count])
    whole[COUNT] = count
    whole[CHOSEN] = draw(odds[:count], uniform(seed, whole[ID]))


@njit(cache=True, nogil=True)
def _remember(now: int, code: int, own: NDArray[np.int64], acted_at: NDArray[np.int64]) -> None:
    own[_UNTIL] = 0
    if code == 0:
        own[_CLOSED] = 1
    elif code < FIRST_ACT:
        own[_UNTIL] = now + _WAITS_US[code - 1]
    else:
        times = acted_at[code - FIRST_ACT]
        times[2], times[1], times[0] = times[1], times[0], now
