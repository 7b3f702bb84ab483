"""Coverage of estimates from data that a bandit steered.

Run it by hand: ``python -m benchmarks.adaptive_coverage [RUNS]`` (3,000 runs: half a minute).
Batched Gaussian Thompson sampling, 25 batches of 40 rows, propensities in [0.05, 0.95]. Prints a
line of JSON for each true difference, estimate and weighting: coverage of the 95 % intervals and
whether it passes (Bonferroni-corrected 99 % binomial interval holds 0.95), bias (also in
Monte-Carlo errors), and that of the studentised estimate, (value - truth) / se, which is what the
interval is made from: weights that adapt make the value lean a little where its error is small, the
statistic not; allotted weights leave the value without bias.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from recoup.causal.adaptive import AdaptiveLog, adaptive_values

DIFFERENCES: Final = (0.0, 0.2)
ALLOTTED: Final = ("contrast", "batched")
STABILISED: Final = ("contrast, stabilised", "batched, stabilised")
ESTIMATES: Final = (*ALLOTTED, *STABILISED, "naive")


def thompson(difference: float, seed: int) -> AdaptiveLog:
    """Draw a log of two arms whose means differ by ``difference``."""
    rng = np.random.default_rng(seed)
    count, total, chance = np.zeros(2), np.zeros(2), 0.5
    arms, rewards, chances = [], [], []
    for _ in range(25):
        arm = (rng.random(40) < chance).astype(np.int64)
        reward = difference * arm + rng.standard_normal(40)
        arms.append(arm)
        rewards.append(reward)
        chances.append(np.full(40, chance))
        count += np.bincount(arm, minlength=2)
        total += np.bincount(arm, reward, minlength=2)
        gap = total[1] / count[1] - total[0] / count[0]
        chance = float(np.clip(ndtr(gap / np.sqrt((1 / count).sum())), 0.05, 0.95))
    one = np.concatenate(chances)
    return AdaptiveLog(
        arm=np.concatenate(arms),
        reward=np.concatenate(rewards),
        propensity=np.column_stack([1 - one, one]),
        batch=np.repeat(np.arange(25), 40),
    )


def run(difference: float, runs: int) -> dict[str, NDArray[np.float64]]:
    """Estimate the difference in so many logs: value, error, whether the interval holds it."""
    found: dict[str, list[tuple[float, float, bool]]] = {name: [] for name in ESTIMATES}
    for seed in range(runs):
        log = thompson(difference, seed)
        allotted, stabilised = adaptive_values(log), adaptive_values(log, weighting="stabilised")
        for name, rows in found.items():
            values = stabilised if name in STABILISED else allotted
            each = getattr(values, name.partition(",")[0])[0]
            rows.append((each.value, each.se, each.low <= difference <= each.high))
    return {name: np.array(rows, float) for name, rows in found.items()}


def judge(found: dict[str, NDArray[np.float64]], difference: float) -> Iterator[dict[str, Any]]:
    """Compare with the truth; the correction is over both differences, both estimates."""
    for name, rows in found.items():
        values, se, covered = rows.T
        interval = stats.binomtest(int(covered.sum()), len(rows)).proportion_ci(1 - 0.01 / 4)
        bias = float(values.mean()) - difference
        yield {
            "difference": difference,
            "estimate": name,
            "coverage": float(covered.mean()),
            "covers": bool(interval.low <= 0.95 <= interval.high),
            "bias": round(bias, 4),
            "bias_in_errors": _in_errors(values - difference),
            "studentised_in_errors": _in_errors((values - difference) / se),
        }


def _in_errors(off: NDArray[np.float64]) -> float:
    """Give a mean, which should be 0, in units of its Monte-Carlo error."""
    return round(float(off.mean() / off.std(ddof=1) * np.sqrt(len(off))), 2)


if __name__ == "__main__":
    for size in DIFFERENCES:
        for line in judge(run(size, int(sys.argv[1]) if len(sys.argv) > 1 else 3_000), size):
            print(json.dumps(line), flush=True)
