"""Bounded memory of sessions or visitors for kernels: a hash table of int64 rows."""

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.parts import SavedTable
from recoup.state import Changes

_SMALLEST = 1 << 10


class Memory:
    """Rows of int64 by int64 key, with open addressing; column 0 is the time of the last use.

    Rows idle longer than a stated time are forgotten when room is needed, then the longest idle
    beyond a stated number. What is forgotten depends on event time alone.

    Parameters
    ----------
    width
        Columns of a row, the time included.

    Attributes
    ----------
    keys, rows
        The table, shapes (size,) and (size, width); key 0 marks an empty place.
    used
        Number of keys, shape (1,), for kernels to raise.

    Examples
    --------
    >>> memory = Memory(2)
    >>> memory.reserve(1, idle=10, most=100)
    >>> at = find(memory.keys, memory.used, 17)
    >>> memory.rows[at] = (5, 42)
    >>> int(memory.rows[find(memory.keys, memory.used, 17), 1]), int(memory.used[0])
    (42, 1)
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._saved = SavedTable(width)
        self._build(np.zeros(0, np.int64), np.zeros((0, width), np.int64), 0)

    def reserve(self, count: int, idle: int, most: int) -> None:
        """Make room for ``count`` more keys."""
        if 2 * (int(self.used[0]) + count) <= len(self.keys):
            return
        keys, rows = self._live()
        if len(keys):
            fresh = rows[:, 0] >= rows[:, 0].max() - idle
            keys, rows = keys[fresh], rows[fresh]
        if len(keys) > most:
            newest = np.lexsort((keys, rows[:, 0]))[-most:]
            keys, rows = keys[newest], rows[newest]
        self._build(keys, rows, count)

    def _live(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        live = np.flatnonzero(self.keys)
        return self.keys[live], self.rows[live]

    def _build(self, keys: NDArray[np.int64], rows: NDArray[np.int64], room: int) -> None:
        size = _SMALLEST
        while size < 4 * (len(keys) + room):
            size *= 2
        self.keys = np.zeros(size, np.int64)
        self.rows = np.zeros((size, self.width), np.int64)
        self.used = np.zeros(1, np.int64)
        _insert(keys, rows, self.keys, self.rows, self.used)

    def dump(self) -> bytes:
        """Give the rows as bytes, ordered by key."""
        keys, rows = self._live()
        order = np.argsort(keys)
        head = np.array([self.width, len(keys)], np.int64)
        return head.tobytes() + keys[order].tobytes() + rows[order].tobytes()

    def load(self, state: bytes) -> None:
        """Take up what :meth:`dump` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another width or length.
        """
        width, count = np.frombuffer(state, np.int64, 2) if len(state) >= 16 else (0, 0)  # noqa: PLR2004
        if width != self.width or len(state) != 16 + 8 * count * (width + 1):
            raise SnapshotError(f"Expected memory rows of {self.width} columns, got other bytes")
        keys = np.frombuffer(state, np.int64, count, 16)
        rows = np.frombuffer(state, np.int64, offset=16 + 8 * count).reshape(count, width)
        self._build(keys, rows, 0)

    def changes(self) -> Changes:
        """Give the rows that changed since the last call, as parts to save."""
        return self._saved.changes(*self._live())

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the rows that the parts of all calls of :meth:`changes` hold together."""
        self._build(*self._saved.restore_parts(parts), 0)


@njit(cache=True, nogil=True)
def find(keys: NDArray[np.int64], used: NDArray[np.int64], key: int) -> int:
    """Give the place of a key, taking a free one if it is new: its row is then all zeros."""
    key = key if key != 0 else 1
    mask = keys.shape[0] - 1
    at = (key ^ (key >> 29) ^ (key >> 47)) & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & mask
    if keys[at] == 0:
        keys[at] = key
        used[0] += 1
    return int(at)


@njit(cache=True, nogil=True)
def _insert(
    keys: NDArray[np.int64],
    rows: NDArray[np.int64],
    to_keys: NDArray[np.int64],
    to_rows: NDArray[np.int64],
    used: NDArray[np.int64],
) -> None:
    for row in range(keys.shape[0]):
        to_rows[find(to_keys, used, keys[row])] = rows[row]
