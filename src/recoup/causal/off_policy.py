"""Off-policy evaluation: what another policy would have earned, from a log with propensities.

With w = target probability / propensity of the logged action, r the reward, q a model's value of
the logged action and v its value of the target policy, the estimates are means of

=============  ==========================================================================
ips            w r
snips          w r / mean(w)
dm             v
dr             v + w (r - q)
sndr           v + w (r - q) / mean(w)
switch_dr      v + w 1{w <= tau} (r - q)
dr_os          v + lambda w / (w^2 + lambda) (r - q)
sg_dr, sg_ips  w / (1 - lambda + lambda w) in place of w
clipped_*      min(w, lambda) in place of w
=============  ==========================================================================

The last six trade bias for variance: their intervals are for what they estimate, and do not hold
the bias.
"""

import math
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.causal import off_policy_kernel as kernel
from recoup.causal.estimate import (
    BOOTSTRAP_RESAMPLES,
    BOOTSTRAP_SEED,
    Estimate,
    Floats,
    IntervalKind,
    Ints,
    bootstrap_estimate,
    freedom,
    normal_estimate,
    standard_error,
    student_estimate,
)
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.shrinkage import Shrinkage, tune
from recoup.causal.tables import cluster_codes, number_column, reals, require_columns
from recoup.errors import ConfigError, SchemaError

LEAST_EFFECTIVE_SAMPLE: Final = 30.0
LARGEST_SHARE: Final = 0.2
MOST_UNSUPPORTED: Final = 0.2

_SCORED: Final = {
    "ips": kernel.IPS,
    "clipped_ips": kernel.CLIPPED_IPS,
    "sg_ips": kernel.SG_IPS,
}
_SCORED_WITH_MODEL: Final = {
    "dm": kernel.VALUE,
    "dr": kernel.DR,
    "clipped_dr": kernel.CLIPPED_DR,
    "switch_dr": kernel.SWITCH_DR,
    "dr_os": kernel.DR_OS,
    "sg_dr": kernel.SG_DR,
}
_TUNED: Final = ("clip", "switch", "optimistic", "sub_gaussian")
_SHIFT_ROWS: Final = 256
_LEAST_PROPENSITY: Final = 1e-12


class OffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Off-policy estimates, and whether the log can answer at all.

    Parameters
    ----------
    estimates
        By estimator; those that need a model are absent where none was given.
    refused
        Why these numbers must not be used, or None. The log cannot answer where the effective
        sample size is under 30, one row (or cluster) carries over 20 % of all weight, or
        ``unsupported_mass`` is surely over 20 %.
    rows, logged_mean
        Rows, and the mean reward under the policy that logged them.
    effective_sample_size
        (sum w)^2 / sum w^2: how many rows of the target policy's own log this one is worth.
    largest_weight, largest_weight_share
        The largest w, and its share of their sum.
    mean_weight
        Near 1 where propensities are right and every target action could have been logged.
    unsupported_mass
        1 - mean(w), at least 0, with its interval: the target policy's probability of what the
        log never does.
    overlap
        Rows by power of two of w: key k holds 2^k <= w < 2^(k+1), the first also 0.
    by_action
        Per logged action: rows, mean of w 1{action} (the target's share), largest weight.
    interval, level
        Kind of interval (analytic: normal, linearised; cluster: Student's, with sums by cluster;
        bootstrap: percentile, by row), and its confidence.
    parameters
        The limits used, see `Shrinkage`; ``tuned`` names those that were chosen from this log.
    """

    estimates: dict[str, Estimate]
    refused: str | None
    rows: int
    logged_mean: float
    effective_sample_size: float
    largest_weight: float
    largest_weight_share: float
    mean_weight: float
    unsupported_mass: Estimate
    overlap: dict[int, int]
    by_action: list[dict[str, object]]
    interval: IntervalKind
    level: float
    parameters: Shrinkage
    tuned: list[str]


def evaluate_off_policy(  # noqa: PLR0913 - columns and limits, by keyword
    log: pl.DataFrame,
    *,
    reward: str,
    propensity: str,
    target: str,
    action: str | None = None,
    model: str | None = None,
    model_value: str | None = None,
    cluster: str | None = None,
    clip: float | None = None,
    switch: float | None = None,
    optimistic: float | None = None,
    sub_gaussian: float | None = None,
    interval: IntervalKind = "analytic",
    level: float = 0.95,
) -> OffPolicy:
    """Estimate a target policy's mean reward from a table of logged decisions.

    Parameters
    ----------
    log
        One row a decision.
    reward, propensity, target
        Columns: reward; the logging policy's probability of the logged action, in (0, 1]; the
        target policy's probability of that same action, in [0, 1].
    action
        Column of the logged action, for diagnostics by action.
    model, model_value
        Columns: a model's value of the logged action, and of the target policy; out of fold.
    cluster
        Column of what is drawn independently (the visitor); needed for ``interval="cluster"``.
    clip, switch, optimistic, sub_gaussian
        Limits of the biased estimators, see `Shrinkage`; those that are None are tuned on the log
        by estimated mean squared error.

    Raises
    ------
    SchemaError
        If a column is missing, or a value is out of its range (the row is told).

    Examples
    --------
    >>> log = pl.DataFrame({"y": [1, 0, 1, 0], "p": [0.5] * 4, "pi": [1.0, 0.0, 1.0, 0.0]})
    >>> found = evaluate_off_policy(log, reward="y", propensity="p", target="pi")
    >>> found.estimates["ips"].value, found.effective_sample_size
    (1.0, 2.0)
    >>> found.refused.split(";")[0]
    'the effective sample size is 2.0, under 30'

    References
    ----------
    Dudik, Erhan, Langford & Li (2014), Doubly robust policy evaluation and optimization. Su et al.
    (2020), Doubly robust off-policy evaluation with shrinkage. Metelli, Russo & Restelli (2021),
    Subgaussian and differentiable importance sampling.
    """
    require_columns(log, (reward, propensity, target, action, model, model_value, cluster))
    columns = LoggedDecisions(
        reward=reals(log, reward),
        propensity=number_column(log, propensity, low=_LEAST_PROPENSITY, high=1.0),
        target=number_column(log, target, low=0.0, high=1.0 + 1e-9),
        quality=None if model is None else reals(log, model),
        value=None if model_value is None else reals(log, model_value),
        cluster=None if cluster is None else cluster_codes(log, cluster),
    )
    given = {"clip": clip, "switch": switch, "optimistic": optimistic, "sub_gaussian": sub_gaussian}
    fixed = {name: limit for name, limit in given.items() if limit is not None}
    limits = Shrinkage(**fixed)
    if len(fixed) < len(given):
        alone = {f"{name}_ips": None for name in fixed if name in ("clip", "sub_gaussian")}
        limits = msgspec.structs.replace(tune(columns), **fixed, **alone)
    found = off_policy(columns, shrinkage=limits, interval=interval, level=level)
    found = msgspec.structs.replace(found, tuned=sorted(given.keys() - fixed.keys()))
    if action is None:
        return found
    return msgspec.structs.replace(found, by_action=_by_action(log, action, columns))


def off_policy(
    log: LoggedDecisions,
    *,
    shrinkage: Shrinkage | None = None,
    interval: IntervalKind = "analytic",
    level: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> OffPolicy:
    """Estimate as `evaluate_off_policy` does, from arrays; analytic intervals take one pass."""
    if shrinkage is None:
        _Moments.of(log, Shrinkage())  # a bad row is told before weights are made of it
    limits = shrinkage or tune(log)
    tuned = [] if shrinkage else list(_TUNED)
    moments = _Moments.of(log, limits)
    if interval == "analytic":
        estimates = moments.estimates(level)
    elif interval == "cluster":
        estimates = _clustered(log, limits, level)
    else:
        rows = _row_scores(log, limits)
        estimates = {
            name: bootstrap_estimate(scores, level=level, resamples=resamples, seed=seed)
            for name, scores in rows.items()
        }
    return _assemble(log, moments, estimates, interval, level, limits, tuned)


class _Moments(msgspec.Struct, frozen=True):
    rows: int
    centre: float
    means: Floats
    variances: Floats
    largest: float
    overlap: Ints

    @classmethod
    def of(cls, log: LoggedDecisions, limits: Shrinkage) -> "_Moments":
        parameters, zero = _parameters(limits), np.zeros(kernel.COLUMNS)
        first = min(_SHIFT_ROWS, len(log.reward))
        shift = _pass(log, parameters, zero, first)[0] / first
        if shift[kernel.WEIGHT] > 0:
            parameters[4] = shift[kernel.IPS] / shift[kernel.WEIGHT]
            shift[kernel.CENTRED_IPS] = 0.0
        rows = len(log.reward)
        sums, squares, overlap, largest = _pass(log, parameters, shift, rows)
        centre = float(parameters[4])
        return cls.from_sums(rows, centre, shift, sums, squares, float(largest), overlap)

    @classmethod
    def from_sums(
        cls,
        rows: int,
        centre: float,
        shift: Floats,
        sums: Floats,
        squares: Floats,
        largest: float,
        overlap: Ints,
    ) -> "_Moments":
        offset = sums / rows
        pairs = (
            (kernel.WEIGHT, kernel.CENTRED_IPS),
            (kernel.WEIGHT, kernel.RESIDUAL),
            (kernel.WEIGHT, kernel.VALUE),
            (kernel.VALUE, kernel.RESIDUAL),
        )
        crossed = np.array([offset[a] * offset[b] for a, b in pairs])
        variances = squares / rows - np.concatenate([offset**2, crossed])
        variances[: kernel.COLUMNS] = np.maximum(variances[: kernel.COLUMNS], 0.0)
        return cls(rows, centre, shift + offset, variances, largest, overlap)

    @property
    def effective_sample_size(self) -> float:
        mean = float(self.means[kernel.WEIGHT])
        square = float(self.variances[kernel.WEIGHT]) + mean**2
        return self.rows * mean**2 / square if square > 0 else 0.0

    def estimates(self, level: float) -> dict[str, Estimate]:
        found = {
            name: normal_estimate(float(self.means[column]), self._se(column), level=level)
            for name, column in (_SCORED | _SCORED_WITH_MODEL).items()
        }
        for name, (value, variance) in self._normalised().items():
            se = math.sqrt(max(variance, 0.0) / max(self.rows - 1, 1))
            found[name] = normal_estimate(value, se, level=level)
        return found

    def _se(self, column: int) -> float:
        return math.sqrt(float(self.variances[column]) / max(self.rows - 1, 1))

    def _normalised(self) -> dict[str, tuple[float, float]]:
        weight = float(self.means[kernel.WEIGHT])
        if weight == 0:
            return {"snips": (math.nan, math.nan), "sndr": (math.nan, math.nan)}
        v = self.variances
        ratio = float(self.means[kernel.CENTRED_IPS]) / weight
        snips = (
            v[kernel.CENTRED_IPS]
            - 2 * ratio * v[kernel.WEIGHT_CENTRED]
            + ratio**2 * v[kernel.WEIGHT]
        )
        lift = float(self.means[kernel.RESIDUAL]) / weight
        residual = (
            v[kernel.RESIDUAL] - 2 * lift * v[kernel.WEIGHT_RESIDUAL] + lift**2 * v[kernel.WEIGHT]
        )
        both = v[kernel.VALUE_RESIDUAL] - lift * v[kernel.WEIGHT_VALUE]
        sndr = v[kernel.VALUE] + residual / weight**2 + 2 * both / weight
        value = float(self.means[kernel.VALUE])
        return {
            "snips": (self.centre + ratio, float(snips) / weight**2),
            "sndr": (value + lift, float(sndr)),
        }


def _pass(
    log: LoggedDecisions, parameters: Floats, shift: Floats, rows: int
) -> tuple[Floats, Floats, Ints, float]:
    sums, squares = np.zeros(kernel.COLUMNS), np.zeros(kernel.MOMENTS)
    overlap = np.zeros(kernel.OVERLAP_BINS, np.int64)
    quality, value = log.model
    bad, largest = kernel.accumulate(
        log.reward[:rows],
        log.propensity[:rows],
        log.target[:rows],
        quality[:rows],
        value[:rows],
        parameters,
        shift,
        sums,
        squares,
        overlap,
    )
    if bad >= 0:
        raise SchemaError(
            "Expected a finite reward and model, a propensity in (0, 1] and a target in [0, 1], "
            f"got {_row(log, bad)} - at row {bad}",
            hint="drop the row, or log the probability with which the action was taken",
        )
    return sums, squares, overlap, largest


def _row(log: LoggedDecisions, row: int) -> dict[str, float]:
    named = {"reward": log.reward, "propensity": log.propensity, "target": log.target}
    if log.quality is not None and log.value is not None:
        named |= {"model": log.quality, "model value": log.value}
    return {name: float(column[row]) for name, column in named.items()}


def _parameters(limits: Shrinkage) -> Floats:
    with_model = (limits.clip, limits.switch, limits.optimistic, limits.sub_gaussian)
    return np.array([*with_model, 0.0, *limits.without_model])


def _row_scores(log: LoggedDecisions, limits: Shrinkage) -> dict[str, Floats]:
    weights = log.weights
    lam = limits.optimistic
    clip, smooth = limits.without_model
    held = {
        "ips": weights,
        "clipped_ips": np.minimum(weights, clip),
        "sg_ips": weights / (1 - smooth + smooth * weights),
        "snips": weights / weights.mean() if weights.any() else np.full_like(weights, math.nan),
    }
    scores = {name: weight * log.reward for name, weight in held.items()}
    if log.quality is None or log.value is None:
        return scores
    held |= {
        "switch": weights * (weights <= limits.switch),
        "os": weights if math.isinf(lam) else lam * weights / (weights**2 + lam),
        "none": np.zeros_like(weights),
        "clipped": np.minimum(weights, limits.clip),
        "smooth": weights / (1 - limits.sub_gaussian + limits.sub_gaussian * weights),
    }
    names = {
        "dm": "none",
        "dr": "ips",
        "sndr": "snips",
        "clipped_dr": "clipped",
        "switch_dr": "switch",
        "dr_os": "os",
        "sg_dr": "smooth",
    }
    residual = log.reward - log.quality
    return scores | {name: log.value + held[weight] * residual for name, weight in names.items()}


def _clustered(log: LoggedDecisions, limits: Shrinkage, level: float) -> dict[str, Estimate]:
    if log.cluster is None:
        raise ConfigError("Expected a cluster column for clustered intervals, got none")
    weights, found = log.weights, {}
    for name, scores in _row_scores(log, limits).items():
        value = float(scores.mean())
        influence = scores - value
        if name in ("snips", "sndr") and weights.any():
            lift = value if name == "snips" else float((scores - log.model[1]).mean())
            influence -= lift * (weights / weights.mean() - 1)
        se = standard_error(influence, log.cluster)
        found[name] = student_estimate(value, se, freedom(influence, log.cluster), level=level)
    return found


def _assemble(
    log: LoggedDecisions,
    moments: _Moments,
    estimates: dict[str, Estimate],
    interval: IntervalKind,
    level: float,
    limits: Shrinkage,
    tuned: list[str],
) -> OffPolicy:
    mean_weight = float(moments.means[kernel.WEIGHT])
    total = mean_weight * moments.rows
    share = moments.largest / total if total > 0 else 1.0
    missing = normal_estimate(
        1 - mean_weight, math.sqrt(moments.variances[kernel.WEIGHT] / moments.rows), level=level
    )
    if log.quality is None:
        estimates = {k: v for k, v in estimates.items() if "dr" not in k and k != "dm"}
    return OffPolicy(
        estimates=estimates,
        refused=_refusal(log, moments.effective_sample_size, share, missing.low),
        rows=moments.rows,
        logged_mean=float(log.reward.mean()),
        effective_sample_size=moments.effective_sample_size,
        largest_weight=moments.largest,
        largest_weight_share=share,
        mean_weight=mean_weight,
        unsupported_mass=Estimate(
            max(missing.value, 0.0), max(missing.low, 0.0), max(missing.high, 0.0), missing.se
        ),
        overlap={bin_ - 17: int(n) for bin_, n in enumerate(moments.overlap) if n},
        by_action=[],
        interval=interval,
        level=level,
        parameters=limits,
        tuned=tuned,
    )


def _refusal(
    log: LoggedDecisions, effective: float, share: float, unsupported: float
) -> str | None:
    reasons = [refusal(effective, share), unsupported_reason(unsupported)]
    if log.cluster is not None and effective > 0:
        sums = np.bincount(log.cluster, log.weights)
        largest = float(sums.max() / sums.sum())
        if largest > LARGEST_SHARE:
            reasons.append(
                f"one cluster carries {largest:.0%} of all weight, above {LARGEST_SHARE:.0%}"
            )
    return "; ".join(reason for reason in reasons if reason) or None


def unsupported_reason(unsupported: float) -> str | None:
    """Say why a target of so much probability on what was never logged is not told, or None."""
    if unsupported <= MOST_UNSUPPORTED:
        return None
    return f"at least {unsupported:.0%} of what is asked about was never logged"


def refusal(effective: float, share: float) -> str | None:
    """Say why weights of this effective sample size and largest share answer nothing, or None."""
    reasons = []
    if effective < LEAST_EFFECTIVE_SAMPLE:
        reasons.append(
            f"the effective sample size is {effective:.1f}, under {LEAST_EFFECTIVE_SAMPLE:.0f}"
        )
    if share > LARGEST_SHARE and effective > 0:
        reasons.append(
            f"one row carries {share:.0%} of all weight, above {LARGEST_SHARE:.0%} of their sum"
        )
    return "; ".join(reasons) or None


def _by_action(log: pl.DataFrame, action: str, columns: LoggedDecisions) -> list[dict[str, object]]:
    weighed = pl.DataFrame({"action": log.get_column(action), "weight": columns.weights})
    grouped = weighed.group_by("action").agg(
        pl.len().alias("rows"),
        (pl.col("weight").sum() / log.height).alias("target_share"),
        pl.col("weight").max().alias("largest_weight"),
    )
    return grouped.sort("rows", "action", descending=[True, False]).to_dicts()
