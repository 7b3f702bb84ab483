"""What an act does that may be repeated: the effect of acting at a point, averaged over points.

An *excursion* follows the log up to a point, acts or does not there, and follows the log again. Its
effect depends on what the log does before and after (the cost of delay does not). Proximal effects
are on what comes soon after each point: `wcls` for means, `emee` for rates. For an outcome of the
whole journey see `recoup.causal.distal`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from scipy import optimize, stats

from recoup.causal.estimate import Estimate, Floats, Ints, normal_quantile
from recoup.causal.tables import flags, named_codes, number_column, reals, require_columns
from recoup.errors import ConfigError, SchemaError

INTERCEPT: Final = "intercept"
SMALL: Final = 50
_LEAST_PROPENSITY: Final = 1e-9
_TOLERANCE: Final = 1e-8


class Coefficient(Estimate, frozen=True, kw_only=True):
    """One term of a model.

    Parameters
    ----------
    term
        The moderator's or control's column, or ``intercept``.
    p_value
        Of 0, two-sided, by the t distribution.

    Examples
    --------
    >>> Coefficient(0.1, 0.0, 0.2, 0.05, term="intercept", p_value=0.04).term
    'intercept'
    """

    term: str
    p_value: float


class Excursion(msgspec.Struct, frozen=True, kw_only=True):
    """An excursion effect, by term.

    Parameters
    ----------
    effects
        Of acting, by moderator; for `emee` on the log of the relative rate.
    controls
        Of the model of the outcome, which need not be right; empty for `dcee`.
    covariance
        Of ``effects``, shape (p, p).
    rows, clusters
        Points that were open; what was taken for independent.
    freedom
        Degrees of freedom of the intervals.
    corrected
        Whether residuals were corrected for a small sample.

    Examples
    --------
    See `wcls`.
    """

    effects: list[Coefficient]
    controls: list[Coefficient]
    covariance: list[list[float]]
    rows: int
    clusters: int
    freedom: int
    corrected: bool

    def __getitem__(self, term: str) -> Coefficient:
        """Give the effect's coefficient of a term."""
        return next(each for each in self.effects if each.term == term)


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """Decision points as arrays.

    Parameters
    ----------
    outcome, act, propensity, is_open
        Shape (n,); propensity 0.5 where the point is closed.
    moderators
        Shape (n, p), the first column 1.
    cluster
        Shape (n,): code of what is independent.
    journey
        Shape (n,): code of the journey.

    Examples
    --------
    See `read_points`.
    """

    outcome: Floats
    act: Floats
    propensity: Floats
    is_open: Floats
    moderators: Floats
    cluster: Ints
    journey: Ints

    @property
    def chosen(self) -> Floats:
        """Probability of what was done, shape (n,)."""
        return np.where(self.act > 0, self.propensity, 1 - self.propensity)


