"""From single JSON values to the vocabulary's types.

Every reader gives None where there is no value, and raises :class:`Unreadable` with a reason code
where there is one that cannot be read.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

import msgspec

from recoup.events import (
    CONTEXT,
    COUNTS,
    ENTITIES,
    FLAGS,
    MICROS,
    MONEY,
    REALS,
    micros_of,
)
from recoup.sources.values import (
    EARLIEST,
    FALSE,
    MAX_COUNT,
    MAX_MICROS,
    MAX_MS,
    MAX_S,
    MAX_US,
    NULLS,
    SKEW,
    TRUE,
)

UNITS: Final = {"s": MICROS, "ms": 1000, "us": 1}
_NULLS: Final = frozenset(NULLS)
_CODE_AND_SPACE: Final = re.compile(
    r"^\s*[A-Z]{3}\s*|\s*[A-Z]{3}\s*$|[\s$\u20ac\u00a3\u00a5\u20b9']"
)
_COMMA_LAST: Final = re.compile(r"-?[\d.]*,\d{1,2}")
_AMOUNT: Final = re.compile(r"-?\d[\d.,]*")
_FACTORS: Final = {"currency": MICROS, "micros": 1}


class Unreadable(Exception):  # noqa: N818 - a reason, not a failure of ours
    """A value that is there but cannot be read; ``reason`` is the dead letter's code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def text(value: object) -> str | None:
    """Read a name or an id: 17, 17.0 and "17" are the same; "(not set)" and the like are none."""
    if isinstance(value, str):
        stripped = value.strip()
        return None if stripped in _NULLS else stripped
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    return str(value) if isinstance(value, int | Decimal) else as_json(value).strip('"')


def _float_text(value: float) -> str | None:
    if not math.isfinite(value):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < MAX_COUNT else str(value)


def as_json(value: object) -> str:
    """Write any value as JSON, whatever it holds."""
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, RecursionError, OverflowError, TypeError, ValueError):
        return repr(value)[:2_000].encode("utf-8", "replace").decode()


def number(value: object, *, amounts: bool = False) -> float | None:
    """Read a finite number, also one written as text; ``amounts`` takes "$1,234.50" as well."""
    if isinstance(value, bool):
        raise Unreadable("bad_number")
    if isinstance(value, str):
        stripped = value.strip()
        if stripped in _NULLS:
            return None
        found = _parse(stripped, amounts=amounts)
    elif value is None:
        return None
    elif isinstance(value, int | float | Decimal):
        found = _float(value)
    else:
        raise Unreadable("bad_number")
    if not math.isfinite(found):
        raise Unreadable("bad_number")
    return found


def _float(value: float | Decimal | str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _parse(digits: str, *, amounts: bool) -> float:
    found = math.nan if "_" in digits else _float(digits)
    if not amounts or not math.isnan(found):
        return found
    bare = _CODE_AND_SPACE.sub("", digits)
    if not _AMOUNT.fullmatch(bare):
        return math.nan
    if _COMMA_LAST.fullmatch(bare):
        return _float(bare.replace(".", "").replace(",", "."))
    return _float(bare.replace(",", ""))


def money(value: object, unit: str = "currency") -> int | None:
    """Read an amount of currency units (or ``micros``) into int64 micro-units.

    Examples
    --------
    >>> money("12.50"), money(7, unit="micros")
    (12500000, 7)
    """
    found = number(value, amounts=True)
    if found is None:
        return None
    if unit == "micros" and isinstance(value, int):
        found = value
    scaled = found * _FACTORS[unit]
    if abs(scaled) >= MAX_MICROS:
        raise Unreadable("bad_number")
    return round(scaled)


def count(value: object) -> int | None:
    """Read a whole number; 3.0 and "3" are 3."""
    found = number(value)
    if found is None:
        return None
    if found != round(found) or abs(found) >= MAX_COUNT:
        raise Unreadable("bad_number")
    return round(found)


def flag(value: object) -> bool | None:
    """Read true or false, as words or as 1 and 0."""
    if isinstance(value, bool):
        return value
    word = text(value)
    if word is None:
        return None
    if word.lower() in TRUE:
        return True
    if word.lower() in FALSE:
        return False
    raise Unreadable("bad_flag")


READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "source": text,
    "id": text,
    "custom_name": text,
    "seq": count,
    **dict.fromkeys((*ENTITIES, *CONTEXT), text),
    **dict.fromkeys(MONEY, money),
    **dict.fromkeys(COUNTS, count),
    **dict.fromkeys(REALS, number),
    **dict.fromkeys(FLAGS, flag),
    "item_name": text,
    "variant": text,
}
"""How each column of events and item lines is read."""

