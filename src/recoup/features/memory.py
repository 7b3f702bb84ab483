"""The memory of the fold: every key's events and state, in one int64 array that grows.

One array makes a call cheap (an array argument costs some 40 ns) and growth simple: words are
handed out by a bump pointer, blocks of records by power-of-two capacity, and a block that is given
back waits in the free list of its size. Python enlarges the array when a kernel says that it must.

A group's table is open-addressed; an entry is the head of its key, eight words in one cache line.
"""

from typing import Final

import numpy as np

from recoup.features.arena import room
from recoup.features.plan import KEY, SEQ, TS, Group
from recoup.features.pointers import Array, Words, as_words, compiled, compiled_apart

# Words of the memory itself.
BUMP, WATERMARK, LATENESS, SESSION_GAP, FORGET, BOUND, EPOCH, SIZE, GROUPS_AT = range(9)

# Words of a group, GROUP_WORDS apart from GROUPS_AT on.
TABLE, MASK, USED, BLANK, SCRATCH, RECORD_WORDS, SPARE, SPARE_WORDS, FREE_AT = range(9)
CLASSES: Final = 33
GROUP_WORDS: Final = FREE_AT + CLASSES

# Words of a key's entry. Numbers count a key's events for ever; FIRST_NUMBER is that of record 0,
# the one before the events that are kept.
HASH, BLOCK, CLASS, HEAD, COUNT, FIRST_NUMBER, TOUCHED, CHAIN = range(8)
ENTRY_WORDS: Final = 8

FIRST_ENTRIES: Final = 256
NEVER: Final = -(1 << 61)
"""The time of the record before a key's first event."""


def empty_memory(groups: tuple[Group, ...], settings: dict[int, int]) -> Array:
    """Make a memory without keys.

    Parameters
    ----------
    groups
        Whose records it will hold.
    settings
        Word of the memory -> value, for :data:`LATENESS` and its neighbours.
    """
    size = GROUPS_AT + GROUP_WORDS * len(groups)
    fixed = sum(2 * group.record + FIRST_ENTRIES * ENTRY_WORDS for group in groups)
    memory = np.zeros(2 * (size + fixed), np.int64)
    memory[WATERMARK] = NEVER
    for word, value in settings.items():
        memory[word] = value
    for number, group in enumerate(groups):
        at = GROUPS_AT + GROUP_WORDS * number
        memory[at + TABLE], memory[at + MASK] = size, FIRST_ENTRIES - 1
        size += FIRST_ENTRIES * ENTRY_WORDS
        memory[at + BLANK], memory[at + RECORD_WORDS] = size, group.record
        memory[size : size + group.record] = group.blank
        memory[at + SCRATCH] = size + group.record
        size += 2 * group.record
    memory[BUMP], memory[SIZE] = size, len(memory)
    return memory


def enlarge(memory: Array, least: int) -> Array:
    """Give a memory of at least so many words with the same contents.

    It gets far more addresses than it needs, so that it is seldom copied.
    """
    grown = room(least)
    used = int(memory[BUMP])
    grown[:used] = memory[:used]
    grown[SIZE] = len(grown)
    return grown


@compiled
def copy(memory: Words, source: int, target: int, size: int) -> None:
    """Copy words to a place that does not overlap them, or lies before them."""
    for word in range(size):
        memory[target + word] = memory[source + word]


@compiled
def copy_up(memory: Words, source: int, target: int, size: int) -> None:
    """Copy words to a place behind them that may overlap them."""
    for word in range(size - 1, -1, -1):
        memory[target + word] = memory[source + word]


@compiled
def slot(memory: Words, group: int, key: int) -> int:
    """Give the entry where the search for a key begins."""
    return memory[group + TABLE] + ((key ^ (key >> 32)) & memory[group + MASK]) * ENTRY_WORDS


@compiled
def find(memory: Words, group: int, key: int) -> int:
    """Give a key's entry, or the empty one where it would stand."""
    table, mask = memory[group + TABLE], memory[group + MASK]
    place = (key ^ (key >> 32)) & mask
    entry = table + place * ENTRY_WORDS
    while memory[entry + HASH] != 0 and memory[entry + HASH] != key:
        place = (place + 1) & mask
        entry = table + place * ENTRY_WORDS
    return entry


@compiled
def enter(memory: Words, group: int, key: int) -> int:
    """Give a key's entry, new if need be; the table must have room."""
    entry = find(memory, group, key)
    if memory[entry + HASH] == 0:
        memory[entry + HASH] = key
        memory[group + USED] += 1
    return entry


@compiled
def take_block(memory: Words, group: int, size_class: int) -> int:
    """Give a block for ``2**size_class`` records, or -1 where the memory must grow."""
    free = memory[group + FREE_AT + size_class]
    if free != 0:
        memory[group + FREE_AT + size_class] = memory[free]
        return free
    size = memory[group + RECORD_WORDS] << size_class
    block = memory[BUMP]
    if block + size > memory[SIZE]:
        return -1
    memory[BUMP] = block + size
    return block


