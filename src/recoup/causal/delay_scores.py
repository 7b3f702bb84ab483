"""Scores, one a journey, whose means are the effects of acting, waiting and missing.

Notation: e the propensity, G the probability of no act before a point, Q1 the value of acting at a
point, N of waiting and acting at the next OPEN point u, Y the outcome.
"""

from typing import Literal

import msgspec
import numpy as np

from recoup.causal.estimate import Floats
from recoup.causal.journeys import Bools, Journeys
from recoup.causal.nuisance import Nuisance, value_at

Variant = Literal["adr", "adr2"]


def waiting_scores(journeys: Journeys, nuisance: Nuisance, variant: Variant = "adr") -> Floats:
    """Give psi, shape (n, H): its mean at t is the cost of waiting there, were no one acted on.

    The next point is the next open one: taking the next point of the clock is biased where
    availability comes and goes.

    References
    ----------
    Nie, Brunskill & Wager (2021), Learning when-to-treat policies, section 3.
    """
    psi = np.zeros(journeys.is_open.shape)
    untreated, following = journeys.untreated, journeys.next_open
    outcome, never = journeys.outcome, np.zeros(len(journeys.outcome))
    rows, alone = np.arange(len(outcome)), journeys.never_left
    for point in range(journeys.points):
        chance = journeys.propensity[:, point]
        act, wait = nuisance.act[:, point], nuisance.wait[:, point]
        upcoming = following[:, point]
        last = upcoming == journeys.points
        acts_next = journeys.act_at == upcoming
        chance_next = np.where(last, 1.0, value_at(journeys.propensity, upcoming, never))
        acted = journeys.act_at == point
        score = act - wait
        score = score + np.where(acted, (outcome - act) / np.where(acted, chance, 1.0), 0.0)
        if variant == "adr":
            weight = np.where(last, 1.0, acts_next / chance_next)
            correction = weight * (outcome - wait)
        else:
            act_next = value_at(nuisance.act, upcoming, outcome)
            correction = act_next - wait + acts_next * ~last / chance_next * (outcome - act_next)
        # Where none is open any more, all that could have come between must have been declined.
        waited = ~acted & (~last | alone)
        before = np.where(waited, untreated[rows, upcoming], 1.0)
        score = score / untreated[:, point] - np.where(waited, correction / before, 0.0)
        psi[:, point] = np.where(journeys.is_open[:, point], score, 0.0)
    return psi


def starting_scores(journeys: Journeys, psi: Floats, starts: Bools) -> Floats:
    """Give Psi, shape (n,): its mean is the advantage, over never, of acting once ``starts``.

    Parameters
    ----------
    starts
        Shape (n, H): whether the rule acts at a point, given that it is open.
    """
    begun = np.logical_or.accumulate(starts & journeys.is_open, axis=1)
    return np.asarray((psi * begun).sum(axis=1))


class PolicyScores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of a stated policy, each of shape (n,).

    Parameters
    ----------
    value
        Per-decision augmented inverse-propensity score of the policy's value.
    early, late, missed, unnecessary
        Parts of ``value`` less the outcome; they add up to it in every journey.
    weight
        1 / P(the journey's choices) where they are the policy's, else 0.

    Examples
    --------
    >>> one = np.ones(1)
    >>> PolicyScores(value=one, early=one, late=one, missed=one, unnecessary=one, weight=one).value
    array([1.])
    """

    value: Floats
    early: Floats
    late: Floats
    missed: Floats
    unnecessary: Floats
    weight: Floats


def policy_scores(
    journeys: Journeys, nuisance: Nuisance, policy: Bools, needed: Bools | None = None
) -> PolicyScores:
    """Score a policy's value and the parts of the log's regret against it.

    Parameters
    ----------
    policy, needed
        Shape (n, H): whether the policy acts, given that it is open; whether an act is worth more
        than none, which is estimated (Q1 > V0) where None.

    Notes
    -----
    With n the score of what follows (that of the next open point, or the outcome), the score at an
    open point is Gamma = Q + 1{A = pi} / P(pi) (n - Q), and the regret's score telescopes into
    d = Gamma - n over the points up to the act. Points where the policy waits are *early* (Q1 > V0)
    or *unnecessary*. Where it acts, whether the log acted later looks ahead: with B that indicator
    and L = P(B | state, not acted), *late* takes

        1{A=0} B (Q1 - W) + L [1{A=1} (1-e)/e (Y - Q1) - 1{A=0} (n - W)],

    W the value of waiting and then following the policy, and *missed* the same with 1 - B, 1 - L.
    Each is Neyman orthogonal (errors enter as the product of those in Q1 - W and in L), and the two
    add up to d.
    """
    rows = len(journeys.outcome)
    value, weight = journeys.outcome.copy(), np.ones(rows)
    parts = {name: np.zeros(rows) for name in ("early", "late", "missed", "unnecessary")}
    acted_ever = journeys.act_at < journeys.points
    worth = nuisance.act > nuisance.never if needed is None else needed
    decides = journeys.decides
    for point in range(journeys.points - 1, -1, -1):
        here = decides[:, point]
        at = _Point(journeys, nuisance, point, value, here)
        acts, waits = here & policy[:, point], here & ~policy[:, point]
        useful = worth[:, point]
        too_soon, late = at.waiting_term(), at.late_term(acted_ever, nuisance.late[:, point])
        both = at.acting_term()
        parts["early"] += np.where(waits & useful, too_soon, 0.0)
        parts["unnecessary"] += np.where(waits & ~useful, too_soon, 0.0)
        parts["late"] += np.where(acts, late, 0.0)
        parts["missed"] += np.where(acts, both - late, 0.0)
        step = np.where(acts, both, too_soon)
        value = np.where(here, at.following + step, value)
        weight *= np.where(here, at.agreement(policy[:, point]), 1.0)
    return PolicyScores(value=value, weight=weight, **parts)


class _Point:
    """One decision point, for all journeys."""

    def __init__(
        self, journeys: Journeys, nuisance: Nuisance, point: int, following: Floats, here: Bools
    ) -> None:
        self._acted = journeys.act_at == point
        self.following = following
        self._outcome = journeys.outcome
        self._left = journeys.left(point)
        self._chance = np.where(journeys.is_open[:, point], journeys.propensity[:, point], 0.5)
        self._idle = np.where(here, journeys.idle[:, point], 0.5)
        self._act, self._wait = nuisance.act[:, point], nuisance.follow[:, point]

    def waiting_term(self) -> Floats:
        """Gamma - n where the policy waits."""
        odds = (1 - self._idle) / self._idle
        waited = odds * (self.following - self._wait)
        return np.where(self._acted | self._left, self._wait - self._outcome, waited)

    def acting_term(self) -> Floats:
        """Gamma - n where the policy acts."""
        odds = (1 - self._chance) / self._chance
        acted = odds * (self._outcome - self._act)
        return np.where(self._acted, acted, self._act - self.following)

    def late_term(self, acted_ever: Bools, chance_late: Floats) -> Floats:
        """Give the part of ``acting_term`` that is due to acting later."""
        odds = (1 - self._chance) / self._chance
        acted = chance_late * odds * (self._outcome - self._act)
        waited = acted_ever * (self._act - self._wait)
        waited = waited - chance_late * (self.following - self._wait)
        return np.where(self._acted, acted, waited)

    def agreement(self, policy: Bools) -> Floats:
        """1 / P(choice) where the choice is the policy's, else 0."""
        chance = np.where(policy, self._chance, self._idle)
        return np.asarray(((self._acted == policy) & ~self._left) / chance)
