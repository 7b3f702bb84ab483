"""Segment's e-commerce spec v2: track, page, screen and identify calls, alone or in batches."""

from typing import Final

from recoup.events import CODE
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.draft import Draft, Entry, Node
from recoup.sources.payloads.scalars import Unreadable, moment, path_of, text
from recoup.sources.payloads.user_agent import describe

NAME: Final = "segment"
CALLS: Final = ("track", "page", "screen", "identify", "group", "alias")
TRAITS: Final = ("identify", "group")
"""Calls that say who someone is, not what they did."""
IGNORED: Final = (
    "integrations", "version", "channel", "writeKey", "projectId", "_metadata", "receivedAt",
    "sentAt", "originalTimestamp", "context.library", "context.device.advertisingId",
    "context.device.adTrackingEnabled", "context.device.token", "context.device.id",
)  # fmt: skip

EVENTS: Final = {
    "products searched": "search",
    "product list viewed": "view_item_list",
    "product list filtered": "filter_results",
    "promotion viewed": "view_promotion",
    "promotion clicked": "select_promotion",
    "product clicked": "select_item",
    "product viewed": "view_item",
    "product added": "add_to_cart",
    "product removed": "remove_from_cart",
    "cart viewed": "view_cart",
    "checkout started": "begin_checkout",
    "checkout step viewed": "custom",
    "checkout step completed": "custom",
    "payment info entered": "add_payment_info",
    "order updated": "custom",
    "order completed": "purchase",
    "order refunded": "refund",
    "order cancelled": "refund",
    "coupon entered": "coupon_attempt",
    "coupon applied": "coupon_attempt",
    "coupon denied": "coupon_attempt",
    "coupon removed": "custom",
    "product added to wishlist": "add_to_wishlist",
    "product removed from wishlist": "custom",
    "wishlist product added to cart": "add_to_cart",
    "product shared": "custom",
    "cart shared": "custom",
    "product reviewed": "custom",
}
"""Every event of the spec -> name of the vocabulary; ``custom`` keeps its own name."""

ALIASES: Final = {
    "viewed product category": "view_item_list",
    "viewed promotion": "view_promotion",
    "clicked promotion": "select_promotion",
    "clicked product": "select_item",
    "viewed product": "view_item",
    "added product": "add_to_cart",
    "removed product": "remove_from_cart",
    "viewed cart": "view_cart",
    "started order": "begin_checkout",
    "completed order": "purchase",
    "refunded order": "refund",
    "cancelled order": "refund",
    "order canceled": "refund",
    "signed up": "sign_up",
    "signed in": "login",
    "product list searched": "search",
    "checkout step completed": "custom",
    "completed checkout step": "custom",
}
"""Names of the first version of the spec, and others that shops use for the same."""

OPTIONS: Final = {
    "coupon applied": "applied",
    "coupon denied": "denied",
    "order cancelled": "cancelled",
    "cancelled order": "cancelled",
    "order canceled": "cancelled",
}
"""Events of which the vocabulary has one name for several -> ``option``."""

STEPS: Final = ("checkout step completed", "completed checkout step")
PROMOTED: Final = frozenset({"view_promotion", "select_promotion"})
PRODUCTS: Final = frozenset({"view_item", "select_item", "add_to_cart", "remove_from_cart"})
"""Events whose properties are those of one product."""
SHOWN: Final = frozenset({"view_item_list", "filter_results", "search"})

PRODUCT: Final = {
    "product_id": "item",
    "sku": "item",
    "id": "item",
    "name": "item_name",
    "category": "category",
    "brand": "brand",
    "variant": "variant",
    "price": "price",
    "quantity": "quantity",
    "position": "position",
}
"""Field of a product -> column of the item line."""

PROPERTIES: Final = {
    "order_id": "order",
    "orderId": "order",
    "coupon_id": "coupon",
    "coupon": "coupon",
    "total": "value",
    "value": "value",
    "revenue": "value",
    "tax": "tax",
    "shipping": "shipping",
    "currency": "currency",
    "query": "query",
    "search_term": "query",
    "results": "results",
    "results_count": "results",
    "list_id": "list_name",
    "list": "list_name",
    "step": "step",
    "payment_method": "payment_method",
    "shipping_method": "shipping_method",
    "session_id": "session",
    "latency_ms": "latency_ms",
    "error_code": "error_code",
    "in_stock": "in_stock",
    "promise_days": "promise_days",
    "attempt": "attempt",
    "element": "element",
    "option": "option",
}
"""Property of any call -> column; of two for one column the first that has a value."""

