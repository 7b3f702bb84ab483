"""What waiting cost, what a miss cost, and what the log gave up against a stated policy.

For journeys with decision points, an act at most once, and logged propensities. Let Q1 be the value
of acting at a point, N of waiting and acting at the next OPEN point, V0 of never acting. Then

- the cost of waiting is D = Q1 - N: below 0 it says that waiting is better, not that acting is
  needless;
- the cost of a miss is M = Q1 - V0, the sum of D over what follows where no one is acted on;
- the regret of the log against a policy is split into acts that were *early* (the policy waits
  here, and an act is worth more than none) or *unnecessary* (worth no more), and points where the
  policy acts and the log did not: *late* where it acted afterwards, else *missed*.

Every interval is Student's (see `recoup.causal.estimate.freedom`), on scores that are doubly robust
and clustered by what is independent. Nuisances are fitted on other folds. An act where the policy
waits counts as unnecessary until the log shows that it was worth something: where M is above 0 by
sqrt(log n) standard errors, a bound that both kinds of mistakes vanish with. Where M is above 0 and
that is not shown yet, the two parts (not their sum) are off; `Delay.undecided_share` says how far.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from recoup.causal.delay_scores import (
    PolicyScores,
    Variant,
    policy_scores,
    starting_scores,
    waiting_scores,
)
from recoup.causal.delay_support import Support, act_weights, effective_size, support_at
from recoup.causal.estimate import (
    Estimate,
    Floats,
    mean,
    mean_estimate,
    normal_quantile,
    ratio_estimate,
)
from recoup.causal.journeys import Bools, Journeys, Known
from recoup.causal.nuisance import Nuisance, RegressorFactory, cross_fit
from recoup.causal.off_policy import refusal
from recoup.errors import ConfigError

BAND_DRAWS: Final = 20_000
BAND_SEED: Final = 12_345
MOST_STATES: Final = 200

Policy = Floats | Bools | Sequence[Sequence[float]]


class AtTime(Estimate, frozen=True, kw_only=True):
    """An estimate at one decision point.

    Parameters
    ----------
    time
        Label of the point.
    state, segment, label
        Of the state or segment it is for, or what else was known there; None where it is for all.
    refused
        Why too few acts stand behind it to be used, or None.

    Examples
    --------
    >>> AtTime(1.0, 0.5, 1.5, 0.25, time=3).time
    3
    """

    time: object
    state: object = None
    segment: object = None
    label: object = None
    refused: str | None = None


class Delayed(AtTime, frozen=True, kw_only=True):
    """The value of a rule that acts at the first open point at or after ``time``.

    Parameters
    ----------
    band_low, band_high
        Simultaneous band over all times: it holds the whole curve with the stated confidence.
    advantage
        Over never acting.

    Examples
    --------
    >>> gain = Estimate(1.0, 0.0, 2.0, 0.5)
    >>> Delayed(9.0, 8, 10, 0.5, time=1, band_low=7, band_high=11, advantage=gain).band_low
    7
    """

    band_low: float
    band_high: float
    advantage: Estimate


class Regret(Estimate, frozen=True, kw_only=True):
    """What a policy would have earned beyond the log, per journey; the four parts add up to it.

    Examples
    --------
    >>> part = Estimate(1.0, 0.0, 2.0, 0.5)
    >>> whole = Regret(4.0, 2, 6, 1, early=part, late=part, missed=part, unnecessary=part)
    >>> whole.value - whole.early.value - whole.late.value
    2.0
    """

    early: Estimate
    late: Estimate
    missed: Estimate
    unnecessary: Estimate


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """What acting, waiting and missing were worth.

    Parameters
    ----------
    delta_by_time
        In order of time: the mean over all journeys of D at that point where no one is acted on.
    delay_cost_by_state, miss_cost_by_state
        D and M by time and state, among journeys open there.
    delay_cost_by_label, miss_cost_by_label
        The same by each column that was named beside the state, such as the defect type.
    delta_by_segment
        Like ``delta_by_time``, within each segment.
    value_against_delay
        Value of acting at the first open point at or after each time.
    advantage
        Of the policy over never acting.
    policy_value, logged_value
        Value of the policy, and mean outcome of the log.
    regret
        Of the log against the policy.
    policy
        Its name.
    undecided_share
        Of the acts where the policy waits, the share in a time and state whose miss cost may be
        above 0 and is not known to be: counted as *unnecessary*, they may have been *early*. NaN
        with too many states to tell; the sign of the predicted M decides then.
    policy_effective_sample_size
        How many journeys of the policy's own log this one is worth.
    refused
        Why advantage, policy value and regret must not be used, or None.
    diagnostics
        By time.

    Examples
    --------
    See `evaluate_delay`.
    """

    delta_by_time: list[AtTime]
    delay_cost_by_state: list[AtTime]
    miss_cost_by_state: list[AtTime]
    delay_cost_by_label: dict[str, list[AtTime]]
    miss_cost_by_label: dict[str, list[AtTime]]
    delta_by_segment: list[AtTime]
    value_against_delay: list[Delayed]
    advantage: Estimate
    policy_value: Estimate
    logged_value: Estimate
    regret: Regret
    policy: str
    undecided_share: float
    policy_effective_sample_size: float
    refused: str | None
    diagnostics: list[Support]
    journeys: float
    variant: Variant
    level: float


def evaluate_delay(
    journeys: Journeys,
    policy: Policy | None = None,
    *,
    regressor: RegressorFactory | None = None,
    variant: Variant = "adr",
    level: float = 0.95,
    needed: Policy | None = None,
    nuisance: Callable[[Bools], Nuisance] | None = None,
) -> Delay:
    """Estimate the costs of delay and of misses, and the log's regret against a policy.

    Parameters
    ----------
    journeys
        See `journeys_from_table`.
    policy
        Shape (H, k): whether to act at each time and state, once open. Where None: act at the first
        open point.
    regressor
        Makes a regressor (``fit(X, y, sample_weight=)``, ``predict(X)``); means by time and state
        where None.
    variant
        ``adr``, or ``adr2``, which leans more on the model of Q1 and is often a little tighter.
    needed
        Shape (H, k): where an act is worth more than none, stated in advance. Where None the log
        must show it, and the split into early and unnecessary is sure only as far as
        ``undecided_share`` is small.
    nuisance
        Gives the nuisances of a policy, shape (n, H), in place of cross-fitting.

    Examples
    --------
    >>> from recoup.causal.known_truth import reference_problem
    >>> log = reference_problem().paths().draw(50_000, seed=1)
    >>> found = evaluate_delay(log, [[0, 1, 1]] * 4)
    >>> [round(each.value, 1) for each in found.delta_by_time]  # truth: -0.3, 0.8, 1.2, 0.9
    [-0.2, 0.7, 1.0, 1.2]
    >>> found.regret.low < 4.43 < found.regret.high
    True

    References
    ----------
    Nie, Brunskill & Wager (2021), Learning when-to-treat policies, JASA 116.
    """
    acts = policy_matrix(journeys, policy)
    fitted = (nuisance or (lambda rule: cross_fit(journeys, rule, regressor)))(acts)
    mean_of = _Means(journeys, level)
    psi = waiting_scores(journeys, fitted, variant)
    missing = _sum_from(psi)
    misses = _by_state(mean_of, missing)
    worth = _shown_worth(journeys, misses, mean_of.rows) if needed is None else needed
    scores = policy_scores(
        journeys, fitted, acts, None if worth is None else policy_matrix(journeys, worth)
    )
    effective, share = effective_size(scores.weight, journeys.count)
    support = [support_at(journeys, point) for point in range(journeys.points)]
    undecided = math.nan if worth is None else 0.0
    if needed is None and worth is not None:
        undecided = _undecided(journeys, acts, misses, worth)
    return Delay(
        delta_by_time=[mean_of.at(psi[:, p], at) for p, at in enumerate(support)],
        delay_cost_by_state=_by_state(mean_of, psi),
        miss_cost_by_state=misses,
        delay_cost_by_label={each.name: _by_label(mean_of, psi, each) for each in journeys.known},
        miss_cost_by_label={
            each.name: _by_label(mean_of, missing, each) for each in journeys.known
        },
        delta_by_segment=_by_segment(mean_of, psi),
        value_against_delay=_curve(mean_of, psi, fitted, support),
        advantage=mean_of(starting_scores(journeys, psi, acts)),
        policy_value=mean_of(scores.value),
        logged_value=mean_of(journeys.outcome),
        regret=_regret(mean_of, scores),
        policy="first open point" if policy is None else "stated",
        undecided_share=undecided,
        policy_effective_sample_size=effective,
        refused=refusal(effective, share) or _unsupported(journeys, acts, scores.weight),
        diagnostics=support,
        journeys=mean_of.rows,
        variant=variant,
        level=level,
    )


def _unsupported(journeys: Journeys, acts: Bools, weight: Floats) -> str | None:
    """Say why acts like the policy's are too few, or None; waiting alike shows nothing of them."""
    if not acts.any():
        return None
    acted = weight * (journeys.act_at < journeys.points)
    reason = refusal(*effective_size(acted, journeys.count))
    return None if reason is None else f"of acts that the policy would take, {reason}"


