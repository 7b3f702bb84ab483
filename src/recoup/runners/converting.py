"""A log of any format as a native one, event for event."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from recoup.events import EventBatch
from recoup.sources import Source
from recoup.sources.native import write_native


class Converted(msgspec.Struct, frozen=True):
    """How many events were written to which file, and what could not be read, by reason."""

    events: int
    dead_letters: dict[str, int]
    out: str


def convert_log(
    source: Source, out: Path, progress: Callable[[int], None] | None = None
) -> Converted:
    """Write a log as it was read, repeats and latecomers too, in the native format.

    Parameters
    ----------
    source
        The log; what its privacy settings leave out is not written.
    out
        A file ending in ``.parquet`` or ``.ndjson``, or a directory, which gets ``events.parquet``.
        It appears when it is whole.
    progress
        Told the number of events read so far.

    Raises
    ------
    ConfigError
        If the file has another ending.
    SourceError
        If the log cannot be opened.
    """
    read, reasons = 0, Counter[str]()

    def told() -> Iterator[EventBatch]:
        nonlocal read
        for arrival in source.batches():
            read += len(arrival.batch)
            reasons.update(arrival.dead_letters["reason"].to_list())
            if progress is not None:
                progress(read)
            yield arrival.batch

    written = write_native(told(), out)
    return Converted(read, dict(sorted(reasons.items())), str(written))
