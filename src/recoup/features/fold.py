"""The step of the fold: the state behind an event, from the state behind the event before it.

A record holds an event and the state behind it, sums and counts running since the key's first
event; a window's value is the difference of two records. So an event that comes late is put where
it belongs and the SAME step taken again from there on: nothing else is needed to be exact.
"""

import math

from recoup.features.memory import BLANK, FORGET, NEVER, SESSION_GAP
from recoup.features.plan import (
    BEGINS,
    BITS,
    CHAINING,
    CODE_COLUMN,
    COUNTING,
    DECAYING,
    DISTINCTING,
    FILTERS,
    FIRST,
    FOLLOWS,
    HEADS_AT,
    HOURLY,
    INTEGER,
    KEY,
    LARGEST,
    LASTING,
    LIFE,
    NULL,
    PEAKING,
    REAL,
    RECORD,
    RUNS_AT,
    SAME,
    SEQ,
    SESSION,
    SESSION_COLUMN,
    SESSIONED,
    SILENCE,
    SLIDING_PEAKS,
    SOURCE,
    START,
    STATE,
    STRING,
    SUMMING,
    TS,
    VALUES,
    WINDOWS,
)
from recoup.features.pointers import Reals, Words, compiled, compiled_apart, compiled_seldom

Memory = tuple[Words, Reals]
"""The memory, as words and as reals."""

Spec = tuple[Words, Reals, int, int]
"""What to do for a group: the plan as words and as reals, and where the group begins in the plan
and in the memory. It is the same at every event."""

Event = tuple[Words, Reals, int, Words, int, Reals, int]
"""Inputs as words and as reals, notes, rows, and where in each of them the event stands."""

HOUR_US = 3_600_000_000
SUM_LIMIT = 1 << 61
FOREVER = 1 << 61
HALF = (1 << 32) - 1
FACTORS = (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9)


@compiled
def mix(first: int, second: int) -> int:
    """Hash two keys to one that is never 0, in steps that cannot overflow."""
    low = (first & HALF) ^ ((second >> 32) & HALF)
    high = ((first >> 32) & HALF) ^ (second & HALF)
    for factor in FACTORS:
        product = low * factor + high
        low, high = (product >> 29) & HALF, (product ^ (low << 7)) & HALF
        low = low ^ ((high * 0x165667B1 >> 15) & HALF)
    mixed = (high & 0x7FFFFFFF) << 32 | low
    mixed ^= first >> 1 & 0x55555555
    return mixed if mixed != 0 else 1


@compiled
def measure(inputs: Words, reals: Reals, row: int, column: int, kind: int) -> int:
    """Read an input as the int64 that records hold: NULL where unknown, clamped."""
    if kind == REAL:
        real = reals[row + column] * 1e6
        if not math.isfinite(real):
            return NULL
        return round(min(max(real, -float(LARGEST)), float(LARGEST)))
    value = inputs[row + column]
    if kind == INTEGER:
        return value if value == NULL else min(max(value, -LARGEST), LARGEST)
    absent = 0 if kind == STRING else -1
    return NULL if value == absent else value


@compiled
def _outcome(value: int, constant: int) -> int:
    """Compare, and give the bit of the outcome as ``COMPARISONS`` has it."""
    if value == NULL:
        return 8
    if value == constant:
        return 2
    return 1 if value < constant else 4


@compiled
def _filtered(spec: Spec, inputs: Words, reals: Reals, row: int) -> int:
    """Give the bits of the filters that an event passes."""
    plan, _, g, _ = spec
    code = inputs[row + CODE_COLUMN]
    bits = 0
    at = plan[g + RUNS_AT + 2 * FILTERS + 1]
    for number in range(plan[g + RUNS_AT + 2 * FILTERS]):
        passes = (plan[at] >> code | (plan[at] == 0)) & 1
        condition = plan[at + 2]
        for _ in range(plan[at + 1]):
            value = measure(inputs, reals, row, plan[condition], plan[condition + 1])
            passes &= plan[condition + 2] & _outcome(value, plan[condition + 3]) != 0
            condition += 4
        bits |= passes << number
        at += 3
    return bits


