"""What shops call the fields and events of the vocabulary."""

import re
from typing import Final, TypeVar

FIELD_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "ts": (
        "ts", "timestamp", "event_time", "event_timestamp", "ts_ms", "time_stamp", "datetime",
        "event_date_time", "server_time", "client_time", "created_at", "occurred_at", "event_at",
        "received_at", "sent_at", "transaction_timestamp", "invoice_date", "order_date",
        "purchase_date", "time", "date", "day", "when", "derived_tstamp", "collector_tstamp",
        "event_date", "click_time",
    ),
    "event": (
        "event", "event_name", "event_type", "behavior", "behaviour", "behavior_type", "action",
        "action_type", "activity", "interaction", "type", "verb", "operation",
    ),
    "visitor": (
        "visitor", "visitor_id", "user_id", "user", "userid", "visitorid", "uid", "customer_id",
        "customer", "client_id", "household_id", "cookie_id", "cookie", "device_id",
        "anonymous_id", "full_visitor_id", "domain_userid", "person_id", "member_id",
        "account_id", "shopper_id", "user_pseudo_id", "distinct_id", "vid", "cid",
    ),
    "session": (
        "session", "session_id", "visit_id", "sid", "session_key", "user_session", "sess_id",
        "domain_sessionid", "visit",
    ),
    "id": (
        "id", "event_id", "message_id", "hit_id", "uuid", "insert_id", "gssid", "guid", "row_id",
        "event_uuid",
    ),
    "item": (
        "item", "item_id", "product_id", "product", "sku", "stock_code", "article_id", "asin",
        "upc", "variant", "variant_id", "goods_id", "pid", "content_id", "article", "iid",
    ),
    "order": (
        "order", "order_id", "transaction_id", "basket_id", "invoice", "invoice_no",
        "invoice_id", "txn_id", "receipt_id", "order_number", "tid",
    ),
    "category": (
        "category", "category_id", "product_category", "category_code", "category_name",
        "department", "cat_id", "content_group",
    ),
    "brand": ("brand", "brand_name", "manufacturer"),
    "page": ("page", "page_path", "url", "page_url", "page_location", "path", "href", "location"),
    "query": ("query", "search_query", "search_term", "search_keyword", "keyword", "q", "term"),
    "price": ("price", "unit_price", "item_price", "product_price", "price_usd"),
    "value": (
        "value", "revenue", "spend", "amount", "total", "total_price", "order_value",
        "sales_value", "order_total", "turnover", "sales", "total_amount", "grand_total",
    ),
    "tax": ("tax", "tax_amount", "vat"),
    "shipping": ("shipping", "shipping_cost", "shipping_fee", "delivery_fee"),
    "quantity": ("quantity", "qty", "n_cds", "units", "count", "item_count"),
    "position": ("position", "rank", "list_position", "index"),
    "results": ("results", "n_results", "result_count", "num_results", "number_of_results"),
    "step": ("step", "checkout_step"),
    "latency_ms": (
        "latency_ms", "latency", "load_time", "page_load_ms", "page_load_time", "response_time",
        "response_time_ms", "duration_ms", "load_time_ms",
    ),
    "dwell_ms": ("dwell_ms", "dwell_time", "time_on_page"),
    "promise_days": ("promise_days", "delivery_days", "eta_days"),
    "in_stock": ("in_stock", "available", "availability", "is_available"),
    "device": ("device", "device_type", "device_category", "platform"),
    "browser": ("browser", "browser_name", "user_agent_browser"),
    "os": ("os", "operating_system", "os_name"),
    "country": ("country", "country_code", "geo_country", "shipping_country"),
    "region": ("region", "state", "geo_region", "province"),
    "city": ("city", "geo_city", "town"),
    "language": ("language", "locale", "lang"),
    "channel": ("channel", "channel_grouping", "marketing_channel"),
    "traffic_source": ("source", "traffic_source", "utm_source", "referrer_source"),
    "medium": ("medium", "utm_medium"),
    "campaign": ("campaign", "utm_campaign", "campaign_name"),
    "currency": ("currency", "currency_code"),
    "coupon": ("coupon", "coupon_code", "discount_code", "promo_code", "discount_codes"),
    "payment_method": ("payment_method", "payment_type", "pay_method"),
    "shipping_method": ("shipping_method", "delivery_method", "shipping_tier"),
    "error_code": ("error_code", "error", "decline_code", "status_code"),
    "build": ("build", "app_version", "version", "release"),
    "market": ("market", "site", "store", "store_id", "shop"),
    "visit_number": ("visit_number", "visit_count", "session_number"),
}  # fmt: skip
"""Field -> names in use, the surest first, in snake case."""

