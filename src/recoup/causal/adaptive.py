"""Values of arms from data that the data themselves steered: bandits, and any learning policy.

Sample means are biased there (an arm that looked bad by chance is dropped and keeps its bad mean),
and their errors are not normal. Adaptively weighted AIPW and batched least squares are.
"""

import math
from typing import Final

import msgspec
import numpy as np

from recoup.causal.estimate import NOTHING, Estimate, Floats, Ints, normal_estimate
from recoup.causal.sequences import conjugate_bernstein_sequence
from recoup.errors import ConfigError, SchemaError

NAIVE_WARNING: Final = (
    "The data were collected adaptively: a difference of sample means is biased and its interval "
    "does not cover. Use `contrast` or `batched`."
)


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
        Batched least squares, the same differences; NaN where no batch has both arms twice.
    unweighted
        Plain AIPW, the same differences: without bias whatever the policy did, where weights that
        adapt lean a little; but its errors are not quite normal, and its interval covers less.
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
    unweighted: list[Estimate]
    naive: list[Estimate]
    warning: str


def adaptive_values(log: AdaptiveLog, *, level: float = 0.95) -> AdaptiveValues:
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
    >>> round(found.batched[0].se, 3)
    0.032

    References
    ----------
    Hadad, Hirshberg, Zhan, Wager & Athey (2021), Confidence intervals for policy evaluation in
    adaptive experiments, PNAS 118. Zhang, Janson & Murphy (2020), Inference for batched bandits.
    """
    scores = aipw_scores(log)
    others = range(1, log.propensity.shape[1])
    return AdaptiveValues(
        arms=[
            _weighted(scores[:, arm], np.sqrt(log.propensity[:, arm]), level)
            for arm in range(log.propensity.shape[1])
        ],
        contrast=[
            _weighted(scores[:, arm] - scores[:, 0], _contrast_weights(log, arm), level)
            for arm in others
        ],
        batched=[batched_difference(log, arm, level=level) for arm in others],
        unweighted=[
            _weighted(scores[:, arm] - scores[:, 0], np.ones(len(scores)), level) for arm in others
        ],
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


def batched_difference(log: AdaptiveLog, arm: int, *, level: float = 0.95) -> Estimate:
    """Compare an arm with arm 0 by batched least squares: within batches, then pooled.

    Each batch's difference is studentised by its own counts, which the past determines; their sum
    is normal whatever the policy did.
    """
    sums, scale, freedom, weights = 0.0, 0.0, 0, []
    for batch in np.unique(log.batch):
        here = log.batch == batch
        one, other = (log.reward[here & (log.arm == a)] for a in (arm, 0))
        if min(len(one), len(other)) < 2:  # noqa: PLR2004 - a spread needs two
            continue
        weight = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
        weights.append(weight)
        sums += weight * float(one.mean() - other.mean())
        scale += float(one.var() * len(one) + other.var() * len(other))
        freedom += len(one) + len(other) - 2
    if not weights:
        return NOTHING
    total = sum(weights)
    return normal_estimate(
        sums / total, math.sqrt(scale / freedom * len(weights)) / total, level=level
    )


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


def _contrast_weights(log: AdaptiveLog, arm: int) -> Floats:
    return np.asarray(1 / np.sqrt(1 / log.propensity[:, arm] + 1 / log.propensity[:, 0]))


def _naive(log: AdaptiveLog, arm: int, level: float) -> Estimate:
    one, other = (log.reward[log.arm == a] for a in (arm, 0))
    if min(len(one), len(other)) < 2:  # noqa: PLR2004 - a spread needs two
        return NOTHING
    se = math.sqrt(float(one.var(ddof=1)) / len(one) + float(other.var(ddof=1)) / len(other))
    return normal_estimate(float(one.mean() - other.mean()), se, level=level)
