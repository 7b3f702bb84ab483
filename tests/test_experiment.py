import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from benchmarks import always_valid
from scipy import stats
from typer.testing import CliRunner

from recoup.causal import (
    experiment_decision,
    experiment_metrics,
)
from recoup.causal.arms import ArmMean, compare_arms
from recoup.causal.experiment import ExperimentResult, Rules, evaluate_experiment
from recoup.causal.experiment_decision import decide
from recoup.causal.experiment_metrics import Metric
from recoup.causal.multiple_testing import adjust_p_values
from recoup.causal.sample_ratio import check_sample_ratio
from recoup.cli import evaluate_experiment as command
from recoup.errors import ConfigError, SchemaError


def draw(visitors: int, seed: int, *, effect: float = 0.0) -> pl.DataFrame:
    """Draw visitors with one to five sessions each; revenue follows what they spent before."""
    rng = np.random.default_rng(seed)
    sessions = rng.integers(1, 6, visitors)
    before, treated = rng.gamma(2.0, 1.0, visitors), rng.random(visitors) < 0.3
    taste = before + rng.normal(size=visitors) + 5 + effect * treated
    rows = np.repeat(np.arange(visitors), sessions)
    return pl.DataFrame(
        {
            "visitor": rows,
            "arm": np.where(treated, "new", "old")[rows],
            "revenue": taste[rows] + rng.normal(size=len(rows)),
            "views": rng.poisson(3.0, len(rows)) + 1.0,
            "returned": (rng.random(len(rows)) < 0.2).astype(int),
            "before": before[rows],
            "device": np.where(rng.random(visitors) < 0.5, "phone", "desk")[rows],
            "day": rng.integers(0, 10, len(rows)),
        }
    )


SHARES = {"old": 0.7, "new": 0.3}
REVENUE = Metric(top="revenue")


def read(table: pl.DataFrame, **options: object) -> ExperimentResult:
    given: dict[str, object] = {"metrics": [REVENUE], "shares": SHARES, **options}
    return evaluate_experiment(table, arm="arm", control="old", cluster="visitor", **given)  # type: ignore[arg-type]


def test_errors_are_those_of_visitors_and_a_covariate_makes_them_smaller() -> None:
    plain, adjusted, ratio = [], [], []
    reps, truth = 300, 0.2
    for seed in range(reps):
        table = draw(400, seed, effect=truth)
        plain.append(read(table).effects[0])
        adjusted.append(read(table, covariates=["before"]).effects[0])
        # Revenue a session is also a ratio of sums, and has the same error.
        ratio.append(
            read(
                table.with_columns(one=1.0),
                metrics=[Metric(top="revenue", bottom="one")],
            ).effects[0]
        )
    for found in (plain, adjusted):
        covered = sum(each.low <= truth <= each.high for each in found)
        interval = stats.binomtest(covered, reps).proportion_ci(0.99)
        assert interval.low <= 0.95 <= interval.high, covered
        error = np.std([each.value for each in found], ddof=1)
        assert np.mean([each.se for each in found]) == pytest.approx(error, rel=0.12)
    assert np.mean([each.se for each in adjusted]) < 0.7 * np.mean([each.se for each in plain])
    assert [each.se for each in ratio] == pytest.approx([each.se for each in plain])


def test_rows_of_one_visitor_are_not_taken_for_independent() -> None:
    table = draw(400, 0)
    alone = evaluate_experiment(table, arm="arm", control="old", metrics=[REVENUE], shares=SHARES)
    assert read(table).effects[0].se > 1.3 * alone.effects[0].se


def test_an_adjusted_mean_is_that_of_the_reference_at_the_same_slope() -> None:
    table = draw(200, 1).unique("visitor", maintain_order=True)
    rows = experiment_metrics.read_rows(
        table, arm="arm", control="old", metrics=[REVENUE], covariates=["before"]
    )
    control, treated = rows.compared(REVENUE, 1)
    sides = [table.filter(pl.col("arm") == name) for name in ("old", "new")]
    moments = [
        (np.cov(side["before"], side["revenue"]) / side.height, side.height) for side in sides
    ]
    slope = sum(m[0, 1] for m, _ in moments) / sum(m[0, 0] for m, _ in moments)
    for side, found in zip(sides, (control, treated), strict=True):
        left = side["revenue"].to_numpy() - slope * side["before"].to_numpy()
        assert found.mean == pytest.approx(left.mean() + slope * table["before"].mean())
        assert found.mean_variance == pytest.approx(left.var(ddof=1) / side.height)
        assert found.plain == pytest.approx(side["revenue"].mean())