@compiled
def write_event(
    memory: Words, spec: Spec, inputs: Words, reals: Reals, row: int, record: int
) -> None:
    """Write an event into its record, without the state behind it."""
    plan, _, g, _ = spec
    memory[record + TS] = inputs[row + TS]
    memory[record + SEQ] = inputs[row + SEQ]
    memory[record + KEY] = inputs[row + KEY]
    memory[record + BITS] = _filtered(spec, inputs, reals, row)
    memory[record + SOURCE] = inputs[row + SESSION_COLUMN]
    at = plan[g + RUNS_AT + 2 * VALUES + 1]
    for _ in range(plan[g + RUNS_AT + 2 * VALUES]):
        memory[record + plan[at + 2]] = measure(inputs, reals, row, plan[at], plan[at + 1])
        at += 3


@compiled_apart
def step(both: Memory, spec: Spec, owner: int, base: int, first: int, index: int) -> None:
    """Compute the state behind one event of a key.

    Parameters
    ----------
    both, spec
        The memory, and what to do.
    owner
        The key.
    base, first, index
        Where the key's records begin, the number of the first of them, and which one to do.
    """
    memory, _ = both
    plan, _, g, group = spec
    record = base + index * plan[g + RECORD]
    before = record - plan[g + RECORD]
    state = plan[g + STATE]
    silence = memory[record + TS] - memory[before + TS]
    fresh = silence > memory[FORGET]
    _continue_session(memory, spec, owner, record, before, first + index)
    now, then = record + state, before + state
    if memory[record + TS] // HOUR_US == memory[before + TS] // HOUR_US:
        memory[now + HOURLY] = memory[then + HOURLY] + 1
    else:
        memory[now + HOURLY] = 1
    memory[now + LIFE] = first + index if fresh else memory[then + LIFE]
    slide(memory, spec, base, first, index)
    source = memory[group + BLANK] if fresh else before
    accumulate(memory, spec, source, record, first + index)
    _decay(both, spec, source, record, silence)
    _chain(memory, spec, base, first, index)
    _count_distinct(memory, spec, base, first, index)
    _link(memory, spec, base, first, record)
    _slide_peaks(memory, spec, base, first, index)


@compiled
def _continue_session(
    memory: Words, spec: Spec, owner: int, record: int, before: int, number: int
) -> None:
    """Decide whether an event begins a session, and note what follows from it."""
    plan, _, g, _ = spec
    silence = memory[record + TS] - memory[before + TS]
    follows = memory[before + TS] > NEVER and silence <= memory[FORGET]
    now, then = record + plan[g + STATE], before + plan[g + STATE]
    mine, theirs = memory[record + SOURCE], memory[before + SOURCE]
    sourced = mine != 0 and theirs != 0
    begins = mine != theirs if sourced else silence > memory[SESSION_GAP]
    begins = begins or not follows
    if plan[g + SESSIONED] != 0:
        bits = memory[record + BITS] & ~(SAME | BEGINS | FOLLOWS)
        bits |= (BEGINS if begins else SAME) | (FOLLOWS if follows else 0)
        memory[record + BITS] = bits
    if begins:
        memory[now + START] = memory[record + TS]
        memory[now + SESSION] = mix(owner, mine if mine != 0 else memory[record + TS])
        memory[now + FIRST] = number
    else:
        memory[now + START] = memory[then + START]
        memory[now + SESSION] = memory[then + SESSION]
        memory[now + FIRST] = memory[then + FIRST]
    if plan[g + SILENCE] >= 0:
        memory[record + plan[g + SILENCE]] = silence if follows else NULL


@compiled
def slide(memory: Words, spec: Spec, base: int, first: int, index: int) -> None:
    """Move each window's head to the first event that is later than its length before this one."""
    plan, _, g, _ = spec
    words = plan[g + RECORD]
    record = base + index * words
    heads = plan[g + STATE] + HEADS_AT
    at = plan[g + RUNS_AT + 2 * WINDOWS + 1]
    for window in range(plan[g + RUNS_AT + 2 * WINDOWS]):
        edge = memory[record + TS] - plan[at + window]
        head = max(memory[record - words + heads + window], first + 1)
        while memory[base + (head - first) * words + TS] <= edge:
            head += 1
        memory[record + heads + window] = head


