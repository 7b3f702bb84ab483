"""A shop as arrays: its goods, its visitors, its rhythm, and a scenario's defects and effects."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import micros_of
from recoup.interventions import INTERVENTIONS
from recoup.settings import moment
from recoup.simulator import catalogue, layout, rates
from recoup.simulator.catalogue import Goods, goods
from recoup.simulator.clock import DAY_US, bounds, clock_of, time_of
from recoup.simulator.layout import ATTRIBUTES, KINDS, STATE_WIDTH, WHIM
from recoup.simulator.names import code_of
from recoup.simulator.nuisances import arrivals, growth, with_nuisances
from recoup.simulator.people import draw_people
from recoup.simulator.randomness import normal, uniform
from recoup.simulator.robots import robot_people
from recoup.simulator.scenario import Scenario
from recoup.simulator.stock import stock_cycles


class Troubles(NamedTuple):
    """A scenario's defects as arrays, one row each.

    ``table`` has the columns D_KIND, D_SINCE, D_UNTIL, D_ON, and from D_MATCH on a code per
    attribute (0: any); ``numbers`` has RATE (the share that meets it), EFFECT, SIZE
    and LASTING.
    """

    table: NDArray[np.int64]
    numbers: NDArray[np.float64]


class Remedies(NamedTuple):
    """What interventions do, one row each; ``recovered`` has a column per cause.

    ``cost_micros`` is paid per act, ``offer_ppm`` in millionths of an order that follows;
    ``spread`` and ``warm`` say how effects differ by shopper.
    """

    recovered: NDArray[np.float64]
    fade_s: NDArray[np.float64]
    annoys: NDArray[np.float64]
    annoys_browsing: NDArray[np.float64]
    spread: NDArray[np.float64]
    warm: NDArray[np.float64]
    cost_micros: NDArray[np.int64]
    offer_ppm: NDArray[np.int64]


class Rules(NamedTuple):
    """What one event of the law reads: few arrays, since each costs at every call.

    ``build_since`` says when each build is released, ``promise`` the days to each country,
    ``natural`` the symptoms without a defect (RATE, EFFECT and SIZE by type). ``lines`` and
    ``shares`` are the chances of :mod:`recoup.simulator.rates`, ``gaps`` each state's median wait
    in seconds and its sigma. ``stock`` has each item's cycle, time out of stock in it, and phase,
    microseconds. ``habits``: the share of buyers that need the same again, after how many hours,
    and the sigma of that.
    """

    goods: Goods
    build_since: NDArray[np.int64]
    promise: NDArray[np.int64]
    natural: NDArray[np.float64]
    lines: NDArray[np.float64]
    shares: NDArray[np.float64]
    gaps: NDArray[np.float64]
    stock: NDArray[np.int64]
    habits: tuple[float, float, float]
    troubles: Troubles


class Swings(NamedTuple):
    """Times in which visitors come with another intent: all, or those who agree in ``match``."""

    since: NDArray[np.int64]
    until: NDArray[np.int64]
    warmth: NDArray[np.float64]
    match: NDArray[np.int64]


class World(NamedTuple):
    """All that the law reads and never changes.

    ``clock`` is the cumulative rhythm at each full hour of the run, in hours of mean activity;
    ``people`` the visitors' circumstances as codes, ``warmth`` their intent, ``keys`` their
    randomness, ``span`` the activity between which each first comes. Behind the visitors,
    ``people`` has those who do not shop.
    """

    begin: int
    end: int
    clock: NDArray[np.float64]
    people: NDArray[np.int64]
    warmth: NDArray[np.float64]
    keys: NDArray[np.int64]
    span: NDArray[np.float64]
    swings: Swings
    rules: Rules


def build_world(visitors: int, days: float, seed: int, scenario: Scenario) -> World:
    """Lay a shop out as arrays.

    Raises
    ------
    ConfigError
        If a number is out of its range, or a defect names a value that the shop does not have.
    """
    if not 1 <= visitors <= 50_000_000:  # noqa: PLR2004
        raise ConfigError(f"Expected 1 to 50,000,000 visitors, got {visitors}")
    if not 0.01 <= days <= 3_660:  # noqa: PLR2004
        raise ConfigError(f"Expected 0.01 to 3,660 days, got {days}")
    if seed < 0:
        raise ConfigError(f"Expected a seed of at least 0, got {seed}")
    begin = _moment(scenario.start)
    end = begin + round(days * DAY_US)
    clock = clock_of(begin, end, growth(scenario.nuisances))
    coming = arrivals(visitors, clock, scenario.nuisances, end - begin)
    people = draw_people(len(coming.span), seed, scenario.mix)
    people.warmth[:] += scenario.warmth
    released = [begin + round(share * (end - begin)) for share in catalogue.BUILDS.values()]
    world = World(
        begin,
        end,
        clock,
        people.codes,
        people.warmth,
        people.keys,
        coming.span,
        _swings(scenario, begin, end),
        Rules(
            goods(),
            np.array(released, np.int64),
            np.array([0, *catalogue.COUNTRY_PROMISE], np.int64),
            rates.NATURAL,
            *rates.stated(scenario.rates),
            rates.waits(scenario.gap_scale, scenario.gap_sigma),
            stock_cycles(scenario.stock),
            (scenario.habits.share, scenario.habits.cycle_days * 24.0, scenario.habits.sigma),
            _troubles(scenario, begin, end),
        ),
    )
    first = new_state(world)[:, layout.NEXT_TS]
    run = (begin, end)
    people = with_nuisances(people, first, coming.brought_by, scenario.nuisances, run)
    codes = np.concatenate([people.codes, robot_people(scenario.non_shoppers)])
    return world._replace(people=codes, warmth=people.warmth)


def new_state(world: World) -> NDArray[np.int64]:
    """Give the visitors' state before the run: shape (visitors, STATE_WIDTH)."""
    state = np.zeros((len(world.keys), STATE_WIDTH), np.int64)
    state[:, layout.SEED], state[:, layout.END] = world.keys, world.end
    _set_out(state, world.keys, world.span, world.clock, world.begin)
    return state


