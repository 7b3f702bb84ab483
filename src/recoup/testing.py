"""What every stage, journal and key-value store must pass, and small parts to test hosts with.

A new stage, policy, detector, store or runner passes the ``check_*`` functions here before its own
tests. Each raises AssertionError with what differed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SnapshotError
from recoup.events import (
    DEAD_LETTER_SCHEMA,
    EVENT_SCHEMA,
    ITEM_SCHEMA,
    MICROS,
    TIMESTAMP,
    EventBatch,
    conform,
    hash64,
    take,
)
from recoup.state import Journal, KeyValue, Stage

Input = TypeVar("Input")
Output = TypeVar("Output")

SPLIT_SIZES: Final = (1, 3, 64)


def check_stage(
    make: Callable[[], Stage[Input, Output]],
    batches: Sequence[Input],
    *,
    split: Callable[[Input, int], Sequence[Input]] | None = None,
    join: Callable[[Sequence[Output]], object] | None = None,
    sizes: Sequence[int] = SPLIT_SIZES,
) -> None:
    """Check that a stage is a deterministic fold whose snapshots carry all of its state.

    Parameters
    ----------
    make
        Makes a fresh stage.
    batches
        At least two inputs, in the order to fold them.
    split, join
        Where the stage claims that the size of its batches changes nothing: cut an input into
        smaller ones, and put outputs together into what must then be equal.
    sizes
        Sizes to cut into.
    """
    assert len(batches) > 1, "expected at least two batches to fold"  # noqa: S101
    whole = make()
    outputs = [whole.step(batch) for batch in batches]
    _check_repeatable(make(), batches, outputs, whole.snapshot())
    _check_restorable(make, batches, outputs, whole.snapshot())
    _check_refusal(make())
    if split and join:
        for size in sizes:
            stage = make()
            parts = [stage.step(part) for batch in batches for part in split(batch, size)]
            _same(f"outputs in batches of {size}", join(parts), join(outputs))
            _same(f"state after batches of {size}", stage.snapshot(), whole.snapshot())


def _check_repeatable(
    stage: Stage[Input, Output], batches: Sequence[Input], outputs: list[Output], state: bytes
) -> None:
    again = []
    for batch in batches:
        stage.snapshot()
        again.append(stage.step(batch))
    _same("outputs of a second run, with snapshots taken between", again, outputs)
    _same("state of a second run", stage.snapshot(), state)


def _check_restorable(
    make: Callable[[], Stage[Input, Output]],
    batches: Sequence[Input],
    outputs: list[Output],
    state: bytes,
) -> None:
    first = make()
    for cut, batch in enumerate(batches):
        second = make()
        second.restore(first.snapshot())
        _same(f"state restored before batch {cut}", second.snapshot(), first.snapshot())
        rest = [second.step(later) for later in batches[cut:]]
        _same(f"outputs after a restore before batch {cut}", rest, outputs[cut:])
        _same(f"state after a restore before batch {cut}", second.snapshot(), state)
        first.step(batch)


def _check_refusal(stage: Stage[Input, Output]) -> None:
    for nonsense in (b"", b"nonsense", b"\x00" * 64):
        try:
            stage.restore(nonsense)
        except SnapshotError:
            continue
        raise AssertionError(f"expected SnapshotError for the state {nonsense!r}, got none")


def check_journal(
    make: Callable[[], Journal], *, reopen: Callable[[], Journal] | None = None
) -> None:
    """Check that a journal keeps its protocol.

    Parameters
    ----------
    make
        Makes an empty journal.
    reopen
        Opens the same journal again after it was closed, where it outlives its process.
    """
    journal = make()
    frames = [random_batch(20, seed=seed).events for seed in range(3)]
    _check_empty(journal)
    _check_append(journal, frames)
    _check_rollback(journal, frames)
    _check_states(journal)
    _check_contents(journal, frames)
    journal.close()
    if reopen:
        again = reopen()
        _check_contents(again, frames)
        again.close()


def _check_empty(journal: Journal) -> None:
    _same("an empty journal", list(journal.read()), [])
    _same("an unknown stage", journal.load_state("nobody"), (0, {}))
    _same("an unknown position", journal.position("nobody"), None)


def _check_append(journal: Journal, frames: list[pl.DataFrame]) -> None:
    with journal.transaction() as transaction:
        offsets = [transaction.append("events", frames[0])]
        offsets.append(transaction.append("decisions", frames[1]))
        _same("an open transaction, as readers see it", list(journal.read()), [])
    with journal.transaction() as transaction:
        offsets.append(transaction.append("events", frames[2]))
    _same("offsets", offsets, [1, 2, 3])


def _check_rollback(journal: Journal, frames: list[pl.DataFrame]) -> None:
    with contextlib.suppress(ZeroDivisionError), journal.transaction() as transaction:
        transaction.append("events", frames[0])
        transaction.save_state("stage", "part", b"lost")
        transaction.save_position("source", str(1 // 0))
    _same("offsets after a rollback", [r.offset for r in journal.read()], [1, 2, 3])
    _same("state after a rollback", journal.load_state("stage"), (0, {}))
    _same("position after a rollback", journal.position("source"), None)


def _check_states(journal: Journal) -> None:
    with journal.transaction() as transaction:
        transaction.save_state("stage", "a", b"1")
        transaction.save_state("stage", "b", b"2")
        transaction.save_state("stage", "c", b"3")
        transaction.save_state("other", "a", b"")
        transaction.save_position("source", "row 3")
    with journal.transaction() as transaction:
        transaction.save_state("stage", "b", b"changed")
        transaction.drop_state("stage", "c")
        transaction.drop_state("stage", "absent")
        transaction.save_position("source", "row 4")


def _check_contents(journal: Journal, frames: list[pl.DataFrame]) -> None:
    records = list(journal.read())
    _same("kinds", [r.kind for r in records], ["events", "decisions", "events"])
    _same("frames", [r.frame for r in records], frames)
    _same("schemas", [r.frame.schema for r in records], [f.schema for f in frames])
    _same("reading on", [r.offset for r in journal.read(2)], [3])
    _same("reading one kind", [r.offset for r in journal.read(kind="events")], [1, 3])
    _same("reading one kind on", [r.offset for r in journal.read(1, kind="events")], [3])
    _same("state", journal.load_state("stage"), (3, {"a": b"1", "b": b"changed"}))
    _same("empty state", journal.load_state("other"), (3, {"a": b""}))
    _same("position", journal.position("source"), "row 4")


def check_keyvalue(make: Callable[[], KeyValue]) -> None:
    """Check that a key-value store keeps its protocol.

    Parameters
    ----------
    make
        Makes an empty store.
    """
    store = make()
    _same("an absent key", store.get(b"a"), None)
    store.delete(b"a")
    pairs = {
        bytes([first, second]): bytes([second]) * 3 for first in (0, 97, 255) for second in (0, 255)
    }
    for key, value in reversed(pairs.items()):
        store.put(key, b"old")
        store.put(key, value)
    store.put(b"a", b"")
    _same("an empty value", store.get(b"a"), b"")
    _same("a value", store.get(b"a\xff"), b"\xff" * 3)
    _same("all pairs", list(store.scan()), sorted([*pairs.items(), (b"a", b"")]))
    _same("a prefix", [key for key, _ in store.scan(b"a")], [b"a", b"a\x00", b"a\xff"])
    _same("the last prefix", [key for key, _ in store.scan(b"\xff")], [b"\xff\x00", b"\xff\xff"])
    _same("no such prefix", list(store.scan(b"b")), [])
    store.delete(b"a")
    _same("a deleted key", store.get(b"a"), None)
    _same("pairs after a delete", dict(store.scan()), pairs)


def _same(what: str, got: object, expected: object) -> None:
    """Raise unless two values are equal bit for bit, frames and arrays among them."""
    if not _equal(got, expected):
        raise AssertionError(f"{what}: expected {expected!r}, got {got!r}")


def _equal(one: object, two: object) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, msgspec.Struct | Mapping | list | tuple):
        parts, others = _parts(one), _parts(two)
        return len(parts) == len(others) and all(map(_equal, parts, others))
    if isinstance(one, pl.DataFrame) and isinstance(two, pl.DataFrame):
        return one.schema == two.schema and one.equals(two) and _signs(one) == _signs(two)
    return _leaf(one) == _leaf(two)


def _parts(value: object) -> list[object]:
    if isinstance(value, msgspec.Struct):
        fields = [name for name in value.__struct_fields__ if not name.startswith("_")]
        return [getattr(value, name) for name in fields]
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple) else []


def _signs(frame: pl.DataFrame) -> list[bytes]:
    """Give the signs of all floats, in which 0.0 and -0.0 differ though they compare equal."""
    floats = frame.select(pl.selectors.float())
    return [np.signbit(column.to_numpy()).tobytes() for column in floats]


def _leaf(value: object) -> object:
    """Give what two equal values share, down to the bits of a float."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return value.hex() if isinstance(value, float) else value