@compiled
def accumulate(memory: Words, spec: Spec, before: int, record: int, number: int) -> None:
    """Carry counts, sums, latest values and peaks over from one state to the next.

    Values are read before it is known whether they count: choosing is cheaper than guessing.
    """
    plan, _, g, _ = spec
    bits = memory[record + BITS]
    begins = memory[record + plan[g + STATE] + FIRST] == number
    at = plan[g + RUNS_AT + 2 * COUNTING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * COUNTING]):
        word, mask = plan[at], plan[at + 1]
        count = 0 if begins and plan[at + 2] != 0 else memory[before + word]
        memory[record + word] = count + 1 if bits & mask == mask else count
        at += 3
    at = plan[g + RUNS_AT + 2 * SUMMING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * SUMMING]):
        word, mask = plan[at], plan[at + 1]
        total = 0 if begins and plan[at + 2] != 0 else memory[before + word]
        value = memory[record + plan[at + 3]]
        total += value if bits & mask == mask else 0
        memory[record + word] = min(max(total, -SUM_LIMIT), SUM_LIMIT)
        at += 4
    at = plan[g + RUNS_AT + 2 * LASTING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * LASTING]):
        word, mask = plan[at], plan[at + 1]
        latest = NULL if begins and plan[at + 2] != 0 else memory[before + word]
        value = memory[record + plan[at + 3]]
        memory[record + word] = value if bits & mask == mask else latest
        at += 4
    at = plan[g + RUNS_AT + 2 * PEAKING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * PEAKING]):
        word, mask = plan[at], plan[at + 1]
        peak = NULL if begins and plan[at + 2] != 0 else memory[before + word]
        value = memory[record + plan[at + 3]]
        value = NULL if value == NULL else plan[at + 4] * value
        memory[record + word] = max(peak, value) if bits & mask == mask else peak
        at += 5


@compiled
def _decay(both: Memory, spec: Spec, before: int, record: int, silence: int) -> None:
    """Let decayed levels fall for the time that passed, and add what the event brings."""
    memory, reals = both
    plan, units, g, _ = spec
    bits = memory[record + BITS]
    pace, fall = 0.0, 1.0
    at = plan[g + RUNS_AT + 2 * DECAYING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * DECAYING]):
        word, mask, value = plan[at], plan[at + 1], plan[at + 2]
        if units[at + 3] != pace:
            pace = units[at + 3]
            fall = math.exp(-pace * silence)
        level = reals[before + word] * fall
        if bits & mask == mask:
            level += 1.0 if value < 0 else float(memory[record + value])
        reals[record + word] = level
        at += 4


@compiled
def _chain(memory: Words, spec: Spec, base: int, first: int, index: int) -> None:
    """Note for each chain the number of the event before with the same value, or -1.

    One bit for each value seen tells of most new values that there is nothing to search.
    """
    plan, _, g, _ = spec
    record = base + index * plan[g + RECORD]
    before = record - plan[g + RECORD]
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        mask, value, horizon, seen = plan[at + 1], plan[at + 2], plan[at + 4], plan[at + 5]
        number = -1
        apart = memory[record + TS] - memory[before + TS] >= horizon
        bits = 0 if apart else memory[before + seen]
        if memory[record + BITS] & mask == mask:
            bit = 1 << ((memory[record + value] ^ memory[record + value] >> 32) & 63)
            if bits & bit != 0:
                number = _find_before(memory, spec, base, first, index, at)
            bits |= bit
        memory[record + plan[at]] = number
        memory[record + plan[at + 3]] = FOREVER
        memory[record + seen] = bits
        at += 6


@compiled_seldom
def _find_before(memory: Words, spec: Spec, base: int, first: int, index: int, at: int) -> int:
    """Give the number of the event before with the same value within a chain's horizon, or -1."""
    plan, _, g, _ = spec
    mask, value, words = plan[at + 1], plan[at + 2], plan[g + RECORD]
    record = base + index * words
    edge = memory[record + TS] - plan[at + 4]
    seen = record - words
    while seen > base and memory[seen + TS] > edge:
        same = memory[seen + value] == memory[record + value]
        if same and memory[seen + BITS] & mask == mask:
            return first + (seen - base) // words
        seen -= words
    return -1


