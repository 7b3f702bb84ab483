"""Item lines, from a list in a column or from several columns."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from recoup.events import ITEM_SCHEMA, ItemRole, conform
from recoup.sources.json_table import spread
from recoup.sources.mapping import Items, Mapping
from recoup.sources.raw import Raw
from recoup.sources.tables import unnested
from recoup.sources.values import read_count, read_money, read_text

Complaint = tuple[str, pl.Series]
MAX_LINES: Final = 10_000
"""Item lines of one event; what is behind them is left out, and said."""
AMOUNTS: Final = ("price", "value")
WHOLE: Final = ("quantity", "position")


def item_lines(raw: Raw, mapping: Mapping, kept: pl.Series) -> tuple[pl.DataFrame, list[Complaint]]:
    """Give the item lines of the rows kept, and per column what it refused."""
    rule = mapping.items
    if rule is None:
        return pl.DataFrame(schema=ITEM_SCHEMA), []
    if rule.columns:
        return _from_columns(raw, rule, mapping, kept), []
    if rule.column is None:
        return pl.DataFrame(schema=ITEM_SCHEMA), []
    return _from_list(raw, mapping, rule.column, kept)


def lines_kept(
    lines: pl.DataFrame, wrong: pl.Series, by: Sequence[str], kept: pl.Series
) -> tuple[pl.DataFrame, list[Complaint]]:
    """Keep the lines of the events kept, renumbered, and say which events had a bad line."""
    complaints = pl.Series([None], dtype=pl.String).new_from_index(0, len(kept))
    complaints = complaints.scatter(wrong, "bad_items") if len(wrong) else complaints
    places = pl.DataFrame({"event": kept.arg_true(), "to": _numbers(kept)})
    joined = lines.join(places, on="event", how="inner", maintain_order="left")
    renumbered = joined.with_columns(event=pl.col("to")).drop("to")
    return conform(renumbered, ITEM_SCHEMA), [(by[0], complaints)]


def _from_columns(raw: Raw, rule: Items, mapping: Mapping, kept: pl.Series) -> pl.DataFrame:
    number = _numbers(kept)
    parts = [
        pl.DataFrame(
            {"event": number, "item": raw.text([name], mapping.nulls).filter(kept)}
        ).drop_nulls("item")
        for name in rule.columns
    ]
    lines = pl.concat(parts).sort("event", maintain_order=True)
    return conform(lines.with_columns(role=pl.lit(rule.role)), ITEM_SCHEMA)


def _numbers(kept: pl.Series) -> pl.Series:
    return pl.Series(np.arange(int(kept.sum()), dtype=np.uint32))


def _from_list(
    raw: Raw, mapping: Mapping, name: str, kept: pl.Series
) -> tuple[pl.DataFrame, list[Complaint]]:
    column = raw.get(name)
    complaints = pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    if isinstance(column.dtype, pl.List | pl.Array):
        lists = pl.DataFrame({"event": _numbers(kept), "line": column.filter(kept)})
        lines = _flat(lists.explode("line").drop_nulls("line"))
    else:
        lines, complaints = _parse(column, kept)
    if lines.is_empty():
        return pl.DataFrame(schema=ITEM_SCHEMA), [(name, complaints)]
    shaped, refused = _shape(lines, mapping)
    if len(refused):
        places = pl.DataFrame({"row": kept.arg_true(), "event": _numbers(kept)})
        rows = places.filter(pl.col("event").is_in(refused.implode()))["row"]
        complaints = complaints.scatter(rows, "bad_items")
    return shaped, [(name, complaints)]


def _parse(column: pl.Series, kept: pl.Series) -> tuple[pl.DataFrame, pl.Series]:
    """Read lists written as JSON text: one row per line, and per row what was wrong with it."""
    numbers: list[int] = []
    lines: list[dict[str, Any]] = []
    wrong: list[str | None] = []
    number = 0
    for text, keep in zip(read_text(column).to_list(), kept.to_list(), strict=True):
        found = _list(text) if keep and text is not None else []
        wrong.append(_wrong(found))
        for line in (found or [])[:MAX_LINES]:
            if line is None:
                continue
            numbers.append(number)
            lines.append(line if isinstance(line, dict) else {"item": line})
        number += keep
    columns: dict[str, pl.Series] = {}
    spread(lines, "", 1, columns)
    columns["event"] = pl.Series(numbers, dtype=pl.UInt32)
    frame = pl.DataFrame([column.alias(name) for name, column in columns.items()])
    return frame, pl.Series(wrong, dtype=pl.String)


def _wrong(found: list[Any] | None) -> str | None:
    if found is None:
        return "bad_items"
    return "too_many_items" if len(found) > MAX_LINES else None


def _list(text: str) -> list[Any] | None:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        return [found]
    return found if isinstance(found, list) else None


def _shape(lines: pl.DataFrame, mapping: Mapping) -> tuple[pl.DataFrame, pl.Series]:
    """Bring lines to ``ITEM_SCHEMA``; give the events of lines with a bad field."""
    rule = mapping.items or Items()
    columns: dict[str, pl.Series] = {"event": lines["event"]}
    wrong = [lines["event"].head(0)]
    for field in ITEM_SCHEMA:
        name = rule.fields.get(field, field)
        if "event" in {field, name} or name not in lines.columns:
            continue
        columns[field], bad = _field(field, lines[name], rule, mapping.nulls)
        wrong.append(lines["event"].filter(bad))
    none = pl.Series([None], dtype=pl.String).new_from_index(0, lines.height)
    roles = columns.get("role", none)
    known = roles.is_in(ItemRole.categories.to_list()).fill_null(value=False)
    columns["role"] = roles.set(~known, None).fill_null(rule.role)
    frame = conform(pl.DataFrame([c.alias(n) for n, c in columns.items()]), ITEM_SCHEMA)
    return frame, pl.concat(wrong).unique()


def _flat(lines: pl.DataFrame) -> pl.DataFrame:
    """Give the fields of the lines as columns, beside the number of their event."""
    if not isinstance(lines.schema["line"], pl.Struct):
        return lines.rename({"line": "item"})
    inner = unnested(lines["line"].struct.unnest())
    if "event" in inner.columns:
        inner = inner.drop("event")
    return inner.insert_column(0, lines["event"])


def _field(
    field: str, column: pl.Series, rule: Items, nulls: tuple[str, ...]
) -> tuple[pl.Series, pl.Series]:
    if field in AMOUNTS:
        reading = read_money(column, rule.unit)
    elif field in WHOLE:
        reading = read_count(column)
    else:
        text = read_text(column, nulls)
        return text, text.is_null() & text.is_not_null()
    negative = (reading.values < 0).fill_null(value=False)
    return reading.values.set(negative, None), reading.reasons.is_not_null() | negative
