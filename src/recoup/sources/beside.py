"""Item lines in a file of their own, beside the events: one row per line."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recoup.decisions import Finding
from recoup.events import ITEM_SCHEMA
from recoup.sources.files import LogFile
from recoup.sources.readers import read_blocks
from recoup.sources.tables import Block, Dialect, dead_frame
from recoup.sources.values import read_text

FIELDS: Final = tuple(name for name in ITEM_SCHEMA if name != "event")
NESTED: Final = "items"
NULLS: Final = ("",)
"""As the native form has it: an event may well be called ``None``."""


def native_files(files: list[LogFile]) -> list[LogFile]:
    """Take ``events.*`` alone where there is one: a log may have other files beside it."""
    return _named(files, "events") or files


def lines_beside(files: list[LogFile]) -> list[LogFile]:
    """Take ``items.*`` where there is ``events.*``."""
    return _named(files, "items") if _named(files, "events") else []


def _named(files: list[LogFile], name: str) -> list[LogFile]:
    return [file for file in files if Path(file.label).name.split(".")[0] == name]


class LinesBeside:
    """Item lines that say by ``id`` (and ``source``, where they have one) whose they are.

    They are read when the first event is, and held in memory.

    Parameters
    ----------
    files
        ``items.*`` beside the events.
    source
        What events and lines that name no source are taken to be of.

    Examples
    --------
    >>> LinesBeside([], "native").findings()
    ()
    """

    def __init__(self, files: list[LogFile], source: str) -> None:
        self._files = files
        self._source = source
        self._groups: pl.DataFrame | None = None
        self._met = np.zeros(0, np.bool_)
        self._by_source = False
        self._total = 0
        self._inside = False
        self.dead_letters = dead_frame([])

    def nest(self, block: Block) -> Block:
        """Give a block's events their lines, as a column of lists, unless they have one."""
        if not self._files:
            return block
        groups = self._load() if self._groups is None else self._groups
        frame = block.frame
        if NESTED in frame.columns:
            self._inside = True
            return block
        keys = pl.DataFrame({"key": self._keys(frame)})
        found = keys.join(groups, on="key", how="left", maintain_order="left")
        self._met[found["place"].drop_nulls().to_numpy()] = True
        nested = frame.with_columns(found[NESTED])
        return Block(block.label, nested, block.rows, block.dead_letters)

    def findings(self) -> tuple[Finding, ...]:
        """Tell the lines that no event took, once all events have been given."""
        groups = self._groups
        if groups is None:
            return ()
        taken = int(groups.filter(pl.Series(self._met))[NESTED].list.len().sum())
        if taken == self._total:
            return ()
        names = ", ".join(f"`{file.label}`" for file in self._files)
        why = "the events have a column of their own" if self._inside else "they name no event"
        detail = f"{self._total - taken:,} of {self._total:,} item lines in {names} are left out: "
        return (Finding("lines_without_event", NESTED, None, None, f"{detail}{why}."),)

    def _load(self) -> pl.DataFrame:
        """Read the lines, those of an event together."""
        blocks = [block for file in self._files for block in read_blocks(file, Dialect())]
        self.dead_letters = pl.concat([block.dead_letters for block in blocks] or [dead_frame([])])
        frames = [block.frame for block in blocks if block.frame.height]
        self._by_source = any("source" in frame.columns for frame in frames)
        lines = pl.concat(
            [pl.DataFrame(schema={"key": pl.String, **_TYPES}), *map(self._keyed, frames)],
            how="vertical_relaxed",
        )
        self._total = lines.height
        groups = (
            lines.filter(pl.col("key").is_not_null())
            .group_by("key", maintain_order=True)
            .agg(pl.struct(FIELDS).alias(NESTED))
            .with_row_index("place")
        )
        self._groups, self._met = groups, np.zeros(groups.height, np.bool_)
        return groups

    def _keyed(self, frame: pl.DataFrame) -> pl.DataFrame:
        fields = [_field(frame, name).alias(name) for name in FIELDS]
        return pl.DataFrame([self._keys(frame).alias("key"), *fields])

    def _keys(self, frame: pl.DataFrame) -> pl.Series:
        """Name each row's event; null where it has no id."""
        ids = _text(frame, "id")
        if not self._by_source:
            return ids
        source = _text(frame, "source").fill_null(self._source)
        names = pl.DataFrame([source.alias("source"), ids.alias("id")])
        return names.select(pl.concat_str("source", "id", separator="\x1f")).to_series()


_TYPES: Final = {name: ITEM_SCHEMA[name] for name in FIELDS}


def _field(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give a field as it stands where its type is right already, else as text."""
    if name not in frame.columns:
        return pl.Series([None], dtype=_TYPES[name]).new_from_index(0, frame.height)
    column = frame[name]
    return column if column.dtype == _TYPES[name] else read_text(column, NULLS)


def _text(frame: pl.DataFrame, name: str) -> pl.Series:
    if name in frame.columns:
        return read_text(frame[name], NULLS)
    return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
