"""The Google Merchandise Store export: four tables of one shop's hits, read as one log.

One hit is one event. ``events`` holds the hits, ``sessions`` their context, ``hit_products`` and
``hit_promotions`` their item lines; all are joined on (visitor_id, visit_id[, hit_number]), never
on the day, because the export splits a visit at midnight. What a session row knows only once the
visit is over (its hits, its time on site, its revenue) is never read.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from recoup.errors import SourceError
from recoup.events import EventBatch
from recoup.sources.base import ROWS, SourceBatch, no_dead_letters
from recoup.sources.google_merch_store.columns import NAME
from recoup.sources.google_merch_store.hits import map_hits
from recoup.sources.google_merch_store.lines import Lines, hit_columns
from recoup.sources.google_merch_store.tables import is_shop, load

__all__ = ["NAME", "GoogleMerchStore", "is_shop"]


class GoogleMerchStore:
    """Four tables in a directory, read as one log in the order of time.

    The tables are held in memory, strings as codes: some 30 bytes an item line. A position is the
    number of hits read.

    Parameters
    ----------
    folder
        Where ``events`` is, and ``sessions``, ``hit_products``, ``hit_promotions`` if the shop has
        them.
    now
        What lies more than a day behind it is refused as ``future_timestamp``.

    Raises
    ------
    SourceError
        If the folder has no table of hits, or one that cannot be read.
    """

    name = NAME

    def __init__(self, folder: Path, *, now: dt.datetime) -> None:
        self._tables = load(folder, now)
        self._lines = Lines(self._tables)

    def size_hint(self) -> int | None:
        """Give the number of hits."""
        return self._tables.hits.height

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        hits, refused = self._tables.hits, self._tables.dead_letters
        start = _row(after, hits.height)
        findings = self._tables.findings if start == 0 else ()
        for first in range(start, hits.height, rows):
            last = min(first + rows, hits.height)
            items = self._lines.between(first, last)
            stretch = hits.slice(first, last - first)
            beside = hit_columns(items, self._lines.clicked(first, last), stretch.height)
            events = map_hits(stretch.hstack(beside))
            dead = refused if first == 0 else no_dead_letters()
            yield SourceBatch(EventBatch(events, items), dead, findings, str(last))
            findings = ()


def _row(position: str | None, height: int) -> int:
    if position is None:
        return 0
    if not position.isdecimal() or int(position) > height:
        raise SourceError(
            f"Expected a position from 0 to {height}, got {position!r}",
            hint="the position belongs to another log; start from the beginning",
        )
    return int(position)
