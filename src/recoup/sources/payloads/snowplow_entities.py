"""What Snowplow's self-describing events and entities say, wherever a pipeline puts them.

A schema is named by its vendor and name in snake case, as loaders name columns:
``com_snowplowanalytics_snowplow_ecommerce_product``.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from recoup.sources.payloads.draft import Entry, Node
from recoup.sources.payloads.scalars import Unreadable, number, text

SNOWPLOW: Final = "com_snowplowanalytics_snowplow_"
ECOMMERCE: Final = f"{SNOWPLOW}ecommerce_"
ACTION: Final = f"{ECOMMERCE}snowplow_ecommerce_action"
_VERSION: Final = re.compile(r"_\d+(_\d+_\d+)?$")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

ACTIONS: Final = {
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "product_view": "view_item",
    "list_click": "select_item",
    "list_view": "view_item_list",
    "promo_click": "select_promotion",
    "promo_view": "view_promotion",
    "checkout_step": "checkout_step",
    "transaction": "purchase",
    "refund": "refund",
    "trns_error": "payment_error",
}
"""Every action of the e-commerce schema -> name of the vocabulary."""

EVENTS: Final = {
    f"{SNOWPLOW}site_search": "view_search_results",
    f"{SNOWPLOW}timing": "page_timing",
    f"{SNOWPLOW}web_vitals": "page_timing",
    f"{SNOWPLOW}application_error": "ui_error",
    f"{SNOWPLOW}screen_view": "page_view",
    "com_snowplowanalytics_mobile_screen_view": "page_view",
    f"{SNOWPLOW}add_to_cart": "add_to_cart",
    f"{SNOWPLOW}remove_from_cart": "remove_from_cart",
}
"""Other self-describing events -> name; the rest is ``custom`` under its own name."""

DATA: Final = {
    "totalResults": "results",
    "total_results": "results",
    "timing": "latency_ms",
    "lcp": "latency_ms",
    "exceptionName": "error_code",
    "exception_name": "error_code",
    "elementId": "element",
    "element_id": "element",
    "formId": "element",
    "form_id": "element",
    "currency": "currency",
    "latency_ms": "latency_ms",
    "promise_days": "promise_days",
    "in_stock": "in_stock",
    "error_code": "error_code",
}
"""Field of a self-describing event -> column."""

LEGACY: Final = {
    "sku": "item",
    "name": "item_name",
    "category": "category",
    "unitPrice": "price",
    "unit_price": "price",
    "quantity": "quantity",
}
PRODUCT: Final = {
    "id": "item",
    "name": "item_name",
    "category": "category",
    "brand": "brand",
    "variant": "variant",
    "price": "price",
    "quantity": "quantity",
    "position": "position",
}
PROMOTION: Final = {
    "id": "promotion",
    "name": "item_name",
    "creative_id": "variant",
    "position": "position",
}
TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "transaction": {
        "transaction_id": "order",
        "revenue": "value",
        "currency": "currency",
        "payment_method": "payment_method",
        "total_quantity": "quantity",
        "tax": "tax",
        "shipping": "shipping",
        "discount_code": "coupon",
    },
    "refund": {"transaction_id": "order", "refund_amount": "value", "currency": "currency"},
    "transaction_error": {
        "error_code": "error_code",
        "error_shortcode": "error_code",
        "error_type": "option",
    },
    "checkout_step": {
        "step": "step",
        "delivery_method": "shipping_method",
        "payment_method": "payment_method",
        "coupon_code": "coupon",
    },
    "page": {"language": "language"},
}
"""E-commerce entity -> its fields -> columns."""

CHANGED: Final = frozenset({"add_to_cart", "remove_from_cart"})
SHOWN: Final = frozenset({"view_item_list", "view_search_results"})
STOCK: Final = {
    **dict.fromkeys(("in_stock", "instock", "available", "limited", "low_stock"), True),
    **dict.fromkeys(("out_of_stock", "outofstock", "sold_out", "soldout", "unavailable"), False),
    "backorder": False,
}
"""Inventory status -> whether it can be had now; pre-orders and unknown words are neither."""


def schema_name(uri: str) -> str:
    """Give the name of a schema from its address in Iglu.

    Examples
    --------
    >>> schema_name("iglu:org.w3/PerformanceTiming/jsonschema/1-0-0")
    'org_w3_performance_timing'
    """
    vendor, _, rest = uri.removeprefix("iglu:").partition("/")
    return f"{vendor}_{_HUMP.sub('_', rest.partition('/')[0])}".replace(".", "_").lower()


def column_name(column: str) -> str:
    """Give the name of a schema from a loader's column, without its version."""
    return _VERSION.sub("", column).lower()


def name_of(schema: str, data: Node, entities: Mapping[str, list[Node]]) -> str:
    """Give the vocabulary's name of a self-describing event."""
    if schema != ACTION:
        return EVENTS.get(schema) or schema.removeprefix(SNOWPLOW)
    action = text(data.get("type")) or "action"
    name = ACTIONS.get(action, action)
    return _step(entities) if name == "checkout_step" else name


