"""A seeded shop with known defects and known effects: events, and the truth about them."""

from recoup.simulator.decision_frames import decision_frame, logged_acts, outcome_frame
from recoup.simulator.decision_log import STATES, LoggingSpec
from recoup.simulator.layout import KINDS
from recoup.simulator.oracle import (
    best_rule,
    delay_truth,
    follow,
    observed_state,
    oracles,
    regret_truth,
    shopper_state,
)
from recoup.simulator.potential import Potential, potential_outcomes
from recoup.simulator.scenario import SCENARIOS, DefectSpec, EffectSpec, Scenario, load_scenario
from recoup.simulator.shop import Shop, Simulation, simulate
from recoup.simulator.writing import write_simulation

__all__ = [
    "KINDS",
    "SCENARIOS",
    "STATES",
    "DefectSpec",
    "EffectSpec",
    "LoggingSpec",
    "Potential",
    "Scenario",
    "Shop",
    "Simulation",
    "best_rule",
    "decision_frame",
    "delay_truth",
    "follow",
    "load_scenario",
    "logged_acts",
    "observed_state",
    "oracles",
    "outcome_frame",
    "potential_outcomes",
    "regret_truth",
    "shopper_state",
    "simulate",
    "write_simulation",
]
