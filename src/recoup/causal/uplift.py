"""Whom an act helps, and by how much: effects by shopper, from randomised decisions.

Nuisances are cross-fitted. A row's effect score is doubly robust,

    phi = mu1 - mu0 + (t - e) / (e (1 - e)) (y - mu_t),

so that means of phi over any group named without looking at the outcome are unbiased where the
propensity e is right, whatever the model. Learners differ in how they turn rows into tau(x):
``t`` takes mu1 - mu0, ``dr`` regresses phi on x, ``r`` regresses residual on residual.
"""

import math
from typing import Final, Literal

import msgspec
import numpy as np

from recoup.causal.estimate import (
    NOTHING,
    Estimate,
    Floats,
    Ints,
    mean_estimate,
    normal_estimate,
    standard_error,
)
from recoup.causal.heavy_learners import EffectFactory, learned_effects
from recoup.causal.journeys import Bools
from recoup.causal.nuisance import Regressor, RegressorFactory, TreeMeans, fit_regressor
from recoup.errors import ConfigError, SchemaError

Learner = Literal["t", "dr", "r"]

GROUPS: Final = 5
_LEAST_PROPENSITY: Final = 1e-6


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """Randomised decisions to act or not.

    Parameters
    ----------
    features
        Shape (n, k): what was known before the decision.
    treated
        Shape (n,): 0 or 1.
    outcome
        Shape (n,).
    propensity
        Shape (n,): P(treated | features), in (0, 1), as logged.
    cluster
        Shape (n,): codes 0..k-1 of what is independent (the visitor); each row where None.

    Examples
    --------
    >>> made = Experiment(
    ...     features=np.zeros((2, 1)),
    ...     treated=np.array([0, 1]),
    ...     outcome=np.ones(2),
    ...     propensity=np.full(2, 0.5),
    ... )
    >>> len(made.outcome)
    2
    """

    features: Floats
    treated: Ints
    outcome: Floats
    propensity: Floats
    cluster: Ints | None = None

    def __post_init__(self) -> None:
        columns = (self.features, self.treated, self.outcome, self.propensity, self.units)
        lengths = {len(column) for column in columns}
        if len(lengths) != 1:
            raise SchemaError(f"Expected columns of one length, got {sorted(lengths)}")
        if set(np.unique(self.treated).tolist()) != {0, 1}:
            raise SchemaError("Expected a treatment of 0 and 1, both present")
        low, high = _LEAST_PROPENSITY, 1 - _LEAST_PROPENSITY
        if not ((self.propensity >= low) & (self.propensity <= high)).all():
            raise SchemaError("Expected propensities in (0, 1), got others")

    @property
    def units(self) -> Ints:
        """Shape (n,): codes of what is independent, by which rows are dealt to folds."""
        return np.arange(len(self.outcome)) if self.cluster is None else self.cluster

    def take(self, rows: Bools) -> "Experiment":
        """Give some of the rows; ``rows`` is a mask of shape (n,)."""
        return Experiment(
            features=self.features[rows],
            treated=self.treated[rows],
            outcome=self.outcome[rows],
            propensity=self.propensity[rows],
            cluster=_among(self.cluster, rows),
        )


class Group(Estimate, frozen=True, kw_only=True):
    """The effect among rows of like predicted effect.

    Parameters
    ----------
    predicted
        Mean predicted effect of the group.
    rows
        How many.

    Examples
    --------
    >>> Group(0.1, 0.0, 0.2, 0.05, predicted=0.09, rows=100).predicted
    0.09
    """

    predicted: float
    rows: int


class Uplift(msgspec.Struct, frozen=True, kw_only=True):
    """Effects by row, and how far they can be believed.

    Parameters
    ----------
    effect
        Shape (n,): predicted effect of each row, out of fold.
    score
        Shape (n,): phi.
    average
        Average effect.
    group
        Shape (n,): fifth of the predicted effect, 0 the highest.
    groups
        The effect in each.
    calibration
        Slope of the effect on its prediction: 1 where predictions are right, 0 where they tell
        nothing.

    Examples
    --------
    See `learn_uplift`.
    """

    effect: Floats
    score: Floats
    average: Estimate
    group: Ints
    groups: list[Group]
    calibration: Estimate


class Targeting(msgspec.Struct, frozen=True, kw_only=True):
    """Acting where the learned effect exceeds the cost, judged on rows it was not learned from.

    Parameters
    ----------
    share
        Of the judged rows, those the policy acts on.
    value
        Mean outcome per row, less costs, under the policy.
    over_none, over_all
        Gain over acting on no one, and on everyone.

    Examples
    --------
    See `judge_targeting`.
    """

    share: float
    value: Estimate
    over_none: Estimate
    over_all: Estimate


