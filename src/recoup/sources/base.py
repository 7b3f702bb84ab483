"""What a source is: a log read as batches of events, with what was wrong with it."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol, runtime_checkable

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.events import DEAD_LETTER_SCHEMA, EventBatch

ROWS: Final = 8192
"""Events in a batch unless the caller asks for another number."""

RAW_LIMIT: Final = 2_000
"""How many characters of a bad row a dead letter keeps."""


class SourceBatch(msgspec.Struct, frozen=True):
    """A stretch of a log.

    Parameters
    ----------
    batch
        The events that were understood, in the order of the log.
    dead_letters
        Frame of ``DEAD_LETTER_SCHEMA``: the rows that were not, with place and reason.
    findings
        What was noticed about the data since the batch before. One with the ``kind``, ``column``
        and ``since`` of an earlier one replaces it.
    position
        Where to read on, behind this batch.

    Examples
    --------
    >>> from recoup.events import empty_frames
    >>> empty = SourceBatch(EventBatch(*empty_frames()), no_dead_letters(), (), "0")
    >>> len(empty.batch), empty.dead_letters.height
    (0, 0)
    """

    batch: EventBatch
    dead_letters: pl.DataFrame
    findings: tuple[Finding, ...]
    position: str


@runtime_checkable
class Source(Protocol):
    """A log, read as batches of events."""

    name: str

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start.

        Reading on behind the position of any batch, with the same ``rows``, gives exactly the
        batches that would have followed it.

        Raises
        ------
        SourceError
            If the log cannot be read, or the position is none of this source's.
        """
        ...

    def size_hint(self) -> int | None:
        """Give about how many events the log has, or None if it does not say."""
        ...


def no_dead_letters() -> pl.DataFrame:
    """Make a dead-letter frame without rows."""
    return pl.DataFrame(schema=DEAD_LETTER_SCHEMA)


def merge_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Let each finding replace the earlier ones of its kind, column and beginning.

    Examples
    --------
    >>> open_, closed = (
    ...     Finding("column_missing", "price", "2026-01-02T00:00:00Z", until, "")
    ...     for until in (None, "2026-01-03T00:00:00Z")
    ... )
    >>> [finding.until for finding in merge_findings([open_, closed])]
    ['2026-01-03T00:00:00Z']
    """
    merged: dict[tuple[str, str, str | None], Finding] = {}
    for finding in findings:
        merged[finding.kind, finding.column, finding.since] = finding
    return tuple(merged.values())
