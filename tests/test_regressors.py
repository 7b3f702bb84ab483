"""Any regressor serves as a nuisance: with weights or without, ours or scikit-learn's."""

import importlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import polars as pl
import pytest

from recoup.causal import (
    Experiment,
    dcee,
    evaluate_delay,
    evaluate_policy,
    journeys_from_table,
    learn_uplift,
)
from recoup.causal.journeys import Journeys
from recoup.causal.known_truth import reference_problem
from recoup.causal.repeated_acts import fatigue_problem
from recoup.errors import ConfigError

PLACES = {
    "LinearRegression": "sklearn.linear_model",
    "KNeighborsRegressor": "sklearn.neighbors",
    "GradientBoostingRegressor": "sklearn.ensemble",
}
RULE = [[0, 1, 1]] * 4


class Line:
    """A straight line through the first feature; takes no weights, as some regressors do not."""

    def __init__(self) -> None:
        self._line = np.zeros(2)

    def fit(self, features: np.ndarray, target: np.ndarray) -> Self:
        self._line = np.polyfit(features[:, 0], target, 1)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return np.asarray(np.polyval(self._line, features[:, 0]))


def journeys(size: int = 2_000) -> Journeys:
    """Draw a log in which every journey is a row of its own."""
    problem = reference_problem(closing=True)
    drawn = problem.paths().draw(size, seed=3)
    assert drawn.count is not None
    paths = np.repeat(np.arange(len(drawn.count)), drawn.count.astype(int))
    journey, point = np.nonzero(drawn.state[paths] >= 0)
    cells = (paths[journey], point)
    table = pl.DataFrame(
        {
            "j": journey,
            "t": point,
            "s": drawn.state[cells],
            "a": (drawn.act_at[cells[0]] == point).astype(int),
            "p": drawn.propensity[cells],
            "i": drawn.is_open[cells].astype(int),
            "y": drawn.outcome[cells[0]],
        }
    )
    return journeys_from_table(
        table, journey="j", time="t", state=["s"],
        act="a", propensity="p", outcome="y", availability="i",
    )  # fmt: skip


def answers(make: Callable[[], Any]) -> dict[str, float]:
    """Ask four questions with a regressor behind them: distances from the truth, in errors."""
    problem, policy = reference_problem(closing=True), np.zeros((3, 3, 3))
    delay = evaluate_delay(journeys(), RULE, regressor=make)
    offers = fatigue_problem()
    policy[:, 0, 0] = policy[:, 1, 2] = policy[:, 2, 0] = 1
    worth = evaluate_policy(offers.draw(2_000, seed=2), policy, regressor=make)
    rng = np.random.default_rng(4)
    x, acted = rng.normal(size=(1_000, 2)), rng.integers(0, 2, 1_000)
    outcome = x[:, 1] + acted * (x[:, 0] > 0) + rng.normal(size=1_000)
    trial = Experiment(features=x, treated=acted, outcome=outcome, propensity=np.full(1_000, 0.5))
    uplift = learn_uplift(trial, regressor=make, final=make)
    log = pl.DataFrame({"j": np.arange(1_000), "a": acted, "p": 0.5, "y": outcome, "x": x[:, 1]})
    distal = dcee(
        log, journey="j", outcome="y", act="a", propensity="p", controls=["x"], regressor=make
    )["intercept"]
    found = {
        "delay": (delay.policy_value, problem.value(np.array(RULE, bool))),
        "policy": (worth.value, offers.value(policy)),
        "uplift": (uplift.average, 0.5),
        "distal": (distal, 0.5),
    }
    return {name: (each.value - truth) / each.se for name, (each, truth) in found.items()}


def test_a_regressor_without_weights_serves_everywhere() -> None:
    for name, away in answers(Line).items():
        assert abs(away) < 3.5, (name, away)


def test_where_rows_have_weights_it_is_told_that_it_takes_none() -> None:
    drawn = reference_problem().paths().draw(500, seed=1)
    with pytest.raises(ConfigError, match="sample_weight, got Line"):
        evaluate_delay(drawn, RULE, regressor=Line)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PLACES, "Pipeline"])
def test_regressors_of_scikit_learn_serve_as_they_are(name: str) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    if name == "Pipeline":
        pipeline, scaler = (
            importlib.import_module(f"sklearn.{m}") for m in ("pipeline", "preprocessing")
        )
        line = importlib.import_module("sklearn.linear_model").LinearRegression

        def make() -> Any:  # noqa: ANN401 - not a dependency: unknown to the type checker
            return pipeline.make_pipeline(scaler.StandardScaler(), line())
    else:
        make = getattr(importlib.import_module(PLACES[name]), name)
    for question, away in answers(make).items():
        assert abs(away) < 3.5, (question, away)
