"""Experiments where shoppers share what is acted on: regions that switch back and forth.

A region's time is cut into blocks; of every pair of consecutive blocks one, drawn at random, acts
(`recoup.causal.assignment.switchback`). Each pair is compared with itself, so that neither regions
nor days of which every pair has both sides make noise. Errors need no model of the traffic: the
draws of pairs are independent, whatever the demand.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from recoup.causal.arms import Comparison
from recoup.causal.estimate import Floats, Ints
from recoup.causal.experiment_metrics import Metric
from recoup.causal.experiment_plan import LONGEST, Duration, ExperimentPlan, spaced, time_column
from recoup.causal.journeys import Bools
from recoup.causal.multiple_testing import adjust_p_values
from recoup.causal.power import Strictness
from recoup.causal.tables import key_codes, named_codes, reals, require_columns
from recoup.errors import ConfigError, SchemaError

FEW_PAIRS: Final = 20
_HOUR: Final = 3_600_000_000
_PAIR: Final = 2


class SwitchbackEffect(Comparison, frozen=True, kw_only=True):
    """What acting did to a metric, against the other block of each pair.

    Parameters
    ----------
    metric
        Its name.
    control, treated
        The metric in blocks that did not act, and that did.
    relative_effect
        The difference in units of the control's; None where that is within four errors of 0.
    adjusted_p_value
        For all metrics together (Holm).

    Examples
    --------
    See `evaluate_switchback`.
    """

    metric: str
    control: float
    treated: float
    relative_effect: Comparison | None
    adjusted_p_value: float


class SwitchbackResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `evaluate_switchback` found.

    Parameters
    ----------
    effects
        By metric.
    pairs, regions
        Pairs of blocks that were compared, in so many regions.
    left_out
        Rows at the starts of blocks, or in half a pair at either end.
    warnings
        What to mind when reading it.

    Examples
    --------
    See `evaluate_switchback`.
    """

    effects: list[SwitchbackEffect]
    pairs: int
    regions: int
    left_out: int
    warnings: list[str]
    level: float


def evaluate_switchback(  # noqa: PLR0913 - columns of a table, by keyword
    table: pl.DataFrame,
    *,
    region: str,
    time: str,
    arm: str,
    control: str,
    metrics: Sequence[Metric],
    block_hours: float,
    leave_out_hours: float = 0.0,
    level: float = 0.95,
) -> SwitchbackResult:
    """Compare acted blocks with the other block of their pair.

    Parameters
    ----------
    region, time
        Columns: what is assigned as a whole, and when a row was.
    arm, control
        Column: what the region's block did; its value for not acting.
    metrics
        Sums per block, or ratios of sums.
    block_hours
        Length of a block. Blocks are counted from 1970-01-01 UTC, and 2k, 2k + 1 are a pair.
    leave_out_hours
        At the start of each block, for as long as what came before still tells.

    Raises
    ------
    SchemaError
        If a block has two arms, or both blocks of a pair the same one.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.causal.assignment import switchback
    >>> rng = np.random.default_rng(0)
    >>> rows = [
    ...     (city, dt.datetime(2026, 3, 1) + dt.timedelta(hours=hour), size)
    ...     for city, size in (("Porto", 40.0), ("Lisbon", 90.0))
    ...     for hour in range(24 * 28)
    ... ]
    >>> log = pl.DataFrame(rows, schema=["city", "ts", "size"], orient="row")
    >>> block = log["ts"].dt.epoch("s").to_numpy() // (4 * 3600)
    >>> acts = [switchback(city, int(b), "slots") for city, b in zip(log["city"], block)]
    >>> log = log.with_columns(
    ...     arm=pl.Series(np.where(acts, "new", "old")),
    ...     orders=rng.poisson(log["size"].to_numpy() * (1 + 0.1 * np.array(acts))),
    ... )
    >>> found = evaluate_switchback(
    ...     log,
    ...     region="city",
    ...     time="ts",
    ...     arm="arm",
    ...     control="old",
    ...     metrics=[Metric(top="orders")],
    ...     block_hours=4,
    ... )
    >>> effect = found.effects[0].relative_effect
    >>> print(f"{effect.value:+.1%} [{effect.low:+.1%}, {effect.high:+.1%}], {found.pairs} pairs")
    +10.5% [+9.2%, +11.7%], 168 pairs

    References
    ----------
    Bojinov, Simchi-Levi & Zhao (2023), Design and analysis of switchback experiments, Management
    Science 69.
    """
    if not metrics:
        raise ConfigError("Expected at least one metric, got none")
    columns = [name for each in metrics for name in (each.top, each.bottom)]
    require_columns(table, (region, time, arm, *columns))
    blocks = _Blocks.of(table, region, time, block_hours, leave_out_hours)
    acted = blocks.arms(table, arm, control)
    found = [_effect(blocks, table, metric, acted, level) for metric in metrics]
    adjusted = adjust_p_values(np.array([each.p_value for each in found]), "holm")
    few = f"{blocks.pairs} pairs of blocks: under {FEW_PAIRS}, intervals lean on normal differences"
    return SwitchbackResult(
        effects=[
            msgspec.structs.replace(each, adjusted_p_value=p_value)
            for each, p_value in zip(found, adjusted.tolist(), strict=True)
        ],
        pairs=blocks.pairs,
        regions=len(np.unique(blocks.region)),
        left_out=int((~blocks.kept).sum()),
        warnings=[few] if blocks.pairs < FEW_PAIRS else [],
        level=level,
    )


