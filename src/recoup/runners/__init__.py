"""Runners host the fold: they own the journal, the clock and the outside world."""

from recoup.runners.local import (
    Arrival,
    Feed,
    Host,
    IncrementalHost,
    LocalRunner,
    Processed,
    Totals,
)

__all__ = ["Arrival", "Feed", "Host", "IncrementalHost", "LocalRunner", "Processed", "Totals"]
