"""Columns of a frame as arrays, checked; what breaks a contract is told with its place."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from recoup.causal.estimate import Floats, Ints
from recoup.errors import SchemaError


def require_columns(frame: pl.DataFrame, names: Iterable[str | None]) -> None:
    """Check that a frame has rows, and the columns named.

    Raises
    ------
    SchemaError
        If it has no row, or lacks a column.
    """
    missing = [name for name in names if name is not None and name not in frame.columns]
    if missing:
        raise SchemaError(
            f"Expected columns {missing}, got {frame.columns}",
            hint="name the table's own columns: names are matched exactly",
        )
    if frame.height == 0:
        raise SchemaError("Expected at least one row, got none", hint="check the table's filter")


def number_column(frame: pl.DataFrame, name: str, *, low: float, high: float) -> Floats:
    """Give a numeric column as float64, all of it finite and within [low, high].

    Raises
    ------
    SchemaError
        If it is not numeric, or a value is absent, not finite or out of range.
    """
    column = frame.get_column(name)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise SchemaError(
            f"Expected numbers in column {name!r}, got {column.dtype}", hint="cast it, or rename"
        )
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    bad = ~((values >= low) & (values <= high))
    if bad.any():
        row = int(np.argmax(bad))
        raise SchemaError(
            f"Expected values in [{low:g}, {high:g}], got {values[row]} - at {name}[{row}]",
            hint="drop the row or correct what logged it",
        )
    return np.ascontiguousarray(values)


def reals(frame: pl.DataFrame, name: str) -> Floats:
    """Give a numeric column as finite float64, shape (n,)."""
    largest = float(np.finfo(np.float64).max)
    return number_column(frame, name, low=-largest, high=largest)


def key_codes(frame: pl.DataFrame, names: Iterable[str]) -> Ints:
    """Give one code 0..k-1 per distinct combination of columns, in order of first appearance."""
    ranks = frame.select(pl.struct(list(names)).rank("dense").cast(pl.Int64).alias("code") - 1)
    return ranks.to_series().to_numpy()
