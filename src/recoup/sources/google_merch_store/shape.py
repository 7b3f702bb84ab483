"""One table, brought to the columns and types that the rest reads."""

import datetime as dt
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.events import DEAD_LETTER_SCHEMA, TIMESTAMP
from recoup.sources.base import RAW_LIMIT, no_dead_letters
from recoup.sources.drift import has_value
from recoup.sources.files import LogFile, find_files
from recoup.sources.follow import BOTH, Profile, alike
from recoup.sources.google_merch_store.columns import (
    AMOUNTS,
    KEY,
    LEFT,
    NOTHING,
    TABLES,
    VISIT,
    Columns,
)
from recoup.sources.readers import read_blocks
from recoup.sources.tables import Dialect
from recoup.sources.values import TRUE, read_time

FAR: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
SPREAD: Final = 4_000
COVERED: Final = 0.5
"""Share of a column's gaps that another must fill to have taken its place."""


def table_file(folder: Path, name: str) -> Path | None:
    """Find the file of a table, in any format."""
    found = sorted(path for path in folder.glob(f"{name}.*") if path.is_file())
    parquet = [path for path in found if path.suffix == ".parquet"]
    return next(iter(parquet or found), None)


def read_table(folder: Path, name: str) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Read a table as it stands, and what of it is no record; None where there is no such table.

    Raises
    ------
    SourceError
        If the table of hits is not there, or a table cannot be read.
    """
    path = table_file(folder, name)
    if path is None:
        if name == "events":
            raise SourceError(
                f"Expected a table of hits, got no events.parquet in `{folder}`",
                hint="the directory should hold events, and sessions, hit_products and "
                "hit_promotions where there are any",
            )
        return None, no_dead_letters()
    file = find_files(path)[0]
    return _read_parquet(file, name) if file.kind == "parquet" else _read_text(file)


def _read_parquet(file: LogFile, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    try:
        scan = pl.scan_parquet(file.path)
        unread = set(LEFT[name])
        schema = scan.collect_schema()
        wanted = [column for column in schema if column not in unread]
        lines = pl.Categorical() in TABLES[name].values()
        coded = [
            pl.col(column).cast(pl.Categorical)
            for column in wanted
            if lines and schema[column] == pl.String and column not in VISIT
        ]
        return scan.select(wanted).with_columns(coded).collect(
            engine="streaming"
        ), no_dead_letters()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"Expected a Parquet table, got `{file.path}`: {error}", hint="copy the file anew"
        ) from error


def _read_text(file: LogFile) -> tuple[pl.DataFrame, pl.DataFrame]:
    blocks = list(read_blocks(file, Dialect()))
    if not blocks:
        return pl.DataFrame(), no_dead_letters()
    dead = pl.concat([block.dead_letters for block in blocks])
    frames = [block.frame.cast(pl.String) for block in blocks if block.frame.width]
    return pl.concat(frames, how="diagonal"), dead


class Change(msgspec.Struct, frozen=True):
    """A column read on under another name.

    Parameters
    ----------
    old, new
        The names.
    reason
        What the judgement rests on.
    rows
        Rows in which only the new one has a value, ascending; None where the table never has the
        old one.

    Examples
    --------
    >>> Change("device", "device_type", "alike", None).new
    'device_type'
    """

    old: str
    new: str
    reason: str
    rows: pl.Series | None


def settle(name: str, table: pl.DataFrame) -> tuple[pl.DataFrame, list[Change]]:
    """Find columns under new names, and fill the old ones from them."""
    expected = TABLES[name]
    strange = [c for c in table.columns if c not in expected and c not in LEFT[name]]
    lacking = [c for c in expected if c not in table.columns or table[c].null_count()]
    changes: list[Change] = []
    for old in lacking if strange else []:
        gone = [c for c in expected if c not in table.columns]
        alone = len(strange) == 1 and gone in ([old], [])
        found = [
            (judged[0], new, judged[1])
            for new in strange
            if all(new != change.new for change in changes)
            and (judged := _takes_place(table, old, new, alone=alone)) is not None
        ]
        if found:
            _, new, reason = max(found)
            began = has_value(table[new]).arg_true() if old in table.columns else None
            changes.append(Change(old, new, reason, began))
    for change in changes:
        known = change.old in table.columns
        filled = pl.coalesce(change.old, change.new) if known else pl.col(change.new)
        table = table.with_columns(filled.alias(change.old))
    return table.drop(change.new for change in changes), changes


def _takes_place(
    table: pl.DataFrame, old: str, new: str, *, alone: bool
) -> tuple[float, str] | None:
    """Judge whether a strange column has what a known one lacks."""
    second = has_value(table[new])
    after = Profile()
    after.add(_spread(table[new].filter(second)), int(second.sum()), sample=SPREAD)
    before = Profile()
    if old in table.columns:
        if table.schema[old] != table.schema[new]:
            return None
        first = has_value(table[old])
        gaps = int((~first).sum())
        share = int(first.sum()) / table.height
        both = int((first & second).sum())
        if both > BOTH * table.height or after.present < COVERED * gaps * share:
            return None
        before.add(_spread(table[old].filter(first)), int(first.sum()), sample=SPREAD)
    elif alone:
        return 0.5, "it is the only column that came, as the other is the only one that went"
    return alike(old, new, before, after, alone=alone)


def key_types(events: pl.DataFrame) -> Columns:
    """Say how to hold the keys: as numbers where the hits have numbers, else as text."""
    return {
        name: pl.UInt64() if events.schema.get(name, KEY).is_integer() else KEY for name in VISIT
    }


def _spread(column: pl.Series) -> pl.Series:
    """Take values from all over a column, rather than from its beginning."""
    return column.gather_every(max(1, len(column) // SPREAD))


def shape(
    name: str, table: pl.DataFrame, label: str, keys: Columns
) -> tuple[pl.DataFrame, pl.DataFrame, list[Finding]]:
    """Give just the columns expected, in their types, with what had to be refused."""
    findings = [
        Finding("column_missing", f"{name}.{c}", None, None, f"Table `{name}` has no `{c}`.")
        for c in TABLES[name]
        if c not in table.columns
    ]
    columns: Columns = {**TABLES[name], **keys}
    typed = table.select(_typed(table, c, dtype).alias(c) for c, dtype in columns.items())
    dead = [no_dead_letters()]
    for column in columns:
        if column not in table.columns:
            continue
        dead += _refused(typed, table, column, label)
        if column in AMOUNTS:
            fit = pl.col(column) >= 0
            typed = typed.with_columns(pl.when(fit).then(column).alias(column))
    return typed, pl.concat(dead), findings


def _typed(table: pl.DataFrame, column: str, dtype: pl.DataType) -> pl.Expr:
    if column not in table.columns:
        return pl.lit(None, dtype)
    got, value = table.schema[column], pl.col(column)
    if dtype == TIMESTAMP:
        return pl.lit(_moments(table[column]))
    if isinstance(dtype, pl.String | pl.Categorical):
        return _known(value, got, dtype)
    if dtype == pl.Boolean and got == pl.String:
        return pl.when(value.is_not_null()).then(value.str.to_lowercase().is_in(TRUE))
    number = value.cast(pl.Float64, strict=False) if got == pl.String else value
    if number is not value or got.is_float():
        number = pl.when(number.is_finite()).then(number)
    return number.cast(dtype, strict=False)


def _known(value: pl.Expr, got: pl.DataType, dtype: pl.DataType) -> pl.Expr:
    """Give texts, null where the export writes that it does not know."""
    text = value if got == pl.String else value.cast(pl.String)
    kept = value if got == dtype else text.cast(dtype)
    return pl.when(~text.is_in(NOTHING)).then(kept)


def _moments(column: pl.Series) -> pl.Series:
    """Read moments; which of them lie ahead of the clock is judged with the hits."""
    return read_time(column, ("auto",), zone="UTC", now=FAR).values


def _refused(
    typed: pl.DataFrame, table: pl.DataFrame, column: str, label: str
) -> list[pl.DataFrame]:
    """Make dead letters of the values that could not be read, or cannot be."""
    raw, read = table[column], typed[column]
    if column in VISIT or not read.dtype.is_numeric():
        return []
    unread = has_value(raw) & read.is_null()
    if raw.dtype == pl.String:
        unread &= ~raw.is_in(NOTHING).fill_null(value=False)
    masks = {"bad_number": unread}
    if column in AMOUNTS:
        masks[f"negative_{column}"] = (read < 0).fill_null(value=False)
    return [
        dead_rows(table, mask, label, column, reason)
        for reason, mask in masks.items()
        if mask.any()
    ]


def dead_rows(
    table: pl.DataFrame, rows: pl.Series, label: str, column: str, reason: str
) -> pl.DataFrame:
    """Make a dead letter of each of the rows."""
    picked = table.with_row_index("line_").filter(rows)
    return picked.select(
        path=pl.format("{}:{} $.{}", pl.lit(label), pl.col("line_") + 1, pl.lit(column)),
        reason=pl.lit(reason),
        detail=pl.lit(DETAILS.get(reason, "the number is negative; the row is kept without it")),
        raw=pl.struct(pl.exclude("line_")).struct.json_encode().str.head(RAW_LIMIT),
    ).cast(DEAD_LETTER_SCHEMA)


DETAILS: Final = {
    "bad_number": "expected a finite number; the row is kept without it",
    "missing_visitor": "the hit names no visitor",
    "bad_timestamp": "the hit has no time that can be read",
    "future_timestamp": "the time lies more than a day ahead of the clock",
}
