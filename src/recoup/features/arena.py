"""Memory for large arrays, kept for the next of them instead of given back to the system.

Fresh memory is dear: the system clears every page of it, and under a hypervisor the host may have
to find it first, which can take longer than the work the memory is for. So pages that an array
leaves behind are kept, up to a bound, for the next array of this process, as allocators such as
jemalloc keep theirs. The system is told that it may take them back whenever it runs short.

Addresses cost nothing until they are written. An array that will grow gets far more of them than it
is likely to need, so that it grows where it stands, and nothing is copied.
"""

import contextlib
import mmap
import platform
import sys
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

ADDRESSES: Final = 1 << 36
"""Bytes of addresses that an array takes which will grow, if the system grants them."""
KEPT_BYTES: Final = 1 << 29
"""Bytes that are kept for later arrays, at most."""
LARGE_BYTES: Final = 1 << 21
"""Smaller arrays are left to NumPy."""
HUGE_PAGE: Final = 1 << 21
# Python tells the constant from 3.13 on; it differs on rarer machines.
_USUAL: Final = sys.platform == "linux" and platform.machine() in {"x86_64", "aarch64"}
NO_RESERVE: Final[int] = getattr(mmap, "MAP_NORESERVE", 0x4000 if _USUAL else 0)
"""Lets the system grant more addresses than it has memory."""


class _Pages:
    """Pages of the system, and how many of their bytes, from the first on, were ever written."""

    def __init__(self, size: int, *, grows: bool) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        self.bytes = mmap.mmap(-1, size, flags=flags)
        self.grows, self.written = grows, 0
        self._advise("MADV_HUGEPAGE", 0, size)

    def release(self) -> None:
        """Let the system take the pages back when it needs them, and those behind them at once."""
        end = min(-(-self.written // HUGE_PAGE) * HUGE_PAGE, len(self.bytes))
        self._advise("MADV_FREE", 0, end)
        self._advise("MADV_DONTNEED", end, len(self.bytes) - end)

    def _advise(self, advice: str, start: int, size: int) -> None:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self.bytes.madvise(getattr(mmap, advice), start, size)


_kept: list[_Pages] = []
# List operations are atomic, and arrays may end at any moment: whoever takes or drops pages here
# is prepared to find them taken.


def room(least: int) -> NDArray[np.int64]:
    """Give uninitialised words, at least so many, and as many more as there are addresses for.

    The first word must always tell how many words, from the first on, have been written.

    Raises
    ------
    MemoryError
        If the system has not so much memory.
    """
    pages = _take(8 * least, grows=True)
    if pages is None:
        return np.empty(least, np.int64)
    words = np.frombuffer(pages.bytes, np.int64)
    weakref.finalize(words, _keep, pages).atexit = False
    return words


def touch(words: NDArray[np.int64]) -> None:
    """Have the system find memory for an array now, whose contents are lost."""
    words[:: mmap.PAGESIZE // words.itemsize] = 0


def matrix(rows: int, columns: int) -> NDArray[np.float64]:
    """Give an uninitialised matrix."""
    size = 8 * rows * columns
    pages = _take(size, grows=False) if size >= LARGE_BYTES else None
    if pages is None:
        return np.empty((rows, columns))
    pages.written = max(pages.written, size)
    words = np.frombuffer(pages.bytes, np.float64)
    weakref.finalize(words, _keep, pages).atexit = False
    return words[: rows * columns].reshape(rows, columns)


def kept_bytes() -> int:
    """Tell how much memory is kept for later arrays."""
    return sum(pages.written for pages in tuple(_kept))


def give_back() -> None:
    """Give all that is kept back to the system."""
    _kept.clear()


def _take(size: int, *, grows: bool) -> _Pages | None:
    """Give kept pages with addresses for ``size`` bytes, or new ones; None where none are mapped.

    Of those kept, what will grow gets the ones of which most is written, the others the fewest.
    """
    while fits := [p for p in tuple(_kept) if p.grows == grows and len(p.bytes) >= size]:
        best = sorted(fits, key=lambda pages: pages.written)[-1 if grows else 0]
        with contextlib.suppress(ValueError):
            _kept.remove(best)
            return best
    sizes = (max(ADDRESSES, 4 * size), 2 * size, size) if grows else (1 << size.bit_length(),)
    for addresses in sizes:
        with contextlib.suppress(OSError, AttributeError):
            return _Pages(addresses, grows=grows)
    return None


def _keep(pages: _Pages) -> None:
    """Keep the pages of an array that nobody can see any more, its views included."""
    if pages.grows:
        pages.written = max(pages.written, 8 * int.from_bytes(pages.bytes[:8], sys.byteorder))
    if pages.written > KEPT_BYTES:
        return
    pages.release()
    _kept.append(pages)
    while kept_bytes() > KEPT_BYTES:
        with contextlib.suppress(IndexError):
            _kept.pop(0)


__all__ = ["give_back", "kept_bytes", "matrix", "room", "touch"]
