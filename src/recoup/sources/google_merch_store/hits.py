"""From a hit to an event."""

from typing import Final

import polars as pl

from recoup.events import EVENT_SCHEMA, EventName, conform
from recoup.sources.google_merch_store.columns import NAME, PURCHASE
from recoup.sources.google_merch_store.lines import micros

CLICK, DETAIL, ADD, REMOVE, CHECKOUT = 1, 2, 3, 4, 5

ACTIONS: Final = {
    CLICK: "select_item",
    DETAIL: "view_item",
    ADD: "add_to_cart",
    REMOVE: "remove_from_cart",
}
STEPS: Final = {2: "add_shipping_info", 3: "add_payment_info"}
"""The page of a checkout step is reached by completing the step before."""

BASKET: Final = r"^/(basket|shop\.axd/cart)"
SEARCH: Final = r"^/(asearch|search|shop\.axd/search)"
REGISTERED: Final = r"^/registersuccess"

EXTRA: Final = (
    "referer", "event_category", "event_action", "event_label",
    "server_response_ms", "dom_interactive_ms", "redirect_ms",
)  # fmt: skip


def map_hits(hits: pl.DataFrame) -> pl.DataFrame:
    """Turn hits, with context and subject beside them, into a frame of ``EVENT_SCHEMA``."""
    return conform(
        hits.select(**_identity(), **_about(), **_context(), **_measures()), EVENT_SCHEMA
    )


def _identity() -> dict[str, pl.Expr]:
    custom = _name() == "custom"
    return {
        "ts": pl.col("ts"),
        "source": pl.lit(NAME),
        "id": _id(),
        "seq": pl.col("hit_number").fill_null(0),
        "event": _name().cast(EventName),
        "custom_name": pl.when(custom).then(
            pl.coalesce("event_action", "event_category", "hit_type", pl.lit("hit"))
        ),
        "visitor": pl.col("visitor_id").cast(pl.String),
        "session": _session(),
    }


def _session() -> pl.Expr:
    return pl.concat_str("visitor_id", "visit_id", separator="-")


def _id() -> pl.Expr:
    """Name the hit; one without a visit or a number is named by its line in the table."""
    whole = pl.concat_str("visitor_id", "visit_id", "hit_number", separator="-")
    return whole.fill_null(pl.concat_str("visitor_id", pl.lit("line"), "line", separator="-"))


def _name() -> pl.Expr:
    action = pl.col("action_type")
    return (
        pl.when("is_purchase")
        .then(pl.lit("purchase"))
        .when(action == PURCHASE)
        .then(pl.lit("page_view"))
        .when(action == CHECKOUT)
        .then(pl.col("step").replace_strict(STEPS, default="begin_checkout"))
        .when(action.is_in(list(ACTIONS)))
        .then(action.replace_strict(ACTIONS, default=None, return_dtype=pl.String))
        .when(pl.col("promo_click").fill_null(value=False))
        .then(pl.lit("select_promotion"))
        .when(pl.col("hit_type") == "EVENT")
        .then(_loose_name())
        .otherwise(_page_name())
    )


def _page_name() -> pl.Expr:
    page = pl.col("page_path")
    return (
        pl.when(page.str.contains(SEARCH))
        .then(pl.lit("view_search_results"))
        .when(page.str.contains(BASKET))
        .then(pl.lit("view_cart"))
        .when(page.str.contains(REGISTERED))
        .then(pl.lit("sign_up"))
        .when(pl.col("impressions") > 0)
        .then(pl.lit("view_item_list"))
        .otherwise(pl.lit("page_view"))
    )


def _loose_name() -> pl.Expr:
    """Name a hit that is neither a page nor a shopping action."""
    return (
        pl.when(pl.col("event_category") == "Contact Us")
        .then(pl.lit("contact"))
        .when(pl.col("impressions") > 0)
        .then(pl.lit("view_item_list"))
        .when(pl.col("promo_view").fill_null(value=False))
        .then(pl.lit("view_promotion"))
        .otherwise(pl.lit("custom"))
    )


def _about() -> dict[str, pl.Expr]:
    return {
        "item": pl.col("item"),
        "query": pl.col("search_keyword"),
        "page": pl.col("page_path"),
        "category": pl.coalesce("content_group2", "item_category"),
        "brand": pl.col("brand"),
        "list_name": pl.col("list_name"),
        "promotion": pl.col("clicked_promotion"),
        "order": pl.col("transaction_id"),
        "element": pl.when(pl.col("hit_type") == "EVENT").then("event_action"),
    }


def _context() -> dict[str, pl.Expr]:
    same = (
        "device", "browser", "os", "channel", "medium", "campaign", "country", "region", "city",
    )  # fmt: skip
    return {
        **{name: pl.col(name) for name in same},
        "traffic_source": pl.col("source"),
        "option": pl.col("option"),
    }


def _measures() -> dict[str, pl.Expr]:
    checkout = pl.col("action_type") == CHECKOUT
    paid = pl.col("is_purchase")
    return {
        "value": pl.when(paid).then(micros(pl.col("revenue"))),
        "tax": pl.when(paid).then(micros(pl.col("tax"))),
        "shipping": pl.when(paid).then(micros(pl.col("shipping"))),
        "price": pl.col("price"),
        "quantity": pl.col("quantity"),
        "position": pl.col("position"),
        "step": pl.when(checkout).then("step"),
        "visit_number": pl.col("visit_number"),
        "latency_ms": pl.col("page_load_ms"),
        "is_new_visitor": pl.col("new_visits").is_not_null() | (pl.col("visit_number") == 1),
        "extra": _extra(),
    }


def _extra() -> pl.Expr:
    """Keep what has no column of its own as one JSON object, without nulls."""
    parts = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.struct(name).struct.json_encode().str.strip_prefix("{").str.strip_suffix("}")
        )
        for name in EXTRA
    ]
    joined = pl.concat_str(parts, separator=",", ignore_nulls=True)
    return pl.when(joined != "").then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))
