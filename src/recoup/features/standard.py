"""Feature sets that come with Recoup: one for shopping journeys, two for benchmarks."""

from recoup.features.definitions import (
    Feature,
    FeatureSet,
    Field,
    age,
    count,
    decayed,
    distinct,
    last,
    max_,
    mean,
    min_,
    rate,
    ratio,
    sessions,
    sum_,
    time_since,
)

VIEW = ("view_item",)
ADD = ("add_to_cart",)
REMOVE = ("remove_from_cart",)
SEARCH = ("search", "view_search_results")
BUY = ("purchase",)
CHECKOUT = ("begin_checkout", "add_shipping_info", "add_payment_info")
TROUBLE = ("ui_error", "click_frustration", "payment_error", "form_error", "auth_error")


def standard_features() -> FeatureSet:
    """Give the standard set for shopping journeys.

    Chosen for what precedes a purchase: how far the session has come, how lively it is, how
    focused on few items, what it costs, what went wrong, and who the visitor was before. By item
    and by query there are popularity and rates, in tiles of one hour, since such keys are heavy.

    Examples
    --------
    >>> len(standard_features().names) >= 40
    True
    """
    return FeatureSet(
        "standard",
        1,
        (
            *_session(),
            *_pace(),
            *_interest(),
            *_money(),
            *_trouble(),
            *_past(),
            *_towards_purchase(),
            *_entities(),
        ),
        owner="Recoup",
    )


def _session() -> tuple[Feature, ...]:
    kinds = {
        "page_views": ("page_view",),
        "lists": ("view_item_list",),
        "searches": SEARCH,
        "selects": ("select_item",),
        "views": VIEW,
        "adds": ADD,
        "removes": REMOVE,
        "cart_views": ("view_cart",),
        "checkout_steps": CHECKOUT,
        "purchases": BUY,
        "promotions": ("view_promotion", "select_promotion"),
    }
    return (
        count("session_events", by="session"),
        *(count(f"session_{kind}", events=names, by="session") for kind, names in kinds.items()),
        max_("session_checkout_step", "step", events=CHECKOUT, by="session"),
        ratio(
            "session_adds_per_view",
            count("", events=ADD, by="session"),
            count("", events=VIEW, by="session"),
        ),
        ratio(
            "session_views_per_page",
            count("", events=VIEW, by="session"),
            count("", events=("page_view",), by="session"),
        ),
    )


def _pace() -> tuple[Feature, ...]:
    return (
        age("session_age_s", window="session"),
        time_since("since_event_s", by="session"),
        time_since("since_view_s", events=VIEW, by="session"),
        time_since("since_add_s", events=ADD, by="session"),
        time_since("since_checkout_s", events=CHECKOUT, by="session"),
        time_since("since_search_s", events=SEARCH, by="session"),
        mean("session_gap_mean_s", "gap_s", by="session"),
        max_("session_gap_max_s", "gap_s", by="session"),
        last("session_gap_last_s", "gap_s", by="session"),
        mean("session_view_gap_mean_s", "gap_s", events=VIEW, by="session"),
        mean("session_dwell_mean_ms", "dwell_ms", by="session"),
        max_("session_dwell_max_ms", "dwell_ms", by="session"),
        count("events_5m", window="5m"),
        count("views_5m", events=VIEW, window="5m"),
        decayed("activity_10m", half_life="10m"),
        decayed("activity_1d", half_life="1d"),
    )


def _interest() -> tuple[Feature, ...]:
    viewed, items = (
        count("", events=VIEW, by="session"),
        distinct("", "item", events=VIEW, by="session"),
    )
    pair = ("visitor", "item")
    return (
        distinct("session_items", "item", by="session"),
        distinct("session_items_viewed", "item", events=VIEW, by="session"),
        distinct("session_pages", "page", by="session"),
        distinct("session_categories", "category", by="session"),
        distinct("session_queries", "query", by="session"),
        ratio("session_views_per_item", viewed, items),
        count("item_views_by_visitor_24h", events=VIEW, by=pair, window="24h"),
        count("item_views_by_visitor", events=VIEW, by=pair),
        count("item_adds_by_visitor", events=ADD, by=pair),
        time_since("since_item_view_s", events=VIEW, by=pair),
        time_since("since_item_add_s", events=ADD, by=pair),
        last("last_search_results", "results", events=SEARCH, by="session"),
        last("last_position", "position", events=("select_item",), by="session"),
    )


def _money() -> tuple[Feature, ...]:
    mean_price = mean("", "price", events=VIEW, by="session")
    return (
        sum_("session_added_value", "value", events=ADD, by="session"),
        sum_("session_removed_value", "value", events=REMOVE, by="session"),
        last("last_price", "price", by="session"),
        max_("session_price_max", "price", by="session"),
        min_("session_price_min", "price", by="session"),
        mean("session_price_mean", "price", events=VIEW, by="session"),
        ratio("price_to_session_mean", last("", "price", by="session"), mean_price),
        last("last_promise_days", "promise_days", by="session"),
    )


