# ruff: noqa: ANN401 - numba hands its own, untyped objects to code generators
"""Arrays as bare pointers within kernels.

A numba function counts references to every array it is given, atomically: with some forty small
functions an event that took more than half of the time. A pointer is indexed like a flat array and
counts nothing. Without the compiler it IS the flat array.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numba import njit, types
from numba.core.cgutils import get_or_insert_function, ir
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Array = NDArray[np.int64]


class Words(Protocol):
    """Words in a row, as kernels see memory, plan, inputs and notes."""

    def __getitem__(self, at: int, /) -> int:
        """Read a word."""
        ...

    def __setitem__(self, at: int, value: int, /) -> None:
        """Write a word."""
        ...


class Reals(Protocol):
    """The same words as float64."""

    def __getitem__(self, at: int, /) -> float:
        """Read a real."""
        ...

    def __setitem__(self, at: int, value: float, /) -> None:
        """Write a real."""
        ...


SOURCES: Final = tuple(
    (path.name, path.stat().st_mtime_ns, path.stat().st_size)
    for path in sorted(Path(__file__).parent.glob("*.py"))
)
"""What kernels are compiled from."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile a kernel into those that call it, and keep what was compiled on disk.

    Numba takes up compiled code again while the kernel's own file is unchanged; but kernels hold
    the constants and the code of their neighbours. So what is kept is stamped with all files of
    the folder. Divisors are guarded, so that no branch need raise.
    """
    return _compile(function, inline=True)


def compiled_apart(function: Kernel) -> Kernel:
    """Compile likewise a kernel that Python calls, or several kernels, or few events need."""
    return _compile(function, inline=False)


def compiled_seldom(function: Kernel) -> Kernel:
    """Compile apart a kernel that few events need: it is not specialised to a plan."""
    kernel = compiled_apart(function)
    kernel.seldom = True  # type: ignore[attr-defined]
    return kernel


def is_seldom(kernel: object) -> bool:
    """Say whether few events need a kernel."""
    return getattr(kernel, "seldom", False)


def _compile(function: Kernel, *, inline: bool) -> Kernel:
    kernel = njit(cache=True, nogil=True, error_model="numpy", forceinline=inline)(function)
    kept = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if kept is not None:
        kept._source_stamp = kept._source_stamp, SOURCES  # noqa: SLF001
    return kernel


def as_words(array: NDArray[Any]) -> Words:
    """Give an array's words, flat; the array must outlive what is given."""
    return array.reshape(-1).view(np.int64)


def as_reals(array: NDArray[Any]) -> Reals:
    """Give an array's words, flat, as float64; the array must outlive what is given."""
    return array.reshape(-1).view(np.float64)


def _pointer_to(element: Any) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(_: Any, array: Any) -> Any:
        kind = types.CPointer(element)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            return builder.bitcast(data, context.get_value_type(kind))

        return kind(array), generate

    return pointer


_word_pointer, _real_pointer = _pointer_to(types.int64), _pointer_to(types.float64)


def prefetch(pointer: Words | Reals, at: int) -> None:
    """Ask for the cache line of a word, which may lie anywhere."""


@overload(prefetch)  # type: ignore[untyped-decorator]
def _prefetch(pointer: Any, at: Any) -> Any:  # noqa: ARG001
    def implementation(pointer: Any, at: Any) -> Any:
        return _prefetch_word(pointer, at)

    return implementation


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch_word(_: Any, pointer: Any, at: Any) -> Any:
    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        integer, byte = ir.IntType(32), ir.PointerType(ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [byte, integer, integer, integer])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        word = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        # To be written, kept in all caches, and data.
        builder.call(function, [word, integer(1), integer(3), integer(1)])

    return types.void(pointer, at), generate


@overload(as_words)  # type: ignore[untyped-decorator]
def _as_words(array: Any) -> Any:  # noqa: ARG001
    def implementation(array: Any) -> Any:
        return _word_pointer(array)

    return implementation


@overload(as_reals)  # type: ignore[untyped-decorator]
def _as_reals(array: Any) -> Any:  # noqa: ARG001
    def implementation(array: Any) -> Any:
        return _real_pointer(array)

    return implementation
