"""The kernel: fold a batch of events into the memory, key by key, and write their feature rows."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.features.emit import Matrix, emit
from recoup.features.fold import (
    FOREVER,
    HOUR_US,
    SUM_LIMIT,
    Inputs,
    mix,
    slide,
    step,
    write_event,
)
from recoup.features.memory import (
    BLANK,
    BOUND,
    BUMP,
    CHAIN,
    COUNT,
    FIRST_NUMBER,
    FORGET,
    GROUP_WORDS,
    GROUPS_AT,
    HASH,
    LATENESS,
    MASK,
    RECORD_WORDS,
    SCRATCH,
    TOUCHED,
    EPOCH,
    USED,
    WATERMARK,
    Words,
    copy_up,
    copy,
    enter,
    precedes,
    records,
    reserve,
    trim,
)
from recoup.features.plan import (
    BITS,
    CHAINING,
    COLUMNS,
    COUNTING,
    FIRST,
    HOURLY,
    KEY,
    KEY_A,
    KEY_B,
    LIFE,
    PLAN_GROUPS,
    PLAN_OFFSETS,
    PLAN_RATIOS,
    PLAN_RATIOS_AT,
    RECORD,
    RETENTION,
    RUNS_AT,
    SEQ,
    SESSION,
    SESSIONED,
    SHIFT,
    START,
    STATE,
    SUMMING,
    TILE,
    TS,
    VALUES_AT,
)

IN_ORDER, LATE, REPEATED, TOO_LATE, OVER_BOUND = range(5)

# Columns of the notes that stand beside each row.
NOTE_SESSION, NOTE_START, NOTE_STATUS, NOTE_WATERMARK, NOTE_RESUME = range(5)
NOTES = 5


@njit(cache=True, nogil=True)
def judge(memory: Words, inputs: Inputs, notes: Words, start: int, stop: int) -> None:
    """Note each event's status and the watermark it meets, in arrival order."""
    watermark, lateness = memory[WATERMARK], memory[LATENESS]
    for row in range(start, stop):
        ts = inputs[row, TS]
        status = LATE if ts < watermark else IN_ORDER
        notes[row, NOTE_STATUS] = TOO_LATE if ts < watermark - lateness else status
        watermark = max(watermark, ts)
        notes[row, NOTE_WATERMARK] = watermark
        notes[row, NOTE_SESSION] = 0
        notes[row, NOTE_START] = 0
    memory[WATERMARK] = watermark


@njit(cache=True, nogil=True)
def key_of(plan: Words, g: int, inputs: Inputs, row: int) -> int:
    """Give an event's key in a group, 0 if it has none."""
    key = inputs[row, plan[g + KEY_A]]
    if plan[g + KEY_B] >= 0 and key != 0:
        other = inputs[row, plan[g + KEY_B]]
        return mix(key, other) if other != 0 else 0
    return key


@njit(cache=True, nogil=True)
def arrange(
    memory: Words,
    plan: Words,
    g: int,
    group: int,
    inputs: Inputs,
    notes: Words,
    rows: Matrix,
    start: int,
    stop: int,
    scratch: Words,
) -> int:
    """Order a group's events by key, each key's in arrival order; give how many there are.

    Grouping brings each key's records into the cache once.

    Parameters
    ----------
    scratch
        Shape (5, at least stop - start). Row 0 takes the rows in order, row 1 their keys' entries.
    """
    order, entries, links, firsts, heads = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    keys = 0
    for row in range(start, stop):
        links[row - start] = 0
        key = key_of(plan, g, inputs, row) if notes[row, NOTE_STATUS] != TOO_LATE else 0
        if key == 0:
            leave_out(plan, g, rows, row)
            continue
        entry = enter(memory, group, key)
        last = memory[entry + CHAIN]
        if last == 0:
            heads[keys], firsts[keys] = entry, row - start
            keys += 1
        else:
            links[last - 1] = row - start
        memory[entry + CHAIN] = row - start + 1
    total = 0
    for number in range(keys):
        entry, place = heads[number], firsts[number]
        memory[entry + CHAIN] = 0
        while True:
            order[total], entries[total] = start + place, entry
            total += 1
            place = links[place]
            if place == 0:
                break
    return total


@njit(cache=True, nogil=True)
def leave_out(plan: Words, g: int, rows: Matrix, row: int) -> None:
    """Fill a group's columns with NaN, for an event that has no such key."""
    at = plan[g + RUNS_AT + 2 * COLUMNS + 1]
    for column in range(plan[g + RUNS_AT + 2 * COLUMNS]):
        rows[row, plan[at + column]] = math.nan


