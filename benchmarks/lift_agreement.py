"""Lift from the holdout and from propensities, held against each other and against the truth.

Run it by hand: ``python -m benchmarks.lift_agreement [SEEDS [SHOPS]]``. Two studies:

- ``logged``: SEEDS logs of random acts (one fits at each point) whose potential outcomes are known,
  a fifth of the journeys in the holdout; a line of JSON for the total and each intervention;
- ``closed loop``: SHOPS runs of the engine in a simulated shop, each beside the same shop with
  everybody in the holdout, which tells what each visitor would have been worth.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import stats

from recoup.causal.lift import LiftReport, LiftRow, lift_report
from recoup.causal.windows import decision_windows, remedy_of
from recoup.engine import Engine, Settings
from recoup.events import MICROS
from recoup.friction.signals import SIGNALS
from recoup.policies.version import Settings as PolicySettings
from recoup.simulator import Potential, Shop, load_scenario, potential_outcomes
from recoup.simulator.potential import ACTIONS

VISITORS: Final = 30_000
LAW_VISITORS: Final = 300_000
LAW_SEED: Final = 10_001
HOLDOUT: Final = 0.2
TICK_S: Final = 120
HORIZON_S: Final = 4 * 3600
REASONS: Final = ("none", *(signal.id for signal in SIGNALS))

Frames = tuple[pl.DataFrame, pl.DataFrame]


def logged(visitors: int, seed: int) -> Potential:
    """Draw journeys with random acts."""
    return potential_outcomes(visitors, 1.0, seed, load_scenario("logged"))


def journal_of(log: Potential, seed: int) -> Frames:
    """Write a log as the decisions and outcomes of a journal, a fifth of it never acted on."""
    held = np.random.default_rng(seed).random(len(log.never)) < HOLDOUT
    act_at = np.where(held, log.points, log.act_at)
    rows, points = np.nonzero(log.is_open & (np.arange(log.points) <= act_at[:, None]))
    acted, chance = act_at[rows] == points, log.propensity[rows, points]
    act = np.array(ACTIONS)[log.eligible[rows, points].argmax(axis=1)]
    alone = held[rows]
    decisions = pl.DataFrame(
        {
            "id": rows * log.points + points,
            "ts": log.entry_ts[rows] + np.array(log.spec.times_s)[points] * MICROS,
            "visitor": rows.astype(str),
            "slice": np.where(alone, "holdout", "policy"),
            "action": np.where(acted, act, "wait:30"),
            "options": [
                ["never"] if h else ["wait:30", a] for h, a in zip(alone, act, strict=True)
            ],
            "propensities": [
                [1.0] if h else [1 - p, p] for h, p in zip(alone, chance, strict=True)
            ],
            "intent": log.seen.depth[rows, points] / 10,
            "reason": np.array(REASONS)[log.seen.signal[rows, points]],
            "executed": True,
        }
    )
    value = np.where(held, log.never, log.logged)
    firsts = decisions.unique("visitor", keep="first", maintain_order=True)["id"].to_numpy()
    outcomes = pl.DataFrame(
        {
            "decision": firsts,
            "horizon_s": log.spec.horizon_s,
            "net_value_micros": np.round(value[firsts // log.points] * MICROS).astype(np.int64),
            "revision": 0,
            "later_cost_micros": 0,
        }
    )
    return decisions, outcomes


def lifts(log: Potential) -> pl.DataFrame:
    """Tell what the log's acts were worth to each visitor; its own chance averaged out."""
    chance = log.propensity
    before = np.hstack([np.ones((len(chance), 1)), np.cumprod(1 - chance, axis=1)[:, :-1]])
    gain = np.where(log.is_open, np.nan_to_num(log.acting) - log.never[:, None], 0.0)
    first = log.is_open.argmax(axis=1)
    signal = log.seen.signal[np.arange(len(first)), first]
    remedy = np.array([remedy_of(reason) for reason in REASONS])[signal]
    lift, due = (before * chance * gain).sum(axis=1), log.is_open.any(axis=1)
    return pl.DataFrame({"remedy": remedy[due], "lift": lift[due]})


def true_lift(told: list[pl.DataFrame]) -> dict[str | None, float]:
    """Give what acts were worth in total and by remedy."""
    whole = pl.concat(told)
    means = whole.group_by("remedy").agg(pl.col("lift").mean()).sort("remedy")
    total: dict[str | None, float] = {None: float(whole["lift"].mean())}  # type: ignore[arg-type]
    return total | dict(means.iter_rows())