@pytest.mark.parametrize("test", ["t", "anytime"])
def test_error_under_peeking(test: str) -> None:
    # Reading a fixed test at 20 looks finds something in about a quarter of A/A experiments.
    rng, reps, looks = np.random.default_rng(3), 400, np.arange(200, 4_001, 200)
    wrong = 0
    for _ in range(reps):
        values = rng.exponential(size=(4_000, 2))
        totals, squares = values.cumsum(axis=0)[looks - 1], (values**2).cumsum(axis=0)[looks - 1]
        means = totals / looks[:, None]
        spreads = squares / looks[:, None] - means**2
        wrong += any(
            compare_arms(
                ArmMean(n, mean[0], spread[0], mean[0]),
                ArmMean(n, mean[1], spread[1], mean[1]),
                test=test,
            ).p_value
            <= 0.05
            for n, mean, spread in zip(looks.tolist(), means, spreads, strict=True)
        )
    if test == "t":
        assert wrong > 0.18 * reps
    else:
        assert wrong <= stats.binom.ppf(0.99, reps, 0.05)


def test_corrections_hold_their_error() -> None:
    rng, reps = np.random.default_rng(4), 2_000
    noise = rng.random((reps, 5))
    any_false = np.mean([(adjust_p_values(p) <= 0.05).any() for p in noise])
    assert any_false <= stats.binom.ppf(0.999, reps, 0.05) / reps
    assert np.mean((noise <= 0.05).any(axis=1)) > 0.2
    # Half of the hypotheses false: false ones are at most 5 % of the rejections on average.
    mixed = np.hstack([noise, rng.random((reps, 5)) * 0.005])
    shares = []
    for p in mixed:
        rejected = adjust_p_values(p, "benjamini_hochberg") <= 0.05
        shares.append(rejected[:5].sum() / max(rejected.sum(), 1))
    assert np.mean(shares) <= 0.05
    assert adjust_p_values(np.array([0.2, 0.01]), "none").tolist() == [0.2, 0.01]
    with pytest.raises(ConfigError, match="holm"):
        adjust_p_values(np.array([0.2]), "other")  # type: ignore[arg-type]


def test_a_metric_is_no_covariate_of_itself() -> None:
    table = pl.DataFrame({"arm": ["old", "new"] * 10, "paid": range(20)})
    metrics = [Metric(top="paid")]
    with pytest.raises(ConfigError, match="known before assignment"):
        evaluate_experiment(table, arm="arm", control="old", metrics=metrics, covariates=["paid"])


def test_arms_of_wrong_sizes_refuse_everything() -> None:
    table = draw(4_000, 5, effect=1.0)
    found = read(table, shares={"old": 0.5, "new": 0.5})
    assert found.sample_ratio.mismatch
    assert found.decision.verdict == "stop"
    assert found.refused is not None
    assert "assignment or logging is broken" in found.refused
    assert not read(table).sample_ratio.mismatch


def test_sizes_may_be_checked_at_every_look() -> None:
    rng, wrong, reps = np.random.default_rng(6), 0, 200
    for _ in range(reps):
        seen = np.cumsum(rng.multinomial(500, [0.5, 0.3, 0.2], 30), axis=0)
        shares = {"a": 0.5, "b": 0.3, "c": 0.2}
        looks = (dict(zip("abc", row.tolist(), strict=True)) for row in seen)
        wrong += any(check_sample_ratio(row, shares, anytime=True).p_value <= 0.05 for row in looks)
    assert wrong <= stats.binom.ppf(0.99, reps, 0.05)
    assert check_sample_ratio({"a": 50_000, "b": 48_000}, anytime=True).mismatch
    with pytest.raises(ConfigError, match="share above 0"):
        check_sample_ratio({"a": 1, "b": 1}, {"a": 1.0})


GUARD = Metric(top="returned", less_is_better=True, margin=0.1)


