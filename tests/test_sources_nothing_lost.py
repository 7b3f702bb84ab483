"""What a log says is kept, or said to be lost: cases that slipped through once."""

import datetime as dt
import json
from pathlib import Path

import pytest

from recoup.errors import SourceError
from recoup.sources import SourceBatch, open_source
from recoup.sources.payloads import Decoded, decode

NOON = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
ENVELOPE = {"specversion": "1.0", "type": "shop.view", "source": "/web", "id": "7"}
VIEW = {"visitor": "v", "event": "view_item"}


def kept(found: Decoded) -> dict[str, object]:
    extra: dict[str, object] = json.loads(found.batch.events["extra"][0])
    return extra


def test_an_envelope_without_an_id_keeps_its_source() -> None:
    envelope = {name: value for name, value in ENVELOPE.items() if name != "id"}
    assert kept(decode({**envelope, "data": VIEW}, NOON, format="cloudevents"))["source"] == "/web"


def test_an_envelope_keeps_what_its_event_was_called_inside() -> None:
    inner = {**VIEW, "source": "till", "id": "inner", "ts": "2026-03-02T10:00:00Z"}
    payload = {**ENVELOPE, "time": "2026-03-02T11:00:00Z", "data": inner}
    found = decode(payload, NOON, format="cloudevents")
    assert kept(found) == {
        "type": "shop.view",
        "time": "2026-03-02T11:00:00Z",
        "data.id": "inner",
        "data.source": "till",
    }
    assert found.batch.events["source"][0] == "/web"
    assert found.ignored == {"specversion": 1}


@pytest.mark.parametrize("kind", [[], {}, [["pv"]]])
def test_an_envelope_with_an_event_of_no_kind_is_a_dead_letter(kind: object) -> None:
    payload = {**ENVELOPE, "data": {"e": kind, "eid": "1"}}
    found = decode(payload, NOON, format="cloudevents")
    assert found.dead_letters["reason"].to_list() == ["unknown_data"]


def test_an_envelopes_time_that_is_the_events_is_not_kept_twice() -> None:
    payload = {**ENVELOPE, "time": "2026-03-02T11:00:00Z", "data": VIEW}
    assert "time" not in kept(decode(payload, NOON, format="cloudevents"))


def test_the_time_of_a_request_is_kept_beside_that_of_its_event() -> None:
    own = {"name": "login", "timestamp_micros": 1772445600000000}
    body = {"client_id": "c", "timestamp_micros": 1772445601000000, "events": [own]}
    found = decode(body, NOON, format="ga4_mp")
    assert kept(found) == {"timestamp_micros": 1772445601000000}
    body["events"] = [{"name": "login"}]
    assert decode(body, NOON, format="ga4_mp").batch.events["extra"][0] is None


@pytest.mark.parametrize("name", ["search", "select_item", "view_item_list"])
def test_a_value_needs_a_currency_whatever_the_event_requires(name: str) -> None:
    params = {"search_term": "tea", "items": [{"item_id": "a"}], "value": 3}
    body = {"client_id": "c", "events": [{"name": name, "params": params}]}
    warned = decode(body, NOON, format="ga4_mp").warnings
    assert [each.path for each in warned] == ["events[].params.currency"]


def test_the_first_version_of_segments_spec_names_orders_and_products_its_own_way() -> None:
    call = {"type": "track", "userId": "u", "event": "Completed Order", "properties": {}}
    call["properties"] = {"orderId": "o1", "total": 5, "products": [{"id": "p1"}]}
    [order] = decode(call, NOON, format="segment").batch.events.rows(named=True)
    assert (order["order"], order["item"]) == ("o1", "p1")
    viewed = {**call, "event": "Viewed Product", "properties": {"id": "p2", "price": 3}}
    [view] = decode(viewed, NOON, format="segment").batch.events.rows(named=True)
    assert (view["item"], view["price"]) == ("p2", 3_000_000)


def test_an_id_of_something_else_is_no_product() -> None:
    call = {"type": "track", "userId": "u", "event": "Newsletter Opened", "properties": {"id": "n"}}
    found = decode(call, NOON, format="segment")
    assert found.batch.items.is_empty()
    assert kept(found)["id"] == "n"


def read(tmp_path: Path, *rows: dict[str, object]) -> SourceBatch:
    log = tmp_path / "log.ndjson"
    common = {"ts": "2026-03-02T10:00:00Z", **VIEW}
    log.write_text("\n".join(json.dumps({**common, **row}) for row in rows), encoding="utf-8")
    [batch] = open_source(log).batches()
    return batch


def test_what_a_dead_letter_says_is_what_was_wrong(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"price": -5},
        {"quantity": 1.5},
        {"items": [{"item": "a", "price": -1}]},
    ).dead_letters
    said = dict(found.select("reason", "detail").iter_rows())
    assert "is negative" in said["negative_price"]
    assert "whole" in said["bad_number"]
    assert "values that can be read" in said["bad_items"]


def test_items_that_are_none_are_no_lines_and_too_many_are_said(tmp_path: Path) -> None:
    many = [{"item": str(n)} for n in range(10_001)]
    found = read(tmp_path, {"items": ["a", None, 5]}, {"items": json.dumps(many)})
    lines = found.batch.items
    assert lines.filter(lines["event"] == 0)["item"].to_list() == ["a", "5"]
    assert lines.filter(lines["event"] == 1).height == 10_000
    assert found.dead_letters["reason"].to_list() == ["too_many_items"]


def test_amounts_in_another_unit_than_micros_are_noticed(tmp_path: Path) -> None:
    wrong = read(tmp_path, *({"id": str(n), "price": 12.5 + n} for n in range(9)))
    [tiny] = [found for found in wrong.findings if found.kind == "amounts_tiny"]
    assert tiny.column == "price"
    assert "9 of 9" in tiny.detail
    right = read(tmp_path, *({"id": str(n), "price": 12_500_000} for n in range(9)))
    assert not [found for found in right.findings if found.kind == "amounts_tiny"]


def test_a_directory_without_files_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file at all"):
        open_source(tmp_path)