@compiled
def _link(memory: Words, spec: Spec, base: int, first: int, record: int) -> None:
    """Tell the event before with the same value when it was seen again."""
    plan, _, g, _ = spec
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        number = memory[record + plan[at]]
        if number >= 0:
            seen = base + (number - first) * plan[g + RECORD]
            memory[seen + plan[at + 3]] = memory[record + TS]
        at += 6


@compiled
def _seen_again(memory: Words, spec: Spec, base: int, index: int, gone: int, at: int) -> bool:
    """Say whether a value that leaves a window stands between its event and this one."""
    plan, _, g, _ = spec
    words = plan[g + RECORD]
    record = base + index * words
    left = base + gone * words
    again = memory[left + plan[at + 4]]
    if again != memory[record + TS]:
        return again < memory[record + TS]
    # Events of one time: only the order tells whether the value was seen before this event.
    mask, value = plan[at + 1], plan[at + 2]
    for other in range(gone + 1, index):
        seen = base + other * words
        if memory[seen + value] == memory[left + value] and memory[seen + BITS] & mask == mask:
            return True
    return False


@compiled_seldom
def _recount(memory: Words, spec: Spec, base: int, start: int, low: int, high: int, at: int) -> int:
    """Count the different values among records ``low`` to ``high - 1``, the first numbered start.

    Needed where records have been let go that the state before still counts.
    """
    plan, _, g, _ = spec
    mask, number = plan[at + 1], plan[at + 3]
    count = 0
    for other in range(low, high):
        seen = base + other * plan[g + RECORD]
        if memory[seen + BITS] & mask == mask and memory[seen + number] < start:
            count += 1
    return count


@compiled
def _count_distinct(memory: Words, spec: Spec, base: int, first: int, index: int) -> None:
    """Count the different values of each window, or of the session, behind the event."""
    plan, _, g, _ = spec
    words = plan[g + RECORD]
    record = base + index * words
    before = record - words
    heads = plan[g + STATE] + HEADS_AT
    begins = memory[record + plan[g + STATE] + FIRST] == first + index
    at = plan[g + RUNS_AT + 2 * DISTINCTING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * DISTINCTING]):
        word, mask, window = plan[at], plan[at + 1], plan[at + 5]
        count = memory[before + word]
        if window < 0:
            count = 0 if begins else count
            start = memory[record + plan[g + STATE] + FIRST]
        else:
            start = memory[record + heads + window]
            gone = memory[before + heads + window] - first
            if gone < 1:
                count = _recount(memory, spec, base, start, start - first, index, at)
                gone = index
            while gone < min(start - first, index):
                leaves = memory[base + gone * words + BITS] & mask == mask
                if leaves and not _seen_again(memory, spec, base, index, gone, at):
                    count -= 1
                gone += 1
        if memory[record + BITS] & mask == mask and memory[record + plan[at + 3]] < start:
            count += 1
        memory[record + word] = count
        at += 6


@compiled
def _slide_peaks(memory: Words, spec: Spec, base: int, first: int, index: int) -> None:
    """Find the extreme of each window, searching it anew only when the extreme leaves."""
    plan, _, g, _ = spec
    words = plan[g + RECORD]
    record = base + index * words
    before = record - words
    heads = plan[g + STATE] + HEADS_AT
    at = plan[g + RUNS_AT + 2 * SLIDING_PEAKS + 1]
    for _ in range(plan[g + RUNS_AT + 2 * SLIDING_PEAKS]):
        mask, value, sign, window = plan[at + 1], plan[at + 2], plan[at + 3], plan[at + 4]
        peak = memory[before + plan[at]]
        start = memory[record + heads + window] - first
        gone = memory[before + heads + window] - first
        search = gone < 1
        while not search and gone < min(start, index):
            left = base + gone * words
            if memory[left + BITS] & mask == mask and sign * memory[left + value] == peak:
                search = True
            gone += 1
        if search:
            peak = NULL
        for other in range(start if search else index, index + 1):
            seen = base + other * words
            if memory[seen + BITS] & mask == mask:
                peak = max(peak, sign * memory[seen + value])
        memory[record + plan[at]] = peak
        at += 5
