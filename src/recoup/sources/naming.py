"""Raw columns under the names a mapping knows: spellings, files without a header, joined tables."""

import fnmatch
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.errors import MappingError
from recoup.sources.files import LogFile, find_files
from recoup.sources.mapping import Join, Mapping
from recoup.sources.readers import read_blocks
from recoup.sources.tables import Block, Dialect
from recoup.sources.values import read_text

FILE: Final = "@file"
"""The name of a row's file, as a column."""
MAX_JOINED: Final = 5_000_000
"""Rows of a joined table, which is held in memory."""


class Naming:
    """Brings the blocks of a log under the names of its mapping.

    Parameters
    ----------
    mapping
        How the log is read.
    files
        Its files: tables to join stand in the same folders.

    Examples
    --------
    >>> from recoup.sources.mapping import Names, Time
    >>> mapping = Mapping(
    ...     Time("when"), Names(constant="purchase"), {}, spellings={"Invoice": ["InvoiceNo"]}
    ... )
    >>> Naming(mapping, []).renames(["Invoice No", "when"])
    {'Invoice No': 'Invoice'}
    """

    def __init__(self, mapping: Mapping, files: list[LogFile]) -> None:
        self._mapping = mapping
        self._spelled = {
            tidy(other): name
            for name, others in mapping.spellings.items()
            for other in (name, *others)
        }
        self._names_file = FILE in _read(mapping)
        self._joined = [
            (join, table)
            for join in mapping.join
            if (table := _table(join, [file.path.parent for file in files])) is not None
        ]

    def dialect(self, file: LogFile) -> Dialect:
        """Say how a file is written."""
        mapping, names = self._mapping, headless_names(self._mapping, file)
        header = mapping.header and names is None
        return Dialect(mapping.delimiter, header, mapping.encoding, tuple(names or ()))

    def renames(self, columns: list[str]) -> dict[str, str]:
        """Give the columns that go by another name, with that of the mapping."""
        found: dict[str, str] = {}
        for column in columns:
            name = self._spelled.get(tidy(column), column)
            if name not in columns and name not in found.values():
                found[column] = name
        return found

    def named(self, block: Block, file: LogFile) -> Block:
        """Bring one block under the mapping's names."""
        frame = block.frame
        if not frame.width:
            return block
        renames = self.renames(frame.columns)
        frame = frame.rename(renames) if renames else frame
        if self._names_file:
            frame = frame.with_columns(pl.lit(file.label).alias(FILE))
        for join, table in self._joined:
            frame = _add(frame, join, table)
        return msgspec.structs.replace(block, frame=frame)


def tidy(name: str) -> str:
    """Leave of a name what does not differ between spellings.

    Examples
    --------
    >>> tidy("Customer ID") == tidy("customer_id") == tidy("CustomerID")
    True
    """
    return "".join(filter(str.isalnum, name)).lower()


def headless_names(mapping: Mapping, file: LogFile) -> list[str] | None:
    """Give the names of a file's columns where it has no header, else None."""
    if file.kind != "csv":
        return None
    name = Path(file.label).name
    fitting = (names for like, names in mapping.headerless.items() if fnmatch.fnmatch(name, like))
    return next(fitting, None)


def _read(mapping: Mapping) -> set[str]:
    named = [*mapping.event.sources, *(mapping.items.group_by if mapping.items else [])]
    return {*named, *(name for rule in mapping.columns.values() for name in rule.sources)}


def _table(join: Join, folders: list[Path]) -> pl.DataFrame | None:
    """Read a table beside the log: one row per key, its columns as text."""
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob(join.file)):
            return _load(join, path)
    return None


def _load(join: Join, path: Path) -> pl.DataFrame:
    file = find_files(path)[0]
    wanted = [join.on, *join.columns]
    parts: list[pl.DataFrame] = []
    for block in read_blocks(file, Dialect()):
        lacking = [name for name in wanted if name not in block.frame.columns]
        if lacking and block.frame.height:
            raise MappingError(
                f"Expected columns {', '.join(lacking)} in `{path}`, got "
                f"{', '.join(block.frame.columns)}",
                hint="correct [[join]] in the mapping, or move the table away from the log",
            )
        if block.frame.height:
            parts.append(block.frame.select(read_text(block.frame[name]) for name in wanted))
        if sum(part.height for part in parts) > MAX_JOINED:
            raise MappingError(f"Expected at most {MAX_JOINED:,} rows in `{path}`, got more")
    if not parts:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    return pl.concat(parts).unique(join.on, keep="first", maintain_order=True)


def _add(frame: pl.DataFrame, join: Join, table: pl.DataFrame) -> pl.DataFrame:
    if join.on not in frame.columns:
        return frame
    key = read_text(frame[join.on]).alias("@key")
    new = table.select(join.on, *(name for name in join.columns if name not in frame.columns))
    joined = frame.with_columns(key).join(
        new, left_on="@key", right_on=join.on, how="left", maintain_order="left"
    )
    return joined.drop("@key")
