"""Losses that no signal explains: slices whose shoppers stopped going on, in some interval."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Defect
from recoup.defects.catalogue import UNEXPLAINED_DROP
from recoup.defects.risks import HOUR_US, PURCHASE, Step, steps_of
from recoup.defects.search import Candidate, Search, scaled
from recoup.defects.severity import lost_share, widened
from recoup.defects.slices import slices_of
from recoup.defects.tables import LEVELS, TOUCHED
from recoup.defects.told import Log, Loss, labelled, tell, words
from recoup.defects.tracking import TrackingBreak

EXPECTED_DEFECTS: Final = 0.3
"""Prior number of losses in a log that can be seen: what makes a quiet shop stay quiet."""
LOSS_ODDS: Final = 3.0
"""Prior odds that fewer steps mean fewer shoppers, not events lost or a changed flow of pages."""
LEAST_CONFIDENCE: Final = 0.2
MOST: Final = 12
REPEATED: Final = 0.4
"""A loss of which less than this is new has been told already."""
LEAST_NOISE: Final = 1.15
LEAST_NOISE_LANDED: Final = 2.0
"""Least overdispersion of a step; whether a visit begins in earnest varies most."""
_SHRINK: Final = 5.0
_CHI2_MEDIAN: Final = 0.4549


class _Place(msgspec.Struct):
    step: Step
    search: Search


def unexplained(
    sessions: pl.DataFrame,
    touches: pl.DataFrame,
    spoiled: NDArray[np.int64],
    breaks: Sequence[TrackingBreak],
    log: Log,
) -> Iterator[Defect]:
    """Find the losses that no signal explains, the surest first.

    Parameters
    ----------
    sessions, touches
        Tables of evidence, settled sessions only.
    spoiled
        When each session met a defect that is told already, or ``NEVER_US``: it no longer counts.
    breaks
        Steps whose events were lost: those who stood before them are not judged by them.
    """
    steps = [_judged(step, sessions, spoiled, breaks) for step in steps_of(sessions)]
    places = [_place(step, sessions, touches, log) for step in steps if len(step.at)]
    prior = np.log(EXPECTED_DEFECTS / max(sum(len(each.search.candidates) for each in places), 1))
    told: set[int] = set()
    for _ in range(MOST):
        place, best = _surest(places)
        if best is None or best.found.log_factor + prior < np.log(LEAST_CONFIDENCE):
            return
        real = 1.0 / (1.0 + np.exp(-(best.found.log_factor + prior)))
        lost = set(_lost_sessions(place, best).tolist())
        fresh = len(lost - told) > REPEATED * len(lost)
        defect = _judge(place.step, place.search, best, real, log) if fresh else None
        _explain_away(places, place, best)
        if defect is not None:
            told |= lost
            yield defect


def _lost_sessions(place: _Place, each: Candidate) -> NDArray[np.int64]:
    inside = place.search.inside(each)
    return place.step.session[inside[~place.step.went_on[inside]]]


def _place(step: Step, sessions: pl.DataFrame, touches: pl.DataFrame, log: Log) -> _Place:
    slices = slices_of(step, sessions, touches)
    noise = overdispersion(step)
    search = Search(
        slices, step.expected, step.went_on, start=log.start, noise=noise, recentre=True
    )
    return _Place(step, search)


def _surest(places: list[_Place]) -> tuple[_Place, Candidate | None]:
    found = [(each, each.search.best()) for each in places]
    return max(found, key=lambda pair: pair[1].found.log_factor if pair[1] else -np.inf)


def _explain_away(places: list[_Place], told: _Place, best: Candidate) -> None:
    """Expect less of the same sessions also in the steps that overlap the one that was told."""
    sessions = told.step.session[told.search.inside(best)]
    kept = best.found.ratio / best.found.level
    told.search.explain_away(best)
    for other in places:
        overlaps = other.step.level < told.step.onward and told.step.level < other.step.onward
        rows = np.flatnonzero(np.isin(other.step.session, sessions))
        if other is not told and overlaps and len(rows):
            other.search.expect(rows, scaled(other.search.expected[rows], kept))


def _judged(
    step: Step,
    sessions: pl.DataFrame,
    spoiled: NDArray[np.int64],
    breaks: Sequence[TrackingBreak],
) -> Step:
    """Keep the rows that no defect told already and no lost tag has touched."""
    kept = step.leaves <= spoiled[step.session]
    for each in breaks:
        if each.level == step.onward:
            kept &= ~each.hides(sessions[step.session], step.at)
    arrays = {
        name: getattr(step, name)[kept]
        for name in ("session", "at", "leaves", "went_on", "bought", "expected", "orders")
    }
    return Step(step.level, step.onward, **arrays)


def _judge(step: Step, search: Search, best: Candidate, real: float, log: Log) -> Defect | None:
    inside = search.inside(best)
    chance = search.chance(best, inside) / dilution(search, best)
    went_on, bought = step.went_on[inside], step.bought[inside]
    orders = expected_orders(step, best, inside)
    share = lost_share(float(went_on.sum()), float(chance.sum()))
    kept = max(1.0 - share.value, 0.02)
    lost_not_moved = _orders_too(step, float(bought.sum()), orders, kept)
    confidence = real * _still_a_loss(went_on, chance, search.noise) * lost_not_moved
    confidence *= _missing_among_all(search, best, float(chance.sum() - went_on.sum()))
    if confidence < LEAST_CONFIDENCE:
        return None
    entity = search.with_aliases(best) or {"step": LEVELS[step.onward]}
    evidence = (
        f"Of {len(inside)} sessions with {words(labelled(entity))} that came to "
        f"{LEVELS[step.level]}, {went_on.sum()} went on to {LEVELS[step.onward]} where "
        f"{chance.sum():.0f} would have: {share.value:.0%} lost "
        f"({share.low:.0%} to {share.high:.0%})."
    )
    lost = widened(share.scaled(orders), orders)
    return tell(
        log,
        best.found,
        Loss(
            UNEXPLAINED_DROP, entity, step.level, len(inside), float(bought.sum()), orders, lost,
            float(confidence), evidence,
        ),
    )  # fmt: skip


def dilution(search: Search, each: Candidate) -> float:
    """Measure a surge: how many times more came to be at risk in the interval than is usual.

    Who comes on top of the usual may not want to buy, so the expectation is spread over them. What
    is usual is the mean of the same hours of the day outside the interval; short of five days of
    them there is no usual, and 1 is given. What chance explains counts as no surge.
    """
    hours = each.slice.at // HOUR_US - search.start
    start, stop = each.found.start, each.found.stop
    counts = np.bincount(hours, minlength=int(max(hours.max() + 1, stop))).astype(np.float64)
    day = np.arange(len(counts)) % 24
    outside = np.ones(len(counts), np.bool_)
    outside[start:stop] = False
    usual = 0.0
    for hour in range(start, stop):
        same = outside & (day == hour % 24)
        if same.sum() < 5:  # noqa: PLR2004
            return 1.0
        usual += counts[same].mean()
    came = counts[start:stop].sum()
    times = came / max(usual, 1.0)
    return float(times) if times > 1.0 + 2.0 / np.sqrt(max(usual, 1.0)) else 1.0


def _still_a_loss(went_on: NDArray[np.bool_], chance: NDArray[np.float64], noise: float) -> float:
    """Give P(too few went on) once a surge is allowed for: Poisson, ratio uniform in [0, 1]."""
    seen, expected = float(went_on.sum()), float(chance.sum())
    ratios = np.linspace(0.02, 0.98, 49)
    gains = seen * np.log(ratios) + (1.0 - ratios) * expected
    factor = np.exp(np.clip(gains / noise, -300, 300)).mean()
    return float(factor / (factor + 1.0))


def _missing_among_all(search: Search, each: Candidate, lost: float) -> float:
    """Give P(those lost on a path are missing in all), and did not only take another path.

    Whoever meets a page is not whoever came: a new flow sends others there. If shoppers are lost,
    as many must be missing among all who came in the interval; the odds start even.
    """
    if not each.is_path():
        return 1.0
    who = {key: value for key, value in each.slice.entity.items() if key not in TOUCHED}
    whole = [other for other in search.candidates if other.slice.entity == who]
    if not whole:
        return 0.5
    hours = whole[0].slice.at // HOUR_US - search.start
    rows = whole[0].slice.rows[(hours >= each.found.start) & (hours < each.found.stop)]
    chance = search.expected[rows]
    missing = float(chance.sum() - search.went_on[rows].sum())
    spread = max(float((chance * (1 - chance)).sum()) * search.noise, 1.0)
    gain = (lost * missing - lost * lost / 2) / spread
    return float(1.0 / (1.0 + np.exp(-np.clip(gain, -300, 300))))


def expected_orders(step: Step, each: Candidate, inside: NDArray[np.int64]) -> float:
    """Give the orders expected within the interval: by who came, at the slice's level outside."""
    outside = np.setdiff1d(each.slice.rows, inside)
    level = (step.bought[outside].sum() + _SHRINK) / (step.orders[outside].sum() + _SHRINK)
    return float(step.orders[inside].sum() * level)


