"""Which events are steps of a journey, and which are done on a page without leaving it."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recoup.events import CODE

PAGES: Final = (
    "page_view", "view_search_results", "view_item_list", "view_item", "view_cart",
    "begin_checkout", "add_shipping_info", "add_payment_info", "purchase", "sign_up",
)  # fmt: skip
"""Events that open a page, unless they name an ``element``: that is something done on a page."""

FORWARD: Final = ("add_to_cart",)
"""Steps forward that open no page."""

ACTS: Final = (
    "scroll", "search", "filter_results", "select_item", "select_promotion", "add_to_wishlist",
    "remove_from_cart", "coupon_attempt", "click_frustration", "contact",
)  # fmt: skip
"""What shoppers do on a page, beside whatever names an ``element``: they are still there."""

CLICKS: Final = ("click_frustration",)
"""Clicks, whether or not they name an ``element``."""

REPORTED: Final = (
    "session_start", "page_timing", "page_leave", "ui_error", "stock_status", "price_change",
    "promise_change", "delivery", "refund", "return",
)  # fmt: skip
"""What the shop or the browser tells by itself; an ``element`` is what it is about."""

ANSWERED: Final = (
    "scroll", "form_error", "auth_error", "payment_error", "shipping_quote",
)  # fmt: skip
"""What a shopper who is there does or is answered, and no click on the ``element`` it names."""

_PAGE_CODES: Final = np.array([CODE[name] for name in PAGES])
_FORWARD_CODES: Final = np.array([CODE[name] for name in FORWARD])
_ACT_CODES: Final = np.array([CODE[name] for name in ACTS])
_CLICK_CODES: Final = np.array([CODE[name] for name in CLICKS])
_REPORTED_CODES: Final = np.array([CODE[name] for name in REPORTED])
_NO_CLICK_CODES: Final = np.array([CODE[name] for name in (*REPORTED, *ANSWERED)])


def is_page(event: NDArray[Any], element: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which events open a page. Shape (n,)."""
    return np.asarray(np.isin(event, _PAGE_CODES) & (element == 0))


def is_step(event: NDArray[Any], element: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which events are steps: pages, and steps forward that open none. Shape (n,)."""
    return is_page(event, element) | np.isin(event, _FORWARD_CODES)


def is_act(event: NDArray[Any], element: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which events are done on a page by a shopper who stays on it. Shape (n,)."""
    done = (element != 0) & ~np.isin(event, _REPORTED_CODES)
    return np.asarray((np.isin(event, _ACT_CODES) | done) & ~is_step(event, element))


def is_click(event: NDArray[Any], element: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which events are clicks: on an ``element``, or told as one. Shape (n,).

    Examples
    --------
    >>> codes = np.array([CODE["custom"], CODE["page_timing"], CODE["click_frustration"]])
    >>> is_click(codes, np.array([7, 7, 0])).tolist()
    [True, False, True]
    """
    named = (element != 0) & ~np.isin(event, _NO_CLICK_CODES)
    return np.asarray(named | np.isin(event, _CLICK_CODES))
