import json
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from recoup.causal.choices import Choices, choice_policy, choices_from_table
from recoup.causal.nuisance import TreeMeans
from recoup.causal.policy_value import evaluate_policy
from recoup.causal.repeated_acts import fatigue_problem
from recoup.cli import evaluate_policy as command
from recoup.errors import ConfigError, SchemaError

PROBLEM = fatigue_problem()
RULE = np.zeros((3, 3, 3))
RULE[:, 0, 0] = RULE[:, 1, 1] = RULE[:, 2, 2] = 1
MIXED = 0.5 * RULE + 0.5 * PROBLEM.propensity


def test_the_best_policy_is_the_best_of_all_rules() -> None:
    # Over one point all 27 rules can be listed; over three the best is no worse than any of many.
    best = PROBLEM.value(PROBLEM.best_policy())
    rng = np.random.default_rng(0)
    for _ in range(300):
        rule = np.eye(3)[rng.integers(0, 3, (3, 3))]
        assert PROBLEM.value(rule) <= best + 1e-12
    last = PROBLEM.best_policy()
    values = []
    for acts in product(range(3), repeat=3):
        last[2] = np.eye(3)[list(acts)]
        values.append(PROBLEM.value(last))
    assert max(values) == pytest.approx(best, rel=1e-12)


def test_the_truth_is_what_a_drawn_log_earns() -> None:
    outcome = PROBLEM.draw(200_000, 1).outcome
    error = outcome.std() / len(outcome) ** 0.5
    assert abs(outcome.mean() - PROBLEM.value(PROBLEM.propensity)) < 3.5 * error


def table_of(log: Choices) -> pl.DataFrame:
    """Write a drawn log as a table, actions as words."""
    rows, points = np.nonzero(log.state >= 0)
    words = np.array(["none", "remind", "discount"])
    return pl.DataFrame(
        {
            "j": rows,
            "t": points + 1,
            "s": log.state[rows, points],
            "do": words[log.action[rows, points]],
            "p": log.propensity[rows, points],
            "open": log.is_open[rows, points].astype(int),
            "y": log.outcome[rows],
        }
    )


COLUMNS = {"journey": "j", "time": "t", "action": "do", "propensity": "p", "outcome": "y"}


def read(table: pl.DataFrame) -> Choices:
    return choices_from_table(table, **COLUMNS, state=["s"], availability="open")  # type: ignore[arg-type]


def test_a_table_is_read_as_it_was_drawn() -> None:
    log = PROBLEM.draw(2_000, 2)
    read_back = read(table_of(log))
    assert read_back.actions == ["discount", "none", "remind"]
    order = [1, 2, 0]  # where the drawn codes went
    want = evaluate_policy(log, RULE)
    found = evaluate_policy(read_back, RULE[:, :, np.argsort(order)])
    assert found.value.value == pytest.approx(want.value.value, rel=1e-12)
    assert found.regret.se == pytest.approx(want.regret.se, rel=1e-12)


def test_parts_of_the_regret_add_up() -> None:
    found = evaluate_policy(PROBLEM.draw(3_000, 3), RULE)
    total = sum(each.value for each in found.regret_by_time)
    assert total == pytest.approx(found.regret.value)
    assert found.value.value - found.logged.value == pytest.approx(found.regret.value)
    assert found.regret.se < found.value.se + found.logged.se


def test_the_logs_own_policy_has_no_regret() -> None:
    found = evaluate_policy(PROBLEM.draw(5_000, 4), PROBLEM.propensity)
    assert found.regret.low < 0 < found.regret.high
    assert found.effective_sample_size == pytest.approx(5_000)
    assert found.largest_weight == pytest.approx(1.0)


def test_a_poor_model_costs_precision_alone() -> None:
    class Wrong:
        def fit(self, *_: object, sample_weight: object = None) -> None:
            """Learn nothing."""

        def predict(self, features: np.ndarray) -> np.ndarray:
            return np.full(len(features), 50.0)

    log = PROBLEM.draw(20_000, 5)
    truth = PROBLEM.value(RULE)
    wrong = evaluate_policy(log, RULE, regressor=Wrong)
    trees = evaluate_policy(log, RULE, regressor=lambda: TreeMeans(trees=20, rate=0.2))
    for found in (wrong, trees):
        assert found.value.low < truth < found.value.high
    assert trees.value.se < 0.8 * wrong.value.se