def wcls(  # noqa: PLR0913 - the columns of a table, by keyword
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
    reference: float | str = 0.5,
    level: float = 0.95,
) -> Excursion:
    """Estimate the effect of acting on the outcome that follows, by weighted centred least squares.

    Parameters
    ----------
    outcome
        Column: what came of the point; a number at every open one.
    act, propensity
        Columns: 0 or 1; P(act) in (0, 1) where the point is open.
    moderators
        Columns by which the effect may differ, known before the point; an intercept is added.
    controls
        Columns that predict the outcome; they make intervals narrower and need not be right.
    availability
        Column: 0 or 1; 1 where None.
    cluster
        Column of what is independent (the visitor); the journey where None.
    reference
        Centre of the act: a constant in (0, 1), or a column that depends on moderators alone. The
        effect is averaged as if acts were as frequent as this.

    Returns
    -------
    Excursion
        With 50 clusters or fewer residuals are corrected, (I - H)^-1 r. Intervals are by the t
        distribution with clusters - terms degrees of freedom.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> n = 4000
    >>> log = pl.DataFrame({"j": np.arange(n) // 10, "stuck": rng.integers(0, 2, n)})
    >>> chance = np.where(log["stuck"] == 1, 0.6, 0.3)
    >>> acts = (rng.random(n) < chance).astype(int)
    >>> log = log.with_columns(a=acts, p=chance)
    >>> log = log.with_columns(
    ...     y=pl.col("a") * (1 + pl.col("stuck")) + pl.Series(rng.normal(size=n))
    ... )
    >>> found = wcls(log, journey="j", outcome="y", act="a", propensity="p", moderators=["stuck"])
    >>> found["intercept"].low < 1 < found["intercept"].high
    True

    References
    ----------
    Boruvka, Almirall, Witkiewitz & Murphy (2018), Assessing time-varying causal effect moderation
    in mobile health, JASA 113. Mancl & DeRouen (2001) for the correction.
    """
    columns = (journey, outcome, act, propensity, availability, cluster)
    points = read_points(table, *columns, moderators=moderators)
    centred, weight = _centred(table, points, reference)
    model = np.hstack([_design(table, controls), centred[:, None] * points.moderators])
    weighted = model * weight[:, None]
    gram = weighted.T @ model
    theta = solve_terms(gram, weighted.T @ points.outcome)
    residual = points.outcome - model @ theta
    spread, corrected = _sandwich(weighted, residual, -model, -gram, points.cluster)
    return _excursion(theta, spread, points, (controls, moderators), corrected, level)


def emee(  # noqa: PLR0913 - the columns of a table, by keyword
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
    reference: float | str = 0.5,
    level: float = 0.95,
) -> Excursion:
    """Estimate the log of the relative rate that acting gives the outcome which follows.

    Parameters and result are those of `wcls`; the outcome is 0 or 1 (or a rate in [0, 1]), and
    ``exp(value)`` is the factor by which acting multiplies its chance.

    Raises
    ------
    ConfigError
        If the estimating equation has no solution, as where an arm has no outcome.

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> n = 20_000
    >>> acts = (rng.random(n) < 0.4).astype(int)
    >>> bought = (rng.random(n) < 0.1 * 1.5**acts).astype(int)
    >>> log = pl.DataFrame({"j": np.arange(n) // 10, "a": acts, "p": 0.4, "y": bought})
    >>> found = emee(log, journey="j", outcome="y", act="a", propensity="p")
    >>> bool(found["intercept"].low < np.log(1.5) < found["intercept"].high)
    True

    References
    ----------
    Qian, Yoo, Klasnja, Almirall & Murphy (2021), Estimating time-varying causal excursion effects
    in mobile health with binary outcomes, Biometrika 108.
    """
    columns = (journey, outcome, act, propensity, availability, cluster)
    points = read_points(table, *columns, moderators=moderators)
    if not ((points.outcome >= 0) & (points.outcome <= 1)).all():
        raise SchemaError(f"Expected outcomes in [0, 1] in {outcome!r}, got others")
    centred, weight = _centred(table, points, reference)
    equation = _Rates(points, _design(table, controls), centred, weight)
    theta = equation.solve()
    weighted, residual, slope = equation.parts(theta)
    spread, corrected = _sandwich(
        weighted, residual, slope, equation.jacobian(theta), points.cluster
    )
    return _excursion(theta, spread, points, (controls, moderators), corrected, level)


