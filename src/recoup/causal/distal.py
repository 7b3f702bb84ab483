"""What acting at a point did to the outcome of the whole journey, where acts may be repeated."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recoup.causal.estimate import Floats
from recoup.causal.excursion import (
    INTERCEPT,
    Excursion,
    Points,
    coefficients,
    freedom_left,
    read_points,
    solve_terms,
)
from recoup.causal.nuisance import RegressorFactory, TreeMeans, fit_regressor
from recoup.causal.tables import key_codes, reals, require_columns
from recoup.errors import ConfigError, SchemaError


def dcee(  # noqa: PLR0913 - the columns of a table, by keyword
    table: pl.DataFrame,
    *,
    journey: str,
    outcome: str,
    act: str,
    propensity: str,
    moderators: Sequence[str] = (),
    controls: Sequence[str] = (),
    availability: str | None = None,
    cluster: str | None = None,
    weight: str | None = None,
    expected: tuple[str, str] | None = None,
    folds: int = 2,
    regressor: RegressorFactory = TreeMeans,
    level: float = 0.95,
) -> Excursion:
    """Estimate the distal causal excursion effect: of acting at a point on the journey's outcome.

    Parameters
    ----------
    journey, outcome
        Columns: the journey, and its outcome, the same in each of its rows.
    act, propensity
        Columns: 0 or 1; P(act) in (0, 1) where the point is open.
    moderators
        Columns by which the effect may differ, known before the point; an intercept is added.
    controls
        Columns from which the outcome is predicted; none where there are none, nor ``expected``.
    cluster
        Column of what is independent (the visitor); the journey where None.
    weight
        Column: how much each point counts. Needed where journeys differ in length: a column of 1
        counts points alike, one of 1 / length counts journeys alike.
    expected
        Columns: the outcome expected of acting, and of not acting, at the point. The estimate is
        consistent whatever they say; good ones make it narrower.
    folds, regressor
        Cross-fitting of them where not stated, by cluster: dealt in turn, in order of their keys.

    Returns
    -------
    Excursion
        Its value is per point, closed ones included as points of no effect. Intervals are by the t
        distribution with clusters - terms degrees of freedom.

    Raises
    ------
    ConfigError
        If journeys differ in length and no weight is given.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> acts = (rng.random((2000, 3)) < 0.4).astype(int)
    >>> value = acts @ [2.0, 1.0, 0.0] + rng.normal(size=2000)
    >>> log = pl.DataFrame(
    ...     {"j": np.repeat(np.arange(2000), 3), "a": acts.ravel(), "y": np.repeat(value, 3)}
    ... )
    >>> found = dcee(log.with_columns(p=0.4), journey="j", outcome="y", act="a", propensity="p")
    >>> found["intercept"].low < 1 < found["intercept"].high
    True

    References
    ----------
    Qian (2025), Distal causal excursion effects: modeling long-term effects of time-varying
    treatments in micro-randomized trials, arXiv 2502.13500.
    """
    columns = (journey, outcome, act, propensity, availability, cluster)
    require_columns(table, (*columns, *controls, weight, *(expected or ())))
    whole = table.with_columns(pl.col(outcome).fill_null(strategy="forward").over(journey))
    points = read_points(whole, *columns, moderators=moderators)
    _check_constant(points, outcome)
    weights = _weights(table, points, weight)
    if expected is not None:
        acting, waiting = (reals(table, name) for name in expected)
    else:
        acting, waiting = _cross_fit(table, points, controls, folds, regressor)
    chance = points.propensity
    centre = (1 - chance) * acting + chance * waiting
    sign = np.where(points.act > 0, 1.0, -1.0)
    score = points.is_open * sign / points.chosen * (points.outcome - centre)
    return _fit(points, weights, score, moderators, level)


def _fit(
    points: Points, weights: Floats, score: Floats, moderators: Sequence[str], level: float
) -> Excursion:
    weighted = points.moderators * weights[:, None]
    bread = weighted.T @ points.moderators
    beta = solve_terms(bread, weighted.T @ score)
    left = weighted * (score - points.moderators @ beta)[:, None]
    sums = np.column_stack([np.bincount(points.cluster, column) for column in left.T])
    half = sums @ np.linalg.inv(bread).T
    spread, clusters = half.T @ half, len(sums)
    freedom = freedom_left(clusters, len(beta))
    return Excursion(
        effects=coefficients([INTERCEPT, *moderators], beta, spread, freedom, level),
        controls=[],
        covariance=spread.tolist(),
        rows=int(points.is_open.sum()),
        clusters=clusters,
        freedom=freedom,
        corrected=False,
    )


def _weights(table: pl.DataFrame, points: Points, weight: str | None) -> Floats:
    lengths = np.bincount(points.journey)
    if weight is not None:
        return reals(table, weight)
    if lengths.min() < lengths.max():
        raise ConfigError(
            f"Expected a weight where journeys differ in length, got none and lengths "
            f"{lengths.min()} to {lengths.max()}",
            hint="a column of 1 counts points alike, one of 1 / length counts journeys alike",
        )
    return np.ones(len(points.act))


def _check_constant(points: Points, outcome: str) -> None:
    opened = points.is_open > 0
    value = np.zeros(int(points.journey.max()) + 1)
    value[points.journey[opened]] = points.outcome[opened]
    differs = opened & (points.outcome != value[points.journey])
    if differs.any():
        raise SchemaError(
            f"Expected one value of {outcome!r} a journey, got several - at row "
            f"{int(np.argmax(differs))}",
            hint="for an outcome of each point use wcls or emee",
        )


def _cross_fit(
    table: pl.DataFrame,
    points: Points,
    controls: Sequence[str],
    folds: int,
    regressor: RegressorFactory,
) -> tuple[Floats, Floats]:
    """Predict the outcome of acting, and of not, from other folds; 0 without controls."""
    acting, waiting = np.zeros(len(points.act)), np.zeros(len(points.act))
    if not controls:
        return acting, waiting
    if folds < 2:  # noqa: PLR2004 - cross-fitting needs another part to learn from
        raise ConfigError(f"Expected at least two folds, got {folds}")
    inputs = np.column_stack(
        [
            reals(table, name) if table.schema[name].is_numeric() else key_codes(table, [name])
            for name in controls
        ]
    ).astype(np.float64)
    fold, opened = points.cluster % folds, points.is_open > 0
    for part in range(folds):
        held = fold == part
        for arm, found in ((1.0, acting), (0.0, waiting)):
            learn = ~held & opened & (points.act == arm)
            model = fit_regressor(regressor, inputs[learn], points.outcome[learn])
            found[held] = model.predict(inputs[held])
    return acting, waiting
