"""Native logs and tables read through a mapping: their rows taken, changed and repeated."""

import datetime as dt
import itertools
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import ConfigError, SourceError
from recoup.events import concat_batches
from recoup.injection.plan import Change, Plan
from recoup.injection.records import Records, open_records
from recoup.injection.values import changed, later, raw_column
from recoup.sources.files import LogFile
from recoup.sources.grouping import keys_of
from recoup.sources.mapped import MappedSource
from recoup.sources.naming import Naming
from recoup.sources.readers import read_blocks


class Part(msgspec.Struct, frozen=True):
    """A plan's part for one file: one entry per raw row, in the order of the file.

    Parameters
    ----------
    rows
        Number of each raw row that belongs to an event, from 1, ascending.
    event
        The event it belongs to.

    Examples
    --------
    >>> Part(np.array([1, 2]), np.array([0, 0])).rows
    array([1, 2])
    """

    rows: NDArray[np.int64]
    event: NDArray[np.int64]


class TableLog:
    """A log of tables, each row of which is an event or a line of one.

    Parameters
    ----------
    source
        As opened.
    now
        As it was opened.
    """

    def __init__(self, source: MappedSource, *, now: dt.datetime) -> None:
        self._mapping, self._files, self._now = source.mapping, source.files, now
        self._naming = Naming(self._mapping, self._files)
        self._parts: list[Part] = []
        packed = [file.path for file in self._files if file.packing == "zstd"]
        if packed:
            raise SourceError(
                f"Expected files that can be written again, got `{packed[0]}`, packed with zstd",
                hint="unpack it, or pack it with gzip",
            )

    def events(self) -> pl.DataFrame:
        """Read every event, file by file, and note the rows that each stands in."""
        frames: list[pl.DataFrame] = []
        start = 0
        for file in self._files:
            events = self._read(file)
            self._parts.append(self._link(file, events["seq"].to_numpy(), start))
            frames.append(events)
            start += events.height
        return pl.concat(frames)

    def write(self, plan: Plan, out: Path) -> None:
        """Write the log's files as a plan says."""
        for file, part in zip(self._files, self._parts, strict=True):
            target = out / file.label
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write_file(file, part, plan, target)
        for folder, join in itertools.product(
            dict.fromkeys(file.path.parent for file in self._files), self._mapping.join
        ):
            for table in folder.glob(join.file):
                shutil.copyfile(table, out / table.name)

    def _read(self, file: LogFile) -> pl.DataFrame:
        """Read one file's events with the number of their row as ``seq``."""
        columns = {name: rule for name, rule in self._mapping.columns.items() if name != "seq"}
        mapping = msgspec.structs.replace(
            self._mapping, columns=columns, order="arrival", extra=False
        )
        found = MappedSource([file], mapping, now=self._now).batches()
        return concat_batches(part.batch for part in found).events

    def _link(self, file: LogFile, first: NDArray[np.int64], start: int) -> Part:
        """Find the rows of each event: of an order log, all that have its key."""
        event = np.arange(start, start + len(first), dtype=np.int64)
        items = self._mapping.items
        if items is None or not items.group_by:
            order = np.argsort(first, kind="stable")
            return Part(first[order], event[order])
        blocks = [
            self._naming.named(block, file)
            for block in read_blocks(file, self._naming.dialect(file))
            if block.frame.height
        ]
        keys = pl.DataFrame(
            {
                "key": pl.concat([keys_of(block, items) for block in blocks]),
                "row": pl.concat([block.rows for block in blocks]).cast(pl.Int64),
            }
        )
        heads = keys.join(pl.DataFrame({"row": first, "event": event}), on="row", how="inner")
        lines = keys.join(heads.select("key", "event"), on="key", how="inner").sort("row")
        return Part(lines["row"].to_numpy(), lines["event"].to_numpy())

    def _write_file(self, file: LogFile, part: Part, plan: Plan, target: Path) -> None:
        records = open_records(file, self._naming, self._mapping.encoding)
        names = {new: old for old, new in self._naming.renames(records.columns).items()}
        for change in plan.changes:
            self._change(records, names, part.rows[np.isin(part.event, change.rows)], change)
        delay = plan.delay_us[part.event]
        if delay.any():
            moved, name = part.rows[delay != 0], self._moment()
            name = names.get(name, name)
            old = records.get(name, moved)
            new = later(old, delay[delay != 0], self._mapping, self._now)
            records.put(name, moved, new.to_list())
        found = raw_column(self._mapping, "id", needed=False)
        own = None if found is None else names.get(found[0], found[0])
        times = np.where(plan.gone[part.event], 0, 1 + plan.copies[part.event])
        other = times != 1
        records.repeat(part.rows[other], times[other], own)
        records.save(target)

    def _change(
        self, records: Records, names: dict[str, str], rows: NDArray[np.int64], change: Change
    ) -> None:
        for field in (*change.set, *change.scale, *change.add):
            found = raw_column(self._mapping, field, needed=field not in change.add)
            if found is not None and len(rows):
                name = names.get(found[0], found[0])
                old = records.get(name, rows).to_list()
                records.put(name, rows, changed(old, field, found[1], change))

    def _moment(self) -> str:
        sources = self._mapping.ts.sources
        if len(sources) > 1:
            raise ConfigError(
                f"Expected moments in one column, got {', '.join(sources)}",
                hint="a log whose moments stand in two columns cannot be slowed",
            )
        return sources[0]
