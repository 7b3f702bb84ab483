"""What the shop sells and who comes: names, mixes and prices, the same in every run."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CATEGORIES: Final = (
    "lighting", "chairs", "tables", "storage", "beds", "sofas",
    "kitchen", "garden", "textiles", "decor", "office", "kids",
)  # fmt: skip
ITEMS_EACH: Final = 24
BRANDS: Final = ("Nordlicht", "Oakline", "Casa Viva", "Plain & Co", "Marais", "Tallinn Works")
_QUERY_WORDS: Final = (
    "lamp", "chair", "table", "shelf", "bed", "sofa",
    "pan", "parasol", "curtain", "vase", "desk", "cot",
)  # fmt: skip
_QUERY_KINDS: Final = ("", "white ", "small ", "desk ", "oak ", "cheap ", "vintage ", "outdoor ")

PAGES: Final = (
    "/", "/search", "/cart", "/checkout", "/checkout/shipping", "/checkout/payment",
    "/order/confirmed",
)  # fmt: skip
HOME, SEARCH_PAGE, CART_PAGE, CHECKOUT_PAGE, SHIPPING_PAGE, PAYMENT_PAGE, DONE_PAGE = range(1, 8)
CATEGORY_PAGE: Final = len(PAGES)
"""A category's page has the code ``CATEGORY_PAGE + category``, and an item's comes behind those."""
ITEM_PAGE: Final = CATEGORY_PAGE + len(CATEGORIES)

LISTS: Final = ("search results", "category")
SEARCH_LIST, CATEGORY_LIST = 1, 2
ERRORS: Final = (
    "add_to_cart_failed", "checkout_timeout", "card_declined", "image_missing", "coupon_invalid",
    "login_failed", "field_invalid", "undeliverable",
)  # fmt: skip
(
    ADD_FAILED, CHECKOUT_FAILED, PAYMENT_FAILED, IMAGE_MISSING, COUPON_REFUSED, LOGIN_FAILED,
    FIELD_REFUSED, UNDELIVERABLE,
) = range(1, 9)  # fmt: skip
OPTIONS: Final = ("add_to_cart", "checkout", "image", "dead")
ADD_OPTION, CHECKOUT_OPTION, IMAGE_OPTION, DEAD_OPTION = range(1, 5)
ELEMENTS: Final = ("postcode", "gallery")
POSTCODE, GALLERY = 1, 2
SHIPPING_METHODS: Final = ("standard",)
COUPONS: Final = ("RECOUP10", "WELCOME5")
OWN_COUPON, REFUSED_COUPON = 1, 2

METHODS: Final = {"card": 0.48, "paypal": 0.28, "invoice": 0.16, "transfer": 0.08}
CHANNELS: Final = {
    "organic search": 0.34, "direct": 0.24, "paid search": 0.18,
    "email": 0.08, "social": 0.10, "referral": 0.06,
}  # fmt: skip
CHANNEL_WARMTH: Final = (0.05, 0.25, 0.0, 0.35, -0.9, 0.1)
COUNTRIES: Final = {
    "DE": 0.34, "FR": 0.18, "NL": 0.12, "PL": 0.10, "AT": 0.08, "IT": 0.08, "ES": 0.06, "BE": 0.04,
}  # fmt: skip
COUNTRY_PROMISE: Final = (2, 3, 2, 4, 3, 4, 4, 3)
REGIONS: Final = {
    "DE": ("DE-BE", "DE-BY", "DE-NW"), "FR": ("FR-IDF", "FR-ARA"), "NL": ("NL-NH", "NL-ZH"),
    "PL": ("PL-14", "PL-12"), "AT": ("AT-9", "AT-4"), "IT": ("IT-25", "IT-62"),
    "ES": ("ES-MD", "ES-CT"), "BE": ("BE-BRU", "BE-VLG"),
}  # fmt: skip
PLATFORMS: Final = {
    ("mobile", "Safari", "iOS"): 0.27, ("mobile", "Chrome", "Android"): 0.27,
    ("mobile", "Samsung Internet", "Android"): 0.05, ("desktop", "Chrome", "Windows"): 0.19,
    ("desktop", "Edge", "Windows"): 0.07, ("desktop", "Firefox", "Windows"): 0.03,
    ("desktop", "Safari", "macOS"): 0.07, ("tablet", "Safari", "iPadOS"): 0.05,
}  # fmt: skip
DEVICES: Final = ("mobile", "desktop", "tablet")
DEVICE_WARMTH: Final = (-0.12, 0.22, 0.05)
BROWSERS: Final = ("Safari", "Chrome", "Samsung Internet", "Edge", "Firefox")
SYSTEMS: Final = ("iOS", "Android", "Windows", "macOS", "iPadOS")
BUILDS: Final = {"web-4.1.0": 0.0, "web-4.2.0": 0.5}
"""Build -> share of the run at which it is released."""
LAGGARDS: Final = 0.2
"""Share of visits that still have the build before."""
CURRENCY: Final = "EUR"

_DAY: Final = (
    2.0, 1.2, 0.8, 0.6, 0.6, 0.9, 1.6, 2.8, 3.8, 4.4, 4.9, 5.1,
    5.2, 4.9, 4.7, 4.7, 4.9, 5.2, 5.9, 6.9, 7.4, 6.8, 5.0, 3.2,
)  # fmt: skip
_WEEK: Final = (1.05, 1.0, 0.98, 0.98, 0.92, 0.95, 1.12)
RHYTHM: Final = np.array([day * week for week in _WEEK for day in _DAY])
"""Visits begun per hour of the week, Monday 00:00 UTC first, in units of no meaning."""


class Goods(NamedTuple):
    """Items and queries as arrays; index 0 stands for none.

    ``items`` has columns ITEM_CATEGORY, ITEM_PRICE (micro-units) and ITEM_DAYS (added to the
    promise), ``queries`` has QUERY_CATEGORY, QUERY_OFFSET and QUERY_RESULTS; the chances are
    cumulative.
    """

    items: NDArray[np.int64]
    category_chance: NDArray[np.float64]
    queries: NDArray[np.int64]
    query_chance: NDArray[np.float64]


ITEM_CATEGORY, ITEM_PRICE, ITEM_DAYS = range(3)
QUERY_CATEGORY, QUERY_OFFSET, QUERY_RESULTS = range(3)


def item_names() -> list[str]:
    """Give the ids of the items, in the order of their codes."""
    return [f"{name}-{n + 1:02d}" for name in CATEGORIES for n in range(ITEMS_EACH)]


def page_names() -> list[str]:
    """Give the pages, in the order of their codes."""
    categories = [f"/c/{name}" for name in CATEGORIES]
    return [*PAGES, *categories, *(f"/p/{name}" for name in item_names())]


def query_names() -> list[str]:
    """Give the queries, in the order of their codes: those of a category stand together."""
    return [f"{kind}{word}" for word in _QUERY_WORDS for kind in _QUERY_KINDS]


def goods() -> Goods:
    """Give items and queries with prices and popularity."""
    number = np.arange(len(CATEGORIES) * ITEMS_EACH)
    category = number // ITEMS_EACH
    base = np.array([38, 59, 95, 45, 140, 210, 24, 36, 18, 15, 66, 33])[category]
    spread = np.exp(0.42 * np.sin(1.7 * number) - 0.1)
    price = (np.maximum(np.round(base * spread), 4.0) - 0.01) * 1_000_000
    kinds = len(_QUERY_KINDS)
    query = np.arange(len(_QUERY_WORDS) * kinds)
    weight = 1.0 / (1.0 + query % kinds) / (1.0 + 0.12 * (query // kinds))
    return Goods(
        _coded(category + 1, np.round(price), number % 7 == 0),
        _chances(1.0 / (1.0 + 0.12 * np.arange(len(CATEGORIES)))),
        _coded(query // kinds + 1, 5 * (query % kinds) % ITEMS_EACH, 60 // (1 + query % kinds) + 3),
        _chances(weight),
    )


def _coded(*columns: NDArray[np.generic]) -> NDArray[np.int64]:
    rows = np.stack(columns, axis=1).astype(np.int64)
    return np.concatenate([np.zeros((1, len(columns)), np.int64), rows])


def _chances(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(weights) / weights.sum(), np.float64)
