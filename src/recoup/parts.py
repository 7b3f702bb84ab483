"""State saved in parts, so that a snapshot writes what changed and not what is.

Rows that are only ever merged are kept in :class:`Runs`, each saved once; rows that change in place
are saved by :class:`SavedTable` as a base and what changed since. Either writes, over time, a small
multiple of the changes, and reads back a small multiple of the state.
"""

import io
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.state import Changes

Words = NDArray[np.int64]


def gather(parts: Mapping[str, bytes | Changes]) -> Changes:
    """Put whole states, and the changes of others, together under their names.

    Examples
    --------
    >>> gather({"whole": b"1", "rows": Changes({"0": b"2"}, ("1",))})
    Changes(saved={'whole': b'1', 'rows/0': b'2'}, dropped=('rows/1',))
    """
    saved: dict[str, bytes] = {}
    dropped: list[str] = []
    for name, part in parts.items():
        if isinstance(part, Changes):
            saved |= prefixed(name, part.saved)
            dropped += [f"{name}/{gone}" for gone in part.dropped]
        else:
            saved[name] = part
    return Changes(saved, tuple(dropped))


def prefixed(prefix: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Give parts the names they have among those of others."""
    return {f"{prefix}/{name}": state for name, state in parts.items()}


def under(prefix: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Take back what :func:`prefixed` named."""
    start = f"{prefix}/"
    return {name.removeprefix(start): parts[name] for name in parts if name.startswith(start)}


class Runs:
    """Rows in runs of falling size: each row is merged, and saved, a logarithmic number of times.

    Parameters
    ----------
    merge
        Gives one row a key; the same for any way in which rows are put together.
    empty
        A frame without rows.
    ordered
        Whether ``merge`` also puts the rows in their order; otherwise they are sorted to be saved.

    Examples
    --------
    >>> rows = pl.DataFrame({"key": [1, 2], "n": [1, 1]})
    >>> runs = Runs(lambda rows: rows.group_by("key").agg(pl.col("n").sum()), rows.clear())
    >>> runs.add(rows)
    >>> list(runs.changes().saved), list(runs.changes().saved)
    (['00000000'], [])
    >>> runs.add(rows)
    >>> sorted(runs.whole().iter_rows())
    [(1, 2), (2, 2)]
    """

    def __init__(
        self,
        merge: Callable[[pl.DataFrame], pl.DataFrame],
        empty: pl.DataFrame,
        *,
        ordered: bool = False,
    ) -> None:
        self._merge = merge
        self._ordered = ordered
        self._runs = [empty]
        self._saved: list[tuple[str, pl.DataFrame]] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take more rows."""
        run = self._merge(rows)
        while self._runs and run.height * 2 >= self._runs[-1].height:
            run = self._merge(pl.concat([self._runs.pop(), run]))
        self._runs.append(run)

    def whole(self) -> pl.DataFrame:
        """Give all rows, merged."""
        if len(self._runs) > 1:
            self._runs = [self._merge(pl.concat(self._runs))]
        return self._runs[0]

    def replace(self, rows: pl.DataFrame) -> None:
        """Have these merged rows alone."""
        self._runs = [rows]

    def changes(self) -> Changes:
        """Give the runs that are new since the last call, and the names of those merged away."""
        names = {id(run): name for name, run in self._saved}
        number = 1 + max((int(name) for name, _ in self._saved), default=-1)
        saved = {}
        for run in self._runs:
            if id(run) not in names:
                names[id(run)] = f"{number:08}"
                saved[names[id(run)]] = frame_bytes(run if self._ordered else _sorted(run))
                number += 1
        now = [(names[id(run)], run) for run in self._runs]
        kept = {name for name, _ in now}
        dropped = tuple(name for name, _ in self._saved if name not in kept)
        self._saved = now
        return Changes(saved, dropped)

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the runs of all calls of :meth:`changes` that were not dropped since.

        Raises
        ------
        SnapshotError
            If there is none, or bytes are no rows.
        """
        if not parts:
            raise SnapshotError("Expected the runs of a snapshot, got none")
        self._saved = [(name, read_frame(parts[name])) for name in sorted(parts)]
        self._runs = [run for _, run in self._saved]


def frame_bytes(frame: pl.DataFrame) -> bytes:
    """Give rows as bytes, the same for equal frames."""
    sink = io.BytesIO()
    oldest = pl.CompatLevel.oldest()
    frame.rechunk().write_ipc(sink, compression="zstd", compat_level=oldest)
    return sink.getvalue()


def read_frame(state: bytes) -> pl.DataFrame:
    """Read what :func:`frame_bytes` gave.

    Raises
    ------
    SnapshotError
        If the bytes are no rows.
    """
    try:
        return pl.read_ipc(io.BytesIO(state))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SnapshotError(f"Expected rows of a snapshot, got other bytes: {error}") from error


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(frame.columns)


class _Part(msgspec.Struct, frozen=True, array_like=True):
    """Rows that are new or changed, and keys that are gone; a base has all rows."""

    base: bool
    width: int
    keys: bytes
    rows: bytes
    gone: bytes


class SavedTable:
    """What was saved of a table of int64 rows by int64 key: a base, and what changed since.

    A new base is saved once the changes since the last are as large as that one. Holds a copy of
    the rows as they were last saved, to compare with.

    Parameters
    ----------
    width
        Columns of a row.

    Examples
    --------
    >>> saved = SavedTable(1)
    >>> keys, rows = np.arange(100), np.zeros((100, 1), np.int64)
    >>> base = saved.changes(keys, rows).saved
    >>> rows[7] = 5
    >>> delta = saved.changes(keys, rows).saved
    >>> len(delta["00000001"]) < len(base["00000000"]) / 50
    True
    >>> again, found = SavedTable(1).restore_parts(base | delta)
    >>> bool((found == rows).all())
    True
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._keys, self._rows = _no_rows(width)
        self._sizes: dict[str, int] = {}

    def changes(self, keys: Words, rows: Words) -> Changes:
        """Give the part to save now, and the names of those that it replaces.

        Parameters
        ----------
        keys, rows
            The table as it is, in any order: shapes (n,) and (n, width).
        """
        order = np.argsort(keys)
        keys, rows = keys[order], np.ascontiguousarray(rows[order])
        delta = self._delta(keys, rows)
        self._keys, self._rows = keys, rows
        if delta is None:
            return Changes({}, ())
        number = 1 + max((int(name) for name in self._sizes), default=-1)
        name = f"{number:08}"
        base, *later = self._sizes.values() or (0,)
        if sum(later) + len(delta) < base:
            self._sizes[name] = len(delta)
            return Changes({name: delta}, ())
        dropped, whole = tuple(self._sizes), self._encode(keys, rows, keys[:0], base=True)
        self._sizes = {name: len(whole)}
        return Changes({name: whole}, dropped)

    def restore_parts(self, parts: Mapping[str, bytes]) -> tuple[Words, Words]:
        """Give the table that the parts of all calls hold together: keys in order, and rows.

        Raises
        ------
        SnapshotError
            If there is no part, or they are of another width.
        """
        if not parts:
            raise SnapshotError("Expected the parts of a table, got none")
        keys, rows = _no_rows(self._width)
        for name in sorted(parts):
            keys, rows = self._apply(keys, rows, parts[name])
        self._keys, self._rows = keys, rows
        self._sizes = {name: len(parts[name]) for name in sorted(parts)}
        return keys.copy(), rows.copy()

    def _delta(self, keys: Words, rows: Words) -> bytes | None:
        """Write what differs from the rows last saved; None where nothing does."""
        at = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        fresh = np.ones(len(keys), np.bool_)
        if len(self._keys):
            fresh = (self._keys[at] != keys) | (self._rows[at] != rows).any(axis=1)
        gone = self._keys[~np.isin(self._keys, keys, assume_unique=True)]
        if self._sizes and not fresh.any() and not len(gone):
            return None
        return self._encode(keys[fresh], rows[fresh], gone, base=False)

    def _encode(self, keys: Words, rows: Words, gone: Words, *, base: bool) -> bytes:
        part = _Part(base, self._width, keys.tobytes(), rows.tobytes(), gone.tobytes())
        return msgspec.msgpack.encode(part)

    def _apply(self, keys: Words, rows: Words, state: bytes) -> tuple[Words, Words]:
        try:
            part = msgspec.msgpack.decode(state, type=_Part)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected a part of a table, got {error}") from error
        if part.width != self._width:
            raise SnapshotError(f"Expected rows of {self._width} columns, got {part.width}")
        fresh, gone = (np.frombuffer(words, np.int64) for words in (part.keys, part.gone))
        new = np.frombuffer(part.rows, np.int64).reshape(-1, self._width)
        if part.base:
            return fresh, new
        kept = ~np.isin(keys, np.concatenate([fresh, gone]))
        keys, rows = np.concatenate([keys[kept], fresh]), np.concatenate([rows[kept], new])
        order = np.argsort(keys)
        return keys[order], rows[order]


def _no_rows(width: int) -> tuple[Words, Words]:
    return np.zeros(0, np.int64), np.zeros((0, width), np.int64)


__all__: Final = [
    "Runs", "SavedTable", "frame_bytes", "gather", "prefixed", "read_frame", "under",
]  # fmt: skip
