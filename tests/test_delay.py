import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import typer
from benchmarks import delay_coverage, waiting_coverage
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recoup.causal import delay_scores
from recoup.causal.delay import evaluate_delay, policy_from_rows, policy_matrix
from recoup.causal.delay_scores import policy_scores, starting_scores, waiting_scores
from recoup.causal.journeys import Journeys, journeys_from_table
from recoup.causal.known_truth import WaitingProblem, reference_problem
from recoup.causal.nuisance import Nuisance, TreeMeans, cross_fit
from recoup.cli import evaluate_causal
from recoup.errors import ConfigError, SchemaError, SourceError

COLUMNS: dict[str, Any] = {
    "journey": "session",
    "time": "t",
    "act": "act",
    "propensity": "propensity",
    "outcome": "y_terminal",
}
OPTIMAL, FROM_THIRD = waiting_coverage.UNLESS_CALM, waiting_coverage.FROM_THIRD
CLOSING = reference_problem(closing=True).paths()


@pytest.fixture(scope="module")
def expected(reference_dir: Path) -> dict[str, Any]:
    text = (reference_dir / "when_to_treat" / "expected.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def log(reference_dir: Path) -> Journeys:
    table = pl.read_csv(reference_dir / "when_to_treat" / "log.csv")
    return journeys_from_table(table, state=["state"], **COLUMNS)


def oracle(log: Journeys, problem: WaitingProblem, policy: np.ndarray) -> Nuisance:
    def spread(table: np.ndarray) -> np.ndarray:
        return np.where(log.is_open, table[np.arange(log.points), log.state], 0.0)

    tables = (
        problem.act_value,
        problem.waiting_value(np.ones(problem.shape)),
        problem.waiting_value(np.zeros(problem.shape)),
        problem.waiting_value(policy.astype(float)),
        np.full(problem.shape, 0.5),
    )
    return Nuisance(*map(spread, tables))


def test_truth_equals_the_reference(expected: dict[str, Any]) -> None:
    problem, truth = reference_problem(), expected["truth"]
    named = {
        "marginal_cost_of_waiting_one_point_given_state": problem.delay_cost,
        "cost_of_miss_given_state_Q1_minus_V0": problem.miss_cost,
        "marginal_cost_of_waiting_delta_t": problem.delta,
        "V_logging": problem.value(problem.propensity),
        "regret_of_logging_vs_opt": sum(problem.regret(OPTIMAL).values()),
    }
    for name, found in named.items():
        assert found == pytest.approx(np.array(truth[name]), abs=1e-9), name
    for name, policy in expected["model"]["policies"].items():
        assert problem.value(np.array(policy)) == pytest.approx(truth["V"][name], abs=1e-9)


def standard_error(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1) / np.sqrt(len(scores)))


@pytest.mark.parametrize("kind", ["oracle_nuisance", "crossfit_tabular"])
@pytest.mark.parametrize("variant", ["adr", "adr2"])
def test_scores_equal_the_reference(
    expected: dict[str, Any], log: Journeys, kind: str, variant: delay_scores.Variant
) -> None:
    want = expected[f"estimates_{kind}"]
    suffix = "_adv" if kind == "oracle_nuisance" else ""
    for name, table in expected["model"]["policies"].items():
        policy = policy_matrix(log, table)
        fitted = cross_fit(log, policy)
        if kind == "oracle_nuisance":
            fitted = oracle(log, reference_problem(), np.array(table))
        psi = waiting_scores(log, fitted, variant)
        gained = starting_scores(log, psi, policy)
        assert gained.mean() == pytest.approx(want[name][variant + suffix], abs=1e-9)
        se = want[name][f"{variant}{suffix}_se"]
        assert standard_error(gained) == pytest.approx(se, abs=1e-9)
        assert psi.mean(axis=0) == pytest.approx(want["_delta_t"][variant], abs=1e-9)


def test_policy_value_and_regret_equal_the_reference(
    expected: dict[str, Any], log: Journeys
) -> None:
    want = expected["estimates_oracle_nuisance"]
    for name, table in expected["model"]["policies"].items():
        policy = policy_matrix(log, table)
        fitted = oracle(log, reference_problem(), np.array(table))
        scores = policy_scores(log, fitted, policy)
        assert scores.value.mean() == pytest.approx(want[name]["aipw"], abs=1e-9)
        assert standard_error(scores.value) == pytest.approx(want[name]["aipw_se"], abs=1e-9)
        assert (scores.weight * log.outcome).mean() == pytest.approx(want[name]["ipw"], abs=1e-9)
        regret = scores.value - log.outcome
        assert regret.mean() == pytest.approx(want[name]["regret_of_logging_vs_this"], abs=1e-9)
        assert standard_error(regret) == pytest.approx(want[name]["regret_se"], abs=1e-9)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**30), rule=st.lists(st.booleans(), min_size=12, max_size=12))