@compiled
def give_block(memory: Words, group: int, block: int, size_class: int) -> None:
    """Put a block back for others of its size."""
    memory[block] = memory[group + FREE_AT + size_class]
    memory[group + FREE_AT + size_class] = block


@compiled_apart
def reserve(memory: Words, group: int, entry: int) -> bool:
    """Make room for one more record of a key; False, and nothing changed, if memory must grow."""
    record, count = memory[group + RECORD_WORDS], memory[entry + COUNT]
    if count == 0:
        return open_block(memory, group, entry, 1)
    size_class, head = memory[entry + CLASS], memory[entry + HEAD]
    if head + count < 1 << size_class:
        return True
    old = memory[entry + BLOCK]
    if head >= count:
        copy(memory, old + head * record, old, count * record)
        memory[entry + HEAD] = 0
        return True
    block = take_block(memory, group, size_class + 1)
    if block < 0:
        return False
    copy(memory, old + head * record, block, count * record)
    give_block(memory, group, old, size_class)
    memory[entry + BLOCK], memory[entry + CLASS], memory[entry + HEAD] = block, size_class + 1, 0
    return True


@compiled
def open_block(memory: Words, group: int, entry: int, size_class: int) -> bool:
    """Give a key without records a block, with the blank record in it."""
    block = take_block(memory, group, size_class)
    if block < 0:
        return False
    copy(memory, memory[group + BLANK], block, memory[group + RECORD_WORDS])
    memory[entry + BLOCK], memory[entry + CLASS], memory[entry + HEAD] = block, size_class, 0
    memory[entry + COUNT], memory[entry + FIRST_NUMBER] = 1, 0
    return True


@compiled
def trim(memory: Words, group: int, entry: int, horizon: int) -> None:
    """Let go of the records that no event still to come can need: those before ``horizon``."""
    record, base = memory[group + RECORD_WORDS], records(memory, group, entry)
    dropped, count = 0, memory[entry + COUNT]
    while dropped + 1 < count and memory[base + (dropped + 1) * record + TS] < horizon:
        dropped += 1
    memory[entry + HEAD] += dropped
    memory[entry + COUNT] -= dropped
    memory[entry + FIRST_NUMBER] += dropped


@compiled
def records(memory: Words, group: int, entry: int) -> int:
    """Give where a key's records begin."""
    return memory[entry + BLOCK] + memory[entry + HEAD] * memory[group + RECORD_WORDS]


@compiled_apart
def rebuild(state: Array, group: int, mask: int, oldest: int) -> bool:
    """Move the table to one of ``mask + 1`` entries, without keys whose last event is too old.

    False, and nothing changed, if the memory must grow first.

    Parameters
    ----------
    state
        The whole memory.
    oldest
        Keys whose last event lies before this time are forgotten.
    """
    memory = as_words(state)
    size = (mask + 1) * ENTRY_WORDS
    spare = memory[group + SPARE_WORDS] == size
    table = memory[group + SPARE] if spare else memory[BUMP]
    if not spare:
        if table + size > memory[SIZE]:
            return False
        carve(memory, group, memory[group + SPARE], memory[group + SPARE_WORDS])
        memory[BUMP] = table + size
    for word in range(table, table + size):
        memory[word] = 0
    old, entries = memory[group + TABLE], memory[group + MASK] + 1
    memory[group + TABLE], memory[group + MASK], memory[group + USED] = table, mask, 0
    record = memory[group + RECORD_WORDS]
    for number in range(entries):
        entry = old + number * ENTRY_WORDS
        if memory[entry + HASH] == 0 or memory[entry + COUNT] == 0:
            continue
        tail = records(memory, group, entry) + (memory[entry + COUNT] - 1) * record
        if memory[tail + TS] < oldest:
            give_block(memory, group, memory[entry + BLOCK], memory[entry + CLASS])
            continue
        copy(memory, entry, enter(memory, group, memory[entry + HASH]), ENTRY_WORDS)
    # The next sweep needs a table of this size again.
    memory[group + SPARE], memory[group + SPARE_WORDS] = old, entries * ENTRY_WORDS
    return True


@compiled
def carve(memory: Words, group: int, start: int, room: int) -> None:
    """Turn words that are no longer used into free blocks."""
    record, size_class = memory[group + RECORD_WORDS], 4
    while size_class >= 1:
        size = record << size_class
        while room >= size:
            give_block(memory, group, start, size_class)
            start += size
            room -= size
        size_class -= 1


@compiled
def precedes(memory: Words, record: int, ts: int, seq: int, key: int) -> bool:
    """Say whether a record stands before an event in the order of events."""
    if memory[record + TS] != ts:
        return memory[record + TS] < ts
    if memory[record + SEQ] != seq:
        return memory[record + SEQ] < seq
    return memory[record + KEY] < key
