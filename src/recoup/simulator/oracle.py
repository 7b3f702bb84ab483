"""What is true of a log of which every outcome is known: costs of delay, regret, the best policy.

The words and formulas are those of ``recoup.causal``, with the estimates replaced by means over
known outcomes. A *rule* is a table of acts, shape (H, k): whether to act at each point in each
state, once open.
"""

from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.simulator.decision_log import STATES
from recoup.simulator.potential import MINDS, Potential

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SWEEPS: Final = 20


class DelayTruth(msgspec.Struct, frozen=True, kw_only=True):
    """True costs of waiting and missing.

    Parameters
    ----------
    delta
        Shape (H,): mean over all journeys of D where no one is acted on.
    delay_cost, miss_cost
        D and M by point and state, shape (H, k); NaN where no journey was open.
    journeys
        Open there where no one is acted on, shape (H, k).
    value_against_delay
        Shape (H,): value of acting at the first open point at or after each.
    never
        Value of never acting.
    logged
        Value of the logging policy, its own chance averaged out.
    """

    delta: Floats
    delay_cost: Floats
    miss_cost: Floats
    journeys: Ints
    value_against_delay: Floats
    never: float
    logged: float


class RegretTruth(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule would have earned beyond the log, a journey; the four parts add up to it.

    Examples
    --------
    >>> RegretTruth(early=0.1, late=0.2, missed=0.3, unnecessary=0.4).total
    1.0
    """

    early: float
    late: float
    missed: float
    unnecessary: float

    @property
    def total(self) -> float:
        """Their sum: value of the rule less value of the log."""
        return self.early + self.late + self.missed + self.unnecessary


def delay_truth(potential: Potential, state: Ints | None = None, states: int = 0) -> DelayTruth:
    """Tell the costs of waiting and missing, as means over a log's journeys.

    They are exact for these journeys. For a law's own truth take many (``visitors=200_000``).

    Parameters
    ----------
    state, states
        Another state than :data:`recoup.simulator.decision_log.STATES`: codes of shape (n, H), and
        how many there are.

    Examples
    --------
    >>> from recoup.simulator import load_scenario
    >>> from recoup.simulator.potential import potential_outcomes
    >>> truth = delay_truth(potential_outcomes(2_000, 1.0, 3, load_scenario("logged")))
    >>> gain = truth.value_against_delay[0] - truth.never
    >>> bool(abs(truth.delta.sum() - gain) < 1e-9)  # the costs of delay telescope
    True
    """
    code = potential.seen.state if state is None else state
    count = len(STATES) if state is None else states
    is_open, act = potential.is_open, _filled(potential.acting)
    following = follow(potential, np.ones((potential.points, count), np.bool_), code)
    gain = np.where(is_open, act - following[:, 1:], 0.0)
    miss = np.where(is_open, act - potential.never[:, None], 0.0)
    here = code[:, :, None] == np.arange(count)
    here &= is_open[:, :, None]
    number = here.sum(axis=0)
    return DelayTruth(
        delta=gain.mean(axis=0),
        delay_cost=_mean_by(gain, here, number),
        miss_cost=_mean_by(miss, here, number),
        journeys=number,
        value_against_delay=following[:, :-1].mean(axis=0),
        never=float(potential.never.mean()),
        logged=_logged_value(potential),
    )


def follow(potential: Potential, rule: Bools, state: Ints | None = None) -> Floats:
    """Give each journey's outcome if a rule is followed from each point on. Shape (n, H + 1).

    The last column is never acting; the first is the value of the rule.
    """
    act = _filled(potential.acting)
    acts = chosen(potential, rule, state)
    found = np.empty((len(act), potential.points + 1))
    found[:, -1] = potential.never
    for point in range(potential.points - 1, -1, -1):
        found[:, point] = np.where(acts[:, point], act[:, point], found[:, point + 1])
    return found


def chosen(potential: Potential, rule: Bools, state: Ints | None = None) -> Bools:
    """Say at which points of which journeys a rule acts, if no act came before. Shape (n, H)."""
    code = potential.seen.state if state is None else state
    return np.asarray(rule[np.arange(potential.points), code] & potential.is_open)


def regret_truth(
    potential: Potential, rule: Bools, *, judged: Literal["state", "shopper"] = "state"
) -> RegretTruth:
    """Split the log's regret against a rule; the chance of the log's own draws is averaged out.

    Parameters
    ----------
    judged
        Whether an act was needless by the mean of its point and state, and how likely the log was
        to act later likewise, which is what an estimate can aim at; or by what was to be expected
        of this very shopper, which only a simulator can say.

    Raises
    ------
    ValueError
        If shoppers shall be judged and no futures were drawn.
    """
    act, acts = _filled(potential.acting), chosen(potential, rule)
    following = follow(potential, rule)
    chance, untreated, later = _chances(potential.propensity)
    waits = untreated * (1 - chance) * acts
    if judged == "state":
        needed = _of_cells(potential, act - potential.never[:, None]) > 0
        later = _of_cells(potential, later, waits)
    elif np.isnan(potential.expected_never[potential.is_open]).any():
        raise ValueError("Expected potential outcomes with `draws`, got none")
    else:
        needed = potential.expected_acting > potential.expected_never
    soon = untreated * chance * (potential.is_open & ~acts) * (following[:, 1:] - act)
    late = waits * (act - following[:, 1:])
    return RegretTruth(
        early=_mean_sum(soon * needed),
        unnecessary=_mean_sum(soon * ~needed),
        late=_mean_sum(late * later),
        missed=_mean_sum(late * (1 - later)),
    )


def best_rule(potential: Potential, state: Ints | None = None, states: int = 0) -> Bools:
    """Find the rule on a state that earns most on these journeys. Shape (H, k).

    Backwards from the last point, then one cell after the other until none gains: states need not
    tell everything about the past, so that an earlier act may change who comes later.
    """
    code = potential.seen.state if state is None else state
    count = len(STATES) if state is None else states
    rule = np.zeros((potential.points, count), np.bool_)
    for _ in range(_SWEEPS):
        before = rule.copy()
        for point in range(potential.points - 1, -1, -1):
            rule[point] = _best_at(potential, rule, point, code, count)
        if (rule == before).all():
            break
    return rule


def _best_at(potential: Potential, rule: Bools, point: int, code: Ints, count: int) -> Bools:
    """Act in the states of a point in which that earns more, among those not acted on before."""
    acts = chosen(potential, rule, code)
    still = ~acts[:, :point].any(axis=1) & potential.is_open[:, point]
    gain = potential.acting[:, point] - follow(potential, rule, code)[:, point + 1]
    rows = np.flatnonzero(still)
    total = np.bincount(code[rows, point], gain[rows], minlength=count)
    return total > 0


def observed_state(potential: Potential) -> tuple[Ints, int]:
    """Code what a policy sees: its state and the act that fits first. Shape (n, H), and a count."""
    acts = potential.eligible.shape[2]
    code = potential.seen.state * acts + potential.eligible.argmax(axis=2)
    return np.where(potential.seen.state < 0, -1, code), len(STATES) * acts


def shopper_state(potential: Potential) -> tuple[Ints, int]:
    """Code what the shopper hides: intention, and what an act is expected to bring. (n, H), count.

    Needs ``draws``.
    """
    gain = np.nan_to_num(potential.expected_acting - potential.expected_never)
    rank = np.digitize(gain, GAINS)
    return np.asarray(potential.mind * (len(GAINS) + 1) + rank), len(MINDS) * (len(GAINS) + 1)


GAINS: Final = (-3.0, -0.5, 1e-9, 2.0, 6.0, 15.0)
"""Bounds of the classes of expected gain, in currency units."""


class Oracles(msgspec.Struct, frozen=True, kw_only=True):
    """What could be earned at best, a journey.

    Parameters
    ----------
    never, logged
        Without acts, and under the logging policy.
    observable
        By the best rule on what a policy sees.
    latent
        By the best rule on what shoppers hide; None where no futures were drawn.
    """

    never: float
    logged: float
    observable: float
    latent: float | None


def oracles(potential: Potential) -> Oracles:
    """Find the best rules on each half of the journeys, and judge them on the other.

    Examples
    --------
    >>> from recoup.simulator import load_scenario
    >>> from recoup.simulator.potential import potential_outcomes
    >>> found = oracles(potential_outcomes(9_000, 1.0, 5, load_scenario("logged"), draws=4))
    >>> bool(found.latent > found.observable > found.logged)
    True
    """
    sees = not np.isnan(potential.expected_never[potential.is_open]).any()
    return Oracles(
        never=float(potential.never.mean()),
        logged=_logged_value(potential),
        observable=_crossed(potential, *observed_state(potential)),
        latent=_crossed(potential, *shopper_state(potential)) if sees else None,
    )


def _crossed(potential: Potential, code: Ints, count: int) -> float:
    rows = np.arange(len(code))
    total = 0.0
    for half in (0, 1):
        learn, judge = rows[rows % 2 == half], rows[rows % 2 != half]
        rule = best_rule(potential.of(learn), code[learn], count)
        total += follow(potential.of(judge), rule, code[judge])[:, 0].sum()
    return float(total / max(len(rows), 1))


def _filled(acting: Floats) -> Floats:
    return np.nan_to_num(acting)


def _mean_by(effect: Floats, here: Bools, number: Ints) -> Floats:
    total = (effect[:, :, None] * here).sum(axis=0)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _of_cells(potential: Potential, effect: Floats, weight: Floats | None = None) -> Floats:
    """Replace each effect by the weighted mean over its point and state. Shape (n, H)."""
    weights = potential.is_open * (1.0 if weight is None else weight)
    points, count = potential.points, len(STATES)
    cell = np.arange(points) * count + np.maximum(potential.seen.state, 0)
    size = points * count
    total = np.bincount(cell.ravel(), (effect * weights).ravel(), size)
    number = np.bincount(cell.ravel(), weights.ravel(), size)
    means = np.divide(total, number, out=np.zeros(size), where=number > 0)
    return np.asarray(means[cell])


def _chances(propensity: Floats) -> tuple[Floats, Floats, Floats]:
    """Give P(act), P(no act before) and P(an act afterwards | none so far), each (n, H)."""
    stays = 1 - propensity
    before = np.hstack([np.ones((len(stays), 1)), np.cumprod(stays, axis=1)[:, :-1]])
    after = np.cumprod(stays[:, ::-1], axis=1)[:, ::-1]
    none_after = np.hstack([after[:, 1:], np.ones((len(stays), 1))])
    return propensity, before, 1 - none_after


def _logged_value(potential: Potential) -> float:
    chance, untreated, _ = _chances(potential.propensity)
    acted = untreated * chance
    alone = 1 - acted.sum(axis=1)
    return _mean_sum(acted * _filled(potential.acting)) + float((alone * potential.never).mean())


def _mean_sum(terms: Floats) -> float:
    return float(terms.sum(axis=1).mean())