def plan_switchback(
    table: pl.DataFrame,
    *,
    region: str,
    time: str,
    metric: Metric,
    effect: float,
    block_hours: float,
    leave_out_hours: float = 0.0,
    strictness: Strictness | None = None,
) -> ExperimentPlan:
    """Plan a switchback from a log of the shop's own traffic; its units are pairs of blocks.

    Parameters
    ----------
    effect
        Relative effect to be found, such as 0.02 for 2 %.

    Examples
    --------
    >>> import datetime as dt
    >>> rng = np.random.default_rng(0)
    >>> hours = [dt.datetime(2026, 3, 1) + dt.timedelta(hours=hour) for hour in range(24 * 28)]
    >>> log = pl.DataFrame({"city": "Porto", "ts": hours, "orders": rng.poisson(40, 24 * 28)})
    >>> plan = plan_switchback(
    ...     log, region="city", time="ts", metric=Metric(top="orders"), effect=0.05, block_hours=4
    ... )
    >>> plan.days_needed, round(plan.units_needed)
    (12, 36)
    """
    require_columns(table, (region, time, metric.top, metric.bottom))
    if effect == 0:
        raise ConfigError("Expected an effect other than 0, got 0", hint="0.02 for 2 %")
    sure = strictness or Strictness()
    if sure.sequential:
        raise ConfigError(
            "Expected a switchback to be read once, at its end, got a sequential plan",
            hint="leave out --sequential",
        )
    blocks = _Blocks.of(table, region, time, block_hours, leave_out_hours)
    top, bottom = blocks.sums(table, metric)
    mean, variance = _noise(top, bottom, metric.name)
    daily = blocks.pairs / blocks.days

    def of(days: int) -> Duration:
        pairs = blocks.pairs * days / blocks.days
        found = _detectable(variance, pairs, sure)
        return Duration(
            days=days, units=pairs, detectable=found, relative=found / abs(mean),
            extrapolated=days > blocks.days,
        )  # fmt: skip

    wanted = abs(effect * mean)
    needed = next((n for n in range(2, math.ceil(daily * LONGEST) + 1)
                   if _detectable(variance, n, sure) <= wanted), None)  # fmt: skip
    last = LONGEST if needed is None else math.ceil(needed / daily)
    return ExperimentPlan(
        metric=metric.name,
        units=blocks.pairs,
        days=math.ceil(blocks.days),
        mean=mean,
        deviation=math.sqrt(variance),
        effect=effect,
        share=0.5,
        units_needed=math.inf if needed is None else float(needed),
        days_needed=None if needed is None else last,
        durations=[of(day) for day in spaced(max(last, math.floor(blocks.days)))],
    )


