"""What GA4's event and item parameters mean, however they are transported."""

from typing import Final

from recoup.events import CODE, CONTEXT, COUNTS, ENTITIES, FLAGS, MONEY, REALS
from recoup.sources.payloads.draft import Entry, Node
from recoup.sources.payloads.scalars import path_of, text

OWN: Final = {
    name: name
    for name in (*ENTITIES, *CONTEXT, *MONEY, *COUNTS, *REALS, *FLAGS)
    if name not in {"visitor", "session"}
}
"""The vocabulary's own columns: what GA4 lacks is sent as a custom parameter of that name."""

PARAMS: Final = {
    **OWN,
    "transaction_id": "order",
    "search_term": "query",
    "search_results": "results",
    "results_count": "results",
    "payment_type": "payment_method",
    "shipping_tier": "shipping_method",
    "item_list_name": "list_name",
    "item_list_id": "list_name",
    "promotion_id": "promotion",
    "promotion_name": "promotion",
    "ga_session_number": "visit_number",
    "source": "traffic_source",
    "page_path": "page",
    "screen_name": "page",
    "firebase_screen": "page",
    "link_id": "element",
    "form_id": "element",
    "checkout_step": "step",
    "checkout_option": "option",
    "method": "option",
}
"""Event parameter -> column; of two for one column the first that has a value."""

ITEM_PARAMS: Final = {
    "item_id": "item",
    "item": "item",
    "item_name": "item_name",
    "item_category": "category",
    "item_brand": "brand",
    "item_variant": "variant",
    "item_list_name": "list_name",
    "item_list_id": "list_name",
    "promotion_id": "promotion",
    "promotion_name": "promotion",
    "price": "price",
    "quantity": "quantity",
    "index": "position",
    "item_list_index": "position",
    "item_revenue": "value",
    "value": "value",
}
"""Item parameter -> column of the item line."""

RENAMED: Final = {
    "ecommerce_purchase": "purchase",
    "purchase_refund": "refund",
    "screen_view": "page_view",
    "exception": "ui_error",
    "checkout_progress": "begin_checkout",
    "set_checkout_option": "add_payment_info",
}
"""Events that other GA4 tags and app kits send under another name."""

SHOWN: Final = frozenset({"view_item_list", "view_search_results", "search", "filter_results"})
PROMOTED: Final = frozenset({"view_promotion", "select_promotion"})
SEARCHED: Final = frozenset({"search", "view_search_results", "filter_results"})


def event_name(raw: object) -> str | None:
    """Give the vocabulary's name of a GA4 event, or the raw one."""
    name = text(raw)
    if name is None or name in CODE:
        return name
    return RENAMED.get(name, name)


def role_of(name: str | None) -> str:
    """Say what items are to an event of this name."""
    if name in PROMOTED:
        return "promotion"
    return "impression" if name in SHOWN else "subject"


def read_params(entry: Entry, params: Node, at: str, client: str | None) -> None:
    """Take an event's parameters; what is unknown goes to ``extra`` under its own name."""
    session = text(params.pop("ga_session_id", None) or params.pop("session_id", None))
    if session is not None:
        entry.fields["session"] = session if client is None else f"{client}.{session}"
    items = params.pop("items", None)
    if entry.name == "ui_error" and "description" in params:
        entry.put("error_code", params.pop("description"), f"{at}.description")
    entry.take(params, PARAMS, at)
    place = path_of(params.get("page_location"))
    if place is not None:
        entry.fields.setdefault("page", place)
    read_items(entry, items, f"{at}.items")
    entry.keep(params)
    if entry.fields.get("visit_number") is not None:
        entry.fields.setdefault("is_new_visitor", entry.fields["visit_number"] == 1)


def read_items(entry: Entry, items: object, at: str) -> None:
    """Take an event's items; a search that shows an empty list has found nothing."""
    if items == [] and entry.name in SEARCHED:
        entry.fields.setdefault("results", 0)
    entry.add_lines(items, ITEM_PARAMS, role_of(entry.name), at)
    _promises(entry)


def _promises(entry: Entry) -> None:
    """Say of an event with one item whether it is in stock and when it would come."""
    if len(entry.lines) != 1:
        return
    for field in ("in_stock", "promise_days"):
        found = entry.extra.get(f"items[0].{field}")
        if found is not None and field not in entry.fields:
            entry.put(field, found, f".items[0].{field}")
