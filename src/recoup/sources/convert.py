"""From a block of raw columns to events: the mapping applied."""

import datetime as dt
from collections.abc import Mapping as Map
from collections.abc import Sequence
from typing import Final

import msgspec
import polars as pl
import xxhash

from recoup.errors import MappingError
from recoup.events import (
    CODE,
    COUNTS,
    DEAD_LETTER_SCHEMA,
    EVENT_SCHEMA,
    FLAGS,
    MONEY,
    REALS,
    EventName,
    conform,
)
from recoup.sources.base import RAW_LIMIT
from recoup.sources.grouping import group, line_frame, totals
from recoup.sources.items import item_lines, lines_kept
from recoup.sources.mapping import Column, Mapping
from recoup.sources.raw import Raw
from recoup.sources.tables import Block
from recoup.sources.values import (
    Reading,
    as_text,
    read_count,
    read_flag,
    read_money,
    read_real,
    read_text,
    read_time,
)

IGNORE: Final = "ignore"
IDS: Final = ("id", "visitor", "session", "item", "order")
WHOLE: Final = r"^(\d+)\.0$"
"""How some tools write whole numbers in a column that has gaps: 17.0 is 17."""


class Converted(msgspec.Struct, frozen=True):
    """What a block became.

    Parameters
    ----------
    events, items, dead_letters
        As in a ``SourceBatch``.
    block
        The rows that could become events: of an order log the first of each order.
    ts
        Moment of each of these rows, null where unknown.
    names
        Event name of each, as ``EventName``.
    ignored, made_ids
        Rows left out on purpose; events whose id had to be made.
    unknown
        Event names outside the vocabulary, and how often each came.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    dead_letters: pl.DataFrame
    block: Block
    ts: pl.Series
    names: pl.Series
    ignored: int
    made_ids: int
    unknown: dict[str, int]


def convert(block: Block, mapping: Mapping, now: dt.datetime) -> Converted:
    """Turn a block into events, item lines and dead letters; no row vanishes uncounted."""
    by = mapping.items.group_by if mapping.items is not None else []
    grouped = group(block, mapping.items) if mapping.items is not None and by else None
    raw = Raw(block if grouped is None else grouped.events)
    wanted = ~_ignored(raw, mapping)
    time = _time(raw, mapping, now)
    names, custom, unnamed = _names(raw, mapping)
    wanted &= custom.ne_missing(IGNORE)
    fields, complaints = _fields(raw, mapping, names)
    if grouped is not None and mapping.items is not None:
        lines, wrong = line_frame(grouped, mapping.items)
        names = _total(fields, names, totals(lines, raw.height), mapping)
    reasons = _first_reason(
        [
            (time.reasons, mapping.ts.sources[0]),
            (_when(fields["visitor"].is_null(), "missing_visitor"), _place(mapping, "visitor")),
            (_when(unnamed, "missing_event"), "".join(mapping.event.sources[:1])),
        ]
    )
    kept = wanted & reasons["reason"].is_null()
    ids, made = _ids(raw, fields.get("id"), mapping)
    columns = {
        **fields,
        "ts": time.values,
        "source": _filled(fields, "source", _always(mapping.source, raw.height)),
        "id": ids,
        "seq": _filled(fields, "seq", raw.block.rows),
        "event": names,
        "custom_name": _filled(fields, "custom_name", custom).set(names != "custom", None),
    }
    if mapping.extra:
        columns["extra"] = _filled(fields, "extra", _extra(raw, mapping))
    frame = pl.DataFrame([column.alias(name) for name, column in columns.items()])
    events = conform(frame.filter(kept), EVENT_SCHEMA)
    if grouped is None:
        items, item_complaints = item_lines(raw, mapping, kept)
    else:
        items, item_complaints = lines_kept(lines, wrong, by, kept)
    refused = wanted & reasons["reason"].is_not_null()
    dead = [_dead(raw, refused, reasons["reason"], reasons["place"])]
    for place, complaint in (*complaints, *item_complaints):
        refused = kept & complaint.is_not_null()
        dead.append(_dead(raw, refused, complaint, _always(place, raw.height)))
    unknown = custom.filter(kept & (names == "custom")).value_counts()
    return Converted(
        events,
        items,
        pl.concat([block.dead_letters, *dead]),
        raw.block,
        time.values,
        names,
        int((~wanted).sum()),
        int((made & kept).sum()),
        dict(unknown.iter_rows()),
    )


def _total(
    fields: dict[str, pl.Series], names: pl.Series, sums: pl.Series, mapping: Mapping
) -> pl.Series:
    """Add the sum of the lines as ``value``; an order with a negative sum is a refund."""
    if "value" in mapping.columns:
        return names
    back = (sums < 0).fill_null(value=False) & (names == "purchase")
    fields["value"] = sums.abs()
    return names.cast(pl.String).set(back, "refund").cast(EventName)


def _filled(fields: Map[str, pl.Series], field: str, default: pl.Series) -> pl.Series:
    return fields[field].fill_null(default) if field in fields else default


def _always(text: str, height: int) -> pl.Series:
    return pl.repeat(text, height, dtype=pl.String, eager=True)


def _ignored(raw: Raw, mapping: Mapping) -> pl.Series:
    ignored = pl.repeat(False, raw.height, dtype=pl.Boolean, eager=True)  # noqa: FBT003
    for rule in mapping.ignore:
        text = raw.text([rule.column], mapping.nulls)
        if rule.missing:
            ignored |= text.is_null()
        if rule.equals:
            ignored |= text.is_in(rule.equals).fill_null(value=False)
        if rule.matches is not None:
            ignored |= _matches(text, rule.matches, "[[ignore]]")
    return ignored


def _matches(text: pl.Series, pattern: str, place: str) -> pl.Series:
    try:
        return text.str.contains(pattern).fill_null(value=False)
    except pl.exceptions.ComputeError as error:
        raise MappingError(
            f"Expected a regular expression under {place}, got `{pattern}`: {error}"
        ) from error


def _time(raw: Raw, mapping: Mapping, now: dt.datetime) -> Reading:
    sources = mapping.ts.sources
    column = (
        raw.get(sources[0]) if len(sources) == 1 else raw.text(sources, mapping.nulls, joint=" ")
    )
    return read_time(column, mapping.ts.formats, zone=mapping.ts.timezone, now=now)


def _names(raw: Raw, mapping: Mapping) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Give each row's name (EventName), its raw name, and whether it has none."""
    rule = mapping.event
    if rule.constant is not None:
        text = _always(rule.constant, raw.height)
    else:
        text = raw.text(rule.sources, mapping.nulls, joint=".")
    known = text.replace(rule.names) if rule.names else text
    if rule.patterns:
        known = known.zip_with(text.is_in(list(rule.names)), _patterned(text, rule.patterns))
    tidy = known.str.strip_chars().str.to_lowercase().str.replace_all(r"[\s-]+", "_")
    canonical = tidy.set(~tidy.is_in(list(CODE)).fill_null(value=False), "custom")
    custom = text.set(known.eq_missing(IGNORE), IGNORE)
    return canonical.fill_null("custom").cast(EventName), custom, text.is_null()


