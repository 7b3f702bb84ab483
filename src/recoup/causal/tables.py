"""Columns of a frame as arrays, checked; what breaks a contract is told with its place."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.causal.estimate import Floats, Ints
from recoup.errors import SchemaError

LARGEST: Final = 1e50
"""The largest number that is taken: the fourth powers of a column must still add up."""


def require_columns(
    frame: pl.DataFrame, names: Iterable[str | None], *, nested: bool = False
) -> None:
    """Check that a frame has rows, and the columns named.

    Raises
    ------
    SchemaError
        If it has no row, or lacks a column, or one holds lists or structs, unless ``nested`` ones
        are expected.
    """
    named = [name for name in names if name is not None]
    missing = [name for name in named if name not in frame.columns]
    if missing:
        raise SchemaError(
            f"Expected columns {missing}, got {frame.columns}",
            hint="name the table's own columns: names are matched exactly",
        )
    if frame.height == 0:
        raise SchemaError("Expected at least one row, got none", hint="check the table's filter")
    for name in () if nested else named:
        if frame.schema[name].is_nested() or frame.schema[name] == pl.Object:
            raise SchemaError(
                f"Expected one value a row in column {name!r}, got {frame.schema[name]}",
                hint="unnest it, or name another column",
            )


def number_column(frame: pl.DataFrame, name: str, *, low: float, high: float) -> Floats:
    """Give a numeric column as float64, all of it finite and within [low, high].

    Raises
    ------
    SchemaError
        If it is not numeric, or a value is absent, not finite or out of range.
    """
    values = numbers(frame, name)
    bad = ~((values >= low) & (values <= high))
    if bad.any():
        row = int(np.argmax(bad))
        raise SchemaError(
            f"Expected values in [{low:g}, {high:g}], got {values[row]} - at {name}[{row}]",
            hint="drop the row or correct what logged it",
        )
    return np.ascontiguousarray(values)


def flags(frame: pl.DataFrame, name: str) -> NDArray[np.bool_]:
    """Give a column of 0 and 1 (or of booleans) as booleans, shape (n,).

    Raises
    ------
    SchemaError
        If a value is absent, or neither.
    """
    values = numbers(frame, name)
    bad = (values != 0) & (values != 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise SchemaError(
            f"Expected 0 or 1, got {values[row]} - at {name}[{row}]",
            hint="drop the row or correct what logged it",
        )
    return np.asarray(values == 1)


def numbers(frame: pl.DataFrame, name: str) -> Floats:
    """Give a numeric column as float64, shape (n,); NaN where a value is absent.

    Raises
    ------
    SchemaError
        If it is not numeric.
    """
    column = frame.get_column(name)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise SchemaError(
            f"Expected numbers in column {name!r}, got {column.dtype}", hint="cast it, or rename"
        )
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def reals(frame: pl.DataFrame, name: str) -> Floats:
    """Give a numeric column as finite float64, shape (n,)."""
    return number_column(frame, name, low=-LARGEST, high=LARGEST)


def named_codes(frame: pl.DataFrame, name: str) -> Ints:
    """Give one code 0..k-1 per distinct value of a key, in order; every row must have one.

    Raises
    ------
    SchemaError
        If a value is absent.
    """
    column = frame.get_column(name)
    absent = column.is_null()
    if column.dtype.is_float():
        absent = absent | column.is_nan().fill_null(value=False)
    if absent.any():
        row = int(absent.arg_max() or 0)
        raise SchemaError(
            f"Expected a value in every row, got {column[row]} - at {name}[{row}]",
            hint="drop the rows that cannot be told apart, or give them keys of their own",
        )
    return key_codes(frame, [name])


def cluster_codes(frame: pl.DataFrame, name: str) -> Ints:
    """Give one code 0..k-1 per cluster of rows.

    Raises
    ------
    SchemaError
        If a value is absent, or all rows are one cluster: nothing is known of how clusters differ.
    """
    codes = named_codes(frame, name)
    if frame.height > 1 and codes.max() == 0:
        raise SchemaError(
            f"Expected several clusters in column {name!r}, got one",
            hint="name the column of what is independent, such as the visitor",
        )
    return codes


def key_codes(frame: pl.DataFrame, names: Iterable[str]) -> Ints:
    """Give one code 0..k-1 per distinct combination of columns, in order of first appearance."""
    ranks = frame.select(pl.struct(list(names)).rank("dense").cast(pl.Int64).alias("code") - 1)
    return ranks.to_series().to_numpy()