def test_regret_parts_add_up_in_every_journey(seed: int, rule: list[bool]) -> None:
    drawn = CLOSING.draw(60, seed)
    policy = policy_matrix(drawn, np.reshape(rule, (4, 3)))
    scores = policy_scores(drawn, cross_fit(drawn, policy), policy)
    parts = scores.early + scores.late + scores.missed + scores.unnecessary
    assert parts == pytest.approx(scores.value - drawn.outcome, abs=1e-8)


def to_table(drawn: Journeys) -> pl.DataFrame:
    """Write out a drawn log, one row a journey and point, each path as often as its count."""
    assert drawn.count is not None
    rows: list[pl.DataFrame] = []
    for path in np.repeat(np.arange(len(drawn.count)), drawn.count.astype(int)):
        journey = len(rows)
        reached = drawn.state[path] >= 0
        rows.append(
            pl.DataFrame(
                {
                    "session": journey,
                    "t": np.flatnonzero(reached) + 1,
                    "state": drawn.state[path][reached],
                    "act": (np.flatnonzero(reached) == drawn.act_at[path]).astype(int),
                    "propensity": drawn.propensity[path][reached],
                    "open": drawn.is_open[path][reached].astype(int),
                    "y_terminal": drawn.outcome[path],
                    "part": drawn.fold[path],
                }
            )
        )
    return pl.concat(rows)


def test_table_with_closed_points_gives_what_counts_give() -> None:
    drawn = reference_problem(closing=True).paths().draw(400, seed=4)
    table = to_table(drawn).sample(fraction=1.0, shuffle=True, seed=1)
    read = journeys_from_table(table, state=["state"], availability="open", fold="part", **COLUMNS)
    ours, theirs = evaluate_delay(read, OPTIMAL), evaluate_delay(drawn, OPTIMAL)
    for one, other in zip(ours.delta_by_time, theirs.delta_by_time, strict=True):
        assert (one.value, one.se) == pytest.approx((other.value, other.se))
    assert ours.regret.late.se == pytest.approx(theirs.regret.late.se)
    assert ours.diagnostics[1].open == theirs.diagnostics[1].open < 300


@pytest.mark.slow
@pytest.mark.parametrize("name", waiting_coverage.STUDIES)
def test_intervals_cover_the_truth(name: str) -> None:
    study = waiting_coverage.STUDIES[name]
    found, band = study.run(2_000 if study.stated else 1_000)
    verdicts = list(
        waiting_coverage.judge(found, waiting_coverage.truths(study.problem, study.policy))
    )
    assert len(verdicts) >= 39
    for each in verdicts:
        # Small worths that 5,000 journeys cannot show count as none: a bias, told by a share.
        shown = study.stated or each.figure not in ("early", "unnecessary")
        assert each.covers, each
        assert abs(each.bias) <= 3 or not shown, each
    assert abs(band - 0.95) < 0.02


def test_a_few_logs_come_near_the_truth_where_points_close() -> None:
    # Fast companion of the long coverage test: the mean of 40 logs, within 4 standard errors.
    problem = reference_problem(closing=True)
    study = waiting_coverage.Study(policy=OPTIMAL, journeys=20_000, closing=True)
    found, _ = study.run(40)
    for each in waiting_coverage.judge(found, waiting_coverage.truths(problem, OPTIMAL)):
        assert abs(each.bias) < 4, each


def test_the_next_point_of_the_clock_is_the_wrong_one() -> None:
    # A closed point taken for an open one (with propensity 0) gives the biased usual form.
    problem = reference_problem(closing=True)
    usual, ours, paths = [], [], problem.paths()
    for seed in range(40):
        drawn = paths.draw(200_000, seed)
        fitted = cross_fit(drawn, drawn.is_open)
        assert drawn.count is not None
        share = drawn.count / drawn.count.sum()
        ours.append(share @ waiting_scores(drawn, fitted)[:, 0])
        usual.append(share @ usual_form(drawn, fitted))
    error = np.std(usual, ddof=1) / np.sqrt(40)
    assert abs(np.mean(ours) - problem.delta[0]) < 4 * error
    assert abs(np.mean(usual) - problem.delta[0]) > 10 * error


def usual_form(drawn: Journeys, fitted: Nuisance) -> np.ndarray:
    """Psi at the first point with u = t + 1, whether that point is open or not."""
    first, chance = drawn.is_open[:, 0], np.where(drawn.is_open[:, 0], drawn.propensity[:, 0], 0.5)
    acted, gone = drawn.act_at == 0, drawn.state[:, 1] < 0
    following = np.where(drawn.is_open[:, 1], drawn.propensity[:, 1], 1.0)
    weight = np.where(gone, 1.0, (drawn.act_at == 1) / following) / (1 - chance)
    act, wait, outcome = fitted.act[:, 0], fitted.wait[:, 0], drawn.outcome
    score = act - wait + acted / chance * (outcome - act) - ~acted * weight * (outcome - wait)
    return np.where(first, score, 0.0)


