"""Training tables from a log: admitted as a live shop would have, then folded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from recoup.events import EventBatch
from recoup.features import FeatureSet, FeatureStore, standard_features
from recoup.features.backfill import As, backfill
from recoup.intake import Intake
from recoup.sources import Source

Progress = Callable[[int], None]


def admitted(source: Source, progress: Progress | None = None) -> Iterator[EventBatch]:
    """Read a log through the intake: without repeats, and without what came too late.

    Parameters
    ----------
    progress
        Told the number of events read so far.
    """
    intake, read = Intake(), 0
    for arrival in source.batches():
        read += len(arrival.batch)
        if progress is not None:
            progress(read)
        yield intake.step(arrival.batch).batch


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
    out.parent.mkdir(parents=True, exist_ok=True)
    table.write_parquet(out)
    return {"rows": table.height, "features": len(features.features), "hash": features.hash}