def effect_trees() -> TreeMeans:
    """Make the regressor of effects: they are small beside the noise, so its leaves are large."""
    return TreeMeans(trees=50, leaves=4, least_rows=300)


class _Nuisances(msgspec.Struct, frozen=True):
    treated: Floats
    untreated: Floats


def learn_uplift(
    data: Experiment,
    *,
    learner: Learner | EffectFactory = "dr",
    folds: int = 2,
    regressor: RegressorFactory = TreeMeans,
    final: RegressorFactory = effect_trees,
    level: float = 0.95,
) -> Uplift:
    """Learn effects by row, cross-fitted; rows, or clusters, are dealt to ``folds`` in turn.

    A row's predicted effect comes from the other folds alone, with the nuisances behind it: were
    those shared, groups of like prediction would be chosen by the outcomes that judge them.

    Parameters
    ----------
    learner
        ``t``, ``dr``, ``r``; or a factory of whatever learns effects whole, such as
        `recoup.causal.heavy_learners.econml_learner` gives.
    regressor, final
        Make the regressors of outcomes, and of effects (learners ``dr`` and ``r``).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, t = rng.normal(size=(4000, 2)), rng.integers(0, 2, 4000)
    >>> y = t * (x[:, 0] > 0) + rng.normal(size=4000)
    >>> data = Experiment(features=x, treated=t, outcome=y, propensity=np.full(4000, 0.5))
    >>> found = learn_uplift(data)
    >>> found.average.low < 0.5 < found.average.high
    True
    >>> found.groups[0].low > found.groups[-1].high
    True

    References
    ----------
    Kennedy (2023), Towards optimal doubly robust estimation of heterogeneous causal effects. Nie &
    Wager (2021), Quasi-oracle estimation of heterogeneous treatment effects. Chernozhukov et al.
    (2018), Generic machine learning inference on heterogeneous treatment effects (calibration).
    """
    if folds < 2:  # noqa: PLR2004 - cross-fitting needs another part to learn from
        raise ConfigError(f"Expected at least two folds, got {folds}")
    fold = data.units % folds
    score = _effect_scores(data, _cross_fit(data, fold, regressor))
    effect = np.empty(len(fold))
    for part in range(folds):
        held = fold == part
        effect[held] = _predict(data.take(~held), data.features[held], learner, (regressor, final))
    group = _fifths(effect, fold)
    return Uplift(
        effect=effect,
        score=score,
        average=mean_estimate(score, level=level, clusters=data.cluster),
        group=group,
        groups=[_group(data, effect, score, group == code, level) for code in range(GROUPS)],
        calibration=_slope(effect, score, level, data.cluster),
    )


def judge_targeting(
    data: Experiment,
    *,
    cost: float,
    learner: Learner | EffectFactory = "dr",
    regressor: RegressorFactory = TreeMeans,
    final: RegressorFactory = effect_trees,
    level: float = 0.95,
) -> Targeting:
    """Learn whom to act on from every other row, or cluster, and judge that on the rest.

    Parameters
    ----------
    cost
        Of one act, in units of the outcome.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, t = rng.normal(size=(8000, 2)), rng.integers(0, 2, 8000)
    >>> y = t * (x[:, 0] > 0) + rng.normal(size=8000)
    >>> data = Experiment(features=x, treated=t, outcome=y, propensity=np.full(8000, 0.5))
    >>> found = judge_targeting(data, cost=0.5)  # truth: act on half, gain 0.25 over either
    >>> bool(found.over_none.low > 0 and found.over_all.low > 0)
    True
    """
    if not math.isfinite(cost):
        raise ConfigError(f"Expected a finite cost, got {cost}", hint="0 for acts that are free")
    judged = data.units % 2 == 1
    learn, judge = data.take(~judged), data.take(judged)
    acts = _predict(learn, judge.features, learner, (regressor, final)) > cost
    fold, units = judge.units % 2, judge.cluster
    expected = _cross_fit(judge, fold, regressor)
    score = _effect_scores(judge, expected) - cost
    untreated = judge.treated == 0
    residual = untreated / (1 - judge.propensity) * (judge.outcome - expected.untreated)
    baseline = expected.untreated + residual
    return Targeting(
        share=float(acts.mean()),
        value=mean_estimate(baseline + acts * score, level=level, clusters=units),
        over_none=mean_estimate(acts * score, level=level, clusters=units),
        over_all=mean_estimate((acts - 1.0) * score, level=level, clusters=units),
    )


