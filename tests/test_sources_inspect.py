import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.errors import SourceError
from recoup.friction.signal_kinds import FAMILIES
from recoup.friction.signals import SIGNALS
from recoup.sources import inspect_log, open_source
from recoup.sources.mapping import Mapping, parse_mapping
from recoup.sources.native import MAPPING as NATIVE
from recoup.sources.synonyms import EVENT_WORDS, FIELD_WORDS, event_of, field_of, snake
from recoup.sources.toml import render

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)

LOGS = {
    "retailrocket_sample": (5_169, {"visitor": "visitorid", "item": "itemid"}, "purchase"),
    "taobao_sample": (4_321, {"visitor": "user_id", "category": "category_id"}, "purchase"),
    "mim_shop/events.parquet": (16_008, {"visitor": "user_id", "id": "event_id"}, "purchase"),
    "mim_shop/product_viewed.parquet": (4_180, {"item": "variant"}, "view_item"),
    "mim_shop/checkout_started.parquet": (323, {"value": "total_price"}, "begin_checkout"),
    "mim_shop/order_completed.parquet": (43, {"value": "total_price"}, "purchase"),
    "session_clicks/yoochoose_100k.parquet": (83_846, {"session": "SessionId"}, "view_item"),
    "session_clicks/serenade_toy.parquet": (116_285, {"item": "ItemId"}, "view_item"),
    "cdnow": (69_659, {"visitor": "customer_id", "value": "spend"}, "purchase"),
}


@pytest.mark.parametrize("name", LOGS)
def test_real_logs_get_a_mapping_that_reads_every_row(
    data_dir: Path, tmp_path: Path, name: str
) -> None:
    rows, columns, event = LOGS[name]
    found = inspect_log(data_dir / name, now=NOW, as_table=True)
    mapping = parse_mapping(found.mapping)
    assert {field: mapping.columns[field].column for field in columns} == columns
    path = tmp_path / "mapping.toml"
    path.write_text(found.mapping)
    batches = list(open_source(data_dir / name, mapping=path, now=NOW).batches())
    assert sum(len(batch.batch) for batch in batches) == rows
    assert sum(batch.dead_letters.height for batch in batches) == 0
    events = pl.concat([batch.batch.events for batch in batches])
    assert event in events["event"].to_list()
    assert events["ts"].is_sorted() or mapping.order == "arrival"
    assert found.answers
    assert found.cannot_answer


def test_order_lines_are_grouped(data_dir: Path) -> None:
    mapping = parse_mapping(inspect_log(data_dir / "online_retail", now=NOW, as_table=True).mapping)
    assert mapping.items is not None
    assert mapping.items.group_by == ["Invoice"]
    assert mapping.items.fields["item"] == "StockCode"


def test_a_directory_of_other_tables_names_what_is_left_out(data_dir: Path) -> None:
    found = inspect_log(data_dir / "mim_shop", now=NOW)
    assert parse_mapping(found.mapping).files == ["events.parquet"]
    assert any("ads_metrics.parquet" in line for line in found.cannot_answer)


@pytest.mark.parametrize("name", ["online_shoppers", "hillstrom", "nab", "petshop", "asos"])
def test_tables_that_are_no_logs_are_refused_with_the_reason(data_dir: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"(?s)Expected a column.*Hint"):
        inspect_log(data_dir / name, now=NOW)


@pytest.mark.parametrize("name", ["cdnow", "online_retail", "completejourney"])
def test_a_public_log_is_named(data_dir: Path, tmp_path: Path, name: str) -> None:
    found = inspect_log(data_dir / name, now=NOW)
    assert found.answers[0] == f"Format: `{name}`."
    assert any("only purchases are recorded" in line for line in found.cannot_answer)
    lacking = [line for line in found.cannot_answer if "no event of" in line]
    assert len(lacking) == len({line.split("no event of")[1] for line in lacking})
    path = tmp_path / "mapping.toml"
    path.write_text(found.mapping)
    batches = open_source(data_dir / name, mapping=path, now=NOW).batches()
    assert "purchase" in next(iter(batches)).batch.events["event"].to_list()


def test_signals_that_lack_the_same_events_are_told_together(tmp_path: Path) -> None:
    times = [f"2026-03-{day:02d}T10:00:00Z" for day in range(1, 29)]
    names = ["page_view", "view_cart"] * 14
    path = write(
        tmp_path / "log.csv", ts=times, event=names, visitor=["v"] * 28, latency_ms=[9.5] * 28
    )
    found = inspect_log(path, now=NOW)
    lacking = [line for line in found.cannot_answer if "no event of" in line]
    told = [line.removesuffix(" is recorded.").split(": no event of ") for line in lacking]
    expected: dict[str, list[str]] = {}
    for signal in SIGNALS:
        if signal.family not in ("page", "cart"):
            events = ", ".join(FAMILIES[signal.family])
            expected.setdefault(events, []).append(f"{signal.id} ({signal.name})")
    assert told == [[", ".join(titles), events] for events, titles in expected.items()]
    assert "D8 (slow page): latency_ms in 14 of 14 events of page_view, page_timing." in (
        found.answers
    )
    assert "C4 (coupon refused): error_code missing from view_cart, add_to_cart." in (
        found.cannot_answer
    )


