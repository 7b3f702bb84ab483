"""One reader for each kind of file."""

from collections.abc import Iterator
from typing import Final

from recoup.errors import SourceError
from recoup.sources.csv_table import csv_blocks
from recoup.sources.files import LogFile
from recoup.sources.json_table import json_blocks
from recoup.sources.lines import read_lines
from recoup.sources.tables import Block, Dialect, parquet_blocks


def read_blocks(file: LogFile, dialect: Dialect) -> Iterator[Block]:
    """Read a file block by block.

    Raises
    ------
    SourceError
        If it cannot be read at all.
    """
    if file.kind == "parquet":
        yield from parquet_blocks(file)
        return
    lines = read_lines(file.path, file.packing, dialect.encoding)
    if file.kind == "csv":
        yield from csv_blocks(file.label, lines, dialect)
    else:
        yield from json_blocks(file.label, lines)


def first_block(files: list[LogFile], dialect: Dialect) -> Block:
    """Give the first block that has a record.

    Raises
    ------
    SourceError
        If there is none, or a file cannot be read at all.
    """
    for file in files:
        for block in read_blocks(file, dialect):
            if block.frame.height:
                return block
    raise empty_log(files)


def empty_log(files: list[LogFile]) -> SourceError:
    """Say that no file holds a record."""
    names = ", ".join(f"`{file.path}`" for file in files[:3])
    return SourceError(f"Expected records, got none in {names}", hint=_why_empty(files))


def _why_empty(files: list[LogFile]) -> str:
    """Name the first place that could not be read."""
    for file in files:
        for block in read_blocks(file, Dialect()):
            for dead in block.dead_letters.head(1).iter_rows(named=True):
                reason = f"{dead['path']}: {dead['reason']}, {dead['detail']}"
                return f"no row could be read, first {reason}{_REMEDY.get(dead['reason'], '')}"
    return "the file is empty, or holds nothing but its header"


_REMEDY: Final = {"bad_encoding": "; a mapping may name another (`recoup inspect` proposes one)"}
