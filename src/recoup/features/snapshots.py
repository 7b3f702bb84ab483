"""The state of a feature store as bytes: whole, and in parts that follow its changes.

What is kept of a key is its events and the record before them; the states behind the events follow
from these by the step of the fold, and are computed anew on restoring. Record 0 is brought into a
form that depends on the events alone, so that equal histories give equal bytes.

In parts, each call saves one delta (the keys touched since the call before) and one of
:data:`SHARDS` shards in turn (all its keys), and drops the delta that is older than every shard:
what is written per call is bounded by the changes and the state divided by the number of shards.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.features.fold import step
from recoup.features.memory import (
    BLOCK,
    BUMP,
    CLASS,
    COUNT,
    ENTRY_WORDS,
    EPOCH,
    FIRST_NUMBER,
    GROUP_WORDS,
    GROUPS_AT,
    HASH,
    LATENESS,
    MASK,
    TABLE,
    TOUCHED,
    USED,
    WATERMARK,
    enlarge,
    enter,
    find,
    give_block,
    open_block,
    rebuild,
    records,
    trim,
)
from recoup.features.plan import (
    CHAINING,
    DISTINCTING,
    FIRST,
    HEADS_AT,
    LIFE,
    PLAN_OFFSETS,
    RECORD,
    RETENTION,
    RUNS_AT,
    SAVED,
    SLIDING_PEAKS,
    STATE,
    TILE,
    WINDOWS,
    Plan,
)
from recoup.features.pointers import Array, Words, as_reals, as_words, compiled, compiled_apart
from recoup.features.tiles import step_tile
from recoup.state import Changes

VERSION: Final = 2
SHARDS: Final = 64


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What bytes must agree with to be restored: the definition's hash, and the settings."""

    hash: str
    settings: tuple[int, ...]


class Progress(msgspec.Struct, frozen=True):
    """How many calls have saved changes, and up to which epoch of the memory."""

    calls: int = 0
    epoch: int = 0


class _Keys(msgspec.Struct, frozen=True, array_like=True):
    """One group's keys: hashes (m,), numbers of records (m,), and the words of the records."""

    keys: bytes
    counts: bytes
    words: bytes


class _Part(msgspec.Struct, frozen=True, array_like=True):
    version: int
    identity: Identity
    call: int
    watermark: int
    groups: tuple[_Keys, ...]


def dump(memory: Array, plan: Plan, identity: Identity) -> bytes:
    """Write every key."""
    return _encode(memory, plan, identity, 0, since=0, shard=-1)


def changes(
    memory: Array, plan: Plan, identity: Identity, done: Progress
) -> tuple[Changes, Progress]:
    """Write the keys touched since the last call, and one shard."""
    call, epoch = done.calls + 1, int(memory[EPOCH])
    memory[EPOCH] = epoch + 1
    shard = call % SHARDS
    saved = {
        _delta(call): _encode(memory, plan, identity, call, since=done.epoch + 1, shard=-1),
        f"shard-{shard:02d}": _encode(memory, plan, identity, call, since=0, shard=shard),
    }
    dropped = (_delta(call - SHARDS),) if call > SHARDS else ()
    return Changes(saved, dropped), Progress(call, epoch)


def load(
    memory: Array, plan: Plan, identity: Identity, parts: Mapping[str, bytes]
) -> tuple[Array, Progress]:
    """Fill an empty memory from parts; give it, enlarged, and how far the calls had come."""
    read = {name: _decode(state, identity) for name, state in parts.items()}
    shards = np.full(SHARDS, -1, np.int64)
    for name, part in read.items():
        if name.startswith("shard-"):
            shards[int(name.removeprefix("shard-"))] = part.call
    in_order = sorted(read.items(), key=lambda item: (item[1].call, item[0]))
    for name, part in in_order:
        memory[WATERMARK] = max(int(memory[WATERMARK]), part.watermark)
        known = (shards >= part.call).astype(np.int64) * (not name.startswith("shard-"))
        for number, keys in enumerate(part.groups):
            memory = _load_group(memory, plan, number, keys, known)
    calls = max((part.call for part in read.values()), default=0)
    epoch = int(memory[EPOCH])
    memory[EPOCH] = epoch + 1
    return memory, Progress(calls, epoch)


