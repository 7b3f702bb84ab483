"""Potential outcomes: what each journey would be worth if acted on at each point, or never.

A visitor's state is a row of numbers and every draw is a function of it, so that a journey is
branched by copying the row, acting, and letting the copy live on: the same draws in every branch
(common random numbers), or others, which averages the future over what is not settled yet.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.decisions import NEVER
from recoup.events import MICROS
from recoup.interventions import INTERVENTIONS
from recoup.simulator import layout as at
from recoup.simulator.acts import LEDGER, act_on
from recoup.simulator.catalogue import ITEM_PRICE
from recoup.simulator.decision_log import (
    BROWSE,
    CART,
    QUIET_S,
    TROUBLE,
    TYPING_S,
    LoggingSpec,
    draw_log,
    eligible,
)
from recoup.simulator.law import live
from recoup.simulator.randomness import derive
from recoup.simulator.scenario import Scenario, checked
from recoup.simulator.sight import PAYMENT
from recoup.simulator.world import Remedies, World, build_remedies, build_world, new_state, part_of

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ACTIONS: Final = tuple(f"act:{each.id}" for each in INTERVENTIONS)
"""Labels of the acts, in the order of their codes."""
ALONE: Final = -1
"""In place of an act's code: never act."""
_ROWS: Final = 1 << 15
_DRAW: Final = 1 << 23


class Seen(msgspec.Struct, frozen=True):
    """What an observer knows of n journeys at H points; each array of shape (n, H).

    Parameters
    ----------
    state
        Code of :data:`recoup.simulator.decision_log.STATES`; -1 where the journey had bought.
    signal
        1 + index of the trouble that is not over, 0 for none.
    depth
        How far the visit came, by :data:`recoup.simulator.sight.DEPTH_OF`.
    silent_s
        Seconds since the visit's last event.
    cart_value
        Micro-units.
    """

    state: Ints
    signal: Ints
    depth: Ints
    silent_s: Floats
    cart_value: Ints


class Potential(msgspec.Struct, frozen=True):
    """n journeys with decision points, as logged, and all that could have come of them.

    Values are net: orders less acts, in currency units, from the entry to the horizon.

    Parameters
    ----------
    spec
        The logging policy.
    visitor, visit, entry_ts
        Shape (n,): whose journey, which visit of theirs, and when it entered (microseconds UTC).
    circumstances
        Shape (n, CONTEXT_WIDTH): codes of device, channel and so on.
    seen
        What an observer knows at each point.
    is_open
        Shape (n, H): not bought, an act fits, nothing stands in the place.
    eligible
        Shape (n, H, acts): which acts fit there.
    propensity
        Shape (n, H): P(act) at open points, else 0.
    act_at, action
        Shape (n,): index of the point acted at, H for never; and the act's code, -1 for none.
    outcome, never
        Shapes (n, H, acts) and (n,): realised, had that act been made there and no other, or none;
        NaN where it does not fit.
    expected, expected_never
        Shapes (n, H, acts) and (n, H): means over the future, given the shopper as they are at the
        point, intentions included. Of no rows if no future was drawn.
    mind
        Shape (n, H): what the shopper is hiding there, see :data:`MINDS`.
    """

    spec: LoggingSpec
    visitor: Ints
    visit: Ints
    entry_ts: Ints
    circumstances: Ints
    seen: Seen
    is_open: Bools
    eligible: Bools
    propensity: Floats
    act_at: Ints
    action: Ints
    outcome: Floats
    never: Floats
    expected: Floats
    expected_never: Floats
    mind: Ints

    @property
    def points(self) -> int:
        """H, the number of decision points."""
        return len(self.spec.times_s)

    def of(self, rows: Ints) -> "Potential":
        """Give some of the journeys."""
        own = {
            name: getattr(self, name)[rows]
            for name in self.__struct_fields__
            if name not in ("spec", "seen")
        }
        seen = Seen(*(getattr(self.seen, name)[rows] for name in Seen.__struct_fields__))
        return Potential(spec=self.spec, seen=seen, **own)

    @property
    def logged(self) -> Floats:
        """Outcome of each journey under the act that was logged. Shape (n,)."""
        acted = self.action != ALONE
        rows = np.flatnonzero(acted)
        found = self.never.copy()
        found[rows] = self.outcome[rows, self.act_at[rows], self.action[rows]]
        return found

    @property
    def acting(self) -> Floats:
        """Outcome of acting at each point, the mean over the acts that fit. Shape (n, H)."""
        return _mean_over_acts(self.outcome, self.eligible)

    @property
    def expected_acting(self) -> Floats:
        """Like :attr:`acting`, expected given the shopper."""
        return _mean_over_acts(self.expected, self.eligible)


