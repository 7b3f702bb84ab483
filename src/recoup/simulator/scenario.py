"""What a scenario states: defects, effects, nuisances, how the shop differs from the usual one."""

from typing import Final

import msgspec

from recoup.errors import ConfigError
from recoup.simulator.decision_log import LoggingSpec, check_logging
from recoup.simulator.layout import ATTRIBUTES, KINDS
from recoup.simulator.nuisances import MOST_WARMTH, NuisanceSpec, check_nuisance
from recoup.simulator.people import check_mix
from recoup.simulator.robots import RobotSpec, check_robot
from recoup.simulator.stock import HabitSpec, StockSpec, check_stock


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
        of the cart's value (C2), the rise of the price (C1). Others have no size.
    lasting
        What each meeting takes from the intent of the rest of the visit: harm that shows later.

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
    lasting: float = 0.0


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
    annoys, annoys_browsing
        P(a shopper who would have gone on leaves because of it), and the same with nothing in the
        cart; None: no difference.
    spread
        How much the effect differs by shopper: the recovered share is multiplied by a log-normal
        of mean 1 and this sigma, and ``annoys`` is the higher, the lower that is.
    warm
        The recovered share changes by this factor, in log, for each unit of the visit's intent:
        below 0 the cold are helped more.

    Examples
    --------
    >>> EffectSpec("coupon", {"whim": 0.1}, fade_s=900.0).recovered["whim"]
    0.1
    """

    intervention: str
    recovered: dict[str, float]
    fade_s: float
    annoys: float = 0.0
    annoys_browsing: float | None = None
    spread: float = 0.0
    warm: float = 0.0


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
    rates
        Chances in place of those of :mod:`recoup.simulator.rates`, by name: (intercept, slope) for
        a line, a number for a share.
    mix
        Attribute (``device``, ``channel``, ``country``, ``payment_method``) -> value -> weight.
    gap_scale, gap_sigma
        Factor on the median waits between events, and sigma of their log-normals.
    stock, habits
        Stock that runs out and comes back; buyers who need the same again.
    nuisances, non_shoppers
        What moves the figures and is no defect; who comes and does not shop.
    logging
        How decisions are logged, and whether they are carried out.

    Examples
    --------
    >>> Scenario("mine", (DefectSpec("declined", "K5", {"payment_method": "card"}),)).warmth
    0.0
    """

    name: str
    defects: tuple[DefectSpec, ...] = ()
    effects: tuple[EffectSpec, ...] = ()
    start: str = "2026-03-02T00:00:00Z"
    warmth: float = 0.0
    rates: dict[str, float | tuple[float, float]] = {}
    mix: dict[str, dict[str, float]] = {}
    gap_scale: float = 1.0
    gap_sigma: float = 0.85
    stock: StockSpec = StockSpec()
    habits: HabitSpec = HabitSpec()
    nuisances: tuple[NuisanceSpec, ...] = ()
    non_shoppers: tuple[RobotSpec, ...] = ()
    logging: LoggingSpec = LoggingSpec()


MOST_DEFECTS: Final = 60
_SIZED: Final = {"S6", "D8", "D2", "K11", "C2", "C1"}


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
    named = [effect.intervention for effect in scenario.effects]
    if len(set(named)) < len(named):
        raise ConfigError(
            "Expected at most one effect of each intervention, got two - at `effects`"
        )
    for effect in scenario.effects:
        _check_effect(effect)
    for nuisance in scenario.nuisances:
        check_nuisance(nuisance)
    for robot in scenario.non_shoppers:
        check_robot(robot)
    check_stock(scenario.stock, scenario.habits)
    check_mix(scenario.mix)
    if not abs(scenario.warmth) <= MOST_WARMTH:
        raise ConfigError(f"Expected warmth within {MOST_WARMTH:.0f} of 0 - at `warmth`")
    if not (0.1 <= scenario.gap_scale <= 10 and 0 < scenario.gap_sigma <= 3):  # noqa: PLR2004
        raise ConfigError("Expected gap_scale in [0.1, 10] and gap_sigma in (0, 3]")
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
    if not 0 <= defect.lasting <= 5:  # noqa: PLR2004
        raise ConfigError(f"Expected lasting in [0, 5] - at {place}")
    if defect.type in _SIZED and not 0 < defect.size < 1e6:  # noqa: PLR2004
        raise ConfigError(f"Expected a positive size for {defect.type} - at {place}")


def _check_effect(effect: EffectSpec) -> None:
    place = f"effect of `{effect.intervention}`"
    shares = [*effect.recovered.values(), effect.annoys, effect.annoys_browsing or 0.0]
    unknown = [cause for cause in effect.recovered if cause not in {*KINDS, "whim"}]
    if unknown:
        raise ConfigError(f"Expected causes the shop knows, got {unknown} - at {place}")
    if not all(0 <= share <= 1 for share in shares) or not effect.fade_s > 0:
        raise ConfigError(f"Expected shares in [0, 1] and fade_s > 0 - at {place}")
    if not (0 <= effect.spread <= 2 and -2 <= effect.warm <= 2):  # noqa: PLR2004
        raise ConfigError(f"Expected spread in [0, 2] and warm in [-2, 2] - at {place}")
