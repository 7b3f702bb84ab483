"""NDJSON: one object a line; nested objects become columns under dotted names."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import polars as pl

from recoup.sources.lines import Line
from recoup.sources.tables import (
    BLOCK,
    MAX_COLUMNS,
    MAX_DEPTH,
    Block,
    bad_line,
    dead_frame,
    dead_letter,
)

MAX_EXACT: Final = 2**53
MAX_INT: Final = 2**63 - 1
MAX_NESTED: Final = 500
"""Levels of lists and objects in a value; interpreters differ in how many they bear."""

Record = Mapping[str, Any]


def json_blocks(label: str, lines: Iterator[Line]) -> Iterator[Block]:
    """Read lines of JSON block by block."""
    dead: list[dict[str, str]] = []
    numbers: list[int] = []
    records: list[Record] = []
    for line in lines:
        if line.reason is not None:
            dead.append(bad_line(label, line))
            continue
        found, reason = parse(line.text)
        if found is None:
            detail = WORDS[reason]
            dead.append(dead_letter(f"{label}:{line.number}", reason, detail, line.text))
            continue
        numbers.append(line.number)
        records.append(found)
        if len(records) == BLOCK:
            yield _block(label, numbers, records, dead)
            dead, numbers, records = [], [], []
    if records or dead:
        yield _block(label, numbers, records, dead)


WORDS: Final = {
    "bad_json": "the line is no JSON",
    "not_an_object": "the line is JSON, but no object",
    "bad_encoding": "a string holds half a surrogate pair",
    "too_deep": "the object is nested too deep",
}


def parse(text: str) -> tuple[Record | None, str]:
    """Give the object a line holds, or None and the reason why it holds none."""
    found, reason = parse_value(text)
    if reason or isinstance(found, dict):
        return found, reason
    return None, "not_an_object"


def parse_value(text: str) -> tuple[Any, str]:
    """Give the JSON value a text holds, or None and the reason why it holds none."""
    if _nested_deeper(text, MAX_NESTED):
        return None, "too_deep"
    try:
        return msgspec.json.decode(text), ""
    except RecursionError:
        return None, "too_deep"
    except (msgspec.DecodeError, ValueError):
        return _parse_leniently(text)


def _nested_deeper(text: str, most: int) -> bool:
    """Say whether lists and objects are nested deeper; those that never close count as well."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > most:
            return True
    return False


_STRINGS: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKETS: Final = re.compile(r"[\[\]{}]")


def _parse_leniently(text: str) -> tuple[Any, str]:
    """Take NaN and infinity as numbers: the field is refused later, not the line."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return None, "bad_encoding"
    except RecursionError:
        return None, "too_deep"
    except ValueError:
        return None, "bad_json"
    return found, ""


def _block(
    label: str, numbers: list[int], records: list[Record], dead: list[dict[str, str]]
) -> Block:
    columns: dict[str, pl.Series] = {}
    spread(records, "", 1, columns)
    rows = pl.Series(numbers, dtype=pl.Int64)
    if len(columns) > MAX_COLUMNS:
        kept = list(columns)[:MAX_COLUMNS]
        lost = ", ".join(list(columns)[MAX_COLUMNS : MAX_COLUMNS + 20])
        path = f"{label}:{numbers[0]}-{numbers[-1]}"
        detail = f"{len(columns)} fields; those behind the first {MAX_COLUMNS} are left out"
        dead.append(dead_letter(path, "too_many_fields", detail, lost))
        columns = {name: columns[name] for name in kept}
    frame = pl.DataFrame([column.alias(name) for name, column in columns.items()])
    return Block(label, frame, rows, dead_frame(dead))


def spread(
    records: Sequence[Record | None], prefix: str, depth: int, columns: dict[str, pl.Series]
) -> None:
    """Add a column for each key of the objects, and for each key of objects inside them."""
    names = dict.fromkeys(chain.from_iterable(record for record in records if record))
    for name in names:
        values = [None if record is None else record.get(name) for record in records]
        kinds = set(map(type, values))
        if dict in kinds and depth < MAX_DEPTH:
            inner = [value if isinstance(value, dict) else None for value in values]
            spread(inner, f"{prefix}{name}.", depth + 1, columns)
            values = [None if isinstance(value, dict) else value for value in values]
            kinds = set(map(type, values))
            if kinds == {type(None)}:
                continue
        _add(columns, f"{prefix}{name}", _column(values, kinds - {type(None)}))


def _add(columns: dict[str, pl.Series], name: str, column: pl.Series) -> None:
    if name in columns:
        column = columns[name].cast(pl.String).fill_null(column.cast(pl.String))
    columns[name] = column


def _column(values: list[Any], kinds: set[type]) -> pl.Series:
    if not kinds or kinds == {str}:
        return pl.Series(values, dtype=pl.String)
    if kinds == {bool}:
        return pl.Series(values, dtype=pl.Boolean)
    if kinds == {int} and _fits(values, MAX_INT):
        return pl.Series(values, dtype=pl.Int64)
    if kinds == {float} or (kinds == {int, float} and _fits(values, MAX_EXACT)):
        return pl.Series(values, dtype=pl.Float64, strict=False)
    return pl.Series([_text(value) for value in values], dtype=pl.String)


def _fits(values: list[Any], limit: int) -> bool:
    return all(
        value is None or isinstance(value, float) or -limit <= value <= limit for value in values
    )


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, RecursionError, OverflowError):
        return str(value)
