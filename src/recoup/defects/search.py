"""A greedy search over slices: the surest change is told first, then explained away."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.defects.risks import HOUR_US
from recoup.defects.scan import Found, scan
from recoup.defects.slices import Slice
from recoup.defects.tables import TOUCHED

PATH_NOISE: Final = 2.5
"""Who meets a page, item or query changes with the shop's flow of pages: allowed as more noise."""
ALIAS: Final = 0.02
"""Slices that differ in at most this share of their rows are one and the same."""
_SHRINK: Final = 2.0
_NOTHING: Final = Found(0.0, 1.0, 1.0, 0, 0)


class Candidate(msgspec.Struct):
    """A slice with what the scan found there; ``own`` is its level against all others."""

    slice: Slice
    found: Found = _NOTHING
    own: float = 1.0

    def is_path(self) -> bool:
        """Say whether the slice is a matter of the path taken, and not of who came."""
        return any(name in TOUCHED for name in self.slice.entity)


class Search:
    """Candidates over one set of rows: who was at risk, what was expected, what happened.

    Parameters
    ----------
    slices
        Where to look.
    expected, went_on
        P(goes on) and whether they did, shape (n,).
    start
        Hour from which hours count, since the epoch.
    noise
        Overdispersion, at least 1.
    recentre
        Compare each slice with its own mean rate: only changes in time count then.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        expected: NDArray[np.float64],
        went_on: NDArray[np.bool_],
        *,
        start: int,
        noise: float,
        recentre: bool,
    ) -> None:
        self.expected = expected.copy()
        self.went_on = went_on
        self.start = start
        self.noise = noise
        self._recentre = recentre
        self.candidates = [Candidate(each) for each in slices]
        for each in self.candidates:
            self._scan(each)

    def best(self) -> Candidate | None:
        """Give the candidate that is surest now."""
        return max(self.candidates, key=lambda each: each.found.log_factor, default=None)

    def inside(self, each: Candidate) -> NDArray[np.int64]:
        """Give the rows of a candidate within the hours found. Shape (m,)."""
        hours = each.slice.at // HOUR_US - self.start
        return each.slice.rows[(hours >= each.found.start) & (hours < each.found.stop)]

    def chance(self, each: Candidate, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give what was expected of a candidate's rows without the change. Shape (m,)."""
        return scaled(self.expected[rows], each.own * each.found.level)

    def explain_away(self, each: Candidate) -> None:
        """Take what was found into what is expected, and scan again whatever shares its rows."""
        rows, found = self.inside(each), each.found
        self.expect(rows, scaled(self.expected[rows], found.ratio / found.level))
        each.found = _NOTHING

    def expect(self, rows: NDArray[np.int64], expected: NDArray[np.float64]) -> None:
        """Expect something else of rows, and scan again whatever shares them."""
        self.expected[rows] = limited(expected)
        touched = np.zeros(len(self.expected), np.bool_)
        touched[rows] = True
        for other in self.candidates:
            if touched[other.slice.rows].any():
                self._scan(other)

    def with_aliases(self, each: Candidate) -> dict[str, str]:
        """Give a slice's entity with those of slices of the same rows, its aliases."""
        merged = dict(each.slice.entity)
        if not merged:
            return merged
        rows = self.inside(each)
        for other in self.candidates:
            close = abs(len(other.slice.rows) - len(each.slice.rows)) <= ALIAS * len(rows)
            if close and other.slice.entity and not other.is_path():
                hours = other.slice.at // HOUR_US - self.start
                inside = (hours >= each.found.start) & (hours < each.found.stop)
                same = np.intersect1d(rows, other.slice.rows[inside])
                if len(same) >= (1 - ALIAS) * max(len(rows), int(inside.sum())):
                    merged = {**other.slice.entity, **merged}
        return merged

    def _scan(self, each: Candidate) -> None:
        rows = each.slice.rows
        hours = each.slice.at // HOUR_US - self.start
        went_on, expected = self.went_on[rows], self.expected[rows]
        each.own = own_level(went_on, expected) if self._recentre else 1.0
        noise = self.noise * (PATH_NOISE if self._recentre and each.is_path() else 1.0)
        each.found = scan(hours, scaled(expected, each.own), went_on, noise)


def limited(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep probabilities away from 0 and 1."""
    return np.clip(chance, 1e-4, 0.995)


def own_level(went_on: NDArray[np.bool_], expected: NDArray[np.float64]) -> float:
    """Give a slice's own level against what is expected of all, shrunk to 1."""
    return float((went_on.sum() + _SHRINK) / (expected.sum() + _SHRINK))


def scaled(expected: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Multiply the odds of what is expected, so that probabilities stay below 1."""
    odds = level * expected / (1.0 - expected)
    return odds / (1.0 + odds)