NOT_NEGATIVE: Final = frozenset((*MONEY, *COUNTS, *REALS))


def read(field: str, value: object, *, unit: str = "currency") -> object:
    """Read a value as the column ``field`` keeps it.

    Raises
    ------
    Unreadable
        With the reason code, where there is a value that cannot be read, or is negative.
    """
    found = money(value, unit) if field in MONEY else READERS[field](value)
    if found is not None and field in NOT_NEGATIVE and found < 0:  # type: ignore[operator]
        raise Unreadable(f"negative_{field}")
    return found


def moment(value: object, unit: str = "auto") -> int | None:
    """Read a moment into int64 microseconds UTC; None where there is none.

    Parameters
    ----------
    value
        An epoch number, ISO 8601, or a datetime; one without a zone is UTC.
    unit
        ``s``, ``ms``, ``us``, or ``auto``: by the number's size.

    Raises
    ------
    Unreadable
        ``bad_timestamp``.

    Examples
    --------
    >>> moment("1970-01-01T00:00:01.5Z"), moment(1767225600)
    (1500000, 1767225600000000)
    """
    if isinstance(value, dt.datetime):
        return micros_of(value)
    if isinstance(value, str) and not value.strip().lstrip("+-").replace(".", "", 1).isdecimal():
        stripped = value.strip()
        return None if stripped in _NULLS else _iso(stripped)
    try:
        found = number(value)
    except Unreadable:
        raise Unreadable("bad_timestamp") from None
    return None if found is None else _epoch(found, value, unit)


def _iso(written: str) -> int:
    tidy = written.removesuffix(" UTC")
    try:
        return micros_of(dt.datetime.fromisoformat(tidy))
    except (ValueError, OverflowError):
        raise Unreadable("bad_timestamp") from None


def _epoch(found: float, value: object, unit: str) -> int:
    size = abs(found)
    exact = (
        int(value)
        if isinstance(value, int) or (isinstance(value, str) and _whole(value))
        else found
    )
    if unit in UNITS:
        factor = UNITS[unit]
    elif size < MAX_US:
        factor = MICROS if size < MAX_S else 1000 if size < MAX_MS else 1
    else:
        return round(exact // 1000)
    scaled = exact * factor
    if abs(scaled) >= MAX_MICROS:
        raise Unreadable("bad_timestamp")
    return round(scaled)


def _whole(digits: str) -> bool:
    return digits.strip().lstrip("+-").isdecimal() and len(digits) < 30  # noqa: PLR2004


def placed(micros: int | None, now: int) -> int:
    """Give a moment that an event can have, as seen at ``now``.

    Raises
    ------
    Unreadable
        ``missing_timestamp``, ``bad_timestamp`` (before 1990), ``future_timestamp`` (more than a
        day ahead).
    """
    if micros is None:
        raise Unreadable("missing_timestamp")
    if micros < EARLIEST_US:
        raise Unreadable("bad_timestamp")
    if micros > now + SKEW_US:
        raise Unreadable("future_timestamp")
    return micros


EARLIEST_US: Final = micros_of(EARLIEST)
SKEW_US: Final = SKEW // dt.timedelta(microseconds=1)


def path_of(url: object) -> str | None:
    """Give the path of an address, without host and query: what names the page.

    Examples
    --------
    >>> path_of("https://shop.example/p/42?utm_source=x#top")
    '/p/42'
    """
    written = text(url)
    if written is None:
        return None
    try:
        return urlsplit(written).path or "/"
    except ValueError:
        return None