def split_batch(batch: EventBatch, size: int) -> list[EventBatch]:
    """Cut a batch into ones of at most ``size`` events."""
    rows = np.arange(len(batch))
    return [take(batch, rows[start : start + size]) for start in range(0, len(batch), size)]


def random_batch(count: int, *, seed: int, visitors: int = 20, start_s: int = 0) -> EventBatch:
    """Make a small shop's events for tests: seeded, roughly in order, with item lines.

    Parameters
    ----------
    count
        Events.
    seed
        Of everything random; also part of the events' ids.
    visitors
        Distinct visitors.
    start_s
        First time, in seconds since 2026-01-01 UTC.

    Examples
    --------
    >>> batch = random_batch(100, seed=1)
    >>> len(batch), batch.events["visitor"].n_unique()
    (100, 20)
    """
    random = np.random.Generator(np.random.PCG64(seed))
    steps = random.exponential(2.0, count).cumsum() + random.normal(0.0, 3.0, count)
    times = ((1_767_225_600 + start_s + steps) * MICROS).astype(np.int64)
    names = ["page_view", "view_item", "add_to_cart", "begin_checkout", "purchase", "refund"]
    name = random.choice(names, count, p=[0.4, 0.3, 0.15, 0.08, 0.05, 0.02])
    money = np.isin(name, ["purchase", "refund"])
    frame = pl.DataFrame(
        {
            "ts": pl.Series(times).cast(TIMESTAMP),
            "source": "test",
            "id": [f"{seed}-{row}" for row in range(count)],
            "seq": 0,
            "event": name,
            "visitor": [f"visitor-{row}" for row in random.integers(0, visitors, count)],
            "value": pl.Series(random.integers(1, 200, count) * MICROS).set(
                pl.Series(~money), None
            ),
            "latency_ms": random.exponential(100.0, count),
        }
    )
    items = pl.DataFrame(
        {
            "event": np.flatnonzero(name == "view_item").astype(np.uint32),
            "role": "subject",
            "item": [f"item-{row}" for row in random.integers(0, 9, np.sum(name == "view_item"))],
        }
    )
    return EventBatch(conform(frame, EVENT_SCHEMA), conform(items, ITEM_SCHEMA))


