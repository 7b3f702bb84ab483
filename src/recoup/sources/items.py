"""Item lines, from a list in a column or from several columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from recoup.events import ITEM_SCHEMA, ItemRole, conform
from recoup.sources.mapping import Items, Mapping
from recoup.sources.tables import unnested
from recoup.sources.values import read_count, read_money, read_text

if TYPE_CHECKING:
    from recoup.sources.convert import Raw

Complaint = tuple[str, pl.Series]
MAX_LINES: Final = 10_000
"""Item lines of one event; what is behind them is left out, and said."""
AMOUNTS: Final = ("price", "value")
WHOLE: Final = ("quantity", "position")


def item_lines(
    raw: "Raw", mapping: Mapping, kept: pl.Series
) -> tuple[pl.DataFrame, list[Complaint]]:
    """Give the item lines of the rows kept, and per column what it refused."""
    rule = mapping.items
    if rule is None:
        return pl.DataFrame(schema=ITEM_SCHEMA), []
    if rule.columns:
        return _from_columns(raw, rule, mapping, kept), []
    if rule.column is None:
        return pl.DataFrame(schema=ITEM_SCHEMA), []
    return _from_list(raw, rule, rule.column, kept)


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


def _from_columns(raw: "Raw", rule: Items, mapping: Mapping, kept: pl.Series) -> pl.DataFrame:
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
    raw: "Raw", rule: Items, name: str, kept: pl.Series
) -> tuple[pl.DataFrame, list[Complaint]]:
    column = raw.get(name)
    complaints = pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    if not isinstance(column.dtype, pl.List | pl.Array):
        column, wrong = _parse(column)
        complaints = complaints.set(wrong, "bad_items")
    lists = pl.DataFrame({"event": _numbers(kept), "line": column.filter(kept)})
    lines = lists.explode("line").drop_nulls("line")
    if lines.is_empty():
        return pl.DataFrame(schema=ITEM_SCHEMA), [(name, complaints)]
    shaped, wrong = _shape(lines, rule)
    if wrong is not None:
        places = pl.DataFrame({"row": kept.arg_true(), "event": _numbers(kept)})
        rows = places.filter(pl.col("event").is_in(wrong.implode()))["row"]
        complaints = complaints.scatter(rows, "bad_items")
    return shaped, [(name, complaints)]


def _parse(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Read lists written as JSON text."""
    text = read_text(column)
    parsed = [None if value is None else _list(value) for value in text.to_list()]
    wrong = pl.Series([value is BAD for value in parsed], dtype=pl.Boolean)
    lists = [[] if value is None or value is BAD else value for value in parsed]
    keys = dict.fromkeys(
        key for lines in lists for line in lines if isinstance(line, dict) for key in line
    )
    rows = [[_strings(line, keys) for line in lines] for lines in lists]
    struct = pl.Struct({key: pl.String() for key in keys} or {"item": pl.String()})
    return pl.Series("line", rows, pl.List(struct)), wrong


BAD: Final[list[Any]] = [None]


def _list(text: str) -> list[Any]:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return BAD
    if isinstance(found, dict):
        return [found]
    return found[:MAX_LINES] if isinstance(found, list) else BAD


def _strings(line: object, keys: dict[str, None]) -> dict[str, str | None]:
    if isinstance(line, dict):
        return {key: _string(line.get(key)) for key in keys}
    return {"item": _string(line)}


def _string(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _shape(lines: pl.DataFrame, rule: Items) -> tuple[pl.DataFrame, pl.Series | None]:
    """Bring exploded lines to ``ITEM_SCHEMA``; give the events of lines with a bad field."""
    if not isinstance(lines.schema["line"], pl.Struct):
        frame = lines.select("event", item=read_text(lines["line"]))
        return conform(frame.with_columns(role=pl.lit(rule.role)), ITEM_SCHEMA), None
    flat = _flat(lines)
    columns: dict[str, pl.Series] = {"event": flat["event"]}
    wrong: list[pl.Series] = []
    for field in ITEM_SCHEMA:
        name = rule.fields.get(field, field)
        if field == "event" or name not in flat.columns or name == "event":
            continue
        columns[field], bad = _field(field, flat[name], rule)
        wrong.append(flat["event"].filter(bad))
    roles = columns.get("role", pl.Series([None], dtype=pl.String).new_from_index(0, flat.height))
    valid = roles.set(~roles.is_in(ItemRole.categories.to_list()).fill_null(value=False), None)
    columns["role"] = valid.fill_null(rule.role)
    bad_events = pl.concat(wrong).unique() if wrong else None
    frame = conform(pl.DataFrame([c.alias(n) for n, c in columns.items()]), ITEM_SCHEMA)
    return frame, bad_events if bad_events is not None and len(bad_events) else None


def _flat(lines: pl.DataFrame) -> pl.DataFrame:
    """Give the fields of the lines as columns, beside the number of their event."""
    inner = unnested(lines["line"].struct.unnest())
    if "event" in inner.columns:
        inner = inner.drop("event")
    return inner.insert_column(0, lines["event"])


def _field(field: str, column: pl.Series, rule: Items) -> tuple[pl.Series, pl.Series]:
    if field in AMOUNTS:
        reading = read_money(column, rule.unit)
    elif field in WHOLE:
        reading = read_count(column)
    else:
        text = read_text(column)
        return text, text.is_null() & text.is_not_null()
    negative = (reading.values < 0).fill_null(value=False)
    return reading.values.set(negative, None), reading.reasons.is_not_null() | negative
