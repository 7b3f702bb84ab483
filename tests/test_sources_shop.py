"""The Google Merchandise Store export: the real one, and small ones with something wrong."""

import datetime as dt
import json
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import SourceError
from recoup.events import EventBatch, check_batch, concat_batches
from recoup.sources import SourceBatch, open_source

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
START = dt.datetime(2016, 9, 1, 7)  # noqa: DTZ001


@pytest.fixture(scope="module")
def real(data_dir: Path) -> list[SourceBatch]:
    return list(open_source(data_dir / "google_merch_store", now=NOW).batches())


@pytest.fixture(scope="module")
def whole(real: list[SourceBatch]) -> EventBatch:
    return concat_batches(batch.batch for batch in real)


def test_one_hit_is_one_event(real: list[SourceBatch], whole: EventBatch) -> None:
    assert whole.events.height == 333_736
    assert whole.events["id"].n_unique() == 333_736
    assert whole.items.height == 2_430_228 + 433_039
    assert sum(batch.dead_letters.height for batch in real) == 0
    for batch in real[:3]:
        check_batch(batch.batch)


def test_a_receipt_seen_again_is_no_second_purchase(whole: EventBatch) -> None:
    bought = whole.events.filter(pl.col("event") == "purchase")
    assert bought.height == bought["order"].n_unique() == 697
    assert whole.events.filter(pl.col("order").is_not_null()).height == 1_462
    assert bought["value"].count() == 686
    first = bought.row(0, named=True)
    assert (first["order"], first["value"], first["tax"]) == (
        "ORD201609011468",
        14_730_000,
        5_240_000,
    )


def test_what_hits_are_called(whole: EventBatch) -> None:
    counts = dict(whole.events["event"].value_counts().iter_rows())
    expected = {
        "select_item": 44_146, "view_item": 35_994, "add_to_cart": 9_029,
        "remove_from_cart": 1_176, "begin_checkout": 1_632, "add_shipping_info": 2_464,
        "add_payment_info": 1_128, "purchase": 697, "select_promotion": 9_680,
    }  # fmt: skip
    assert {name: counts[name] for name in expected} == expected


def test_sessions_are_not_parted_at_midnight(whole: EventBatch) -> None:
    assert whole.events["session"].n_unique() == 58_026
    assert whole.events["visitor"].n_unique() == 48_890
    assert whole.events["device"].null_count() == 0


def test_nothing_from_the_end_of_a_visit_is_kept(whole: EventBatch) -> None:
    allowed = {
        "referer", "event_category", "event_action", "event_label", "server_response_ms",
        "dom_interactive_ms", "redirect_ms",
    }  # fmt: skip
    kept = {name for text in whole.events["extra"].drop_nulls() for name in json.loads(text)}
    assert kept == allowed


def test_reading_on_gives_the_same_rows(data_dir: Path, real: list[SourceBatch]) -> None:
    source = open_source(data_dir / "google_merch_store", now=NOW)
    (last,) = source.batches(real[-2].position)
    assert last.batch.events.equals(real[-1].batch.events)
    assert last.batch.items.equals(real[-1].batch.items)
    with pytest.raises(SourceError, match="position"):
        next(iter(source.batches("999999999")))


def test_known_oddities_are_told(real: list[SourceBatch]) -> None:
    told = {finding.kind: finding.detail for finding in real[0].findings}
    assert told["order_without_value"].startswith("11 of 697")
    assert set(told) == {"order_without_value", "order_reused"}


