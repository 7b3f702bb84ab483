"""A when-to-act problem small enough that every effect is known exactly.

States change by a Markov chain while a journey waits; it may leave or buy by itself, and its first
act ends it. Points may be closed. Truth comes by dynamic programming; whole logs can be drawn as
counts of the finitely many paths, so that thousands of logs take seconds.
"""

from collections.abc import Iterator
from itertools import product

import msgspec
import numpy as np

from recoup.causal.estimate import Floats, Ints
from recoup.causal.journeys import Bools, Journeys


class WaitingProblem(msgspec.Struct, frozen=True, kw_only=True):
    """H decision points and k states.

    Parameters
    ----------
    start, leave, buy, end
        Shape (k,): distribution of the first state; chance to leave, and to buy, between points;
        chance to buy after the last.
    move
        Shape (k, k): transitions of those who do neither.
    convert, propensity, available
        Shape (H, k): chance to buy once acted on; the log's P(act | open); P(open).
    price, cost
        Value of a purchase, and cost of an act.

    Examples
    --------
    >>> problem = reference_problem()
    >>> round(float(problem.value(np.zeros((4, 3), bool))), 4)
    10.5233
    """

    start: Floats
    leave: Floats
    buy: Floats
    end: Floats
    move: Floats
    convert: Floats
    propensity: Floats
    available: Floats
    price: float
    cost: float

    @property
    def shape(self) -> tuple[int, int]:
        """Decision points and states."""
        return self.convert.shape[0], self.convert.shape[1]

    @property
    def act_value(self) -> Floats:
        """Q1, shape (H, k)."""
        return self.price * self.convert - self.cost

    def waiting_value(self, policy: Floats) -> Floats:
        """Give the value of waiting at each open point and following ``policy`` afterwards.

        Parameters
        ----------
        policy
            Shape (H, k): P(act | open, state), 0 or 1 for a rule.
        """
        points = self.shape[0]
        found = np.zeros(self.shape)
        found[-1] = self.price * self.end
        for point in range(points - 2, -1, -1):
            act = self.available[point + 1] * policy[point + 1]
            upcoming = act * self.act_value[point + 1] + (1 - act) * found[point + 1]
            stay = 1 - self.leave - self.buy
            found[point] = self.price * self.buy + stay * (self.move @ upcoming)
        return found

    def value(self, policy: Floats | Bools) -> float:
        """Give the value of a policy, shape (H, k)."""
        act = self.available[0] * policy[0]
        waiting = self.waiting_value(np.asarray(policy, float))[0]
        return float(self.start @ (act * self.act_value[0] + (1 - act) * waiting))

    @property
    def delay_cost(self) -> Floats:
        """D, shape (H, k): acting now less acting at the next open point."""
        return self.act_value - self.waiting_value(np.ones(self.shape))

    @property
    def miss_cost(self) -> Floats:
        """M, shape (H, k): acting now less never acting."""
        return self.act_value - self.waiting_value(np.zeros(self.shape))

    def reach(self, policy: Floats) -> Floats:
        """Give P(not acted before, in this state), shape (H, k), under P(act | open, state)."""
        found = np.zeros(self.shape)
        found[0] = self.start
        for point in range(1, self.shape[0]):
            waited = found[point - 1] * (1 - self.available[point - 1] * policy[point - 1])
            found[point] = (waited * (1 - self.leave - self.buy)) @ self.move
        return found

    @property
    def delta(self) -> Floats:
        """Shape (H,): mean of 1{open} D where no one is acted on."""
        untouched = self.reach(np.zeros(self.shape))
        return np.asarray((untouched * self.available * self.delay_cost).sum(axis=1))

    def regret(self, policy: Bools) -> dict[str, float]:
        """Give the log's regret against a rule, shape (H, k), split into its four parts."""
        rule = policy.astype(np.float64)
        waiting = self.waiting_value(rule)
        open_mass = self.reach(self.propensity) * self.available
        acted, waited = open_mass * self.propensity, open_mass * (1 - self.propensity)
        too_soon = acted * (waiting - self.act_value) * ~policy
        needed = self.miss_cost > 0
        behind = waited * (self.act_value - waiting) * policy
        later = self._acts_later()
        return {
            "early": float((too_soon * needed).sum()),
            "late": float((behind * later).sum()),
            "missed": float((behind * (1 - later)).sum()),
            "unnecessary": float((too_soon * ~needed).sum()),
        }

    def _acts_later(self) -> Floats:
        found = np.zeros(self.shape)
        for point in range(self.shape[0] - 2, -1, -1):
            act = self.available[point + 1] * self.propensity[point + 1]
            upcoming = act + (1 - act) * found[point + 1]
            found[point] = (1 - self.leave - self.buy) * (self.move @ upcoming)
        return found

    def paths(self, folds: int = 2) -> "Paths":
        """List every journey the log can hold, once for each fold, with its probability."""
        found = list(self._walk(0, 1.0, ()))
        rows = len(found)
        state = np.full((rows, self.shape[0]), -1)
        is_open = np.zeros(state.shape, bool)
        chance, outcome, act_at = np.zeros(rows), np.zeros(rows), np.full(rows, self.shape[0])
        for row, path in enumerate(found):
            chance[row], outcome[row] = path.chance, path.outcome
            for point, (code, opened, acted) in enumerate(path.steps):
                state[row, point], is_open[row, point] = code, opened
                act_at[row] = point if acted else act_at[row]
        return Paths(self, state, is_open, act_at, outcome, chance, folds)

    def _walk(
        self, point: int, chance: float, steps: tuple[tuple[int, bool, bool], ...]
    ) -> Iterator["_Path"]:
        arriving = self.start if not steps else self.move[steps[-1][0]]
        for code, opened in product(range(self.shape[1]), (False, True)):
            availability = self.available[point, code]
            here = chance * arriving[code] * (availability if opened else 1 - availability)
            if here == 0:
                continue
            act = self.propensity[point, code] if opened else 0.0
            buys = self.convert[point, code]
            done = (*steps, (code, opened, True))
            if opened:
                yield _Path(here * act * buys, self.price - self.cost, done)
                yield _Path(here * act * (1 - buys), -self.cost, done)
            yield from self._wait(point, here * (1 - act), (*steps, (code, opened, False)))

    def _wait(
        self, point: int, chance: float, steps: tuple[tuple[int, bool, bool], ...]
    ) -> Iterator["_Path"]:
        code = steps[-1][0]
        if point == self.shape[0] - 1:
            yield _Path(chance * self.end[code], self.price, steps)
            yield _Path(chance * (1 - self.end[code]), 0.0, steps)
            return
        yield _Path(chance * self.leave[code], 0.0, steps)
        yield _Path(chance * self.buy[code], self.price, steps)
        stay = 1 - self.leave[code] - self.buy[code]
        yield from self._walk(point + 1, chance * stay, steps)


