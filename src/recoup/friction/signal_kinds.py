"""What a signal is, and the opportunities on which signals are compared."""

from typing import Final

import msgspec

FAMILIES: Final = {
    "page": ("page_view", "page_timing"),
    "search": ("search", "view_search_results"),
    "filter": ("filter_results",),
    "item": ("view_item",),
    "add": ("add_to_cart",),
    "cart": ("view_cart", "add_to_cart"),
    "checkout": ("begin_checkout",),
    "shipping": ("add_shipping_info", "shipping_quote"),
    "payment": ("add_payment_info",),
}
"""Kinds of opportunity: the events at which a symptom could have shown and did not."""


class Signal(msgspec.Struct, frozen=True):
    """A symptom that events can show.

    Parameters
    ----------
    id
        Its row of the defect catalogue.
    name
        What a shopper would call it.
    fields
        Event fields that it needs.
    family
        The opportunity it is compared on: sessions with such an event but without the symptom.
    entity
        Event column that names what is at fault, or empty where only the context can.

    Examples
    --------
    >>> Signal("S1", "no search results", ("results",), "search", "query").entity
    'query'
    """

    id: str
    name: str
    fields: tuple[str, ...]
    family: str
    entity: str = ""
