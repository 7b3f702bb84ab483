"""Values of arms from data that the data themselves steered: bandits, and any learning policy.

Sample means are biased there (an arm that looked bad by chance is dropped and keeps its bad mean),
and their errors are not normal. Adaptively weighted AIPW and batched least squares are.
"""

import math
from typing import Final, Literal

import msgspec
import numpy as np

from recoup.causal.estimate import NOTHING, Estimate, Floats, Ints, normal_estimate
from recoup.causal.sequences import conjugate_bernstein_sequence
from recoup.errors import ConfigError, SchemaError

NAIVE_WARNING: Final = (
    "The data were collected adaptively: a difference of sample means is biased and its interval "
    "does not cover. Use `contrast` or `batched`."
)

Weighting = Literal["allotted", "stabilised"]
"""How decisions are weighted.

"allotted": a batch takes, of the weight that is left, what its precision is of its own and the
later batches', were these as imprecise as a policy makes them that has settled on another arm. Such
weights add up to one whatever happens, so that a value has no bias.
"stabilised": the published weights, by the root of a batch's precision: intervals are shorter and
cover as well, about a value that leans a little towards the arm that won, since the sum of the
weights is itself a matter of chance.
"""

SETTLED: Final = 1 / 6
"""Precision of a settled policy's batch, as a share of that of an even split.

Nearer to 1 intervals are shorter, but hold too often where arms are alike; see docs/causal.md.
"""


