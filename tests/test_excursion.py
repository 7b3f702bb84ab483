from collections.abc import Callable
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from benchmarks import excursion_coverage
from benchmarks.excursion_coverage import COLUMNS, DESIGNS, binary, distal, proximal
from scipy import stats

from recoup.causal import excursion
from recoup.causal.distal import dcee
from recoup.causal.excursion import Excursion, emee, wcls
from recoup.errors import ConfigError, SchemaError

# Four journeys of two points, unequal propensities, one point closed: small enough for fractions.
JOURNEY = [0, 0, 1, 1, 2, 2, 3, 3]
ACT = [1, 0, 0, 1, 1, 1, 0, 0]
CHANCE = [Fraction(n, 4) for n in (1, 2, 1, 3, 2, 1, 3, 2)]
OPEN = [1, 1, 1, 1, 1, 1, 1, 0]
OUTCOME = [Fraction(n, 2) for n in (7, 1, 2, 9, 4, 6, 3, 5)]
HALF = Fraction(1, 2)


def tiny() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "journey": JOURNEY,
            "act": ACT,
            "p": [float(each) for each in CHANCE],
            "open": OPEN,
            "y": [float(each) for each in OUTCOME],
        }
    )


def _inverse(m: list[list[Fraction]]) -> list[list[Fraction]]:
    (a, b), (c, d) = m
    scale = a * d - b * c
    return [[d / scale, -b / scale], [-c / scale, a / scale]]


def _product(one: list[list[Fraction]], other: list[list[Fraction]]) -> list[list[Fraction]]:
    columns = list(zip(*other, strict=True))
    return [
        [sum((x * y for x, y in zip(row, column, strict=True)), Fraction(0)) for column in columns]
        for row in one
    ]


def _turned(m: list[list[Fraction]]) -> list[list[Fraction]]:
    return [list(row) for row in zip(*m, strict=True)]


def test_weighted_centred_least_squares_in_fractions() -> None:
    # By the formulas of the paper, in exact arithmetic: y on [1, a - 1/2] with weights
    # open (1/2) / P(a), the sandwich by journey, residuals times (I - H)^-1.
    weight = [o * HALF / (p if a else 1 - p) for a, p, o in zip(ACT, CHANCE, OPEN, strict=True)]
    model = [[Fraction(1), a - HALF] for a in ACT]
    scaled = [[w * x for x in row] for w, row in zip(weight, model, strict=True)]
    inverse = _inverse(_product(_turned(scaled), model))
    theta = _product(inverse, _product(_turned(scaled), [[y] for y in OUTCOME]))
    scores = []
    for journey in range(4):
        rows = [row for row in range(8) if JOURNEY[row] == journey]
        x, wx = [model[row] for row in rows], [scaled[row] for row in rows]
        fitted = _product(x, theta)
        left = [[OUTCOME[row] - fit[0]] for row, fit in zip(rows, fitted, strict=True)]
        hat = _product(_product(x, inverse), _turned(wx))
        kept = [[(i == j) - hat[i][j] for j in range(2)] for i in range(2)]
        scores.append([s[0] for s in _product(_turned(wx), _product(_inverse(kept), left))])
    meat = _product(_turned(scores), scores)
    spread = _product(_product(inverse, meat), _turned(inverse))

    found = wcls(tiny(), **COLUMNS, availability="open")
    effect, control = found.effects[0], found.controls[0]
    assert effect.value == pytest.approx(float(theta[1][0]), rel=1e-13)
    assert control.value == pytest.approx(float(theta[0][0]), rel=1e-13)
    assert effect.se == pytest.approx(float(spread[1][1]) ** 0.5, rel=1e-13)
    assert control.se == pytest.approx(float(spread[0][0]) ** 0.5, rel=1e-13)
    assert (found.rows, found.clusters, found.freedom, found.corrected) == (7, 4, 2, True)
    # With two degrees of freedom the t quantile has a closed form.
    quantile = 0.95 * (2 / (1 - 0.95**2)) ** 0.5
    assert effect.high - effect.value == pytest.approx(quantile * effect.se, rel=1e-12)
    assert theta[1][0] == Fraction(763, 374)
    assert spread[1][1] == Fraction(369818989, 503553600)


