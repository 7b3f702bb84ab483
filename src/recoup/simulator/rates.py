"""The numbers of the law: chances, waiting times and what the shop charges."""

from typing import Final

import numpy as np

from recoup.simulator import layout as at

HOME_SHARE: Final = 0.55
CATEGORY_LANDING_SHARE: Final = 0.72
"""Cumulative: who lands neither at home nor in a category lands on an item."""
LAND_TO_SEARCH: Final = 0.34
LAND_TO_CATEGORY: Final = 0.88
RESUME_CART: Final = 0.45

BOUNCE: Final = (-0.12, -0.60)
"""Intercept and slope in warmth of the log-odds, here and below."""
LIST_LEAVE: Final = (-1.75, -0.45)
LIST_SELECT: Final = (0.55, 0.35)
VIEW_ADD: Final = (-3.05, 0.80)
VIEW_LEAVE: Final = (-1.45, -0.45)
CART_LEAVE: Final = (-0.45, -0.60)
CART_BEGIN: Final = (0.70, 0.55)
BEGIN_LEAVE: Final = (-0.80, -0.60)
SHIP_LEAVE: Final = (-1.25, -0.55)
PAY_LEAVE: Final = (-1.9, -0.45)
RETURN: Final = (-0.85, 0.60)

ADD_TO_CART_PAGE: Final = 0.62
LIST_SEARCH: Final = 0.30
VIEW_RELATED: Final = 0.45
REMOVE_SHARE: Final = 0.15
REFORMULATE: Final = 0.55
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
    [0, 1, 14, 9, 2, 18, 3, 38, 7, 10, 20, 3, 4, 35, 40, 3, 14, 0], np.float64
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
RETURN_LEAST_S: Final = 2_400.0

LATENCY_MS: Final = 900.0
SEARCH_LATENCY_MS: Final = 420.0
LATENCY_SIGMA: Final = 0.35

NATURAL_RATE: Final = np.array([0.03, 0.01, 0.02, 0.0, 0.004, 0.01, 0.0, 0.03, 0.008, 0.0])
"""How often every shop shows a symptom without a defect, by type."""
NATURAL_EFFECT: Final = np.array([0.35, 0.2, 0.4, 0.1, 0.4, 0.2, 0.2, 0.4, 0.4, 0.15])
NATURAL_SIZE: Final = np.array([0, 3500, 0, 0, 0, 6500, 0, 0, 0, 0], np.float64)

assert len(GAP_MEDIAN_S) == at.LEAVE + 1  # noqa: S101
