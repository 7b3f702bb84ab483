"""Scenarios: which defects a simulated shop has, where and when, and what interventions do."""

import tomllib
from pathlib import Path
from typing import Final

import msgspec

from recoup.errors import ConfigError
from recoup.simulator.decision_log import LoggingSpec, check_logging
from recoup.simulator.layout import ATTRIBUTES, KINDS


class DefectSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A defect to switch on.

    Parameters
    ----------
    id
        Its name in ``truth.json``.
    type
        One of :data:`recoup.simulator.KINDS`, ids of the defect catalogue.
    entity
        Attribute -> value; who meets it agrees in all of them.
    since, until
        Share of the run, in [0, 1], at which it begins and ends; ``until`` None: it stays open.
    share
        P(a shopper at the step meets it).
    effect
        P(who meets it and would go on leaves instead).
    size
        How bad the symptom is: milliseconds added (S6, D8), days added (D2, K11), fees as a share
        of the cart's value (C2). Others have no size.

    Examples
    --------
    >>> DefectSpec("declined", "K5", {"payment_method": "card"}, since=0.5).share
    0.7
    """

    id: str
    type: str
    entity: dict[str, str]
    since: float = 0.0
    until: float | None = None
    share: float = 0.7
    effect: float = 0.6
    size: float = 0.0


class EffectSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an intervention truly does.

    Parameters
    ----------
    intervention
        An id of :data:`recoup.interventions.INTERVENTIONS`.
    recovered
        Cause -> share of those about to leave for it who stay if reached at once. Causes are
        defect types, and ``whim``: a cart left for no reason that a shop could see.
    fade_s
        The share falls by e for every ``fade_s`` seconds of delay after the cause.
    annoys
        P(a shopper who would have gone on leaves because of it).

    Examples
    --------
    >>> EffectSpec("coupon", {"whim": 0.1}, fade_s=900.0).recovered["whim"]
    0.1
    """

    intervention: str
    recovered: dict[str, float]
    fade_s: float
    annoys: float = 0.0


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shop's troubles and remedies.

    Parameters
    ----------
    name
        For reports.
    defects
        At most 60.
    effects
        At most one per intervention; an intervention without one does nothing.
    start
        When the run begins, ISO 8601; UTC where it has no zone.
    warmth
        Added to every shopper's intent; at 0 between four and five per cent of sessions buy.
    logging
        How decisions are logged, and whether they are carried out.

    Examples
    --------
    >>> len(load_scenario("quiet").defects)
    0
    """

    name: str
    defects: tuple[DefectSpec, ...] = ()
    effects: tuple[EffectSpec, ...] = ()
    start: str = "2026-03-02T00:00:00Z"
    warmth: float = 0.0
    logging: LoggingSpec = LoggingSpec()


EFFECTS: Final = (
    EffectSpec("payment_retry", {"K5": 0.55, "K8": 0.1}, fade_s=400.0, annoys=0.01),
    EffectSpec("fee_waiver", {"C2": 0.6, "whim": 0.04}, fade_s=500.0),
    EffectSpec("substitute_offer", {"D1": 0.45, "D2": 0.1}, fade_s=300.0, annoys=0.02),
    EffectSpec("search_assist", {"S1": 0.4, "S6": 0.3}, fade_s=200.0, annoys=0.02),
    EffectSpec("error_recovery", {"D6": 0.55, "K8": 0.5, "D8": 0.2}, fade_s=400.0, annoys=0.01),
    EffectSpec("promise_hold", {"D2": 0.4, "K11": 0.5}, fade_s=500.0),
    EffectSpec("coupon", {"whim": 0.08, "C2": 0.25, "K11": 0.1}, fade_s=1800.0),
)
"""What the interventions do in the built-in scenarios."""

_DEFAULT: Final = (
    DefectSpec("card-declined", "K5", {"payment_method": "card"}, 0.45, 0.85, 0.6, 0.75),
    DefectSpec(
        "checkout-safari", "K8", {"browser": "Safari", "device": "mobile"}, 0.55, None, 0.8, 0.7
    ),
    DefectSpec("fees-france", "C2", {"country": "FR"}, 0.35, None, 1.0, 0.5, 0.25),
    DefectSpec("add-fails", "D6", {"build": "web-4.2.0", "browser": "Chrome"}, 0.6, 0.9, 0.5, 0.6),
    DefectSpec("slow-lighting", "D8", {"page": "/c/lighting"}, 0.3, None, 0.9, 0.5, 8000.0),
    DefectSpec("lamp-empty", "S1", {"query": "lamp"}, 0.25, None, 1.0, 0.5),
    DefectSpec("out-of-stock", "D1", {"item": "chairs-01"}, 0.4, None, 1.0, 0.6),
    DefectSpec("slow-poland", "D2", {"country": "PL"}, 0.3, None, 1.0, 0.4, 7.0),
)

SCENARIOS: Final = {
    "default": Scenario("default", _DEFAULT, EFFECTS),
    "quiet": Scenario("quiet", (), EFFECTS),
    "logged": Scenario("logged", _DEFAULT, EFFECTS, logging=LoggingSpec(executes=True)),
}
"""The scenarios that come with Recoup."""


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Give a scenario by name, or read one from a TOML file.

    The file has the fields of :class:`Scenario`, with ``[[defects]]`` and ``[[effects]]``; where
    it states no effects, the interventions do what they do in ``default``.

    Raises
    ------
    ConfigError
        If there is no such scenario or file, or if it states something impossible.
    """
    if str(name_or_path) in SCENARIOS:
        return SCENARIOS[str(name_or_path)]
    path = Path(name_or_path)
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
        scenario = msgspec.convert({"name": path.stem, **stated}, Scenario)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Expected a scenario's name or a TOML file, got `{name_or_path}`",
            hint=f"one of {', '.join(SCENARIOS)}, or a readable file",
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not scenario.effects:
        scenario = msgspec.structs.replace(scenario, effects=EFFECTS)
    return checked(scenario)


