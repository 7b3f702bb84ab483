"""Internet and e-mail addresses: found by the name of a field, and by what a value looks like."""

import functools
import re
from collections.abc import Callable
from typing import Final

import msgspec
import polars as pl

from recoup.sources.synonyms import snake

GONE: Final = "(removed)"
EMAIL: Final = r"[A-Za-z0-9._%+\-]+(?:@|%40)[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,24}"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_HEX: Final = r"[0-9A-Fa-f]{1,4}"
_BEFORE: Final = r"(^|[^\w.]|%[0-9A-Fa-f]{2})"
"""Of an address: longer rows of numbers and dots are versions, or codes of a search engine."""
IP4: Final = rf"{_BEFORE}(?:{_OCTET}\.){{3}}{_OCTET}(\.?(?:$|[^\w.]))"
_LONG: Final = rf"(?:{_HEX}:){{7}}{_HEX}"
_SHORT: Final = rf"(?:{_HEX}:){{2,6}}:{_HEX}(?::{_HEX}){{0,5}}"
_LOCAL: Final = rf"(?:fe80|fc00|fd[0-9a-f]{{2}}):(?::?{_HEX}){{1,7}}"
IP6: Final = rf"(^|[^\w.:]|%[0-9A-Fa-f]{{2}})(?:{_LONG}|{_SHORT}|{_LOCAL})($|[^\w:])"
PATTERNS: Final = (("email", f"(){EMAIL}()"), ("ip", IP4), ("ip", IP6))
"""What an address looks like, with what must stand before and behind it as groups 1 and 2."""
QUICK: Final = r"@|%40|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:"
"""What every address has: quick to look for."""
_HASHED: Final = r"(?:_(?:hash|hashed|md5|sha1|sha256))?$"
_NAMED: Final = {
    "email": re.compile(rf"(?:^|_)(?:e_?mail|mail)(?:_addr(?:ess)?)?{_HASHED}"),
    "ip": re.compile(rf"(?:^|_)(?:ip|ip_?addr(?:ess)?|remote_addr|forwarded_for){_HASHED}"),
}
"""Names of fields in snake case; the plain hash of an address is found by trying."""
_FOUND: Final = tuple((kind, re.compile(pattern)) for kind, pattern in PATTERNS)
_MAYBE: Final = re.compile(QUICK)
_PERSONAL: Final = re.compile(
    r"(?:^|_)(?:user|visitor|client|customer|member|account|device|cookie|person|login)"
    r"(?:_pseudo)?_(?:id|key|number|name)$|(?:^|_)(?:first|last|full)_name$|"
    r"(?:^|_)(?:uid|cid|guid|gclid|fbclid|idfa|idfv|gaid|phone|address|birthday)$"
)

Count = Callable[[str, int], None]


def clean_text(column: pl.Series, count: Count) -> pl.Series | None:
    """Replace what looks like an address inside texts; what is nothing else becomes null.

    None where there is nothing to replace.

    Parameters
    ----------
    column
        String.
    count
        Told the kind and the number of values.
    """
    if column.null_count() == len(column) or not column.str.contains(QUICK).any():
        return None
    before = column
    for kind, pattern in PATTERNS:
        hit = column.str.contains(pattern).fill_null(value=False)
        if hit.any():
            count(kind, int(hit.sum()))
            replaced = column
            for _ in range(2):  # of two addresses the first may take the border of the second
                replaced = replaced.str.replace_all(pattern, f"${{1}}{GONE}${{2}}")
            column = replaced.set((replaced == GONE).fill_null(value=False), None)
    return None if column is before else column


def is_address(column: pl.Series) -> pl.Series:
    """Say which texts hold an address."""
    none = pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)  # noqa: FBT003
    if column.null_count() == len(column) or not column.str.contains(QUICK).any():
        return none
    for _, pattern in PATTERNS:
        none |= column.str.contains(pattern).fill_null(value=False)
    return none


def clean_extra(column: pl.Series, keep: Callable[[str], str | None], count: Count) -> pl.Series:
    """Take fields out of JSON objects, by name and by value.

    Parameters
    ----------
    keep
        Field -> the kind under which it goes, or None where it stays.
    """
    texts = [None if text is None else _clean(text, keep, count) for text in column.to_list()]
    return pl.Series(column.name, texts, dtype=pl.String)


@functools.lru_cache(4096)
def names_address(name: str) -> str | None:
    """Say of which kind of address a field's name speaks, if of any.

    Examples
    --------
    >>> names_address("client_ip"), names_address("context.email"), names_address("ship")
    ('ip', 'email', None)
    """
    plain = snake(name)
    return next((kind for kind, pattern in _NAMED.items() if pattern.search(plain)), None)


@functools.lru_cache(4096)
def names_person(name: str) -> str | None:
    """Give ``personal`` where a field's name speaks of a person or a device.

    Examples
    --------
    >>> names_person("properties.userId"), names_person("referer")
    ('personal', None)
    """
    return "personal" if _PERSONAL.search(snake(name)) else None


def _clean(text: str, keep: Callable[[str], str | None], count: Count) -> str | None:
    try:
        value = msgspec.json.decode(text)
        kept = _object(value, keep, count) if isinstance(value, dict) else None
    except (msgspec.DecodeError, RecursionError):  # no JSON, or nested without end
        return _scrub(text, count)
    if kept is None:
        return _scrub(text, count)
    if kept == value:
        return text
    return msgspec.json.encode(kept).decode() if kept else None


def _object(
    value: dict[str, object], keep: Callable[[str], str | None], count: Count
) -> dict[str, object]:
    kept: dict[str, object] = {}
    for name, inner in value.items():
        kind = keep(name)
        if kind is not None:
            count(kind, 1)
            continue
        kept[name] = _value(inner, keep, count)
    return kept


def _value(value: object, keep: Callable[[str], str | None], count: Count) -> object:
    if isinstance(value, str):
        return _scrub(value, count)
    if isinstance(value, dict):
        return _object(value, keep, count)
    if isinstance(value, list):
        return [_value(inner, keep, count) for inner in value]
    return value


def _scrub(text: str, count: Count) -> str:
    if not _MAYBE.search(text):
        return text
    for kind, pattern in _FOUND:
        if pattern.search(text):
            count(kind, 1)
            for _ in range(2):
                text = pattern.sub(rf"\g<1>{GONE}\g<2>", text)
    return text