def _predict(
    learn: Experiment,
    features: Floats,
    learner: Learner | EffectFactory,
    makers: tuple[RegressorFactory, RegressorFactory],
) -> Floats:
    """Give effects of new rows, from a learner fitted on all of ``learn``."""
    regressor, final = makers
    if not isinstance(learner, str):
        rows = (learn.outcome, learn.treated.astype(np.int64), learn.features)
        return learned_effects(learner, rows, learn.propensity, features)
    if learner == "t":
        everyone = np.ones(len(learn.outcome), np.bool_)
        acted, waited = (_fit_arm(learn, everyone, arm, regressor) for arm in (1, 0))
        return acted.predict(features) - waited.predict(features)
    fold = learn.units % 2
    expected = _cross_fit(learn, fold, regressor)
    target, weight = _target(learn, expected, _effect_scores(learn, expected), learner)
    return fit_regressor(final, learn.features, target, weight).predict(features)


def _cross_fit(data: Experiment, fold: Ints, regressor: RegressorFactory) -> _Nuisances:
    treated, untreated = np.empty(len(fold)), np.empty(len(fold))
    for part in np.unique(fold).tolist():
        held = fold == part
        for arm, found in ((1, treated), (0, untreated)):
            model = _fit_arm(data, ~held, arm, regressor)
            found[held] = model.predict(data.features[held])
    return _Nuisances(treated, untreated)


def _fit_arm(data: Experiment, rows: Bools, arm: int, regressor: RegressorFactory) -> Regressor:
    learn = rows & (data.treated == arm)
    if not learn.any():
        raise SchemaError(
            f"Expected both arms in every part of the cross-fitting, got no treatment {arm}",
            hint="gather more rows, or take fewer folds",
        )
    return fit_regressor(regressor, data.features[learn], data.outcome[learn])


def _effect_scores(data: Experiment, fitted: _Nuisances) -> Floats:
    acted = data.treated == 1
    expected = np.where(acted, fitted.treated, fitted.untreated)
    chance = np.where(acted, data.propensity, data.propensity - 1)
    return np.asarray(fitted.treated - fitted.untreated + (data.outcome - expected) / chance)


def _target(
    data: Experiment, fitted: _Nuisances, score: Floats, learner: Learner
) -> tuple[Floats, Floats | None]:
    """Give what tau is regressed on, and the rows' weights."""
    if learner == "dr":
        return score, None
    chance = data.propensity
    expected = chance * fitted.treated + (1 - chance) * fitted.untreated
    surprise = data.treated - chance
    return (data.outcome - expected) / surprise, surprise**2


def _fifths(effect: Floats, fold: Ints) -> Ints:
    """Rank within folds: across them, a fold whose outcomes ran high would be crowded out."""
    found = np.empty(len(effect), np.int64)
    for part in np.unique(fold).tolist():
        rows = np.flatnonzero(fold == part)
        if len(rows) < GROUPS:
            raise SchemaError(
                f"Expected at least {GROUPS} rows in every fold, got {len(rows)}",
                hint="gather more rows, or take fewer folds",
            )
        order = rows[np.argsort(-effect[rows], kind="stable")]
        for code, chunk in enumerate(np.array_split(order, GROUPS)):
            found[chunk] = code
    return found


def _group(data: Experiment, effect: Floats, score: Floats, rows: Bools, level: float) -> Group:
    clusters = _among(data.cluster, rows)
    each = mean_estimate(score[rows], level=level, clusters=clusters)
    ends = (each.value, each.low, each.high, each.se)
    return Group(*ends, predicted=float(effect[rows].mean()), rows=int(rows.sum()))


def _among(cluster: Ints | None, rows: Bools) -> Ints | None:
    """Give codes 0..k-1 of the clusters that some of the rows belong to."""
    return None if cluster is None else np.unique(cluster[rows], return_inverse=True)[1]


def _slope(effect: Floats, score: Floats, level: float, cluster: Ints | None = None) -> Estimate:
    """Regress the score on the prediction, with a standard error that holds unequal spread."""
    centred = effect - effect.mean()
    spread = float(centred @ centred)
    if spread == 0:
        return NOTHING
    slope = float(centred @ score) / spread
    influence = centred * (score - score.mean() - slope * centred) * len(score) / spread
    return normal_estimate(slope, standard_error(influence, cluster), level=level)
