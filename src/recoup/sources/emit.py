"""From stretches of any length to batches of the size asked for, and back to a position."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.events import (
    EVENT_SCHEMA,
    EventBatch,
    concat_batches,
    conform,
    empty_frames,
    take,
)
from recoup.sources.base import SourceBatch, no_dead_letters

MARK: Final = ":"


class Stretch(msgspec.Struct, frozen=True):
    """Events, dead letters and findings that belong together, in the order of the log.

    Examples
    --------
    >>> from recoup.events import empty_frames
    >>> len(Stretch(EventBatch(*empty_frames()), no_dead_letters()).findings)
    0
    """

    batch: EventBatch
    dead_letters: pl.DataFrame
    findings: tuple[Finding, ...] = ()


class Place(msgspec.Struct, frozen=True):
    """A position: how many events, dead letters and findings lie before it.

    Examples
    --------
    >>> parse_place(str(Place(8192, 3, 1)))
    Place(events=8192, dead=3, findings=1)
    """

    events: int = 0
    dead: int = 0
    findings: int = 0

    def __str__(self) -> str:
        """Write the position as text."""
        return MARK.join(map(str, (self.events, self.dead, self.findings)))


def parse_place(text: str | None) -> Place:
    """Read a position.

    Raises
    ------
    SourceError
        If it is none.
    """
    if text is None:
        return Place()
    parts = text.split(MARK)
    if len(parts) != len(Place.__struct_fields__) or not all(part.isdecimal() for part in parts):
        raise SourceError(
            f"Expected a position such as 8192:0:0, got {text!r}",
            hint="the position belongs to another kind of log; start from the beginning",
        )
    return Place(*map(int, parts))


def emit(stretches: Iterable[Stretch], after: str | None, rows: int) -> Iterator[SourceBatch]:
    """Give batches of ``rows`` events, leaving out what lies before a position.

    A stretch's dead letters and findings go with the first of its events.
    """
    start = parse_place(after)
    done = Place()
    held: list[Stretch] = []
    for stretch in stretches:
        left, done = _behind(stretch, done, start)
        if left is None:
            continue
        held.append(left)
        while sum(len(one.batch) for one in held) >= rows:
            batch, rest = _cut(held, rows)
            start = _advance(start, batch)
            yield _source_batch(batch, start)
            held = [] if rest is None else [rest]
    if held:
        whole = _join(held)
        start = _advance(start, whole)
        yield _source_batch(whole, start)


def in_order(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Sort a whole log by time, in memory: columns without a value take no room."""
    events, items, dead = [], [], []
    findings: list[Finding] = []
    start = 0
    for stretch in stretches:
        frame = stretch.batch.events
        held = [column for column in frame if column.null_count() < frame.height]
        events.append(pl.DataFrame(held))
        shifted = (pl.col("event") + start).cast(pl.UInt32)
        items.append(stretch.batch.items.with_columns(shifted))
        dead.append(stretch.dead_letters)
        findings += stretch.findings
        start += frame.height
    order = pl.concat(events, how="diagonal") if events else pl.DataFrame()
    if not start:
        batch = EventBatch(*empty_frames())
    else:
        batch = take(
            EventBatch(conform(order, EVENT_SCHEMA), pl.concat(items)),
            order["ts"].arg_sort().to_numpy(),
        )
    yield Stretch(batch, pl.concat(dead), tuple(findings))


def _behind(stretch: Stretch, done: Place, start: Place) -> tuple[Stretch | None, Place]:
    """Leave out of a stretch what lies before the start."""
    events = max(0, start.events - done.events)
    dead = max(0, start.dead - done.dead)
    findings = max(0, start.findings - done.findings)
    done = _advance(done, stretch)
    if not (events or dead or findings):
        return (stretch if _size(stretch) else None), done
    left = Stretch(
        slice_batch(stretch.batch, events, len(stretch.batch)),
        stretch.dead_letters.slice(dead),
        stretch.findings[findings:],
    )
    return (left if _size(left) else None), done


def _size(stretch: Stretch) -> int:
    return len(stretch.batch) + stretch.dead_letters.height + len(stretch.findings)


def _advance(place: Place, stretch: Stretch) -> Place:
    return Place(
        place.events + len(stretch.batch),
        place.dead + stretch.dead_letters.height,
        place.findings + len(stretch.findings),
    )


def _join(held: list[Stretch]) -> Stretch:
    if len(held) == 1:
        return held[0]
    return Stretch(
        concat_batches(one.batch for one in held),
        pl.concat([one.dead_letters for one in held]),
        tuple(finding for one in held for finding in one.findings),
    )


def _cut(held: list[Stretch], rows: int) -> tuple[Stretch, Stretch | None]:
    """Part the first ``rows`` events, with what was noted, from the rest."""
    whole = _join(held)
    first = Stretch(slice_batch(whole.batch, 0, rows), whole.dead_letters, whole.findings)
    if len(whole.batch) == rows:
        return first, None
    rest = slice_batch(whole.batch, rows, len(whole.batch))
    return first, Stretch(rest, no_dead_letters())


def slice_batch(batch: EventBatch, start: int, stop: int) -> EventBatch:
    """Take the events in [start, stop), with their item lines."""
    if start == 0 and stop >= len(batch):
        return batch
    first, last = np.searchsorted(batch.items["event"].to_numpy(), (start, stop)).tolist()
    items = batch.items.slice(first, last - first)
    renumbered = items.with_columns((pl.col("event") - start).cast(pl.UInt32))
    return EventBatch(batch.events.slice(start, max(0, stop - start)), renumbered)


def _source_batch(stretch: Stretch, place: Place) -> SourceBatch:
    return SourceBatch(stretch.batch, stretch.dead_letters, stretch.findings, str(place))
