from collections.abc import Callable
from typing import Any, TypeVar, overload

from numba import types as types

_F = TypeVar("_F", bound=Callable[..., Any])

@overload
def njit(function: _F, /) -> _F: ...
@overload
def njit(
    signature: Any = ...,
    /,
    *,
    cache: bool = ...,
    nogil: bool = ...,
    inline: str = ...,
    forceinline: bool = ...,
    boundscheck: bool = ...,
    error_model: str = ...,
    fastmath: bool = ...,
    parallel: bool = ...,
    locals: dict[str, Any] = ...,
    no_cpython_wrapper: bool = ...,
) -> Callable[[_F], _F]: ...
def carray(pointer: Any, shape: Any, dtype: Any = ...) -> Any: ...
def literal_unroll(container: Any) -> Any: ...

prange = range
int8: Any
int16: Any
int32: Any
int64: Any
uint8: Any
uint32: Any
uint64: Any
float32: Any
float64: Any
boolean: Any
void: Any

class _Config:
    DISABLE_JIT: bool
    CACHE_DIR: str

config: _Config