class _Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that count, each in a pair (0..pairs-1) and a side of it (0 or 1)."""

    kept: Bools
    pair: Ints
    side: Ints
    region: Ints
    pairs: int
    days: float

    @classmethod
    def of(
        cls, table: pl.DataFrame, region: str, time: str, hours: float, left_out: float
    ) -> "_Blocks":
        if not 0 <= left_out < hours:
            raise ConfigError(
                f"Expected blocks longer than what is left out of each, got {hours:g} h and "
                f"{left_out:g} h",
                hint="for example 4 h, of which the first is left out",
            )
        moment = time_column(table, time).dt.epoch("us").to_numpy() / _HOUR
        block = np.floor(moment / hours).astype(np.int64)
        first, last = int(block.min()), int(block.max())
        pair = block // _PAIR
        whole = (pair * _PAIR >= first) & (pair * _PAIR + 1 <= last)
        kept = whole & (moment - block * hours >= left_out)
        if not kept.any():
            raise SchemaError(
                f"Expected at least one pair of blocks of {hours:g} h, got none",
                hint="a longer log, or shorter blocks",
            )
        places = named_codes(table, region)[kept]
        together = pl.DataFrame({"region": places, "pair": pair[kept]})
        codes = key_codes(together, ["region", "pair"])
        span = (int(pair[kept].max()) - int(pair[kept].min()) + 1) * _PAIR * hours
        return cls(
            kept=kept,
            pair=codes,
            side=block[kept] % _PAIR,
            region=places,
            pairs=int(codes.max()) + 1,
            days=span / 24,
        )

    def sums(self, table: pl.DataFrame, metric: Metric) -> tuple[Floats, Floats]:
        """Give the metric's two sums by pair and side, shape (pairs, 2); 1 below where it has one.

        Nothing was sold in a block without rows.
        """
        top = self._by_side(reals(table, metric.top))
        if metric.bottom is None:
            return top, np.ones_like(top)
        return top, self._by_side(reals(table, metric.bottom))

    def _by_side(self, column: Floats) -> Floats:
        cell = self.pair * _PAIR + self.side
        total = np.bincount(cell, column[self.kept], minlength=_PAIR * self.pairs)
        return np.asarray(total.reshape(-1, _PAIR), np.float64)

    def arms(self, table: pl.DataFrame, arm: str, control: str) -> Ints:
        """Give the side of each pair that acted, shape (pairs,)."""
        named = table.get_column(arm).cast(pl.String)
        names = sorted(named.drop_nulls().unique().to_list())
        if named.null_count() or control not in names or len(names) != _PAIR:
            raise SchemaError(
                f"Expected the control {control!r} and one other arm in {arm!r}, got {names}",
                hint="a switchback has two states",
            )
        acts = (named != control).to_numpy()[self.kept]
        first_acts = acts == (self.side == 0)
        found = np.full(self.pairs, -1, np.int64)
        found[self.pair] = np.where(first_acts, 0, 1)
        wrong = found[self.pair] != np.where(first_acts, 0, 1)
        if wrong.any():
            row = int(np.flatnonzero(self.kept)[int(wrong.argmax())])
            raise SchemaError(
                "Expected each block to have one arm, and the blocks of a pair different ones, got "
                f"others - at row {row}",
                hint="name what was assigned, with its true length; see recoup.causal.switchback",
            )
        return found


def _effect(
    blocks: _Blocks, table: pl.DataFrame, metric: Metric, acted: Ints, level: float
) -> SwitchbackEffect:
    top, bottom = blocks.sums(table, metric)
    row = np.arange(blocks.pairs)
    means, parts = [], []
    for side in (1 - acted, acted):
        total, below = top[row, side], bottom[row, side]
        if below.sum() == 0:
            raise SchemaError(f"Expected a ratio's lower sum above 0, got 0 for {metric.name!r}")
        means.append(float(total.sum() / below.sum()))
        parts.append((total - means[-1] * below) / below.sum())
    control, treated = means
    found = _compared(treated - control, parts[1] - parts[0], level)
    own = math.sqrt(blocks.pairs / max(1, blocks.pairs - 1) * float(parts[0] @ parts[0]))
    relative = None
    if abs(control) > 4 * own:
        scores = (parts[1] - treated / control * parts[0]) / abs(control)
        relative = _compared((treated - control) / abs(control), scores, level, relative=True)
    return SwitchbackEffect(
        **msgspec.structs.asdict(found),
        metric=metric.name,
        control=control,
        treated=treated,
        relative_effect=relative,
        adjusted_p_value=found.p_value,
    )


def _compared(value: float, scores: Floats, level: float, *, relative: bool = False) -> Comparison:
    """Give a difference with Student's interval, from scores by pair that add up to 0."""
    pairs = len(scores)
    if pairs < 2:  # noqa: PLR2004 - one pair has no spread
        return Comparison(value, -math.inf, math.inf, math.inf, p_value=1.0, relative=relative)
    se = math.sqrt(pairs / (pairs - 1) * float(scores @ scores))
    reach = se * float(stats.t.ppf((1 + level) / 2, pairs - 1))
    away = abs(value) / se if se > 0 else math.inf * abs(value) if value else 0.0
    p_value = float(2 * stats.t.sf(away, pairs - 1))
    return Comparison(value, value - reach, value + reach, se, p_value=p_value, relative=relative)


def _noise(top: Floats, bottom: Floats, name: str) -> tuple[float, float]:
    """Give the metric's mean, and the variance that one pair's draw would add to a difference."""
    mean = float(top.sum() / bottom.sum()) if bottom.sum() else 0.0
    if mean == 0:
        raise SchemaError(
            f"Expected a metric with a mean other than 0, got 0 for {name!r}",
            hint="a relative effect needs something to be relative to",
        )
    residual = (top - mean * bottom) / bottom.mean()
    return mean, float(((residual[:, 0] - residual[:, 1]) ** 2).mean())


def _detectable(variance: float, pairs: float, sure: Strictness) -> float:
    if pairs < 2:  # noqa: PLR2004 - one pair has no spread
        return math.inf
    return sure.reach(pairs - 1) * math.sqrt(variance / pairs)
