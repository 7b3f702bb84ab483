"""Tiles of the clock: for heavy keys, whose single events are not kept, a record holds a tile."""

from recoup.features.fold import SUM_LIMIT, Event, Spec, slide, write_event
from recoup.features.memory import COUNT, FIRST_NUMBER, FORGET, SCRATCH, copy_up, records
from recoup.features.plan import (
    BITS,
    COUNTING,
    LIFE,
    RECORD,
    RUNS_AT,
    SHIFT,
    STATE,
    SUMMING,
    TILE,
    TS,
    VALUES_AT,
)
from recoup.features.pointers import Words, compiled


@compiled
def add_to_tile(memory: Words, spec: Spec, entry: int, event: Event) -> int:
    """Add an event to the tile it falls into, and give the tile's index."""
    plan, _, g, group = spec
    inputs, measures, row = event[0], event[1], event[2]
    record, base = plan[g + RECORD], records(memory, group, entry)
    count = memory[entry + COUNT]
    tile = inputs[row + TS] // plan[g + TILE] * plan[g + TILE]
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
    whole = memory[group + SCRATCH]
    write_event(memory, spec, inputs, measures, row, whole)
    contribute(memory, spec, whole, base + index * record)
    first = memory[entry + FIRST_NUMBER]
    for later in range(index, memory[entry + COUNT]):
        step_tile(memory, spec, base, first, later)
    return index


@compiled
def contribute(memory: Words, spec: Spec, event: int, tile: int) -> None:
    """Add what an event counts and sums to a tile's own counts and sums."""
    plan, _, g, _ = spec
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


@compiled
def step_tile(memory: Words, spec: Spec, base: int, first: int, index: int) -> None:
    """Compute the running counts and sums behind a tile."""
    plan, _, g, _ = spec
    record = base + index * plan[g + RECORD]
    before = record - plan[g + RECORD]
    fresh = memory[record + TS] - memory[before + TS] > memory[FORGET]
    state, shift = plan[g + STATE], plan[g + SHIFT]
    memory[record + state + LIFE] = first + index if fresh else memory[before + state + LIFE]
    slide(memory, spec, base, first, index)
    for word in range(VALUES_AT + shift, plan[g + RECORD]):
        total = memory[record + word - shift] + (0 if fresh else memory[before + word])
        memory[record + word] = min(max(total, -SUM_LIMIT), SUM_LIMIT)