class ListArrival(msgspec.Struct, frozen=True):
    """A batch as a source gives it."""

    batch: EventBatch
    dead_letters: pl.DataFrame
    findings: tuple[Finding, ...]
    position: str


class ListFeed:
    """A source that holds its batches; its position is the number of those given.

    Examples
    --------
    >>> feed = ListFeed([random_batch(10, seed=1), random_batch(20, seed=2)])
    >>> [len(arrival.batch) for arrival in feed.batches("1")]
    [20]
    """

    name = "list"

    def __init__(self, batches: Sequence[EventBatch]) -> None:
        self._batches = batches

    def batches(self, position: str | None, /) -> Iterator[ListArrival]:
        """Read on behind a position, or from the start."""
        none = pl.DataFrame(schema=DEAD_LETTER_SCHEMA)
        for number in range(int(position or 0), len(self._batches)):
            yield ListArrival(self._batches[number], none, (), str(number + 1))


class CountingHost:
    """A host for tests: per visitor it counts events, and sums their value and latency.

    Every fourth event of a visitor gives a row of kind ``counts``. The state has four parts, each
    of some visitors, so that an incremental snapshot has something to skip; the sum of latencies
    is a float, which an event folded twice or out of order would change.

    Examples
    --------
    >>> host = CountingHost()
    >>> host.step(random_batch(100, seed=1))["counts"].columns
    ['visitor', 'events', 'value', 'latency_ms']
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[int, int, float]] = {}

    def step(self, batch: EventBatch, /) -> dict[str, pl.DataFrame]:
        """Fold a batch, and give the frames to journal, by kind."""
        rows = []
        for visitor, value, latency in batch.events.select(
            "visitor", pl.col("value").fill_null(0), pl.col("latency_ms").fill_null(0.0)
        ).iter_rows():
            count, money, time = self._sums.get(visitor, (0, 0, 0.0))
            self._sums[visitor] = count + 1, money + value, time + latency
            if count % 4 == 3:  # noqa: PLR2004
                rows.append((visitor, *self._sums[visitor]))
        return {"counts": pl.DataFrame(rows, _COUNTS, orient="row")}

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts."""
        parts: dict[str, dict[str, tuple[int, int, float]]] = {}
        for visitor in sorted(self._sums):
            part = f"part-{hash64(visitor) % 4}"
            parts.setdefault(part, {})[visitor] = self._sums[visitor]
        return {part: msgspec.msgpack.encode(sums) for part, sums in parts.items()}

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        """Take up the state that :meth:`snapshot` gave."""
        self._sums = {}
        for state in parts.values():
            self._sums |= msgspec.msgpack.decode(state, type=dict[str, tuple[int, int, float]])


_COUNTS: Final = pl.Schema(
    {"visitor": pl.String, "events": pl.Int64, "value": pl.Int64, "latency_ms": pl.Float64}
)
