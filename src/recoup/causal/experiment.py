"""What an experiment's arms did, with its error held over looks, metrics and arms; and a decision.

A fixed test is read once, at a size planned beforehand. A sequential one may be read at every
moment and stopped whenever one likes, at the price of wider intervals. Errors are those of what
was assigned: rows of one visitor, or of one block of a switchback design, count as one unit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from recoup.causal.arms import ArmMean, Comparison, compare_arms
from recoup.causal.estimate import Estimate, normal_quantile
from recoup.causal.experiment_decision import Decision, Effect, Guarded, Horizon, Safety, decide
from recoup.causal.experiment_metrics import Metric, TrialRows, read_rows
from recoup.causal.multiple_testing import Correction, adjust_p_values
from recoup.causal.sample_ratio import SampleRatio, check_sample_ratio
from recoup.causal.tables import key_codes, require_columns
from recoup.errors import ConfigError

Test = Literal["t", "anytime"]

MOST_LOOKS: Final = 100
MOST_SEGMENTS: Final = 50
TUNED_AT: Final = 5_000
FEW_CLUSTERS: Final = 40
ONE_LOOK: Final = (
    "whether segments differ (`heterogeneity`) is a test for one look, planned beforehand"
)
_POWER: Final = 0.8


class SegmentEffect(Comparison, frozen=True, kw_only=True):
    """The first metric's effect in one segment; its interval holds for all segments together.

    Examples
    --------
    >>> part = SegmentEffect(
    ...     0.1, 0.0, 0.2, 0.05, p_value=0.04, relative=False, arm="new", segment="mobile", units=9
    ... )
    >>> part.segment
    'mobile'
    """

    arm: str
    segment: str
    units: int


class Heterogeneity(msgspec.Struct, frozen=True):
    """Whether an arm's effect differs between segments.

    Parameters
    ----------
    arm
        Its name.
    p_value
        Of one effect in all segments (Cochran's Q).

    Examples
    --------
    >>> Heterogeneity("new", 0.2).p_value
    0.2
    """

    arm: str
    p_value: float


class Look(Comparison, frozen=True, kw_only=True):
    """The first metric's effect as it stood at a moment.

    Examples
    --------
    >>> Look(0.1, 0, 0.2, 0.05, p_value=0.04, relative=False, arm="new", time=3, units=900).time
    3
    """

    arm: str
    time: object
    units: int


class ExperimentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What `evaluate_experiment` found.

    Parameters
    ----------
    rows, units
        Rows of the table; what was assigned.
    sample_ratio
        Sizes of the arms, against those intended.
    effects, guardrails
        By metric and arm.
    segments, heterogeneity
        Of the first metric, where a segment was named.
    sequence
        The first metric look by look, where a time was named.
    decision
        What to do, and why.
    refused
        Why no number here is to be believed, or None.
    warnings
        What to mind when reading it.

    Examples
    --------
    See `evaluate_experiment`.
    """

    rows: int
    units: int
    sample_ratio: SampleRatio
    effects: list[Effect]
    guardrails: list[Guarded]
    segments: list[SegmentEffect]
    heterogeneity: list[Heterogeneity]
    sequence: list[Look]
    decision: Decision
    refused: str | None
    warnings: list[str]
    test: Test
    correction: Correction
    level: float


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How an experiment is read; stated before it is.

    Parameters
    ----------
    test
        ``t``: once, at the planned size. ``anytime``: at every look.
    planned
        Units of all arms that it was planned for; None where it has no end.
    correction
        Over all metrics and arms, guardrails left out.
    worthwhile
        The relative gain in the first metric below which shipping is not worth it.
    level
        Confidence of the intervals; one less it is the error that decisions allow.

    Examples
    --------
    >>> Rules(test="anytime").correction
    'holm'
    """

    test: Test = "t"
    planned: int | None = None
    correction: Correction = "holm"
    worthwhile: float = 0.0
    level: float = 0.95

    def compare(
        self,
        arms: tuple[ArmMean, ArmMean],
        *,
        relative: bool = False,
        level: float | None = None,
    ) -> Comparison:
        """Compare an arm with the control by these rules."""
        return compare_arms(
            *arms,
            relative=relative,
            test=self.test,
            tuned_at=self.planned or TUNED_AT,
            level=level or self.level,
        )


def evaluate_experiment(  # noqa: PLR0913 - columns of a table, by keyword
    table: pl.DataFrame,
    *,
    arm: str,
    control: str,
    metrics: Sequence[Metric],
    guardrails: Sequence[Metric] = (),
    covariates: Sequence[str] = (),
    cluster: str | None = None,
    segment: str | None = None,
    time: str | None = None,
    shares: Mapping[str, float] | None = None,
    rules: Rules | None = None,
) -> ExperimentResult:
    """Compare each arm of an experiment with its control, and decide.

    Parameters
    ----------
    arm, control
        Column of the arm; its value for the control.
    metrics
        The first one decides; all are corrected for together.
    guardrails
        With margins; each is a one-sided question of its own, so that they need no correction.
    covariates
        Columns known before assignment: the effect is adjusted by them (CUPED, the slope that
        leaves the least variance).
    cluster
        Column of what was assigned, where it has several rows (visitor, region and block).
    segment
        Column known before assignment.
    time
        Sortable column, when a row became known; gives ``sequence``.
    shares
        Intended share of each arm; equal where None.

    Raises
    ------
    SchemaError
        If the table breaks this contract, with the place.

    Examples
    --------
    >>> rng = np.random.default_rng(5)
    >>> new = rng.random(20_000) < 0.5
    >>> table = pl.DataFrame(
    ...     {
    ...         "arm": np.where(new, "new form", "old form"),
    ...         "bought": (rng.random(20_000) < np.where(new, 0.07, 0.05)).astype(int),
    ...     }
    ... )
    >>> found = evaluate_experiment(
    ...     table,
    ...     arm="arm",
    ...     control="old form",
    ...     metrics=[Metric(top="bought")],
    ...     rules=Rules(test="anytime"),
    ... )
    >>> found.decision.verdict, found.decision.arm
    ('ship', 'new form')
    """
    used = rules or Rules()
    columns = [name for m in (*metrics, *guardrails) for name in (m.top, m.bottom)]
    require_columns(table, (arm, *columns, *covariates, cluster, segment, time))
    _check_metrics(metrics, guardrails)
    later = sorted(set(covariates) & {metric.top for metric in (*metrics, *guardrails)})
    if later:
        raise ConfigError(
            f"Expected covariates known before assignment, got metrics {later}",
            hint="adjusting a metric by itself leaves nothing of the effect",
        )
    rows = read_rows(
        table,
        arm=arm,
        control=control,
        metrics=[*metrics, *guardrails],
        cluster=cluster,
        covariates=covariates,
    )
    units = rows.units()
    ratio = check_sample_ratio(units, shares, anytime=used.test == "anytime")
    effects = _effects(rows, metrics, used)
    guarded = [
        _guard(rows, m, code, used) for m in guardrails for code in range(1, len(rows.names))
    ]
    segments = [] if segment is None else _segments(rows, table, segment, metrics[0], used)
    horizon = Horizon(
        units=sum(units.values()),
        planned=used.planned,
        anytime=used.test == "anytime",
        alpha=1 - used.level,
        worthwhile=used.worthwhile,
    )
    decision = decide(ratio, effects, guarded, horizon)
    return ExperimentResult(
        rows=table.height,
        units=horizon.units,
        sample_ratio=ratio,
        effects=effects,
        guardrails=guarded,
        segments=segments,
        heterogeneity=_heterogeneity(segments),
        sequence=[] if time is None else _looks(rows, table.get_column(time), metrics[0], used),
        decision=decision,
        refused=decision.reason if ratio.mismatch else None,
        warnings=[
            *_warnings(units, cluster, horizon),
            *_unguarded(guarded),
            *([] if segment is None else _thin(segments, table.get_column(segment), rows)),
            *([ONE_LOOK] if segments and horizon.anytime else []),
        ],
        test=used.test,
        correction=used.correction,
        level=used.level,
    )


def _check_metrics(metrics: Sequence[Metric], guardrails: Sequence[Metric]) -> None:
    if not metrics:
        raise ConfigError("Expected at least one metric, got none")
    if any(guard.margin is None for guard in guardrails):
        raise ConfigError("Expected a margin with every guardrail", hint="Metric(margin=0.01)")
    if len({metric.name for metric in metrics}) < len(metrics):
        raise ConfigError("Expected each metric once, got one twice")


_NO_SCALE: Final = Comparison(
    math.nan, math.nan, math.nan, math.nan, p_value=math.nan, relative=True
)


def _effects(rows: TrialRows, metrics: Sequence[Metric], rules: Rules) -> list[Effect]:
    pairs = [(metric, code) for metric in metrics for code in range(1, len(rows.names))]
    family = 1 if rules.correction == "none" else len(pairs)
    found = [_effect(rows, metric, code, rules, family) for metric, code in pairs]
    adjusted = adjust_p_values(np.array([each.p_value for each in found]), rules.correction)
    return [
        msgspec.structs.replace(each, adjusted_p_value=p_value)
        for each, p_value in zip(found, adjusted.tolist(), strict=True)
    ]


def _effect(rows: TrialRows, metric: Metric, code: int, rules: Rules, family: int) -> Effect:
    arms = rows.compared(metric, code)
    found = rules.compare(arms)
    wide = rules.compare(arms, level=1 - (1 - rules.level) / family)
    return Effect(
        **_ends(found),
        metric=metric.name,
        arm=rows.names[code],
        gain=metric.sign,
        control=arms[0].mean,
        treated=arms[1].mean,
        relative_effect=_relative(arms, rules),
        adjusted_p_value=found.p_value,
        adjusted_low=wide.low,
        adjusted_high=wide.high,
        detectable=(normal_quantile(rules.level) + float(stats.norm.ppf(_POWER))) * found.se,
    )


def _relative(arms: tuple[ArmMean, ArmMean], rules: Rules) -> Estimate | None:
    if not arms[0].is_scale:
        return None
    found = rules.compare(arms, relative=True)
    return Estimate(found.value, found.low, found.high, found.se)


def _guard(rows: TrialRows, metric: Metric, code: int, rules: Rules) -> Guarded:
    arms = rows.compared(metric, code)
    found = rules.compare(arms, relative=True) if arms[0].is_scale else _NO_SCALE
    ends, margin = (metric.sign * found.low, metric.sign * found.high), metric.margin or 0.0
    state: Safety = "undecided"
    if min(ends) > -margin:
        state = "safe"
    elif max(ends) < -margin:
        state = "harmed"
    return Guarded(
        **_ends(found),
        metric=metric.name,
        arm=rows.names[code],
        gain=metric.sign,
        margin=margin,
        state=state,
    )


def _unguarded(guards: Sequence[Guarded]) -> list[str]:
    names = dict.fromkeys(guard.metric for guard in guards if math.isnan(guard.value))
    return [
        f"{name} guards nothing yet: the control's mean is not told apart from 0" for name in names
    ]


def _segments(
    rows: TrialRows, table: pl.DataFrame, segment: str, metric: Metric, rules: Rules
) -> list[SegmentEffect]:
    column = table.get_column(segment).cast(pl.String).fill_null("(none)")
    labels = column.unique().sort().to_list()
    if len(labels) > MOST_SEGMENTS:
        raise ConfigError(
            f"Expected at most {MOST_SEGMENTS} segments, got {len(labels)} in {segment!r}",
            hint="band it, or learn who gains: recoup evaluate uplift",
        )
    level = 1 - (1 - rules.level) / len(labels)
    found = []
    for label in labels:
        here = rows.take((column == label).to_numpy())
        for code, units in _told(here, metric):
            compared = rules.compare(here.compared(metric, code), level=level)
            name = rows.names[code]
            found.append(SegmentEffect(**_ends(compared), arm=name, segment=label, units=units))
    return found


def _told(rows: TrialRows, metric: Metric) -> Iterator[tuple[int, int]]:
    """Give the arms with enough rows for a spread, and their units with the control's."""
    counts = list(rows.units().values())
    divisor = np.ones(len(rows.arm)) if metric.bottom is None else rows.columns[metric.bottom]
    sums = np.bincount(rows.arm, divisor, minlength=len(counts))
    for code in range(1, len(counts)):
        if min(counts[0], counts[code]) > 1 and sums[0] and sums[code]:
            yield code, counts[0] + counts[code]


def _heterogeneity(segments: Sequence[SegmentEffect]) -> list[Heterogeneity]:
    found = []
    for arm in dict.fromkeys(each.arm for each in segments):
        parts = [each for each in segments if each.arm == arm and each.se > 0]
        values, weights = (np.array([p.value for p in parts]), [p.se**-2 for p in parts])
        if len(parts) > 1:
            away = values - np.average(values, weights=weights)
            spread = float(np.dot(weights, away**2))
            found.append(Heterogeneity(arm, float(stats.chi2.sf(spread, len(parts) - 1))))
    return found


def _looks(rows: TrialRows, time: pl.Series, metric: Metric, rules: Rules) -> list[Look]:
    """Read the metric at up to 100 moments; a moment with too few rows for a spread is left out."""
    when = key_codes(time.to_frame(), [time.name])
    moments = np.unique(np.linspace(0, when.max(), MOST_LOOKS).astype(np.int64))
    labels = time.unique().sort()
    found = []
    for moment in moments.tolist():
        so_far = rows.take(when <= moment)
        for code, units in _told(so_far, metric):
            compared, name = rules.compare(so_far.compared(metric, code)), rows.names[code]
            found.append(Look(**_ends(compared), arm=name, time=labels[moment], units=units))
    return found


def _ends(found: Comparison) -> dict[str, Any]:
    return msgspec.structs.asdict(found)


def _thin(segments: Sequence[SegmentEffect], column: pl.Series, rows: TrialRows) -> list[str]:
    left_out = column.n_unique() * (len(rows.names) - 1) - len(segments)
    if not left_out:
        return []
    return [f"{left_out} effects in a segment are left out: an arm has under two units there"]


def _warnings(units: Mapping[str, int], cluster: str | None, horizon: Horizon) -> list[str]:
    found = []
    if cluster is not None and sum(units.values()) < FEW_CLUSTERS:
        found.append(
            f"{sum(units.values())} clusters: under {FEW_CLUSTERS}, intervals tend to be too narrow"
        )
    if not horizon.anytime and horizon.planned is None:
        found.append("a fixed test without a planned size is sound only if it is read this once")
    return found