STAYS, TORN, LEAVES, GONE = range(4)
MINDS: Final = ("goes on", "leaves for a cause", "leaves", "gone")
"""What a shopper means to do next, which only the simulator knows."""


def potential_outcomes(
    visitors: int, days: float, seed: int, scenario: Scenario, *, draws: int = 0
) -> Potential:
    """Log decisions at random in a simulated shop, and tell what each could have led to.

    One journey a visitor at most: the first that enters early enough for its horizon to lie within
    the run. Up to its act a journey is that of the shop left alone, so that all points are found in
    one pass; time grows with the number of journeys times points times ``1 + draws``.

    Parameters
    ----------
    visitors, days, seed, scenario
        See :class:`recoup.simulator.Shop`.
    draws
        How many futures the expected outcomes are the mean of; 0: none are given.

    Examples
    --------
    >>> from recoup.simulator import load_scenario
    >>> found = potential_outcomes(1_000, 1.0, 3, load_scenario("logged"))
    >>> found.outcome.shape[1:], bool(found.is_open.mean() > 0.3)
    ((6, 7), True)
    """
    world = build_world(visitors, days, seed, checked(scenario))
    return branch(world, scenario, draws)


def branch(world: World, scenario: Scenario, draws: int) -> Potential:
    """Do :func:`potential_outcomes` in a world that stands already."""
    spec = scenario.logging
    rows, entry_ts, visit = _entered(world, spec)
    part = part_of(world, rows)
    walk = _Walk(part, entry_ts, spec, build_remedies(scenario))
    stops = list(walk.stops())
    seen = _stack([stop.seen for stop in stops])
    fits = np.stack([stop.fits for stop in stops], axis=1)
    dice = draw_log(part.keys, len(spec.times_s))
    is_open = (seen.state >= 0) & fits.any(axis=2) & (dice[:, :, 0] >= spec.busy)
    is_open &= np.stack([~stop.typing for stop in stops], axis=1)
    need, quiet = seen.state // 2, seen.state % 2 == 1
    propensity = np.where(is_open, spec.chance(need, quiet), 0.0)
    fits &= is_open[:, :, None]
    act_at, action = _log(dice, propensity, fits)
    told = [walk.tell(stop, fits[:, point], draws) for point, stop in enumerate(stops)]
    return Potential(
        spec=spec,
        visitor=rows,
        visit=visit,
        entry_ts=entry_ts,
        circumstances=part.people,
        seen=seen,
        is_open=is_open,
        eligible=fits,
        propensity=propensity,
        act_at=act_at,
        action=action,
        outcome=np.stack([each.outcome for each in told], axis=1),
        never=walk.never(stops[0]),
        expected=np.stack([each.expected for each in told], axis=1),
        expected_never=np.stack([each.expected_never for each in told], axis=1),
        mind=np.stack([stop.mind for stop in stops], axis=1),
    )


def _entered(world: World, spec: LoggingSpec) -> tuple[Ints, Ints, Ints]:
    """Find who enters in time, when, and in which visit."""
    state = new_state(world)
    run(state, world)
    entry_ts = state[:, at.ENTRY_TS]
    rows = np.flatnonzero((entry_ts > 0) & (entry_ts < world.end - spec.horizon_s * MICROS - 1))
    return rows, entry_ts[rows], state[rows, at.ENTRY_VISIT]