@njit(cache=True, nogil=True)
def fold_arranged(
    memory: Words,
    plan: Words,
    g: int,
    group: int,
    inputs: Inputs,
    notes: Words,
    rows: Matrix,
    scratch: Words,
    place: int,
    total: int,
) -> int:
    """Fold arranged events from ``place`` on; give the place at which the memory must grow."""
    reals, units = memory.view(np.float64), plan.view(np.float64)
    measures = inputs.view(np.float64)
    while place < total:
        row, entry = scratch[0, place], scratch[1, place]
        if not fold_one(
            memory, reals, plan, units, g, group, entry, inputs, measures, row, notes, rows
        ):
            break
        place += 1
    return place


@njit(cache=True, nogil=True)
def fold_one(
    memory: Words,
    reals: NDArray[np.float64],
    plan: Words,
    units: NDArray[np.float64],
    g: int,
    group: int,
    entry: int,
    inputs: Inputs,
    measures: NDArray[np.float64],
    row: int,
    notes: Words,
    rows: Matrix,
) -> bool:
    """Fold one event into its key and write its row; False if the memory must grow first."""
    if memory[entry + COUNT] > 0:
        horizon = notes[row, NOTE_WATERMARK] - memory[LATENESS] - plan[g + RETENTION]
        trim(memory, group, entry, horizon)
    if not reserve(memory, group, entry):
        return False
    memory[entry + TOUCHED] = memory[EPOCH]
    if plan[g + TILE] == 0:
        index = insert(memory, reals, plan, g, group, entry, inputs, measures, row, notes)
        status = notes[row, NOTE_STATUS]
    else:
        index = add_to_tile(memory, plan, g, group, entry, inputs, measures, row)
        status = IN_ORDER
    base, first = records(memory, group, entry), memory[entry + FIRST_NUMBER]
    emit(memory, reals, plan, units, g, group, base, first, index, rows, row)
    if plan[g + SESSIONED] != 0:
        state = base + index * plan[g + RECORD] + plan[g + STATE]
        notes[row, NOTE_SESSION] = memory[state + SESSION]
        notes[row, NOTE_START] = memory[state + START]
    if status == OVER_BOUND and plan[g + TILE] == 0:
        remove(memory, plan, g, group, entry, index)
        restep(memory, reals, plan, g, group, entry, index)
    return True


@njit(cache=True, nogil=True)
def insert(
    memory: Words,
    reals: NDArray[np.float64],
    plan: Words,
    g: int,
    group: int,
    entry: int,
    inputs: Inputs,
    measures: NDArray[np.float64],
    row: int,
    notes: Words,
) -> int:
    """Put an event where it belongs among its key's, refold from there, and give its index.

    A key holds the first :data:`BOUND` events of each hour of the clock, in the order of events: a
    later one is taken back once its row is written, an earlier one displaces the last.
    """
    record, base = plan[g + RECORD], records(memory, group, entry)
    count = memory[entry + COUNT]
    ts, seq, key = inputs[row, TS], inputs[row, SEQ], inputs[row, KEY]
    index = count
    while index > 1 and not precedes(memory, base + (index - 1) * record, ts, seq, key):
        index -= 1
    place = base + index * record
    if index < count and memory[place + TS] == ts:
        if memory[place + SEQ] == seq and memory[place + KEY] == key:
            notes[row, NOTE_STATUS] = REPEATED
            return index
    hour = ts // HOUR_US
    end = index
    while end < count and memory[base + end * record + TS] // HOUR_US == hour:
        end += 1
    last = base + (end - 1) * record
    full = memory[last + plan[g + STATE] + HOURLY] >= memory[BOUND]
    full = full and memory[last + TS] // HOUR_US == hour
    copy_up(memory, place, place + record, (count - index) * record)
    memory[entry + COUNT] = count + 1
    write_event(memory, plan, g, inputs, measures, row, place)
    first = memory[entry + FIRST_NUMBER]
    step(memory, reals, plan, g, group, memory[entry + HASH], base, first, index)
    if full and end == index:
        notes[row, NOTE_STATUS] = OVER_BOUND
        return index
    if full:
        remove(memory, plan, g, group, entry, end)
    restep(memory, reals, plan, g, group, entry, index + 1)
    return index


@njit(cache=True, nogil=True)
def remove(memory: Words, plan: Words, g: int, group: int, entry: int, index: int) -> None:
    """Take a record out; what stands behind it must be stepped again."""
    record, base = plan[g + RECORD], records(memory, group, entry)
    place = base + index * record
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        number = memory[place + plan[at]]
        if number >= 0:
            seen = base + (number - memory[entry + FIRST_NUMBER]) * record
            memory[seen + plan[at + 3]] = FOREVER
        at += 5
    copy(memory, place + record, place, (memory[entry + COUNT] - 1 - index) * record)
    memory[entry + COUNT] -= 1


@njit(cache=True, nogil=True)
def restep(
    memory: Words,
    reals: NDArray[np.float64],
    plan: Words,
    g: int,
    group: int,
    entry: int,
    index: int,
) -> None:
    """Step again every record from ``index`` on."""
    base, first = records(memory, group, entry), memory[entry + FIRST_NUMBER]
    for later in range(index, memory[entry + COUNT]):
        step(memory, reals, plan, g, group, memory[entry + HASH], base, first, later)