class Paths(msgspec.Struct, frozen=True):
    """Every journey that a problem's log can hold.

    Examples
    --------
    >>> paths = reference_problem().paths()
    >>> round(float(paths.chance.sum()), 12)
    1.0
    """

    problem: WaitingProblem
    state: Ints
    is_open: Bools
    act_at: Ints
    outcome: Floats
    chance: Floats
    folds: int

    def draw(self, journeys: int, seed: int) -> Journeys:
        """Draw a log, as counts of each path in each fold, of about equal folds."""
        rng = np.random.default_rng(seed)
        sizes = [journeys * (fold + 1) // self.folds for fold in range(self.folds)]
        counts = [rng.multinomial(n, self.chance) for n in np.diff([0, *sizes])]
        count = np.concatenate(counts).astype(float)
        seen = count > 0
        fold = np.repeat(np.arange(self.folds), len(self.chance))[seen]
        path = np.tile(np.arange(len(self.chance)), self.folds)[seen]
        state, is_open = self.state[path], self.is_open[path]
        points = np.arange(state.shape[1])
        return Journeys(
            times=(points + 1).tolist(),
            states=list(range(self.problem.shape[1])),
            state=state,
            features=state[:, :, None].astype(float),
            is_open=is_open,
            propensity=np.where(is_open, self.problem.propensity[points, state], 0.0),
            act_at=self.act_at[path],
            outcome=self.outcome[path],
            fold=fold,
            count=count[seen],
        )


class _Path(msgspec.Struct, frozen=True):
    chance: float
    outcome: float
    steps: tuple[tuple[int, bool, bool], ...]


def reference_problem(*, closing: bool = False) -> WaitingProblem:
    """Give four points and three states; acting early harms in the first state alone.

    Parameters
    ----------
    closing
        Whether availability comes and goes; else every point is open. The second point is then
        closed half of the time or more, by state.
    """
    shape = (4, 3)
    available = np.ones(shape)
    if closing:
        available = np.array([[0.9, 0.8, 0.7], [0.5, 0.4, 0.5], [0.8, 0.9, 0.6], [0.7, 0.8, 0.9]])
    return WaitingProblem(
        start=np.array([0.6, 0.3, 0.1]),
        leave=np.array([0.05, 0.15, 0.45]),
        buy=np.array([0.06, 0.03, 0.01]),
        end=np.array([0.3, 0.15, 0.04]),
        move=np.array([[0.7, 0.25, 0.05], [0.2, 0.5, 0.3], [0.05, 0.25, 0.7]]),
        convert=np.array(
            [[0.22, 0.4, 0.3], [0.25, 0.38, 0.22], [0.28, 0.34, 0.16], [0.29, 0.28, 0.11]]
        ),
        propensity=np.array(
            [[0.15, 0.3, 0.4], [0.15, 0.35, 0.45], [0.2, 0.35, 0.45], [0.25, 0.4, 0.5]]
        ),
        available=available,
        price=50.0,
        cost=1.0,
    )