def test_undecided_acts_are_told() -> None:
    paths = reference_problem().paths()
    small = evaluate_delay(paths.draw(2_000, 0), FROM_THIRD)
    large = evaluate_delay(paths.draw(2_000_000, 0), FROM_THIRD)
    assert small.undecided_share > 0.05
    assert large.undecided_share == 0.0


def test_an_act_is_early_only_where_the_log_shows_its_worth() -> None:
    # By the sign of a noisy M, calm shoppers' needless acts were called early in half of the logs.
    problem, paths = reference_problem(), reference_problem().paths()
    found = [evaluate_delay(paths.draw(5_000, seed), OPTIMAL).regret for seed in range(100)]
    assert sum(each.early.value == 0 for each in found) >= 99
    want = problem.regret(OPTIMAL)["unnecessary"]
    assert sum(each.unnecessary.low <= want <= each.unnecessary.high for each in found) >= 88


def test_trees_find_the_same_as_cells(log: Journeys) -> None:
    trees = evaluate_delay(log, OPTIMAL, regressor=TreeMeans)
    cells = evaluate_delay(log, OPTIMAL)
    gap = abs(trees.advantage.value - cells.advantage.value)
    assert 0 < gap < 0.3 * cells.advantage.se


def test_clusters_widen_what_copies_narrow(reference_dir: Path) -> None:
    table = pl.read_csv(reference_dir / "when_to_treat" / "log.csv").head(3_000)
    copy = table.with_columns(session=pl.col("session") + 100_000)
    both = pl.concat([table, copy]).with_columns(visitor=pl.col("session") % 100_000)
    naive = evaluate_delay(journeys_from_table(both, state=["state"], **COLUMNS), OPTIMAL)
    fair = journeys_from_table(both, state=["state"], cluster="visitor", **COLUMNS)
    once = evaluate_delay(journeys_from_table(table, state=["state"], **COLUMNS), OPTIMAL)
    found = evaluate_delay(fair, OPTIMAL)
    assert found.advantage.value == pytest.approx(once.advantage.value)
    assert found.advantage.se == pytest.approx(once.advantage.se, rel=1e-3)
    assert naive.advantage.se < 0.75 * once.advantage.se


def test_segments_average_to_the_whole(reference_dir: Path) -> None:
    table = pl.read_csv(reference_dir / "when_to_treat" / "log.csv")
    table = table.with_columns(device=pl.when(pl.col("session") % 3 == 0).then(0).otherwise(1))
    cut = journeys_from_table(table, state=["state"], segment="device", **COLUMNS)
    found = evaluate_delay(cut)
    share = float((cut.segment == 0).mean()) if cut.segment is not None else 0.0
    first = [each.value for each in found.delta_by_segment if each.time == 1]
    whole = share * first[0] + (1 - share) * first[1]
    assert whole == pytest.approx(found.delta_by_time[0].value)


def test_sparse_points_are_refused() -> None:
    found = evaluate_delay(reference_problem().paths().draw(60, 0))
    assert all(point.refused is not None for point in found.diagnostics[1:])
    told = [point.refused for point in found.diagnostics]
    assert [each.refused for each in found.delta_by_time] == told
    assert [each.refused for each in found.value_against_delay] == told
    idle = reference_problem(closing=True).paths().draw(2_000, 0)
    idle = msgspec.structs.replace(
        idle, act_at=np.full_like(idle.act_at, idle.points)
    )  # it never acted
    assert "of acts that the policy would take" in str(evaluate_delay(idle).refused)
    assert evaluate_delay(idle, np.zeros((4, 3))).refused is None
    rich = evaluate_delay(reference_problem().paths().draw(20_000, 0))
    assert rich.refused is None
    sizes = [point.effective_sample_size for point in rich.diagnostics]
    assert all(before > after for before, after in pairwise(sizes))


GOOD = {"session": [1, 1, 2], "t": [1, 2, 1], "state": [0, 1, 0], "act": [0, 1, 0]}
GOOD_REALS = {"propensity": [0.5, 0.5, 0.5], "y_terminal": [1.0, 1.0, 0.0], "open": [1, 1, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act": [1, 1, 0]}, "at most one act"),
        ({"t": [1, 1, 1]}, "one row a journey and time"),
        ({"propensity": [0.0, 0.5, 0.5]}, "propensity in"),
        ({"y_terminal": [1.0, 2.0, 0.0]}, "one value of 'y_terminal'"),
        ({"open": [1, 0, 1]}, "no act at a closed point"),
        ({"act": [0, 2, 0]}, r"act\[1\]"),
        ({"act": [0.0, 0.5, 0.0]}, r"Expected 0 or 1, got 0.5 - at act\[1\]"),
        ({"open": [1.0, 0.9, 1.0]}, r"open\[1\]"),
    ],
)
def test_bad_tables_are_told_with_their_place(change: dict[str, Any], message: str) -> None:
    table = pl.DataFrame(GOOD | GOOD_REALS | change)
    with pytest.raises(SchemaError, match=message):
        journeys_from_table(table, state=["state"], availability="open", **COLUMNS)


