"""The scenarios that come with Recoup, and those of a file."""

from pathlib import Path
from typing import Final

import msgspec

from recoup.errors import ConfigError
from recoup.settings import parse_toml, typed
from recoup.simulator.decision_log import LoggingSpec
from recoup.simulator.nuisances import NuisanceSpec
from recoup.simulator.robots import RobotSpec
from recoup.simulator.scenario import DefectSpec, EffectSpec, Scenario, checked
from recoup.simulator.stock import HabitSpec, StockSpec

EFFECTS: Final = (
    EffectSpec("payment_retry", {"K5": 0.55, "K8": 0.1}, fade_s=400.0, annoys=0.01, spread=0.4),
    EffectSpec("fee_waiver", {"C2": 0.6, "whim": 0.04}, fade_s=500.0, spread=0.4, warm=-0.2),
    EffectSpec(
        "substitute_offer",
        {"D1": 0.45, "D2": 0.1, "C3": 0.45},
        fade_s=300.0, annoys=0.02, annoys_browsing=0.04, spread=0.5,
    ),
    EffectSpec(
        "search_assist",
        {"S1": 0.4, "S6": 0.3},
        fade_s=200.0, annoys=0.02, annoys_browsing=0.08, spread=0.5,
    ),
    EffectSpec(
        "error_recovery",
        {"D6": 0.55, "K8": 0.5, "D8": 0.2, "D7": 0.3, "L3": 0.2, "K2": 0.5, "K3": 0.5},
        fade_s=400.0, annoys=0.01, annoys_browsing=0.02, spread=0.4,
    ),
    EffectSpec("promise_hold", {"D2": 0.4, "K11": 0.5, "K4": 0.3}, fade_s=500.0, spread=0.4),
    EffectSpec(
        "coupon",
        {"whim": 0.08, "C2": 0.25, "K11": 0.1, "C1": 0.35, "C4": 0.6},
        fade_s=1800.0, spread=0.7, warm=-0.3,
    ),
)  # fmt: skip
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

_MORE: Final = (
    DefectSpec("image-gone", "L3", {"item": "lighting-02"}, 0.2, None, 1.0, 0.4),
    DefectSpec("gallery-dead", "D7", {"category": "sofas"}, 0.3, 0.8, 0.7, 0.4),
    DefectSpec("price-rose", "C1", {"category": "chairs"}, 0.5, None, 0.8, 0.5, 0.1),
    DefectSpec("sold-in-cart", "C3", {"category": "lighting"}, 0.6, 0.9, 0.6, 0.6),
    DefectSpec("code-refused", "C4", {"channel": "email"}, 0.4, None, 0.8, 0.5),
    DefectSpec("login-loop", "K2", {"os": "Android"}, 0.25, 0.6, 0.6, 0.5),
    DefectSpec("postcode-refused", "K3", {"country": "NL"}, 0.3, None, 0.8, 0.5),
    DefectSpec("not-delivered", "K4", {"region": "IT-62"}, 0.1, None, 1.0, 0.9),
    DefectSpec("slow-search", "S6", {"device": "tablet"}, 0.3, None, 0.9, 0.5, 5000.0),
    DefectSpec("promise-slips", "K11", {"country": "AT"}, 0.35, None, 0.8, 0.5, 4.0),
)
"""With those of ``default``, one of each type that the shop can have."""
_DECOY: Final = {
    "S6": 4000.0, "D2": 7.0, "D8": 7000.0, "L3": 0.0, "D7": 0.0, "C1": 0.1, "C2": 0.2, "C3": 0.0,
    "C4": 0.0, "K2": 0.0, "K3": 0.0, "K4": 0.0, "K8": 0.0, "K11": 4.0,
}  # fmt: skip
_LASTING: Final = {"S6": 0.8, "D2": 1.5, "C4": 1.2, "K8": 1.5, "K11": 1.0}
_DECOYS: Final = tuple(
    DefectSpec(
        f"{kind.lower()}-mobile", kind, {"device": "mobile"}, share=0.3,
        effect=0.1 if kind in _LASTING else 0.0, size=size, lasting=_LASTING.get(kind, 0.0),
    )
    for kind, size in _DECOY.items()
)  # fmt: skip
"""Symptoms that show as often, of which five harm the rest of the visit and nine do nothing."""
_SURGE: Final = NuisanceSpec("surge", 0.5, 0.6, {"channel": "social"}, size=3.0, warmth=-1.5)
_SHIFT: Final = NuisanceSpec("mix_shift", 0.5, None, {"device": "mobile"}, size=0.6)
_BREAK: Final = NuisanceSpec("tracking_break", 0.55, 0.75, {"browser": "Safari"}, size=0.8)
_REDESIGN: Final = NuisanceSpec("flow_change", 0.5, None, {"device": "mobile"}, size=0.9)
_PROMOTION: Final = NuisanceSpec("promotion", 0.7, 0.85, size=0.5, warmth=0.5)
_TREND: Final = NuisanceSpec("trend", size=0.4)
_ROBOTS: Final = (
    RobotSpec("monitor", 2), RobotSpec("checkout_monitor"), RobotSpec("crawler"),
)  # fmt: skip
_STOCK: Final = StockSpec(0.04, 3.0)
_MERCH: Final = Scenario(
    "merch",
    (),
    EFFECTS,
    rates={
        "bounce": (0.08, -0.5),
        "list_leave": (-1.5, -0.5),
        "list_select": (-2.7, 0.4),
        "view_add": (-2.5, 0.75),
        "view_leave": (-2.2, -0.4),
        "cart_leave": (-0.3, -0.5),
        "cart_begin": (-3.1, 0.9),
        "begin_leave": (-3.2, -0.6),
        "ship_leave": (-2.8, -0.5),
        "pay_leave": (-3.5, -0.4),
        "return": (-1.9, 0.5),
        "land_home": 0.70,
        "land_category": 0.28,
        "home_search": 0.02,
        "home_category": 0.97,
        "resume_cart": 0.9,
        "list_search": 0.02,
        "view_related": 0.2,
        "add_to_cart_page": 0.75,
    },
    mix={"device": {"desktop": 0.80, "mobile": 0.17, "tablet": 0.03}},
    gap_scale=3.0,
    gap_sigma=1.25,
)
"""Set from ``google_merch_store``: fewer look, fewer buy, all of it slower, most at a desk."""

SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("default", _DEFAULT, EFFECTS),
        Scenario("quiet", (), EFFECTS),
        Scenario("logged", _DEFAULT, EFFECTS, logging=LoggingSpec(executes=True)),
        Scenario("surge", (), EFFECTS, nuisances=(_SURGE,)),
        Scenario("mix_shift", (), EFFECTS, nuisances=(_SHIFT,)),
        Scenario("tracking_break", (), EFFECTS, nuisances=(_BREAK,)),
        Scenario("redesign", (), EFFECTS, nuisances=(_REDESIGN,)),
        Scenario("promotion", (), EFFECTS, nuisances=(_PROMOTION,)),
        Scenario("robots", (), EFFECTS, non_shoppers=_ROBOTS),
        _MERCH,
        Scenario("many", (*_DEFAULT, *_MORE), EFFECTS),
        Scenario("decoys", _DECOYS, EFFECTS, warmth=0.6),
        Scenario(
            "weeks",
            (),
            EFFECTS,
            nuisances=(_TREND, NuisanceSpec("promotion", 0.6, 0.65, size=0.3, warmth=0.4)),
            stock=StockSpec(0.04, 10.0),
            habits=HabitSpec(0.7, 14.0),
        ),
        Scenario(
            "everything",
            (*_DEFAULT, *_MORE),
            EFFECTS,
            nuisances=(_SURGE, _SHIFT, _BREAK, _REDESIGN, _PROMOTION, _TREND),
            non_shoppers=_ROBOTS,
            stock=_STOCK,
            habits=HabitSpec(0.5, 10.0),
            logging=LoggingSpec(executes=True, actions="any"),
        ),
    )
}
"""The scenarios that come with Recoup."""


def load_scenario(name_or_path: str | Path) -> Scenario:
    """Give a scenario by name, or read one from a TOML file.

    The file has the fields of :class:`Scenario`, such as ``[[defects]]`` and ``[logging]``; where
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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Expected a scenario's name or a TOML file, got `{name_or_path}`",
            hint=f"one of {', '.join(SCENARIOS)}, or a readable file",
        ) from error
    stated = {"name": path.stem, **parse_toml(text, where=str(path))}
    scenario = typed(stated, Scenario, what="a scenario", where=str(path), docs="docs/simulator.md")
    if not scenario.effects:
        scenario = msgspec.structs.replace(scenario, effects=EFFECTS)
    return checked(scenario)