def policy_matrix(journeys: Journeys, policy: Policy | None) -> Bools:
    """Say at each journey's open points, shape (n, H), whether a policy of shape (H, k) acts.

    Raises
    ------
    ConfigError
        If its shape is not decision points x states, or it holds other numbers than 0 and 1.
    """
    if policy is None:
        return journeys.is_open
    wanted = (journeys.points, len(journeys.states))
    rows = [np.atleast_1d(np.asarray(row, np.float64)) for row in policy]
    sizes = sorted({len(row) for row in rows})
    if len(rows) != wanted[0] or sizes != [wanted[1]]:
        raise ConfigError(
            f"Expected a policy of {wanted[0]} times x {wanted[1]} states, got {len(rows)} rows of "
            f"{' or '.join(map(str, sizes))}",
            hint=f"times are {journeys.times}, states {journeys.states[:20]}, in this order",
        )
    table = np.stack(rows) > 0
    if not np.isin(np.stack(rows), (0, 1)).all():
        raise ConfigError(
            "Expected a policy of 0 and 1, got others",
            hint="for one that draws: recoup evaluate policy",
        )
    return np.asarray(table[np.arange(journeys.points), journeys.state] & journeys.is_open)


def policy_from_rows(journeys: Journeys, rows: Mapping[tuple[object, object], float]) -> Bools:
    """Make a policy of shape (H, k) from (time, state) -> act; what is not named waits.

    Raises
    ------
    ConfigError
        If a time or a state is not one of the log's.
    """
    times = {label: code for code, label in enumerate(journeys.times)}
    states = {label: code for code, label in enumerate(journeys.states)}
    table = np.zeros((len(times), len(states)), np.bool_)
    for (time, state), act in rows.items():
        if time not in times or state not in states:
            raise ConfigError(
                f"Expected a time and a state of the log, got {time!r} and {state!r}",
                hint=f"times are {journeys.times}, states {journeys.states[:20]}",
            )
        table[times[time], states[state]] = act > 0
    return table


