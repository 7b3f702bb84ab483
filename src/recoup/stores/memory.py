"""Fakes beside the interfaces: a journal and a key-value store that live in memory."""

import contextlib
from collections.abc import Iterator

import polars as pl

from recoup.state import Record


class MemoryJournal:
    """A journal that a test can look into; it dies with its process.

    Examples
    --------
    >>> journal = MemoryJournal()
    >>> with journal.transaction() as transaction:
    ...     transaction.append("events", pl.DataFrame({"value": [1, 2, 3]}))
    1
    >>> [record.frame.height for record in journal.read()]
    [3]
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._states: dict[str, tuple[int, dict[str, bytes]]] = {}
        self._positions: dict[str, str] = {}

    @contextlib.contextmanager
    def transaction(self) -> Iterator["MemoryTransaction"]:
        """Open a transaction: it commits on leaving, and rolls back on an exception."""
        transaction = MemoryTransaction(len(self._records), self._states)
        yield transaction
        self._records += transaction.records
        last = len(self._records)
        self._states |= {name: (last, parts) for name, parts in transaction.states.items()}
        self._positions |= transaction.positions

    def read(self, after: int = 0, *, kind: str | None = None) -> Iterator[Record]:
        """Give the committed batches behind an offset, in order."""
        for record in self._records[after:]:
            if kind in {None, record.kind}:
                yield record

    def load_state(self, stage: str) -> tuple[int, dict[str, bytes]]:
        """Give a stage's snapshot, part by part, and the offset it holds true at (0: none)."""
        offset, parts = self._states.get(stage, (0, {}))
        return offset, dict(parts)

    def position(self, source: str) -> str | None:
        """Give how far a source has been read, or None."""
        return self._positions.get(source)

    def close(self) -> None:
        """Release nothing."""


class MemoryTransaction:
    """Writes to a :class:`MemoryJournal` that show together, or not at all."""

    def __init__(self, last: int, states: dict[str, tuple[int, dict[str, bytes]]]) -> None:
        self._last = last
        self._before = states
        self.records: list[Record] = []
        self.states: dict[str, dict[str, bytes]] = {}
        self.positions: dict[str, str] = {}

    def append(self, kind: str, frame: pl.DataFrame, /) -> int:
        """Add a batch and give its offset."""
        offset = self._last + len(self.records) + 1
        self.records.append(Record(offset, kind, frame.clone()))
        return offset

    def save_state(self, stage: str, part: str, state: bytes, /) -> None:
        """Replace one part of a stage's snapshot, as of the end of this transaction."""
        self._parts(stage)[part] = state

    def drop_state(self, stage: str, part: str, /) -> None:
        """Remove one part of a stage's snapshot, if it is there."""
        self._parts(stage).pop(part, None)

    def save_position(self, source: str, position: str, /) -> None:
        """Remember how far a source has been read."""
        self.positions[source] = position

    def _parts(self, stage: str) -> dict[str, bytes]:
        if stage not in self.states:
            self.states[stage] = dict(self._before.get(stage, (0, {}))[1])
        return self.states[stage]


class MemoryKeyValue:
    """A key-value store in memory.

    Examples
    --------
    >>> store = MemoryKeyValue()
    >>> store.put(b"visitor/2", b"two")
    >>> store.put(b"visitor/1", b"one")
    >>> list(store.scan(b"visitor/"))
    [(b'visitor/1', b'one'), (b'visitor/2', b'two')]
    """

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def get(self, key: bytes, /) -> bytes | None:
        """Give a key's value, or None."""
        return self._values.get(key)

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key's value."""
        self._values[key] = value

    def delete(self, key: bytes, /) -> None:
        """Remove a key, if it is there."""
        self._values.pop(key, None)

    def scan(self, prefix: bytes = b"", /) -> Iterator[tuple[bytes, bytes]]:
        """Give the pairs whose key has a prefix, in order of key."""
        for key in sorted(key for key in self._values if key.startswith(prefix)):
            yield key, self._values[key]
