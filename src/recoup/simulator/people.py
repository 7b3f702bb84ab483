"""Who comes: circumstances and hidden warmth, drawn from the mixes of the catalogue."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.simulator import catalogue
from recoup.simulator import layout as at
from recoup.simulator.names import NAMES, code_of
from recoup.simulator.randomness import derive, mix, normal, uniform

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MIXED: Final = ("device", "channel", "country", "payment_method")
"""What a scenario's ``mix`` can state."""
_PLATFORM, _CHANNEL, _COUNTRY, _REGION, _METHOD, _WARMTH = range(1, 7)
MOVED: Final = 63
"""Purpose of the draw of a new platform."""


class People(NamedTuple):
    """Visitors: randomness, circumstances (codes, a column each) and warmth."""

    keys: Ints
    codes: Ints
    warmth: Floats


def draw_people(visitors: int, seed: int, stated: Mapping[str, Mapping[str, float]]) -> People:
    """Draw visitors; the n-th is the same however many there are.

    Parameters
    ----------
    stated
        Attribute of :data:`MIXED` -> value -> weight, in place of the catalogue's mix.
    """
    keys = np.zeros(visitors, np.int64)
    codes = np.zeros((visitors, at.CONTEXT_WIDTH), np.int64)
    warmth = np.zeros(visitors, np.float64)
    regions = [len(names) for names in catalogue.REGIONS.values()]
    first = np.concatenate([[0], np.cumsum(regions)]).astype(np.int64)
    seed_key = mix((seed & 0xFFFFFFFF) ^ mix(seed >> 32))
    _draw(seed_key, keys, codes, warmth, _platforms(), first, _chances(stated))
    return People(keys, codes, warmth + warmth_of(codes))


def _chances(stated: Mapping[str, Mapping[str, float]]) -> tuple[Floats, ...]:
    plain = (catalogue.CHANNELS, catalogue.COUNTRIES, catalogue.METHODS)
    mixes = [
        {value: stated.get(name, weights).get(value, 0.0) for value in weights}
        for name, weights in zip(MIXED[1:], plain, strict=True)
    ]
    return (_cumulative(_platform_weights(stated)), *(_cumulative(m.values()) for m in mixes))


def _platform_weights(stated: Mapping[str, Mapping[str, float]]) -> list[float]:
    """Weigh platforms so that their devices have the shares stated."""
    weights = catalogue.PLATFORMS
    if "device" not in stated:
        return list(weights.values())
    total = {
        device: sum(weight for platform, weight in weights.items() if platform[0] == device)
        for device in catalogue.DEVICES
    }
    return [
        weight / total[platform[0]] * stated["device"].get(platform[0], 0.0)
        for platform, weight in weights.items()
    ]


def _cumulative(weights: Iterable[float]) -> Floats:
    values = np.array(list(weights), np.float64)
    return np.asarray(np.cumsum(values) / values.sum(), np.float64)


def _platforms() -> Ints:
    return np.array(
        [
            [
                code_of("platforms", name, value)
                for name, value in zip(NAMES, platform, strict=False)
            ]
            for platform in catalogue.PLATFORMS
        ],
        np.int64,
    )


def warmth_of(codes: Ints) -> Floats:
    """Give what channel and device add to the warmth of visitors."""
    by_channel = np.array([0.0, *catalogue.CHANNEL_WARMTH])
    by_device = np.array([0.0, *catalogue.DEVICE_WARMTH])
    return np.asarray(by_channel[codes[:, at.CHANNEL]] + by_device[codes[:, at.DEVICE]])


def moved(people: People, rows: Ints, entity: Mapping[str, str], place: str) -> People:
    """Give visitors other circumstances, and the warmth that goes with them."""
    codes, warmth = people.codes.copy(), people.warmth.copy()
    for name, value in entity.items():
        if name == "device":
            weights = _cumulative(_platform_weights({"device": {value: 1.0}}))
            draws = uniforms(people.keys[rows], MOVED)
            codes[rows, : at.CHANNEL] = _platforms()[np.searchsorted(weights, draws, side="right")]
        else:
            codes[rows, at.ATTRIBUTES.index(name)] = code_of(place, name, value)
    warmth[rows] += warmth_of(codes[rows]) - warmth_of(people.codes[rows])
    return People(people.keys, codes, warmth)


def check_mix(stated: Mapping[str, Mapping[str, float]]) -> None:
    """Check that a mix names attributes and values that the shop has, with weights.

    Raises
    ------
    ConfigError
        If it does not.
    """
    for name, weights in stated.items():
        if name not in MIXED:
            raise ConfigError(
                f"Expected a mix of known attributes, got `{name}` - at `mix`",
                hint=f"one of {', '.join(MIXED)}",
            )
        for value, weight in weights.items():
            code_of("`mix`", name, value)
            if not 0 <= weight < 1e9:  # noqa: PLR2004
                raise ConfigError(f"Expected a weight of at least 0 - at `mix.{name}.{value}`")
        if not sum(weights.values()) > 0:
            raise ConfigError(f"Expected a weight above 0 - at `mix.{name}`")


@njit(cache=True, nogil=True)
def uniforms(keys: Ints, purpose: int) -> Floats:
    """Draw one number for each key, in (0, 1)."""
    found = np.empty(keys.shape[0], np.float64)
    for row in range(keys.shape[0]):
        found[row] = uniform(keys[row], purpose)
    return found


@njit(cache=True, nogil=True)
def pick(chances: Floats, draw: float) -> int:
    """Give the index of the first cumulative chance above a draw."""
    index = 0
    while index < chances.shape[0] - 1 and chances[index] <= draw:
        index += 1
    return index


@njit(cache=True, nogil=True)
def _draw(
    seed_key: int,
    keys: Ints,
    codes: Ints,
    warmth: Floats,
    platforms: Ints,
    regions: Ints,
    chances: tuple[Floats, ...],
) -> None:
    for visitor in range(keys.shape[0]):
        key = derive(seed_key, visitor)
        keys[visitor] = key
        own = codes[visitor]
        own[: at.CHANNEL] = platforms[pick(chances[0], uniform(key, _PLATFORM))]
        own[at.CHANNEL] = 1 + pick(chances[1], uniform(key, _CHANNEL))
        country = pick(chances[2], uniform(key, _COUNTRY))
        own[at.COUNTRY] = 1 + country
        room = regions[country + 1] - regions[country]
        own[at.REGION] = 1 + regions[country] + int(uniform(key, _REGION) * room)
        own[at.PREFERRED] = 1 + pick(chances[3], uniform(key, _METHOD))
        warmth[visitor] = normal(key, _WARMTH)
