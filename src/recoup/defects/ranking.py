"""Rank defects: what is wrong, where, since when, what it costs, and how sure we are."""

import datetime as dt
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import Defect, Finding, Interval
from recoup.defects.catalogue import UNEXPLAINED_DROP
from recoup.defects.recommend import recommend
from recoup.defects.risks import HOUR_US, PURCHASE, Step, settled, steps_of
from recoup.defects.scan import Found, scan
from recoup.defects.severity import lost_share
from recoup.defects.slices import Slice, slices_of
from recoup.defects.tables import LEVELS
from recoup.events import ENTITY_LABELS, MICROS

EXPECTED_DEFECTS: Final = 0.3
"""Prior number of defects in a log that can be seen: what makes a quiet shop stay quiet."""
TRACKING_ODDS: Final = 3.0
"""Prior odds that a drop in a step's events is a loss of shoppers, and not of the events."""
LEAST_CONFIDENCE: Final = 0.2
MOST_DEFECTS: Final = 12
_SURE: Final = 0.5


class Ranking(msgspec.Struct, frozen=True):
    """Ranked defects, and tracking breaks among the data's faults."""

    defects: list[Defect]
    findings: list[Finding]


class Candidate(msgspec.Struct):
    """A slice of a step, with what the scan found there."""

    step: Step
    slice: Slice
    found: Found
    log_odds: float


def rank(tables: Mapping[str, pl.DataFrame], now: int) -> Ranking:
    """Rank the defects that the tables of evidence show as of ``now``, int64 microseconds."""
    sessions = settled(tables["sessions"], now)
    if sessions.is_empty():
        return Ranking([], [])
    search = Search(sessions, tables["touches"], tables["orders"])
    defects: list[Defect] = []
    findings: list[Finding] = []
    while len(defects) + len(findings) < MOST_DEFECTS:
        best = search.best()
        if best is None or best.log_odds < np.log(LEAST_CONFIDENCE):
            break
        told = search.explain(best)
        if isinstance(told, Finding):
            findings.append(told)
        elif told is not None:
            defects.append(told)
    defects.sort(key=lambda each: -each.confidence * each.lost_value_per_hour.value)
    return Ranking(defects, findings)