def covered(policy: np.ndarray, reps: int, journeys: int) -> tuple[list[int], list[float]]:
    """Count intervals that hold value and regret, and give the biases in Monte-Carlo errors."""
    truths = (PROBLEM.value(policy), PROBLEM.value(policy) - PROBLEM.value(PROBLEM.propensity))
    errors, held = np.zeros((reps, 2)), np.zeros((reps, 2), bool)
    for seed in range(reps):
        found = evaluate_policy(PROBLEM.draw(journeys, seed), policy)
        for at, (each, truth) in enumerate(zip((found.value, found.regret), truths, strict=True)):
            errors[seed, at] = each.value - truth
            held[seed, at] = each.low <= truth <= each.high
    bias = errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / reps**0.5)
    return held.sum(axis=0).tolist(), bias.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy", [RULE, MIXED, PROBLEM.best_policy()], ids=["rule", "mix", "best"]
)
def test_intervals_cover(policy: np.ndarray) -> None:
    reps = 400
    counts, bias = covered(policy, reps, 2_000)
    for count in counts:
        interval = stats.binomtest(count, reps).proportion_ci(1 - 0.01 / 6)
        assert interval.low <= 0.95 <= interval.high, counts
    assert max(map(abs, bias)) < 3.2, bias


def test_policies_are_made_from_tables() -> None:
    log = read(table_of(PROBLEM.draw(500, 6)))
    rows = pl.DataFrame({"t": [1, 1, 2], "s": [1, 1, 1], "do": ["remind", "none", "discount"]})
    rows = rows.with_columns(share=pl.Series([0.25, 0.75, 1.0]))
    columns = {"time": "t", "action": "do", "probability": "share"}
    made = choice_policy(log, rows, **columns, state=["s"], default="none")
    assert made[0, 1].tolist() == [0.0, 0.75, 0.25]
    assert made[1, 1].tolist() == [1.0, 0.0, 0.0]
    assert made[2, 0].tolist() == [0.0, 1.0, 0.0]
    words = rows.with_columns(pl.col("share").cast(pl.String))
    with pytest.raises(SchemaError, match="Expected numbers in column"):
        choice_policy(log, words, **columns, state=["s"], default="none")
    with pytest.raises(ConfigError, match="add up to 1, got 0"):
        choice_policy(log, rows, **columns, state=["s"])
    with pytest.raises(ConfigError, match="time, state and action of the log"):
        choice_policy(log, rows.with_columns(s=9), **columns, state=["s"])
    with pytest.raises(ConfigError, match="default among"):
        choice_policy(log, rows, **columns, state=["s"], default="shout")


def test_logs_that_cannot_answer_say_so() -> None:
    log = PROBLEM.draw(60, 7)
    found = evaluate_policy(log, PROBLEM.best_policy())
    assert found.refused is not None
    with pytest.raises(ConfigError, match="policy of shape"):
        evaluate_policy(log, RULE[:2])
    table = table_of(PROBLEM.draw(1_000, 8))
    never = table.filter((pl.col("do") != "remind") | (pl.col("s") != 1))
    rule = RULE[:, :, [2, 0, 1]]
    told = evaluate_policy(read(never), rule)
    assert told.unsupported_mass > 0.2
    assert "never logged" in str(told.refused)
    with pytest.raises(SchemaError, match="one row a journey and time"):
        read(pl.concat([table, table]))
    with pytest.raises(SchemaError, match=r"p\["):
        read(table.with_columns(p=0.0))


def test_command_prints_one_object(tmp_path: Path) -> None:
    table_of(PROBLEM.draw(5_000, 9)).write_parquet(tmp_path / "log.parquet")
    rule = pl.DataFrame({"t": [1, 2, 3] * 2, "s": [1, 1, 1, 2, 2, 2]})
    rule.with_columns(
        do=pl.when(s=1).then(pl.lit("remind")).otherwise(pl.lit("discount"))
    ).write_csv(tmp_path / "policy.csv")
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    options = (
        "--journey j --time t --state s --action do --propensity p --outcome y --availability open "
        f"--policy {tmp_path / 'policy.csv'} --default none"
    )
    arguments = ["policy", str(tmp_path / "log.parquet"), *options.split()]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["value"]["low"] < PROBLEM.value(RULE) < found["value"]["high"]
    assert found["refused"] is None
    assert "regret of the log" in CliRunner().invoke(app, arguments).stdout