CONTEXT: Final = {
    "sessionId": "session",
    "locale": "language",
}
INNER: Final = {
    "campaign": {"name": "campaign", "source": "traffic_source", "medium": "medium"},
    "location": {"country": "country", "region": "region", "city": "city"},
    "os": {"name": "os"},
    "app": {"version": "build", "build": "build"},
}
"""Object within ``context`` -> its fields -> columns."""


def recognises(payload: object) -> bool:
    """Say whether this is a call, or a batch of calls."""
    if not isinstance(payload, dict):
        return False
    batch = payload.get("batch")
    if isinstance(batch, list):
        return any(recognises(call) for call in batch)
    named = payload.get("type") in CALLS
    return named and bool({"messageId", "anonymousId", "userId", "previousId"} & payload.keys())


def decode(draft: Draft, payload: object) -> None:
    """Read one call, or the batch of calls that a request holds."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    batch = payload.get("batch")
    if not isinstance(batch, list):
        _call(draft, payload, "", {}, 0)
        return
    if not batch:
        draft.refuse(".batch", "no_events", payload)
    shared = {name: value for name, value in payload.items() if name not in {"batch", "type"}}
    for place, call in enumerate(batch):
        if isinstance(call, dict):
            _call(draft, call, f".batch[{place}]", shared, place)
        else:
            draft.refuse(f".batch[{place}]", "not_an_object", call)


def _call(draft: Draft, call: Node, at: str, shared: Node, place: int) -> None:
    node = {**shared, **call}
    if isinstance(shared.get("context"), dict) and isinstance(call.get("context"), dict):
        node["context"] = {**shared["context"], **call["context"]}
    kind, raw = text(node.pop("type", None)), node.pop("event", None)
    if kind not in CALLS:
        draft.refuse(f"{at}.type", "unknown_call", call)
        return
    properties = _object(draft, node, "traits" if kind in TRAITS else "properties", at)
    spoken = text(raw) if kind == "track" else kind
    name = _name(spoken, properties)
    entry = Entry(draft, at, call, name)
    entry.fields.update(source=NAME, seq=place)
    entry.put("id", node.pop("messageId", None), ".messageId")
    _said(entry, spoken, name)
    _properties(entry, kind, node, properties)
    _context(entry, _object(draft, node, "context", at))
    user, client = text(node.pop("userId", None)), text(node.pop("anonymousId", None))
    if kind == "alias":
        client = client or text(node.pop("previousId", None))
    ts = _time(draft, node, at)
    entry.keep(node)
    entry.finish(ts=ts, user=user, client=client)


def _object(draft: Draft, node: Node, name: str, at: str) -> Node:
    found = node.pop(name, None)
    if isinstance(found, dict):
        return dict(found)
    if found is not None:
        draft.refuse(f"{at}.{name}", "not_an_object", found)
    return {}


def tidy(name: str) -> str:
    """Give an event's name as the spec's tables spell it: lower case, single spaces."""
    return " ".join(name.replace("_", " ").lower().split())


def _name(spoken: str | None, properties: Node) -> str | None:
    """Give the vocabulary's name of a call; what it lacks keeps its own."""
    if spoken in {"page", "screen"}:
        return "page_view"
    if spoken is None:
        return None
    plain = tidy(spoken)
    if plain in STEPS:
        if properties.get("payment_method"):
            return "add_payment_info"
        return "add_shipping_info" if properties.get("shipping_method") else spoken
    name = EVENTS.get(plain) or ALIASES.get(plain, plain.replace(" ", "_"))
    return name if name in CODE and name != "custom" else spoken


def _said(entry: Entry, spoken: str | None, name: str | None) -> None:
    """Keep how the event was called, where the vocabulary's name alone does not tell it."""
    if spoken in {None, "page", name}:
        return
    entry.extra["event"] = spoken
    option = OPTIONS.get(tidy(spoken or ""))
    if option is not None:
        entry.fields["option"] = option


