"""Off-policy evaluation on a million decisions against plain numpy; a learner of effects."""

import statistics

import numpy as np

from benchmarks.harness import RUNS, cpu_seconds, report
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import off_policy
from recoup.causal.shrinkage import Shrinkage
from recoup.causal.uplift import Experiment, learn_uplift

ROWS = 1_000_000
SEED = 20_240_611


def decisions(rows: int) -> LoggedDecisions:
    """Draw a log of rare rewards under unequal propensities."""
    rng = np.random.default_rng(SEED)
    propensity = rng.uniform(0.05, 0.9, rows)
    rate = rng.uniform(0.0, 0.1, rows)
    return LoggedDecisions(
        reward=(rng.random(rows) < rate).astype(np.float64),
        propensity=propensity,
        target=rng.uniform(0.0, 1.0, rows),
        quality=rate,
        value=rate * 1.1,
    )


def plain(log: LoggedDecisions) -> dict[str, tuple[float, float]]:
    """Estimate IPS, SNIPS and DR one after another, each from its own array of scores."""
    assert log.quality is not None
    assert log.value is not None
    weights = log.target / log.propensity
    ips = weights * log.reward
    snips = ips / weights.mean()
    influence = (weights / weights.mean()) * (log.reward - snips.mean())
    robust = log.value + weights * (log.reward - log.quality)
    root = np.sqrt(len(weights))
    return {
        "ips": (float(ips.mean()), float(ips.std(ddof=1) / root)),
        "snips": (float(snips.mean()), float(influence.std(ddof=1) / root)),
        "dr": (float(robust.mean()), float(robust.std(ddof=1) / root)),
    }


def main() -> None:
    """Run both."""
    bench_off_policy()
    bench_uplift()


def bench_uplift() -> None:
    """Time a doubly robust learner with group intervals on 64,000 x 10."""
    rng = np.random.default_rng(SEED)
    features, treated = rng.normal(size=(64_000, 10)), rng.integers(0, 2, 64_000)
    outcome = features[:, 1] + treated * (features[:, 0] > 0) + rng.normal(size=64_000)
    half = np.full(64_000, 0.5)
    data = Experiment(features=features, treated=treated, outcome=outcome, propensity=half)
    assert learn_uplift(data).groups[0].low > 0.9
    report(
        "uplift_dr_learner",
        ours=statistics.median(cpu_seconds(lambda: learn_uplift(data)) for _ in range(3)),
        peer=None,
        peer_name="none",
        ratio=None,
        unit="cpu_s",
        runs=3,
    )


def bench_off_policy() -> None:
    """Check that ours equals the peer's, then time both."""
    log, limits = decisions(ROWS), Shrinkage()
    found = off_policy(log, shrinkage=limits).estimates
    for name, (value, se) in plain(log).items():
        assert np.isclose(found[name].value, value, rtol=1e-10), name
        assert np.isclose(found[name].se, se, rtol=1e-10), name
    times = [
        (cpu_seconds(lambda: off_policy(log, shrinkage=limits)), cpu_seconds(lambda: plain(log)))
        for _ in range(RUNS)
    ]
    report(
        "off_policy_million",
        ours=1e3 * statistics.median(ours for ours, _ in times),
        peer=1e3 * statistics.median(peer for _, peer in times),
        peer_name="numpy, three estimates",
        ratio=statistics.median(peer / ours for ours, peer in times),
        unit="cpu_ms",
        estimates=len(found),
    )


if __name__ == "__main__":
    main()