def _orders_too(step: Step, seen: float, expected: float, ratio: float) -> float:
    """Give P(shoppers were lost), and not only their events, from the orders that followed."""
    if step.onward == PURCHASE:
        return 1.0
    odds = LOSS_ODDS if step.level else 1.0
    gain = seen * np.log(ratio) + (1.0 - ratio) * expected
    return float(1.0 / (1.0 + np.exp(-np.clip(gain + np.log(odds), -300, 300))))


def overdispersion(step: Step) -> float:
    """Measure how much noisier days are than coin flips, from changes from one day to the next.

    A day's score is its surplus over the standard deviation of coin flips; the median squared
    change is twice the overdispersion times that of a chi-squared variable. A defect that lasts
    moves only the changes at its ends.
    """
    day = step.at // (24 * HOUR_US)
    day -= day.min()
    seen = np.bincount(day, step.went_on)
    mean = np.bincount(day, step.expected)
    spread = np.bincount(day, step.expected * (1 - step.expected))
    full = spread > 1.0
    least = LEAST_NOISE if step.level else LEAST_NOISE_LANDED
    if full.sum() < 6:  # noqa: PLR2004
        return least
    scores = (seen - mean)[full] / np.sqrt(spread[full])
    return float(np.clip(np.median(np.diff(scores) ** 2) / (2 * _CHI2_MEDIAN), least, 4.0))
