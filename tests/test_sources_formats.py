"""What each payload format says: its events, its rules, its times, its ids."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recoup.runners.replay import replay_source
from recoup.sources import merge_findings, open_source
from recoup.sources.payloads import Decoded, decode

FIXTURES = Path(__file__).parent / "fixtures" / "payloads"
NOON_US = 1_767_268_800_000_000
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def payloads(name: str) -> list[Any]:
    text = (FIXTURES / f"{name}.ndjson").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def rows(found: Decoded) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in found.batch.events.to_dicts()
    ]


def lines(found: Decoded) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in found.batch.items.to_dicts()
    ]


def only(name: str, payload: object) -> dict[str, Any]:
    (row,) = rows(decode(payload, NOW, format=name))
    return row


# GA4


def ga4(*events: dict[str, Any], **more: object) -> Decoded:
    body = {
        "client_id": "c",
        "timestamp_micros": NOON_US,
        "events": [*events],
        **more,
    }
    return decode(body, NOW, format="ga4_mp")


def event(name: str, **params: object) -> dict[str, Any]:
    return {"name": name, "params": params}


def test_a_ga4_purchase_is_one_event_with_item_lines() -> None:
    found = decode(payloads("ga4_mp")[1], NOW, format="ga4_mp")
    (bought,) = (row for row in rows(found) if row["event"] == "purchase")
    assert (bought["order"], bought["value"], bought["shipping"]) == ("T_1", 31_000_000, 3_990_000)
    assert (bought["visitor"], bought["session"]) == ("ada", "c.100.1767268700")
    assert json.loads(bought["extra"])["client_id"] == "c.100"
    mine = [line for line in lines(found) if line["event"] == 3]
    assert [(line["item"], line["quantity"]) for line in mine] == [("SKU_1", 1), ("SKU_2", 2)]


def test_ga4_times_are_the_events_own_then_the_payloads_then_the_moment_received() -> None:
    own = {"name": "page_view", "timestamp_micros": 1_767_268_801_000_000}
    first, second = rows(ga4(own, event("page_view")))
    assert (first["ts"].second, second["ts"].second) == (1, 0)
    (third,) = rows(ga4(event("page_view"), timestamp_micros=None))
    assert third["ts"] == NOW


@pytest.mark.parametrize(
    ("body", "kind", "path"),
    [
        (event("add_to_cart", value=1, currency="EUR"), "value_required", "params.items"),
        (event("add_to_cart", value=1, currency="EUR", items=[]), "value_required", "params.items"),
        (event("purchase", value=1, currency="EUR", items=[{"item_id": "a"}]), "value_required",
         "params.transaction_id"),
        (event("search"), "value_required", "params.search_term"),
        (event("generate_lead", value=3), "value_required", "params.currency"),
        (event("page_view", currency="euro"), "value_invalid", "params.currency"),
        (event("page_view", value="3", currency="EUR"), "value_invalid", "params.value"),
        (event("view_item_list", items=[{"price": 1}]), "value_required", "items[].item_id"),
        (event("view_item_list", items=[{"item_id": "a"}] * 201), "exceeded_max_entities", "items"),
        (event("view_item_list", items=[{"item_id": "a"} | {f"c{n}": n for n in range(11)}]),
         "exceeded_max_entities", "items[]"),
        (event("x" * 41), "name_too_long", "events[].name"),
        (event("1st"), "name_invalid", "events[].name"),
        (event("ga_thing"), "name_reserved", "events[].name"),
        (event("session_start"), "name_reserved", "events[].name"),
        (event("page_view", **{"bad name": 1}), "name_invalid", "events[].params"),
        (event("page_view", **{"y" * 41: 1}), "name_too_long", "events[].params"),
        (event("page_view", note="z" * 101), "value_out_of_bounds", "params.note"),
        (event("page_view", **{f"p{n}": n for n in range(26)}), "exceeded_max_entities", "params"),
    ],
)  # fmt: skip
def test_a_broken_rule_of_ga4_is_a_warning_and_no_loss(
    body: dict[str, Any], kind: str, path: str
) -> None:
    found = ga4(body)
    assert (kind, True) in [(w.kind, w.path.endswith(path)) for w in found.warnings]
    assert len(found.batch) == 1
    assert found.dead_letters.is_empty()


def test_a_payload_that_keeps_the_rules_of_ga4_gives_no_warning() -> None:
    item = {"item_id": "a", "price": 3.5, "quantity": 1} | {f"c{n}": n for n in range(10)}
    priced = {"currency": "EUR", "value": 3.5, "items": [item]}
    found = ga4(
        event("page_view", page_location="https://shop.example/" + "a" * 200, session_id="1"),
        event("add_to_cart", **priced),
        event("purchase", transaction_id="T", **priced),
        event("refund", transaction_id="T", currency="EUR", value=3.5),
    )
    assert found.warnings == ()


def test_rules_about_the_whole_request() -> None:
    many = ga4(*[event("page_view")] * 26)
    assert [(w.kind, w.path) for w in many.warnings] == [("exceeded_max_entities", "events")]
    assert len(many.batch) == 26
    nobody = decode({"user_id": "u", "events": [event("page_view")]}, NOW, format="ga4_mp")
    assert [(w.kind, w.path) for w in nobody.warnings] == [("value_required", "client_id")]
    odd = ga4(event("page_view"), user_properties={"p" * 25: {"value": "v" * 37}, "user_id": {}})
    assert {w.kind for w in odd.warnings} == {
        "name_too_long", "value_out_of_bounds", "name_reserved",
    }  # fmt: skip
    items = [{"item_id": f"{n:0100}"} for n in range(199)]
    large = ga4(*[event("view_item_list", items=items)] * 6)
    assert [(w.kind, w.path) for w in large.warnings] == [("exceeded_max_entities", "$")]
    assert len(large.batch) == 6
    old = ga4(event("page_view"), timestamp_micros=1_766_000_000_000_000)
    assert [w.path for w in old.warnings] == ["events[].timestamp_micros"]


def test_warnings_become_findings_with_path_count_and_dates(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    hour = 3_600_000_000
    with log.open("w") as stream:
        for number in range(60):
            params = {"value": 1} if number < 20 else {"value": 1, "currency": "EUR"}
            body = {"client_id": "c", "timestamp_micros": 1_767_000_000_000_000 + number * hour,
                    "events": [event("generate_lead", **params)]}  # fmt: skip
            stream.write(json.dumps(body) + "\n")
    found = merge_findings(f for b in open_source(log, now=NOW).batches() for f in b.findings)
    (rule,) = (finding for finding in found if finding.kind == "value_required")
    assert rule.column == "events[].params.currency"
    assert (rule.since, rule.until) == ("2025-12-29T09:20:00Z", "2025-12-30T04:20:00Z")
    assert "(20)" in rule.detail


def test_paths_of_dead_letters_name_file_row_and_field(tmp_path: Path) -> None:
    (tmp_path / "log.ndjson").write_text(
        json.dumps({"client_id": "c", "timestamp_micros": NOON_US, "events": [
            event("page_view"),
            event("purchase", items=[{"item_id": "a", "price": "free"}], value=-3),
            3,
        ]}) + "\n{\n" + json.dumps({"events": "none"}) + "\n"
    )  # fmt: skip
    (found,) = open_source(tmp_path / "log.ndjson", now=NOW).batches()
    assert found.dead_letters.select("path", "reason").rows() == [
        ("log.ndjson:1 $.events[1].params.value", "negative_value"),
        ("log.ndjson:1 $.events[1].params.items[0].price", "bad_number"),
        ("log.ndjson:1 $.events[2]", "not_an_object"),
        ("log.ndjson:2", "bad_json"),
        ("log.ndjson:3 $.events", "no_events"),
    ]
    assert len(found.batch) == 2


def test_a_login_links_a_client_from_then_on_and_never_backwards(tmp_path: Path) -> None:
    with (tmp_path / "log.ndjson").open("w") as stream:
        for number, user in enumerate([None, "ada", None, "bob", None]):
            body = {"client_id": "c", "timestamp_micros": NOON_US + number,
                    "user_id": user, "events": [event("page_view")]}  # fmt: skip
            stream.write(json.dumps(body) + "\n")
    found = list(open_source(tmp_path / "log.ndjson", now=NOW).batches(rows=2))
    seen = [visitor for batch in found for visitor in batch.batch.events["visitor"].to_list()]
    assert seen == ["c", "ada", "ada", "bob", "bob"]
    again = open_source(tmp_path / "log.ndjson", now=NOW).batches(found[0].position, rows=2)
    assert [v for b in again for v in b.batch.events["visitor"].to_list()] == seen[2:]


def test_the_same_payload_sent_twice_has_the_same_ids() -> None:
    body = payloads("ga4_mp")[0]
    first, second = (
        decode(body, NOW + dt.timedelta(seconds=n), format="ga4_mp").batch.events["id"].to_list()
        for n in range(2)
    )
    assert first == second
    assert len(set(first)) == len(first)


# BigQuery


def test_rows_of_the_export_are_put_in_order_of_time(tmp_path: Path) -> None:
    frame = pl.DataFrame(payloads("ga4_bigquery"), infer_schema_length=None)
    frame.write_parquet(tmp_path / "events_20260101.parquet")
    source = open_source(tmp_path / "events_20260101.parquet", now=NOW)
    assert source.name == "ga4_bigquery"
    (found,) = source.batches()
    assert found.batch.events["event"].to_list() == [
        "add_to_cart", "view_search_results", "page_view", "purchase",
    ]  # fmt: skip
    assert found.batch.events["seq"].to_list() == [1, 2, 3, 4]
    assert found.batch.events["is_new_visitor"].to_list() == [True] * 4
    assert found.dead_letters.is_empty()


def test_nested_rows_and_parquet_rows_and_strings_say_the_same(tmp_path: Path) -> None:
    rows_ = payloads("ga4_bigquery")
    pl.DataFrame(rows_, infer_schema_length=None).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.json").write_text(json.dumps(rows_, indent=1))
    texts = [
        {name: json.dumps(value) if isinstance(value, list) else value
         for name, value in row.items()}
        for row in rows_
    ]  # fmt: skip
    (tmp_path / "c.ndjson").write_text("".join(json.dumps(row) + "\n" for row in texts))
    batches = [next(open_source(tmp_path / n, now=NOW).batches()).batch
               for n in ("a.parquet", "b.json", "c.ndjson")]  # fmt: skip
    first = batches[0]
    for other in batches[1:]:
        same = [name for name in first.events.columns if name != "extra"]
        assert other.events.select(same).equals(first.events.select(same))
        assert other.items.equals(first.items)


@pytest.mark.parametrize(
    "flat",
    [
        {"event_params.page_location": "https://s.example/tea", "device.category": "mobile"},
        {"event_params_page_location": "https://s.example/tea", "device_category": "mobile"},
        {"page_location": "https://s.example/tea", "device__category": "mobile"},
        {"ep_page_location": "https://s.example/tea", "device": {"category": "mobile"}},
    ],
)
def test_flattened_columns_are_read_in_every_spelling(flat: dict[str, Any]) -> None:
    row = {"event_timestamp": "1767268800000000", "event_name": "page_view",
           "user_pseudo_id": "c", "ga_session_id": 7, **flat}  # fmt: skip
    found = only("ga4_bigquery", row)
    assert (found["page"], found["device"], found["session"]) == ("/tea", "mobile", "c.7")


def test_flattened_rows_say_what_nested_ones_do() -> None:
    begun, bought = (decode(one, NOW, format="ga4_bigquery") for one in payloads(
        "ga4_bigquery_flat"))  # fmt: skip
    assert bought.batch.items["item"].to_list() == ["tea-1"]
    assert begun.batch.items["price"].to_list() == [10_500_000]
    for found in (begun, bought):
        (event,) = rows(found)
        assert (event["value"], event["currency"], event["browser"]) == (
            31_500_000, "EUR", "Firefox",
        )  # fmt: skip
    (event,) = rows(bought)
    assert (event["order"], event["tax"], event["build"]) == ("T_2", 5_470_000, "7.1")
    assert event["session"] == rows(begun)[0]["session"]


def test_rows_unnested_by_item_or_by_parameter_are_one_event_again(tmp_path: Path) -> None:
    base = {"event_timestamp": 1_767_268_800_000_000, "user_pseudo_id": "c"}
    by_item = [
        {**base, "event_name": "purchase", "transaction_id": "T", "item_id": item, "price": 2.5,
         "quantity": 1} for item in ("a", "b")
    ]  # fmt: skip
    by_param = [
        {**base, "event_name": "page_view", "event_params.key": key,
         "event_params.value.string_value": value}
        for key, value in (("page_location", "https://s.example/x"), ("colour", "blue"))
    ]  # fmt: skip
    log = tmp_path / "flat.ndjson"
    log.write_text("".join(json.dumps(row) + "\n" for row in by_item + by_param))
    (found,) = open_source(log, now=NOW).batches()
    bought, viewed = found.batch.events.to_dicts()
    assert (bought["event"], bought["order"]) == ("purchase", "T")
    assert found.batch.items["item"].to_list() == ["a", "b"]
    assert found.batch.items["price"].to_list() == [2_500_000] * 2
    assert (viewed["page"], json.loads(viewed["extra"])["colour"]) == ("/x", "blue")


# Segment

SEGMENT_NAMES = {
    "Products Searched": "search", "Product List Viewed": "view_item_list",
    "Product List Filtered": "filter_results", "Promotion Viewed": "view_promotion",
    "Promotion Clicked": "select_promotion", "Product Clicked": "select_item",
    "Product Viewed": "view_item", "Product Added": "add_to_cart",
    "Product Removed": "remove_from_cart", "Cart Viewed": "view_cart",
    "Checkout Started": "begin_checkout", "Checkout Step Viewed": "custom",
    "Checkout Step Completed": "add_shipping_info", "Payment Info Entered": "add_payment_info",
    "Order Updated": "custom", "Order Completed": "purchase", "Order Refunded": "refund",
    "Order Cancelled": "refund", "Coupon Entered": "coupon_attempt",
    "Coupon Applied": "coupon_attempt", "Coupon Denied": "coupon_attempt",
    "Coupon Removed": "custom", "Product Added to Wishlist": "add_to_wishlist",
    "Product Removed from Wishlist": "custom", "Wishlist Product Added to Cart": "add_to_cart",
    "Product Shared": "custom", "Cart Shared": "custom", "Product Reviewed": "custom",
}  # fmt: skip


def test_every_event_of_segments_spec_is_named_or_kept_by_its_own_name() -> None:
    calls = [call for call in payloads("segment") if call.get("messageId", "w").startswith("m")]
    assert {call["event"] for call in calls} == set(SEGMENT_NAMES)
    for call in calls:
        row = only("segment", call)
        assert row["event"] == SEGMENT_NAMES[call["event"]], call["event"]
        own = row.get("custom_name") or json.loads(row["extra"])["event"]
        assert own == call["event"]


@pytest.mark.parametrize(
    "spelt", ["product added", "Product_Added", "Added Product", "add_to_cart"]
)
def test_segment_names_are_read_in_any_spelling(spelt: str) -> None:
    call = {"type": "track", "event": spelt, "userId": "u", "properties": {"product_id": "p"}}
    assert (only("segment", call)["event"], only("segment", call)["item"]) == ("add_to_cart", "p")


def test_segment_corrects_the_clock_of_the_client() -> None:
    call = {
        "type": "track",
        "event": "x",
        "userId": "u",
        "originalTimestamp": "2026-01-01T10:00:00Z",
        "sentAt": "2026-01-01T10:00:05Z",
        "receivedAt": "2026-01-01T12:00:05Z",
    }
    assert only("segment", call)["ts"] == dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


def test_segment_knows_a_refused_coupon_an_empty_filter_and_a_batchs_context() -> None:
    denied = only("segment", {"type": "track", "event": "Coupon Denied", "userId": "u",
                              "properties": {"coupon_id": "C", "reason": "expired"}})  # fmt: skip
    assert (denied["coupon"], denied["error_code"], denied["option"]) == ("C", "expired", "denied")
    empty = only("segment", {"type": "track", "event": "Product List Filtered", "userId": "u",
                             "properties": {"products": []}})  # fmt: skip
    assert empty["results"] == 0
    batch = next(payload for payload in payloads("segment") if "batch" in payload)
    found = rows(decode(batch, NOW, format="segment"))
    assert [row["os"] for row in found] == ["iOS"] * 5
    assert [row.get("custom_name", row["event"]) for row in found] == [
        "page_view", "identify", "page_view", "group", "alias",
    ]  # fmt: skip


# Snowplow

SNOWPLOW_NAMES = {
    "add_to_cart": "add_to_cart", "remove_from_cart": "remove_from_cart",
    "product_view": "view_item", "list_click": "select_item", "list_view": "view_item_list",
    "promo_click": "select_promotion", "promo_view": "view_promotion",
    "checkout_step": "add_shipping_info", "transaction": "purchase", "refund": "refund",
    "trns_error": "payment_error",
}  # fmt: skip
ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"


def test_every_action_of_snowplow_is_named() -> None:
    told = {
        payload[ACTION]["type"]: payload for payload in payloads("snowplow") if ACTION in payload
    }
    assert set(told) == set(SNOWPLOW_NAMES)
    for action, payload in told.items():
        row = only("snowplow", payload)
        assert row["event"] == SNOWPLOW_NAMES[action]
        assert (row["visitor"], row["session"], row["device"]) == ("d1", "s1", "mobile")
        assert row["latency_ms"] == 2_500.0


def test_snowplows_transaction_error_and_inventory_status_reach_their_signals() -> None:
    told = {
        payload[ACTION]["type"]: payload for payload in payloads("snowplow") if ACTION in payload
    }
    refused = only("snowplow", told["trns_error"])
    assert (refused["error_code"], refused["option"], refused["order"]) == ("E522", "hard", "T1")
    assert (refused["payment_method"], refused["value"]) == ("card", 31_000_000)
    viewed = only("snowplow", told["product_view"])
    assert (viewed["in_stock"], viewed["item"], viewed["price"]) == (False, "P1", 9_500_000)
    assert json.loads(viewed["extra"])["items[0].inventory_status"] == "Out of stock"


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ({"step": 1, "payment_method": "card"}, "begin_checkout"),
        ({"step": 2, "delivery_method": "post"}, "add_shipping_info"),
        ({"step": 3, "payment_method": "card"}, "add_payment_info"),
        ({"step": 4}, "custom"),
    ],
)
def test_a_checkout_step_is_told_by_what_it_asks_for(step: dict[str, Any], name: str) -> None:
    vendor = "contexts_com_snowplowanalytics_snowplow_ecommerce_checkout_step_1"
    payload = {"event_id": "e", "event": "unstruct", "domain_userid": "d",
               ACTION: {"type": "checkout_step"}, vendor: [step]}  # fmt: skip
    assert only("snowplow", payload)["event"] == name


def test_a_trackers_request_says_the_same_as_the_enriched_event() -> None:
    (request,) = (p for p in payloads("snowplow") if "payload_data" in str(p.get("schema")))
    found = rows(decode(request, NOW, format="snowplow"))
    assert [row.get("custom_name", row["event"]) for row in found] == [
        "page_view", "zoom", "purchase", "transaction_item",
    ]  # fmt: skip
    assert (found[2]["order"], found[2]["value"]) == ("T2", 31_000_000)
    assert (found[3]["item"], found[3]["quantity"]) == ("P1", 2)
    site = next(p for p in payloads("snowplow") if p.get("event_id") == "r1")
    searched = only("snowplow", site)
    assert (searched["query"], searched["results"], searched["visitor"]) == ("green mug", 0, "ada")


# CloudEvents


def test_an_envelopes_source_and_id_name_its_event() -> None:
    found = [rows(decode(one, NOW, format="cloudevents")) for one in payloads("cloudevents")]
    assert [row["id"] for row in found[0]] == ["A1"]
    assert [row["id"] for row in found[1]] == [f"A2/{place}" for place in range(5)]
    assert {row["source"] for inner in found for row in inner} == {"/shop/web"}
    assert [inner[0]["event"] for inner in found] == [
        "view_item", "login", "purchase", "payment_error", "purchase", "login", "login",
    ]  # fmt: skip
    assert json.loads(found[2][0]["extra"])["data.id"] == "m15"
    assert json.loads(found[0][0]["extra"])["traceparent"] == "00-4bf9-01"


def test_a_batch_of_envelopes_is_read_and_repeats_are_told(tmp_path: Path) -> None:
    batch = [payloads("cloudevents")[0]] * 3
    (tmp_path / "log.json").write_text(json.dumps(batch))
    source = open_source(tmp_path / "log.json", now=NOW)
    summary = replay_source(source, tmp_path / "out", title="x", identity="x")
    assert (summary.events, summary.duplicates) == (1, 2)


def test_an_envelope_with_nothing_known_in_it_is_a_dead_letter() -> None:
    envelope = {"specversion": "1.0", "type": "t", "source": "/s", "id": "1"}
    for more, reason in (
        ({}, "no_data"),
        ({"data": {"a": 1}}, "unknown_data"),
        ({"data": "<a/>", "datacontenttype": "application/xml"}, "unknown_data"),
        ({"data_base64": "%"}, "unknown_data"),
    ):
        found = decode({**envelope, **more}, NOW, format="cloudevents")
        assert found.dead_letters["reason"].to_list() == [reason]
    twice = json.dumps({"event": "view_item", "visitor": "v"})
    read = decode({**envelope, "time": "2026-01-01T10:00:00Z", "data": twice}, NOW,
                  format="cloudevents")  # fmt: skip
    assert read.batch.events["event"].to_list() == ["view_item"]
    assert [(w.kind, w.path) for w in read.warnings] == [("value_invalid", "data")]
    unnamed = {"specversion": "0.3", "type": "a.login", "source": "/s", "data": {"visitor": "v"}}
    odd = decode(unnamed, NOW, format="cloudevents")
    assert {(w.kind, w.path) for w in odd.warnings} == {
        ("value_required", "id"), ("value_invalid", "specversion"),
    }  # fmt: skip
    assert len(odd.batch) == 1
