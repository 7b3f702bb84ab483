"""Switchback experiments: planned from traffic, read by pairs of blocks, against known truth."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from recoup.causal import Metric, Rules, evaluate_experiment, evaluate_switchback, plan_switchback
from recoup.causal.assignment import switchback
from recoup.causal.power import Strictness
from recoup.cli.app import app
from recoup.errors import ConfigError, SchemaError

SIZES = {"Faro": 12.0, "Porto": 40.0, "Lisbon": 90.0}
BLOCK = 6
START = dt.datetime(2026, 3, 1)  # noqa: DTZ001 - a log without a zone is UTC
ORDERS = [Metric(top="orders")]
COLUMNS: dict[str, Any] = {"region": "city", "time": "ts", "block_hours": BLOCK}
ARMS: dict[str, Any] = COLUMNS | {"arm": "arm", "control": "old"}


def shop(days: int, seed: int, *, lift: float = 0.0, carried_hours: int = 0) -> pl.DataFrame:
    """Draw hours of three cities that differ in size, by the hour, and wander from day to day.

    ``carried_hours``: for so long after a block's begin, what was done before it still tells.
    """
    rng = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    stamps = [START + dt.timedelta(hours=int(hour)) for hour in hours]
    since_epoch = np.array([int((s - dt.datetime(1970, 1, 1)).total_seconds()) for s in stamps])  # noqa: DTZ001
    block = since_epoch // 3600 // BLOCK
    tables = []
    for city, size in SIZES.items():
        acts = np.array([switchback(city, int(b), f"slots {seed}") for b in block])
        told = np.concatenate(
            [np.repeat(acts[0], carried_hours), acts[: len(acts) - carried_hours]]
        )
        days_level = np.repeat(np.exp(rng.normal(0, 0.3, days).cumsum() / 4), 24)
        visits = rng.poisson(size * days_level * (1 + 0.5 * np.sin(hours / 24 * 2 * np.pi)))
        tables.append(
            pl.DataFrame(
                {
                    "city": city,
                    "ts": stamps,
                    "arm": np.where(acts, "new", "old"),
                    "visits": visits,
                    "orders": rng.binomial(visits, 0.3 * (1 + lift * told)),
                }
            )
        )
    return pl.concat(tables)


def test_intervals_cover_and_pairs_take_the_noise_out() -> None:
    lift, reps, covered, ratio_covered, narrower = 0.1, 200, 0, 0, []
    metrics = [*ORDERS, Metric(top="orders", bottom="visits")]
    for seed in range(reps):
        log = shop(21, seed, lift=lift)
        total, rate = evaluate_switchback(log, metrics=metrics, **ARMS).effects
        assert total.relative_effect is not None
        covered += total.relative_effect.low <= lift <= total.relative_effect.high
        ratio_covered += rate.low <= 0.03 <= rate.high
        if seed < 5:
            narrower.append(total.se / unpaired(log))
    for count in (covered, ratio_covered):
        interval = stats.binomtest(count, reps).proportion_ci(1 - 0.01 / 2)
        assert interval.low <= 0.95 <= interval.high, count / reps
    assert max(narrower) < 0.6


def unpaired(log: pl.DataFrame) -> float:
    """Give the error of comparing blocks as if they were any units."""
    hours = pl.col("ts").dt.epoch("s") // 3600 // BLOCK
    blocks = log.group_by("city", hours.alias("block"), "arm").agg(pl.col("orders").sum())
    found = evaluate_experiment(blocks, arm="arm", control="old", metrics=ORDERS, rules=Rules())
    return found.effects[0].se


def test_the_planned_length_finds_the_effect_as_often_as_asked() -> None:
    plan = plan_switchback(shop(56, 1), metric=ORDERS[0], effect=0.04, **COLUMNS)
    assert plan.days_needed is not None
    assert 7 < plan.days_needed < 56
    assert plan.durations[-1].days >= plan.days_needed
    reps = 150
    found = [
        evaluate_switchback(
            shop(plan.days_needed, 500 + seed, lift=0.04), metrics=ORDERS, **ARMS
        ).effects[0]
        for seed in range(reps)
    ]
    # Demand wanders: a log of eight weeks knows the noise of another one to a fifth or so.
    assert 0.68 < sum(each.p_value <= 0.05 for each in found) / reps < 0.92


def test_what_is_carried_over_must_be_left_out() -> None:
    values: dict[int, list[float]] = {0: [], 2: []}
    for seed in range(60):
        log = shop(21, seed, lift=0.3, carried_hours=2)
        for hours, found in values.items():
            effects = evaluate_switchback(
                log, metrics=ORDERS, leave_out_hours=hours, **ARMS
            ).effects
            relative = effects[0].relative_effect
            assert relative is not None
            found.append(relative.value)
    errors = {hours: np.std(found, ddof=1) / np.sqrt(60) for hours, found in values.items()}
    assert abs(np.mean(values[2]) - 0.3) < 4 * errors[2]
    assert np.mean(values[0]) < 0.3 - 6 * errors[0]


def test_logs_that_are_no_switchback_are_refused() -> None:
    log = shop(4, 0)
    by_hour = log.with_columns(
        arm=pl.when(pl.col("ts").dt.hour() % 2 == 0).then(pl.lit("old")).otherwise(pl.lit("new"))
    )
    with pytest.raises(SchemaError, match="each block to have one arm"):
        evaluate_switchback(by_hour, metrics=ORDERS, **ARMS)
    with pytest.raises(SchemaError, match="one other arm"):
        evaluate_switchback(log.with_columns(arm=pl.lit("old")), metrics=ORDERS, **ARMS)
    with pytest.raises(SchemaError, match="at least one pair"):
        evaluate_switchback(log.head(2), metrics=ORDERS, **ARMS)
    with pytest.raises(ConfigError, match="longer than what is left out"):
        evaluate_switchback(log, metrics=ORDERS, leave_out_hours=6, **ARMS)
    with pytest.raises(ConfigError, match="at least one metric"):
        evaluate_switchback(log, metrics=[], **ARMS)
    with pytest.raises(SchemaError, match="mean other than 0"):
        plan_switchback(log.with_columns(orders=0), metric=ORDERS[0], effect=0.1, **COLUMNS)
    peeking = Strictness(sequential=True)
    with pytest.raises(ConfigError, match="read once"):
        plan_switchback(log, metric=ORDERS[0], effect=0.1, strictness=peeking, **COLUMNS)
    short = evaluate_switchback(log, metrics=ORDERS, **ARMS)
    assert short.pairs == 24
    assert not short.warnings
    assert evaluate_switchback(log.head(24), metrics=ORDERS, **ARMS).warnings


def test_commands_plan_and_read(tmp_path: Path) -> None:
    file, plot = tmp_path / "hours.csv", tmp_path / "plan.png"
    shop(28, 2, lift=0.2).write_csv(file)
    design = f"--unit city --time ts --metric orders --effect 0.2 --block-hours {BLOCK}"
    arguments = ["design", str(file), *design.split()]
    result = CliRunner().invoke(app, [*arguments, "--plot", str(plot), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["days_needed"] <= 28
    assert plot.read_bytes()[:4] == b"\x89PNG"
    read = f"--region city --time ts --arm arm --control old --metric orders --block-hours {BLOCK}"
    arguments = ["evaluate", "switchback", str(file), *read.split()]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["pairs"] == 3 * 56
    assert found["effects"][0]["relative_effect"]["low"] < 0.2
    assert found["effects"][0]["low"] > 0
    assert "168 pairs" in CliRunner().invoke(app, arguments).stdout
