"""The defect catalogue as data: what can spoil a shopping visit, by the step where it strikes."""

from typing import Final

import msgspec

UNEXPLAINED_DROP: Final = "unexplained_drop"
"""Type of a loss that no signal explains."""


class DefectType(msgspec.Struct, frozen=True):
    """A row of the catalogue.

    Parameters
    ----------
    id
        Stable id; its letter is the part of the journey.
    name
        What spoils the visit.
    recovery
        What helps.

    Examples
    --------
    >>> DEFECT_TYPES["K5"].name, DEFECT_TYPES["K5"].stage
    ('Payment declined', 'checkout')
    """

    id: str
    name: str
    recovery: str

    @property
    def stage(self) -> str:
        """Part of the journey: search, listing, detail, cart, checkout or after."""
        return _STAGES[self.id[0]]


_STAGES: Final = {
    "S": "search", "L": "listing", "D": "detail", "C": "cart", "K": "checkout", "P": "after",
}  # fmt: skip

_ROWS: Final = (
    ("S1", "Zero results", "relax, synonym, substitutes"),
    ("S2", "Irrelevant results", "rewrite or rerank"),
    ("S3", "Reformulation loop", "guided facets, assist"),
    ("S4", "Pogo-stick or quick back", "rerank, compare view"),
    ("S5", "Filter dead end", "relax facet"),
    ("S6", "Slow or failed search", "fallback index"),
    ("S7", "Unavailable items on top", "demote"),
    ("L1", "Seen but not clicked", "fix title or image; explore"),
    ("L2", "List and detail price mismatch", "sync cache, honour"),
    ("L3", "Broken image", "fallback image"),
    ("L4", "Variant mis-grouping or duplicate", "split or merge"),
    ("D1", "Out of stock", "substitute, back-order, notify"),
    ("D2", "Slow promise", "other node or offer"),
    ("D3", "Price jump or uncompetitive price", "match, alert"),
    ("D4", "Content gap", "fill attributes"),
    ("D5", "Variant unavailable", "near variant"),
    ("D6", "Add-to-cart failure", "retry, hotfix"),
    ("D7", "Rage, dead or error click", "suppress and fix"),
    ("D8", "Slow page", "shed widgets"),
    ("D9", "Hesitation", "reassure, compare, save"),
    ("C1", "Price change in cart", "absorb if the change is large and the basket small"),
    ("C2", "Fee shock", "show early, threshold"),
    ("C3", "Out of stock or limit in cart", "substitute, split"),
    ("C4", "Coupon hunt", "auto-apply, hide box"),
    ("C5", "Free-shipping gap", "filler suggestion"),
    ("C6", "Cart lost at login or device", "restore"),
    ("C7", "Dormant cart", "reminder; coupon only if the uplift exceeds the cost"),
    ("K1", "Forced account", "guest checkout"),
    ("K2", "Login or one-time-password loop", "alternate method"),
    ("K3", "Address or form error loop", "accept with warning"),
    ("K4", "Undeliverable or no slot", "pickup, other node"),
    ("K5", "Payment declined", "retry route, other method"),
    ("K6", "Method missing", "wallet or instalments"),
    ("K7", "Authentication redirect lost", "resume link"),
    ("K8", "Checkout error or time-out", "idempotent retry, failover"),
    ("K9", "Trust gap", "badges, returns text"),
    ("K10", "Long checkout", "express pay"),
    ("K11", "Promise worsens at checkout", "hold promise, re-source"),
    ("P1", "Late, cancelled or not as described", "proactive notice, re-ship"),
    ("P2", "Repeat lapse", "buy-it-again, subscribe"),
)

DEFECT_TYPES: Final = {row[0]: DefectType(*row) for row in _ROWS}
"""The 40 rows, in the order of the journey."""
