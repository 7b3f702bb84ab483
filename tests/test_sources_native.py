import datetime as dt
import gzip
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recoup.errors import ConfigError, SourceError
from recoup.events import (
    EVENT_NAMES,
    EVENT_SCHEMA,
    ITEM_SCHEMA,
    EventBatch,
    concat_batches,
    conform,
    empty_frames,
)
from recoup.sources import SourceBatch, inspect_log, open_source, write_native

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)

events = st.fixed_dictionaries(
    {
        "ts": st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2026, 10, 1)),  # noqa: DTZ001
        "source": names,
        "id": names.filter(lambda name: not name.isdigit()),
        "seq": st.integers(0, 2**40),
        "event": st.sampled_from(EVENT_NAMES[1:]),
        "visitor": names,
        "item": st.none() | names,
        "price": st.none() | st.integers(0, 2**60),
        "quantity": st.none() | st.integers(0, 2**40),
        "latency_ms": st.none() | st.floats(0, 1e9),
        "in_stock": st.none() | st.booleans(),
        "lines": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["subject", "impression", "promotion"]),
                    "item": st.none() | names,
                    "price": st.none() | st.integers(0, 2**60),
                }
            ),
            max_size=3,
        ),
    }
)


def make(rows: list[dict[str, object]]) -> EventBatch:
    frame = pl.DataFrame([{k: v for k, v in row.items() if k != "lines"} for row in rows])
    stamped = frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC"))
    lines = [
        {"event": number, **line}
        for number, row in enumerate(rows)
        for line in row["lines"]  # type: ignore[attr-defined]
    ]
    items = pl.DataFrame(lines) if lines else empty_frames()[1]
    return EventBatch(conform(stamped, EVENT_SCHEMA), conform(items, ITEM_SCHEMA))


def read(path: Path) -> list[SourceBatch]:
    return list(open_source(path, now=NOW).batches())


@QUICK
@given(rows=st.lists(events, min_size=1, max_size=8), suffix=st.sampled_from(["parquet", "ndjson"]))
def test_what_is_written_reads_back_unchanged(
    tmp_path: Path, rows: list[dict[str, object]], suffix: str
) -> None:
    batch = make(rows)
    path = write_native([batch, batch], tmp_path / f"log.{suffix}")
    whole = concat_batches(found.batch for found in read(path))
    expected = concat_batches([batch, batch])
    assert whole.events.equals(expected.events)
    assert whole.items.equals(expected.items)


def test_a_directory_gets_events_parquet_and_its_neighbours_are_left_alone(tmp_path: Path) -> None:
    batch = make([{"ts": NOON.replace(tzinfo=None), "source": "s", "id": "a", "seq": 0,
                   "event": "page_view", "visitor": "v", "lines": []}])  # fmt: skip
    path = write_native([batch], tmp_path / "out")
    assert path == tmp_path / "out" / "events.parquet"
    (tmp_path / "out" / "truth.json").write_text('{"defects": []}')
    (found,) = read(tmp_path / "out")
    assert (len(found.batch), found.dead_letters.height) == (1, 0)
    assert open_source(tmp_path / "out").size_hint() == 1


