"""EconML's learners behind our interface: what is called, how it is judged, and its absence."""

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recoup.causal.heavy_learners import PLACES, PROPENSITY_MODEL, LoggedChance, econml_learner
from recoup.causal.uplift import Experiment, judge_targeting, learn_uplift
from recoup.errors import ConfigError


class Forest:
    """Stands in for an estimator of EconML: the difference of means on either side of 0."""

    made: list[dict[str, Any]] = []  # noqa: RUF012 - what the tests look at

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        self.made.append(settings)
        self._effects = np.zeros(2)

    def fit(
        self,
        outcome: np.ndarray,
        treated: np.ndarray,
        /,
        *,
        X: np.ndarray,  # noqa: N803 - EconML's names
        W: np.ndarray,  # noqa: N803
    ) -> "Forest":
        assert W.shape == (len(outcome), 1)
        assert set(np.unique(treated)) == {0, 1}
        for side in (0, 1):
            rows = (X[:, 0] > 0) == side
            acted = rows & (treated == 1)
            self._effects[side] = outcome[acted].mean() - outcome[rows & (treated == 0)].mean()
        return self

    def effect(self, features: np.ndarray, /) -> np.ndarray:
        return np.asarray(self._effects[(features[:, 0] > 0).astype(int)][:, None])


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> type[Forest]:
    Forest.made.clear()
    whole = ModuleType("econml")
    monkeypatch.setitem(sys.modules, "econml", whole)
    for name, place in PLACES.items():
        module = sys.modules[place] if place in sys.modules else ModuleType(place)
        setattr(module, name, Forest)
        monkeypatch.setitem(sys.modules, place, module)
    return Forest


def trial(seed: int = 0) -> Experiment:
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(6_000, 2)), rng.integers(0, 2, 6_000)
    y = t * (x[:, 0] > 0) + rng.normal(size=6_000)
    return Experiment(features=x, treated=t, outcome=y, propensity=np.full(6_000, 0.5))


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(ConfigError, match="XYZ"):
        econml_learner("XYZ")


@pytest.mark.parametrize("name", PLACES)
def test_learners_are_fitted_out_of_fold_and_judged_as_our_own(
    name: str, forest: type[Forest]
) -> None:
    found = learn_uplift(trial(), learner=econml_learner(name, n_jobs=1))
    assert found.groups[0].low > 0.5 > found.groups[-1].high
    assert found.average.low < 0.5 < found.average.high
    assert len(forest.made) == 2  # a model a fold, each fitted on the other
    assert all(made["random_state"] == 0 and made["n_jobs"] == 1 for made in forest.made)
    assert all(("discrete_treatment" in made) == (".dml" in PLACES[name]) for made in forest.made)
    chance = PROPENSITY_MODEL[PLACES[name]]
    assert all(isinstance(made[chance], LoggedChance) for made in forest.made)


def test_targeting_takes_them_too(forest: type[Forest]) -> None:
    found = judge_targeting(trial(1), cost=0.5, learner=econml_learner(random_state=7))
    assert found.over_none.low > 0.15
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert [made["random_state"] for made in forest.made] == [7]


def test_without_econml_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("econml", "econml.dml"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="EconML") as refused:
        econml_learner()
    assert "recoup[econml]" in str(refused.value.hint)
    importlib.import_module("recoup.causal")  # nothing else needs it


def uneven(seed: int = 2) -> Experiment:
    """Acted on more often where the act helps: a guess of the propensity would have to see it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2_000, 2))
    chance = np.where(x[:, 0] > 0, 0.8, 0.3)
    treated = (rng.random(2_000) < chance).astype(np.int64)
    outcome = treated * (x[:, 0] > 0) + 0.5 * rng.normal(size=2_000)
    return Experiment(features=x, treated=treated, outcome=outcome, propensity=chance)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # EconML's own, of scikit-learn's next versions
@pytest.mark.parametrize("name", PLACES)
def test_econml_itself_finds_whom_the_act_helps(name: str) -> None:
    pytest.importorskip("econml", reason="the extra recoup[econml] is not installed")
    few_trees = {"n_estimators": 48} if "Forest" in name else {}
    found = learn_uplift(uneven(), learner=econml_learner(name, **few_trees))
    assert found.groups[0].low > 0.7
    assert found.groups[-1].high < 0.3
    assert 0.6 < found.calibration.value < 1.6