def test_distal_effect_in_fractions() -> None:
    # A journey's outcome is that of its first row; expectations are stated, and need not be right.
    outcome = [OUTCOME[row - row % 2] for row in range(8)]
    acting, waiting = Fraction(3), Fraction(1)
    score = [
        o * (1 if a else -1) / (p if a else 1 - p) * (y - (1 - p) * acting - p * waiting)
        for a, p, o, y in zip(ACT, CHANCE, OPEN, outcome, strict=True)
    ]
    effect = sum(score, Fraction(0)) / 8
    sums = [score[2 * j] + score[2 * j + 1] - 2 * effect for j in range(4)]
    variance = sum((each**2 for each in sums), Fraction(0)) / 64
    table = tiny().with_columns(y=pl.Series([float(each) for each in outcome]), mu1=3.0, mu0=1.0)
    found = dcee(table, **COLUMNS, availability="open", expected=("mu1", "mu0"))
    assert found.effects[0].value == pytest.approx(float(effect), rel=1e-13)
    assert found.effects[0].se == pytest.approx(float(variance) ** 0.5, rel=1e-13)
    assert found.freedom == 3
    assert effect == Fraction(1, 24)


def test_relative_rates_have_a_closed_form_without_moderators() -> None:
    table = binary(80, 3)
    act, p, y = (table[name].to_numpy() for name in ("act", "p", "y"))
    weight = np.where(act > 0, 0.5 / p, 0.5 / (1 - p))
    rate = [np.average(y[act == arm], weights=weight[act == arm]) for arm in (0, 1)]
    found = emee(table, **COLUMNS)
    effect = found["intercept"]
    assert effect.value == pytest.approx(np.log(rate[1] / rate[0]), rel=1e-9)
    assert not found.corrected
    # Its influence: that of the log of one weighted rate less that of the other.
    influence = np.where(act > 0, 1, -1) * weight * (y - np.where(act > 0, rate[1], rate[0]))
    mass = [(weight * (act == arm)).sum() * rate[arm] for arm in (0, 1)]
    influence /= np.where(act > 0, mass[1], mass[0])
    sums = np.bincount(table["journey"].to_numpy(), influence)
    assert effect.se == pytest.approx(np.sqrt(sums @ sums), rel=1e-6)


def test_the_derivative_of_the_rates_equation_is_right() -> None:
    points = excursion.read_points(
        binary(40, 4), "journey", "y", "act", "p", None, None, moderators=["state"]
    )
    equation = excursion._Rates(  # noqa: SLF001 - the derivative that both solver and error use
        points, points.moderators, points.act - 0.5, 0.5 / points.chosen
    )
    at = np.array([-0.9, 0.1, 0.2, -0.1])

    def total(theta: np.ndarray) -> np.ndarray:
        weighted, residual, _ = equation.parts(theta)
        return np.asarray(weighted.T @ residual)

    step = 1e-6
    numeric = [(total(at + step * e) - total(at - step * e)) / (2 * step) for e in np.eye(4)]
    assert equation.jacobian(at) == pytest.approx(np.column_stack(numeric), rel=1e-5, abs=1e-5)


def test_the_correction_fades_with_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    table = proximal(50, 5)
    small = wcls(table, **COLUMNS, availability="open")
    monkeypatch.setattr(excursion, "SMALL", 0)
    plain = wcls(table, **COLUMNS, availability="open")
    assert small.corrected > plain.corrected
    assert small["intercept"].value == plain["intercept"].value
    assert plain["intercept"].se < small["intercept"].se < 1.1 * plain["intercept"].se


def test_a_reference_decides_over_which_states_is_averaged() -> None:
    # Without weights, acts follow the state and the average leans to where acts are frequent.
    table = proximal(2_000, 6)
    found = wcls(table, **COLUMNS, availability="open")["intercept"]
    naive = wcls(table.with_columns(p=0.5), **COLUMNS, availability="open")["intercept"]
    assert found.low < 0.2 < found.high
    assert naive.low > 0.4
    by_column = wcls(
        table.with_columns(centre=0.5), **COLUMNS, availability="open", reference="centre"
    )
    assert by_column["intercept"] == found