def test_decisions_and_their_reasons() -> None:
    small, large = draw(1_500, 7, effect=0.4), draw(12_000, 7, effect=0.4)
    planned = read(small, rules=Rules(planned=10_000)).decision
    assert (planned.verdict, planned.arm) == ("go on", None)
    assert "read once" in planned.reason
    shipped = read(large, guardrails=[GUARD], rules=Rules(planned=10_000)).decision
    assert (shipped.verdict, shipped.arm) == ("ship", "new")
    assert "every guardrail is safe" in shipped.reason
    unsure = read(small, guardrails=[GUARD], rules=Rules(test="anytime")).decision
    assert unsure.verdict == "go on"
    assert "returned may be harmed" in unsure.reason
    falls = [Metric(top="revenue", less_is_better=True)]
    lost = read(large, metrics=falls).decision
    assert lost.verdict == "stop"
    assert "a loss" in lost.reason
    small_gain = read(large, rules=Rules(worthwhile=0.5)).decision
    assert small_gain.verdict == "stop"
    assert "worthwhile" in small_gain.reason


def test_a_harmed_guardrail_stops_a_gain() -> None:
    table = draw(3_000, 8, effect=1.0).with_columns(
        returned=pl.when(pl.col("arm") == "new").then(1).otherwise(pl.col("returned"))
    )
    found = read(table, guardrails=[GUARD], rules=Rules(test="anytime"))
    assert found.guardrails[0].state == "harmed"
    assert found.decision.verdict == "stop"
    assert "returned harmed" in found.decision.reason


def test_nothing_found_goes_on_until_it_ends() -> None:
    table = draw(1_500, 9)
    assert read(table, rules=Rules(test="anytime")).decision.verdict == "go on"
    assert read(table, rules=Rules(test="anytime", planned=1_500)).decision.verdict == "stop"


def test_the_better_of_two_arms_is_shipped() -> None:
    table = draw(9_000, 10, effect=0.5).with_columns(
        arm=pl.when((pl.col("visitor") % 2 == 0) & (pl.col("arm") == "old"))
        .then(pl.lit("best"))
        .otherwise("arm"),
    )
    table = table.with_columns(
        revenue=pl.col("revenue") + pl.when(pl.col("arm") == "best").then(2.0).otherwise(0.0)
    )
    found = read(table, shares={"old": 0.35, "best": 0.35, "new": 0.3})
    assert found.decision.arm == "best"
    assert [each.arm for each in found.effects] == ["best", "new"]
    assert found.effects[1].adjusted_p_value >= found.effects[1].p_value
    assert found.effects[0].adjusted_low < found.effects[0].low
    ratio = decide(
        found.sample_ratio,
        found.effects[1:],
        [],
        experiment_decision.Horizon(
            units=9_000, planned=None, anytime=False, alpha=0.05, worthwhile=0.0
        ),
    )
    assert ratio.arm == "new"


def test_segments_that_differ_are_told() -> None:
    table = draw(3_000, 11, effect=0.5)
    same = read(table, segment="device")
    assert same.heterogeneity[0].p_value > 0.01
    phones = (pl.col("arm") == "new") & (pl.col("device") == "phone")
    other = table.with_columns(revenue=pl.col("revenue") + pl.when(phones).then(1.0).otherwise(0.0))
    differ = read(other, segment="device")
    assert differ.heterogeneity[0].p_value < 0.001
    assert [each.segment for each in differ.segments] == ["desk", "phone"]
    assert differ.segments[1].low > differ.segments[0].high
    looked = read(other, segment="device", rules=Rules(test="anytime"))
    assert any("one look" in each for each in looked.warnings)
    assert not any("one look" in each for each in differ.warnings)
    with pytest.raises(ConfigError, match="at most 50 segments"):
        read(table, segment="visitor")


def test_the_sequence_ends_at_the_effect() -> None:
    found = read(draw(2_000, 12, effect=0.3), time="day", rules=Rules(test="anytime"))
    assert [look.time for look in found.sequence] == list(range(10))
    last, effect = found.sequence[-1], found.effects[0]
    assert (last.low, last.high, last.p_value) == (effect.low, effect.high, effect.p_value)
    assert found.sequence[0].high - found.sequence[0].low > last.high - last.low