def test_the_shop_is_recognised(data_dir: Path, tmp_path: Path) -> None:
    found = inspect_log(data_dir / "google_merch_store", now=NOW)
    path = tmp_path / "mapping.toml"
    path.write_text(found.mapping)
    source = open_source(data_dir / "google_merch_store", mapping=path, now=NOW)
    assert source.size_hint() == 333_736
    answers = "\n".join(found.answers)
    assert (
        "Funnel by step: an item viewed, added to the cart, checkout begun, purchased." in answers
    )
    assert "697 purchases" in answers
    cannot = "\n".join(found.cannot_answer)
    assert "Stock and delivery promises: neither" in cannot
    assert "K5 (payment declined)" in cannot


def write(path: Path, **columns: object) -> Path:
    pl.DataFrame(columns).write_csv(path)
    return path


def test_days_and_months_are_told_apart_by_their_values(tmp_path: Path) -> None:
    days = [f"{1 + n % 28:02d}/03/2026 10:00" for n in range(60)]
    path = write(
        tmp_path / "a.csv", when=days, customer=[f"c{n % 9}" for n in range(60)], total=1.5
    )
    mapping = parse_mapping(inspect_log(path, now=NOW).mapping)
    assert mapping.ts.format == "%d/%m/%Y %H:%M"
    assert mapping.event.constant == "purchase"


def test_numeric_codes_and_epoch_seconds(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    path = write(
        tmp_path / "a.csv",
        ts=1_767_225_600 + np.arange(500),
        uid=random.integers(0, 20, 500),
        behavior_type=random.choice([1, 2, 3, 4], 500, p=[0.8, 0.05, 0.1, 0.05]),
        sku=random.integers(0, 90, 500),
    )
    found = inspect_log(path, now=NOW)
    names = parse_mapping(found.mapping).event.names
    assert names == {"1": "view_item", "2": "add_to_wishlist", "3": "add_to_cart", "4": "purchase"}
    assert "a guess" in found.mapping


def test_a_file_without_header_and_one_in_another_encoding(tmp_path: Path) -> None:
    headless = tmp_path / "a.dat"
    headless.write_text(
        "".join(f"{n % 9},2014-04-07T10:51:{n % 60:02d}.277Z,2145{n}\n" for n in range(50))
    )
    with pytest.raises(SourceError, match="tells visitors apart"):
        inspect_log(headless, now=NOW)
    named = tmp_path / "b.csv"
    body = "time,user,action,city\n" + "2026-01-01,u1,view,Malm\u00f6\n" * 20
    named.write_bytes(body.encode("cp1252"))
    mapping = parse_mapping(inspect_log(named, now=NOW).mapping)
    assert mapping.encoding == "cp1252"


def test_a_native_log_in_another_encoding_is_told_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "c.csv"
    body = "ts,visitor,event,city\n" + "2026-01-01T10:00:00Z,u1,page_view,Malm\u00f6\n" * 20
    log.write_bytes(body.encode("cp1252"))
    with pytest.raises(SourceError, match=r"c\.csv:2: bad_encoding.*inspect"):
        list(open_source(log, now=NOW).batches())
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(inspect_log(log, now=NOW).mapping)
    (batch,) = open_source(log, mapping=mapping, now=NOW).batches()
    assert batch.batch.events["city"].to_list() == ["Malm\u00f6"] * 20


def test_drift_is_part_of_the_answer(tmp_path: Path) -> None:
    rows = 4_000
    path = write(
        tmp_path / "a.csv",
        time=[dt.datetime(2026, 1, 1) + dt.timedelta(minutes=5 * n) for n in range(rows)],  # noqa: DTZ001
        user_id=[f"u{n % 90}" for n in range(rows)],
        event="view",
        device=["mobile" if n < 2_000 else None for n in range(rows)],
    )
    found = inspect_log(path, now=NOW)
    assert [(f.kind, f.column, f.since) for f in found.drift if f.since] == [
        ("column_missing", "device", "2026-01-07T22:35:00Z")
    ]


def test_the_native_mapping_survives_its_own_text() -> None:
    assert parse_mapping(render(NATIVE, {}, title="native")).columns == NATIVE.columns


def test_every_part_of_a_mapping_survives_its_own_text() -> None:
    text = """
    source = "s \\"quoted\\" \\\\ \\u007f"
    order = "time"
    files = ["a*.csv"]
    follow_renames = false
    [ts]
    column = ["day", "clock"]
    format = ["%d.%m.%Y %H:%M", "iso"]
    timezone = "Europe/Paris"
    [event]
    column = "e"
    names = { "a b" = "purchase", "\u00e9" = "ignore" }
    [columns]
    visitor = "v"
    value = { column = "x", unit = "cents" }
    price = { any = ["p", "q"] }
    country = { constant = "SE" }
    [items]
    columns = ["i1", "i2"]
    [[ignore]]
    column = "bot"
    equals = ["yes"]
    missing = true
    """
    mapping = parse_mapping(text)
    assert isinstance(mapping, Mapping)
    assert parse_mapping(render(mapping, {"ts": "check\nboth"}, title="t")) == mapping


def test_names_of_fields_and_events() -> None:
    assert snake("userID") == "user_id"
    assert {event_of(word) for word in ("pv", "View", "product-viewed")} == {"view_item"}
    assert event_of("Checkout Started") == "begin_checkout"
    for field, words in FIELD_WORDS.items():
        for word in words:
            assert (found := field_of(word)) is not None
            assert found[0] == field
    for event, words in EVENT_WORDS.items():
        assert {event_of(word) for word in words} == {event}