def test_what_is_independent_is_the_cluster() -> None:
    table = proximal(200, 7).with_columns(visitor=pl.col("journey") // 2)
    alone = wcls(table, **COLUMNS, availability="open")
    paired = wcls(table, **COLUMNS, availability="open", cluster="visitor")
    assert (alone.clusters, paired.clusters) == (200, 100)
    assert alone["intercept"].value == paired["intercept"].value


def test_a_distal_effect_needs_no_right_model() -> None:
    truth, away, narrower = excursion_coverage.distal_truth(), [], []
    for seed in range(16):
        table = distal(1_000, seed).with_columns(wrong=100.0)
        wrong = dcee(table, **COLUMNS, expected=("wrong", "wrong"))["intercept"]
        fitted = dcee(table, **COLUMNS, controls=["kind", "point"])["intercept"]
        away.append([(found.value - truth) / found.se for found in (wrong, fitted)])
        narrower.append(fitted.se / wrong.se)
    assert np.abs(np.mean(away, axis=0)).max() < 3 / 16**0.5
    assert max(narrower) < 0.1


def test_journeys_of_several_lengths_need_a_weight() -> None:
    table = distal(300, 9).filter((pl.col("journey") % 2 == 0) | (pl.col("point") < 2))
    with pytest.raises(ConfigError, match="Expected a weight where journeys differ in length"):
        dcee(table, **COLUMNS)
    found = dcee(table.with_columns(one=1.0), **COLUMNS, weight="one")
    assert found.rows == table.height


@pytest.mark.parametrize("method", [wcls, emee, dcee])
def test_logs_that_break_the_contract_are_refused(method: Callable[..., Excursion]) -> None:
    table = distal(100, 10).with_columns(y=pl.lit(1.0), open=1)
    with pytest.raises(SchemaError, match="closed point"):
        method(table.with_columns(open=0), **COLUMNS, availability="open")
    with pytest.raises(SchemaError, match=r"p\[0\]"):
        method(table.with_columns(p=0.0), **COLUMNS)
    with pytest.raises(SchemaError, match="Expected columns"):
        method(table, **{**COLUMNS, "act": "acted"})
    with pytest.raises(ConfigError, match="collinear"):
        method(table.with_columns(twice=2.0), **COLUMNS, moderators=["twice"])
    with pytest.raises(SchemaError, match="one value of 'row' a journey, got several - at row 1"):
        method(table.with_columns(row=pl.int_range(pl.len())), **COLUMNS, cluster="row")
    with pytest.raises(SchemaError, match="with and without an act"):
        method(table.with_columns(act=0), **COLUMNS)
    with pytest.raises(SchemaError, match=r"0 or 1, got 0\.5"):
        method(table.with_columns(act=0.5), **COLUMNS)
    with pytest.raises(ConfigError, match="confidence level"):
        method(table, **COLUMNS, level=2.0)
    few = table.filter(pl.col("journey") < 2)
    with pytest.raises(SchemaError, match="more clusters than terms"):
        method(few, **COLUMNS, moderators=["point"])


def test_other_misuse_is_refused() -> None:
    table = binary(60, 11)
    with pytest.raises(ConfigError, match="reference in"):
        wcls(table, **COLUMNS, reference=1.0)
    with pytest.raises(SchemaError, match=r"outcomes in \[0, 1\]"):
        emee(table.with_columns(y=pl.col("y") * 2), **COLUMNS)
    never = table.with_columns(y=pl.when(pl.col("act") > 0).then(0.0).otherwise(pl.col("y")))
    with pytest.raises(ConfigError, match="no finite ratio"):
        emee(never, **COLUMNS)
    with pytest.raises(SchemaError, match="one value of 'y' a journey"):
        dcee(table, **COLUMNS)
    with pytest.raises(ConfigError, match="two folds"):
        dcee(distal(20, 0), **COLUMNS, controls=["kind"], folds=1)


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_cover(design: str) -> None:
    reps = 150 if "cross" in design else 300
    found = excursion_coverage.judge(design, reps)
    covered = round(float(str(found["coverage"])) * reps)
    interval = stats.binomtest(covered, reps).proportion_ci(1 - 0.01 / len(DESIGNS))
    assert interval.low <= 0.95 <= interval.high, found
    assert abs(float(str(found["bias_in_errors"]))) < 3, found
