"""A mapping proposed for an unknown table, from the names and the values of its columns."""

import datetime as dt
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Final, Literal

import msgspec
import polars as pl

from recoup.errors import SourceError
from recoup.events import COUNTS, FLAGS, MONEY, REALS
from recoup.sources.mapping import Column, Items, Mapping, Names, Time
from recoup.sources.moments import settle_format
from recoup.sources.raw import Raw
from recoup.sources.synonyms import event_of, field_of, snake
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

SURE: Final = 0.8
UNIQUE: Final = 0.9
READERS: Final[tuple[tuple[tuple[str, ...], Callable[[pl.Series], Reading]], ...]] = (
    (MONEY, read_money),
    (COUNTS, read_count),
    (REALS, read_real),
    (FLAGS, read_flag),
)
MAX_EVENT_NAMES: Final = 200
AMBIGUOUS: Final = (
    "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y",
    "%m/%d/%Y", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M", "%d-%m-%Y", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%b %d, %Y",
    "%b %d %Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%d %b %Y",
)  # fmt: skip
CODES: Final = {
    ("0", "1", "2"): ("view_item", "add_to_cart", "purchase"),
    ("1", "2", "3", "4"): ("view_item", "add_to_wishlist", "add_to_cart", "purchase"),
}
LISTS: Final = ("items", "products", "item_list", "line_items", "basket", "ecommerce_items")
NUMBERED: Final = re.compile(r"(item|product|sku|variant)\w*_\d+$")
LINE_FIELDS: Final = ("item", "quantity", "price", "value", "category", "brand")
LATE_ORDER: Final = dt.timedelta(hours=1)


class Guess(msgspec.Struct, frozen=True):
    """A proposed mapping, and what it rests on.

    Parameters
    ----------
    mapping
        The mapping.
    notes
        What the reader should check, by the part of the mapping it concerns.

    Examples
    --------
    >>> from recoup.sources.mapping import EXAMPLE, parse_mapping
    >>> Guess(parse_mapping(EXAMPLE), {"ts": "a guess"}).notes["ts"]
    'a guess'
    """

    mapping: Mapping
    notes: dict[str, str]


def guess_mapping(sample: Block, *, now: dt.datetime, source: str) -> Guess:
    """Propose a mapping for a table.

    Parameters
    ----------
    sample
        Some thousand of its rows.
    now
        Later moments are none.
    source
        Name for the source.

    Raises
    ------
    SourceError
        If no column can be the moment of an event, or none tells visitors apart.
    """
    raw = Raw(sample)
    notes: dict[str, str] = {}
    ranked = _ranked(sample.frame)
    ts, moments = _guess_time(raw, ranked, now, notes)
    taken = set(ts.sources)
    columns = _guess_columns(raw, ranked, taken)
    _guess_visitor(raw, columns, notes)
    event = _guess_event(raw, ranked, columns, sample.label, notes)
    columns = {
        field: rule for field, rule in columns.items() if not set(rule.sources) & set(event.sources)
    }
    items = _guess_items(raw, columns, event)
    order: Literal["arrival", "time"] = "arrival" if _in_order(moments) else "time"
    if order == "time":
        notes["order"] = "the rows are not in order of time: they are sorted first, in memory"
    mapping = Mapping(ts, event, columns, items, source=source, order=order)
    if items is not None and items.group_by:
        mapping = msgspec.structs.replace(
            mapping,
            columns={f: r for f, r in columns.items() if f not in LINE_FIELDS},
        )
    return Guess(mapping, notes)


def _ranked(frame: pl.DataFrame) -> dict[str, list[str]]:
    """Give, for each field, the columns whose name stands for it, the surest first."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in frame.columns:
        guess = field_of(name)
        if guess is not None and frame[name].null_count() < frame.height:
            found.setdefault(guess[0], []).append((guess[1], name))
    return {field: [name for _, name in sorted(names)] for field, names in found.items()}


def _guess_time(
    raw: Raw, ranked: dict[str, list[str]], now: dt.datetime, notes: dict[str, str]
) -> tuple[Time, pl.Series]:
    names = [*ranked.get("ts", []), *(n for n in raw.block.frame.columns if _may_be_time(raw, n))]
    for name in names:
        column = raw.get(name).head(2000)
        settled = settle_format(column, AMBIGUOUS, now=now)
        for form in ("auto", *filter(None, [settled]), *AMBIGUOUS):
            reading = read_time(column, (form,), zone="UTC", now=now)
            present = max(1, len(column) - int((reading.reasons == "missing_timestamp").sum()))
            read = len(column) - reading.values.null_count()
            if read >= SURE * present and read:
                if form != "auto":
                    notes["ts"] = f"`{form}` is how the values read; check day and month"
                return Time(name, format=form), read_time(
                    raw.get(name), (form,), zone="UTC", now=now
                ).values
    raise SourceError(
        f"Expected a column of moments in `{raw.block.label}`, got "
        f"{', '.join(raw.block.frame.columns)}",
        hint="a log of events says when each happened; a table of totals is none",
    )


def _may_be_time(raw: Raw, name: str) -> bool:
    dtype = raw.block.frame.schema[name]
    return dtype.is_temporal() or dtype == pl.String


def _guess_columns(raw: Raw, ranked: dict[str, list[str]], taken: set[str]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for field, names in ranked.items():
        if field in {"ts", "event"}:
            continue
        for name in names:
            if name not in taken and _plausible(raw, field, name):
                columns[field] = Column(column=name)
                taken.add(name)
                break
    return columns


def _plausible(raw: Raw, field: str, name: str) -> bool:
    """Say whether a column's values can be what its name says."""
    column = raw.get(name)
    text = read_text(column)
    present = text.len() - text.null_count()
    if not present or column.dtype.is_nested():
        return False
    if field == "id":
        return text.n_unique() >= UNIQUE * present
    reader = next((reader for fields, reader in READERS if field in fields), None)
    return reader is None or reader(column).values.count() >= SURE * present


