"""Learners of effects from EconML, an optional extra, with the interface of our own.

Whatever learns, effects are predicted out of fold, and judged by the same doubly robust scores with
the logged propensities: a learner can be slow or poor, not dishonest. EconML's own model of the
propensity is replaced by the logged one (`LoggedChance`), which is known, where theirs is a guess.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol, Self

import numpy as np

from recoup.causal.estimate import Floats, Ints
from recoup.errors import ConfigError

PLACES: Final = {
    "CausalForestDML": "econml.dml",
    "LinearDML": "econml.dml",
    "DRLearner": "econml.dr",
    "ForestDRLearner": "econml.dr",
}
"""EconML's estimator -> its module; all of them know a discrete treatment."""

PROPENSITY_MODEL: Final = {"econml.dml": "model_t", "econml.dr": "model_propensity"}
"""Module -> the setting that names the model of who is acted on."""


class LoggedChance:
    """The logged propensity in the shape of a classifier: P(act) is the last column.

    Examples
    --------
    >>> LoggedChance().predict_proba(np.array([[7.0, 0.25]])).tolist()
    [[0.75, 0.25]]
    """

    def fit(self, features: Floats, treated: Ints) -> Self:
        """Learn nothing: it is known."""
        del features, treated
        return self

    def predict_proba(self, features: Floats) -> Floats:
        """Give P(not acted) and P(acted), shape (n, 2)."""
        chance = features[:, -1]
        return np.column_stack([1.0 - chance, chance])


class EffectLearner(Protocol):
    """What learns effects whole, as EconML's estimators do."""

    def fit(self, outcome: Floats, treated: Ints, /, *, X: Floats, W: Floats) -> object:  # noqa: N803
        """Learn from rows, shape (n,), (n,) and (n, k); W, shape (n, 1), has P(act) as logged."""

    def effect(self, features: Floats, /) -> Floats:
        """Give the effect of acting on new rows, shape (n,)."""


EffectFactory = Callable[[], EffectLearner]


def econml_learner(name: str = "CausalForestDML", /, **settings: Any) -> EffectFactory:  # noqa: ANN401
    """Make a factory of an EconML estimator, for ``learn_uplift`` and ``judge_targeting``.

    Parameters
    ----------
    name
        A key of :data:`PLACES`.
    settings
        Passed to the estimator. Without ``random_state`` it is 0: the same rows give the same
        effects. Without a model of the propensity it is the logged one.

    Raises
    ------
    ConfigError
        If EconML is not installed, or the name is not known.
    """
    if name not in PLACES:
        raise ConfigError(
            f"Expected an estimator of EconML, got {name!r}", hint=f"one of {', '.join(PLACES)}"
        )
    try:
        module = importlib.import_module(PLACES[name])
    except ImportError as error:
        raise ConfigError(
            f"Expected EconML for the learner {name}, got: {error}",
            hint="install the extra: pip install 'recoup[econml]'; or use learner='dr'",
        ) from error
    chosen = {"random_state": 0, PROPENSITY_MODEL[PLACES[name]]: LoggedChance(), **settings}
    if PLACES[name] == "econml.dml":
        chosen.setdefault("discrete_treatment", True)
    estimator = getattr(module, name)

    def make() -> EffectLearner:
        made: EffectLearner = estimator(**chosen)
        return made

    return make


def learned_effects(
    make: EffectFactory,
    data: tuple[Floats, Ints, Floats],
    propensity: Floats,
    features: Floats,
) -> Floats:
    """Learn from outcome, treatment and features, and give the effects of new rows, shape (n,)."""
    outcome, treated, known = data
    model = make()
    model.fit(outcome, treated, X=known, W=propensity[:, None])
    return np.asarray(model.effect(features), np.float64).reshape(len(features))