@njit(cache=True, nogil=True)
def add_to_tile(
    memory: Words,
    plan: Words,
    g: int,
    group: int,
    entry: int,
    inputs: Inputs,
    measures: NDArray[np.float64],
    row: int,
) -> int:
    """Add an event to the tile it falls into, and give the tile's index."""
    record, base = plan[g + RECORD], records(memory, group, entry)
    count = memory[entry + COUNT]
    tile = inputs[row, TS] // plan[g + TILE] * plan[g + TILE]
    index = count - 1
    while index > 0 and memory[base + index * record + TS] > tile:
        index -= 1
    if index == 0 or memory[base + index * record + TS] < tile:
        index += 1
        place = base + index * record
        copy_up(memory, place, place + record, (count - index) * record)
        for word in range(record):
            memory[place + word] = 0
        memory[place + TS] = tile
        memory[entry + COUNT] = count + 1
    event = memory[group + SCRATCH]
    write_event(memory, plan, g, inputs, measures, row, event)
    contribute(memory, plan, g, event, base + index * record)
    first = memory[entry + FIRST_NUMBER]
    for later in range(index, memory[entry + COUNT]):
        step_tile(memory, plan, g, base, first, later)
    return index


@njit(cache=True, nogil=True)
def contribute(memory: Words, plan: Words, g: int, event: int, tile: int) -> None:
    """Add what an event counts and sums to a tile's own counts and sums."""
    bits, shift = memory[event + BITS], plan[g + SHIFT]
    at = plan[g + RUNS_AT + 2 * COUNTING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * COUNTING]):
        mask = plan[at + 1]
        if bits & mask == mask:
            memory[tile + plan[at] - shift] += 1
        at += 3
    at = plan[g + RUNS_AT + 2 * SUMMING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * SUMMING]):
        mask, word = plan[at + 1], tile + plan[at] - shift
        if bits & mask == mask:
            total = memory[word] + memory[event + plan[at + 3]]
            memory[word] = min(max(total, -SUM_LIMIT), SUM_LIMIT)
        at += 4


@njit(cache=True, nogil=True)
def step_tile(memory: Words, plan: Words, g: int, base: int, first: int, index: int) -> None:
    """Compute the running counts and sums behind a tile."""
    record = base + index * plan[g + RECORD]
    before = record - plan[g + RECORD]
    fresh = memory[record + TS] - memory[before + TS] > memory[FORGET]
    state, shift = plan[g + STATE], plan[g + SHIFT]
    memory[record + state + LIFE] = first + index if fresh else memory[before + state + LIFE]
    slide(memory, plan, g, base, first, index)
    for word in range(VALUES_AT + shift, plan[g + RECORD]):
        total = memory[record + word - shift] + (0 if fresh else memory[before + word])
        memory[record + word] = min(max(total, -SUM_LIMIT), SUM_LIMIT)


@njit(cache=True, nogil=True)
def divide(plan: Words, rows: Matrix, start: int, stop: int) -> None:
    """Fill the columns of ratios."""
    at = plan[PLAN_RATIOS_AT]
    for _ in range(plan[PLAN_RATIOS]):
        top, bottom, column = plan[at], plan[at + 1], plan[at + 2]
        for row in range(start, stop):
            divisor = rows[row, bottom]
            rows[row, column] = rows[row, top] / divisor if divisor != 0.0 else math.nan
        at += 3


@njit(cache=True, nogil=True)
def observe_one(
    memory: Words, plan: Words, inputs: Inputs, rows: Matrix, notes: Words
) -> int:
    """Fold one event into every group; give its status, or -1 - g where group g needs memory.

    Called again with ``notes[0, NOTE_RESUME]`` set to that group, it goes on there.
    """
    number = notes[0, NOTE_RESUME]
    if number == 0:
        judge(memory, inputs, notes, 0, 1)
    reals, units = memory.view(np.float64), plan.view(np.float64)
    measures = inputs.view(np.float64)
    while number < plan[PLAN_GROUPS]:
        g, group = plan[PLAN_OFFSETS + number], GROUPS_AT + GROUP_WORDS * number
        key = key_of(plan, g, inputs, 0) if notes[0, NOTE_STATUS] != TOO_LATE else 0
        if key == 0:
            leave_out(plan, g, rows, 0)
        else:
            if 2 * memory[group + USED] > memory[group + MASK]:
                return -1 - number
            entry = enter(memory, group, key)
            if not fold_one(
                memory, reals, plan, units, g, group, entry, inputs, measures, 0, notes, rows
            ):
                return -1 - number
        number += 1
    divide(plan, rows, 0, 1)
    return notes[0, NOTE_STATUS]