def rows_of(report: LiftReport) -> Iterator[LiftRow]:
    """Give the total, then each intervention."""
    yield report.all_visitors
    yield from report.by_intervention


def judge(reports: list[LiftReport], truth: dict[str | None, float]) -> Iterator[dict[str, Any]]:
    """Say how often each estimate holds the truth, and how often they agree, row by row."""
    for remedy, true in truth.items():
        own = [row for each in reports for row in rows_of(each) if row.intervention == remedy]
        agreed = [row.agree for row in own if row.agree is not None]
        yield {
            "remedy": remedy or "all",
            "truth": round(true, 4),
            "from_holdout": _against([row.from_holdout for row in own], true),
            "from_propensities": _against([row.from_propensities for row in own], true),
            "agree": _share(agreed),
            "answered": len(agreed),
        }


def _against(found: list[Any], true: float) -> dict[str, Any]:
    told = [each for each in found if each.value == each.value]
    if len(told) < 2:
        return {}
    errors = np.array([each.value - true for each in told])
    covered = [each.low <= true <= each.high for each in told]
    return {
        "coverage": _share(covered),
        "missed_below": _share([each.high < true for each in told]),
        "missed_above": _share([each.low > true for each in told]),
        "passes": passes(sum(covered), len(covered)),
        "bias_in_errors": round(float(errors.mean() / errors.std(ddof=1) * len(told) ** 0.5), 2),
        "mean_se": round(float(np.mean([each.se for each in told])), 4),
    }


def _share(flags: list[Any]) -> float | None:
    return round(sum(flags) / len(flags), 4) if flags else None


def passes(held: int, runs: int, comparisons: int = 20) -> bool:
    """Say whether a Bonferroni-corrected 99 % binomial interval of a coverage holds 0.95."""
    low, high = stats.binomtest(held, runs).proportion_ci(1 - 0.01 / comparisons)
    return bool(low <= 0.95 <= high)


def closed_loop(seed: int, visitors: int, holdout: float) -> Frames:
    """Let the engine decide in a shop, with fixed beliefs, and give its journal."""
    shop = Shop(visitors, 1.0, seed, load_scenario("default"))
    random = 0.1 if holdout < 1 else 0.0
    policy = PolicySettings(holdout_share=holdout, random_share=random, seed=seed)
    engine = Engine(Settings(horizon_s=HORIZON_S, lateness_s=600.0, review_s=1e9, policy=policy))
    made, came, decisions = [], [], None
    while not shop.done:
        step = engine.step(shop.step(shop.now + TICK_S * MICROS, decisions))
        decisions = step.decisions
        made.append(decisions)
        came.append(step.outcomes)
    return pl.concat(made), pl.concat(came)


def shop_lift(seed: int, visitors: int) -> tuple[LiftReport, float]:
    """Report on a run of the engine, with the true lift of the visitors it could act on."""
    own = closed_loop(seed, visitors, HOLDOUT)
    alone = decision_windows(*closed_loop(seed, visitors, 1.0)).visitors
    treated = decision_windows(*own).visitors.filter(~pl.col("holdout"))
    both = treated.join(alone.select("visitor", left_alone="value"), on="visitor")
    true = float((both["value"] - both["left_alone"]).mean())  # type: ignore[arg-type]
    return lift_report(*own), true


def main(seeds: int, shops: int) -> None:
    """Run both studies."""
    worth, reports = [lifts(logged(LAW_VISITORS, LAW_SEED))], []
    for seed in range(seeds):
        log = logged(VISITORS, seed)
        worth.append(lifts(log))
        reports.append(lift_report(*journal_of(log, seed)))
    for line in judge(reports, true_lift(worth)):
        print(json.dumps({"study": "logged", **line}), flush=True)
    ran = []
    for seed in range(shops):
        report, true = shop_lift(seed, 16_000)
        row = report.all_visitors
        ran.append((report, true))
        pair = (row.from_holdout, row.from_propensities)
        told = [[round(e.value, 2), round(e.se, 2)] for e in pair]
        print(json.dumps({"study": "closed loop", "seed": seed, "truth": true, "both": told}))
    if ran:
        mean = float(np.mean([true for _, true in ran]))
        line = next(judge([report for report, _ in ran], {None: mean}))
        print(json.dumps({"study": "closed loop", **line}))


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*(given + [200, 12][len(given) :]))
