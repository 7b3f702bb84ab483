"""The mapping file: which column is what, which event name means what.

See docs/sources.md for the format, with examples.
"""

import tomllib
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from recoup.errors import MappingError
from recoup.events import (
    CODE,
    CONTEXT,
    COUNTS,
    ENTITIES,
    FLAGS,
    ITEM_SCHEMA,
    MONEY,
    REALS,
)
from recoup.sources.values import NULLS

FIELDS: Final = (
    "source",
    "id",
    "seq",
    "custom_name",
    "extra",
    *ENTITIES,
    *CONTEXT,
    *MONEY,
    *COUNTS,
    *REALS,
    *FLAGS,
)
"""What ``[columns]`` may name, beside ``[ts]`` and ``[event]``."""
ITEM_FIELDS: Final = tuple(name for name in ITEM_SCHEMA if name != "event")
Unit = Literal["currency", "cents", "micros"]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a field comes from.

    Parameters
    ----------
    column
        A column, or several, which are joined by ``-``; of several in ``any`` the first that has
        a value counts.
    any
        Columns of which the first with a value counts.
    constant
        The same for every row.
    unit
        Of an amount: ``currency`` (12.50), ``cents`` or ``micros``.
    scale
        Factor on a number: 1000 where a latency stands in seconds.
    values
        Raw text -> text.

    Examples
    --------
    >>> Column(column="spend", unit="cents").sources
    ('spend',)
    """

    column: str | list[str] | None = None
    any: list[str] = []
    constant: str | int | float | bool | None = None
    unit: Unit = "currency"
    scale: float = 1.0
    values: dict[str, str] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw columns it reads."""
        if self.any:
            return tuple(self.any)
        if self.column is None:
            return ()
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)


class Time(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the moment of an event comes from.

    Parameters
    ----------
    column
        A column, or several, which are joined by a space (a date and a time).
    format
        ``auto``, ``iso``, ``s``, ``ms``, ``us``, ``ns``, a ``strptime`` format, or a list of them.
    timezone
        Of moments that name none.

    Examples
    --------
    >>> Time("when", format="%d/%m/%Y").formats
    ('%d/%m/%Y',)
    """

    column: str | list[str]
    format: str | list[str] = "auto"
    timezone: str = "UTC"

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, tried in turn."""
        return (self.format,) if isinstance(self.format, str) else tuple(self.format)

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw columns it reads."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the name of an event comes from.

    Parameters
    ----------
    column
        A column, or several, which are joined by ``.``.
    constant
        The same name for every row.
    names
        Raw text -> a name of the vocabulary, or ``ignore``; any other raw text is a name of the
        vocabulary itself, or makes a ``custom`` event.
    patterns
        Regular expression -> name, tried in turn on raw text that ``names`` does not list.

    Examples
    --------
    >>> Names(column="behavior", names={"pv": "view_item"}).names["pv"]
    'view_item'
    """

    column: str | list[str] | None = None
    constant: str | None = None
    names: dict[str, str] = {}
    patterns: dict[str, str] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw columns it reads."""
        if self.column is None:
            return ()
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)


