"""Any table, read through a mapping."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator

import polars as pl

from recoup.decisions import Finding
from recoup.errors import MappingError
from recoup.events import EventBatch, empty_frames
from recoup.sources.base import ROWS, SourceBatch, no_dead_letters
from recoup.sources.convert import Converted, convert
from recoup.sources.emit import Stretch, emit, in_order
from recoup.sources.files import LogFile
from recoup.sources.grouping import whole_groups
from recoup.sources.mapping import Mapping
from recoup.sources.native import MAPPING, take_whole
from recoup.sources.readers import empty_log, read_blocks
from recoup.sources.tables import Block, Dialect


class MappedSource:
    """A file, or a directory of files in the order of their names, read through a mapping.

    Reading on behind a position reads what lies before it once more, without giving it: what is
    noticed about later rows rests on earlier ones.

    Parameters
    ----------
    files
        The files, in order.
    mapping
        Which column is what.
    now
        What lies more than a day behind it is refused as ``future_timestamp``.
    """

    def __init__(self, files: list[LogFile], mapping: Mapping, *, now: dt.datetime) -> None:
        self.name = mapping.source
        self._files = files
        self._mapping = mapping
        self._now = now

    def size_hint(self) -> int | None:
        """Give the number of rows, where the files say it without being read."""
        if any(file.kind != "parquet" for file in self._files):
            return None
        try:
            return sum(
                pl.scan_parquet(file.path).select(pl.len()).collect().item() for file in self._files
            )
        except (pl.exceptions.PolarsError, OSError):
            return None

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        yield from emit(self._stretches(), after, rows)

    def _stretches(self) -> Iterator[Stretch]:
        arrived = self._arrived()
        return in_order(arrived) if self._mapping.order == "time" else arrived

    def _arrived(self) -> Iterator[Stretch]:
        tally = _Tally()
        items = self._mapping.items
        blocks = self._blocks()
        if items is not None and items.group_by:
            blocks = whole_groups(blocks, items.group_by)
        for block in blocks:
            converted = self._convert(block)
            tally.add(converted)
            yield Stretch(EventBatch(converted.events, converted.items), converted.dead_letters)
        yield Stretch(EventBatch(*empty_frames()), no_dead_letters(), tally.findings())

    def _convert(self, block: Block) -> Converted:
        whole = take_whole(block, self._now) if self._mapping is MAPPING else None
        return whole or convert(block, self._mapping, {}, self._now)

    def _blocks(self) -> Iterator[Block]:
        dialect = Dialect(self._mapping.delimiter, self._mapping.header, self._mapping.encoding)
        seen = False
        for file in self._files:
            for block in read_blocks(file, dialect):
                if not seen and block.frame.height:
                    self._check(block)
                    seen = True
                yield block
        if not seen:
            raise empty_log(self._files)

    def _check(self, block: Block) -> None:
        wanted = {*self._mapping.ts.sources, *self._mapping.event.sources}
        lacking = sorted(wanted - set(block.frame.columns))
        if lacking:
            raise MappingError(
                f"Expected columns {', '.join(lacking)} in `{block.label}`, got "
                f"{', '.join(block.frame.columns)}",
                hint="correct the mapping file, or propose one with `recoup inspect`",
            )


class _Tally:
    """What is counted over the whole log."""

    def __init__(self) -> None:
        self._unknown: Counter[str] = Counter()
        self._ignored = self._made = self._events = 0

    def add(self, converted: Converted) -> None:
        self._unknown.update(converted.unknown)
        self._ignored += converted.ignored
        self._made += converted.made_ids
        self._events += converted.events.height

    def findings(self) -> tuple[Finding, ...]:
        return ()
