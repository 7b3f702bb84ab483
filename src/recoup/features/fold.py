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
from recoup.features.pointers import Reals, Words, compiled

Fold = tuple[Words, Reals, Words, Reals]
"""The memory and the plan, each as words and as reals."""

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
def _filtered(plan: Words, g: int, inputs: Words, reals: Reals, row: int) -> int:
    """Give the bits of the filters that an event passes."""
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
    memory: Words,
    plan: Words,
    g: int,
    inputs: Words,
    reals: Reals,
    row: int,
    record: int,
) -> None:
    """Write an event into its record, without the state behind it."""
    memory[record + TS] = inputs[row + TS]
    memory[record + SEQ] = inputs[row + SEQ]
    memory[record + KEY] = inputs[row + KEY]
    memory[record + BITS] = _filtered(plan, g, inputs, reals, row)
    memory[record + SOURCE] = inputs[row + SESSION_COLUMN]
    at = plan[g + RUNS_AT + 2 * VALUES + 1]
    for _ in range(plan[g + RUNS_AT + 2 * VALUES]):
        memory[record + plan[at + 2]] = measure(inputs, reals, row, plan[at], plan[at + 1])
        at += 3


@compiled
def step(fold: Fold, g: int, group: int, owner: int, base: int, first: int, index: int) -> None:
    """Compute the state behind one event of a key.

    Parameters
    ----------
    fold
        The memory and the plan, each as words and as reals.
    g, group
        Where the group begins in the plan, and in the memory.
    owner
        The key.
    base, first, index
        Where the key's records begin, the number of the first of them, and which one to do.
    """
    memory, reals, plan, units = fold
    record = base + index * plan[g + RECORD]
    before = record - plan[g + RECORD]
    state = plan[g + STATE]
    silence = memory[record + TS] - memory[before + TS]
    fresh = silence > memory[FORGET]
    _continue_session(memory, plan, g, owner, record, before, first + index)
    now, then = record + state, before + state
    if memory[record + TS] // HOUR_US == memory[before + TS] // HOUR_US:
        memory[now + HOURLY] = memory[then + HOURLY] + 1
    else:
        memory[now + HOURLY] = 1
    memory[now + LIFE] = first + index if fresh else memory[then + LIFE]
    slide(memory, plan, g, base, first, index)
    source = memory[group + BLANK] if fresh else before
    accumulate(memory, plan, g, source, record, first + index)
    _decay(memory, reals, plan, units, g, source, record, silence)
    _chain(memory, plan, g, base, first, index)
    _count_distinct(memory, plan, g, base, first, index)
    _link(memory, plan, g, base, first, record)
    _slide_peaks(memory, plan, g, base, first, index)


@compiled
def _continue_session(
    memory: Words, plan: Words, g: int, owner: int, record: int, before: int, number: int
) -> None:
    """Decide whether an event begins a session, and note what follows from it."""
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
def slide(memory: Words, plan: Words, g: int, base: int, first: int, index: int) -> None:
    """Move each window's head to the first event that is later than its length before this one."""
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
def accumulate(memory: Words, plan: Words, g: int, before: int, record: int, number: int) -> None:
    """Carry counts, sums, latest values and peaks over from one state to the next.

    Values are read before it is known whether they count: choosing is cheaper than guessing.
    """
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
def _decay(
    memory: Words,
    reals: Reals,
    plan: Words,
    units: Reals,
    g: int,
    before: int,
    record: int,
    silence: int,
) -> None:
    """Let decayed levels fall for the time that passed, and add what the event brings."""
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
def _chain(memory: Words, plan: Words, g: int, base: int, first: int, index: int) -> None:
    """Note for each chain the number of the event before with the same value, or -1."""
    words = plan[g + RECORD]
    record = base + index * words
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        mask, value = plan[at + 1], plan[at + 2]
        memory[record + plan[at]] = -1
        memory[record + plan[at + 3]] = FOREVER
        if memory[record + BITS] & mask == mask:
            edge = memory[record + TS] - plan[at + 4]
            other = index - 1
            seen = record - words
            while other >= 1 and memory[seen + TS] > edge:
                same = memory[seen + value] == memory[record + value]
                if same and memory[seen + BITS] & mask == mask:
                    memory[record + plan[at]] = first + other
                    break
                other -= 1
                seen -= words
        at += 5


@compiled
def _link(memory: Words, plan: Words, g: int, base: int, first: int, record: int) -> None:
    """Tell the event before with the same value when it was seen again."""
    at = plan[g + RUNS_AT + 2 * CHAINING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * CHAINING]):
        number = memory[record + plan[at]]
        if number >= 0:
            seen = base + (number - first) * plan[g + RECORD]
            memory[seen + plan[at + 3]] = memory[record + TS]
        at += 5


@compiled
def _seen_again(
    memory: Words, plan: Words, g: int, base: int, index: int, gone: int, at: int
) -> bool:
    """Say whether a value that leaves a window stands between its event and this one."""
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


@compiled
def _recount(
    memory: Words, plan: Words, g: int, base: int, start: int, low: int, high: int, at: int
) -> int:
    """Count the different values among records ``low`` to ``high - 1``, the first numbered start.

    Needed where records have been let go that the state before still counts.
    """
    mask, number = plan[at + 1], plan[at + 3]
    count = 0
    for other in range(low, high):
        seen = base + other * plan[g + RECORD]
        if memory[seen + BITS] & mask == mask and memory[seen + number] < start:
            count += 1
    return count


@compiled
def _count_distinct(memory: Words, plan: Words, g: int, base: int, first: int, index: int) -> None:
    """Count the different values of each window, or of the session, behind the event."""
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
                count = _recount(memory, plan, g, base, start, start - first, index, at)
                gone = index
            while gone < min(start - first, index):
                leaves = memory[base + gone * words + BITS] & mask == mask
                if leaves and not _seen_again(memory, plan, g, base, index, gone, at):
                    count -= 1
                gone += 1
        if memory[record + BITS] & mask == mask and memory[record + plan[at + 3]] < start:
            count += 1
        memory[record + word] = count
        at += 6


@compiled
def _slide_peaks(memory: Words, plan: Words, g: int, base: int, first: int, index: int) -> None:
    """Find the extreme of each window, searching it anew only when the extreme leaves."""
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
