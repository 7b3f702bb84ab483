"""The protocols that stages, journals and stores keep: everything is a fold over a journal."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar, runtime_checkable

import msgspec
import polars as pl

Input_contra = TypeVar("Input_contra", contravariant=True)
Output_co = TypeVar("Output_co", covariant=True)


@runtime_checkable
class Stage(Protocol[Input_contra, Output_co]):
    """A deterministic fold: ``state, output = step(state, batch)``, its state kept inside.

    No clock, no global random state, no I/O: the same batches give the same outputs and bytes.
    """

    name: str

    def step(self, batch: Input_contra, /) -> Output_co:
        """Fold one batch into the state and give what follows from it."""
        ...

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        ...

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version or definition.
        """
        ...


class Changes(msgspec.Struct, frozen=True):
    """Parts of a state to save, by name, and names of parts that are no longer needed."""

    saved: dict[str, bytes]
    dropped: tuple[str, ...]


@runtime_checkable
class Incremental(Protocol):
    """What need not write its whole state to take a snapshot."""

    def changes(self) -> Changes:
        """Give what changed since the last call, or since the restore."""
        ...

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the parts of all calls of :meth:`changes` that were not dropped since.

        Raises
        ------
        SnapshotError
            If the bytes are of another version or definition.
        """
        ...


class Record(msgspec.Struct, frozen=True):
    """One columnar batch in the journal.

    Parameters
    ----------
    offset
        Position in the journal, from 1, without gaps.
    kind
        What it holds: ``events``, ``items``, ``ticks``, ``decisions``, ``outcomes``, ...
    frame
        Its rows.
    """

    offset: int
    kind: str
    frame: pl.DataFrame


class Transaction(Protocol):
    """Writes that become durable together, or not at all."""

    def append(self, kind: str, frame: pl.DataFrame, /) -> int:
        """Add a batch and give its offset."""
        ...

    def save_state(self, stage: str, part: str, state: bytes, /) -> None:
        """Replace one part of a stage's snapshot, as of this transaction."""
        ...

    def drop_state(self, stage: str, part: str, /) -> None:
        """Remove one part of a stage's snapshot, if it is there."""
        ...

    def save_position(self, source: str, position: str, /) -> None:
        """Remember how far a source has been read."""
        ...


class Journal(Protocol):
    """An ordered, durable log of columnar batches, with snapshots and source positions."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction: it commits on leaving, and rolls back on an exception."""
        ...

    def read(self, after: int = 0, *, kind: str | None = None) -> Iterator[Record]:
        """Give the committed batches behind an offset, in order."""
        ...

    def load_state(self, stage: str) -> tuple[int, dict[str, bytes]]:
        """Give a stage's snapshot, part by part, and the offset it holds true at (0: none)."""
        ...

    def position(self, source: str) -> str | None:
        """Give how far a source has been read, or None."""
        ...

    def close(self) -> None:
        """Release the journal."""
        ...


class KeyValue(Protocol):
    """Online state served elsewhere: a few methods that any key-value server has."""

    def get(self, key: bytes, /) -> bytes | None:
        """Give a key's value, or None."""
        ...

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key's value."""
        ...

    def delete(self, key: bytes, /) -> None:
        """Remove a key, if it is there."""
        ...

    def scan(self, prefix: bytes = b"", /) -> Iterator[tuple[bytes, bytes]]:
        """Give the pairs whose key has a prefix, in order of key."""
        ...
