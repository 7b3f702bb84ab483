"""Learners of effects from EconML, an optional extra, with the interface of our own.

Whatever learns, effects are predicted out of fold, and judged by the same doubly robust scores with
the logged propensities: a learner can be slow or poor, not dishonest.
"""

import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol

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


class EffectLearner(Protocol):
    """What learns effects whole, as EconML's estimators do."""

    def fit(self, outcome: Floats, treated: Ints, /, *, X: Floats) -> object:  # noqa: N803
        """Learn from rows, shape (n,), (n,) and (n, k)."""

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
        effects.

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
    chosen = {"random_state": 0, **settings}
    if PLACES[name] == "econml.dml":
        chosen.setdefault("discrete_treatment", True)
    estimator = getattr(module, name)

    def make() -> EffectLearner:
        made: EffectLearner = estimator(**chosen)
        return made

    return make


def learned_effects(
    make: EffectFactory, data: tuple[Floats, Ints, Floats], features: Floats
) -> Floats:
    """Learn from outcome, treatment and features, and give the effects of new rows, shape (n,)."""
    outcome, treated, known = data
    model = make()
    model.fit(outcome, treated, X=known)
    return np.asarray(model.effect(features), np.float64).reshape(len(features))