def run(state: Ints, world: World) -> None:
    """Let visitors live until each one's own end, without keeping their events."""
    events = np.empty((2, at.EVENT_WIDTH), np.int64)
    lines = np.empty((at.SHOWN + 2, at.LINE_WIDTH), np.int64)
    live(state, world, at.FOREVER, 0, events, lines, np.zeros(2, np.int64), False)  # noqa: FBT003


class _Stop(msgspec.Struct, frozen=True):
    """Journeys at one decision point: their states, what is seen of them, which acts fit."""

    when: Ints
    states: Ints
    seen: Seen
    fits: Bools
    typing: Bools
    mind: Ints


class _Told(msgspec.Struct, frozen=True):
    outcome: Floats
    expected: Floats
    expected_never: Floats


class _Walk:
    """Journeys left alone, from point to point, and their branches."""

    def __init__(self, part: World, entry_ts: Ints, spec: LoggingSpec, remedies: Remedies) -> None:
        self._part, self._spec, self._remedies = part, spec, remedies
        self._entry_ts = entry_ts
        self._until = entry_ts + 1 + spec.horizon_s * MICROS
        self._before = np.zeros(len(entry_ts), np.int64)

    def stops(self) -> Iterator[_Stop]:
        """Go from point to point."""
        state = new_state(self._part)
        orders = None
        for time_s in self._spec.times_s:
            when = self._entry_ts + 1 + time_s * MICROS
            state[:, at.END] = when
            run(state, self._part)
            if orders is None:
                orders = state[:, at.ORDERS].copy()
                self._before = state[:, at.SPENT] - state[:, at.COST]
            bought = state[:, at.ORDERS] > orders
            yield _stop(state.copy(), when, bought, self._spec, self._part.rules.goods.items)

    def never(self, first: _Stop) -> Floats:
        """Give the outcomes of journeys left alone."""
        rows = np.arange(len(self._until))
        return self._worth(first, rows, np.full(len(rows), ALONE), 0)

    def tell(self, stop: _Stop, fits: Bools, draws: int) -> _Told:
        """Branch every open journey at a point into each act that fits, and none."""
        rows, acts = np.nonzero(fits)
        outcome = np.full(fits.shape, np.nan)
        outcome[rows, acts] = self._worth(stop, rows, acts, 0)
        if draws == 0:
            nothing = np.full(fits.shape, np.nan)
            return _Told(outcome, nothing, nothing[:, 0])
        alone = np.flatnonzero(fits.any(axis=1))
        both = np.concatenate([rows, alone])
        which = np.concatenate([acts, np.full(len(alone), ALONE)])
        mean = self._expect(stop, both, which, draws)
        expected, expected_never = np.full(fits.shape, np.nan), np.full(len(fits), np.nan)
        expected[rows, acts] = mean[: len(rows)]
        expected_never[alone] = mean[len(rows) :]
        return _Told(outcome, expected, expected_never)

    def _expect(self, stop: _Stop, rows: Ints, acts: Ints, draws: int) -> Floats:
        """Average over futures; whoever is not coming back has only one."""
        settled = stop.states[rows, at.NEXT_TS] >= self._until[rows]
        found = np.empty(len(rows))
        found[settled] = self._worth(stop, rows[settled], acts[settled], 0)
        rows, acts = rows[~settled], acts[~settled]
        futures = [self._worth(stop, rows, acts, draw) for draw in range(1, draws + 1)]
        found[~settled] = np.mean(futures, axis=0)
        return found

    def _worth(self, stop: _Stop, rows: Ints, acts: Ints, draw: int) -> Floats:
        """Give the net value of branches, in currency units; draw 0 is the future that happens."""
        parts = [
            self._live_on(stop, rows[first : first + _ROWS], acts[first : first + _ROWS], draw)
            for first in range(0, len(rows), _ROWS)
        ]
        return np.concatenate([np.zeros(0), *parts])

    def _live_on(self, stop: _Stop, rows: Ints, acts: Ints, draw: int) -> Floats:
        states, part = stop.states[rows], part_of(self._part, rows)
        states[:, at.END] = self._until[rows]
        if draw > 0:
            _draw_anew(states, _DRAW + draw)
        ledger = np.zeros((len(INTERVENTIONS), len(LEDGER)), np.int64)
        act_on(states, part.rules.gaps, self._remedies, acts, stop.when[rows], ledger)
        run(states, part)
        worth = states[:, at.SPENT] - states[:, at.COST] - self._before[rows]
        return np.asarray(worth / MICROS, np.float64)