def _delta(call: int) -> str:
    return f"delta-{call:012d}"


def _encode(
    memory: Array, plan: Plan, identity: Identity, call: int, *, since: int, shard: int
) -> bytes:
    groups = tuple(
        _dump_group(memory, plan, number, since, shard) for number in range(len(plan.groups))
    )
    part = _Part(VERSION, identity, call, int(memory[WATERMARK]), groups)
    return msgspec.msgpack.encode(part)


def _decode(state: bytes, identity: Identity) -> _Part:
    try:
        part = msgspec.msgpack.decode(state, type=_Part)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"Expected a snapshot of features, got {error}") from error
    if part.version != VERSION or part.identity != identity:
        raise SnapshotError(
            f"Expected version {VERSION} of {identity}, got version {part.version} of "
            f"{part.identity}",
            hint="restore with the feature set and settings that the snapshot was taken with",
        )
    return part


def _dump_group(memory: Array, plan: Plan, number: int, since: int, shard: int) -> _Keys:
    g, group = int(plan.table[PLAN_OFFSETS + number]), GROUPS_AT + GROUP_WORDS * number
    keys = np.empty(int(memory[group + USED]), np.int64)
    found = _list_keys(memory, plan.table, g, group, since, shard, keys)
    keys = np.sort(keys[:found])
    counts = np.empty(found, np.int64)
    size = _measure(memory, plan.table, g, group, keys, counts)
    words = np.empty(size, np.int64)
    _write(memory, plan.table, g, group, keys, words)
    return _Keys(keys.tobytes(), counts.tobytes(), words.tobytes())


def _load_group(memory: Array, plan: Plan, number: int, saved: _Keys, known: Array) -> Array:
    g, group = int(plan.table[PLAN_OFFSETS + number]), GROUPS_AT + GROUP_WORDS * number
    keys, counts = np.frombuffer(saved.keys, np.int64), np.frombuffer(saved.counts, np.int64)
    words = np.frombuffer(saved.words, np.int64)
    record = int(plan.table[g + RECORD])
    mask = int(memory[group + MASK])
    while mask + 1 < 2 * (int(memory[group + USED]) + len(keys)) + 2:
        mask = 2 * mask + 1
    blocks = record * int(np.sum(2 ** _classes(counts)))
    needed = int(memory[BUMP]) + blocks + (mask + 1) * ENTRY_WORDS
    if needed > len(memory):
        memory = enlarge(memory, needed)
    if mask > memory[group + MASK]:
        assert rebuild(memory, group, mask, -(1 << 62))  # noqa: S101
    _read(memory, plan.table, g, group, keys, counts, words, known)
    return memory


def _classes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ceil(np.log2(np.maximum(counts, 2))).astype(np.int64)


@compiled
def _shard(key: int) -> int:
    return (key ^ (key >> 17)) & (SHARDS - 1)


@compiled_apart
def _list_keys(
    state: Array, table: Array, g: int, group: int, since: int, shard: int, keys: Array
) -> int:
    """List the keys touched since an epoch, of one shard or of all; trim each by the watermark."""
    memory, plan = as_words(state), as_words(table)
    horizon = memory[WATERMARK] - memory[LATENESS] - plan[g + RETENTION]
    found = 0
    for number in range(memory[group + MASK] + 1):
        entry = memory[group + TABLE] + number * ENTRY_WORDS
        if memory[entry + HASH] == 0 or memory[entry + COUNT] == 0:
            continue
        if memory[entry + TOUCHED] < since:
            continue
        if shard >= 0 and _shard(memory[entry + HASH]) != shard:
            continue
        trim(memory, group, entry, horizon)
        keys[found] = memory[entry + HASH]
        found += 1
    return found


