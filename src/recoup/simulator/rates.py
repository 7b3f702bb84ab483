"""The numbers of the law: chances, waiting times and what the shop charges."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.simulator import layout as at

LINES: Final = {
    "bounce": (-0.12, -0.60),
    "list_leave": (-1.75, -0.45),
    "list_select": (0.55, 0.35),
    "view_add": (-3.05, 0.80),
    "view_leave": (-1.45, -0.45),
    "cart_leave": (-0.45, -0.60),
    "cart_begin": (0.70, 0.55),
    "begin_leave": (-0.80, -0.60),
    "ship_leave": (-1.25, -0.55),
    "pay_leave": (-1.9, -0.45),
    "return": (-0.85, 0.60),
}
"""Chances whose log-odds are intercept + slope * warmth."""
(
    BOUNCE, LIST_LEAVE, LIST_SELECT, VIEW_ADD, VIEW_LEAVE, CART_LEAVE, CART_BEGIN, BEGIN_LEAVE,
    SHIP_LEAVE, PAY_LEAVE, RETURN,
) = range(11)  # fmt: skip

SHARES: Final = {
    "land_home": 0.55,
    "land_category": 0.17,
    "home_search": 0.34,
    "home_category": 0.54,
    "resume_cart": 0.45,
    "add_to_cart_page": 0.62,
    "list_search": 0.30,
    "view_related": 0.45,
    "remove": 0.15,
    "reformulate": 0.55,
}
"""Chances that do not depend on warmth. Who lands neither at home nor in a category lands on an
item; who neither searches nor opens a category from home selects an item there."""
(
    LAND_HOME, LAND_CATEGORY, HOME_SEARCH, HOME_CATEGORY, RESUME_CART, ADD_TO_CART_PAGE,
    LIST_SEARCH, VIEW_RELATED, REMOVE, REFORMULATE,
) = range(10)  # fmt: skip

ALTERNATIVES: Final = ((LAND_HOME, LAND_CATEGORY), (HOME_SEARCH, HOME_CATEGORY))
"""Shares of one choice, which are at most 1 together."""
MOST_LOG_ODDS: Final = 50.0

OTHER_METHOD: Final = 0.5
TWO_OF_IT: Final = 0.12
MOST_ATTEMPTS: Final = 3
MOST_STEPS: Final = 150
"""A visit ends here at the latest."""
NEXT_POSITION: Final = 0.72
"""P(the eye moves on to the next position of a list)."""

FREE_SHIPPING: Final = 29_000_000
SHIPPING_FEE: Final = 2_900_000

GAP_MEDIAN_S: Final = np.array(
    [0, 1, 14, 9, 2, 18, 3, 38, 7, 10, 20, 3, 35, 40, 3, 14, 0], np.float64
)
"""Median seconds before each state's event, in the order of the states."""
GAP_SIGMA: Final = 0.85
GAP_MOST_S: Final = 1_500.0
LINGER_MEDIAN_S: Final = 75.0
LINGER_CAUSE_MEDIAN_S: Final = 210.0
"""Who meets trouble hesitates before going: this is the time in which help can still arrive."""
LINGER_SIGMA: Final = 0.8
LINGER_MOST_S: Final = 1_700.0
RETURN_MEDIAN_H: Final = 15.0
RETURN_SIGMA: Final = 1.1
NEED_WARMTH: Final = 2.2
"""Added to the intent of a visit to buy the same again."""
CYCLE_SPREAD: Final = 0.4
"""How much shoppers' cycles differ, in log."""
RETURN_LEAST_S: Final = 2_400.0

LATENCY_MS: Final = 900.0
SEARCH_LATENCY_MS: Final = 420.0
LATENCY_SIGMA: Final = 0.35

_NATURAL: Final = {
    "S1": (0.03, 0.35, 0), "S6": (0.01, 0.2, 3500), "D1": (0.02, 0.4, 0), "D2": (0, 0.1, 0),
    "D6": (0.004, 0.4, 0), "D8": (0.01, 0.2, 6500), "C2": (0, 0.2, 0), "K5": (0.03, 0.4, 0),
    "K8": (0.008, 0.4, 0), "K11": (0, 0.15, 0), "L3": (0.003, 0.1, 0), "D7": (0.004, 0.2, 0),
    "C1": (0, 0.2, 0.05), "C3": (0.005, 0.4, 0), "C4": (0.01, 0.2, 0), "K2": (0.008, 0.3, 0),
    "K3": (0.012, 0.2, 0), "K4": (0.004, 0.6, 0),
}  # fmt: skip
NATURAL: Final = np.array([_NATURAL[kind] for kind in at.KINDS], np.float64).T.copy()
"""Rows RATE, EFFECT and SIZE by type: how often every shop shows a symptom without a defect, what
share leaves for it, and how bad it is."""

assert len(GAP_MEDIAN_S) == at.LEAVE + 1  # noqa: S101


def stated(
    rates: Mapping[str, float | tuple[float, float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give lines, shape (n, 2), and shares, shape (m,), with some replaced by name.

    Raises
    ------
    ConfigError
        If there is no such line or share, or a value is none, or shares exceed 1 together.
    """
    for name, value in rates.items():
        line = isinstance(value, tuple)
        if name not in (LINES if line else SHARES):
            raise ConfigError(
                f"Expected a rate that the shop has, got `{name}` - at `rates`",
                hint=f"[intercept, slope] of {', '.join(LINES)}; a number for {', '.join(SHARES)}",
            )
        if not line and not 0 <= value <= 1:  # type: ignore[operator]
            raise ConfigError(f"Expected a share in [0, 1], got {value} - at `rates.{name}`")
    lines = np.array([rates.get(name, line) for name, line in LINES.items()], np.float64)
    shares = np.array([rates.get(name, share) for name, share in SHARES.items()], np.float64)
    if not (np.abs(lines) <= MOST_LOG_ODDS).all():
        raise ConfigError(f"Expected log-odds within {MOST_LOG_ODDS:.0f} of 0 - at `rates`")
    for first, second in ALTERNATIVES:
        total = shares[first] + shares[second]
        if total > 1 + 1e-9:
            both = " and ".join(f"`{list(SHARES)[each]}`" for each in (first, second))
            raise ConfigError(
                f"Expected {both} to be at most 1 together, got {total:.2f} - at `rates`",
                hint="state both",
            )
    return lines, shares


def waits(scale: float, sigma: float) -> NDArray[np.float64]:
    """Give each state's median wait, seconds, times ``scale``, and sigma. Shape (states, 2)."""
    return np.stack([GAP_MEDIAN_S * scale, np.full(len(GAP_MEDIAN_S), sigma)], axis=1)
