"""The kernel: fold a batch of events into the memory, key by key, and write their feature rows."""

import math

import numpy as np
from numpy.typing import NDArray

from recoup.features.emit import emit
from recoup.features.fold import (
    FOREVER,
    HOUR_US,
    Event,
    Memory,
    Spec,
    mix,
    step,
    write_event,
)
from recoup.features.memory import (
    BLOCK,
    BOUND,
    CHAIN,
    CLASS,
    COUNT,
    EPOCH,
    FIRST_NUMBER,
    GROUP_WORDS,
    GROUPS_AT,
    HASH,
    HEAD,
    LATENESS,
    MASK,
    TOUCHED,
    USED,
    WATERMARK,
    copy,
    copy_up,
    enter,
    give_block,
    precedes,
    records,
    reserve,
    slot,
    trim,
)
from recoup.features.plan import (
    CHAINING,
    COLUMNS,
    HOURLY,
    KEY,
    KEY_A,
    KEY_B,
    PLAN_GROUPS,
    PLAN_INPUTS,
    PLAN_OFFSETS,
    PLAN_RATIOS,
    PLAN_RATIOS_AT,
    PLAN_WIDTH,
    RECORD,
    RETENTION,
    RUNS_AT,
    SEQ,
    SESSION,
    SESSIONED,
    START,
    STATE,
    TILE,
    TS,
)
from recoup.features.pointers import (
    Array,
    Reals,
    Words,
    as_reals,
    as_words,
    compiled,
    compiled_apart,
    compiled_seldom,
    prefetch,
)
from recoup.features.tiles import add_to_tile

Matrix = NDArray[np.float64]

IN_ORDER, LATE, REPEATED, TOO_LATE, OVER_BOUND = range(5)

# Columns of the notes that stand beside each row.
NOTE_SESSION, NOTE_START, NOTE_STATUS, NOTE_WATERMARK, NOTE_RESUME, NOTE_FOUND = range(6)
NOTES = 6

AHEAD = 16
LINE = 8


@compiled
def judge(memory: Words, inputs: Words, notes: Words, width: int, start: int, stop: int) -> None:
    """Note each event's status and the watermark it meets, in arrival order."""
    watermark, lateness = memory[WATERMARK], memory[LATENESS]
    for row in range(start, stop):
        ts, note = inputs[row * width + TS], row * NOTES
        status = LATE if ts < watermark else IN_ORDER
        notes[note + NOTE_STATUS] = TOO_LATE if ts < watermark - lateness else status
        watermark = max(watermark, ts)
        notes[note + NOTE_WATERMARK] = watermark
        notes[note + NOTE_SESSION] = 0
        notes[note + NOTE_START] = 0
    memory[WATERMARK] = watermark


@compiled_apart
def judge_all(state: Array, table: Array, events: Array, noted: Array) -> None:
    """Note every event's status and the watermark it meets."""
    plan = as_words(table)
    judge(as_words(state), as_words(events), as_words(noted), plan[PLAN_INPUTS], 0, len(events))


@compiled
def spec_of(plan: Words, units: Reals, number: int) -> Spec:
    """Say what to do for a group."""
    return plan, units, plan[PLAN_OFFSETS + number], GROUPS_AT + GROUP_WORDS * number


@compiled
def key_of(plan: Words, g: int, inputs: Words, row: int) -> int:
    """Give an event's key in a group, 0 if it has none."""
    key = inputs[row + plan[g + KEY_A]]
    if plan[g + KEY_B] >= 0 and key != 0:
        other = inputs[row + plan[g + KEY_B]]
        return mix(key, other) if other != 0 else 0
    return key