class Search:
    """A greedy search: the surest loss is told first, then explained away before the next."""

    def __init__(self, sessions: pl.DataFrame, touches: pl.DataFrame, orders: pl.DataFrame) -> None:
        self._sessions = sessions
        self._start = int(sessions["first"].min()) // HOUR_US  # type: ignore[arg-type]
        self._end = int(sessions["last"].max())  # type: ignore[arg-type]
        self._value = _value_of(orders)
        self._steps = steps_of(sessions)
        self._expected = [step.expected.copy() for step in self._steps]
        self._candidates = [
            Candidate(step, each, Found(0.0, 1.0, 1.0, 0, 0), 0.0)
            for step in self._steps
            for each in slices_of(step, sessions, touches)
        ]
        self._prior = np.log(EXPECTED_DEFECTS / max(len(self._candidates), 1))
        self._noise = [_overdispersion(step) for step in self._steps]
        for each in self._candidates:
            self._scan(each)

    def best(self) -> Candidate | None:
        """Give the candidate that is surest now."""
        return max(self._candidates, key=lambda each: each.log_odds, default=None)

    def _scan(self, each: Candidate) -> None:
        index = self._steps.index(each.step)
        rows = each.slice.rows
        hours = each.slice.at // HOUR_US - self._start
        each.found = scan(
            hours, self._expected[index][rows], each.step.went_on[rows], self._noise[index]
        )
        each.log_odds = self._prior + each.found.log_factor

    def explain(self, each: Candidate) -> Defect | Finding | None:
        """Turn a candidate into a defect or finding, and take its loss out of what is expected."""
        found = each.found
        hours = each.slice.at // HOUR_US - self._start
        inside = each.slice.rows[(hours >= found.start) & (hours < found.stop)]
        told = self._tell(each, inside)
        index = self._steps.index(each.step)
        self._expected[index][inside] *= found.ratio / found.level
        touched = np.zeros(len(each.step.session), np.bool_)
        touched[inside] = True
        for other in self._candidates:
            if other.step is each.step and touched[other.slice.rows].any():
                self._scan(other)
        return told

    def _tell(self, each: Candidate, inside: NDArray[np.int64]) -> Defect | Finding | None:
        step, found = each.step, each.found
        index = self._steps.index(step)
        chance = self._expected[index][inside] * found.level
        orders_expected = float((chance * step.order_rate[inside]).sum())
        orders_seen = float(step.bought[inside].sum())
        real = 1.0 / (1.0 + np.exp(-each.log_odds))
        loss = _odds_of_loss(step, orders_expected, orders_seen, found.ratio / found.level)
        if real * (1 - loss) > _SURE:
            return self._tracking(each, orders_expected, orders_seen)
        confidence = float(real * loss)
        if confidence < LEAST_CONFIDENCE:
            return None
        share = lost_share(float(step.went_on[inside].sum()), float(chance.sum()))
        since, until, hours = self._times(found)
        orders = share.scaled(orders_expected / hours)
        entity = _labelled(each.slice.entity) or {"step": LEVELS[step.onward]}
        value = orders.scaled(self._value / MICROS)
        return Defect(
            id=f"{UNEXPLAINED_DROP}:{_words(entity)}:{LEVELS[step.onward]}:{since:%Y%m%dT%H}",
            type=UNEXPLAINED_DROP,
            entity=entity,
            since=since,
            until=until,
            observed=orders_seen,
            expected=orders_expected,
            exposed=len(inside),
            lost_orders_per_hour=orders,
            lost_value_per_hour=value,
            confidence=confidence,
            recommended=recommend(UNEXPLAINED_DROP, step.level, orders, self._value),
            evidence=_sentence(step, entity, inside, float(chance.sum()), share),
        )

    def _times(self, found: Found) -> tuple[dt.datetime, dt.datetime | None, int]:
        since = _moment((self._start + found.start) * HOUR_US)
        until = (self._start + found.stop) * HOUR_US
        still = until >= self._end - HOUR_US
        return since, None if still else _moment(until), max(found.stop - found.start, 1)

    def _tracking(self, each: Candidate, expected: float, seen: float) -> Finding:
        since, until, _ = self._times(each.found)
        entity = _labelled(each.slice.entity)
        return Finding(
            kind="tracking_break",
            column=LEVELS[each.step.onward],
            since=since.isoformat(),
            until=until.isoformat() if until else None,
            detail=(
                f"`{LEVELS[each.step.onward]}` events were lost for {_words(entity) or 'all'}: "
                f"{seen:.0f} orders followed where {expected:.0f} were expected."
            ),
        )


def _odds_of_loss(step: Step, expected: float, seen: float, ratio: float) -> float:
    """Give P(shoppers were lost, not events) from the orders that followed."""
    if step.onward == PURCHASE:
        return 1.0
    log_odds = np.log(TRACKING_ODDS) + seen * np.log(ratio) + (1.0 - ratio) * expected
    return float(1.0 / (1.0 + np.exp(-np.clip(log_odds, -500, 500))))


def _overdispersion(step: Step) -> float:
    """Measure how much noisier days are than coin flips: Pearson's statistic by day."""
    day = step.at // (24 * HOUR_US)
    day -= day.min()
    seen = np.bincount(day, step.went_on)
    mean = np.bincount(day, step.expected)
    spread = np.bincount(day, step.expected * (1 - step.expected))
    full = spread > 1.0
    if full.sum() < 5:  # noqa: PLR2004
        return 1.1
    scores = (seen - mean)[full] ** 2 / spread[full]
    return float(np.clip(np.median(scores) / 0.455, 1.1, 4.0))


def _value_of(orders: pl.DataFrame) -> float:
    """Give the mean order value in micro-units; 0 where no order has one."""
    valued = orders.filter(pl.col("value") > 0)["value"]
    return float(valued.mean()) if len(valued) else 0.0  # type: ignore[arg-type]


def _moment(micros: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(micros / MICROS, dt.UTC)


def _labelled(entity: Mapping[str, str]) -> dict[str, str]:
    return {ENTITY_LABELS.get(name, name): value for name, value in entity.items()}


def _words(entity: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entity.items())


def _sentence(
    step: Step,
    entity: Mapping[str, str],
    inside: NDArray[np.int64],
    expected: float,
    share: Interval,
) -> str:
    return (
        f"Of {len(inside)} sessions with {_words(entity)} that came to {LEVELS[step.level]}, "
        f"{step.went_on[inside].sum()} went on to {LEVELS[step.onward]}; "
        f"{expected:.1f} would have, so {share.value:.0%} were lost "
        f"({share.low:.0%} to {share.high:.0%})."
    )
