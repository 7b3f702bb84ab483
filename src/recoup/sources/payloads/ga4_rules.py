"""The rules that GA4's validation server keeps, as warnings: nothing is lost by breaking one."""

import re
from typing import Any, Final

import msgspec

from recoup.sources.payloads.draft import Draft, Node

MAX_EVENTS: Final = 25
MAX_PARAMS: Final = 25
MAX_PROPERTIES: Final = 25
MAX_NAME: Final = 40
MAX_VALUE: Final = 100
MAX_PROPERTY_NAME: Final = 24
MAX_PROPERTY_VALUE: Final = 36
MAX_ITEMS: Final = 200
MAX_ITEM_PARAMS: Final = 10
MAX_BYTES: Final = 130_000
ITEM_PARAMS: Final = frozenset(
    {
        "item_id", "item_name", "affiliation", "coupon", "currency", "discount", "index",
        "item_brand", "item_category", "item_category2", "item_category3", "item_category4",
        "item_category5", "item_list_id", "item_list_name", "item_variant", "location_id", "price",
        "quantity", "promotion_id", "promotion_name", "creative_name", "creative_slot",
    }
)  # fmt: skip
"""What GA4 knows of an item; anything else is a custom parameter of it."""
BACKDATED_US: Final = 72 * 3_600_000_000
LONGER: Final = {"page_location": 1000, "page_referrer": 420, "page_title": 300}
"""Parameters whose value may be longer than others'."""

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
CURRENCY: Final = re.compile(r"[A-Za-z]{3}")
PREFIXES: Final = ("_", "firebase_", "ga_", "google_", "gtag.")
OWN_PARAMS: Final = frozenset({"ga_session_id", "ga_session_number"})
"""Reserved by prefix, yet what GA4's own tag sends and its documentation tells to copy."""

RESERVED: Final = frozenset(
    {
        "ad_activeview", "ad_click", "ad_exposure", "ad_query", "ad_reward", "adunit_exposure",
        "app_background", "app_clear_data", "app_exception", "app_install", "app_remove",
        "app_store_refund", "app_store_subscription_cancel", "app_store_subscription_convert",
        "app_store_subscription_renew", "app_update", "app_upgrade", "dynamic_link_app_open",
        "dynamic_link_app_update", "dynamic_link_first_open", "error", "firebase_campaign",
        "first_open", "first_visit", "in_app_purchase", "notification_dismiss",
        "notification_foreground", "notification_open", "notification_receive", "os_update",
        "session_start", "session_start_with_rollout", "user_engagement",
    }
)  # fmt: skip
RESERVED_PROPERTIES: Final = frozenset(
    {"first_open_time", "first_visit_time", "last_deep_link_referrer", "user_id",
     "first_open_after_install"}
)  # fmt: skip

_PRICED: Final = ("currency", "value", "items")
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(
        ("add_payment_info", "add_shipping_info", "add_to_cart", "add_to_wishlist",
         "begin_checkout", "remove_from_cart", "view_cart", "view_item"),
        _PRICED,
    ),
    "purchase": (*_PRICED, "transaction_id"),
    "refund": ("currency", "value", "transaction_id"),
    "search": ("search_term",),
    "select_item": ("items",),
    "view_item_list": ("items",),
    "view_promotion": ("items",),
}  # fmt: skip
"""Event -> parameters that its reference page calls required."""


def check_payload(draft: Draft, payload: Node, events: list[Any], ts: int | None) -> None:
    """Check what stands beside the events; ``ts`` is the payload's time."""
    if "client_id" not in payload and "app_instance_id" not in payload:
        draft.warn("value_required", "client_id", "a payload names its `client_id`", ts)
    if len(events) > MAX_EVENTS:
        draft.warn(
            "exceeded_max_entities", "events", f"a request holds at most {MAX_EVENTS} events"
        )
    if _size(payload) > MAX_BYTES:
        draft.warn("exceeded_max_entities", "$", "a request has at most 130 kB", ts)
    properties = payload.get("user_properties")
    if isinstance(properties, dict):
        _check_properties(draft, properties, ts)


def _size(payload: Node) -> int:
    try:
        return len(msgspec.json.encode(payload))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return 0