def shop(folder: Path, hits: int = 600, **changes: pl.DataFrame | None) -> Path:
    """Write a small shop: two visits of each of some visitors, an item on every second hit."""
    number = pl.int_range(hits, eager=True)
    events = pl.DataFrame(
        {
            "visitor_id": (number // 6).cast(pl.UInt64) + 2**63,
            "visit_id": number // 3,
            "hit_number": number % 3 + 1,
            "ts": [START + dt.timedelta(minutes=10 * n) for n in range(hits)],
            "hit_type": "PAGE",
            "action_type": (number % 2 * 2).cast(pl.UInt8),
            "page_path": ["/home" if n % 2 else f"/p/{n % 40}" for n in range(hits)],
            "content_group2": "(not set)",
            "transaction_id": pl.Series([None] * hits, dtype=pl.String),
            "revenue": pl.Series([None] * hits, dtype=pl.Float64),
        }
    )
    keys = events.select("visitor_id", "visit_id", "hit_number")
    tables: dict[str, pl.DataFrame | None] = {
        "events": events,
        "sessions": events.unique(["visitor_id", "visit_id"], maintain_order=True).select(
            "visitor_id", "visit_id", visit_start="ts", device=pl.lit("mobile"), visit_number=1
        ),
        "hit_products": keys.filter(number % 2 == 1).with_columns(
            sku=pl.lit("S1"), price=9.5, is_impression=False, category=pl.lit("Home/Bags/")
        ),
    }
    tables |= changes
    for name, table in tables.items():
        if table is not None:
            table.write_parquet(folder / f"{name}.parquet")
    return folder


def read(folder: Path) -> tuple[EventBatch, list[str], dict[tuple[str, str], str | None]]:
    found = list(open_source(folder, now=NOW).batches(rows=100))
    batch = concat_batches(one.batch for one in found)
    reasons = [reason for one in found for reason in one.dead_letters["reason"]]
    findings = {(f.kind, f.column): f.since for one in found for f in one.findings}
    return check_batch(batch), reasons, findings


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def test_a_small_shop(tmp_path: Path) -> None:
    batch, reasons, _ = read(shop(tmp_path))
    row = batch.events.row(1, named=True)
    assert (row["event"], row["item"], row["price"], row["category"]) == (
        "view_item", "S1", 9_500_000, "Bags",
    )  # fmt: skip
    assert (row["visitor"], row["device"]) == (str(2**63), "mobile")
    assert (len(batch), reasons) == (600, [])


def test_tables_may_be_missing_but_not_that_of_hits(tmp_path: Path) -> None:
    batch, _, findings = read(shop(tmp_path, sessions=None))
    assert batch.events["device"].null_count() == 600
    assert ("table_missing", "sessions") in findings
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(SourceError, match="table of hits"):
        open_source(tmp_path, format="google_merch_store")


def test_a_renamed_column_is_read_on(tmp_path: Path) -> None:
    shop(tmp_path)
    table(tmp_path, "sessions").rename({"device": "device_category"}).write_parquet(
        tmp_path / "sessions.parquet"
    )
    batch, _, findings = read(tmp_path)
    assert batch.events["device"].null_count() == 0
    assert ("column_renamed", "sessions.device") in findings


def test_a_column_renamed_from_a_date_on_is_read_on_and_dated(tmp_path: Path) -> None:
    shop(tmp_path)
    later = pl.int_range(600) >= 400
    table(tmp_path, "events").with_columns(
        pl.when(~later).then("page_path").alias("page_path"),
        url=pl.when(later).then("page_path"),
    ).write_parquet(tmp_path / "events.parquet")
    batch, _, findings = read(tmp_path)
    assert batch.events["page"].null_count() == 0
    assert findings["column_renamed", "events.page_path"] == "2016-09-04T01:40:00Z"


def test_a_column_that_falls_silent_is_dated(tmp_path: Path) -> None:
    shop(tmp_path, hits=1200)
    later = pl.int_range(1200) >= 400
    table(tmp_path, "events").with_columns(
        pl.when(~later).then("page_path").alias("page_path")
    ).write_parquet(tmp_path / "events.parquet")
    batch, _, findings = read(tmp_path)
    assert batch.events["page"].null_count() == 800
    assert findings["column_missing", "events.page_path"] == "2016-09-04T01:30:00Z"


def test_hits_without_visitor_or_time_are_dead_letters(tmp_path: Path) -> None:
    shop(tmp_path)
    number = pl.int_range(600)
    table(tmp_path, "events").with_columns(
        pl.when(number != 7).then("visitor_id").alias("visitor_id"),
        pl.when(number != 8)
        .then(pl.when(number == 9).then(dt.datetime(2036, 1, 1)).otherwise("ts"))  # noqa: DTZ001
        .alias("ts"),
    ).write_parquet(tmp_path / "events.parquet")
    batch, reasons, findings = read(tmp_path)
    assert (len(batch), reasons) == (597, ["missing_visitor", "bad_timestamp", "future_timestamp"])
    assert ("orphan_lines", "hit_products") in findings


def test_numbers_that_cannot_be_are_dead_letters_and_the_rows_kept(tmp_path: Path) -> None:
    shop(tmp_path)
    lines = table(tmp_path, "hit_products")
    prices = pl.Series([-1.0, float("nan"), float("inf"), *lines["price"][3:]])
    lines.with_columns(price=prices).write_parquet(tmp_path / "hit_products.parquet")
    batch, reasons, _ = read(tmp_path)
    assert sorted(reasons) == ["bad_number", "bad_number", "negative_price"]
    assert batch.items["price"].null_count() == 3
    assert len(batch) == 600


def test_the_tables_may_be_text(tmp_path: Path) -> None:
    shop(tmp_path)
    expected, _, _ = read(tmp_path)
    for path in sorted(tmp_path.glob("*.parquet")):
        pl.read_parquet(path).write_csv(path.with_suffix(".csv"))
        path.unlink()
    batch, reasons, _ = read(tmp_path)
    assert reasons == []
    assert batch.events.equals(expected.events)
    assert batch.items.equals(expected.items)