def _properties(entry: Entry, kind: str, node: Node, properties: Node) -> None:
    named = entry.name
    if kind in {"page", "screen"}:
        _page(entry, node, properties)
    if named == "coupon_attempt":
        entry.take(properties, {"reason": "error_code"}, ".properties")
    if named in PROMOTED:
        _promotion(entry, properties)
    products = properties.pop("products", None)
    if products == [] and named in {"filter_results", "search"}:
        entry.fields["results"] = 0
    role = "impression" if named in SHOWN else "subject"
    entry.add_lines(products, PRODUCT, role, ".properties.products")
    entry.take(properties, PROPERTIES, ".properties")
    if products is None and properties.keys() & ({"product_id", "sku"} | _first_id(named)):
        _product(entry, properties)
    elif "category" in properties:
        entry.take(properties, {"category": "category"}, ".properties")
    entry.keep(properties, "traits" if kind in TRAITS else "")


def _first_id(name: str | None) -> set[str]:
    """Give ``id`` where it is a product's: the first version of the spec called it so."""
    return {"id"} if name in PRODUCTS else set()


def _product(entry: Entry, properties: Node) -> None:
    """Make an item line of an event whose properties are those of its product."""
    product = {name: properties.pop(name) for name in tuple(PRODUCT) if name in properties}
    entry.add_line(product, PRODUCT, "subject", ".properties", "product")


def _promotion(entry: Entry, properties: Node) -> None:
    entry.take(properties, {"promotion_id": "promotion", "id": "promotion"}, ".properties")
    line = {"role": "promotion", "promotion": entry.fields.get("promotion")}
    for name, column in (("name", "item_name"), ("creative", "variant")):
        found = text(properties.pop(name, None))
        if found is not None:
            line[column] = found
    entry.lines.append({column: value for column, value in line.items() if value is not None})


def _page(entry: Entry, node: Node, properties: Node) -> None:
    named = node.pop("name", None)
    entry.take(properties, {"path": "page"}, ".properties")
    if "page" not in entry.fields:
        entry.put("page", path_of(properties.get("url")) or named, ".name")
    if named is not None:
        entry.keep(named, "name")
    if node.get("category") is not None:
        entry.keep(node.pop("category"), "page_category")


def _context(entry: Entry, context: Node) -> None:
    for name, table in INNER.items():
        if isinstance(context.get(name), dict):
            context[name] = dict(context[name])
            entry.take(context[name], table, f".context.{name}")
    entry.take(context, CONTEXT, ".context")
    if isinstance(context.get("page"), dict):
        page = context["page"] = dict(context["page"])
        entry.take(page, {"path": "page"}, ".context.page")
        entry.fields.setdefault("page", path_of(page.get("url")))
    device = context.get("device")
    if isinstance(device, dict) and text(device.get("type")):
        entry.put("device", _device(text(device["type"]) or ""), ".context.device.type")
    agent = text(context.pop("userAgent", None))
    for column, value in describe(agent) if agent else ():
        entry.fields.setdefault(column, value)
    entry.keep(agent, "user_agent")
    entry.keep(context, "context")


def _device(kind: str) -> str:
    """Give the class of a device; app kits name its system instead."""
    return "mobile" if kind.lower() in {"ios", "android"} else kind.lower()


def _time(draft: Draft, node: Node, at: str) -> int | None:
    """Give when a call was made, by our clock: Segment's own correction, or the same made here."""
    found: dict[str, int | None] = {}
    for name in ("timestamp", "originalTimestamp", "sentAt", "receivedAt"):
        try:
            found[name] = moment(node.get(name))
        except Unreadable as refused:
            found[name] = None
            draft.refuse(f"{at}.{name}", refused.reason, node[name])
    node.pop("timestamp", None)
    made, sent, arrived = found["originalTimestamp"], found["sentAt"], found["receivedAt"]
    if found["timestamp"] is not None or made is None:
        return found["timestamp"] or arrived or draft.received or sent
    return made if sent is None or arrived is None else arrived - (sent - made)


FORMAT: Final = PayloadFormat(NAME, "Segment's spec", recognises, decode, ignored=IGNORED)