class _Rates(msgspec.Struct, frozen=True):
    """The estimating equation of `emee`: sum of D r with r = Y - exp(g a + A f b)."""

    points: Points
    controls: Floats
    centred: Floats
    weight: Floats

    @property
    def model(self) -> Floats:
        return np.hstack([self.controls, self.centred[:, None] * self.points.moderators])

    @property
    def exponents(self) -> Floats:
        return np.hstack([self.controls, self.points.act[:, None] * self.points.moderators])

    def parts(self, theta: Floats) -> tuple[Floats, Floats, Floats]:
        """Give D, r and the derivative of r."""
        exponents, split = self.exponents, self.controls.shape[1]
        expected = np.exp(exponents @ theta)
        discount = np.exp(-exponents[:, split:] @ theta[split:])
        weighted = self.model * (self.weight * discount)[:, None]
        return weighted, self.points.outcome - expected, -expected[:, None] * exponents

    def jacobian(self, theta: Floats) -> Floats:
        """Give the derivative of the sum of D r."""
        weighted, residual, slope = self.parts(theta)
        split = self.controls.shape[1]
        moved = np.zeros_like(slope)
        moved[:, split:] = -self.exponents[:, split:]
        return np.asarray(weighted.T @ (slope + residual[:, None] * moved))

    def solve(self) -> Floats:
        weighted, weight = self.model * self.weight[:, None], self.weight
        start = np.zeros(weighted.shape[1])
        rate = float(weight @ self.points.outcome / weight.sum())
        start[0] = np.log(max(rate, _LEAST_PROPENSITY))

        def total(theta: Floats) -> Floats:
            parts = self.parts(theta)
            return np.asarray(parts[0].T @ parts[1])

        with np.errstate(over="ignore", invalid="ignore"):
            found = optimize.root(total, start, jac=self.jacobian, tol=1e-13)
        left = np.abs(total(found.x)).max() / max(weight.sum(), 1.0)
        if not left < _TOLERANCE:
            raise ConfigError(
                "Expected an outcome both where acted and where not, in every combination of "
                "moderators: the rates have no finite ratio",
                hint="leave out the moderator that splits the outcomes",
            )
        return np.asarray(found.x, np.float64)


def read_points(
    table: pl.DataFrame,
    journey: str,
    outcome: str,
    act: str,
    propensity: str,
    availability: str | None,
    cluster: str | None,
    *,
    moderators: Sequence[str],
) -> Points:
    """Read decision points from a table of one row each.

    Raises
    ------
    SchemaError
        If a column is absent, a number missing, an act at a closed point, a propensity of an open
        one out of (0, 1), a journey in two clusters, or there is no act, or nothing else.

    Examples
    --------
    >>> log = pl.DataFrame({"j": [0, 0, 1], "a": [0, 1, 0], "p": 0.5, "y": [1.0, 0.0, 2.0]})
    >>> read_points(log, "j", "y", "a", "p", None, None, moderators=[]).cluster.tolist()
    [0, 0, 1]
    """
    require_columns(table, (journey, outcome, act, propensity, availability, cluster, *moderators))
    is_open = np.ones(table.height)
    if availability is not None:
        is_open = flags(table, availability).astype(np.float64)
    acts = flags(table, act).astype(np.float64)
    if (acts > is_open).any():
        row = int(np.argmax(acts > is_open))
        raise SchemaError(f"Expected no act at a closed point, got one - at {act}[{row}]")
    acted = acts[is_open > 0]
    if acted.all() or not acted.any():
        raise SchemaError(
            f"Expected open points with and without an act, got only one kind - in {act!r}",
            hint="compare with points at which chance did not act",
        )
    filled = table.with_columns(
        pl.when(pl.Series(is_open > 0)).then(pl.col(propensity)).otherwise(0.5).alias(propensity),
        pl.when(pl.Series(is_open > 0)).then(pl.col(outcome)).otherwise(0.0).alias(outcome),
    )
    low, high = _LEAST_PROPENSITY, 1 - _LEAST_PROPENSITY
    journeys, clusters = named_codes(table, journey), named_codes(table, cluster or journey)
    moved = clusters[np.unique(journeys, return_index=True)[1]][journeys] != clusters
    if moved.any():
        raise SchemaError(
            f"Expected one value of {cluster!r} a journey, got several - at row "
            f"{int(np.argmax(moved))}",
            hint="name what holds whole journeys, such as the visitor",
        )
    return Points(
        outcome=reals(filled, outcome),
        act=acts,
        propensity=number_column(filled, propensity, low=low, high=high),
        is_open=is_open,
        moderators=_design(table, moderators),
        cluster=clusters,
        journey=journeys,
    )


def freedom_left(clusters: int, terms: int) -> int:
    """Give the degrees of freedom that a model of so many terms leaves.

    Raises
    ------
    SchemaError
        If it leaves none.
    """
    if clusters <= terms:
        raise SchemaError(
            f"Expected more clusters than terms, got {clusters} and {terms}",
            hint="leave out controls, or moderators",
        )
    return clusters - terms