@compiled_apart
def arrange(
    state: Array,
    table: Array,
    number: int,
    events: Array,
    noted: Array,
    values: Matrix,
    scratch: Array,
) -> int:
    """Order a group's events by key, each key's in arrival order; give how many there are.

    Gives -1, and leaves nothing behind but empty entries, if the table gets more than half full.
    Grouping brings each key's records into the cache once.

    Parameters
    ----------
    state, table, number
        The whole memory, the plan, and the group's number.
    events, noted, values
        Shapes (n, k), (n, NOTES) and (n, width): inputs, notes and rows of the batch.
    scratch
        Shape (5, at least as many). Row 0 takes the rows in order, row 1 their keys' entries; the
        others are worked in.
    """
    memory, plan, inputs = as_words(state), as_words(table), as_words(events)
    notes, rows = as_words(noted), as_reals(values)
    g, group = plan[PLAN_OFFSETS + number], GROUPS_AT + GROUP_WORDS * number
    numbers, places, heads = scratch[2], scratch[3], scratch[4]
    keys = 0
    for row in range(len(events)):
        if row + AHEAD < len(events):
            later = key_of(plan, g, inputs, (row + AHEAD) * plan[PLAN_INPUTS])
            prefetch(memory, slot(memory, group, later))
        numbers[row] = -1
        key = 0
        if notes[row * NOTES + NOTE_STATUS] != TOO_LATE:
            key = key_of(plan, g, inputs, row * plan[PLAN_INPUTS])
        if key == 0:
            leave_out(plan, g, rows, row * plan[PLAN_WIDTH])
            continue
        if 2 * memory[group + USED] > memory[group + MASK]:
            leave_keys(memory, heads, keys)
            return -1
        entry = enter(memory, group, key)
        number = memory[entry + CHAIN] - 1
        if number < 0:
            number = keys
            heads[number], places[number] = entry, 0
            keys += 1
            memory[entry + CHAIN] = keys
        numbers[row] = number
        places[number] += 1
    leave_keys(memory, heads, keys)
    return order_by_key(scratch, len(events), keys)


@compiled
def leave_keys(memory: Words, heads: Array, keys: int) -> None:
    """Take the numbers of a batch off its keys' entries."""
    for number in range(keys):
        memory[heads[number] + CHAIN] = 0


@compiled
def order_by_key(scratch: Array, events: int, keys: int) -> int:
    """Sort by counting: the keys in order of their numbers, each one's events as they came.

    Parameters
    ----------
    scratch
        As for :func:`arrange`; rows 2 to 4 hold each event's number of key, or -1, how many events
        each key has, and its entry.
    """
    order, entries, numbers, places, heads = (
        scratch[0],
        scratch[1],
        scratch[2],
        scratch[3],
        scratch[4],
    )
    total = 0
    for number in range(keys):
        count, places[number] = places[number], total
        for place in range(total, total + count):
            entries[place] = heads[number]
        total += count
    for row in range(events):
        number = numbers[row]
        if number >= 0:
            order[places[number]] = row
            places[number] += 1
    return total


@compiled
def leave_out(plan: Words, g: int, rows: Reals, row: int) -> None:
    """Fill a group's columns with NaN, for an event that has no such key."""
    at = plan[g + RUNS_AT + 2 * COLUMNS + 1]
    for column in range(plan[g + RUNS_AT + 2 * COLUMNS]):
        rows[row + plan[at + column]] = math.nan


@compiled_apart
def fold_arranged(
    state: Array,
    table: Array,
    number: int,
    events: Array,
    noted: Array,
    values: Matrix,
    places: tuple[int, int, bool],
    scratch: Array,
) -> int:
    """Fold arranged events; give the place at which the memory must grow first, or the last.

    Parameters
    ----------
    places
        Place to begin at, the one behind the last, and whether each key is forgotten behind its
        last event, so that its memory, still in the cache, serves the next; other parameters as
        for :func:`arrange`.
    """
    both = as_words(state), as_reals(state)
    spec = spec_of(as_words(table), as_reals(table), number)
    inputs, measures, notes = as_words(events), as_reals(events), as_words(noted)
    rows, memory = as_reals(values), as_words(state)
    plan, _, _, group = spec
    columns, width = plan[PLAN_INPUTS], plan[PLAN_WIDTH]
    place, stop, transient = places
    ahead = place
    while place < stop:
        while ahead < min(place + AHEAD, stop):
            fetch(memory, spec, (inputs, notes, rows), scratch[0, ahead], scratch[1, ahead])
            ahead += 1
        row, entry = scratch[0, place], scratch[1, place]
        event = inputs, measures, row * columns, notes, row * NOTES, rows, row * width
        if not fold_one(both, spec, entry, event):
            break
        place += 1
        if transient and (place == stop or scratch[1, place] != entry):
            give_block(memory, group, memory[entry + BLOCK], memory[entry + CLASS])
            memory[entry + COUNT] = 0
    return place


