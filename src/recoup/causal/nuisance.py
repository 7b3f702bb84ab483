"""Out-of-fold regressions that the scores of delay stand on."""

import inspect
from collections.abc import Callable
from typing import Protocol

import lightgbm as lgb
import msgspec
import numpy as np

from recoup.causal.estimate import Floats, Ints
from recoup.causal.journeys import Bools, Journeys
from recoup.errors import ConfigError


class Regressor(Protocol):
    """What predicts a mean: any scikit-learn regressor, or pipeline, has this shape."""

    def fit(self, features: Floats, target: Floats, /) -> object:
        """Learn from features of shape (n, k) and targets of shape (n,).

        Where rows have weights they come as ``sample_weight``.
        """

    def predict(self, features: Floats, /) -> Floats:
        """Give the expected target, shape (n,)."""


RegressorFactory = Callable[[], Regressor]


def fit_regressor(
    make: RegressorFactory, features: Floats, target: Floats, weight: Floats | None = None
) -> Regressor:
    """Fit a new regressor to rows, shape (n, k) and (n,), with weights of shape (n,) if any.

    Raises
    ------
    ConfigError
        If there are weights, and its ``fit`` takes none.

    Examples
    --------
    >>> model = fit_regressor(CellMeans, np.array([[0.0], [0.0], [1.0]]), np.array([1.0, 3.0, 5.0]))
    >>> model.predict(np.array([[0.0]])).tolist()
    [2.0]
    """
    model = make()
    if weight is None:
        model.fit(features, target)
        return model
    if "sample_weight" not in inspect.signature(model.fit).parameters:
        raise ConfigError(
            f"Expected a regressor whose fit takes sample_weight, got {type(model).__name__}",
            hint="rows have weights here: take another regressor, or rows that count once each",
        )
    model.fit(features, target, sample_weight=weight)  # type: ignore[call-arg]
    return model


class CellMeans:
    """The mean of each state, the overall mean for a state not seen.

    Examples
    --------
    >>> model = CellMeans().fit(np.array([[0.0], [0.0], [1.0]]), np.array([1.0, 3.0, 5.0]))
    >>> model.predict(np.array([[0.0], [1.0], [2.0]])).tolist()
    [2.0, 5.0, 3.0]
    """

    def __init__(self) -> None:
        self._means = np.zeros(0)
        self._overall = 0.0

    def fit(
        self, features: Floats, target: Floats, *, sample_weight: Floats | None = None
    ) -> "CellMeans":
        """Learn from codes in the one column of ``features``."""
        codes = features[:, 0].astype(np.int64)
        weight = np.ones(len(target)) if sample_weight is None else sample_weight
        mass, total = np.bincount(codes, weight), np.bincount(codes, weight * target)
        self._overall = float(total.sum() / mass.sum()) if mass.sum() > 0 else 0.0
        seen = mass > 0
        self._means = np.where(seen, total / np.where(seen, mass, 1.0), self._overall)
        return self

    def predict(self, features: Floats) -> Floats:
        """Give the mean of each row's code, shape (n,)."""
        codes = features[:, 0].astype(np.int64)
        known = codes < len(self._means)
        found = np.full(len(codes), self._overall)
        found[known] = self._means[codes[known]]
        return found


class TreeMeans:
    """Gradient-boosted trees, deterministic; a leaf holds at least ``least_rows`` rows.

    Examples
    --------
    >>> x = np.arange(400.0)[:, None]
    >>> model = TreeMeans().fit(x, (x[:, 0] > 200) * 1.0)
    >>> bool(model.predict(np.array([[300.0]]))[0] > 0.9)
    True
    """

    def __init__(
        self, *, trees: int = 100, leaves: int = 8, rate: float = 0.05, least_rows: int = 40
    ) -> None:
        self._trees, self._least_rows = trees, least_rows
        self._settings = {
            "objective": "regression",
            "num_leaves": leaves,
            "learning_rate": rate,
            "min_data_in_leaf": least_rows,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbose": -1,
            "seed": 0,
        }
        self._model: lgb.Booster | None = None
        self._overall = 0.0

    def fit(
        self, features: Floats, target: Floats, *, sample_weight: Floats | None = None
    ) -> "TreeMeans":
        """Learn from features of shape (n, k); too few rows to split give their mean."""
        self._overall = float(target.mean()) if len(target) else 0.0
        self._model = None
        if len(target) > 2 * self._least_rows:
            data = lgb.Dataset(features, target, weight=sample_weight)
            self._model = lgb.train(self._settings, data, num_boost_round=self._trees)
        return self

    def predict(self, features: Floats) -> Floats:
        """Give the expected target, shape (n,)."""
        if self._model is None:
            return np.full(len(features), self._overall)
        return np.asarray(self._model.predict(features, num_threads=1), np.float64)


