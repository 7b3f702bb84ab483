"""Coverage of everything `evaluate_delay` says, against a problem that is solved exactly.

Run it by hand: ``python -m benchmarks.waiting_coverage [REPETITIONS]`` (2,000: about four minutes).
The problem is that of the ``when_to_treat`` vectors, with every point open, and with points that
open and close. Prints a line of JSON for each study and kind of figure: the lowest and highest
coverage of the 95 % intervals, the largest bias in Monte-Carlo errors, and what does not pass
(Bonferroni-corrected 99 % binomial interval holds 0.95; bias within 3).
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from recoup.causal.delay import Delay, evaluate_delay
from recoup.causal.delay_scores import Variant
from recoup.causal.estimate import Estimate
from recoup.causal.known_truth import WaitingProblem, reference_problem

Table = NDArray[np.bool_]
Found = dict[str, list[Estimate]]

PARTS: Final = ("early", "late", "missed", "unnecessary")
UNLESS_CALM: Final = np.array([[0, 1, 1]] * 4, bool)
"""The best policy of the problem; acts that are early never happen under it."""
FROM_THIRD: Final = np.array([[0, 0, 0]] * 2 + [[1, 1, 1]] * 2, bool)
"""A policy that begins late, so that the log's acts before are early."""


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """A log's size and what is asked of it; ``stated``: the sign of M is, in advance."""

    policy: Table
    journeys: int
    closing: bool = False
    variant: Variant = "adr"
    stated: bool = False

    @property
    def problem(self) -> WaitingProblem:
        """The problem with its exact solution."""
        return reference_problem(closing=self.closing)

    def run(self, repetitions: int) -> tuple[Found, float]:
        """Estimate from so many logs; also the share of curves within their bands."""
        problem, paths = self.problem, self.problem.paths()
        needed = problem.miss_cost > 0 if self.stated else None
        want, found, inside = truths(problem, self.policy), defaultdict(list), 0
        for seed in range(repetitions):
            each = evaluate_delay(
                paths.draw(self.journeys, seed), self.policy, variant=self.variant, needed=needed
            )
            for name, estimate in figures(each).items():
                found[name].append(estimate)
            inside += all(
                point.band_low <= want[f"from {point.time}"] <= point.band_high
                for point in each.value_against_delay
            )
        return dict(found), inside / repetitions


def figures(found: Delay) -> dict[str, Estimate]:
    """Name every estimate."""
    named: dict[str, Estimate] = {
        "advantage": found.advantage,
        "policy": found.policy_value,
        "log": found.logged_value,
        "regret": found.regret,
    }
    named |= {part: getattr(found.regret, part) for part in PARTS}
    named |= {f"delta {each.time}": each for each in found.delta_by_time}
    named |= {f"from {each.time}": each for each in found.value_against_delay}
    named |= {f"D {each.time} {each.state}": each for each in found.delay_cost_by_state}
    return named | {f"M {each.time} {each.state}": each for each in found.miss_cost_by_state}


def truths(problem: WaitingProblem, policy: Table) -> dict[str, float]:
    """Give the exact value of everything in `figures`."""
    value, never = problem.value(policy), problem.value(np.zeros(problem.shape))
    parts = problem.regret(policy)
    named = {"advantage": value - never, "policy": value, "regret": sum(parts.values())} | parts
    named["log"] = problem.value(problem.propensity)
    for point in range(problem.shape[0]):
        rule = np.zeros(problem.shape)
        rule[point:] = 1
        named[f"from {point + 1}"] = problem.value(rule)
        named[f"delta {point + 1}"] = float(problem.delta[point])
        for state in range(problem.shape[1]):
            named[f"D {point + 1} {state}"] = float(problem.delay_cost[point, state])
            named[f"M {point + 1} {state}"] = float(problem.miss_cost[point, state])
    return named


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a figure's intervals hold the truth; ``bias`` in Monte-Carlo errors."""

    figure: str
    coverage: float
    covers: bool
    bias: float


def judge(found: Found, want: dict[str, float]) -> Iterator[Verdict]:
    """Compare estimates with the truth; what is 0 in most logs, and in truth, is left out."""
    told = {
        name: each
        for name, each in found.items()
        if want[name] != 0 or np.median([one.value for one in each]) != 0
    }
    for name, each in told.items():
        covered = sum(one.low <= want[name] <= one.high for one in each)
        interval = stats.binomtest(covered, len(each)).proportion_ci(1 - 0.01 / (len(told) + 1))
        values = np.array([one.value for one in each])
        error = values.std(ddof=1) / np.sqrt(len(each))
        yield Verdict(
            figure=name,
            coverage=covered / len(each),
            covers=bool(interval.low <= 0.95 <= interval.high),
            bias=float((values.mean() - want[name]) / error),
        )


def _studies() -> Iterator[tuple[str, Study]]:
    variants: tuple[Variant, ...] = ("adr", "adr2")
    for closing in (False, True):
        points, journeys = ("closing", 12_000) if closing else ("open", 5_000)
        for variant in variants:
            yield (
                f"best, {points}, {variant}, sign stated",
                Study(
                    policy=UNLESS_CALM,
                    journeys=journeys,
                    closing=closing,
                    variant=variant,
                    stated=True,
                ),
            )
        for stated in (False, True):
            sign = f"{points}, adr, sign {'stated' if stated else 'estimated'}"
            late = Study(policy=FROM_THIRD, journeys=journeys, closing=closing, stated=stated)
            yield f"late, {sign}", late
            if not stated:
                yield f"best, {sign}", msgspec.structs.replace(late, policy=UNLESS_CALM)


STUDIES: Final = dict(_studies())


def _lines(name: str, study: Study, repetitions: int) -> Iterator[dict[str, Any]]:
    found, band = study.run(repetitions)
    verdicts = list(judge(found, truths(study.problem, study.policy)))
    kinds: dict[str, list[Verdict]] = defaultdict(list)
    for each in verdicts:
        kinds[each.figure.split()[0]].append(each)
    for kind, group in kinds.items():
        worst = max(group, key=lambda each: abs(each.bias))
        yield {
            "study": name,
            "figure": kind,
            "coverage": [min(e.coverage for e in group), max(e.coverage for e in group)],
            "bias": round(worst.bias, 2),
            "fails": [e.figure for e in group if not (e.covers and abs(e.bias) <= 3)],
        }
    yield {"study": name, "figure": "band", "coverage": band}


if __name__ == "__main__":
    for title, study in STUDIES.items():
        for line in _lines(title, study, int(sys.argv[1]) if len(sys.argv) > 1 else 2_000):
            print(json.dumps(line), flush=True)
