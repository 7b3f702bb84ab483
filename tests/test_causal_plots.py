import datetime as dt
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from benchmarks.adaptive_coverage import thompson
from matplotlib.figure import Figure
from typer.testing import CliRunner

from recoup.causal import (
    Estimate,
    Experiment,
    ExperimentResult,
    Metric,
    Rules,
    adaptive_values,
    curve,
    evaluate_delay,
    evaluate_delay_by_action,
    evaluate_experiment,
    evaluate_off_policy,
    evaluate_policy,
    evaluate_switchback,
    journeys_from_table,
    judge_targeting,
    learn_uplift,
    plan_experiment,
    wcls,
)
from recoup.causal.delay import Delay
from recoup.causal.experiment import Look
from recoup.causal.incidents import IncidentCost
from recoup.causal.journeys import Journeys
from recoup.causal.known_truth import reference_problem
from recoup.causal.policy_search import search_policies
from recoup.causal.repeated_acts import fatigue_problem
from recoup.cli import app
from recoup.errors import ConfigError
from recoup.report.causal_plots import DelayFigure, Plotted, UpliftFigure, draw, plot

RNG = np.random.default_rng(0)


def off_policy(rows: int = 4_000) -> Plotted:
    acted = RNG.random(rows) < 0.2
    log = pl.DataFrame({"p": np.where(acted, 0.2, 0.8), "pi": np.where(acted, 0.9, 0.1)})
    log = log.with_columns(y=(RNG.random(rows) < 0.1).astype(int))
    return evaluate_off_policy(log, reward="y", propensity="p", target="pi")


def trial(*, time: str | None) -> pl.DataFrame:
    arm = RNG.integers(0, 2, 4_000)
    made = pl.DataFrame({"arm": np.array(["old", "new"])[arm], "y": RNG.normal(size=4_000) + arm})
    return (
        made if time is None else made.with_columns(pl.Series(time, np.sort(arm * 0 + 1).cumsum()))
    )


def experiment(*, time: str | None) -> Plotted:
    return evaluate_experiment(
        trial(time=time),
        arm="arm",
        control="old",
        metrics=[Metric(top="y")],
        time=time,
        rules=Rules(test="anytime"),
    )


def uplift() -> Plotted:
    x, t = RNG.normal(size=(2_000, 2)), RNG.integers(0, 2, 2_000)
    y = (RNG.random(2_000) < 0.2 + 0.2 * t * (x[:, 0] > 0)).astype(float)
    data = Experiment(features=x, treated=t, outcome=y, propensity=np.full(2_000, 0.5))
    found = learn_uplift(data)
    return UpliftFigure(curve(y, t, found.effect), found)


def delay() -> Plotted:
    return evaluate_delay(reference_problem().paths().draw(3_000, seed=1), [[0, 1, 1]] * 4)


def policy() -> Plotted:
    problem = fatigue_problem()
    return evaluate_policy(problem.draw(3_000, 1), problem.best_policy())


def of_two_actions() -> Journeys:
    acted, kind = RNG.random((2_000, 2)) < 0.5, RNG.random(2_000) < 0.5
    log = pl.DataFrame(
        {
            "j": np.repeat(np.arange(2_000), 2),
            "t": np.tile([0, 1], 2_000),
            "act": (acted * np.column_stack([np.ones(2_000), ~acted[:, 0]])).ravel().astype(int),
            "what": np.repeat(np.where(kind, "chat", "coupon"), 2),
            "y": np.repeat(kind + RNG.normal(size=2_000), 2),
        }
    ).with_columns(s=0, p=0.5, half=0.25)
    halves = {"chat": "half", "coupon": "half"}
    return journeys_from_table(
        log,
        journey="j",
        time="t",
        state=["s"],
        act="act",
        propensity="p",
        outcome="y",
        action="what",
        action_propensities=halves,
    )


def by_action() -> Plotted:
    return evaluate_delay_by_action(of_two_actions())


