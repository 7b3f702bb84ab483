"""The shop: events up to a moment, given the decisions that were made so far."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import EventBatch, concat_batches
from recoup.interventions import INTERVENTIONS
from recoup.simulator import layout as at
from recoup.simulator.acts import LEDGER, act
from recoup.simulator.clock import HOUR_US
from recoup.simulator.frames import to_batch, visitor_names, visitor_numbers
from recoup.simulator.law import live, live_one
from recoup.simulator.nuisances import Losses, losses, lost
from recoup.simulator.potential import Potential, branch
from recoup.simulator.robots import Robots
from recoup.simulator.scenario import Scenario, checked
from recoup.simulator.truth import Truth, nuisance_truth, tell_truth
from recoup.simulator.world import World, build_remedies, build_world, new_state

ROOM: Final = 1 << 17
"""Events that a kernel call can hold."""
_ORDER: Final = {f"act:{each.id}": row for row, each in enumerate(INTERVENTIONS)}


class Shop:
    """A seeded shop that answers decisions: a closed loop.

    Time passes only with :meth:`step`. What a visitor does depends on the seed, the visitor, the
    scenario, and the decisions about this visitor alone, so that steps of any length, and any
    number of other visitors, give the same journeys.

    Parameters
    ----------
    visitors
        How many people come at least once, apart from those that a campaign of the scenario brings.
    days
        Length of the run.
    seed
        Same seed, same bytes.
    scenario
        Defects and effects; see :func:`recoup.simulator.load_scenario`.

    Raises
    ------
    ConfigError
        If a number is out of its range, or the scenario states something impossible.

    Examples
    --------
    >>> from recoup.simulator import load_scenario
    >>> shop = Shop(visitors=200, days=1.0, seed=7, scenario=load_scenario("quiet"))
    >>> first = shop.step(shop.begin + HOUR_US * 12)
    >>> second = shop.step(shop.end)
    >>> shop.done, len(first) + len(second) > 800
    (True, True)
    """

    def __init__(self, visitors: int, days: float, seed: int, scenario: Scenario) -> None:
        self.visitors, self.days, self.seed = visitors, days, seed
        self.scenario = checked(scenario)
        self._world = build_world(visitors, days, seed, self.scenario)
        self._remedies = build_remedies(self.scenario)
        self._state = new_state(self._world)
        self._ledger = np.zeros((len(INTERVENTIONS), len(LEDGER)), np.int64)
        self._robots = Robots(scenario.non_shoppers, self._world.begin, len(self._state))
        run = (self._world.begin, self._world.end)
        self._buffers = _Buffers(ROOM, losses(scenario.nuisances, run))
        self._waiting = _Acts.none()
        self._acted = np.zeros(len(self._state), np.bool_)
        self.now = self._world.begin

    def potential(self, draws: int = 0) -> Potential:
        """Log decisions at random and tell their potential outcomes; the shop does not move.

        See :func:`recoup.simulator.potential_outcomes`.
        """
        return branch(self._world, self.scenario, draws)

    @property
    def begin(self) -> int:
        """When the run begins, int64 microseconds UTC."""
        return self._world.begin

    @property
    def end(self) -> int:
        """When it ends; visits still open are cut off."""
        return self._world.end

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.now >= self.end

    def step(self, until: int, decisions: pl.DataFrame | None = None) -> EventBatch:
        """Give the events from :attr:`now` to a moment, and move there.

        Parameters
        ----------
        until
            Microseconds UTC; an event exactly then belongs to the next step.
        decisions
            Rows of :data:`recoup.decisions.DECISION_SCHEMA`. Executed acts reach their visitor at
            their ``ts``, or at :attr:`now` if that is over; everything else does nothing.
        """
        until = min(max(until, self.now), self.end)
        acts = self._waiting.joined(_read_acts(decisions, self.now, len(self._state)))
        due = acts.when < until
        self._waiting = acts.kept(~due)
        parts = [*self._apply(acts.kept(due)), *self._advance(until), *self._visits(until)]
        self.now = until
        return parts[0] if len(parts) == 1 else _in_order(parts)

    def _apply(self, acts: "_Acts") -> Iterator[EventBatch]:
        """Let each visitor live until the act, then act."""
        for visitor, when, which in zip(acts.visitor, acts.when, acts.which, strict=True):
            own = int(visitor)
            while not live_one(own, self._state, self._world, int(when), *self._buffers.open()):
                yield self._buffers.take(self._world)
            gaps = self._world.rules.gaps
            act(self._state[own], gaps, self._remedies, int(which), int(when), self._ledger)
            self._acted[own] = True

    def _advance(self, until: int) -> Iterator[EventBatch]:
        first = 0
        while first < len(self._state):
            first = live(self._state, self._world, until, first, *self._buffers.open())
            if first < len(self._state):
                yield self._buffers.take(self._world)
        yield self._buffers.take(self._world)

    def _visits(self, until: int) -> Iterator[EventBatch]:
        """Give what those send who do not shop."""
        events, lines = self._robots.between(self.now, until)
        if len(events):
            yield to_batch(events, lines, self._world)

    def truth(self) -> Truth:
        """Say what was wrong in this shop so far, what it cost, and what the acts changed.

        The same seed is run again without each defect, for those who met it, up to :attr:`now`.
        """
        world, scenario = self._world, self.scenario
        told = tell_truth(world, scenario, self._state, self._acted, self._ledger, self.now)
        names = visitor_names(np.array(self._robots.visitors, np.int64))
        kinds = zip(names, self._robots.kinds, strict=True)
        return {
            **told,
            **nuisance_truth(world, scenario, self._buffers.lost),
            "non_shoppers": [{"visitor": name, "kind": kind} for name, kind in kinds],
        }


class Simulation:
    """A shop left alone, or with acts known in advance: its events in batches, and the truth.

    Examples
    --------
    >>> from recoup.simulator import load_scenario
    >>> simulation = simulate(300, 1.0, 7, load_scenario("quiet"))
    >>> sum(len(batch) for batch in simulation.batches) > 1000, simulation.truth["defects"]
    (True, [])
    """

    def __init__(self, shop: Shop, acts: pl.DataFrame | None = None) -> None:
        self._shop, self._acts = shop, acts

    @property
    def batches(self) -> Iterator[EventBatch]:
        """The events that have not been given yet, an hour at a time."""
        while not self._shop.done:
            acts, self._acts = self._acts, None
            yield self._shop.step(self._shop.now + HOUR_US, acts)

    @property
    def truth(self) -> Truth:
        """What was wrong up to the last batch given, and what it cost."""
        return self._shop.truth()


def simulate(visitors: int, days: float, seed: int, scenario: Scenario) -> Simulation:
    """Simulate a shop in which nothing is decided; see :class:`Shop`."""
    return Simulation(Shop(visitors, days, seed, scenario))


class _Buffers:
    """The tables that kernels write into, and what is lost on the way out."""

    def __init__(self, room: int, losses: Losses) -> None:
        self._losses = losses
        self.lost = np.zeros(len(losses.since), np.int64)
        self._events = np.empty((room, at.EVENT_WIDTH), np.int64)
        self._lines = np.empty((2 * room + at.SHOWN, at.LINE_WIDTH), np.int64)
        self._counts = np.zeros(2, np.int64)

    def open(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bool]:
        return self._events, self._lines, self._counts, True

    def take(self, world: World) -> EventBatch:
        """Empty the tables into a batch."""
        events, lines = (int(count) for count in self._counts)
        self._counts[:] = 0
        return to_batch(*self._sent(self._events[:events], self._lines[:lines], world), world)

    def _sent(
        self, events: NDArray[np.int64], lines: NDArray[np.int64], world: World
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Leave out the events that are lost, and their lines."""
        if not len(self.lost):
            return events, lines
        taken = lost(events, world.people, world.keys, self._losses)
        self.lost += np.bincount(taken[taken >= 0], minlength=len(self.lost))
        kept = taken < 0
        place = np.cumsum(kept) - 1
        lines = lines[kept[lines[:, at.L_EVENT]]]
        lines[:, at.L_EVENT] = place[lines[:, at.L_EVENT]]
        return events[kept], lines