MOST_DEFECTS: Final = 60
_SIZED: Final = {"S6", "D8", "D2", "K11", "C2"}


def checked(scenario: Scenario) -> Scenario:
    """Give the scenario back if it states nothing impossible.

    Raises
    ------
    ConfigError
        If it does; the message names the defect.
    """
    if len(scenario.defects) > MOST_DEFECTS:
        raise ConfigError(f"Expected at most 60 defects, got {len(scenario.defects)}")
    if len({defect.id for defect in scenario.defects}) < len(scenario.defects):
        raise ConfigError("Expected defects of distinct ids, got one twice")
    for defect in scenario.defects:
        _check_defect(defect)
    for effect in scenario.effects:
        _check_effect(effect)
    check_logging(scenario.logging)
    return scenario


def _check_defect(defect: DefectSpec) -> None:
    place = f"defect `{defect.id}`"
    if defect.type not in KINDS:
        raise ConfigError(
            f"Expected a type that the shop can have, got `{defect.type}` - at {place}",
            hint=f"one of {', '.join(KINDS)}",
        )
    unknown = [name for name in defect.entity if name not in ATTRIBUTES]
    if unknown or not defect.entity:
        raise ConfigError(
            f"Expected an entity of known attributes, got {defect.entity} - at {place}",
            hint=f"one or more of {', '.join(ATTRIBUTES)}",
        )
    until = 1.0 if defect.until is None else defect.until
    if not 0 <= defect.since < until <= 1:
        raise ConfigError(f"Expected 0 <= since < until <= 1 - at {place}")
    if not (0 <= defect.share <= 1 and 0 <= defect.effect <= 1):
        raise ConfigError(f"Expected share and effect in [0, 1] - at {place}")
    if defect.type in _SIZED and not 0 < defect.size < 1e6:  # noqa: PLR2004
        raise ConfigError(f"Expected a positive size for {defect.type} - at {place}")


def _check_effect(effect: EffectSpec) -> None:
    place = f"effect of `{effect.intervention}`"
    shares = [*effect.recovered.values(), effect.annoys]
    unknown = [cause for cause in effect.recovered if cause not in {*KINDS, "whim"}]
    if unknown:
        raise ConfigError(f"Expected causes the shop knows, got {unknown} - at {place}")
    if not all(0 <= share <= 1 for share in shares) or not effect.fade_s > 0:
        raise ConfigError(f"Expected shares in [0, 1] and fade_s > 0 - at {place}")
