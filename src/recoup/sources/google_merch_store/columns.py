"""The columns of the four tables: those that are read, and those that are known and left alone."""

from typing import Final

import polars as pl

from recoup.events import TIMESTAMP

NAME: Final = "google_merch_store"
PURCHASE: Final = 6
KEY: Final = pl.String()
VISIT: Final = ("visitor_id", "visit_id")
HIT: Final = (*VISIT, "hit_number")

Columns = dict[str, pl.DataType]

HITS: Final[Columns] = {
    "visitor_id": KEY, "visit_id": KEY, "hit_number": pl.Int64(),
    "ts": TIMESTAMP, "hit_type": pl.String(), "action_type": pl.Int64(), "step": pl.Int64(),
    "option": pl.String(), "page_path": pl.String(), "search_keyword": pl.String(),
    "event_category": pl.String(), "event_action": pl.String(), "event_label": pl.String(),
    "content_group2": pl.String(), "referer": pl.String(), "transaction_id": pl.String(),
    "revenue": pl.Float64(), "tax": pl.Float64(), "shipping": pl.Float64(),
    "page_load_ms": pl.Float64(), "server_response_ms": pl.Float64(),
    "dom_interactive_ms": pl.Float64(), "redirect_ms": pl.Float64(), "promo_view": pl.Boolean(),
    "promo_click": pl.Boolean(),
}  # fmt: skip
SESSIONS: Final[Columns] = {
    "visitor_id": KEY, "visit_id": KEY, "visit_number": pl.Int64(),
    "visit_start": TIMESTAMP, "new_visits": pl.Int64(), "channel": pl.String(),
    "source": pl.String(), "medium": pl.String(), "campaign": pl.String(), "device": pl.String(),
    "browser": pl.String(), "os": pl.String(), "country": pl.String(), "region": pl.String(),
    "city": pl.String(),
}  # fmt: skip
PRODUCTS: Final[Columns] = {
    "visitor_id": KEY, "visit_id": KEY, "hit_number": pl.Int64(),
    "sku": pl.Categorical(), "product_name": pl.Categorical(), "category": pl.Categorical(),
    "variant": pl.Categorical(), "brand": pl.Categorical(), "price": pl.Float64(),
    "quantity": pl.Int64(), "revenue": pl.Float64(), "is_impression": pl.Boolean(),
    "list_name": pl.Categorical(), "list_position": pl.Int64(),
}  # fmt: skip
PROMOTIONS: Final[Columns] = {
    "visitor_id": KEY, "visit_id": KEY, "hit_number": pl.Int64(),
    "promo_id": pl.Categorical(), "promo_name": pl.Categorical(), "creative": pl.Categorical(),
    "is_click": pl.Boolean(),
}  # fmt: skip
TABLES: Final = {
    "events": HITS, "sessions": SESSIONS, "hit_products": PRODUCTS, "hit_promotions": PROMOTIONS,
}  # fmt: skip

LEFT: Final = {
    "events": (
        "page_title", "search_category", "is_entrance", "is_exit", "is_interaction",
        "n_products", "first_sku", "first_is_impression",
    ),
    "sessions": (
        "ga_date", "hits", "pageviews", "bounces", "time_on_site_s", "transactions", "revenue",
        "total_revenue", "keyword", "true_direct", "ad_content", "is_mobile", "continent",
        "sub_continent", "metro", "network_domain",
    ),
    "hit_products": ("is_click",),
    "hit_promotions": ("promo_position",),
}  # fmt: skip
"""Known, and never read: most say what only the end of the visit brings, or repeat another."""

NOTHING: Final = ("", "(not set)", "not available in demo dataset", "(not provided)")
"""What the export writes where it means "unknown"."""
AMOUNTS: Final = ("price", "revenue", "tax", "shipping", "page_load_ms")
"""Numbers that cannot be negative."""
OPTIONAL: Final = ("search_keyword", "referer", "tax", "option")
