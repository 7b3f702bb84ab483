"""The journal: an ordered, durable log of columnar batches in one SQLite file.

One row holds one columnar batch. Batches, state snapshots and source positions of a transaction
become durable together or not at all, so that exactly-once needs nothing else: whoever restarts
finds the last committed transaction, its snapshot and its position, and goes on from there.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import polars as pl

from recoup.errors import JournalError
from recoup.state import Record
from recoup.stores.frames import (
    Compression,
    checksum,
    decode_frame,
    decode_schema,
    encode_frame,
    encode_schema,
)
from recoup.stores.sqlite import (
    PAGE_BYTES,
    Synchronous,
    connect,
    lock_for_writing,
    translated,
    whole,
)

APPLICATION_ID: Final = 0x52435550
"""Marks a SQLite file as a journal of ours ("RCUP")."""

VERSION: Final = 1

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)"

READ_ROWS: Final = 16
"""Batches fetched at a time, so that a slow reader holds no lock and little memory."""

_SCHEMA: Final = """
CREATE TABLE records (
    offset INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    schema INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX records_by_kind ON records (kind, offset);
CREATE TABLE schemas (id INTEGER PRIMARY KEY, checksum BLOB NOT NULL UNIQUE, data BLOB NOT NULL);
CREATE TABLE stages (stage TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE states (
    stage TEXT NOT NULL,
    part TEXT NOT NULL,
    checksum BLOB NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (stage, part)
);
CREATE TABLE positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID
"""


class SqliteJournal:
    """A journal in one SQLite file (with its ``-wal``, ``-shm`` and ``.lock`` beside it).

    One process writes; any number read, with ``read_only=True``. Methods may be called from
    several threads; transactions of different threads wait for one another.

    Parameters
    ----------
    path
        The file; made where it is absent.
    synchronous
        ``NORMAL``: a killed process loses nothing; a power cut may lose the last transactions,
        each whole. ``FULL``: a power cut loses nothing either; each commit waits for the disk.
    read_only
        Open beside a writer, without the right to write.
    max_bytes
        Bound on the file's size; a transaction that would pass it is rolled back.
    compression
        Of the columnar batches.

    Raises
    ------
    JournalError
        If the file is corrupt, foreign or of another version, if somebody else writes to it, or
        if it cannot be opened.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> journal = SqliteJournal(pathlib.Path(folder.name) / "journal.db")
    >>> with journal.transaction() as transaction:
    ...     offset = transaction.append("events", pl.DataFrame({"value": [1, 2, 3]}))
    ...     transaction.save_position("shop", "row 3")
    >>> offset, [record.frame["value"].sum() for record in journal.read()]
    (1, [6])
    >>> journal.close()
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path | str,
        *,
        synchronous: Synchronous = "NORMAL",
        read_only: bool = False,
        max_bytes: int | None = None,
        compression: Compression = "zstd",
    ) -> None:
        self.path = Path(path)
        self.compression: Compression = compression
        self._lock = threading.Lock()
        self._schemas: dict[int, pl.Schema] = {}
        self._schema_ids: dict[tuple[tuple[str, pl.DataType], ...], int] = {}
        with contextlib.ExitStack() as opened:
            if not read_only:
                opened.enter_context(lock_for_writing(self.path))
            self._writer = opened.enter_context(
                contextlib.closing(self._connect(synchronous, read_only=read_only))
            )
            if max_bytes is not None:
                self._writer.execute(f"PRAGMA max_page_count = {max_bytes // PAGE_BYTES}")
            self._reader = opened.enter_context(
                contextlib.closing(self._connect(synchronous, read_only=True))
            )
            self._last = self.last_offset
            self._opened = opened.pop_all()

    def _connect(self, synchronous: Synchronous, *, read_only: bool) -> sqlite3.Connection:
        return connect(
            self.path,
            application_id=APPLICATION_ID,
            schema=_SCHEMA,
            version=VERSION,
            synchronous=synchronous,
            read_only=read_only,
        )

    @property
    def last_offset(self) -> int:
        """Offset of the last committed batch, 0 where there is none."""
        with translated(self.path):
            (last,) = self._reader.execute("SELECT max(offset) FROM records").fetchone()
        return int(last or 0)

    @contextlib.contextmanager
    def transaction(self) -> Iterator["SqliteTransaction"]:
        """Open a transaction: it commits on leaving, and rolls back on an exception.

        Raises
        ------
        JournalError
            If the disk is full, or the file cannot be written; nothing of it is then kept.
        """
        with self._lock, translated(self.path):
            transaction = SqliteTransaction(self, self._writer, self._last)
            with whole(self._writer):
                yield transaction
                transaction.finish()
            self._last = transaction.last
            self._schema_ids.update(transaction.schema_ids)

    def read(self, after: int = 0, *, kind: str | None = None) -> Iterator[Record]:
        """Give the committed batches behind an offset, in order.

        Raises
        ------
        JournalError
            If a batch is missing, or its bytes do not check.
        """
        clause = "" if kind is None else "AND kind = :kind "
        query = (
            "SELECT offset, kind, schema, rows, checksum, data FROM records "  # noqa: S608
            f"WHERE offset > :after {clause}ORDER BY offset LIMIT {READ_ROWS}"
        )
        expected = after + 1
        while rows := self._fetch(query, {"after": after, "kind": kind}):
            for offset, row_kind, schema, height, digest, data in rows:
                if kind is None and offset != expected:
                    raise JournalError(
                        f"Expected batch {expected} in {self.path}, got {offset}", hint=_DAMAGED
                    )
                self._check(digest, f"batch {offset}", _identity(offset, row_kind), data)
                frame = decode_frame(data, self._schema(schema), height)
                yield Record(offset, row_kind, frame)
                after, expected = offset, offset + 1

    def load_state(self, stage: str) -> tuple[int, dict[str, bytes]]:
        """Give a stage's snapshot, part by part, and the offset it holds true at (0: none).

        Raises
        ------
        JournalError
            If the bytes of a part do not check.
        """
        query = """
            SELECT stages.offset, part, checksum, data FROM stages
            LEFT JOIN states USING (stage) WHERE stage = :stage ORDER BY part
        """
        rows = self._fetch(query, {"stage": stage})
        parts = {}
        for _, part, digest, data in rows:
            if part is not None:
                self._check(digest, f"state {stage}/{part}", f"{stage}/{part}".encode(), data)
                parts[part] = data
        return (rows[0][0] if rows else 0), parts

    def position(self, source: str) -> str | None:
        """Give how far a source has been read, or None."""
        rows = self._fetch("SELECT position FROM positions WHERE source = :s", {"s": source})
        return str(rows[0][0]) if rows else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the journal; closing it again does nothing."""
        with self._lock:
            self._opened.close()

    def _fetch(self, query: str, values: dict[str, object]) -> list[tuple]:  # type: ignore[type-arg]
        with translated(self.path):
            return self._reader.execute(query, values).fetchall()

    def _schema(self, schema: int) -> pl.Schema:
        if schema not in self._schemas:
            query = "SELECT checksum, data FROM schemas WHERE id = :id"
            rows = self._fetch(query, {"id": schema})
            if not rows:
                raise JournalError(f"Expected schema {schema} in {self.path}", hint=_DAMAGED)
            self._check(rows[0][0], f"schema {schema}", b"schema", rows[0][1])
            self._schemas[schema] = decode_schema(rows[0][1])
        return self._schemas[schema]

    def _check(self, digest: bytes, what: str, *parts: bytes) -> None:
        if checksum(*parts) != digest:
            raise JournalError(
                f"Expected the bytes of {what} in {self.path} to check, got others", hint=_DAMAGED
            )


_DAMAGED: Final = "the file is damaged; restore a copy, or replay the log into a new journal"


class SqliteTransaction:
    """Writes to a :class:`SqliteJournal` that become durable together, or not at all.

    A batch that comes alone, as decisions' do, is one statement, which is a transaction in itself:
    every further one would take the interpreter's lock from the thread that decides once more.
    """

    def __init__(self, journal: SqliteJournal, connection: sqlite3.Connection, last: int) -> None:
        self._journal = journal
        self._connection = connection
        self.last = last
        self.schema_ids: dict[tuple[tuple[str, pl.DataType], ...], int] = {}
        self._stages: set[str] = set()
        self._alone: tuple[object, ...] | None = None  # a batch that waits for company

    def append(self, kind: str, frame: pl.DataFrame, /) -> int:
        """Add a batch and give its offset."""
        data = encode_frame(frame, self._journal.compression)
        offset = self.last + 1
        digest = checksum(_identity(offset, kind), data)
        row = (offset, kind, self._schema_id(frame.schema), frame.height, digest, data)
        if self._alone is None and not self._connection.in_transaction:
            self._alone = row
        else:
            self._execute(_INSERT, row)
        self.last = offset
        return offset

    def save_state(self, stage: str, part: str, state: bytes, /) -> None:
        """Replace one part of a stage's snapshot, as of the end of this transaction."""
        self._stages.add(stage)
        self._execute(
            "REPLACE INTO states VALUES (?, ?, ?, ?)",
            (stage, part, checksum(f"{stage}/{part}".encode(), state), state),
        )

    def drop_state(self, stage: str, part: str, /) -> None:
        """Remove one part of a stage's snapshot, if it is there."""
        self._stages.add(stage)
        self._execute("DELETE FROM states WHERE stage = ? AND part = ?", (stage, part))

    def save_position(self, source: str, position: str, /) -> None:
        """Remember how far a source has been read."""
        self._execute("REPLACE INTO positions VALUES (?, ?)", (source, position))

    def finish(self) -> None:
        """Note the offset that the saved states hold true at: the transaction's last."""
        for stage in sorted(self._stages):
            self._execute("REPLACE INTO stages VALUES (?, ?)", (stage, self.last))
        if self._alone is not None:
            self._connection.execute(_INSERT, self._alone)

    def _execute(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """Execute a statement that is not alone."""
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection.execute(statement, values)

    def _schema_id(self, schema: pl.Schema) -> int:
        key = tuple(schema.items())
        known = self._journal._schema_ids.get(key, self.schema_ids.get(key))  # noqa: SLF001
        if known is None:
            data = encode_schema(schema)
            digest = checksum(b"schema", data)
            self._execute(
                "INSERT OR IGNORE INTO schemas (checksum, data) VALUES (?, ?)", (digest, data)
            )
            query = "SELECT id FROM schemas WHERE checksum = ?"
            known = int(self._execute(query, (digest,)).fetchone()[0])
            self.schema_ids[key] = known
        return known


def _identity(offset: int, kind: str) -> bytes:
    return f"{offset}/{kind}".encode()
