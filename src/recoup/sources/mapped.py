"""Any table, read through a mapping."""

import datetime as dt
from collections.abc import Iterator, Sequence

import polars as pl

from recoup.decisions import Finding
from recoup.errors import MappingError, SourceError
from recoup.events import EventBatch, empty_frames
from recoup.sources.base import ROWS, SourceBatch
from recoup.sources.beside import LinesBeside
from recoup.sources.convert import Converted, convert, read_columns
from recoup.sources.emit import Stretch, emit, in_order
from recoup.sources.files import LogFile
from recoup.sources.follow import Followed, Follower, Renamed
from recoup.sources.grouping import whole_groups
from recoup.sources.mapping import Mapping
from recoup.sources.naming import Naming
from recoup.sources.native import MAPPING, NEEDED, take_whole
from recoup.sources.readers import empty_log, read_blocks
from recoup.sources.tables import Block, dead_frame, dead_letter
from recoup.sources.tally import Tally


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
    noticed
        What was found out when the log was opened.
    beside
        Files of item lines.
    """

    def __init__(
        self,
        files: list[LogFile],
        mapping: Mapping,
        *,
        now: dt.datetime,
        noticed: tuple[Finding, ...] = (),
        beside: Sequence[LogFile] = (),
    ) -> None:
        self.name = mapping.source
        self.files = files
        self.mapping = mapping
        self._noticed = noticed
        self._beside = list(beside)
        self._now = now

    def size_hint(self) -> int | None:
        """Give the number of rows, where the files say it without being read."""
        if any(file.kind != "parquet" for file in self.files):
            return None
        try:
            return sum(
                int(pl.scan_parquet(file.path).select(pl.len()).collect().item())
                for file in self.files
            )
        except (pl.exceptions.PolarsError, OSError):
            return None

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        arrived = self._arrived()
        yield from emit(in_order(arrived) if self.mapping.order == "time" else arrived, after, rows)

    def _arrived(self) -> Iterator[Stretch]:
        tally = Tally(self.mapping)
        changes: list[tuple[Renamed, int]] = []
        noticed = self._noticed
        lines = LinesBeside(self._beside, self.name)
        for block in self._whole(self._named(changes)):
            converted = self._convert(lines.nest(block))
            findings = (*noticed, *tally.add(converted, tuple(changes)))
            noticed = ()
            changes.clear()
            batch = EventBatch(converted.events, converted.items)
            yield Stretch(batch, converted.dead_letters, findings)
        findings = (*tally.findings(), *lines.findings())
        yield Stretch(EventBatch(*empty_frames()), lines.dead_letters, findings)

    def _whole(self, blocks: Iterator[Block]) -> Iterator[Block]:
        items = self.mapping.items
        if items is None or not items.group_by:
            return blocks
        return whole_groups(blocks, items)

    def _convert(self, block: Block) -> Converted:
        whole = take_whole(block, self._now) if self.mapping is MAPPING else None
        return whole or convert(block, self.mapping, self._now)

    def _named(self, changes: list[tuple[Renamed, int]]) -> Iterator[Block]:
        """Give blocks under the mapping's names, and note the changes that begin in them."""
        checked = False
        for followed in self._followed():
            block = followed.block
            if not checked and block.frame.height:
                self._check(block)
                checked = True
            changes += [(change, int(block.rows[change.row])) for change in followed.renamed]
            yield block

    def _followed(self) -> Iterator[Followed]:
        if not self.mapping.follow_renames:
            return (Followed(block, ()) for block in self._blocks())
        wanted = read_columns(self.mapping)
        sought = NEEDED if self.mapping is MAPPING else wanted
        return Follower(wanted, by_name=sought).follow(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        naming = Naming(self.mapping, self.files)
        seen = False
        for file in self.files:
            try:
                for block in read_blocks(file, naming.dialect(file)):
                    seen = seen or block.frame.height > 0
                    yield naming.named(block, file)
            except SourceError as error:
                if len(self.files) == 1:
                    raise
                dead = dead_letter(file.label, "unreadable_file", error.message, "")
                yield Block(file.label, pl.DataFrame(), NO_ROWS, dead_frame([dead]))
        if not seen:
            raise empty_log(self.files)

    def _check(self, block: Block) -> None:
        wanted = {*self.mapping.ts.sources, *self.mapping.event.sources}
        lacking = sorted(wanted - set(block.frame.columns))
        if lacking:
            raise MappingError(
                f"Expected columns {', '.join(lacking)} in `{block.label}`, got "
                f"{', '.join(block.frame.columns)}",
                hint="correct the mapping file, or propose one with `recoup inspect`",
            )


NO_ROWS = pl.Series([], dtype=pl.Int64)