class Nuisance(msgspec.Struct, frozen=True):
    """Expected outcomes at every open point, out of fold, each of shape (n, H).

    Parameters
    ----------
    act
        Q1: of acting here.
    wait
        N: of waiting here and acting at the next open point.
    never
        V0: of never acting from here on.
    follow
        Of waiting here and following the stated policy from the next open point on.
    late
        P(the log acts later | not acted here).

    Examples
    --------
    >>> zero = np.zeros((2, 3))
    >>> Nuisance(zero, zero, zero, zero, zero).act.shape
    (2, 3)
    """

    act: Floats
    wait: Floats
    never: Floats
    follow: Floats
    late: Floats


def cross_fit(
    journeys: Journeys, policy: Bools, regressor: RegressorFactory | None = None
) -> Nuisance:
    """Fit on the other folds and predict each journey from them.

    Parameters
    ----------
    policy
        Shape (n, H): whether the stated policy acts at a point, given that it is open.
    regressor
        Makes a regressor of the state's features, fitted anew at each decision point; means by
        state where None.
    """
    inputs = (
        journeys.features
        if regressor is not None
        else journeys.state[:, :, None].astype(np.float64)
    )
    make: RegressorFactory = regressor or CellMeans
    found = [np.zeros(journeys.is_open.shape) for _ in range(5)]
    for fold in np.unique(journeys.fold).tolist():
        held = journeys.fold == fold
        for whole, part in zip(found, _Fit(journeys, inputs, make, ~held).run(policy), strict=True):
            whole[held] = part[held]
    return Nuisance(*found)


class _Fit(msgspec.Struct, frozen=True):
    journeys: Journeys
    inputs: Floats
    make: RegressorFactory
    train: Bools

    def run(self, policy: Bools) -> list[Floats]:
        log, shape = self.journeys, self.journeys.is_open.shape
        act, wait, never, follow, late = (np.zeros(shape) for _ in range(5))
        for point in range(log.points):
            act[:, point] = self._regress(point, log.act_at == point, log.outcome)
        value, upcoming_act, following = np.zeros(shape), np.zeros(shape), log.next_decision
        for point in range(log.points - 1, -1, -1):
            rows, upcoming = (log.act_at > point) & ~log.left(point), following[:, point]
            later = value_at(upcoming_act, upcoming, log.outcome)
            wait[:, point] = self._regress(point, rows, later)
            never[:, point] = self._regress(point, rows, value_at(never, upcoming, log.outcome))
            follow[:, point] = self._regress(point, rows, value_at(value, upcoming, log.outcome))
            late[:, point] = self._regress(
                point, rows, (log.act_at < log.points).astype(np.float64)
            )
            value[:, point] = np.where(policy[:, point], act[:, point], follow[:, point])
            here = log.is_open[:, point]
            upcoming_act[:, point] = np.where(here, act[:, point], wait[:, point])
        return [act, wait, never, follow, late]

    def _regress(self, point: int, rows: Bools, target: Floats) -> Floats:
        log = self.journeys
        here = log.decides[:, point]
        learn = here & rows & self.train
        found = np.zeros(len(target))
        if not learn.any():
            return found
        weight = None if log.count is None else log.count[learn]
        inputs = self.inputs[:, point]
        model = fit_regressor(self.make, inputs[learn], target[learn], weight)
        found[here] = model.predict(inputs[here])
        return found


def value_at(values: Floats, point: Ints, otherwise: Floats) -> Floats:
    """Pick ``values[i, point[i]]``, or ``otherwise[i]`` where the point is past the last."""
    last = values.shape[1]
    picked = values[np.arange(len(values)), np.minimum(point, last - 1)]
    return np.where(point < last, picked, otherwise)
