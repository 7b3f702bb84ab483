"""A mapping written as TOML, with what its reader should check as comments."""

import json
from collections.abc import Mapping as Map
from typing import Any

import msgspec

from recoup.sources.mapping import Column, Mapping

PARTS = ("ts", "event", "columns", "items", "ignore")


def render(mapping: Mapping, notes: Map[str, str], *, title: str) -> str:
    """Write a mapping as the text that ``parse_mapping`` reads back.

    Parameters
    ----------
    mapping
        What to write; whatever has its default is left out.
    notes
        Comments, by part of the mapping.
    title
        First line, a comment.
    """
    plain = {
        name: value
        for name, value in _changed(mapping).items()
        if name not in PARTS and name != "nulls"
    }
    lines = [f"# {title}", f"source = {_value(mapping.source)}"]
    lines += _comments(notes, "order")
    lines += [f"{name} = {_value(value)}" for name, value in plain.items() if name != "source"]
    lines += ["", "[ts]", *_comments(notes, "ts"), *_body(_changed(mapping.ts))]
    lines += ["", "[event]", *_comments(notes, "event"), *_body(_changed(mapping.event))]
    lines += ["", "[columns]", *_comments(notes, "visitor")]
    lines += [f"{field} = {_column(rule)}" for field, rule in mapping.columns.items()]
    if mapping.items is not None:
        lines += ["", "[items]", *_comments(notes, "items"), *_body(_changed(mapping.items))]
    for rule in mapping.ignore:
        lines += ["", "[[ignore]]", *_body(_changed(rule))]
    return "\n".join(lines) + "\n"


def _comments(notes: Map[str, str], part: str) -> list[str]:
    return [f"# {line}" for line in notes[part].splitlines()] if part in notes else []


def _changed(struct: msgspec.Struct) -> dict[str, Any]:
    """Give the fields that differ from their default."""
    return {
        field.name: value
        for field in msgspec.structs.fields(struct)
        if (value := getattr(struct, field.name)) != _default(field)
    }


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _column(rule: Column) -> str:
    changed = _changed(rule)
    if set(changed) == {"column"}:
        return _value(changed["column"])
    return _value(changed)


def _body(fields: Map[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_value(value)}" for name, value in fields.items()]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    return repr(value)


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _text(name)


def _text(value: str) -> str:
    """Write a basic string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