EVENT_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "view_item": (
        "view", "pv", "view_item", "product_viewed", "product_view", "item_view", "detail",
        "view_product", "viewproduct", "click_detail", "product_detail", "viewed_product",
        "viewcontent", "product_detail_view", "page_view_product",
    ),
    "select_item": (
        "click", "clicks", "select_item", "product_clicked", "product_click", "item_click",
        "click_item",
    ),
    "view_item_list": (
        "view_item_list", "product_list_viewed", "impression", "impressions", "listing",
        "category_view", "collection_viewed", "exposure", "view_category",
    ),
    "add_to_cart": (
        "addtocart", "add_to_cart", "cart", "product_added", "add", "add_cart", "added_to_cart",
        "add_to_basket", "basket", "addtobasket", "cart_add", "atc",
    ),
    "remove_from_cart": (
        "remove_from_cart", "product_removed", "removefromcart", "remove", "cart_remove",
        "remove_cart",
    ),
    "add_to_wishlist": (
        "fav", "favorite", "favourite", "wishlist", "add_to_wishlist", "collect", "like", "save",
        "product_added_to_wishlist",
    ),
    "view_cart": ("view_cart", "cart_viewed", "cart_view", "basket_view", "viewed_cart"),
    "begin_checkout": (
        "begin_checkout", "checkout_started", "checkout", "initiate_checkout",
        "start_checkout", "checkout_begin", "initiatecheckout",
    ),
    "add_shipping_info": ("add_shipping_info", "shipping_info_entered", "checkout_shipping"),
    "add_payment_info": ("add_payment_info", "payment_info_entered", "checkout_payment"),
    "purchase": (
        "purchase", "buy", "transaction", "order", "order_completed", "purchased", "pay",
        "order_complete", "conversion", "sale", "checkout_completed", "placed_order", "bought",
        "payment", "order_placed",
    ),
    "refund": ("refund", "order_refunded", "order_cancelled", "return_order"),
    "page_view": ("page_view", "page", "pageview", "page_viewed", "screen", "screen_view", "visit"),
    "search": ("search", "products_searched", "product_searched", "query", "searched"),
    "view_search_results": ("view_search_results", "search_results", "search_result_page"),
    "login": ("login", "signed_in", "sign_in", "logged_in"),
    "sign_up": ("sign_up", "signed_up", "register", "registration", "complete_registration"),
    "select_promotion": ("select_promotion", "promotion_clicked", "promo_click", "pop_up_clicked"),
    "view_promotion": (
        "view_promotion", "promotion_viewed", "promo_view", "pop_up_viewed", "popup_view",
        "pop_up_email_viewed", "popup_viewed",
    ),
    "session_start": ("session_start", "start_session", "visit_start"),
}  # fmt: skip
"""Event name -> names in use, in snake case."""

Value = TypeVar("Value")

_FIELDS: Final = {word: (field, rank) for field, words in FIELD_WORDS.items()
                  for rank, word in enumerate(words)}  # fmt: skip
_EVENTS: Final = {word: event for event, words in EVENT_WORDS.items() for word in words}
_SQUEEZED: Final = {word.replace("_", ""): word for word in (*_FIELDS, *_EVENTS)}


def snake(name: str) -> str:
    """Write a name in snake case.

    Examples
    --------
    >>> snake("InvoiceDate"), snake("Product Viewed"), snake("properties.userID")
    ('invoice_date', 'product_viewed', 'properties_user_id')
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def field_of(name: str) -> tuple[str, int] | None:
    """Give the field that a column's name stands for, and how sure that is (0 is surest).

    The last part of a dotted name counts, a little less.

    Examples
    --------
    >>> field_of("visitorid"), field_of("properties.price"), field_of("colour")
    (('visitor', 5), ('price', 20), None)
    """
    whole = _lookup(snake(name), _FIELDS)
    if whole is not None or "." not in name:
        return whole
    last = _lookup(snake(name.rsplit(".", 1)[-1]), _FIELDS)
    return None if last is None else (last[0], last[1] + 20)


def event_of(name: str) -> str | None:
    """Give the event that a raw name stands for.

    Examples
    --------
    >>> event_of("pv"), event_of("Order Completed"), event_of("zebra")
    ('view_item', 'purchase', None)
    """
    return _lookup(snake(name), _EVENTS)


def _lookup(word: str, words: dict[str, Value]) -> Value | None:
    return words.get(word) if word in words else words.get(_SQUEEZED.get(word.replace("_", ""), ""))