class AdaptiveLog(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions in the order in which they were taken.

    Parameters
    ----------
    arm
        Shape (n,): codes 0..K-1.
    reward
        Shape (n,).
    propensity
        Shape (n, K): probability of every arm at that moment, from past data alone.
    batch
        Shape (n,): number of the batch, not decreasing; the policy is fixed within one.

    Examples
    --------
    >>> log = AdaptiveLog(
    ...     arm=np.array([0, 1]),
    ...     reward=np.array([1.0, 2.0]),
    ...     propensity=np.full((2, 2), 0.5),
    ...     batch=np.array([0, 0]),
    ... )
    >>> log.propensity.shape
    (2, 2)
    """

    arm: Ints
    reward: Floats
    propensity: Floats
    batch: Ints

    def __post_init__(self) -> None:
        if self.propensity.ndim != 2 or len({len(c) for c in self._columns()}) != 1:  # noqa: PLR2004 - a row for every decision
            raise SchemaError("Expected columns of one length, and a propensity for every arm")
        if (np.diff(self.batch) < 0).any():
            raise SchemaError("Expected batches in order", hint="sort the log by time")
        if not (self.propensity > 0).all():
            raise SchemaError(
                "Expected every arm to have a positive propensity throughout, got 0",
                hint="without a floor of exploration an arm's value cannot be estimated",
            )

    def _columns(self) -> tuple[Floats | Ints, ...]:
        return self.arm, self.reward, self.propensity, self.batch


class AdaptiveValues(msgspec.Struct, frozen=True, kw_only=True):
    """Values of all arms, and comparisons with the first.

    Parameters
    ----------
    arms
        Adaptively weighted AIPW, by arm.
    contrast
        Each arm less arm 0, from the scores' difference; arm 0 itself is left out.
    batched
        Batched least squares, the same differences; NaN where no batch has both arms.
    naive
        Differences of sample means: see ``warning``.
    warning
        Why the naive differences must not be used.

    Examples
    --------
    See `adaptive_values`.
    """

    arms: list[Estimate]
    contrast: list[Estimate]
    batched: list[Estimate]
    naive: list[Estimate]
    warning: str


def adaptive_values(
    log: AdaptiveLog, *, weighting: Weighting = "allotted", level: float = 0.95
) -> AdaptiveValues:
    """Estimate arms' values from adaptively collected data.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arm = rng.integers(0, 2, 4000)
    >>> log = AdaptiveLog(
    ...     arm=arm,
    ...     reward=arm + rng.normal(size=4000),
    ...     propensity=np.full((4000, 2), 0.5),
    ...     batch=np.arange(4000) // 100,
    ... )
    >>> found = adaptive_values(log)
    >>> found.contrast[0].low < 1.0 < found.contrast[0].high
    True
    >>> round(adaptive_values(log, weighting="stabilised").batched[0].se, 3)
    0.032

    References
    ----------
    Hadad, Hirshberg, Zhan, Wager & Athey (2021), Confidence intervals for policy evaluation in
    adaptive experiments, PNAS 118. Zhang, Janson & Murphy (2020), Inference for batched bandits.
    """
    scores, chances = aipw_scores(log), log.propensity.T
    others = range(1, len(chances))

    def weights(precision: Floats, arms: int) -> Floats:
        return _row_weights(log, precision, arms, weighting)

    return AdaptiveValues(
        arms=[
            _weighted(each, weights(chance, 1), level)
            for each, chance in zip(scores.T, chances, strict=True)
        ],
        contrast=[
            _weighted(
                scores[:, arm] - scores[:, 0],
                weights(1 / (1 / chances[arm] + 1 / chances[0]), 2),
                level,
            )
            for arm in others
        ],
        batched=[batched_difference(log, arm, weighting=weighting, level=level) for arm in others],
        naive=[_naive(log, arm, level) for arm in others],
        warning=NAIVE_WARNING,
    )


def aipw_scores(log: AdaptiveLog) -> Floats:
    """Give m + 1{A=a}/e (Y - m), shape (n, K), m the arm's mean over EARLIER batches alone.

    Each score is unbiased for its arm given the past, so that the scores form martingales.
    """
    rows, arms = log.propensity.shape
    starts = np.flatnonzero(np.diff(log.batch, prepend=log.batch[0] - 1))
    block = np.cumsum(np.diff(log.batch, prepend=log.batch[0]) != 0)
    scores = np.empty((rows, arms))
    for arm in range(arms):
        taken = (log.arm == arm).astype(np.float64)
        counts = np.append(0.0, np.cumsum(np.add.reduceat(taken, starts)))[:-1]
        totals = np.append(0.0, np.cumsum(np.add.reduceat(taken * log.reward, starts)))[:-1]
        past = np.where(counts > 0, totals / np.maximum(counts, 1.0), 0.0)[block]
        scores[:, arm] = past + taken / log.propensity[:, arm] * (log.reward - past)
    return scores


def batched_difference(
    log: AdaptiveLog, arm: int, *, weighting: Weighting = "allotted", level: float = 0.95
) -> Estimate:
    """Compare an arm with arm 0 by batched least squares: within batches, then pooled.

    Within a batch the policy is fixed, so that a difference of means there has no bias; how many of
    each arm there are, and so the weight, is known before their rewards.
    """
    places = np.stack([log.arm == 0, log.arm == arm])
    starts, rows = _batches(log)
    reward = log.reward - log.reward.mean()
    counts, sums, squares = (
        np.add.reduceat(places * column, starts, axis=1)
        for column in (np.ones(len(reward)), reward, reward**2)
    )
    both = (counts > 0).all(axis=0)
    freedom = int((counts.sum(axis=0) - 2)[both].sum())
    if freedom <= 0:
        return NOTHING
    precision = counts.prod(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    counts, sums, squares = counts[:, both], sums[:, both], squares[:, both]
    spread = float((squares - sums**2 / counts).sum()) / freedom
    if weighting == "allotted":
        weights = _allotted(precision, rows, 1 / (2 * log.propensity.shape[1]))[both]
    else:
        weights = np.sqrt(precision[both])
    weights = weights / weights.sum()
    value = float(weights @ np.diff(sums / counts, axis=0)[0])
    variance = max(spread, 0.0) * float(weights**2 @ (1 / precision[both]))
    return normal_estimate(value, math.sqrt(variance), level=level)


def _batches(log: AdaptiveLog) -> tuple[Ints, Ints]:
    """Give the first row of every batch, and how many rows it has."""
    starts = np.flatnonzero(np.diff(log.batch, prepend=log.batch[0] - 1))
    return starts, np.diff(starts, append=len(log.batch))


def _row_weights(log: AdaptiveLog, precision: Floats, arms: int, weighting: Weighting) -> Floats:
    """Weigh decisions, shape (n,), by how precisely each tells what ``arms`` arms are compared in.

    Allotted weights are equal within a batch: unequal ones would favour some shoppers' contexts.
    """
    if weighting == "stabilised":
        return np.sqrt(precision)
    starts, rows = _batches(log)
    even = 1 / (arms * log.propensity.shape[1])
    return np.repeat(_allotted(np.add.reduceat(precision, starts), rows, even) / rows, rows)


def _allotted(precision: Floats, rows: Ints, even: float) -> Floats:
    """Share out a weight of 1 over batches in order of time, without looking ahead: shape (B,).

    Parameters
    ----------
    precision, rows
        Of every batch: one over the variance of what it tells, for unit noise, and its size.
    even
        Precision of a decision where all arms are equally likely.
    """
    later = SETTLED * even * (rows.sum() - np.cumsum(rows))
    shares = precision / np.maximum(precision + later, np.finfo(np.float64).tiny)
    return np.asarray(shares * np.append(1.0, np.cumprod(1 - shares)[:-1]))


def anytime_value(
    log: AdaptiveLog, arm: int, *, low: float, high: float, alpha: float = 0.05
) -> tuple[Floats, Floats]:
    """Bound an arm's value at every moment at once, whatever the policy learns and when one looks.

    The bounds are an empirical Bernstein sequence on the arm's AIPW scores, which are a bounded
    martingale difference about the value; raw means would not do.

    Parameters
    ----------
    low, high
        Known bounds of the reward.

    Returns
    -------
    tuple
        Lower and upper ends, each of shape (n,).

    Raises
    ------
    ConfigError
        If a reward is out of its bounds.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> arm = rng.integers(0, 2, 5000)
    >>> log = AdaptiveLog(
    ...     arm=arm,
    ...     reward=(rng.random(5000) < 0.3) * 1.0,
    ...     propensity=np.full((5000, 2), 0.5),
    ...     batch=np.arange(5000) // 100,
    ... )
    >>> low, high = anytime_value(log, 1, low=0, high=1)
    >>> bool(low[-1] < 0.3 < high[-1] < 0.4)
    True

    References
    ----------
    Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro (2024), Anytime-valid off-policy inference
    for contextual bandits.
    """
    if not ((log.reward >= low) & (log.reward <= high)).all():
        raise ConfigError(f"Expected rewards in [{low}, {high}], got others")
    width = high - low
    scaled = AdaptiveLog(
        arm=log.arm,
        reward=(log.reward - low) / width,
        propensity=log.propensity,
        batch=log.batch,
    )
    reach = 1 / float(log.propensity[:, arm].min())
    # A score lies in [1 - reach, reach]: m + (y - m) / e with y and m in [0, 1].
    span = 2 * reach - 1
    unit = np.clip((aipw_scores(scaled)[:, arm] + reach - 1) / span, 0.0, 1.0)
    optimal = max(len(unit) * 0.25 * reach / span**2, 1e-3)
    ends = conjugate_bernstein_sequence(unit, optimal=optimal, alpha=alpha)
    lower, upper = (low + width * np.clip(end * span - reach + 1, 0.0, 1.0) for end in ends)
    return lower, upper


def _weighted(scores: Floats, weights: Floats, level: float) -> Estimate:
    value = float(weights @ scores / weights.sum())
    se = math.sqrt(float((weights**2) @ (scores - value) ** 2)) / float(weights.sum())
    return normal_estimate(value, se, level=level)


def _naive(log: AdaptiveLog, arm: int, level: float) -> Estimate:
    one, other = (log.reward[log.arm == a] for a in (arm, 0))
    if min(len(one), len(other)) < 2:  # noqa: PLR2004 - a spread needs two
        return NOTHING
    se = math.sqrt(float(one.var(ddof=1)) / len(one) + float(other.var(ddof=1)) / len(other))
    return normal_estimate(float(one.mean() - other.mean()), se, level=level)