def test_misuse_is_refused() -> None:
    table = draw(100, 13)
    with pytest.raises(SchemaError, match="name the control as the column has it"):
        evaluate_experiment(table, arm="arm", control="none", metrics=[REVENUE])
    moved = table.with_columns(
        arm=pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("other")).otherwise("arm")
    ).sort("visitor", maintain_order=True)
    with pytest.raises(SchemaError, match="Expected one arm for each 'visitor'"):
        read(moved.with_columns(visitor=0))
    with pytest.raises(ConfigError, match="at least one metric"):
        read(table, metrics=[])
    with pytest.raises(ConfigError, match="each metric once"):
        read(table, metrics=[REVENUE, REVENUE])
    with pytest.raises(ConfigError, match="margin with every guardrail"):
        read(table, guardrails=[REVENUE])
    with pytest.raises(SchemaError, match="got none - at arm"):
        read(table.with_columns(arm=pl.lit(None, pl.String)))
    with pytest.raises(ConfigError, match="relative margin"):
        Metric.parse("returned=2", guardrail=True)
    with pytest.raises(ConfigError, match="relative margin"):
        Metric.parse("returned=x", guardrail=True)
    around = table.with_columns(revenue=pl.col("revenue") - pl.col("revenue").mean())
    assert read(around).effects[0].relative_effect is None
    told = read(around, guardrails=[Metric(top="revenue", margin=0.1)])
    assert {each.state for each in told.guardrails} == {"undecided"}
    assert any("revenue guards nothing yet" in each for each in told.warnings)
    zero = table.with_columns(nothing=0.0)
    with pytest.raises(SchemaError, match="other than 0 in every arm"):
        read(zero, metrics=[Metric(top="revenue", bottom="nothing")])


def test_few_clusters_are_told() -> None:
    assert "under 40" in read(draw(20, 14)).warnings[0]


def test_command_prints_one_object(tmp_path: Path) -> None:
    draw(3_000, 15, effect=0.5).write_parquet(tmp_path / "trial.parquet")
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    options = (
        "--arm arm --control old --metric revenue --metric revenue/views --cluster visitor "
        "--covariate before --guardrail returned=0.2 --less-is-better returned --segment device "
        "--share old=0.7 --share new=0.3 --time day --sequential"
    )
    arguments = ["experiment", str(tmp_path / "trial.parquet"), *options.split()]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["decision"]["verdict"] == "ship"
    assert found["effects"][0]["low"] < 0.5 < found["effects"][0]["high"]
    assert found["guardrails"][0]["state"] == "safe"
    assert len(found["sequence"]) == 10
    assert "Ship." in CliRunner().invoke(app, arguments).stdout
    for wrong, said in (("--share new", "ARM=SHARE"), ("--less-is-better x", "name a metric")):
        failed = CliRunner().invoke(app, [*arguments, *wrong.split()])
        assert said in str(failed.exception)


@pytest.mark.slow
def test_sequences_stop_real_experiments_early(data_dir: Path) -> None:
    found = always_valid.asos(data_dir)
    assert found["arms"] == 99
    assert found["both"] > 0.4 * found["fixed"]
    assert found["share_of_units_at_stop"][1] < 0.5


@pytest.mark.slow
def test_error_on_splits_of_those_who_got_nothing(data_dir: Path) -> None:
    error = always_valid.hillstrom(data_dir, "visit", splits=300)["error"]
    assert error["anytime"] <= stats.binom.ppf(0.999, 300, 0.05) / 300
    assert error["fixed, read at every look"] > 0.15


def test_segments_and_looks_too_thin_for_a_spread_are_left_out_and_told() -> None:
    rng = np.random.default_rng(8)
    rows = 400
    table = pl.DataFrame(
        {
            "arm": np.where(rng.random(rows) < 0.5, "old", "new"),
            "spent": rng.random(rows),
            "visits": np.where(np.arange(rows) < 20, 0, 1),  # none in the first looks
            "before": rng.random(rows),
            "device": ["tablet", *(["phone", "desk"] * (rows // 2))][:rows],
            "hour": np.arange(rows) // 4,
        }
    )
    found = evaluate_experiment(
        table,
        arm="arm",
        control="old",
        metrics=[Metric(top="spent", bottom="visits")],
        covariates=["before"],
        segment="device",
        time="hour",
    )
    assert [each.segment for each in found.segments] == ["desk", "phone"]
    assert found.warnings[-1] == (
        "1 effects in a segment are left out: an arm has under two units there"
    )
    assert found.sequence[0].time == 5
    with pytest.raises(SchemaError, match="two units in either arm"):
        evaluate_experiment(
            table.unique("arm"), arm="arm", control="old", metrics=[Metric(top="spent")],
            covariates=["before"],
        )  # fmt: skip