class _Means:
    def __init__(self, journeys: Journeys, level: float) -> None:
        self.log, self.level = journeys, level
        count = journeys.count
        self.rows = float(len(journeys.outcome) if count is None else count.sum())

    def __call__(self, scores: Floats) -> Estimate:
        log = self.log
        return mean_estimate(scores, level=self.level, clusters=log.cluster, count=log.count)

    def at(self, scores: Floats, support: Support) -> AtTime:
        told = _labelled(self(scores), time=support.time)
        return msgspec.structs.replace(told, refused=support.refused)

    def ratio(self, top: Floats, bottom: Floats) -> Estimate:
        log = self.log
        return ratio_estimate(top, bottom, level=self.level, clusters=log.cluster, count=log.count)


def _labelled(found: Estimate, *, time: object, label: object = None) -> AtTime:
    return AtTime(found.value, found.low, found.high, found.se, time=time, label=label)


def _sum_from(psi: Floats) -> Floats:
    return np.asarray(psi[:, ::-1].cumsum(axis=1)[:, ::-1])


def _by_state(mean_of: _Means, effect: Floats) -> list[AtTime]:
    """Estimate effects among journeys that no one acted on before, by time and state."""
    log = mean_of.log
    if len(log.states) > MOST_STATES:
        return []
    states = Known("state", log.states, log.state)
    return [
        msgspec.structs.replace(each, state=each.label, label=None)
        for each in _by_label(mean_of, effect, states)
    ]


def _by_label(mean_of: _Means, effect: Floats, known: Known) -> list[AtTime]:
    """Estimate effects among journeys that no one acted on before, by time and label.

    Right for any label that is known at the point, in the state or not: the weights are known.
    """
    log, found = mean_of.log, []
    if len(known.labels) > MOST_STATES:
        raise ConfigError(
            f"Expected at most {MOST_STATES} labels, got {len(known.labels)} in {known.name!r}",
            hint="band it, or put the rare ones together",
        )
    untreated = log.untreated
    for point, time in enumerate(log.times):
        acted = act_weights(log, point)
        for code, label in enumerate(known.labels):
            here = log.is_open[:, point] & (known.code[:, point] == code)
            if here.any():
                weight = here / untreated[:, point]
                each = mean_of.ratio(effect[:, point] * here, weight)
                reason = refusal(*effective_size(acted * here, log.count))
                told = _labelled(each, time=time, label=label)
                found.append(msgspec.structs.replace(told, refused=reason))
    return found


