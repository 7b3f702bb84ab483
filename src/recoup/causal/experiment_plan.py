"""How long an experiment takes on the shop's own traffic."""

import math
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.causal.estimate import Floats, Ints
from recoup.causal.experiment_metrics import Metric
from recoup.causal.power import Strictness, detectable_effect, rows_needed
from recoup.causal.tables import key_codes, reals, require_columns
from recoup.errors import ConfigError, SchemaError

MOST_POINTS: Final = 100
LONGEST: Final = 365


class Duration(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment of a length could find.

    Parameters
    ----------
    days
        Length.
    units
        Assigned by then, in both arms.
    detectable, relative
        Smallest effect found, and the same in units of the mean.
    extrapolated
        Whether the log is shorter than this.

    Examples
    --------
    >>> Duration(days=7, units=9.0, detectable=0.1, relative=0.02, extrapolated=False).days
    7
    """

    days: int
    units: float
    detectable: float
    relative: float
    extrapolated: bool


class ExperimentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How long an experiment takes on this traffic.

    Parameters
    ----------
    metric
        Its name.
    units, days
        In the log.
    mean, deviation
        Of the metric per unit over the log.
    effect
        Relative effect looked for.
    units_needed, days_needed
        To find it; days are None where a year does not suffice.
    durations
        What each length could find: up to the log's end from the log itself, then, with as many new
        units a day as in its last days, to `days_needed`.

    Examples
    --------
    See `plan_experiment`.
    """

    metric: str
    units: int
    days: int
    mean: float
    deviation: float
    effect: float
    share: float
    units_needed: float
    days_needed: int | None
    durations: list[Duration]


def plan_experiment(
    table: pl.DataFrame,
    *,
    unit: str,
    time: str,
    metric: Metric,
    effect: float,
    share: float = 0.5,
    traffic: float = 1.0,
    strictness: Strictness | None = None,
) -> ExperimentPlan:
    """Plan an experiment from a log of the shop's own traffic.

    The log is read as if the experiment had begun on its first day: those seen within d days are
    its units, and what they did within d days is the metric. Returning visitors, and those who buy
    more the longer one looks, are in the answer thereby.

    Parameters
    ----------
    unit
        Column of what will be assigned: the visitor; or region and block, for stock that is shared.
    time
        Date or datetime column.
    effect
        Relative effect to be found, such as 0.02 for 2 %.
    share
        Of the units in the arm.
    traffic
        Share of all units that the experiment may have.

    Examples
    --------
    >>> import datetime as dt
    >>> rng = np.random.default_rng(0)
    >>> days = rng.integers(0, 14, 20_000)
    >>> log = pl.DataFrame(
    ...     {
    ...         "visitor": rng.integers(0, 15_000, 20_000),
    ...         "ts": [dt.date(2026, 1, 1) + dt.timedelta(int(day)) for day in days],
    ...         "bought": (rng.random(20_000) < 0.05).astype(int),
    ...     }
    ... )
    >>> plan = plan_experiment(
    ...     log, unit="visitor", time="ts", metric=Metric(top="bought"), effect=0.15
    ... )
    >>> plan.days_needed, plan.durations[6].units
    (23, 7225.0)
    """
    require_columns(table, (unit, time, metric.top, metric.bottom))
    if not 0 < traffic <= 1:
        raise ConfigError(f"Expected a share of traffic in (0, 1], got {traffic}")
    if not (0 < share < 1 and math.isfinite(effect) and effect != 0):
        raise ConfigError(
            f"Expected an effect other than 0 and a share in (0, 1), got {effect} and {share}",
            hint="for half of the units and 2 %: share 0.5, effect 0.02",
        )
    sure = strictness or Strictness()
    log = _Traffic.of(table, unit, time, metric)
    found = [log.until(day, share, traffic, sure) for day in spaced(log.days)]
    mean, variance, units = log.moments(log.days)
    if mean == 0:
        raise SchemaError(
            f"Expected a metric with a mean other than 0, got 0 for {metric.name!r}",
            hint="a relative effect needs something to be relative to",
        )
    needed = rows_needed(variance, effect * mean, share=share, strictness=sure)
    reached = next((each.days for each in found if each.relative <= abs(effect)), None)
    if reached is None:
        later = log.beyond(needed / traffic, share, traffic, sure)
        found += later
        reached = later[-1].days if later and later[-1].relative <= abs(effect) else None
    return ExperimentPlan(
        metric=metric.name,
        units=units,
        days=log.days,
        mean=mean,
        deviation=math.sqrt(variance),
        effect=effect,
        share=share,
        units_needed=needed,
        days_needed=reached,
        durations=found,
    )


class _Traffic(msgspec.Struct, frozen=True):
    """A log as columns: unit and day of each row, and its metric."""

    unit: Ints
    day: Ints
    top: Floats
    bottom: Floats | None

    @classmethod
    def of(cls, table: pl.DataFrame, unit: str, time: str, metric: Metric) -> "_Traffic":
        column = time_column(table, time)
        days = column.dt.date().to_physical().to_numpy().astype(np.int64)
        return cls(
            key_codes(table, [unit]),
            days - days.min(),
            reals(table, metric.top),
            None if metric.bottom is None else reals(table, metric.bottom),
        )

    @property
    def days(self) -> int:
        return int(self.day.max()) + 1

    def moments(self, days: int) -> tuple[float, float, int]:
        """Give mean and variance of a unit's metric within its first days, and the units."""
        here = self.day < days
        codes = np.unique(self.unit[here], return_inverse=True)[1]
        top = np.bincount(codes, self.top[here])
        bottom = np.ones(len(top)) if self.bottom is None else np.bincount(codes, self.bottom[here])
        if len(top) < 2 or bottom.mean() == 0 or top.mean() == 0:  # noqa: PLR2004
            return 0.0, 0.0, len(top)
        value = float(top.mean() / bottom.mean())
        influence = (top - value * bottom) / bottom.mean()
        return value, float(influence @ influence) / (len(top) - 1), len(top)

    def until(self, days: int, share: float, traffic: float, sure: Strictness) -> Duration:
        mean, variance, units = self.moments(days)
        return _duration(days, (mean, variance, units * traffic), share, sure, known=True)

    def beyond(
        self, needed: float, share: float, traffic: float, sure: Strictness
    ) -> list[Duration]:
        """Go on with the last days' new units until enough are in, or a year has passed."""
        mean, variance, units = self.moments(self.days)
        first = np.full(int(self.unit.max()) + 1, self.days)
        np.minimum.at(first, self.unit, self.day)
        recent = min(7, self.days)
        daily = float((first >= self.days - recent).sum()) / recent
        if daily == 0:
            return []
        last = min(LONGEST, self.days + math.ceil(max(0.0, needed - units) / daily) + 1)
        found = []
        for days in range(self.days + 1, last + 1):
            arrived = (units + daily * (days - self.days)) * traffic
            found.append(_duration(days, (mean, variance, arrived), share, sure, known=False))
        return [found[at - 1] for at in spaced(len(found))]


def _duration(
    days: int,
    moments: tuple[float, float, float],
    share: float,
    sure: Strictness,
    *,
    known: bool,
) -> Duration:
    mean, variance, units = moments
    effect = relative = math.inf
    if mean != 0 and units > 2:  # noqa: PLR2004 - Student's errors of two arms
        control, treated = units * (1 - share), units * share
        freedom = units - 2
        effect = detectable_effect(variance, control, treated, freedom=freedom, strictness=sure)
        relative = effect / abs(mean)
    return Duration(
        days=days, units=units, detectable=effect, relative=relative, extrapolated=not known
    )


def time_column(table: pl.DataFrame, name: str) -> pl.Series:
    """Give a column of dates or times as datetimes of microseconds, UTC where it has a zone.

    Raises
    ------
    SchemaError
        If a row has none.
    """
    column = table.get_column(name)
    if column.dtype == pl.String:
        column = column.str.to_datetime(strict=False, time_zone="UTC")
    if not isinstance(column.dtype, (pl.Date, pl.Datetime)) or column.null_count():
        raise SchemaError(
            f"Expected a date or time in every row of {name!r}, got others",
            hint="cast the column to Date or Datetime",
        )
    return column.cast(pl.Datetime("us"))


def spaced(last: int) -> list[int]:
    """Give up to 100 numbers from 1 to ``last``, both ends among them."""
    return sorted({round(float(at)) for at in np.linspace(1, last, min(last, MOST_POINTS))})