class _Acts(msgspec.Struct, frozen=True):
    """Acts in the order in which they reach their visitors, each array of shape (n,)."""

    visitor: NDArray[np.int64]
    when: NDArray[np.int64]
    which: NDArray[np.int64]

    @staticmethod
    def none() -> "_Acts":
        nothing = np.zeros(0, np.int64)
        return _Acts(nothing, nothing, nothing)

    def joined(self, other: "_Acts") -> "_Acts":
        when = np.concatenate([self.when, other.when])
        visitor = np.concatenate([self.visitor, other.visitor])
        order = np.lexsort((visitor, when))
        which = np.concatenate([self.which, other.which])
        return _Acts(visitor[order], when[order], which[order])

    def kept(self, rows: NDArray[np.bool_]) -> "_Acts":
        return _Acts(self.visitor[rows], self.when[rows], self.which[rows])


def _read_acts(decisions: pl.DataFrame | None, now: int, visitors: int) -> _Acts:
    if decisions is None or decisions.is_empty():
        return _Acts.none()
    made = decisions.filter(pl.col("executed") & pl.col("action").is_in(list(_ORDER)))
    rows = made.select(
        visitor_numbers(made["visitor"]).alias("visitor"),
        pl.col("ts").to_physical().clip(lower_bound=now).alias("when"),
        pl.col("action").replace_strict(_ORDER, return_dtype=pl.Int64).alias("which"),
    ).filter(pl.col("visitor").is_between(0, visitors - 1))
    return _Acts(*(rows[name].to_numpy() for name in ("visitor", "when", "which")))


def _in_order(parts: list[EventBatch]) -> EventBatch:
    """Join batches of one span of time, and put their events in order."""
    whole = concat_batches(parts)
    keys = whole.events.select(pl.col("ts"), pl.col("visitor"), pl.col("seq")).with_row_index("row")
    order = keys.sort("ts", "visitor", "seq")["row"].to_numpy().astype(np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    moved = pl.Series("event", place[whole.items["event"].to_numpy()], pl.UInt32)
    items = whole.items.with_columns(moved).sort("event", maintain_order=True)
    return EventBatch(whole.events[order], items)
