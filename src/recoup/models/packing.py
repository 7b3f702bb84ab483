"""Artefacts as bytes: a few settings and named arrays, the same bytes for the same content."""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError

_DTYPES: Final = ("<f8", "<f4", "<i8", "<i4", "<u4", "|i1")


class _Packed(msgspec.Struct, array_like=True):
    kind: str
    meta: dict[str, object]
    arrays: dict[str, tuple[str, tuple[int, ...], bytes]]


def pack(kind: str, meta: Mapping[str, object], arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Turn settings and arrays into bytes that depend on nothing else.

    Parameters
    ----------
    kind
        What it is, with the version of its layout: ``trees/1``.
    """
    packed = {
        name: (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
        for name, array in arrays.items()
    }
    return msgspec.msgpack.encode(_Packed(kind, dict(meta), packed), order="deterministic")


def unpack(kind: str, data: bytes) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
    """Read back what :func:`pack` made.

    Raises
    ------
    ModelError
        If the bytes are of another kind or version, or no such artefact at all.
    """
    try:
        packed = msgspec.msgpack.decode(data, type=_Packed)
    except msgspec.MsgspecError as error:
        raise ModelError(f"Expected a `{kind}` artefact, got other bytes: {error}") from error
    if packed.kind != kind:
        raise ModelError(
            f"Expected a `{kind}` artefact, got `{packed.kind}`", hint="train the model again"
        )
    return packed.meta, {name: _array(name, *parts) for name, parts in packed.arrays.items()}


def digest(data: bytes) -> str:
    """Give the SHA-256 of an artefact's bytes, in hexadecimal: the model's identity."""
    return hashlib.sha256(data).hexdigest()


def _array(name: str, dtype: str, shape: tuple[int, ...], data: bytes) -> NDArray[np.generic]:
    if dtype not in _DTYPES:
        raise ModelError(f"Expected array `{name}` of a known type, got {dtype}")
    try:
        return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
    except ValueError as error:
        raise ModelError(f"Expected array `{name}` of shape {shape}: {error}") from error