def _check_properties(draft: Draft, properties: Node, ts: int | None) -> None:
    if len(properties) > MAX_PROPERTIES:
        said = f"a request holds at most {MAX_PROPERTIES} user properties"
        draft.warn("exceeded_max_entities", "user_properties", said, ts)
    for name, held in properties.items():
        _check_name(draft, str(name), "user_properties", MAX_PROPERTY_NAME, ts)
        if name in RESERVED_PROPERTIES:
            draft.warn("name_reserved", "user_properties", f"`{name}` is GA4's own name", ts)
        value = held.get("value") if isinstance(held, dict) else held
        if isinstance(value, str) and len(value) > MAX_PROPERTY_VALUE:
            said = f"a user property has at most {MAX_PROPERTY_VALUE} characters"
            draft.warn("value_out_of_bounds", "user_properties[].value", said, ts)


def check_event(draft: Draft, event: Node, params: Node, ts: int | None) -> None:
    """Check one event of a payload; ``ts`` is when it happened."""
    name = event.get("name")
    if isinstance(name, str):
        _check_name(draft, name, "events[].name", MAX_NAME, ts)
        if name in RESERVED:
            draft.warn("name_reserved", "events[].name", f"`{name}` is GA4's own event", ts)
    if len(params) > MAX_PARAMS:
        said = f"an event has at most {MAX_PARAMS} parameters"
        draft.warn("exceeded_max_entities", "events[].params", said, ts)
    if ts is not None and draft.received is not None and draft.received - ts > BACKDATED_US:
        said = "an event is at most 72 hours old when it is sent"
        draft.warn("value_out_of_bounds", "events[].timestamp_micros", said, ts)
    _check_required(draft, str(name), params, ts)
    for key, value in params.items():
        _check_param(draft, str(key), value, "events[].params", ts)
    _check_items(draft, params.get("items"), ts)


def _check_required(draft: Draft, name: str, params: Node, ts: int | None) -> None:
    at = "events[].params"
    for needed in REQUIRED.get(name, ()):
        if params.get(needed) in (None, "") and not (needed == "items" and needed in params):
            said = f"`{name}` needs `{needed}`"
            draft.warn("value_required", f"{at}.{needed}", said, ts)
    named = "currency" in REQUIRED.get(name, ())
    if not named and "value" in params and params.get("currency") in (None, ""):
        draft.warn("value_required", f"{at}.currency", "`value` needs `currency`", ts)
    currency = params.get("currency")
    if isinstance(currency, str) and currency and not CURRENCY.fullmatch(currency):
        said = "`currency` is a code of three letters (ISO 4217)"
        draft.warn("value_invalid", f"{at}.currency", said, ts)
    value = params.get("value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        draft.warn("value_invalid", f"{at}.value", "`value` is a number", ts)


def _check_items(draft: Draft, items: object, ts: int | None) -> None:
    at = "events[].params.items"
    if not isinstance(items, list):
        return
    if not items:
        draft.warn("value_required", at, "`items` holds at least one item", ts)
    if len(items) > MAX_ITEMS:
        draft.warn("exceeded_max_entities", at, f"`items` holds at most {MAX_ITEMS} items", ts)
    for item in items:
        if not isinstance(item, dict):
            continue
        if not item.get("item_id") and not item.get("item_name") and "promotion_id" not in item:
            said = "an item has `item_id` or `item_name`"
            draft.warn("value_required", f"{at}[].item_id", said, ts)
        if len(item.keys() - ITEM_PARAMS) > MAX_ITEM_PARAMS:
            said = f"an item has at most {MAX_ITEM_PARAMS} parameters of the shop's own"
            draft.warn("exceeded_max_entities", f"{at}[]", said, ts)
        for key, value in item.items():
            _check_param(draft, str(key), value, f"{at}[]", ts)


def _check_param(draft: Draft, key: str, value: object, at: str, ts: int | None) -> None:
    if key not in OWN_PARAMS:
        _check_name(draft, key, at, MAX_NAME, ts)
    limit = LONGER.get(key, MAX_VALUE)
    if isinstance(value, str) and len(value) > limit:
        said = f"`{key}` has at most {limit} characters"
        draft.warn("value_out_of_bounds", f"{at}.{key}", said, ts)


def _check_name(draft: Draft, name: str, at: str, limit: int, ts: int | None) -> None:
    if len(name) > limit:
        draft.warn("name_too_long", at, f"a name has at most {limit} characters", ts)
    if name.startswith(PREFIXES):
        said = "names do not begin with `_`, `firebase_`, `ga_`, `google_` or `gtag.`"
        draft.warn("name_reserved", at, said, ts)
    elif not NAME.fullmatch(name):
        said = "a name is a letter, then letters, digits and underscores"
        draft.warn("name_invalid", at, said, ts)