@compiled_apart
def _measure(state: Array, table: Array, g: int, group: int, keys: Array, counts: Array) -> int:
    memory, plan = as_words(state), as_words(table)
    size = 0
    for place in range(len(keys)):
        counts[place] = memory[find(memory, group, keys[place]) + COUNT]
        size += plan[g + RECORD] + (counts[place] - 1) * plan[g + SAVED]
    return size


@compiled_apart
def _write(state: Array, table: Array, g: int, group: int, keys: Array, words: Array) -> None:
    """Write each key's record 0 whole and in its canonical form, and its events."""
    memory, plan = as_words(state), as_words(table)
    record, saved = plan[g + RECORD], plan[g + SAVED]
    at = 0
    for place in range(len(keys)):
        entry = find(memory, group, keys[place])
        base = records(memory, group, entry)
        for word in range(record):
            words[at + word] = memory[base + word]
        _canonical(plan, g, words, at)
        at += record
        for index in range(1, memory[entry + COUNT]):
            for word in range(saved):
                words[at + word] = memory[base + index * record + word]
            at += saved


@compiled
def _canonical(plan: Words, g: int, words: Words, base: int) -> None:
    """Clear what nobody reads of a record 0: numbers, links, and the contents of its windows."""
    state = plan[g + STATE]
    words[base + state + FIRST] = 0
    words[base + state + LIFE] = 0
    chains = plan[g + RUNS_AT + 2 * CHAINING]
    heads = base + state + HEADS_AT
    for word in range(plan[g + RUNS_AT + 2 * WINDOWS] + 2 * chains):
        words[heads + word] = 0
    for word in range(chains):
        words[base + plan[g + SAVED] + word] = 0
    at = plan[g + RUNS_AT + 2 * DISTINCTING + 1]
    for _ in range(plan[g + RUNS_AT + 2 * DISTINCTING]):
        if plan[at + 5] >= 0:
            words[base + plan[at]] = 0
        at += 6
    at = plan[g + RUNS_AT + 2 * SLIDING_PEAKS + 1]
    for _ in range(plan[g + RUNS_AT + 2 * SLIDING_PEAKS]):
        words[base + plan[at]] = 0
        at += 5


@compiled_apart
def _read(
    whole: Array,
    table: Array,
    g: int,
    group: int,
    keys: Array,
    counts: Array,
    words: Array,
    known: Array,
) -> None:
    """Put keys in, each in place of what is there, except where its shard is of later."""
    both, spec = (as_words(whole), as_reals(whole)), (as_words(table), as_reals(table), g, group)
    memory, plan = as_words(whole), as_words(table)
    record, saved = plan[g + RECORD], plan[g + SAVED]
    at = 0
    for place in range(len(keys)):
        size = record + (counts[place] - 1) * saved
        if known[_shard(keys[place])] != 0:
            at += size
            continue
        entry = enter(memory, group, keys[place])
        if memory[entry + COUNT] > 0:
            give_block(memory, group, memory[entry + BLOCK], memory[entry + CLASS])
        size_class = 1
        while 1 << size_class < counts[place]:
            size_class += 1
        opened = open_block(memory, group, entry, size_class)
        assert opened  # noqa: S101
        base = memory[entry + BLOCK]
        memory[entry + COUNT], memory[entry + TOUCHED] = counts[place], memory[EPOCH]
        memory[entry + FIRST_NUMBER] = 0
        for word in range(record):
            memory[base + word] = words[at + word]
        at += record
        for index in range(1, counts[place]):
            for word in range(saved):
                memory[base + index * record + word] = words[at + word]
            for word in range(saved, record):
                memory[base + index * record + word] = 0
            at += saved
            if plan[g + TILE] == 0:
                step(both, spec, keys[place], base, 0, index)
            else:
                step_tile(memory, spec, base, 0, index)
