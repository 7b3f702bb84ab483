import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from recoup.causal.arms import ArmMean, Sums, compare_arms
from recoup.causal.assignment import Layer, Trial, position, switchback
from recoup.causal.experiment_metrics import Metric
from recoup.causal.experiment_plan import ExperimentPlan, plan_experiment
from recoup.causal.power import (
    Strictness,
    correlation_within,
    design_effect,
    detectable_effect,
    detectable_rise,
    rows_needed,
)
from recoup.cli import design
from recoup.errors import ConfigError, SchemaError


def test_detectable_effects_equal_the_reference(reference_dir: Path) -> None:
    want = json.loads((reference_dir / "spotify" / "expected.json").read_text())
    control = 12 / 22 - (8 / 22) ** 2
    control *= 22 / 21  # sample variance
    for name, treated in (("ztest_control_vs_test", 1010), ("ztest_control_vs_test2", 150)):
        found = detectable_effect(control, 22, treated)
        assert found == pytest.approx(want[name]["powered_effect"], rel=1e-12)
    # The package searches until the units it needs, rounded up, are within one of those there are.
    found = detectable_rise(0.1, 1000, 1010)
    assert found == pytest.approx(want["binary_100/1000_vs_140/1010"]["powered_effect"], rel=5e-4)


def test_the_rows_needed_give_the_power_asked_for() -> None:
    rng, reps, rate, risen, share = np.random.default_rng(0), 4_000, 0.1, 0.13, 0.3
    rows = rows_needed(
        rate * (1 - rate), risen - rate, share=share, treated_variance=risen * (1 - risen)
    )
    sizes = (round(rows * (1 - share)), round(rows * share))
    draws = (rng.binomial(sizes[0], rate, reps), rng.binomial(sizes[1], risen, reps))
    found = sum(
        compare_arms(
            ArmMean.proportion(sizes[0], one), ArmMean.proportion(sizes[1], other), test="z"
        ).p_value
        <= 0.05
        for one, other in zip(*draws, strict=True)
    )
    assert stats.binomtest(found, reps).proportion_ci(0.99).high > 0.79
    assert stats.binomtest(found, reps).proportion_ci(0.99).low < 0.81
    assert detectable_rise(rate, *sizes) == pytest.approx(risen - rate, rel=1e-2)