def _trouble() -> tuple[Feature, ...]:
    return (
        last("last_latency_ms", "latency_ms", by="session"),
        mean("session_latency_mean_ms", "latency_ms", by="session"),
        max_("session_latency_max_ms", "latency_ms", by="session"),
        count("session_troubles", events=TROUBLE, by="session"),
        time_since("since_trouble_s", events=TROUBLE, by="session"),
        count(
            "session_empty_searches", events=SEARCH, where=(Field("results") == 0,), by="session"
        ),
        count("session_out_of_stock", where=(Field("in_stock") == 0,), by="session"),
    )


def _past() -> tuple[Feature, ...]:
    return (
        age("visitor_age_s"),
        sessions("visitor_sessions"),
        sessions("visitor_sessions_24h", window="24h"),
        last("since_session_before_s", "break_s"),
        count("visitor_events"),
        count("visitor_views", events=VIEW),
        count("visitor_adds", events=ADD),
        count("visitor_purchases", events=BUY),
        count("visitor_adds_24h", events=ADD, window="24h"),
        count("visitor_views_24h", events=VIEW, window="24h"),
        time_since("since_purchase_s", events=BUY),
        time_since("since_add_ever_s", events=ADD),
        last("visitor_visit_number", "visit_number"),
        sum_("visitor_spent", "value", events=BUY),
    )


def _towards_purchase() -> tuple[Feature, ...]:
    """Declare what purchase intent gains most from: the cart, looked at and filled."""
    return (
        time_since("since_cart_view_s", events=("view_cart",), by="session"),
        time_since("since_promotion_s", events=("select_promotion",), by="session"),
        time_since("since_page_view_s", events=("page_view",), by="session"),
        count("session_logins", events=("login",), by="session"),
        time_since("since_login_s", events=("login",), by="session"),
        sum_("session_added_price", "price", events=ADD, by="session"),
        sum_("session_removed_price", "price", events=REMOVE, by="session"),
        sum_("session_added_quantity", "quantity", events=ADD, by="session"),
        mean("session_any_price_mean", "price", by="session"),
        count("visitor_checkouts", events=("begin_checkout",)),
        count("visitor_cart_views", events=("view_cart",)),
    )


def _entities() -> tuple[Feature, ...]:
    views = _popularity("item_views", VIEW, "item")
    adds = _popularity("item_adds", ADD, "item")
    bought = _popularity("item_purchases", BUY, "item")
    searched = _popularity("query_searches", SEARCH, "query")
    selected = _popularity("query_selects", ("select_item",), "query")
    return (
        views,
        adds,
        ratio("item_add_rate_24h_tile_1h", adds, views),
        ratio("item_purchase_rate_24h_tile_1h", bought, views),
        searched,
        ratio("query_select_rate_24h_tile_1h", selected, searched),
        _popularity("page_events", (), "page"),
    )


def _popularity(kind: str, names: tuple[str, ...], by: str) -> Feature:
    return count(f"{kind}_24h_tile_1h", events=names, by=by, window="24h", tile="1h")


WINDOWS = ("5m", "30m", "24h")


def benchmark_12() -> FeatureSet:
    """Give the small set that the benchmarks compare with peers."""
    return FeatureSet(
        "benchmark_12",
        1,
        (
            *_counts("views", VIEW),
            *_counts("adds", ADD),
            count("pages_5m", events=("page_view",), window="5m"),
            count("pages_30m", events=("page_view",), window="30m"),
            time_since("since_event_s", window="24h"),
            mean("latency_mean_30m", "latency_ms", window="30m"),
            distinct("items_24h", "item", window="24h"),
            sum_("price_sum_24h", "price", events=ADD, window="24h"),
        ),
    )


def benchmark_40() -> FeatureSet:
    """Give the large set that the benchmarks compare with peers."""
    kinds = {
        "pages": ("page_view",),
        "views": VIEW,
        "adds": ADD,
        "removes": REMOVE,
        "searches": ("view_search_results",),
        "checkouts": ("begin_checkout",),
    }
    return FeatureSet(
        "benchmark_40",
        1,
        (
            *(one for kind, names in kinds.items() for one in _counts(kind, names)),
            *(sum_(f"price_sum_{w}", "price", events=ADD, window=w) for w in WINDOWS),
            *(mean(f"latency_mean_{w}", "latency_ms", window=w) for w in WINDOWS),
            *(distinct(f"items_{w}", "item", window=w) for w in WINDOWS),
            distinct("distinct_pages_30m", "page", window="30m"),
            distinct("distinct_pages_24h", "page", window="24h"),
            max_("price_max_24h", "price", window="24h"),
            min_("price_min_24h", "price", window="24h"),
            mean("price_mean_30m", "price", window="30m"),
            mean("price_mean_24h", "price", window="24h"),
            time_since("since_event_s", window="24h"),
            time_since("since_view_s", events=VIEW, window="24h"),
            time_since("since_add_s", events=ADD, window="24h"),
            time_since("since_search_s", events=("view_search_results",), window="24h"),
            last("latency_last_24h", "latency_ms", window="24h"),
            rate("events_per_hour_30m", window="30m"),
            ratio(
                "adds_per_view_24h",
                count("", events=ADD, window="24h"),
                count("", events=VIEW, window="24h"),
            ),
        ),
    )


def _counts(kind: str, names: tuple[str, ...]) -> tuple[Feature, ...]:
    return tuple(count(f"{kind}_{window}", events=names, window=window) for window in WINDOWS)