def _guess_visitor(raw: Raw, columns: dict[str, Column], notes: dict[str, str]) -> None:
    """Find who is who: a visitor, else a session, else each row on its own."""
    if "visitor" in columns:
        return
    for field, note in (
        ("session", "no column names a visitor: each session stands as a visitor of its own"),
        ("id", "no column names a visitor: each row stands as a visitor of its own"),
    ):
        if field in columns:
            columns["visitor"] = columns[field]
            notes["visitor"] = note
            return
    raise SourceError(
        f"Expected a column that tells visitors apart in `{raw.block.label}`, got "
        f"{', '.join(raw.block.frame.columns)}",
        hint="a log of shopping events names a visitor, a customer or a session in each row; "
        "if this one does under another name, write the mapping by hand (docs/sources.md)",
    )


def _guess_event(
    raw: Raw,
    ranked: dict[str, list[str]],
    columns: dict[str, Column],
    label: str,
    notes: dict[str, str],
) -> Names:
    for name in ranked.get("event", []):
        text = read_text(as_text(raw.get(name)))
        if text.drop_nulls().n_unique() <= MAX_EVENT_NAMES and text.null_count() < raw.height:
            return Names(column=name, names=_guess_names(text, notes))
    constant = event_of(PurePath(label).name.split(".")[0]) or _only_event(columns)
    notes["event"] = f"no column says what happened: every row is taken for `{constant}`"
    return Names(constant=constant)


def _only_event(columns: dict[str, Column]) -> str:
    if "order" in columns or "value" in columns:
        return "purchase"
    if "item" in columns:
        return "view_item"
    return "page_view" if "page" in columns else "custom"


def _guess_names(text: pl.Series, notes: dict[str, str]) -> dict[str, str]:
    counts = text.drop_nulls().value_counts(sort=True, name="n")
    words = [str(word) for word in counts.to_series(0)]
    codes = CODES.get(tuple(sorted(words)))
    if codes is not None:
        notes["event"] = "the codes are a guess from public logs of this shape; check them"
        return dict(zip(sorted(words), codes, strict=True))
    names = {word: event for word in words if (event := event_of(word)) not in {None, word}}
    strange = [word for word in words if event_of(word) is None]
    if strange:
        notes["event"] = "not understood, so kept as `custom` events: " + ", ".join(strange[:20])
    return {word: event for word, event in names.items() if event is not None}


def _guess_items(raw: Raw, columns: dict[str, Column], event: Names) -> Items | None:
    frame = raw.block.frame
    lists = [
        n for n, d in frame.schema.items() if d.is_nested() and snake(n.rsplit(".", 1)[-1]) in LISTS
    ]
    lists += [n for n in frame.columns if snake(n) in LISTS and n not in lists]
    if lists:
        return Items(column=lists[0])
    numbered = [
        n for n in frame.columns if NUMBERED.search(snake(n)) and frame[n].null_count() < raw.height
    ]
    if len(numbered) > 1:
        return Items(columns=numbered)
    order = columns.get("order")
    if event.constant == "purchase" and order is not None and "item" in columns:
        ids = raw.text(order.sources, ())
        if ids.n_unique() < SURE * len(ids) and _together(ids):
            fields = {str(f): str(columns[f].column) for f in LINE_FIELDS if f in columns}
            return Items(group_by=list(order.sources), fields=fields)
    return None


def _together(ids: pl.Series) -> bool:
    """Say whether equal ids follow each other."""
    runs = int((ids != ids.shift()).sum()) + 1
    return runs <= ids.n_unique() * 1.05 + 1


def _in_order(moments: pl.Series) -> bool:
    """Say whether moments rise, but for lateness of at most an hour."""
    present = moments.drop_nulls()
    return bool((present.cum_max() - present <= LATE_ORDER).all())