def _patterned(text: pl.Series, patterns: Map[str, str]) -> pl.Series:
    """Give the name of the first pattern that fits each text, or the text."""
    named = pl.Series([None], dtype=pl.String).new_from_index(0, len(text))
    for pattern, name in patterns.items():
        named = named.set(_matches(text, pattern, "[event]") & named.is_null(), name)
    return named.fill_null(text)


def _place(mapping: Mapping, field: str) -> str:
    sources = mapping.columns[field].sources
    return sources[0] if sources else field


def _fields(
    raw: Raw, mapping: Mapping, names: pl.Series
) -> tuple[dict[str, pl.Series], list[tuple[str, pl.Series]]]:
    """Give the fields of ``[columns]``, and per field the reason codes of what it refused."""
    fields: dict[str, pl.Series] = {}
    complaints: list[tuple[str, pl.Series]] = []
    for field, rule in mapping.columns.items():
        reading = _field(raw, field, rule, mapping, names)
        fields[field] = reading.values
        if reading.reasons.null_count() < raw.height:
            complaints.append((_place(mapping, field), reading.reasons))
    return fields, complaints


def _field(raw: Raw, field: str, rule: Column, mapping: Mapping, names: pl.Series) -> Reading:
    column = _source(raw, rule, mapping)
    if field in MONEY:
        reading = read_money(column, rule.unit)
    elif field in COUNTS or field == "seq":
        reading = read_count(_scaled(column, rule.scale))
    elif field in REALS:
        reading = read_real(_scaled(column, rule.scale))
    elif field in FLAGS:
        return read_flag(column)
    else:
        text = read_text(column, tuple(mapping.nulls))
        text = text.str.replace(WHOLE, "$1") if field in IDS else text
        text = text.replace(rule.values) if rule.values else text
        return Reading(text, pl.Series([None], dtype=pl.String).new_from_index(0, raw.height))
    if field == "quantity":
        taken = names.is_in(["remove_from_cart", "refund", "return"])
        reading = Reading(reading.values.zip_with(~taken, reading.values.abs()), reading.reasons)
    return _not_negative(field, reading)