@njit(cache=True, nogil=True)
def _draw_anew(states: Ints, draw: int) -> None:
    """Give visitors another future; what they are, and what they mean to do next, stays."""
    for row in range(states.shape[0]):
        own = states[row]
        own[at.SEED] = derive(own[at.SEED], draw)
        own[at.KEY] = derive(own[at.KEY], draw)


def _stop(states: Ints, when: Ints, bought: Bools, spec: LoggingSpec, items: Ints) -> _Stop:
    loaded = states[:, at.LOADED] > 0
    signal, depth = states[:, at.SIGNAL], states[:, at.DEPTH]
    silent_s = (when - states[:, at.SEEN_TS]) / MICROS
    need = np.where(signal > 0, TROUBLE, np.where(loaded, CART, BROWSE))
    code = 2 * need + (silent_s >= QUIET_S)
    seen = Seen(np.where(bought, -1, code), signal, depth, silent_s, _cart_values(states, items))
    fits = eligible(spec, signal, depth, loaded) & ~bought[:, None]
    typing = (states[:, at.SEEN] == PAYMENT) & (silent_s < TYPING_S)
    return _Stop(when, states, seen, fits, typing, _minds(states))


def _cart_values(states: Ints, items: Ints) -> Ints:
    places = np.arange(at.CART_SIZE)
    held = places < states[:, [at.LOADED]]
    price = items[states[:, at.CART_ITEM + places], ITEM_PRICE]
    return np.asarray((price * states[:, at.CART_COUNT + places] * held).sum(axis=1))


def _minds(states: Ints) -> Ints:
    leaving = states[:, at.STATE] == at.LEAVE
    torn = leaving & (states[:, at.WOULD] != at.LEAVE) & (states[:, at.CAUSE] != at.WHIM)
    gone = states[:, at.STATE] == at.ARRIVE
    return np.select([gone, torn, leaving], [GONE, TORN, LEAVES], STAYS).astype(np.int64)


def _stack(seen: list[Seen]) -> Seen:
    return Seen(
        *(
            np.stack([getattr(each, name) for each in seen], axis=1)
            for name in Seen.__struct_fields__
        )
    )


def _log(dice: Floats, propensity: Floats, fits: Bools) -> tuple[Ints, Ints]:
    """Draw the first act of each journey, if any."""
    acts = dice[:, :, 1] < propensity
    act_at = np.where(acts.any(axis=1), acts.argmax(axis=1), acts.shape[1])
    rows = np.flatnonzero(act_at < acts.shape[1])
    fitting = fits[rows, act_at[rows]]
    rank = (dice[rows, act_at[rows], 2] * fitting.sum(axis=1)).astype(np.int64)
    action = np.full(len(act_at), ALONE)
    action[rows] = (fitting & (np.cumsum(fitting, axis=1) == rank[:, None] + 1)).argmax(axis=1)
    return act_at, action


def _mean_over_acts(outcome: Floats, fits: Bools) -> Floats:
    count = fits.sum(axis=2)
    total = np.where(fits, outcome, 0.0).sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def action_label(spec: LoggingSpec, point: int, action: int) -> str:
    """Give an act's label, or that of leaving a journey alone at a point."""
    if action != ALONE:
        return ACTIONS[action]
    times = spec.times_s
    return NEVER if point == len(times) - 1 else f"wait:{times[point + 1] - times[point]}"
