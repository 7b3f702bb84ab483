"""A shop as arrays: its goods, its visitors, its rhythm, and a scenario's defects and effects."""

import datetime as dt
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import MICROS
from recoup.interventions import INTERVENTIONS
from recoup.simulator import catalogue, layout, rates
from recoup.simulator.catalogue import Goods, goods
from recoup.simulator.layout import ATTRIBUTES, CONTEXT_WIDTH, KINDS, STATE_WIDTH, WHIM
from recoup.simulator.randomness import derive, mix, normal, uniform
from recoup.simulator.scenario import Scenario

DAY_US: Final = 86_400 * MICROS
HOUR_US: Final = 3_600 * MICROS
NAMES: Final = {
    "device": catalogue.DEVICES,
    "browser": catalogue.BROWSERS,
    "os": catalogue.SYSTEMS,
    "channel": tuple(catalogue.CHANNELS),
    "country": tuple(catalogue.COUNTRIES),
    "region": tuple(region for names in catalogue.REGIONS.values() for region in names),
    "build": tuple(catalogue.BUILDS),
    "page": tuple(catalogue.page_names()),
    "item": tuple(catalogue.item_names()),
    "category": catalogue.CATEGORIES,
    "query": tuple(catalogue.query_names()),
    "payment_method": tuple(catalogue.METHODS),
}
"""Attribute -> its values, in the order of their codes, which count from 1."""


class Troubles(NamedTuple):
    """A scenario's defects as arrays, one row each.

    ``table`` has the columns D_KIND, D_SINCE, D_UNTIL, D_ON, and from D_MATCH on a code per
    attribute (0: any); ``numbers`` has RATE (the share that meets it), EFFECT and SIZE.
    """

    table: NDArray[np.int64]
    numbers: NDArray[np.float64]


class Remedies(NamedTuple):
    """What interventions do, one row each; ``recovered`` has a column per cause.

    ``cost_micros`` is paid per act, ``offer_ppm`` in millionths of an order that follows.
    """

    recovered: NDArray[np.float64]
    fade_s: NDArray[np.float64]
    annoys: NDArray[np.float64]
    cost_micros: NDArray[np.int64]
    offer_ppm: NDArray[np.int64]


class Rules(NamedTuple):
    """What one event of the law reads: few arrays, since each costs at every call.

    ``build_since`` says when each build is released, ``promise`` the days to each country,
    ``natural`` the symptoms without a defect (RATE, EFFECT and SIZE by type).
    """

    goods: Goods
    build_since: NDArray[np.int64]
    promise: NDArray[np.int64]
    natural: NDArray[np.float64]
    gap_s: NDArray[np.float64]
    troubles: Troubles


class World(NamedTuple):
    """All that the law reads and never changes.

    ``clock`` is the cumulative rhythm at each full hour of the run, in hours of mean activity;
    ``people`` the visitors' circumstances as codes, ``warmth`` their intent, ``keys`` their
    randomness.
    """

    begin: int
    end: int
    clock: NDArray[np.float64]
    people: NDArray[np.int64]
    warmth: NDArray[np.float64]
    keys: NDArray[np.int64]
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
    keys, people, warmth = _visitors(visitors, seed, scenario.warmth)
    released = [begin + round(share * (end - begin)) for share in catalogue.BUILDS.values()]
    return World(
        begin,
        end,
        _clock(begin, end),
        people,
        warmth,
        keys,
        Rules(
            goods(),
            np.array(released, np.int64),
            np.array([0, *catalogue.COUNTRY_PROMISE], np.int64),
            np.stack([rates.NATURAL_RATE, rates.NATURAL_EFFECT, rates.NATURAL_SIZE]),
            rates.GAP_MEDIAN_S,
            _troubles(scenario, begin, end),
        ),
    )


def new_state(world: World) -> NDArray[np.int64]:
    """Give the visitors' state before the run: shape (visitors, STATE_WIDTH)."""
    state = np.zeros((len(world.keys), STATE_WIDTH), np.int64)
    state[:, layout.SEED], state[:, layout.END] = world.keys, world.end
    _set_out(state, world.keys, world.clock, world.begin, world.end)
    return state