def _source(raw: Raw, rule: Column, mapping: Mapping) -> pl.Series:
    if rule.constant is not None:
        return pl.Series([rule.constant]).new_from_index(0, raw.height)
    if rule.any:
        first, *others = (raw.text([name], mapping.nulls) for name in rule.any)
        for other in others:
            first = first.fill_null(other)
        return first
    if len(rule.sources) == 1:
        return raw.get(rule.sources[0])
    return raw.text(rule.sources, mapping.nulls)


def _scaled(column: pl.Series, scale: float) -> pl.Series:
    if scale == 1.0:
        return column
    if column.dtype.is_numeric():
        return column.cast(pl.Float64) * scale
    numbers = read_text(column)
    scaled = numbers.cast(pl.Float64, strict=False) * scale
    return scaled.cast(pl.String).fill_null(numbers)


def _not_negative(field: str, reading: Reading) -> Reading:
    negative = (reading.values < 0).fill_null(value=False)
    if field == "seq" or not negative.any():
        return reading
    return Reading(
        reading.values.set(negative, None), reading.reasons.set(negative, f"negative_{field}")
    )


def _when(mask: pl.Series, reason: str) -> pl.Series:
    none = pl.Series([None], dtype=pl.String).new_from_index(0, len(mask))
    return none.set(mask, reason)


def _first_reason(checks: Sequence[tuple[pl.Series, str]]) -> dict[str, pl.Series]:
    """Give the first reason against each row, and the column it stands in."""
    reason = _when(pl.repeat(False, len(checks[0][0]), dtype=pl.Boolean, eager=True), "")  # noqa: FBT003
    place = reason
    for found, column in checks:
        new = reason.is_null() & found.is_not_null()
        if new.any():
            place = place.set(new, column)
            reason = reason.fill_null(found)
    return {"reason": reason, "place": place}


