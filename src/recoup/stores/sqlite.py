"""What every SQLite store of ours shares: opening, locking, and errors a user can act on."""

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, Literal

from recoup.errors import JournalError

Synchronous = Literal["NORMAL", "FULL"]

PAGE_BYTES: Final = 4096
BUSY_TIMEOUT_S: Final = 5.0


def connect(
    path: Path,
    *,
    application_id: int,
    schema: str,
    version: int,
    synchronous: Synchronous,
    read_only: bool = False,
) -> sqlite3.Connection:
    """Open one of our files, making its tables where the file is new.

    Parameters
    ----------
    application_id, version
        What marks the file as ours, and the version of its tables.
    schema
        The statements that make its tables.
    synchronous
        ``NORMAL`` survives a killed process; ``FULL`` survives a power cut as well.

    Raises
    ------
    JournalError
        If the file is corrupt, foreign, of another version, or cannot be opened.
    """
    with translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
        )
    try:
        with translated(path):
            _claim(connection, path, application_id, schema, version, read_only=read_only)
            connection.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def _claim(
    connection: sqlite3.Connection,
    path: Path,
    application_id: int,
    schema: str,
    version: int,
    *,
    read_only: bool,
) -> None:
    """Make sure that the file is ours, and make its tables if it holds none."""
    found = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if found == (application_id, version):
        return
    if found[0] == application_id:
        raise JournalError(
            f"Expected {path} at version {version}, got version {found[1]}",
            hint="open it with the release of recoup that wrote it",
        )
    if tables or found[0] or read_only:
        raise JournalError(
            f"Expected a file that recoup wrote, got another SQLite database: {path}",
            hint="give a path of its own; nothing in this file was changed",
        )
    connection.execute("PRAGMA journal_mode = WAL")
    with immediate(connection):
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {application_id}")
        connection.execute(f"PRAGMA user_version = {version}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextlib.contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold a write transaction: commit on leaving, roll back on any exception."""
    connection.execute("BEGIN IMMEDIATE")
    with whole(connection):
        yield


@contextlib.contextmanager
def whole(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what was begun on leaving, if anything was; roll back on any exception."""
    try:
        yield
        if connection.in_transaction:
            connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a :class:`JournalError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}", hint=_hint(str(error))) from error


def _hint(message: str) -> str:
    return next((hint for text, hint in _HINTS.items() if text in message), _HINTS[""])


_HINTS: Final = {
    "full": "free space on the disk, or raise max_bytes; the transaction was rolled back whole",
    "locked": "another process is writing to it; stop that one, or give a path of its own",
    "not a database": "the file is damaged or not ours; give another path, or restore a copy",
    "malformed": "the file is damaged; restore a copy, or replay the log into a new journal",
    "decode": "the file is damaged; restore a copy, or replay the log into a new journal",
    "unable to open": "check that the folder exists and may be written to",
    "readonly": "check that the file and its folder may be written to",
    "": "check the disk and the permissions; the transaction was rolled back whole",
}


def lock_for_writing(path: Path) -> IO[bytes]:
    """Hold the only right to write beside ``path``, until the file given back is closed.

    The kernel takes the lock back when its process dies, so that nothing is left to clean up.

    Raises
    ------
    JournalError
        If somebody else holds it.
    """
    try:
        handle = path.with_name(path.name + ".lock").open("wb")
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}", hint=_HINTS["unable to open"]) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise JournalError(
            f"Expected to be the only writer of {path}, got a lock that somebody else holds",
            hint="stop the other process, or open the journal with read_only=True",
        ) from error
    return handle
