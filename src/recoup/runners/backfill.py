"""Training tables from a log: admitted as a live shop would have, then folded."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from recoup.events import EventBatch
from recoup.features import FeatureSet, FeatureStore, standard_features
from recoup.features.backfill import As, backfill
from recoup.intake import Intake
from recoup.sources import Source, SourceBatch
from recoup.sources.base import ROWS
from recoup.tables import write_table

Progress = Callable[[int], None]


class LeftOut(msgspec.Struct):
    """What a log held that was not folded: repeats, and dead letters by reason."""

    duplicates: int = 0
    dead_letters: dict[str, int] = msgspec.field(default_factory=dict)


class Counted:
    """A source that keeps account of what :func:`admitted` leaves out of it.

    Parameters
    ----------
    source
        The log.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name
        self.left_out = LeftOut()

    def size_hint(self) -> int | None:
        """Give about how many events the log has, or None if it does not say."""
        return self._source.size_hint()

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        return self._source.batches(after, rows=rows)


def admitted(source: Source, progress: Progress | None = None) -> Iterator[EventBatch]:
    """Read a log through the intake: without repeats, and without what came too late.

    Parameters
    ----------
    source
        The log; a :class:`Counted` one is told what was left out.
    progress
        Told the number of events read so far.
    """
    intake, read, reasons, duplicates = Intake(), 0, Counter[str](), 0
    for arrival in source.batches():
        read += len(arrival.batch)
        if progress is not None:
            progress(read)
        found = intake.step(arrival.batch)
        duplicates += found.duplicates
        reasons.update(arrival.dead_letters["reason"].to_list())
        reasons.update(found.dead_letters["reason"].to_list())
        if isinstance(source, Counted):
            source.left_out = LeftOut(duplicates, dict(sorted(reasons.items())))
        yield found.batch


def backfill_to(
    source: Source,
    out: Path,
    *,
    how: As,
    feature_set: FeatureSet | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Write one row of features per event of a log, in the log's order.

    Parameters
    ----------
    source
        The log.
    out
        The Parquet file to write.
    how
        ``served`` or ``settled``; see :func:`recoup.features.backfill.backfill`.
    feature_set
        Which features; the standard ones where None.
    progress
        Told the number of events read so far.

    Returns
    -------
    ``rows``, ``features`` and ``hash`` of the feature set.
    """
    features = feature_set or standard_features()
    table = backfill(FeatureStore(features), admitted(source, progress), how=how)
    write_table(table, out)
    return {"rows": table.height, "features": len(features.features), "hash": features.hash}