@QUICK
@given(rows=st.lists(events, min_size=1, max_size=8, unique_by=lambda row: row["id"]))
def test_lines_written_beside_their_events_read_back_unchanged(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    batch = make(rows)
    path = write_native([batch], tmp_path / "parted", beside=True)
    assert "items" not in pl.read_parquet(path).columns
    whole = concat_batches(found.batch for found in read(tmp_path / "parted"))
    assert whole.events.equals(batch.events)
    assert whole.items.equals(batch.items)
    with pytest.raises(ConfigError, match="a directory"):
        write_native([batch], tmp_path / "a.parquet", beside=True)


def test_an_event_and_an_item_may_be_called_none(tmp_path: Path) -> None:
    line = {"role": "subject", "item": "none"}
    row = {"ts": NOON.replace(tzinfo=None), "source": "null", "id": "None", "seq": 0,
           "event": "view_item", "visitor": "v", "lines": [line]}  # fmt: skip
    batch = make([row])
    write_native([batch], tmp_path / "parted", beside=True)
    (found,) = read(tmp_path / "parted")
    assert found.batch.items.equals(batch.items)
    assert found.batch.items["item"].to_list() == ["none"]


LINES = """id,source,item,quantity,price
b,web,sku-1,2,500
a,web,sku-2,x,700
b,web,sku-3,1,
b,app,sku-4,1,9
,web,sku-5,1,9
"""


@pytest.mark.parametrize("packed", [False, True])
def test_lines_of_any_kind_of_file_go_to_their_events_and_strays_are_told(
    tmp_path: Path, *, packed: bool
) -> None:
    log = [
        {"ts": "2026-01-01T12:00:00Z", "event": "add_to_cart", "visitor": "v", "id": name}
        | {"source": "web"}
        for name in ("a", "b", "c")
    ]
    (tmp_path / "events.ndjson").write_bytes(b"\n".join(msgspec.json.encode(row) for row in log))
    if packed:
        (tmp_path / "items.csv.gz").write_bytes(gzip.compress(LINES.encode()))
    else:
        (tmp_path / "items.csv").write_text(LINES)
    found = read(tmp_path)
    (batch,) = [each.batch for each in found if len(each.batch)]
    assert batch.items.select("event", "item", "quantity", "price").rows() == [
        (0, "sku-2", None, 700), (1, "sku-1", 2, 500), (1, "sku-3", 1, None),
    ]  # fmt: skip
    (letter,) = pl.concat([each.dead_letters for each in found]).iter_rows(named=True)
    assert letter["reason"] == "bad_items"
    (finding,) = [each for part in found for each in part.findings]
    assert (finding.kind, finding.column) == ("lines_without_event", "items")
    assert finding.detail.startswith("2 of 5 item lines in `items.csv")
    assert (
        inspect_log(tmp_path, now=NOW).cannot_answer
        == inspect_log(tmp_path / "events.ndjson", now=NOW).cannot_answer
    )


def test_lines_beside_events_that_have_their_own_are_left_out_and_told(tmp_path: Path) -> None:
    row = {"ts": "2026-01-01T12:00:00Z", "event": "add_to_cart", "visitor": "v", "id": "a"}
    own = row | {"items": [{"item": "sku-1"}]}
    (tmp_path / "events.ndjson").write_bytes(msgspec.json.encode(own))
    (tmp_path / "items.ndjson").write_bytes(b'{"id": "a", "item": "sku-9"}\nnot json\n')
    found = read(tmp_path)
    assert [row["item"] for each in found for row in each.batch.items.to_dicts()] == ["sku-1"]
    assert [r for each in found for r in each.dead_letters["reason"]] == ["bad_json"]
    (finding,) = [each for part in found for each in part.findings]
    assert "1 of 1 item lines" in finding.detail
    assert "column of their own" in finding.detail


def test_a_log_without_events_can_be_written(tmp_path: Path) -> None:
    path = write_native([], tmp_path / "none.parquet")
    with pytest.raises(SourceError, match="none in"):
        read(path)


def test_rows_that_break_the_contract_are_refused_one_by_one(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "ts": [NOON, NOON, None, NOON + dt.timedelta(days=900), NOON],
            "event": ["page_view", "dance", "page_view", "page_view", "purchase"],
            "visitor": ["v", "v", "v", "v", None],
            "price": [-5, 7, 1, 1, 1],
        }
    )
    rows.write_parquet(tmp_path / "log.parquet")
    (found,) = read(tmp_path / "log.parquet")
    assert found.batch.events.select("event", "custom_name", "price").rows() == [
        ("page_view", None, None), ("custom", "dance", 7),
    ]  # fmt: skip
    assert found.dead_letters["reason"].sort().to_list() == [
        "future_timestamp", "missing_timestamp", "missing_visitor", "negative_price",
    ]  # fmt: skip


def test_unknown_logs_and_formats_name_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(SourceError, match="recoup inspect"):
        open_source(tmp_path / "a.csv")
    with pytest.raises(SourceError, match="google_merch_store"):
        open_source(tmp_path / "a.csv", format="excel")
    with pytest.raises(SourceError, match="nothing at"):
        open_source(tmp_path / "b.csv")
