# ruff: noqa: ANN401 - numba hands its own, untyped objects to code generators
"""Arrays by their address, for kernels that are called once an event.

Handing an array over from Python costs a compiled call some 0.1 us, and a model or a policy has a
dozen of them, the same ones each time. Their addresses are noted once, in one array.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

_PLACE: Final = 3
"""Numbers that tell where an array is: its address, its size, and its last axis."""


class Located:
    """Arrays that are kept alive, and where they are.

    Parameters
    ----------
    arrays
        Contiguous, of float64, int64, int32 or bool, of one or two axes.

    Attributes
    ----------
    places
        What kernels are given, shape (3 k,) int64.

    Examples
    --------
    >>> located = Located(np.arange(6.0).reshape(2, 3), np.full(2, 7))
    >>> float(reals_at(located.places, 0)[5]), int(words_at(located.places, 1)[1])
    (5.0, 7)
    """

    def __init__(self, *arrays: NDArray[Any]) -> None:
        assert all(array.flags.c_contiguous for array in arrays)  # noqa: S101
        self._arrays = arrays
        places = [(array.ctypes.data, array.size, array.shape[-1]) for array in arrays]
        self.places: NDArray[np.int64] = np.array(places, np.int64).reshape(-1)


@njit(cache=True, nogil=True)
def last_axis(places: NDArray[np.int64], number: int) -> int:
    """Give the length of an array's last axis."""
    return int(places[_PLACE * number + 2])


def reals_at(places: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """Give an array of float64 by its number, flat; what located it must outlive it."""
    return _in_python(places, number, np.float64)


def words_at(places: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Give an array of int64 by its number, flat."""
    return _in_python(places, number, np.int64)


def halves_at(places: NDArray[np.int64], number: int) -> NDArray[np.int32]:
    """Give an array of int32 by its number, flat."""
    return _in_python(places, number, np.int32)


def flags_at(places: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    """Give an array of bool by its number, flat."""
    return _in_python(places, number, np.bool_)


def _in_python(places: NDArray[np.int64], number: int, kind: type[np.generic]) -> NDArray[Any]:
    address, size = (int(each) for each in places[_PLACE * number :][:2])
    raw = (ctypes.c_char * (size * np.dtype(kind).itemsize)).from_address(address)
    return np.frombuffer(memoryview(raw), kind)


def _pointer_to(element: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(_: Any, address: Any) -> Any:
        kind = types.CPointer(element)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(address), generate

    return pointer


def _compile(function: Callable[..., Any], element: Any) -> None:
    """Have kernels read an address as an array."""
    pointer = _pointer_to(element)

    @overload(function)  # type: ignore[untyped-decorator]
    def _read(places: Any, number: Any) -> Any:  # noqa: ARG001
        def implementation(places: Any, number: Any) -> Any:
            return carray(pointer(places[3 * number]), places[3 * number + 1])

        return implementation


_compile(reals_at, types.float64)
_compile(words_at, types.int64)
_compile(halves_at, types.int32)
_compile(flags_at, types.bool_)
