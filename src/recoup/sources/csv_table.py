"""CSV: lines as records, whatever the quoting."""

import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final

import polars as pl

from recoup.sources.lines import Line
from recoup.sources.tables import BLOCK, Block, Dialect, bad_line, dead_frame, dead_letter

DELIMITERS: Final = (",", ";", "\t", "|")
WHITESPACE: Final = "whitespace"
"""Any run of blanks parts the columns; fields are not quoted."""
MAX_RECORD_LINES: Final = 64

Record = tuple[int, list[str]]


def csv_blocks(label: str, lines: Iterator[Line], dialect: Dialect) -> Iterator[Block]:
    """Read lines of CSV block by block, every column as text."""
    first = next(lines, None)
    if first is None:
        return
    dead: list[dict[str, str]] = []
    delimiter = dialect.delimiter or sniff_delimiter(first.text, header=dialect.header)
    fields = list(dialect.names) or _fields(first.text, delimiter) or []
    names = _names(fields, header=dialect.header or bool(dialect.names))
    if first.reason is not None:
        yield Block(
            label,
            pl.DataFrame(),
            pl.Series([], dtype=pl.Int64),
            dead_frame([bad_line(label, first)]),
        )
        return
    if not dialect.header:
        lines = chain([first], lines)
    records: list[Record] = []
    for item in _records(lines, delimiter, len(names)):
        if isinstance(item, Line):
            dead.append(bad_line(label, item))
        elif (wrong := _wrong(item, names, delimiter, label)) is not None:
            dead.append(wrong)
        else:
            records.append(item)
        if len(records) == BLOCK:
            yield _block(label, names, records, dead)
            records, dead = [], []
    if records or dead:
        yield _block(label, names, records, dead)


def sniff_delimiter(first: str, *, header: bool = True) -> str:
    """Find what parts the columns in the first line; blanks only where it is no header.

    Examples
    --------
    >>> sniff_delimiter("Invoice;StockCode;Price, net")
    ';'
    """
    bare = "".join(first.split('"')[::2])
    best = max(DELIMITERS, key=bare.count)
    return best if header or best in bare else WHITESPACE


def _names(fields: list[str], *, header: bool) -> list[str]:
    if not header:
        return [f"c{number}" for number in range(1, len(fields) + 1)]
    names: list[str] = []
    for number, field in enumerate(fields, 1):
        name = field.strip() or f"c{number}"
        names.append(f"{name}_{number}" if name in names else name)
    return names


def _records(lines: Iterator[Line], delimiter: str, width: int) -> Iterator[Record | Line]:
    """Join lines into records: a quoted field may hold line breaks."""
    waiting: deque[Line] = deque()
    while True:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            return
        if line.reason is not None:
            yield line
        elif line.text.count('"') % 2 == 0:
            yield line.number, _fields(line.text, delimiter) or []
        else:
            yield _long_record(line, lines, waiting, delimiter, width)


def _long_record(
    line: Line, lines: Iterator[Line], waiting: deque[Line], delimiter: str, width: int
) -> Record:
    """Take the lines up to the closing quote, or only the first where that makes no record."""
    taken = [line]
    quotes = line.text.count('"')
    while quotes % 2 and len(taken) < MAX_RECORD_LINES:
        following = waiting.popleft() if waiting else next(lines, None)
        if following is None:
            break
        taken.append(following)
        if following.reason is not None:
            break
        quotes += following.text.count('"')
    if quotes % 2 == 0 and taken[-1].reason is None:
        fields = _fields("\n".join(part.text for part in taken), delimiter, strict=True)
        if fields is not None and len(fields) == width:
            return line.number, fields
    waiting.extendleft(reversed(taken[1:]))
    return line.number, _fields(line.text, delimiter) or []


def _fields(text: str, delimiter: str, *, strict: bool = False) -> list[str] | None:
    if '"' not in text or delimiter == WHITESPACE:
        return text.split(None if delimiter == WHITESPACE else delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=strict), None)
    except csv.Error:
        return None


def _wrong(record: Record, names: list[str], delimiter: str, label: str) -> dict[str, str] | None:
    number, fields = record
    path = f"{label}:{number}"
    if len(fields) != len(names):
        detail = f"expected {len(names)} columns, got {len(fields)}"
        return dead_letter(path, "wrong_column_count", detail, delimiter.join(fields))
    if fields == names:
        detail = "the header stands in the middle of the file"
        return dead_letter(path, "repeated_header", detail, delimiter.join(fields))
    return None


def _block(
    label: str, names: list[str], records: list[Record], dead: list[dict[str, str]]
) -> Block:
    columns = zip(*(fields for _, fields in records), strict=True) if records else [()] * len(names)
    frame = pl.DataFrame(
        [pl.Series(name, column, pl.String) for name, column in zip(names, columns, strict=True)]
    )
    rows = pl.Series([number for number, _ in records], dtype=pl.Int64)
    return Block(label, frame, rows, dead_frame(dead))