@compiled
def fetch(
    memory: Words, spec: Spec, batch: tuple[Words, Words, Reals], row: int, entry: int
) -> None:
    """Ask for the cache lines that an event to come will need."""
    plan, _, g, _ = spec
    inputs, notes, rows = batch
    prefetch(notes, row * NOTES)
    for word in range(0, plan[PLAN_INPUTS], LINE):
        prefetch(inputs, row * plan[PLAN_INPUTS] + word)
    for word in range(0, plan[PLAN_WIDTH], LINE):
        prefetch(rows, row * plan[PLAN_WIDTH] + word)
    if memory[entry + COUNT] > 0:
        last = memory[entry + HEAD] + memory[entry + COUNT] - 1
        last = memory[entry + BLOCK] + last * plan[g + RECORD]
        for word in range(0, 2 * plan[g + RECORD], LINE):
            prefetch(memory, last + word)


@compiled
def fold_one(both: Memory, spec: Spec, entry: int, event: Event) -> bool:
    """Fold one event into its key and write its row; False if the memory must grow first."""
    memory, _ = both
    plan, _, g, group = spec
    _, _, _, notes, note, rows, row = event
    if memory[entry + COUNT] > 0:
        horizon = notes[note + NOTE_WATERMARK] - memory[LATENESS] - plan[g + RETENTION]
        trim(memory, group, entry, horizon)
    if not reserve(memory, group, entry):
        return False
    memory[entry + TOUCHED] = memory[EPOCH]
    if plan[g + TILE] == 0:
        index = insert(both, spec, entry, event)
    else:
        index = add_to_tile(memory, spec, entry, event)
    base, first = records(memory, group, entry), memory[entry + FIRST_NUMBER]
    emit(both, spec, base, first, index, rows, row)
    if plan[g + SESSIONED] != 0:
        state = base + index * plan[g + RECORD] + plan[g + STATE]
        notes[note + NOTE_SESSION] = memory[state + SESSION]
        notes[note + NOTE_START] = memory[state + START]
        if notes[note + NOTE_FOUND] != IN_ORDER:
            notes[note + NOTE_STATUS] = notes[note + NOTE_FOUND]
    if plan[g + TILE] == 0 and notes[note + NOTE_FOUND] == OVER_BOUND:
        remove(memory, spec, entry, index)
        restep(both, spec, entry, index)
    return True


