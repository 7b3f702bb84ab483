"""The cost of delay in the simulated shop, held against its potential outcomes over many seeds.

Run it by hand: ``python -m benchmarks.delay_coverage [SEEDS]`` (200 seeds: about two minutes).
Prints a line of JSON for each figure: coverage of the 95 % intervals, bias in Monte-Carlo errors,
and whether both pass (Bonferroni-corrected 99 % binomial interval holds 0.95; bias within 3).
Beside them stands what classifying journeys by when they happened to be acted on would say.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recoup.causal import Estimate, Journeys, evaluate_delay, journeys_from_table
from recoup.causal.delay import policy_from_rows, policy_matrix
from recoup.simulator import (
    STATES,
    best_rule,
    decision_frame,
    delay_truth,
    follow,
    load_scenario,
    potential_outcomes,
    regret_truth,
)
from recoup.simulator.oracle import DelayTruth, RegretTruth

VISITORS: Final = 30_000
LAW_VISITORS: Final = 300_000
LAW_SEED: Final = 10_001
PARTS: Final = ("early", "late", "missed", "unnecessary")
COLUMNS: Final = {
    "journey": "journey",
    "time": "time",
    "act": "act",
    "propensity": "propensity",
    "outcome": "outcome",
    "availability": "available",
    "cluster": "visitor",
}

Table = NDArray[np.bool_]


class Law(msgspec.Struct, frozen=True):
    """What is true of the shop: the rule that is best by state, and what it and waiting are worth.

    ``rule`` and ``needed`` have shape (H, states of the simulator).
    """

    rule: Table
    needed: Table
    delay: DelayTruth
    regret: RegretTruth
    value: float


def law(visitors: int = LAW_VISITORS, seed: int = LAW_SEED) -> Law:
    """Find the truth, from many visitors."""
    everybody = potential_outcomes(visitors, 1.0, seed, load_scenario("logged"))
    rule, delay = best_rule(everybody), delay_truth(everybody)
    return Law(
        rule=rule,
        needed=np.nan_to_num(delay.miss_cost) > 0,
        delay=delay,
        regret=regret_truth(everybody, rule),
        value=float(follow(everybody, rule)[:, 0].mean()),
    )


def draw(seed: int, visitors: int = VISITORS) -> Journeys:
    """Draw the log of a shop."""
    log = decision_frame(potential_outcomes(visitors, 1.0, seed, load_scenario("logged")))
    return journeys_from_table(log, state=["state"], **COLUMNS)  # type: ignore[arg-type]


def run(seed: int, truth: Law, visitors: int = VISITORS) -> dict[str, tuple[Estimate, float]]:
    """Estimate everything from one log, and put the truth beside it."""
    log = draw(seed, visitors)
    rule, needed = (_told(log, table) for table in (truth.rule, truth.needed))
    found = evaluate_delay(log, rule, needed=needed)
    told: dict[str, tuple[Estimate, float]] = {
        f"delta at {each.time} s": (each, float(true))
        for each, true in zip(found.delta_by_time, truth.delay.delta, strict=True)
    }
    told |= {
        f"value from {each.time} s on": (each, float(true))
        for each, true in zip(
            found.value_against_delay, truth.delay.value_against_delay, strict=True
        )
    }
    told["advantage"] = (found.advantage, truth.value - truth.delay.never)
    told["regret"] = (found.regret, truth.regret.total)
    told |= {part: (getattr(found.regret, part), getattr(truth.regret, part)) for part in PARTS}
    naive = by_realised_act(log, policy_matrix(log, rule))
    return told | {
        f"naive {part}": (each, getattr(truth.regret, part)) for part, each in naive.items()
    }


def _told(log: Journeys, table: Table) -> Table:
    """Say a rule in the states that a log happens to have."""
    rows: dict[tuple[object, object], float] = {
        (time, state): float(table[point, code])
        for point, time in enumerate(log.times)
        for code, state in enumerate(STATES)
        if state in log.states
    }
    return policy_from_rows(log, rows)


def by_realised_act(log: Journeys, acts: Table) -> dict[str, Estimate]:
    """Do what must not be done: sort journeys by when they were acted on, and compare their means.

    A class of journeys (acted on before the rule would have, after it, not though it would have,
    or though it would not have) is charged its share times the difference of its mean outcome from
    that of journeys that went as the rule says.
    """
    due = np.where(acts.any(axis=1), acts.argmax(axis=1), log.points)
    never, nobody = log.act_at == log.points, due == log.points
    classes = {
        "early": ~never & ~nobody & (log.act_at < due),
        "late": ~never & ~nobody & (log.act_at > due),
        "missed": never & ~nobody,
        "unnecessary": ~never & nobody,
    }
    right = log.outcome[log.act_at == due]
    found = {}
    for name, chosen in classes.items():
        if not chosen.any():
            found[name] = Estimate(0.0, 0.0, 0.0, 0.0)
            continue
        own, share = log.outcome[chosen], float(chosen.mean())
        value = share * float(right.mean() - own.mean())
        se = share * float(np.sqrt(right.var() / len(right) + own.var() / len(own)))
        found[name] = Estimate(value, value - 1.96 * se, value + 1.96 * se, se)
    return found


def judge(runs: list[dict[str, tuple[Estimate, float]]]) -> Iterator[dict[str, Any]]:
    """Compare estimates with the truth by the rule above, figure by figure."""
    own = [name for name in runs[0] if not name.startswith("naive")]
    for name in runs[0]:
        pairs = [each[name] for each in runs]
        errors = np.array([found.value - true for found, true in pairs])
        covered = sum(found.low <= true <= found.high for found, true in pairs)
        low, high = stats.binomtest(covered, len(pairs)).proportion_ci(1 - 0.01 / len(own))
        # Naively nothing may be early in any log: then there is no error to divide by.
        error = float(errors.std(ddof=1)) / np.sqrt(len(pairs))
        bias = float(errors.mean()) / error if error > 1e-9 else float("nan")
        yield {
            "figure": name,
            "truth": round(pairs[0][1], 4),
            "coverage": covered / len(pairs),
            "bias_in_errors": round(bias, 2),
            "sd": round(float(errors.std(ddof=1)), 4),
            "mean_se": round(float(np.mean([found.se for found, _ in pairs])), 4),
            "passes": bool(low <= 0.95 <= high and abs(bias) <= 3),
        }


if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    truth = law()
    for line in judge([run(seed, truth) for seed in range(seeds)]):
        print(json.dumps(line), flush=True)
