"""A problem of several actions and several acts, small enough that every policy's value is known.

A visitor's state changes with what is done; acts cost money and patience. Points may be closed, and
then nothing is done. Truth comes by dynamic programming.
"""

import msgspec
import numpy as np

from recoup.causal.choices import Choices
from recoup.causal.estimate import Floats


class RepeatedActsProblem(msgspec.Struct, frozen=True, kw_only=True):
    """H decision points, k states and m actions, of which 0 is to do nothing.

    Parameters
    ----------
    start
        Shape (k,): distribution of the first state.
    leave, buy
        Shape (m, k): chance to leave, and to buy, after an action in a state.
    move
        Shape (m, k, k): transitions of those who do neither.
    end
        Shape (k,): chance to buy after the last point.
    propensity
        Shape (H, k, m): the log's probability of each action where a point is open.
    available
        Shape (H, k): P(open).
    price, cost
        Value of a purchase; shape (m,): cost of each action.

    Examples
    --------
    >>> problem = fatigue_problem()
    >>> round(problem.value(problem.propensity), 4)
    6.9085
    """

    start: Floats
    leave: Floats
    buy: Floats
    move: Floats
    end: Floats
    propensity: Floats
    available: Floats
    price: float
    cost: Floats

    def value(self, policy: Floats) -> float:
        """Give the value of a policy, shape (H, k, m)."""
        return float(self.start @ self.values(policy)[0])

    def values(self, policy: Floats) -> Floats:
        """Give the policy's value on arriving at each point, shape (H + 1, k)."""
        points, states = self.available.shape
        found = np.zeros((points + 1, states))
        found[-1] = self.price * self.end
        for point in range(points - 1, -1, -1):
            quality = self.quality(found[point + 1])
            chosen = (policy[point] * quality).sum(axis=1)
            here = self.available[point]
            found[point] = here * chosen + (1 - here) * quality[:, 0]
        return found

    def quality(self, following: Floats) -> Floats:
        """Give the value of each action, shape (k, m), where the next state's is ``following``."""
        stay = 1 - self.leave - self.buy
        gain = self.price * self.buy + stay * (self.move @ following) - self.cost[:, None]
        return np.asarray(gain.T)

    def best_policy(self) -> Floats:
        """Give the policy of the largest value, shape (H, k, m)."""
        points, states = self.available.shape
        policy = np.zeros(self.propensity.shape)
        for point in range(points - 1, -1, -1):
            best = self.quality(self.values(policy)[point + 1]).argmax(axis=1)
            policy[point, np.arange(states), best] = 1.0
        return policy

    def draw(self, journeys: int, seed: int) -> Choices:
        """Draw a log of the problem's own propensities."""
        rng = np.random.default_rng(seed)
        points, states = self.available.shape
        shape = (journeys, points)
        state, action = np.full(shape, -1), np.full(shape, -1)
        is_open, chance = np.zeros(shape, np.bool_), np.ones(shape)
        now, here = rng.choice(states, journeys, p=self.start), np.ones(journeys, np.bool_)
        outcome = np.zeros(journeys)
        for point in range(points):
            opened = here & (rng.random(journeys) < self.available[point, now])
            odds = self.propensity[point, now]
            done = np.where(opened, _pick(rng, odds), 0)
            state[here, point], action[here, point] = now[here], done[here]
            is_open[:, point] = opened
            chance[opened, point] = odds[opened, done[opened]]
            outcome -= here * self.cost[done]
            draw = rng.random(journeys)
            buys = here & (draw < self.buy[done, now])
            leaves = here & ~buys & (draw < self.buy[done, now] + self.leave[done, now])
            outcome += self.price * buys
            here = here & ~buys & ~leaves
            now = np.where(here, _pick(rng, self.move[done, now]), now)
        outcome += self.price * (here & (rng.random(journeys) < self.end[now]))
        return Choices(
            times=list(range(1, points + 1)),
            states=list(range(states)),
            actions=list(range(len(self.cost))),
            state=state,
            action=action,
            features=np.where(state < 0, np.nan, state)[:, :, None],
            is_open=is_open,
            propensity=chance,
            outcome=outcome,
            fold=np.arange(journeys) % 2,
        )


def _pick(rng: np.random.Generator, odds: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Draw one code a row from probabilities of shape (n, m)."""
    draw = rng.random(len(odds))
    return np.asarray((draw[:, None] > odds.cumsum(axis=1)[:, :-1]).sum(axis=1))


def fatigue_problem() -> RepeatedActsProblem:
    """Give three points, states calm, stuck and weary, and two offers beside doing nothing.

    The reminder is cheap and makes weary; the discount is dear and rarely does. Weary visitors are
    hurt by either.
    """
    propensity = np.array(
        [
            [[0.6, 0.25, 0.15], [0.4, 0.35, 0.25], [0.7, 0.15, 0.15]],
            [[0.6, 0.2, 0.2], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]],
            [[0.5, 0.3, 0.2], [0.3, 0.3, 0.4], [0.6, 0.25, 0.15]],
        ]
    )
    return RepeatedActsProblem(
        start=np.array([0.5, 0.4, 0.1]),
        leave=np.array([[0.1, 0.25, 0.4], [0.12, 0.2, 0.5], [0.08, 0.15, 0.45]]),
        buy=np.array([[0.06, 0.03, 0.01], [0.09, 0.07, 0.01], [0.12, 0.14, 0.02]]),
        move=np.array(
            [
                [[0.7, 0.25, 0.05], [0.2, 0.65, 0.15], [0.1, 0.2, 0.7]],
                [[0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.05, 0.1, 0.85]],
                [[0.75, 0.15, 0.1], [0.4, 0.45, 0.15], [0.1, 0.2, 0.7]],
            ]
        ),
        end=np.array([0.2, 0.1, 0.03]),
        propensity=propensity,
        available=np.array([[0.9, 0.8, 0.9], [0.6, 0.7, 0.5], [0.8, 0.9, 0.7]]),
        price=40.0,
        cost=np.array([0.0, 0.2, 2.0]),
    )