def delay_by_action() -> Plotted:
    journeys = of_two_actions()
    return DelayFigure(evaluate_delay(journeys), evaluate_delay_by_action(journeys))


def search() -> Plotted:
    return search_policies(reference_problem().paths(folds=4).draw(3_000, seed=1))


def targeting() -> Plotted:
    x, t = RNG.normal(size=(1_000, 1)), RNG.integers(0, 2, 1_000)
    y = t * (x[:, 0] > 0) + RNG.normal(size=1_000)
    data = Experiment(features=x, treated=t, outcome=y, propensity=np.full(1_000, 0.5))
    return judge_targeting(data, cost=0.3)


def steered() -> Plotted:
    return adaptive_values(thompson(0.2, 1))


def excursion() -> Plotted:
    act, stuck = RNG.integers(0, 2, 2_000), RNG.integers(0, 2, 2_000)
    y = act * (0.2 + stuck) + RNG.normal(size=2_000)
    log = pl.DataFrame({"j": np.arange(2_000) // 4, "a": act, "stuck": stuck, "y": y})
    return wcls(
        log.with_columns(p=0.5),
        journey="j",
        act="a",
        propensity="p",
        outcome="y",
        moderators=["stuck"],
        controls=["stuck"],
    )


def plan() -> Plotted:
    log = pl.DataFrame(
        {
            "visitor": RNG.integers(0, 8_000, 9_000),
            "day": [dt.date(2026, 3, 1) + dt.timedelta(int(d)) for d in RNG.integers(0, 14, 9_000)],
            "orders": RNG.poisson(0.06, 9_000),
        }
    )
    return plan_experiment(
        log, unit="visitor", time="day", metric=Metric(top="orders"), effect=0.15
    )


def incident() -> Plotted:
    lost = Estimate(120.0, 80.0, 160.0, 20.0)
    return IncidentCost(
        lost_orders=lost,
        lost_value=Estimate(6_000.0, 4_000.0, 8_000.0, 1_000.0),
        sessions=9_000,
        observed_orders=300.0,
        expected_orders=420.0,
        observed_value=15_000.0,
        expected_value=21_000.0,
        dispersion=1.2,
        placebo=[Estimate(-3.0, -30.0, 24.0, 13.0), Estimate(9.0, -20.0, 38.0, 14.0)],
        refused=None,
    )


def switching() -> Plotted:
    hour = np.arange(96)
    log = pl.DataFrame({"hour": hour, "orders": RNG.poisson(50 + 10 * (hour % 2))}).select(
        "orders",
        city=pl.lit("Faro"),
        ts=pl.datetime(2026, 3, 1) + pl.duration(hours="hour"),
        arm=pl.when(pl.col("hour") % 2 == 1).then(pl.lit("new")).otherwise(pl.lit("old")),
    )
    return evaluate_switchback(
        log,
        region="city",
        time="ts",
        arm="arm",
        control="old",
        metrics=[Metric(top="orders")],
        block_hours=1,
    )


SMALL = {
    switching: "48 pairs",
    by_action: "from here on",
    delay_by_action: "coupon",
    search: "half that chose it",
    targeting: "acts on",
    steered: "arm 1, naive",
    excursion: "stuck",
    plan: "looked for",
    incident: "window 2 before",
}


def words(figure: Figure) -> str:
    axes = figure.get_axes()
    labels = [each.get_text() for ax in axes for each in (*ax.get_yticklabels(), *ax.texts)]
    titles = [ax.get_title(loc="left") + ax.get_xlabel() + ax.get_ylabel() for ax in axes]
    below = figure.get_supxlabel()
    return " | ".join([*labels, *titles, below])


def test_figures_say_what_they_show() -> None:
    found = words(draw(off_policy()))
    assert "worth" in found
    assert "snips" in found
    refused = words(draw(off_policy(40)))
    assert "Refused: the effective sample size" in refused
    regret = words(draw(delay()))
    assert all(part in regret for part in ("early", "late", "missed", "unnecessary"))
    assert "at 2" in words(draw(policy()))
    assert "Qini" in words(draw(uplift()))
    assert "y, new" in words(draw(experiment(time=None)))


def test_the_sequence_is_drawn_with_the_moment_it_decides() -> None:
    result = experiment(time="minute")
    figure = draw(result)
    assert "new differs from" in words(figure)
    assert "Ship." in words(figure)
    line = figure.get_axes()[0].get_lines()[0]
    assert isinstance(result, ExperimentResult)
    assert line.get_ydata()[-1] == result.sequence[-1].value  # type: ignore[index]


def test_the_sequence_has_room_for_every_arm_and_no_moment_for_a_fixed_test() -> None:
    def look(arm: str, value: float) -> Look:
        ends = (value, value - 0.1, value + 0.1, 0.05)
        return Look(*ends, p_value=0.01, relative=False, arm=arm, time=1, units=100)

    result = experiment(time="minute")
    assert isinstance(result, ExperimentResult)
    looks = [look(arm, value) for _ in range(10) for arm, value in (("far", 2.0), ("near", 0.2))]
    figure = draw(msgspec.structs.replace(result, sequence=looks, test="t"))
    bottom, top = figure.get_axes()[0].get_ylim()
    assert bottom <= min(each.low for each in looks)
    assert top > max(each.value for each in looks)
    assert "differs from" not in words(figure)


def test_points_of_too_few_acts_are_marked() -> None:
    found = delay()
    assert isinstance(found, Delay)
    thin = [msgspec.structs.replace(p, refused="too few") for p in found.value_against_delay]
    legend = (
        draw(msgspec.structs.replace(found, value_against_delay=thin)).get_axes()[0].get_legend()
    )
    assert legend is not None
    assert "too few acts" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("make", SMALL, ids=lambda m: m.__name__)
def test_every_estimate_has_a_figure(make: Callable[[], Plotted]) -> None:
    figure = draw(make())
    legends = [axes.get_legend() for axes in figure.get_axes()]
    told = [text.get_text() for legend in legends if legend for text in legend.get_texts()]
    assert SMALL[make] in words(figure) + " | ".join(told)


@pytest.mark.parametrize(
    "make", [off_policy, delay, policy, uplift, *SMALL], ids=lambda m: m.__name__
)
def test_files_are_what_their_suffix_says(make: Callable[[], Plotted], tmp_path: Path) -> None:
    found = make()
    plot(found, tmp_path / "a.svg")
    plot(found, tmp_path / "b.svg")
    assert ET.fromstring((tmp_path / "a.svg").read_text()).tag.endswith("svg")  # noqa: S314 - ours
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    plot(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_other_files_are_refused(tmp_path: Path) -> None:
    found = off_policy()
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        plot(found, tmp_path / "a.pdf")
    with pytest.raises(ConfigError, match="Expected an estimate, got int"):
        draw(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="can be written"):
        plot(found, tmp_path / "absent" / "a.png")


def test_commands_draw_on_request(tmp_path: Path) -> None:
    trial(time=None).write_csv(tmp_path / "trial.csv")
    file = tmp_path / "figure.png"
    options = f"--arm arm --control old --metric y --json --plot {file}"
    arguments = ["evaluate", "experiment", str(tmp_path / "trial.csv"), *options.split()]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["decision"]["verdict"] == "ship"
    assert file.stat().st_size > 5_000
    rows = pl.DataFrame({"t": RNG.integers(0, 2, 1_000), "x": RNG.normal(size=1_000)})
    rows.with_columns(y=pl.col("x") * pl.col("t")).write_csv(tmp_path / "rows.csv")
    options = f"--treatment t --outcome y --feature x --plot {tmp_path / 'uplift.svg'}"
    result = CliRunner().invoke(
        app, ["evaluate", "uplift", str(tmp_path / "rows.csv"), *options.split()]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "uplift.svg").read_text().startswith("<?xml")
