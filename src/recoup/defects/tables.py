"""What the tables of evidence hold: the funnel's levels and the attributes of sessions."""

from typing import Final

LEVELS: Final = (
    "landed", "view_item_list", "view_item", "add_to_cart", "begin_checkout",
    "add_shipping_info", "add_payment_info", "purchase",
)  # fmt: skip
"""Steps of the funnel; a session has reached a level once it shows its event or a later one's."""

CONTEXTS: Final = (
    "device", "browser", "os", "channel", "traffic_source", "country", "build", "is_new_visitor",
)  # fmt: skip
"""What a session is from its first event that says so."""

TOUCHED: Final = ("page", "item", "query", "category", "payment_method")
"""What a session can meet more than one of."""
