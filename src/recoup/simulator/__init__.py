"""A seeded shop with known defects and known effects: events, and the truth about them."""

from recoup.simulator.layout import KINDS
from recoup.simulator.scenario import SCENARIOS, DefectSpec, EffectSpec, Scenario, load_scenario
from recoup.simulator.shop import Shop, Simulation, simulate
from recoup.simulator.writing import write_simulation

__all__ = [
    "KINDS",
    "SCENARIOS",
    "DefectSpec",
    "EffectSpec",
    "Scenario",
    "Shop",
    "Simulation",
    "load_scenario",
    "simulate",
    "write_simulation",
]