class Items(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where item lines come from.

    Parameters
    ----------
    column
        A column that holds a list of objects, or of item ids.
    columns
        Columns that hold one item id each.
    fields
        Field of an item line -> name inside the objects of ``column``, or raw column where
        ``group_by`` is set.
    group_by
        Columns that are equal in all rows of one event, where each row is one item line. A row
        without a value in one of them is an event of its own.
    within
        How many rows apart the rows of an event may stand; 0 where they follow each other, ``file``
        where they may stand anywhere in their file, which is then held in memory.
    needs
        Columns without whose values a row is an event of its own, too.
    role
        ``subject``, ``impression`` or ``promotion``, unless ``fields`` names one.
    unit
        Of ``price`` and ``value``.

    Examples
    --------
    >>> Items(columns=["item_1", "item_2"]).role
    'subject'
    """

    column: str | None = None
    columns: list[str] = []
    fields: dict[str, str] = {}
    group_by: list[str] = []
    within: Annotated[int, msgspec.Meta(ge=0)] | Literal["file"] = 0
    needs: list[str] = []
    role: Literal["subject", "impression", "promotion"] = "subject"
    unit: Unit = "currency"


class Ignore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to leave out: not bad, only not wanted. They are counted.

    Parameters
    ----------
    column
        What to look at.
    equals
        Leave out rows with one of these texts.
    matches
        Leave out rows whose text matches this regular expression.
    missing
        Leave out rows without a value.

    Examples
    --------
    >>> Ignore("is_bot", equals=["true"]).column
    'is_bot'
    """

    column: str
    equals: list[str] = []
    matches: str | None = None
    missing: bool = False


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another table beside the log, whose columns are added to its rows.

    Parameters
    ----------
    file
        Its name, or a pattern as a shell takes it; where there is none, nothing is added.
    on
        The column that both have.
    columns
        Columns to add.

    Examples
    --------
    >>> Join("products.*", "product_id", ["brand"]).on
    'product_id'
    """

    file: str
    on: str
    columns: list[str]


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping file.

    Parameters
    ----------
    ts, event
        When, and what.
    columns
        Field of the vocabulary -> where it comes from.
    items, ignore
        Item lines; rows to leave out.
    source
        Name of the source, half of the deduplication key.
    files
        Which files of a directory to read, by name, or by pattern as a shell takes it; all where
        it is empty.
    order
        ``arrival``: the rows are in order of time, or nearly so; ``time``: sort them first, in
        memory.
    extra
        Whether columns that nothing reads are kept in ``extra``.
    nulls
        Texts that mean "no value".
    delimiter, header, encoding
        How text files are written.
    follow_renames
        Whether a column that vanishes while another takes its place is followed.
    spellings
        Column -> the other names it goes by in logs of this kind; case and punctuation aside.
    headerless
        File, or pattern -> the names of its columns, where it has no header.
    join
        Tables beside the log that say more about its rows.

    Examples
    --------
    >>> mapping = parse_mapping(EXAMPLE)
    >>> mapping.event.names["1"], sorted(mapping.columns)
    ('add_to_cart', ['item', 'visitor'])
    """

    ts: Time
    event: Names
    columns: dict[str, Column]
    items: Items | None = None
    ignore: list[Ignore] = []
    source: str = "log"
    files: list[str] = []
    order: Literal["arrival", "time"] = "arrival"
    extra: bool = True
    nulls: tuple[str, ...] = NULLS
    delimiter: str | None = None
    header: bool = True
    encoding: str = "utf-8"
    follow_renames: bool = True
    spellings: dict[str, list[str]] = {}
    headerless: dict[str, list[str]] = {}
    join: list[Join] = []


EXAMPLE: Final = """
[ts]
column = "timestamp"
format = "ms"
[event]
column = "event"
names = { "0" = "view_item", "1" = "add_to_cart", "2" = "purchase" }
[columns]
visitor = "visitorid"
item = "itemid"
"""


def load_mapping(path: Path) -> Mapping | str:
    """Read a mapping file; where it only says `format = "NAME"`, give that name.

    Raises
    ------
    MappingError
        If there is none, or it does not keep the format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(
            f"Expected a mapping file, got `{path}`: {error}",
            hint="`recoup inspect LOG > mapping.toml` proposes one",
        ) from error
    raw = _toml(text, str(path))
    if raw.keys() == {"format"} and isinstance(raw["format"], str):
        return raw["format"]
    return parse_mapping(text, where=str(path))


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"Expected TOML in {where}, got: {error}") from error


def parse_mapping(text: str, *, where: str = "the mapping") -> Mapping:
    """Read the text of a mapping file.

    Raises
    ------
    MappingError
        If it does not keep the format.
    """
    try:
        mapping = msgspec.convert(_long_form(_toml(text, where)), Mapping)
    except msgspec.ValidationError as error:
        raise MappingError(
            f"Expected a mapping, got {where} that breaks the format: {error}",
            hint="docs/sources.md shows the format with examples",
        ) from error
    _check(mapping, where)
    return mapping


def _long_form(raw: dict[str, Any]) -> dict[str, Any]:
    """Write `visitor = "user_id"` out as `visitor = { column = "user_id" }`."""
    long = dict(raw)
    for name in ("ts", "event"):
        if isinstance(long.get(name), str):
            long[name] = {"column": long[name]}
    columns = long.get("columns")
    if isinstance(columns, dict):
        long["columns"] = {
            field: {"column": value} if isinstance(value, str | list) else value
            for field, value in columns.items()
        }
    return long


def _check(mapping: Mapping, where: str) -> None:
    for field, column in mapping.columns.items():
        _member(field, FIELDS, where, "[columns]")
        if bool(column.sources) == (column.constant is not None):
            raise MappingError(
                f"Expected a column or a constant for `{field}` in {where}, got "
                f"{'both' if column.sources else 'neither'}"
            )
    if "visitor" not in mapping.columns:
        raise MappingError(
            f"Expected `visitor` under [columns] in {where}, got none",
            hint="name the column whose values tell one person from another; a session will do",
        )
    if bool(mapping.event.sources) == (mapping.event.constant is not None):
        raise MappingError(
            f"Expected either a column or a constant under [event] in {where}",
            hint='an order log has `constant = "purchase"`',
        )
    known = (*CODE, "ignore")
    named = (*mapping.event.names.values(), *mapping.event.patterns.values())
    for name in (*named, *filter(None, [mapping.event.constant])):
        _member(name, known, where, "[event]")
    if mapping.items is not None:
        _check_items(mapping.items, where)
    try:
        zoneinfo.ZoneInfo(mapping.ts.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise MappingError(
            f"Expected a time zone in {where}, got `{mapping.ts.timezone}`",
            hint='a name such as "Europe/Paris"',
        ) from error


def _check_items(items: Items, where: str) -> None:
    given = [bool(items.column), bool(items.columns), bool(items.group_by)]
    if sum(given) != 1:
        raise MappingError(
            f"Expected one of `column`, `columns`, `group_by` under [items] in {where}"
        )
    for field in items.fields:
        _member(field, ITEM_FIELDS, where, "[items] fields")


def _member(name: str, known: tuple[str, ...], where: str, place: str) -> None:
    if name not in known:
        raise MappingError(
            f"Expected a name of the vocabulary under {place} in {where}, got `{name}`",
            hint=f"one of {', '.join(known)}",
        )
