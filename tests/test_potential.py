import datetime as dt
import doctest
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.causal import evaluate_delay, journeys_from_table
from recoup.errors import ConfigError
from recoup.interventions import INTERVENTIONS
from recoup.simulator import (
    SCENARIOS,
    STATES,
    LoggingSpec,
    Potential,
    Scenario,
    Shop,
    best_rule,
    decision_frame,
    delay_truth,
    follow,
    logged_acts,
    observed_state,
    oracles,
    outcome_frame,
    potential_outcomes,
    regret_truth,
)

PAGE = Path(__file__).parent.parent / "docs" / "simulator.md"
LOGGED = SCENARIOS["logged"]
ANY = Scenario("any", LOGGED.defects, LOGGED.effects, logging=LoggingSpec(actions="any"))


@pytest.fixture(scope="module")
def logged() -> Potential:
    return potential_outcomes(6_000, 2.0, 5, LOGGED, draws=12)


def test_docs_are_true() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert failed == 0
    assert tried > 5


def net_value(shop: Shop, potential: Potential, acts: pl.DataFrame | None) -> pl.DataFrame:
    """What a journey is worth by the shop's own events, fees of acts left out."""
    events = shop.step(shop.end, acts).events
    journeys = (
        decision_frame(potential)
        .group_by("journey")
        .agg(
            pl.first("visitor"),
            pl.first("ts").alias("entry"),
            pl.first("outcome"),
            pl.last("action"),
        )
    )
    bought = events.filter(pl.col("event") == "purchase").select("visitor", "value", at="ts")
    horizon = dt.timedelta(seconds=potential.spec.horizon_s)
    inside = (
        journeys.join(bought, on="visitor")
        .filter((pl.col("at") >= pl.col("entry")) & (pl.col("at") < pl.col("entry") + horizon))
        .group_by("journey")
        .agg(pl.col("value").sum() / 1e6)
    )
    return journeys.join(inside, on="journey", how="left").with_columns(
        pl.col("value").fill_null(0.0)
    )


@pytest.mark.parametrize("scenario", [LOGGED, ANY], ids=lambda each: each.name)
def test_the_shop_gives_what_its_potential_outcomes_say(scenario: Scenario) -> None:
    shop = Shop(6_000, 1.0, 4, scenario)
    potential = shop.potential()
    found = net_value(shop, potential, logged_acts(potential))
    share = {f"act:{each.id}": each.cost_share for each in INTERVENTIONS}
    fixed = {f"act:{each.id}": each.cost_micros / 1e6 for each in INTERVENTIONS}
    action = pl.col("action")
    cost = found.select(
        action.replace_strict(fixed, default=0.0)
        + pl.col("value") * action.replace_strict(share, default=0.0)
    ).to_series()
    most, least = found["value"] - found["outcome"], 0.0
    assert found.height > 700
    assert (most <= cost + 1e-6).all()
    assert (most >= least - 1e-6).all()
    untouched = ~found["action"].str.starts_with("act:")
    assert 100 < untouched.sum() < found.height - 100
    assert np.abs(most.filter(untouched)).max() < 1e-9
    reached = found.filter(~untouched & (found["value"] > 0))
    exact = (
        reached["value"] - reached["outcome"] - cost.filter(~untouched & (found["value"] > 0))
    ).abs()
    assert (exact < 1e-6).mean() > 0.9  # type: ignore[operator]


def test_never_is_the_shop_left_alone(logged: Potential) -> None:
    shop = Shop(6_000, 2.0, 5, LOGGED)
    found = net_value(shop, logged, None).sort("journey")
    never = pl.DataFrame({"visitor": logged.visitor, "never": logged.never})
    assert never.height == found.height
    assert found["value"].to_numpy() == pytest.approx(never["never"].to_numpy(), abs=1e-9)


def test_expected_outcomes_are_calibrated(logged: Potential) -> None:
    for told, expected in (
        (logged.outcome, logged.expected),
        (
            np.broadcast_to(logged.never[:, None], logged.expected_never.shape),
            logged.expected_never,
        ),
    ):
        known = ~np.isnan(expected) & ~np.isnan(told)
        error = np.where(known, np.nan_to_num(told) - np.nan_to_num(expected), 0.0)
        by_journey = error.reshape(len(error), -1).sum(axis=1)
        assert abs(by_journey.mean()) < 3.5 * by_journey.std() / np.sqrt(len(by_journey))
        assert np.corrcoef(told[known], expected[known])[0, 1] > 0.6


