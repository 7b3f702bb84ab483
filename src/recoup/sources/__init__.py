"""Sources: any log, read as batches of events."""

import datetime as dt
from pathlib import Path

from recoup.errors import SourceError
from recoup.sources.base import ROWS, Source, SourceBatch, merge_findings
from recoup.sources.google_merch_store import GoogleMerchStore, is_shop

__all__ = ["ROWS", "Source", "SourceBatch", "merge_findings", "open_source"]


def open_source(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    mapping: Path | None = None,
    now: dt.datetime | None = None,
) -> Source:
    """Open a log."""
    log = Path(path)
    if not log.exists():
        raise SourceError(f"Expected a log, got nothing at `{log}`", hint="check the path")
    return GoogleMerchStore(log)
