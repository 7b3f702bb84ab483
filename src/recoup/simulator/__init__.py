"""A seeded shop with known defects and known effects: events, and the truth about them."""

from recoup.simulator.decision_frames import decision_frame, logged_acts, outcome_frame
from recoup.simulator.decision_log import STATES, LoggingSpec
from recoup.simulator.layout import KINDS
from recoup.simulator.nuisances import NuisanceSpec
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
from recoup.simulator.robots import RobotSpec
from recoup.simulator.scenario import DefectSpec, EffectSpec, Scenario
from recoup.simulator.scenarios import SCENARIOS, load_scenario
from recoup.simulator.shop import Shop, Simulation, simulate
from recoup.simulator.stock import HabitSpec, StockSpec
from recoup.simulator.writing import write_simulation

__all__ = [
    "KINDS",
    "SCENARIOS",
    "STATES",
    "DefectSpec",
    "EffectSpec",
    "HabitSpec",
    "LoggingSpec",
    "NuisanceSpec",
    "Potential",
    "RobotSpec",
    "Scenario",
    "Shop",
    "Simulation",
    "StockSpec",
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
