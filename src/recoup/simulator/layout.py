"""Where things stand in the arrays that the kernels share: a visitor's state, events and lines."""

from typing import Final

NOTHING: Final = -1
"""Null in a measure. In a code, 0 is null and entries count from 1."""
FOREVER: Final = 1 << 62

# What a visitor will do next: a state is the event about to be emitted.
(
    ARRIVE, LAND, SEARCH, OPEN_CATEGORY, LIST, SELECT, VIEW, ADD, CART, REMOVE, BEGIN, SYMPTOM,
    SHIP, PAY, DECLINED, BUY, LEAVE,
) = range(17)  # fmt: skip

# Columns of a visitor's state, int64.
(
    NEXT_TS, STATE, KEY, VISIT, STEP, EVENTS, VISITS_BEFORE, LANDING, OFFSET, FOUND, OFFER_PPM,
    BUILD, PAGE, ITEM, CATEGORY, QUERY, METHOD,
    ATTEMPT, WOULD, CAUSE, CAUSE_TS, SPARED, OFFER, ORDERS, SPENT, COST, MET, LOADED,
    SEED, END, MOOD, SEEN_TS, SEEN, DEPTH, SIGNAL, SIGNAL_DEPTH, ENTRY_TS, ENTRY_VISIT,
    SHOWS, RESUME, TRAIT, BOUGHT, DUE,
) = range(43)  # fmt: skip
CART_ITEM: Final = 43
CART_COUNT: Final = 47
CART_SIZE: Final = 4
STATE_WIDTH: Final = 51
MOOD_UNIT: Final = 1e-9
"""MOOD, the intent of the present visit, and TRAIT, how a shopper takes offers, in this unit."""

# Rows of the table of symptoms without a defect, which has no LASTING, and columns of a defect's
# numbers.
RATE, EFFECT, SIZE, LASTING = range(4)
# Columns of a defect; its match follows, one column per attribute.
D_KIND, D_SINCE, D_UNTIL, D_ON, D_MATCH = range(5)

# Columns of a visitor's circumstances, int64 codes.
DEVICE, BROWSER, OS, CHANNEL, COUNTRY, REGION, PREFERRED = range(7)
CONTEXT_WIDTH: Final = 7

ATTRIBUTES: Final = (
    "device", "browser", "os", "channel", "country", "region",
    "build", "page", "item", "category", "query", "payment_method",
)  # fmt: skip
"""What a defect's entity can name: six of the visitor's circumstances, six of the visit."""
CIRCUMSTANCES: Final = 6

EVENT_COLUMNS: Final = (
    "event", "visitor", "visit", "number", "item", "query", "page", "category", "list_name",
    "coupon", "payment_method", "shipping_method", "error_code", "option", "build", "order",
    "element", "ts", "value", "price", "shipping", "quantity", "position", "results", "step",
    "attempt", "visit_number", "latency_ms", "promise_days", "in_stock", "is_new_visitor",
)  # fmt: skip
(
    E_EVENT, E_VISITOR, E_VISIT, E_NUMBER, E_ITEM, E_QUERY, E_PAGE, E_CATEGORY, E_LIST,
    E_COUPON, E_METHOD, E_SHIPPING_METHOD, E_ERROR, E_OPTION, E_BUILD, E_ORDER,
    E_ELEMENT, E_TS, E_VALUE, E_PRICE, E_SHIPPING, E_QUANTITY, E_POSITION, E_RESULTS, E_STEP,
    E_ATTEMPT, E_VISIT_NUMBER, E_LATENCY, E_PROMISE, E_IN_STOCK, E_NEW,
) = range(31)  # fmt: skip
CODES: Final = E_TS
"""Columns before this one are codes (0 null); from here on they are measures (-1 null)."""
EVENT_WIDTH: Final = 31

L_EVENT, L_ROLE, L_ITEM, L_QUANTITY, L_POSITION, L_LIST = range(6)
LINE_WIDTH: Final = 6
SHOWN: Final = 8
"""Items on a page of a list."""

KINDS: Final = (
    "S1", "S6", "D1", "D2", "D6", "D8", "C2", "K5", "K8", "K11",
    "L3", "D7", "C1", "C3", "C4", "K2", "K3", "K4",
)  # fmt: skip
"""Defect types that the shop can have, in the order of their codes."""
S1, S6, D1, D2, D6, D8, C2, K5, K8, K11, L3, D7, C1, C3, C4, K2, K3, K4 = range(18)
WHIM: Final = 18
"""Cause of a leave that no defect has: the shopper had enough."""
UNMET, NATURAL = -1, -2
"""Beside the index of a defect: not met, or met by bad luck that every shop has."""