def test_the_log_keeps_the_contract_of_the_cost_of_delay(logged: Potential) -> None:
    log = decision_frame(logged)
    assert log.group_by("journey").agg(pl.col("act").sum())["act"].max() == 1
    closed = log.filter(~pl.col("available"))
    assert 0.02 < closed.height / log.height < 0.4
    assert (closed["propensity"] == 0).all()
    assert log.filter("available")["propensity"].is_between(0.02, 0.6).all()
    acted = log.filter(pl.col("act") == 1)
    assert acted.height == pytest.approx(log["propensity"].sum(), rel=0.1)
    assert set(log["state"].unique()) <= set(STATES)
    assert (
        log.group_by("journey").agg(pl.col("reason_at_entry").n_unique())["reason_at_entry"].max()
        == 1
    )


def test_outcome_frame_has_every_open_point_and_never(logged: Potential) -> None:
    frame = outcome_frame(logged)
    assert frame.columns == ["journey", "time", "action", "outcome", "expected_outcome"]
    never = frame.filter(pl.col("action") == "never")
    assert never.height == logged.is_open.sum()
    assert frame.height - never.height == logged.eligible.sum()
    assert frame.null_count().sum_horizontal().item() == 0
    log = decision_frame(logged).filter(pl.col("act") == 1)
    joined = log.join(frame, on=["journey", "time", "action"], suffix="_potential")
    assert joined.height == log.height
    assert (joined["outcome"] - joined["outcome_potential"]).abs().max() == 0


def test_truths_add_up(logged: Potential) -> None:
    truth = delay_truth(logged)
    gain = truth.value_against_delay[0] - truth.never
    assert truth.delta.sum() == pytest.approx(gain)
    weight = truth.journeys / len(logged.never)
    assert np.nansum(truth.delay_cost * weight, axis=1) == pytest.approx(truth.delta)
    rule = best_rule(logged)
    better = follow(logged, rule)[:, 0].mean()
    assert better >= max(truth.never, truth.value_against_delay.max())
    for judged in ("state", "shopper"):
        regret = regret_truth(logged, rule, judged=judged)
        assert regret.total == pytest.approx(better - truth.logged)
    finer = best_rule(logged, *observed_state(logged))
    assert follow(logged, finer, observed_state(logged)[0])[:, 0].mean() >= better - 1e-9


def test_waiting_loses_those_in_trouble_and_coupons_those_who_buy(logged: Potential) -> None:
    told = delay_truth(potential_outcomes(60_000, 2.0, 9, LOGGED))
    quiet = STATES.index("trouble quiet")
    active = STATES.index("cart active")
    assert told.miss_cost[1, quiet] > told.miss_cost[5, quiet] > 0
    assert (told.miss_cost[:3, active] < -1.0).all()
    best = oracles(logged)
    assert best.latent is not None
    assert best.latent > best.observable > best.logged


def test_estimates_find_the_true_cost_of_delay() -> None:
    truth = delay_truth(potential_outcomes(150_000, 2.0, 1_000, LOGGED)).delta
    errors, ses = [], []
    for seed in range(12):
        log = decision_frame(potential_outcomes(5_000, 2.0, seed, LOGGED))
        journeys = journeys_from_table(
            log, journey="journey", time="time", state=["state"], act="act",
            propensity="propensity", outcome="outcome", availability="available", cluster="visitor",
        )  # fmt: skip
        found = evaluate_delay(journeys)
        errors.append([each.value for each in found.delta_by_time] - truth)
        ses.append([each.se for each in found.delta_by_time])
    standard = np.mean(errors, axis=0) / (np.mean(ses, axis=0) / np.sqrt(len(errors)))
    assert np.abs(standard).max() < 3.5


def test_shoppers_cannot_be_judged_without_futures() -> None:
    found = potential_outcomes(800, 1.0, 1, LOGGED)
    with pytest.raises(ValueError, match="draws"):
        regret_truth(found, best_rule(found), judged="shopper")
    assert oracles(found).latent is None


@pytest.mark.parametrize(
    "spec",
    [
        LoggingSpec(times_s=()),
        LoggingSpec(times_s=(0, 0)),
        LoggingSpec(times_s=(0, 2_000)),
        LoggingSpec(horizon_s=100),
        LoggingSpec(hazard=0.0),
        LoggingSpec(busy=1.0),
    ],
)
def test_an_impossible_logging_policy_is_refused(spec: LoggingSpec) -> None:
    with pytest.raises(ConfigError, match="logging"):
        Shop(10, 1.0, 1, Scenario("x", logging=spec))
