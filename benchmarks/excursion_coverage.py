"""Coverage of excursion effects on logs whose truth is known.

Run it by hand: ``python -m benchmarks.excursion_coverage [RUNS]``.
Prints a line of JSON for each design: coverage of the 95 % intervals, bias in Monte-Carlo errors.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from recoup.causal.distal import dcee
from recoup.causal.excursion import Coefficient, emee, wcls
from recoup.causal.nuisance import TreeMeans

Run = Callable[[int], tuple[Coefficient, float]]


def proximal(journeys: int, seed: int, points: int = 20) -> pl.DataFrame:
    """Draw journeys in which acts follow the state and the last act; a third of points is closed.

    The act's effect on what follows is 0.2 + 0.5 s for states s of -1 and 1 alike, so 0.2 on
    average; the outcome also depends on the state and on the last act.
    """
    rng = np.random.default_rng(seed)
    last, rows = np.zeros(journeys), []
    level = rng.normal(size=journeys)
    for _ in range(points):
        state = rng.choice([-1.0, 1.0], journeys)
        chance = 1 / (1 + np.exp(0.8 * last - 0.8 * state))
        opened = (rng.random(journeys) < 2 / 3).astype(float)
        act = opened * (rng.random(journeys) < chance)
        outcome = 0.8 * state - 0.4 * last + level + act * (0.2 + 0.5 * state)
        rows.append([state, chance, opened, act, outcome + rng.normal(size=journeys), last])
        last = act
    columns = np.array(rows).transpose(2, 0, 1).reshape(-1, 6)
    names = ["state", "p", "open", "act", "y", "last"]
    return pl.DataFrame(columns, schema=names).with_columns(
        journey=np.repeat(np.arange(journeys), points)
    )


LEVELS = np.array([0.5, 0.35, 0.45])


def binary(journeys: int, seed: int, points: int = 20) -> pl.DataFrame:
    """Draw journeys in which an act multiplies the chance of a purchase by exp(0.1 + 0.3 s)."""
    rng = np.random.default_rng(seed)
    state = rng.integers(0, 3, journeys * points)
    chance = np.array([0.2, 0.5, 0.8])[state]
    act = (rng.random(len(state)) < chance).astype(float)
    rate = LEVELS[state] * np.exp(act * (0.1 + 0.3 * state))
    return pl.DataFrame(
        {
            "state": state.astype(float),
            "p": chance,
            "act": act,
            "y": (rng.random(len(state)) < rate).astype(float),
            "journey": np.repeat(np.arange(journeys), points),
        }
    )


GAINS = np.array([2.0, 1.0, 0.5, 0.0])
CHANCES = np.array([[0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2]])
WASTE = -0.6


def distal(journeys: int, seed: int) -> pl.DataFrame:
    """Draw journeys of four points; an act gains by its point, and less right after another."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, journeys)
    chance = CHANCES[kind]
    act = (rng.random((journeys, 4)) < chance).astype(float)
    value = act @ GAINS + WASTE * (act[:, 1:] * act[:, :-1]).sum(axis=1)
    value = value + 3 * kind + rng.normal(size=journeys)
    return pl.DataFrame(
        {
            "journey": np.repeat(np.arange(journeys), 4),
            "point": np.tile(np.arange(4.0), journeys),
            "kind": np.repeat(kind, 4).astype(float),
            "p": chance.ravel(),
            "act": act.ravel(),
            "y": np.repeat(value, 4),
        }
    )


def distal_truth() -> float:
    """Give the mean over points and kinds of what an act there adds, the others by the log."""
    beside = np.zeros_like(CHANCES)
    beside[:, 1:] += CHANCES[:, :-1]
    beside[:, :-1] += CHANCES[:, 1:]
    return float((GAINS + WASTE * beside).mean())


COLUMNS: dict[str, Any] = {"journey": "journey", "outcome": "y", "act": "act", "propensity": "p"}


def _proximal(term: str, truth: float, journeys: int, moderators: list[str]) -> Run:
    def run(seed: int) -> tuple[Coefficient, float]:
        table = proximal(journeys, seed)
        found = wcls(
            table, **COLUMNS, moderators=moderators, controls=["state"], availability="open"
        )
        return found[term], truth

    return run


def _binary(term: str, truth: float, journeys: int, moderators: list[str]) -> Run:
    def run(seed: int) -> tuple[Coefficient, float]:
        table = binary(journeys, seed)
        return emee(table, **COLUMNS, moderators=moderators, controls=["state"])[term], truth

    return run


def _distal(journeys: int, controls: list[str]) -> Run:
    def run(seed: int) -> tuple[Coefficient, float]:
        table = distal(journeys, seed)
        found = dcee(
            table, **COLUMNS, controls=controls, regressor=lambda: TreeMeans(trees=30, rate=0.15)
        )
        return found["intercept"], distal_truth()

    return run


AVERAGE_RATIO = float(np.log((LEVELS * np.exp(0.1 + 0.3 * np.arange(3))).mean() / LEVELS.mean()))
DESIGNS: dict[str, Run] = {
    "wcls, 30 journeys, average": _proximal("intercept", 0.2, 30, []),
    "wcls, 30 journeys, slope": _proximal("state", 0.5, 30, ["state"]),
    "wcls, 200 journeys, average": _proximal("intercept", 0.2, 200, []),
    "emee, 30 journeys, average": _binary("intercept", AVERAGE_RATIO, 30, []),
    "emee, 100 journeys, slope": _binary("state", 0.3, 100, ["state"]),
    "dcee, 400 journeys, no model": _distal(400, []),
    "dcee, 400 journeys, cross-fitted": _distal(400, ["kind", "point"]),
}


def judge(name: str, reps: int) -> dict[str, object]:
    """Run a design and compare it with its truth."""
    runs = [DESIGNS[name](seed) for seed in range(reps)]
    covered = sum(found.low <= truth <= found.high for found, truth in runs)
    errors = np.array([found.value - truth for found, truth in runs])
    return {
        "design": name,
        "runs": reps,
        "coverage": covered / reps,
        "bias": round(float(errors.mean()), 5),
        "bias_in_errors": round(float(errors.mean() / (errors.std(ddof=1) / reps**0.5)), 2),
        "sd": round(float(errors.std(ddof=1)), 5),
        "mean_se": round(float(np.mean([found.se for found, _ in runs])), 5),
    }


if __name__ == "__main__":
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    for design in DESIGNS:
        print(json.dumps(judge(design, repetitions)))