def test_a_sequential_plan_finds_by_its_end_what_it_looked_for() -> None:
    sure = Strictness(sequential=True)
    rows = round(rows_needed(1.0, 0.2, strictness=sure) / 2) * 2
    assert 1.8 < rows / rows_needed(1.0, 0.2) < 2.0
    rng, found, stopped = np.random.default_rng(3), 0, []
    looks = np.unique(np.linspace(0.1, 1, 10) * rows // 2).astype(int)
    for _ in range(400):
        control, treated = rng.normal(size=rows // 2), rng.normal(0.2, size=rows // 2)
        for look in looks.tolist():
            arms = [
                ArmMean.from_sums(Sums(look, float(y[:look].sum()), float((y[:look] ** 2).sum())))
                for y in (control, treated)
            ]
            if compare_arms(arms[0], arms[1], test="anytime", tuned_at=rows).p_value <= 0.05:
                found += 1
                stopped.append(look / looks[-1])
                break
    assert 0.78 < found / 400 < 0.9
    assert np.mean(stopped) < 0.75


def test_few_clusters_need_more_than_many() -> None:
    assert detectable_effect(1.0, 5, 5, freedom=8) > 1.1 * detectable_effect(1.0, 5, 5)


def test_clusters_multiply_the_variance_by_their_design_effect() -> None:
    rng, reps, shared = np.random.default_rng(1), 2_000, 0.25
    sizes = rng.integers(2, 12, 200)
    clusters = np.repeat(np.arange(200), sizes)
    means: list[float] = []
    correlations: list[float] = []
    for _ in range(reps):
        values = rng.normal(scale=np.sqrt(shared), size=200)[clusters]
        values += rng.normal(scale=np.sqrt(1 - shared), size=len(clusters))
        means.append(values.mean())
        if len(correlations) < 50:
            correlations.append(correlation_within(values, clusters))
    effect = design_effect(clusters, shared)
    assert np.var(means) * len(clusters) == pytest.approx(effect, rel=0.1)
    assert np.mean(correlations) == pytest.approx(shared, abs=0.02)
    assert correlation_within(np.ones(4), np.arange(4)) == 0.0


LAYER = Layer(
    name="checkout",
    trials={
        "form": Trial(traffic=0.4, arms={"old": 0.5, "new": 0.3, "newer": 0.2}),
        "fees": Trial(traffic=0.6, arms={"shown": 0.5, "hidden": 0.5}),
    },
    holdout=0.1,
)
UNITS = pl.Series([f"visitor-{number}" for number in range(40_000)])


def test_shares_are_those_stated() -> None:
    found = LAYER.assign_all(UNITS)
    assert found["experiment"].is_null().mean() == pytest.approx(0.1, abs=0.005)
    grouped = found.drop_nulls().group_by("experiment", "arm").len()
    counts = {(experiment, arm): count for experiment, arm, count in grouped.iter_rows()}
    for (experiment, arm), count in counts.items():
        trial = LAYER.trials[experiment]
        want = 40_000 * 0.9 * trial.traffic * trial.arms[arm]
        assert abs(count - want) < 4 * np.sqrt(want), (experiment, arm)
    assert len(counts) == 5


def test_assignment_is_for_ever() -> None:
    assert position("visitor-1", "checkout") == pytest.approx(0.019609, abs=1e-6)
    assert LAYER.assign_all(UNITS).equals(LAYER.assign_all(UNITS))


def test_layers_are_independent_and_share_the_holdout() -> None:
    other = Layer(
        name="search", trials={"rank": Trial(traffic=1, arms={"a": 0.5, "b": 0.5})}, holdout=0.1
    )
    one, two = LAYER.assign_all(UNITS), other.assign_all(UNITS)
    assert one["arm"].is_null().equals(two["arm"].is_null())
    both = pl.DataFrame({"one": one["arm"], "two": two["arm"]}).drop_nulls()
    table = both.group_by("one", "two").len().pivot("two", index="one", values="len")
    assert stats.chi2_contingency(table.select("a", "b").to_numpy()).pvalue > 0.001


def test_a_later_trial_moves_no_one_of_an_earlier_one() -> None:
    first = Layer(name="checkout", trials={"form": LAYER.trials["form"]}, holdout=0.1)
    one, two = first.assign_all(UNITS), LAYER.assign_all(UNITS)
    assert one.filter(one["experiment"] == "form").equals(two.filter(two["experiment"] == "form"))


def test_switchback_acts_in_one_block_of_every_pair() -> None:
    acts = [switchback("Porto", block, "slots") for block in range(200)]
    assert all(one != other for one, other in zip(acts[0::2], acts[1::2], strict=True))
    assert 30 < sum(acts[0::2]) < 70
    assert acts != [switchback("Faro", block, "slots") for block in range(200)]


def test_shares_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="add up to 1"):
        Trial(traffic=0.5, arms={"a": 0.5, "b": 0.4})
    with pytest.raises(ConfigError, match="traffic"):
        Trial(traffic=0.0, arms={"a": 1.0})
    half = Trial(traffic=0.6, arms={"a": 1.0})
    with pytest.raises(ConfigError, match="share its traffic"):
        Layer(name="x", trials={"one": half, "two": half})
    with pytest.raises(ConfigError, match="holdout"):
        Layer(name="x", trials={}, holdout=1.0)
    with pytest.raises(ConfigError, match="effect other than 0"):
        rows_needed(1.0, 0.0)
    with pytest.raises(ConfigError, match="power"):
        Strictness(power=1.0)


def traffic(days: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    rows = 500 * days
    at = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    return pl.DataFrame(
        {
            "visitor": rng.integers(0, 3_000, rows),
            "ts": [at + dt.timedelta(hours=int(hour)) for hour in rng.integers(0, days * 24, rows)],
            "orders": rng.poisson(0.1, rows),
            "visits": 1,
        }
    )


def plan(table: pl.DataFrame, **options: object) -> ExperimentPlan:
    given: dict[str, object] = {
        "unit": "visitor",
        "time": "ts",
        "metric": Metric(top="orders"),
        "effect": 0.1,
        **options,
    }
    return plan_experiment(table, **given)  # type: ignore[arg-type]


def test_a_plan_reads_what_each_length_would_have_found() -> None:
    table = traffic(20)
    found = plan(table, effect=0.3)
    week = found.durations[6]
    early = table.filter(pl.col("ts") < dt.datetime(2026, 3, 8, tzinfo=dt.UTC))
    per = early.group_by("visitor").agg(pl.col("orders").sum())["orders"].to_numpy()
    half, freedom = len(per) / 2, len(per) - 2
    want = detectable_effect(per.var(ddof=1), half, half, freedom=freedom) / per.mean()
    assert (week.days, week.units) == (7, len(per))
    assert week.relative == pytest.approx(want)
    assert not week.extrapolated
    assert found.days_needed is not None
    assert found.durations[found.days_needed - 1].relative <= 0.3
    assert found.durations[found.days_needed - 2].relative > 0.3


def test_a_plan_goes_on_beyond_the_log() -> None:
    found = plan(traffic(4), effect=0.1)
    assert found.durations[-1].extrapolated
    assert found.days_needed is None or found.days_needed > 4
    slower = plan(traffic(4), effect=0.1, traffic=0.5)
    assert slower.durations[3].units == found.durations[3].units / 2
    ratio = plan(traffic(4), metric=Metric(top="orders", bottom="visits"))
    assert ratio.mean == pytest.approx(0.1, rel=0.2)


def test_logs_that_cannot_be_planned_from_are_refused() -> None:
    table = traffic(2)
    with pytest.raises(SchemaError, match="date or time"):
        plan(table, time="visits")
    with pytest.raises(SchemaError, match="date or time"):
        plan(table.with_columns(ts=pl.lit("yesterday")))
    with pytest.raises(ConfigError, match="share of traffic"):
        plan(table, traffic=0.0)
    with pytest.raises(ConfigError, match="share in"):
        plan(table, share=0.0)
    with pytest.raises(ConfigError, match="effect other than 0"):
        plan(table, effect=float("nan"))
    with pytest.raises(SchemaError, match="got 0 for 'orders'"):
        plan(table.with_columns(orders=0))


def test_command_prints_one_object(tmp_path: Path) -> None:
    traffic(10).write_csv(tmp_path / "log.csv")
    app = typer.Typer()
    app.callback()(lambda: None)
    design.register(app)
    options = "--unit visitor --time ts --metric orders --effect 0.15"
    arguments = ["design", str(tmp_path / "log.csv"), *options.split()]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["days"] == 10
    assert found["units_needed"] > 1_000
    assert "about 7,486 units" in CliRunner().invoke(app, arguments).stdout
