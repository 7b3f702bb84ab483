"""The cost of delay by action, and by what is known beside the state, against exact truth."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from recoup.causal import evaluate_delay, evaluate_delay_by_action, journeys_from_table
from recoup.causal.delay import Delay
from recoup.causal.delay_by_action import ActionDelay
from recoup.causal.delay_scores import Variant
from recoup.causal.journeys import Actions, Journeys, Known
from recoup.causal.known_truth import Paths, reference_problem
from recoup.causal.policy_search import search_policies
from recoup.cli.app import app
from recoup.errors import ConfigError, SchemaError

PROBLEM = reference_problem(closing=True)
PATHS, FOUR_FOLDS = PROBLEM.paths(), PROBLEM.paths(folds=4)
ALL, UNLESS_CALM = np.array([0.6, 0.6, 0.6]), np.array([1.0, 0.6, 0.6])
"""By state, the share of the acts that are the first action; the rest are the second."""
MORE = 25.0
"""What the second action brings beyond the first, whenever it is taken."""


def draw(journeys: int, seed: int, paths: Paths = PATHS, shares: np.ndarray = ALL) -> Journeys:
    """Draw a log of two actions, of which the second brings more."""
    drawn = paths.draw(journeys, seed)
    assert drawn.count is not None
    acted = np.flatnonzero(drawn.act_at < drawn.points)
    first, share = drawn.count.copy(), shares[drawn.state[acted, drawn.act_at[acted]]]
    rng = np.random.default_rng(seed)
    first[acted] = rng.binomial(drawn.count[acted].astype(int), share)
    number = np.concatenate([first, (drawn.count - first)[acted]])
    rows = np.concatenate([np.arange(len(first)), acted])[number > 0]
    second = (np.arange(len(number)) >= len(first))[number > 0]
    taken = np.where(drawn.act_at[rows] < drawn.points, second, -1).astype(np.int64)
    columns = {
        name: getattr(drawn, name)[rows]
        for name in ("state", "features", "is_open", "propensity", "act_at", "fold")
    }
    share = shares[columns["state"]]
    chances = np.stack([share * columns["propensity"], (1 - share) * columns["propensity"]], axis=2)
    return msgspec.structs.replace(
        drawn,
        **columns,
        outcome=drawn.outcome[rows] + MORE * second,
        count=number[number > 0],
        actions=Actions(["offer", "coupon"], taken, chances),
        known=[Known("zone", drawn.states, columns["state"])],
    )


def truths(more: float, possible: np.ndarray = ALL) -> dict[str, float]:
    """Give what delay costs with an action that brings so much more, possible in some states."""
    problem = msgspec.structs.replace(
        PROBLEM,
        convert=PROBLEM.convert + more / PROBLEM.price,
        available=PROBLEM.available * (possible > 0),
    )
    named = {}
    for point in range(problem.shape[0]):
        rule = np.zeros(problem.shape)
        rule[point:] = 1
        named[f"from {point + 1}"] = problem.value(rule)
        named[f"delta {point + 1}"] = float(problem.delta[point])
        for state in np.flatnonzero(possible > 0).tolist():
            named[f"D {point + 1} {state}"] = float(problem.delay_cost[point, state])
            named[f"M {point + 1} {state}"] = float(problem.miss_cost[point, state])
    return named


def flat(found: ActionDelay) -> dict[str, Any]:
    named: dict[str, Any] = {f"delta {each.time}": each for each in found.delta_by_time}
    named |= {f"from {each.time}": each for each in found.value_against_delay}
    named |= {f"D {each.time} {each.state}": each for each in found.delay_cost_by_state}
    named |= {f"M {each.time} {each.state}": each for each in found.miss_cost_by_state}
    return named


@pytest.mark.parametrize("shares", [ALL, UNLESS_CALM], ids=["all", "unless calm"])
@pytest.mark.parametrize("variant", ["adr", "adr2"])
def test_each_action_has_its_own_cost_of_delay(variant: Variant, shares: np.ndarray) -> None:
    logs = [draw(40_000, seed, shares=shares) for seed in range(12)]
    runs = [evaluate_delay_by_action(log, variant=variant) for log in logs]
    for code, more in enumerate((0.0, MORE)):
        want = truths(more, shares if code == 0 else 1 - shares)
        named = [flat(run[code]) for run in runs]
        assert named[0].keys() == want.keys()
        for name, truth in want.items():
            values = np.array([each[name].value for each in named])
            error = max(values.std(ddof=1) / np.sqrt(len(runs)), 1e-12)
            assert abs(values.mean() - truth) < 5 * error, (code, name, values.mean(), truth)


@pytest.mark.slow
@pytest.mark.parametrize("shares", [ALL, UNLESS_CALM], ids=["all", "unless calm"])
@pytest.mark.parametrize("variant", ["adr", "adr2"])
def test_intervals_by_action_cover_the_truth(variant: Variant, shares: np.ndarray) -> None:
    code = int(shares is UNLESS_CALM)  # the one that is not possible in every state
    want, reps = truths((0.0, MORE)[code], (shares, 1 - shares)[code]), 200  # 600 passed too
    inside = dict.fromkeys(want, 0)
    for seed in range(reps):
        log = draw(20_000, seed, shares=shares)
        found = flat(evaluate_delay_by_action(log, variant=variant)[code])
        for name, truth in want.items():
            inside[name] += found[name].low <= truth <= found[name].high
    for name, count in inside.items():
        interval = stats.binomtest(count, reps).proportion_ci(1 - 0.01 / len(want))
        assert interval.low <= 0.95 <= interval.high, (name, count / reps)


def test_another_action_taken_for_none_would_mislead() -> None:
    misled, fair = [], []
    for seed in range(12):
        log = draw(40_000, seed)
        view = log.of_action(0)
        fair.append(evaluate_delay(view).value_against_delay[-1].value)
        blind = msgspec.structs.replace(view, other_at=None, other_propensity=None)
        misled.append(evaluate_delay(blind).value_against_delay[-1].value)
    truth, error = truths(0.0)["from 4"], np.std(misled, ddof=1) / np.sqrt(12)
    assert abs(np.mean(fair) - truth) < 5 * np.std(fair, ddof=1) / np.sqrt(12)
    assert abs(np.mean(misled) - truth) > 10 * error


def numbers(found: Delay, name: str) -> list[list[tuple[float, float]]]:
    sides = (getattr(found, f"{name}_by_state"), getattr(found, f"{name}_by_label")["zone"])
    return [[(each.value, each.se) for each in side] for side in sides]


def test_a_label_that_is_the_state_gives_what_the_state_gives() -> None:
    found = evaluate_delay(draw(5_000, 1))
    for name in ("delay_cost", "miss_cost"):
        by_state, by_label = numbers(found, name)
        assert by_state == by_label
    assert {each.label for each in found.delay_cost_by_label["zone"]} == {0, 1, 2}


def table(size: int = 3_000) -> pl.DataFrame:
    """Two points; a chat or a coupon at most once; the coupon is worth 4 now and 2 later."""
    rng = np.random.default_rng(6)
    reason = rng.choice(["fee", "error"], size)
    rows = []
    for journey in range(size):
        base = rng.normal()
        for point in (0, 1):
            what = rng.choice(["none", "chat", "coupon"], p=[0.5, 0.3, 0.2])
            worth = {"none": 0.0, "chat": 1.0, "coupon": 4.0 - 2.0 * point}[what]
            rows.append((journey, point, what, reason[journey], base + worth))
            if what != "none":
                break
    log = pl.DataFrame(rows, schema=["j", "t", "what", "reason", "y"], orient="row")
    return log.with_columns(
        s=pl.lit(0),
        y=pl.col("y").last().over("j"),
        act=(pl.col("what") != "none").cast(pl.Int64),
        p=pl.lit(0.5),
        p_chat=pl.lit(0.3),
        p_coupon=pl.lit(0.2),
    )


COLUMNS: dict[str, Any] = {
    "journey": "j", "time": "t", "state": ["s"], "act": "act", "propensity": "p", "outcome": "y",
    "action": "what",
}  # fmt: skip
CHANCES = {"chat": "p_chat", "coupon": "p_coupon"}


def test_the_command_tells_by_action_and_by_defect_type(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "log.csv")
    options = "--journey j --time t --state s --act act --propensity p --outcome y --by reason"
    which = "--action what --chance chat=p_chat --chance coupon=p_coupon"
    arguments = ["evaluate", "delay", str(tmp_path / "log.csv"), *options.split()]
    result = CliRunner().invoke(app, [*arguments, *which.split(), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    chat, coupon = told["by_action"]
    assert [chat["action"], coupon["action"]] == ["chat", "coupon"]
    assert chat["delta_by_time"][0]["low"] < 0 < chat["delta_by_time"][0]["high"]
    assert coupon["delta_by_time"][0]["low"] < 2 < coupon["delta_by_time"][0]["high"]
    by_reason = told["delay_cost_by_label"]["reason"]
    assert {(each["time"], each["label"]) for each in by_reason} == {
        (time, label) for time in (0, 1) for label in ("fee", "error")
    }
    assert {"value", "low", "high", "se"} <= by_reason[0].keys()
    assert "coupon at 0" in CliRunner().invoke(app, [*arguments, *which.split()]).stdout
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)["by_action"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"p_chat": pl.lit(0.4)}, "add up to that of an act, 0.5"),
        ({"p_chat": pl.lit(0.5), "p_coupon": pl.lit(0.0)}, "above 0 for the one taken"),
        ({"p_chat": pl.lit(0.6), "p_coupon": pl.lit(-0.1)}, "above 0 for the one taken"),
        ({"p_chat": pl.lit(None, pl.Float64)}, "add up"),
        ({"what": pl.lit("call")}, "one of .'chat', 'coupon'., got 'call'"),
        ({"what": pl.lit(None, pl.String)}, "got None"),
    ],
)
def test_actions_that_do_not_fit_are_told(change: dict[str, pl.Expr], said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        journeys_from_table(
            table(40).with_columns(**change), **COLUMNS, action_propensities=CHANCES
        )


def test_a_log_of_one_kind_of_act_says_so() -> None:
    log = reference_problem().paths().draw(100, seed=1)
    assert evaluate_delay_by_action(log) == []
    with pytest.raises(SchemaError, match="acts of one kind"):
        log.of_action(0)


def test_policy_search_about_one_action_weighs_the_others_out() -> None:
    log = draw(60_000, 5, FOUR_FOLDS)
    best = PROBLEM.value(np.array([[0, 1, 1]] * 4)) - PROBLEM.value(np.zeros(PROBLEM.shape))
    rule = {"stuck or leaving": [[0, 1, 1]] * 4}
    found = search_policies(log.of_action(0), rule).advantage
    assert abs(found.value - best) < 4 * found.se


def test_labels_with_few_acts_are_refused_and_too_many_told() -> None:
    log = draw(2_000, 3)
    assert log.count is not None
    first = np.ones((len(log.outcome), 1), np.int64)
    first[np.flatnonzero((log.count == 1) & log.is_open[:, 0])[:5]] = 0
    rare = Known("rare", ["five", "rest"], np.repeat(first, log.points, axis=1))
    found = evaluate_delay(msgspec.structs.replace(log, known=[rare])).delay_cost_by_label["rare"]
    refused = {(each.time, each.label): each.refused for each in found}
    assert "effective sample size" in str(refused[1, "five"])
    assert refused[1, "rest"] is None
    many = Known("id", list(range(300)), np.repeat(first, log.points, axis=1))
    with pytest.raises(ConfigError, match="at most 200 labels, got 300 in 'id'"):
        evaluate_delay(msgspec.structs.replace(log, known=[many]))
