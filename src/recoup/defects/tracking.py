"""Events of a step that were lost while shoppers went on past it: a fault of the data."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Finding
from recoup.defects.risks import HOUR_US, NEVER_US, PURCHASE, reach_times
from recoup.defects.search import Search
from recoup.defects.slices import slices_within
from recoup.defects.tables import CONTEXTS, LEVELS
from recoup.defects.told import Log, labelled, words

LEAST_LOG_ODDS: Final = 3.0
_LEAST_SEEN: Final = 0.5
MOST_PER_STEP: Final = 3


class TrackingBreak(msgspec.Struct, frozen=True):
    """A step's events lost among the sessions of an entity, from ``start`` to ``stop`` (us)."""

    level: int
    entity: dict[str, str]
    start: int
    stop: int
    finding: Finding

    def hides(self, sessions: pl.DataFrame, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which sessions at risk cannot be judged by this step; shapes (n,)."""
        here = (at >= self.start) & (at < self.stop)
        for name, value in self.entity.items():
            here &= (sessions[name] == value).fill_null(value=False).to_numpy()
        return here


def tracking_breaks(sessions: pl.DataFrame, log: Log) -> Iterator[TrackingBreak]:
    """Find steps whose events went missing among the sessions that came further.

    A step that most of those who came further had shown, and in some slice and interval they do
    not, was not left out by shoppers but by the tags.
    """
    times = reach_times(sessions)
    for level in range(1, PURCHASE):
        further = np.flatnonzero(times[:, level + 1] < NEVER_US)
        showed = sessions[f"t{level}"].is_not_null().to_numpy()[further]
        if len(further) and showed.mean() >= _LEAST_SEEN:
            yield from _breaks(level, sessions[further], showed, times[further, level + 1], log)


def _breaks(
    level: int, sessions: pl.DataFrame, showed: NDArray[np.bool_], at: NDArray[np.int64], log: Log
) -> Iterator[TrackingBreak]:
    usual = float(np.clip(np.mean(showed), 0.02, 0.98))
    frame = sessions.select(*CONTEXTS).with_columns(
        pl.Series("row", np.arange(len(at))), pl.Series("at", at), pl.Series("p", showed * usual)
    )
    slices = slices_within(frame.with_columns(p=pl.lit(usual)))
    expected = np.full(len(at), usual)
    search = Search(slices, expected, showed, start=log.start, noise=1.5, recentre=True)
    prior = np.log(0.3 / max(len(slices), 1))
    for _ in range(MOST_PER_STEP):
        best = search.best()
        if best is None or best.found.log_factor + prior < LEAST_LOG_ODDS:
            return
        rows = search.inside(best)
        if showed[rows].mean() < _LEAST_SEEN * usual:
            since, until, _ = log.times(best.found)
            finding = Finding(
                kind="tracking_break",
                column=LEVELS[level],
                since=since.isoformat(),
                until=until.isoformat() if until else None,
                detail=(
                    f"Of {len(rows)} sessions that came past `{LEVELS[level]}`"
                    f"{_where(best.slice.entity)}, {showed[rows].sum()} showed that event; "
                    f"of all such sessions {usual:.0%} do. "
                    "Shoppers went on: only the events were lost."
                ),
            )
            hours = (log.start + best.found.start, log.start + best.found.stop)
            start, stop = (hour * HOUR_US for hour in hours)
            yield TrackingBreak(level, best.slice.entity, start, stop, finding)
        search.explain_away(best)


def _where(entity: dict[str, str]) -> str:
    return f" with {words(labelled(entity))}" if entity else ""