def coefficients(
    names: Sequence[str], values: Floats, spread: Floats, freedom: int, level: float
) -> list[Coefficient]:
    """Put t intervals around values, shape (k,), of covariance ``spread``, shape (k, k)."""
    normal_quantile(level)  # refuses a level that is none
    reach = float(stats.t.ppf(0.5 + level / 2, freedom))
    found = []
    for name, value, se in zip(names, values.tolist(), np.sqrt(np.diag(spread)), strict=True):
        p_value = float(2 * stats.t.sf(abs(value) / se, freedom)) if se > 0 else float("nan")
        ends = (value, value - reach * float(se), value + reach * float(se), float(se))
        found.append(Coefficient(*ends, term=name, p_value=p_value))
    return found


def _excursion(
    theta: Floats,
    spread: Floats,
    points: Points,
    names: tuple[Sequence[str], Sequence[str]],
    corrected: bool,  # noqa: FBT001 - passed on
    level: float,
) -> Excursion:
    clusters, split = int(points.cluster.max()) + 1, len(names[0]) + 1
    freedom = freedom_left(clusters, len(theta))
    terms = [INTERCEPT, *names[0], INTERCEPT, *names[1]]
    found = coefficients(terms, theta, spread, freedom, level)
    return Excursion(
        effects=found[split:],
        controls=found[:split],
        covariance=spread[split:, split:].tolist(),
        rows=int(points.is_open.sum()),
        clusters=clusters,
        freedom=freedom,
        corrected=corrected,
    )


def _design(table: pl.DataFrame, names: Sequence[str]) -> Floats:
    return np.column_stack([np.ones(table.height), *(reals(table, name) for name in names)])


def _centred(table: pl.DataFrame, points: Points, reference: float | str) -> tuple[Floats, Floats]:
    """Give A - p~, and the weight that makes acts as frequent as p~."""
    if isinstance(reference, str):
        require_columns(table, (reference,))
        centre = number_column(table, reference, low=_LEAST_PROPENSITY, high=1)
    else:
        centre = np.full(len(points.act), reference)
    if not ((centre > 0) & (centre < 1)).all():
        raise ConfigError(f"Expected a reference in (0, 1), got {reference}", hint="use 0.5")
    wanted = np.where(points.act > 0, centre, 1 - centre)
    return points.act - centre, points.is_open * wanted / points.chosen


def solve_terms(gram: Floats, right: Floats) -> Floats:
    """Solve for coefficients, shape (k,) or, of several right sides, (k, m).

    Raises
    ------
    ConfigError
        If terms are collinear.
    """
    if np.linalg.matrix_rank(gram) < len(gram):
        raise ConfigError(
            "Expected moderators and controls that differ, got collinear ones",
            hint="leave out a constant column, or one that others add up to",
        )
    return np.asarray(np.linalg.solve(gram, right), np.float64)


def _sandwich(
    weighted: Floats, residual: Floats, slope: Floats, bread: Floats, cluster: Ints
) -> tuple[Floats, bool]:
    """Give the covariance of a solution of sum D r = 0, and whether it was corrected.

    Parameters
    ----------
    weighted, residual, slope
        D, shape (n, k); r, shape (n,); the derivative of r, shape (n, k).
    bread
        Derivative of the sum, shape (k, k).
    """
    clusters = int(cluster.max()) + 1
    freedom_left(clusters, len(bread))  # else the correction divides by nothing
    inverse = solve_terms(bread, np.eye(len(bread)))
    corrected = clusters <= SMALL
    if corrected:
        sums = np.zeros((clusters, weighted.shape[1]))
        for code in range(clusters):
            rows = cluster == code
            mine, left = weighted[rows], residual[rows]
            leverage = slope[rows] @ inverse @ mine.T
            sums[code] = mine.T @ np.linalg.solve(np.eye(len(left)) - leverage, left)
    else:
        scores = weighted * residual[:, None]
        sums = np.column_stack([np.bincount(cluster, column) for column in scores.T])
    half = sums @ inverse.T
    return half.T @ half, corrected