def part_of(world: World, visitors: NDArray[np.int64]) -> World:
    """Give the world of some visitors alone, in the order given."""
    return world._replace(
        people=world.people[visitors], warmth=world.warmth[visitors], keys=world.keys[visitors]
    )


def _moment(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"Expected an ISO 8601 start, got `{text}`") from error
    moment = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1)


def _clock(begin: int, end: int) -> NDArray[np.float64]:
    hours = np.arange(-(-(end - begin) // HOUR_US) + 1)
    of_week = ((begin // HOUR_US) + hours + 3 * 24) % (7 * 24)
    weights = catalogue.RHYTHM[of_week] / catalogue.RHYTHM.mean()
    return np.concatenate([[0.0], np.cumsum(weights)])


def _visitors(
    visitors: int, seed: int, warmth: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    keys = np.zeros(visitors, np.int64)
    people = np.zeros((visitors, CONTEXT_WIDTH), np.int64)
    warmths = np.zeros(visitors, np.float64)
    platforms = list(catalogue.PLATFORMS)
    parts = np.array(
        [
            (
                catalogue.DEVICES.index(device) + 1,
                catalogue.BROWSERS.index(browser) + 1,
                catalogue.SYSTEMS.index(system) + 1,
            )
            for device, browser, system in platforms
        ],
        np.int64,
    )
    regions = [len(names) for names in catalogue.REGIONS.values()]
    first = np.concatenate([[0], np.cumsum(regions)]).astype(np.int64)
    chances = (
        _cumulative(catalogue.PLATFORMS.values()),
        _cumulative(catalogue.CHANNELS.values()),
        _cumulative(catalogue.COUNTRIES.values()),
        _cumulative(catalogue.METHODS.values()),
    )
    bonus = (
        np.array([0.0, *catalogue.CHANNEL_WARMTH]),
        np.array([0.0, *catalogue.DEVICE_WARMTH]),
    )
    seed_key = mix((seed & 0xFFFFFFFF) ^ mix(seed >> 32))
    _draw_visitors(seed_key, keys, people, warmths, parts, first, chances, bonus)
    return keys, people, warmths + warmth


def _cumulative(weights: object) -> NDArray[np.float64]:
    values = np.array(list(weights), np.float64)  # type: ignore[call-overload]
    return np.asarray(np.cumsum(values) / values.sum(), np.float64)


_PLATFORM, _CHANNEL, _COUNTRY, _REGION, _METHOD, _WARMTH = range(1, 7)
_FIRST, _KNOWN = 11, 12


@njit(cache=True, nogil=True)
def pick(chances: NDArray[np.float64], draw: float) -> int:
    """Give the index of the first cumulative chance above a draw."""
    at = 0
    while at < chances.shape[0] - 1 and chances[at] <= draw:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _draw_visitors(
    seed_key: int,
    keys: NDArray[np.int64],
    people: NDArray[np.int64],
    warmth: NDArray[np.float64],
    platforms: NDArray[np.int64],
    regions: NDArray[np.int64],
    chances: tuple[NDArray[np.float64], ...],
    bonus: tuple[NDArray[np.float64], ...],
) -> None:
    for visitor in range(keys.shape[0]):
        key = derive(seed_key, visitor)
        keys[visitor] = key
        own = people[visitor]
        own[: layout.CHANNEL] = platforms[pick(chances[0], uniform(key, _PLATFORM))]
        own[layout.CHANNEL] = 1 + pick(chances[1], uniform(key, _CHANNEL))
        country = pick(chances[2], uniform(key, _COUNTRY))
        own[layout.COUNTRY] = 1 + country
        room = regions[country + 1] - regions[country]
        own[layout.REGION] = 1 + regions[country] + int(uniform(key, _REGION) * room)
        own[layout.PREFERRED] = 1 + pick(chances[3], uniform(key, _METHOD))
        warmth[visitor] = (
            normal(key, _WARMTH) + bonus[0][own[layout.CHANNEL]] + bonus[1][own[layout.DEVICE]]
        )


@njit(cache=True, nogil=True)
def _set_out(
    state: NDArray[np.int64],
    keys: NDArray[np.int64],
    clock: NDArray[np.float64],
    begin: int,
    end: int,
) -> None:
    whole = activity_at(clock, end - begin)
    for visitor in range(keys.shape[0]):
        when = uniform(keys[visitor], _FIRST) * whole
        state[visitor, layout.NEXT_TS] = begin + time_of(clock, when)
        known = uniform(keys[visitor], _KNOWN)
        state[visitor, layout.VISITS_BEFORE] = int(max(0.0, (0.35 - known) * 12.0))


@njit(cache=True, nogil=True)
def time_of(clock: NDArray[np.float64], activity: float) -> int:
    """Give the microseconds since the run began at which the rhythm has made this much activity."""
    low, high = 0, clock.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if clock[middle] <= activity:
            low = middle
        else:
            high = middle
    part = (activity - clock[low]) / (clock[high] - clock[low])
    return int((low + part) * 3.6e9)


@njit(cache=True, nogil=True)
def activity_at(clock: NDArray[np.float64], since_begin: int) -> float:
    """Give the activity up to a moment, microseconds since the run began."""
    hour = min(since_begin // 3_600_000_000, clock.shape[0] - 2)
    part = (since_begin - hour * 3_600_000_000) / 3.6e9
    return float(clock[hour] + part * (clock[hour + 1] - clock[hour]))


def _troubles(scenario: Scenario, begin: int, end: int) -> Troubles:
    specs = scenario.defects
    table = np.zeros((len(specs), layout.D_MATCH + len(ATTRIBUTES)), np.int64)
    numbers = np.array([(spec.share, spec.effect, spec.size) for spec in specs], np.float64)
    for row, spec in zip(table, specs, strict=True):
        until = 1.0 if spec.until is None else spec.until
        row[layout.D_KIND] = KINDS.index(spec.type)
        row[layout.D_SINCE] = moment_at(begin, end, spec.since)
        row[layout.D_UNTIL] = moment_at(begin, end, until)
        row[layout.D_ON] = 1
        for name, value in spec.entity.items():
            row[layout.D_MATCH + ATTRIBUTES.index(name)] = _code(spec.id, name, value)
    return Troubles(table, numbers.reshape(len(specs), 3))


def moment_at(begin: int, end: int, share: float) -> int:
    """Give the moment at which a share of the run has passed, on a full second."""
    return begin + round(share * (end - begin) / MICROS) * MICROS


def _code(defect: str, name: str, value: str) -> int:
    values = NAMES[name]
    if value not in values:
        raise ConfigError(
            f"Expected a {name} that the shop has, got `{value}` - at defect `{defect}`",
            hint=f"such as {', '.join(values[:12])}",
        )
    return values.index(value) + 1


def build_remedies(scenario: Scenario) -> Remedies:
    """Lay a scenario's effects out as arrays.

    Raises
    ------
    ConfigError
        If an effect names an intervention that is not in the catalogue.
    """
    order = [each.id for each in INTERVENTIONS]
    recovered = np.zeros((len(order), WHIM + 1))
    fade_s, annoys = np.ones(len(order)), np.zeros(len(order))
    for effect in scenario.effects:
        if effect.intervention not in order:
            raise ConfigError(
                f"Expected an intervention of the catalogue, got `{effect.intervention}`",
                hint=f"one of {', '.join(order)}",
            )
        row = order.index(effect.intervention)
        for cause, share in effect.recovered.items():
            recovered[row, WHIM if cause == "whim" else KINDS.index(cause)] = share
        fade_s[row], annoys[row] = effect.fade_s, effect.annoys
    return Remedies(
        recovered,
        fade_s,
        annoys,
        np.array([each.cost_micros for each in INTERVENTIONS], np.int64),
        np.array([round(each.cost_share * 1e6) for each in INTERVENTIONS], np.int64),
    )