def _ids(raw: Raw, given: pl.Series | None, mapping: Mapping) -> tuple[pl.Series, pl.Series]:
    """Give every row's id, and which were made: from the row's content and its place."""
    if given is None:
        given = pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    missing = given.is_null()
    if not missing.any():
        return given, missing
    frame = raw.block.frame.filter(missing)
    texts = [as_text(column).fill_null("").alias(str(n)) for n, column in enumerate(frame)]
    content = pl.DataFrame(texts).select(pl.concat_str(pl.all(), separator="\x1f")).to_series()
    numbers = raw.block.rows.filter(missing).to_list()
    prefix = f"{raw.block.label}\x1f{mapping.source}\x1f"
    made = [
        xxhash.xxh3_64_hexdigest(f"{prefix}{number}\x1f{text}".encode())
        for number, text in zip(numbers, content.to_list(), strict=True)
    ]
    places = missing.arg_true()
    return given.scatter(places, made), missing


def _extra(raw: Raw, mapping: Mapping) -> pl.Series:
    """Keep the columns that nothing reads as one JSON object, without nulls."""
    used = read_columns(mapping)
    frame = raw.block.frame
    parts = []
    for name in frame.columns:
        if name in used or frame[name].null_count() == raw.height:
            continue
        column = frame[name]
        flat = as_text(column) if not column.dtype.is_numeric() else column
        parts.append(_json_field(name, flat))
    if not parts:
        return pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    joined = (
        pl.DataFrame(parts)
        .select(pl.concat_str(pl.all(), separator=",", ignore_nulls=True))
        .to_series()
    )
    whole = "{" + joined + "}"
    return whole.set(joined == "", None)


def _json_field(name: str, column: pl.Series) -> pl.Series:
    """Give `"name":value` for each value, null where there is none."""
    encoded = pl.DataFrame({name: column}).to_struct().struct.json_encode()
    text = encoded.str.strip_prefix("{").str.strip_suffix("}")
    empty = column.is_null() | (column.is_nan() if column.dtype.is_float() else False)
    return text.set(empty, None).alias(name)


def read_columns(mapping: Mapping) -> set[str]:
    """Give the raw columns that a mapping reads."""
    used = {*mapping.ts.sources, *mapping.event.sources}
    used.update(*(rule.sources for rule in mapping.columns.values()))
    used.update(rule.column for rule in mapping.ignore)
    if (items := mapping.items) is not None:
        used.update([items.column] if items.column else items.columns, items.needs)
        if items.group_by:
            used.update(items.group_by, items.fields.values())
    return used


def _dead(raw: Raw, rows: pl.Series, reasons: pl.Series, places: pl.Series) -> pl.DataFrame:
    if not rows.any():
        return pl.DataFrame(schema=DEAD_LETTER_SCHEMA)
    frame = raw.block.frame.filter(rows)
    flat = pl.DataFrame([as_text(column) for column in frame])
    columns = {
        "number": raw.block.rows.filter(rows),
        "reason": reasons.filter(rows),
        "place": places.filter(rows),
        "raw": flat.to_struct().struct.json_encode().str.head(RAW_LIMIT),
    }
    # Columns in chunks of unlike lengths make `format` panic.
    return (
        pl.DataFrame(columns)
        .rechunk()
        .select(
            path=pl.format("{}:{} $.{}", pl.lit(raw.block.label), "number", "place"),
            reason="reason",
            detail=pl.col("reason").replace_strict(DETAILS, default=NEGATIVE),
            raw="raw",
        )
    )


DETAILS: Final = {
    "missing_timestamp": "the row has no time",
    "bad_timestamp": "the time could not be read, or lies before 1990",
    "future_timestamp": "the time lies more than a day ahead of the clock",
    "missing_visitor": "the row names no visitor",
    "missing_event": "the row does not say what happened",
    "bad_number": "expected a number, finite, not beyond what the field can hold, and whole where "
    "it counts; the event is kept without this field",
    "bad_flag": "expected true or false; the event is kept without this field",
    "bad_items": "expected a list of items, with values that can be read; the event is kept "
    "without what cannot",
    "too_many_items": "more items than an event can have; those behind are left out",
}
NEGATIVE: Final = "the value is negative; the event is kept without this field"
"""Reason -> words; the other reasons are ``negative_...``, of a field that cannot be negative."""