def _cells(journeys: Journeys, chosen: list[AtTime]) -> Bools:
    """Mark times and states, shape (H, k)."""
    marked = np.zeros((journeys.points, len(journeys.states)), np.bool_)
    times = {label: code for code, label in enumerate(journeys.times)}
    states = {label: code for code, label in enumerate(journeys.states)}
    for each in chosen:
        marked[times[each.time], states[each.state]] = True
    return marked


def _shown_worth(journeys: Journeys, misses: list[AtTime], rows: float) -> Bools | None:
    """Mark where the log shows that an act is worth more than none; None with too many states."""
    if len(journeys.states) > MOST_STATES:
        return None
    bound = math.sqrt(math.log(max(rows, 2.0)))
    return _cells(journeys, [miss for miss in misses if miss.value > bound * miss.se])


def _undecided(journeys: Journeys, acts: Bools, misses: list[AtTime], worth: Policy) -> float:
    """Give the share of needless acts that may have been early, for all that the log shows."""
    doubtful = _cells(journeys, [miss for miss in misses if miss.high >= 0]) & ~np.asarray(worth)
    soon = (journeys.act_at[:, None] == np.arange(journeys.points)) & journeys.is_open & ~acts
    unsure = doubtful[np.arange(journeys.points), journeys.state]
    count = np.ones(len(soon)) if journeys.count is None else journeys.count
    total = float(soon.sum(axis=1) @ count)
    return float((soon & unsure).sum(axis=1) @ count) / total if total > 0 else 0.0


def _by_segment(mean_of: _Means, psi: Floats) -> list[AtTime]:
    log = mean_of.log
    if log.segment is None:
        return []
    found = []
    for code, label in enumerate(log.segments):
        here = log.segment == code
        for point, time in enumerate(log.times):
            each = _labelled(mean_of.ratio(psi[:, point] * here, here * 1.0), time=time)
            reason = refusal(*effective_size(act_weights(log, point) * here, log.count))
            found.append(msgspec.structs.replace(each, segment=label, refused=reason))
    return found


def _curve(
    mean_of: _Means, psi: Floats, fitted: Nuisance, support: Sequence[Support]
) -> list[Delayed]:
    log = mean_of.log
    never = policy_scores(
        log, msgspec.structs.replace(fitted, follow=fitted.never), np.zeros_like(log.is_open)
    ).value
    advantage = _sum_from(psi)
    values = [mean_of(never + advantage[:, point]) for point in range(log.points)]
    reach = _band_reach(mean_of, never[:, None] + advantage) / normal_quantile(mean_of.level)
    return [
        Delayed(
            each.value,
            each.low,
            each.high,
            each.se,
            time=log.times[point],
            refused=support[point].refused,
            band_low=each.value - reach * (each.value - each.low),
            band_high=each.value + reach * (each.high - each.value),
            advantage=mean_of(advantage[:, point]),
        )
        for point, each in enumerate(values)
    ]


def _band_reach(mean_of: _Means, scores: Floats) -> float:
    """Give how many standard errors hold all columns' means at once, by normal simulation."""
    log = mean_of.log
    count = np.ones(len(scores)) if log.count is None else log.count
    centred = scores - np.array([mean(column, log.count) for column in scores.T])
    if log.cluster is None:
        spread = (centred * count[:, None]).T @ centred
    else:
        sums = np.array([np.bincount(log.cluster, column * count) for column in centred.T])
        spread = sums @ sums.T
    scale = np.sqrt(np.diag(spread))
    if not (scale > 0).all():
        return normal_quantile(mean_of.level)
    roots, vectors = np.linalg.eigh(spread / np.outer(scale, scale))
    draws = np.random.default_rng(BAND_SEED).standard_normal((BAND_DRAWS, len(scale)))
    field = draws * np.sqrt(np.maximum(roots, 0.0)) @ vectors.T
    return float(np.quantile(np.abs(field).max(axis=1), mean_of.level))


def _regret(mean_of: _Means, scores: PolicyScores) -> Regret:
    whole = mean_of(scores.value - mean_of.log.outcome)
    return Regret(
        whole.value,
        whole.low,
        whole.high,
        whole.se,
        early=mean_of(scores.early),
        late=mean_of(scores.late),
        missed=mean_of(scores.missed),
        unnecessary=mean_of(scores.unnecessary),
    )