def test_policies_must_fit_the_log(log: Journeys) -> None:
    with pytest.raises(ConfigError, match="4 times x 3 states"):
        evaluate_delay(log, [[0, 1]])
    with pytest.raises(ConfigError, match="got 4 rows of 2 or 3"):
        evaluate_delay(log, [[0, 1, 1], [0, 1], [0, 1, 1], [0, 1, 1]])
    with pytest.raises(ConfigError, match="0 and 1, got others"):
        evaluate_delay(log, [[0, 0.5, 1]] * 4)
    with pytest.raises(ConfigError, match="a time and a state"):
        policy_from_rows(log, {(9, 0): 1})
    table = policy_from_rows(log, {(t, s): 1 for t in (3, 4) for s in (0, 1, 2)})
    assert (table == FROM_THIRD).all()


@pytest.mark.parametrize(
    ("acts", "message"),
    [(["yes", "no"], "Expected numbers in column 'act'"), ([1, 0], "one row a time and state")],
)
def test_policy_tables_must_be_plain(acts: list[object], message: str, tmp_path: Path) -> None:
    log = journeys_from_table(pl.DataFrame(GOOD | GOOD_REALS), state=["state"], **COLUMNS)
    pl.DataFrame({"t": [1, 1], "state": [0, 0], "act": acts}).write_csv(tmp_path / "policy.csv")
    with pytest.raises((ConfigError, SchemaError), match=message):
        evaluate_causal.read_policy(tmp_path / "policy.csv", log, "t", ["state"], "act")


def command() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    evaluate_causal.register(app)
    return app


def test_command_reproduces_the_reference(
    reference_dir: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    rows = [(t, s, int(OPTIMAL[t - 1, s])) for t in (1, 2, 3, 4) for s in (0, 1, 2)]
    pl.DataFrame(rows, schema=["t", "state", "act"], orient="row").write_csv(tmp_path / "pi.csv")
    (tmp_path / "pi.json").write_text(json.dumps(OPTIMAL.astype(int).tolist()))
    table = str(reference_dir / "when_to_treat" / "log.csv")
    options = "--journey session --time t --state state --act act --propensity propensity"
    arguments = ["delay", table, *options.split(), "--outcome", "y_terminal"]
    found = []
    for policy in ("pi.csv", "pi.json"):
        chosen = [*arguments, "--policy", str(tmp_path / policy)]
        result = CliRunner().invoke(command(), [*chosen, "--json"])
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout))
    assert found[0] == found[1]
    want = expected["estimates_crossfit_tabular"]
    assert found[0]["advantage"]["value"] == pytest.approx(want["opt"]["adr"], abs=1e-9)
    deltas = [each["value"] for each in found[0]["delta_by_time"]]
    assert deltas == pytest.approx(want["_delta_t"]["adr"], abs=1e-9)
    regret = found[0]["regret"]
    parts = sum(regret[part]["value"] for part in ("early", "late", "missed", "unnecessary"))
    assert parts == pytest.approx(regret["value"])
    for_people = CliRunner().invoke(command(), arguments)
    assert "cost of waiting at 4" in for_people.stdout


def test_command_tells_a_bad_policy_file(reference_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "pi.json").write_text("{}")
    table = str(reference_dir / "when_to_treat" / "log.csv")
    options = "--journey session --time t --state state --act act --propensity propensity"
    arguments = ["delay", table, *options.split(), "--outcome", "y_terminal"]
    result = CliRunner().invoke(command(), [*arguments, "--policy", str(tmp_path / "pi.json")])
    assert isinstance(result.exception, SourceError)


@pytest.mark.slow
def test_in_the_simulated_shop_intervals_hold_the_truth_and_realised_times_do_not() -> None:
    truth = delay_coverage.law(visitors=150_000)
    runs = [delay_coverage.run(seed, truth, visitors=15_000) for seed in range(30)]
    lines = {line["figure"]: line for line in delay_coverage.judge(runs)}
    for name, line in lines.items():
        assert line["passes"] or name.startswith("naive"), line
    for part in ("late", "missed"):
        assert lines[f"naive {part}"]["bias_in_errors"] > 10
        assert lines[f"naive {part}"]["coverage"] < 0.5
