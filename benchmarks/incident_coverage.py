"""What incidents cost in simulated shops, held against the truth over many seeds.

Run it by hand: ``python -m benchmarks.incident_coverage [SEEDS [DEFECT]]``, DEFECT being one of
``safari``, ``france`` and ``cards``. Prints a line of JSON for orders and money: coverage of the
95 % intervals, bias and its Monte-Carlo error, and the same for a comparison of before and after.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from scipy import stats

from recoup.causal import Estimate, Incident, episodes, incident_cost, session_table
from recoup.runners.incidents import ADJUSTED
from recoup.simulator import Shop
from recoup.simulator.clock import bounds
from recoup.simulator.scenario import DefectSpec, Scenario
from recoup.simulator.scenarios import EFFECTS

VISITORS: Final = 20_000
DAYS: Final = 7.0
HORIZON_S: Final = 72 * 3600.0
SPECS: Final = {
    "safari": DefectSpec("x", "K8", {"browser": "Safari"}, 0.5, 0.75, 0.8, 0.7),
    "france": DefectSpec("x", "C2", {"country": "FR"}, 0.5, 0.75, 0.9, 0.7, 0.25),
    "cards": DefectSpec("x", "K5", {"payment_method": "card"}, 0.5, 0.75, 0.6, 0.7),
}


class Run(msgspec.Struct, frozen=True):
    """One shop: estimates and truths of orders and of money, and what before and after says."""

    orders: Estimate
    value: Estimate
    true_orders: float
    true_value: float
    before_and_after: float


def run(
    seed: int,
    name: str = "safari",
    visitors: int = VISITORS,
    days: float = DAYS,
    horizon_s: float = HORIZON_S,
) -> Run:
    """Simulate a shop with one defect, and estimate what it cost."""
    spec = SPECS[name]
    shop = Shop(visitors, days, seed, Scenario("one", (spec,), EFFECTS))
    sessions = session_table([shop.step(shop.end)], dict(spec.entity))
    true = shop.truth()["defects"][0]
    since, until = bounds(shop.begin, shop.end, spec.since, spec.until)
    found = incident_cost(
        episodes(sessions, horizon_s, cut=since),
        Incident("touched", since, until),
        adjust=[each for each in ADJUSTED if each not in spec.entity],
    )
    return Run(
        found.lost_orders,
        found.lost_value,
        true["lost_orders"],
        true["lost_value"],
        _before_and_after(sessions, since, until),
    )


def _before_and_after(sessions: pl.DataFrame, since: int, until: int) -> float:
    """Take the touched visits' rate of orders outside the incident for what was due in it."""
    own = sessions.filter("touched")
    ts = own["ts"].to_physical().cast(pl.Int64)
    inside = (ts >= since) & (ts < until)
    orders = own["orders"].to_numpy().astype(np.float64)
    here = inside.to_numpy()
    return float(orders[~here].mean() * here.sum() - orders[here].sum())


def judge(runs: list[Run]) -> Iterator[dict[str, Any]]:
    """Compare with the truth: a corrected 99 % interval of the coverage is to hold 0.95."""
    for name in ("orders", "value"):
        found = [getattr(each, name) for each in runs]
        true = np.array([getattr(each, f"true_{name}") for each in runs])
        errors = np.array([each.value for each in found]) - true
        covered = sum(e.low <= t <= e.high for e, t in zip(found, true, strict=True))
        low, high = stats.binomtest(covered, len(runs)).proportion_ci(1 - 0.01 / 6)
        bias, error = float(errors.mean()), float(errors.std(ddof=1) / len(runs) ** 0.5)
        yield {
            "figure": name,
            "truth": round(float(true.mean()), 1),
            "bias": round(bias, 2),
            "bias_se": round(error, 2),
            "coverage": covered / len(runs),
            "mean_se": round(float(np.mean([each.se for each in found])), 1),
            "passes": bool(low <= 0.95 <= high and abs(bias) <= 3 * error),
        }
    naive = np.array([each.before_and_after - each.true_orders for each in runs])
    error = float(naive.std(ddof=1) / len(runs) ** 0.5)
    told = {"bias": round(float(naive.mean()), 2), "bias_se": round(error, 2)}
    yield {"figure": "orders, before and after", **told}


if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chosen = sys.argv[2:] or list(SPECS)
    for defect in chosen:
        for line in judge([run(seed, defect) for seed in range(seeds)]):
            print(json.dumps({"defect": defect, "seeds": seeds, **line}), flush=True)
