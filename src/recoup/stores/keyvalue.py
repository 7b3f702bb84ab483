"""A key-value store in one SQLite file: online state that outlives its process."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from recoup.stores.sqlite import Synchronous, connect, translated

APPLICATION_ID: Final = 0x52434B56
"""Marks a SQLite file as a key-value store of ours ("RCKV")."""

VERSION: Final = 1

_SCHEMA: Final = "CREATE TABLE pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_SCAN: Final = "SELECT key, value FROM pairs WHERE key >= ? ORDER BY key LIMIT 256"


class SqliteKeyValue:
    """A key-value store in one SQLite file; each write is a transaction of its own.

    Parameters
    ----------
    path
        The file; made where it is absent.
    synchronous
        ``NORMAL`` survives a killed process, ``FULL`` a power cut as well.

    Raises
    ------
    JournalError
        If the file is corrupt, foreign, full, or cannot be opened.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = SqliteKeyValue(pathlib.Path(folder.name) / "state.db")
    >>> store.put(b"visitor/1", b"one")
    >>> store.get(b"visitor/1"), store.get(b"visitor/2")
    (b'one', None)
    >>> store.close()
    >>> folder.cleanup()
    """

    def __init__(self, path: Path | str, *, synchronous: Synchronous = "NORMAL") -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection = connect(
            self.path,
            application_id=APPLICATION_ID,
            schema=_SCHEMA,
            version=VERSION,
            synchronous=synchronous,
        )

    def get(self, key: bytes, /) -> bytes | None:
        """Give a key's value, or None."""
        rows = self._run("SELECT value FROM pairs WHERE key = ?", key)
        return bytes(rows[0][0]) if rows else None

    def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key's value."""
        self._run("REPLACE INTO pairs VALUES (?, ?)", key, value)

    def delete(self, key: bytes, /) -> None:
        """Remove a key, if it is there."""
        self._run("DELETE FROM pairs WHERE key = ?", key)

    def scan(self, prefix: bytes = b"", /) -> Iterator[tuple[bytes, bytes]]:
        """Give the pairs whose key has a prefix, in order of key."""
        start = prefix
        while rows := self._run(_SCAN, start):
            for key, value in rows:
                if not key.startswith(prefix):
                    return
                yield key, value
            start = rows[-1][0] + b"\0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    def _run(self, statement: str, *values: bytes) -> list[tuple[bytes, ...]]:
        with self._lock, translated(self.path):
            return self._connection.execute(statement, values).fetchall()