@compiled
def insert(both: Memory, spec: Spec, entry: int, event: Event) -> int:
    """Put an event where it belongs among its key's, refold from there, and give its index.

    A key holds the first :data:`BOUND` events of each hour of the clock, in the order of events: a
    later one is taken back once its row is written, an earlier one displaces the last.
    """
    memory, _ = both
    plan, _, g, group = spec
    inputs, measures, row, notes, note, _, _ = event
    record, base = plan[g + RECORD], records(memory, group, entry)
    count = memory[entry + COUNT]
    ts, seq, key = inputs[row + TS], inputs[row + SEQ], inputs[row + KEY]
    notes[note + NOTE_FOUND] = IN_ORDER
    index = count
    while index > 1 and not precedes(memory, base + (index - 1) * record, ts, seq, key):
        index -= 1
    place = base + index * record
    same = index < count and memory[place + TS] == ts
    if same and memory[place + SEQ] == seq and memory[place + KEY] == key:
        notes[note + NOTE_FOUND] = REPEATED
        return index
    end = index
    while end < count and memory[base + end * record + TS] // HOUR_US == ts // HOUR_US:
        end += 1
    last = base + (end - 1) * record
    full = memory[last + plan[g + STATE] + HOURLY] >= memory[BOUND]
    if full:
        full = memory[last + TS] // HOUR_US == ts // HOUR_US
    copy_up(memory, place, place + record, (count - index) * record)
    memory[entry + COUNT] = count + 1
    write_event(memory, spec, inputs, measures, row, place)
    first = memory[entry + FIRST_NUMBER]
    step(both, spec, memory[entry + HASH], base, first, index)
    if full and end == index:
        notes[note + NOTE_FOUND] = OVER_BOUND
        return index
    restep(both, spec, entry, index + 1)
    if full:
        remove(memory, spec, entry, end)
        restep(both, spec, entry, end)
    return index


@compiled_seldom
def remove(memory: Words, spec: Spec, entry: int, index: int) -> None:
    """Take a record out; what stands behind it must be stepped again."""
    plan, _, g, group = spec
    record, base = plan[g + RECORD], records(memory, group, entry)
    place = base + index * record
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        number = memory[place + plan[at]]
        if number >= 0:
            seen = base + (number - memory[entry + FIRST_NUMBER]) * record
            memory[seen + plan[at + 3]] = FOREVER
        at += 6
    copy(memory, place + record, place, (memory[entry + COUNT] - 1 - index) * record)
    memory[entry + COUNT] -= 1


@compiled_seldom
def restep(both: Memory, spec: Spec, entry: int, index: int) -> None:
    """Step again every record from ``index`` on."""
    memory, _ = both
    _, _, _, group = spec
    base, first = records(memory, group, entry), memory[entry + FIRST_NUMBER]
    for later in range(index, memory[entry + COUNT]):
        step(both, spec, memory[entry + HASH], base, first, later)


@compiled_apart
def divide(table: Array, values: Matrix, start: int, stop: int) -> None:
    """Fill the columns of ratios."""
    plan, rows = as_words(table), as_reals(values)
    at = plan[PLAN_RATIOS_AT]
    for _ in range(plan[PLAN_RATIOS]):
        top, bottom, column = plan[at], plan[at + 1], plan[at + 2]
        for row in range(start * plan[PLAN_WIDTH], stop * plan[PLAN_WIDTH], plan[PLAN_WIDTH]):
            divisor = rows[row + bottom]
            rows[row + column] = rows[row + top] / divisor if divisor != 0.0 else math.nan
        at += 3


@compiled_apart
def observe_one(state: Array, table: Array, events: Array, values: Matrix, noted: Array) -> int:
    """Fold one event into every group; give its status, or -1 - g where group g needs memory.

    Called again with ``noted[0, NOTE_RESUME]`` set to that group, it goes on there.
    """
    both = as_words(state), as_reals(state)
    memory, plan, inputs = as_words(state), as_words(table), as_words(events)
    notes, rows = as_words(noted), as_reals(values)
    event = inputs, as_reals(events), 0, notes, 0, rows, 0
    number = notes[NOTE_RESUME]
    if number == 0:
        judge(memory, inputs, notes, plan[PLAN_INPUTS], 0, 1)
    while number < plan[PLAN_GROUPS]:
        spec = spec_of(plan, as_reals(table), number)
        _, _, g, group = spec
        key = key_of(plan, g, inputs, 0) if notes[NOTE_STATUS] != TOO_LATE else 0
        if key == 0:
            leave_out(plan, g, rows, 0)
        else:
            if 2 * memory[group + USED] > memory[group + MASK]:
                return -1 - number
            if not fold_one(both, spec, enter(memory, group, key), event):
                return -1 - number
        number += 1
    divide(table, values, 0, 1)
    return notes[NOTE_STATUS]