def _step(entities: Mapping[str, list[Node]]) -> str:
    """Tell a checkout step by what it asks for; the first one begins the checkout."""
    step = next(iter(entities.get(f"{ECOMMERCE}checkout_step", ())), {})
    if text(step.get("step")) == "1":
        return "begin_checkout"
    if step.get("payment_method"):
        return "add_payment_info"
    if step.get("delivery_method") or step.get("delivery_provider"):
        return "add_shipping_info"
    return "checkout_step"


def read_event(entry: Entry, schema: str, data: Node, at: str) -> None:
    """Take what a self-describing event says."""
    if schema == ACTION:
        kind = data.pop("type", None)
        if text(kind) != entry.name:
            entry.keep(kind, "action")
        entry.take(data, {"name": "list_name"}, at)
    elif schema in {f"{SNOWPLOW}add_to_cart", f"{SNOWPLOW}remove_from_cart"}:
        line = {name: data.pop(name) for name in tuple(LEGACY) if name in data}
        entry.add_line(line, LEGACY, "subject", at, "items[0]")
    elif entry.name == "view_search_results":
        terms = data.get("terms")
        if isinstance(terms, list) and all(isinstance(term, str) for term in terms):
            entry.put("query", " ".join(data.pop("terms")), f"{at}.terms")
    elif entry.name == "page_view":
        entry.take(data, {"name": "page"}, at)
    elif entry.name == "ui_error" and not data.get("exceptionName"):
        entry.take(data, {"message": "error_code"}, at)
    entry.take(data, DATA, at)
    entry.keep(data)


def read_entity(entry: Entry, schema: str, data: Node, at: str, place: int) -> None:
    """Take what an entity says; an unknown one is kept whole."""
    name = schema.removeprefix(ECOMMERCE)
    reader = READERS.get(name) if schema.startswith(ECOMMERCE) else READERS.get(schema)
    if reader is not None:
        reader(entry, data, at, place)
    elif schema.startswith(ECOMMERCE) and name in TABLES:
        entry.take(data, TABLES[name], at)
        entry.keep(data, name)
    else:
        entry.keep(data, f"contexts.{schema}[{place}]")


def _product(entry: Entry, data: Node, at: str, place: int) -> None:
    if "currency" not in entry.fields:
        entry.put("currency", data.get("currency"), f"{at}.currency")
    if text(data.get("currency")) == entry.fields.get("currency"):
        data.pop("currency", None)
    status = text(data.get("inventory_status"))
    if status is not None:
        plain = "_".join(status.lower().replace("-", " ").split())
        entry.fields["in_stock"] = STOCK.get(plain) if place == 0 else None
    role = "impression" if entry.name in SHOWN else "subject"
    entry.add_line(data, PRODUCT, role, at, f"items[{place}]")


def _promotion(entry: Entry, data: Node, at: str, place: int) -> None:
    entry.fields.setdefault("promotion", text(data.get("id")))
    entry.add_line(data, PROMOTION, "promotion", at, f"promotions[{place}]")


def _cart(entry: Entry, data: Node, at: str, _place: int) -> None:
    if entry.name not in CHANGED:
        entry.take(data, {"total_value": "value"}, at)
    entry.take(data, {"currency": "currency"}, at)
    entry.keep(data, "cart")


def _user(entry: Entry, data: Node, _at: str, _place: int) -> None:
    entry.keep({name: value for name, value in data.items() if name != "id"}, "user")


def _session(entry: Entry, data: Node, at: str, _place: int) -> None:
    table = {"sessionId": "session", "session_id": "session", "sessionIndex": "visit_number",
             "session_index": "visit_number"}  # fmt: skip
    entry.take(data, table, at)
    entry.keep(data, "client_session")


def _device(entry: Entry, data: Node, at: str, _place: int) -> None:
    entry.take(data, {"osType": "os", "os_type": "os"}, at)
    entry.fields.setdefault("device", "mobile")
    entry.keep(data, "mobile_context")


def _timing(entry: Entry, data: Node, at: str, _place: int) -> None:
    """Give how long the page took to load, where it has."""
    try:
        begun = number(data.get("navigationStart") or data.get("navigation_start") or 0) or 0.0
        ended = number(data.get("loadEventEnd") or data.get("load_event_end") or 0) or 0.0
    except Unreadable as refused:
        entry.draft.refuse(f"{entry.path}{at}", refused.reason, data)
        return
    if ended > begun:
        entry.fields.setdefault("latency_ms", ended - begun)
    entry.keep(data, "performance_timing")


READERS: Final[Mapping[str, Callable[[Entry, Node, str, int], None]]] = {
    "product": _product,
    "promotion": _promotion,
    "cart": _cart,
    "user": _user,
    f"{SNOWPLOW}client_session": _session,
    f"{SNOWPLOW}mobile_context": _device,
    "org_w3_performance_timing": _timing,
    "org_w3_performance_navigation_timing": _timing,
}
"""Entities that are more than a table of columns."""
