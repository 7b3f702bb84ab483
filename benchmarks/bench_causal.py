"""Off-policy evaluation against plain numpy in the manner of obp, on a million decisions."""

import statistics

import numpy as np

from benchmarks.harness import RUNS, cpu_seconds, report
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import off_policy
from recoup.causal.shrinkage import Shrinkage

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
