"""From the state behind an event to its feature row."""

import math

from recoup.features.fold import Memory, Spec
from recoup.features.memory import BLANK, SCRATCH
from recoup.features.plan import (
    FIRST,
    HEADS_AT,
    LIFE,
    NULL,
    OUT_AGE,
    OUT_DECAYED,
    OUT_DIFFERENCE,
    OUT_MEAN,
    OUT_RECENT,
    OUT_SINCE,
    OUT_VALUE,
    RECORD,
    RUNS_AT,
    STATE,
    TS,
    WINDOWS,
)
from recoup.features.pointers import Reals, Words, compiled


@compiled
def emit(
    both: Memory, spec: Spec, base: int, first: int, index: int, rows: Reals, row: int
) -> None:
    """Write a group's columns of the feature row of one event.

    Parameters
    ----------
    both, spec
        The memory, and what to do.
    rows, row
        The rows, and where the one to fill begins; columns of other groups stay as they are.
    """
    memory, _ = both
    plan, _, g, _ = spec
    record = base + index * plan[g + RECORD]
    _emit_values(both, spec, record, rows, row)
    edges = _find_edges(memory, spec, base, first, record)
    _emit_windows(memory, spec, edges, record, rows, row)
    _emit_times(memory, spec, record, first + index, rows, row)


@compiled
def _emit_values(both: Memory, spec: Spec, record: int, rows: Reals, row: int) -> None:
    memory, reals = both
    plan, units, g, _ = spec
    at = plan[g + RUNS_AT + 2 * OUT_VALUE + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_VALUE]):
        value = memory[record + plan[at]]
        real = value / units[at + 2]
        rows[row + plan[at + 1]] = math.nan if value == NULL else real
        at += 3
    at = plan[g + RUNS_AT + 2 * OUT_DECAYED + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_DECAYED]):
        rows[row + plan[at + 1]] = reals[record + plan[at]] / units[at + 2]
        at += 3


@compiled
def _find_edges(memory: Words, spec: Spec, base: int, first: int, record: int) -> int:
    """Note where the record just before each window stands, and give where it is noted.

    That is the blank one where the key's life began inside the window.
    """
    plan, _, g, group = spec
    state = plan[g + STATE]
    edges = memory[group + SCRATCH]
    life = memory[record + state + LIFE]
    for window in range(plan[g + RUNS_AT + 2 * WINDOWS]):
        head = memory[record + state + HEADS_AT + window]
        inside = base + (head - first - 1) * plan[g + RECORD]
        memory[edges + window] = memory[group + BLANK] if head <= life else inside
    return edges


@compiled
def _emit_windows(
    memory: Words, spec: Spec, edges: int, record: int, rows: Reals, row: int
) -> None:
    plan, units, g, _ = spec
    at = plan[g + RUNS_AT + 2 * OUT_DIFFERENCE + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_DIFFERENCE]):
        word, outside = plan[at], memory[edges + plan[at + 1]]
        value = memory[record + word] - memory[outside + word]
        rows[row + plan[at + 2]] = value / units[at + 3]
        at += 4
    at = plan[g + RUNS_AT + 2 * OUT_MEAN + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_MEAN]):
        total, count = memory[record + plan[at]], memory[record + plan[at + 1]]
        if plan[at + 2] >= 0:
            outside = memory[edges + plan[at + 2]]
            total -= memory[outside + plan[at]]
            count -= memory[outside + plan[at + 1]]
        mean = math.nan if count == 0 else total / max(count, 1) / units[at + 4]
        rows[row + plan[at + 3]] = mean
        at += 5


@compiled
def _emit_times(memory: Words, spec: Spec, record: int, number: int, rows: Reals, row: int) -> None:
    plan, units, g, _ = spec
    now = memory[record + TS]
    state = plan[g + STATE]
    at = plan[g + RUNS_AT + 2 * OUT_RECENT + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_RECENT]):
        when = memory[record + plan[at + 1]]
        known = when != NULL and when > now - plan[at + 2]
        rows[row + plan[at + 3]] = memory[record + plan[at]] / units[at + 4] if known else math.nan
        at += 5
    before = record - plan[g + RECORD]
    alive = memory[record + state + LIFE] != number
    in_session = memory[record + state + FIRST] != number
    at = plan[g + RUNS_AT + 2 * OUT_SINCE + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_SINCE]):
        when, within = memory[before + plan[at]], plan[at + 1]
        known = when != NULL and (in_session if within < 0 else alive)
        if within > 0:
            known = known and when > now - within
        rows[row + plan[at + 2]] = (now - when) / 1e6 if known else math.nan
        at += 3
    at = plan[g + RUNS_AT + 2 * OUT_AGE + 1]
    for _ in range(plan[g + RUNS_AT + 2 * OUT_AGE]):
        rows[row + plan[at + 2]] = (now - plan[at + 1] * memory[record + plan[at]]) / 1e6
        at += 3
