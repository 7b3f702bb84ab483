"""What a whole policy would have earned, over several points and among several actions.

The score is per-decision, augmented and inverse-propensity weighted: with n the score of what
follows (that of the next open point, or the outcome), Q the value of an action followed by the
policy, and V its mean under the policy pi,

    Gamma = V(S) + pi(A | S) / p(A) (n - Q(S, A)).

Its mean over first points is the policy's value, whatever Q, where propensities are right; Q is
fitted backwards on other folds. Gamma - n sums up to the log's regret, point by point.
"""

import math

import msgspec
import numpy as np

from recoup.causal.choices import Choices
from recoup.causal.delay import AtTime
from recoup.causal.estimate import Estimate, Floats, mean_estimate
from recoup.causal.journeys import Bools
from recoup.causal.nuisance import CellMeans, RegressorFactory, fit_regressor
from recoup.causal.off_policy import refusal, unsupported_reason
from recoup.errors import ConfigError


class PolicyValue(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would have earned, per journey.

    Parameters
    ----------
    value
        Of the policy.
    logged
        Of the log.
    regret
        Value less the log's: what the log gave up.
    regret_by_time
        Its parts by decision point; they add up to it.
    effective_sample_size
        How many journeys of the policy the log is worth.
    largest_weight, largest_share
        Of one journey's choices, and its share of all weight.
    unsupported_mass
        The policy's probability, at the log's open points, of actions never logged at that time and
        state.
    refused
        Why the log cannot answer, or None.

    Examples
    --------
    See `evaluate_policy`.
    """

    journeys: int
    value: Estimate
    logged: Estimate
    regret: Estimate
    regret_by_time: list[AtTime]
    effective_sample_size: float
    largest_weight: float
    largest_share: float
    unsupported_mass: float
    refused: str | None
    level: float


def evaluate_policy(
    choices: Choices,
    policy: Floats,
    *,
    regressor: RegressorFactory | None = None,
    level: float = 0.95,
) -> PolicyValue:
    """Estimate the value of a policy, and the log's regret against it.

    Parameters
    ----------
    policy
        Shape (H, states, actions): probability of each action; see
        `recoup.causal.choices.choice_policy`.
    regressor
        Makes a regressor of the state's features, fitted anew at each point and action; means by
        state where None. Any state will do: a poor one costs precision alone.

    Raises
    ------
    ConfigError
        If the policy has another shape.

    Examples
    --------
    >>> from recoup.causal.repeated_acts import fatigue_problem
    >>> problem = fatigue_problem()
    >>> policy = np.zeros((3, 3, 3))
    >>> policy[:, 0, 0] = policy[:, 1:, 2] = 1  # the second offer, to those who are not calm
    >>> found = evaluate_policy(problem.draw(20_000, seed=1), policy)
    >>> found.value.low < problem.value(policy) < found.value.high
    True

    References
    ----------
    Jiang & Li (2016), Doubly robust off-policy value evaluation for reinforcement learning. Thomas
    & Brunskill (2016), Data-efficient off-policy policy evaluation for reinforcement learning.
    """
    shape = (len(choices.times), len(choices.states), len(choices.actions))
    if policy.shape != shape:
        raise ConfigError(
            f"Expected a policy of shape {shape}, got {policy.shape}",
            hint="(times, states, actions) of the log; choice_policy makes it from a table",
        )
    quality = _cross_fit(choices, policy, regressor)
    steps = np.zeros(choices.is_open.shape)
    following, weight = choices.outcome.copy(), np.ones(len(choices.outcome))
    for point in range(choices.points - 1, -1, -1):
        here = choices.is_open[:, point]
        wanted = _wanted(choices, policy, point)
        ratio = _picked(wanted, choices, point) / choices.propensity[:, point]
        score = (wanted * quality[:, point]).sum(axis=1)
        score = score + ratio * (following - _picked(quality[:, point], choices, point))
        steps[:, point] = np.where(here, score - following, 0.0)
        following = np.where(here, score, following)
        weight = np.where(here, weight * ratio, weight)
    unsupported = _unsupported(choices, policy)
    return _result(choices, following, steps, weight, unsupported, level)


def _result(
    choices: Choices,
    scores: Floats,
    steps: Floats,
    weight: Floats,
    unsupported: float,
    level: float,
) -> PolicyValue:
    def estimate(values: Floats) -> Estimate:
        return mean_estimate(values, level=level, clusters=choices.cluster)

    by_time = []
    for point, time in enumerate(choices.times):
        part = estimate(steps[:, point])
        by_time.append(AtTime(part.value, part.low, part.high, part.se, time=time))
    total = float(weight.sum())
    effective = total**2 / float(weight @ weight) if total > 0 else 0.0
    share = float(weight.max()) / total if total > 0 else 1.0
    reasons = (refusal(effective, share), unsupported_reason(unsupported))
    return PolicyValue(
        journeys=len(scores),
        value=estimate(scores),
        logged=estimate(choices.outcome),
        regret=estimate(scores - choices.outcome),
        regret_by_time=by_time,
        effective_sample_size=effective,
        largest_weight=float(weight.max()) if len(weight) else math.nan,
        largest_share=share,
        unsupported_mass=unsupported,
        refused="; ".join(filter(None, reasons)) or None,
        level=level,
    )


def _unsupported(choices: Choices, policy: Floats) -> float:
    rows, points = np.nonzero(choices.is_open)
    if not len(rows):
        return 0.0
    state, action = choices.state[rows, points], choices.action[rows, points]
    seen = np.zeros(policy.shape, np.bool_)
    seen[points, state, action] = True
    return float((policy * ~seen)[points, state].sum(axis=1).mean())


def _cross_fit(choices: Choices, policy: Floats, regressor: RegressorFactory | None) -> Floats:
    """Give Q out of fold, shape (n, H, actions)."""
    inputs = choices.state[:, :, None].astype(np.float64)
    if regressor is not None:
        inputs = choices.features
    found = np.zeros((*choices.is_open.shape, len(choices.actions)))
    for fold in np.unique(choices.fold).tolist():
        held = choices.fold == fold
        found[held] = _fit(choices, policy, inputs, regressor or CellMeans, ~held)[held]
    return found


def _fit(
    choices: Choices, policy: Floats, inputs: Floats, make: RegressorFactory, train: Bools
) -> Floats:
    """Regress, from the last point back, what follows on the state for each action."""
    found = np.zeros((*choices.is_open.shape, len(choices.actions)))
    following = choices.outcome.copy()
    for point in range(choices.points - 1, -1, -1):
        here = choices.is_open[:, point]
        for action in range(len(choices.actions)):
            learn = here & train & (choices.action[:, point] == action)
            if not learn.any():  # never seen: what the others gave is the best guess
                learn = here & train
            if learn.any():
                model = fit_regressor(make, inputs[learn, point], following[learn])
                found[here, point, action] = model.predict(inputs[here, point])
        value = (_wanted(choices, policy, point) * found[:, point]).sum(axis=1)
        following = np.where(here, value, following)
    return found


def _wanted(choices: Choices, policy: Floats, point: int) -> Floats:
    """Give the policy's probabilities for each journey at a point, shape (n, actions)."""
    return np.asarray(policy[point, np.maximum(choices.state[:, point], 0)])


def _picked(values: Floats, choices: Choices, point: int) -> Floats:
    """Pick what belongs to the action taken, shape (n,)."""
    action = np.maximum(choices.action[:, point], 0)
    return np.asarray(values[np.arange(len(action)), action])