def part_of(world: World, visitors: NDArray[np.int64]) -> World:
    """Give the world of some visitors alone, in the order given."""
    return world._replace(
        people=world.people[visitors],
        warmth=world.warmth[visitors],
        keys=world.keys[visitors],
        span=world.span[visitors],
    )


def _moment(text: str) -> int:
    return micros_of(moment(text, where="the scenario's start"))


_FIRST, _KNOWN, _TRAIT = 11, 12, 13


@njit(cache=True, nogil=True)
def _set_out(
    state: NDArray[np.int64],
    keys: NDArray[np.int64],
    span: NDArray[np.float64],
    clock: NDArray[np.float64],
    begin: int,
) -> None:
    for visitor in range(keys.shape[0]):
        early, late = span[visitor]
        when = early + uniform(keys[visitor], _FIRST) * (late - early)
        state[visitor, layout.NEXT_TS] = begin + time_of(clock, when)
        known = uniform(keys[visitor], _KNOWN)
        state[visitor, layout.VISITS_BEFORE] = int(max(0.0, (0.35 - known) * 12.0))
        state[visitor, layout.TRAIT] = int(normal(keys[visitor], _TRAIT) / layout.MOOD_UNIT)


def _swings(scenario: Scenario, begin: int, end: int) -> Swings:
    """Lay out when promotions make everyone buy more readily."""
    chosen = [spec for spec in scenario.nuisances if spec.kind == "promotion"]
    window = np.array([bounds(begin, end, each.since, each.until) for each in chosen], np.int64)
    match = np.zeros((len(chosen), layout.CIRCUMSTANCES), np.int64)
    for row, spec in zip(match, chosen, strict=True):
        for name, value in spec.entity.items():
            row[ATTRIBUTES.index(name)] = code_of("nuisance `promotion`", name, value)
    since, until = window.reshape(len(chosen), 2).T.copy()
    return Swings(since, until, np.array([each.warmth for each in chosen], np.float64), match)


def _troubles(scenario: Scenario, begin: int, end: int) -> Troubles:
    specs = scenario.defects
    table = np.zeros((len(specs), layout.D_MATCH + len(ATTRIBUTES)), np.int64)
    stated = [(spec.share, spec.effect, spec.size, spec.lasting) for spec in specs]
    numbers = np.array(stated, np.float64)
    for row, spec in zip(table, specs, strict=True):
        row[layout.D_KIND] = KINDS.index(spec.type)
        window = bounds(begin, end, spec.since, spec.until)
        row[layout.D_SINCE], row[layout.D_UNTIL] = window
        row[layout.D_ON] = 1
        for name, value in spec.entity.items():
            row[layout.D_MATCH + ATTRIBUTES.index(name)] = code_of(
                f"defect `{spec.id}`", name, value
            )
    return Troubles(table, numbers.reshape(len(specs), 4))


def build_remedies(scenario: Scenario) -> Remedies:
    """Lay a scenario's effects out as arrays.

    Raises
    ------
    ConfigError
        If an effect names an intervention that is not in the catalogue.
    """
    order = [each.id for each in INTERVENTIONS]
    recovered = np.zeros((len(order), WHIM + 1))
    own = {name: np.zeros(len(order)) for name in ("annoys", "annoys_browsing", "spread", "warm")}
    fade_s = np.ones(len(order))
    for effect in scenario.effects:
        if effect.intervention not in order:
            raise ConfigError(
                f"Expected an intervention of the catalogue, got `{effect.intervention}`",
                hint=f"one of {', '.join(order)}",
            )
        row = order.index(effect.intervention)
        for cause, share in effect.recovered.items():
            recovered[row, WHIM if cause == "whim" else KINDS.index(cause)] = share
        fade_s[row] = effect.fade_s
        for name, column in own.items():
            stated = getattr(effect, name)
            column[row] = effect.annoys if stated is None else stated
    return Remedies(
        recovered=recovered,
        fade_s=fade_s,
        cost_micros=np.array([each.cost_micros for each in INTERVENTIONS], np.int64),
        offer_ppm=np.array([round(each.cost_share * 1e6) for each in INTERVENTIONS], np.int64),
        **own,
    )
