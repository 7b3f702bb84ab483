import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.errors import SchemaError
from recoup.events import (
    CODE,
    EVENT_SCHEMA,
    ITEM_SCHEMA,
    EventBatch,
    check_batch,
    concat_batches,
    conform,
    empty_frames,
    encode,
    hash64,
    hash_column,
    take,
)


def make_batch(count: int, lines: list[int] | None = None) -> EventBatch:
    frame = pl.DataFrame(
        {
            "ts": range(count),
            "source": ["shop"] * count,
            "id": [str(i) for i in range(count)],
            "seq": [0] * count,
            "event": ["view_item"] * count,
            "visitor": [f"v{i % 3}" for i in range(count)],
        },
        schema_overrides={"ts": pl.Int64},
    )
    lines = [] if lines is None else sorted(lines)
    items = pl.DataFrame({"event": lines, "item": [f"i{i}" for i in range(len(lines))]})
    items = items.with_columns(role=pl.lit("impression"), event=pl.col("event").cast(pl.UInt32))
    return check_batch(EventBatch(conform(frame, EVENT_SCHEMA), conform(items, ITEM_SCHEMA)))


def test_codes_are_what_they_were() -> None:
    assert CODE["custom"] == 0
    assert (CODE["view_item"], CODE["add_to_cart"], CODE["purchase"]) == (14, 16, 22)


@given(st.lists(st.one_of(st.none(), st.text()), max_size=30))
def test_a_column_hashes_as_its_values_do(values: list[str | None]) -> None:
    hashed = hash_column(pl.Series(values, dtype=pl.String))
    assert hashed.tolist() == [0 if value is None else hash64(value) for value in values]


def test_hashes_stay_for_ever() -> None:
    assert [hash64(text) for text in ("", "a", "visitor-1")] == [
        0x2D06800538D394C2,  # the published vectors of XXH3-64, seed 0
        0xE6C632B61E964E1F - (1 << 64),
        -6390755231985056948,
    ]


def test_encode_marks_what_is_absent() -> None:
    arrays = encode(make_batch(2, [1, 1]), ["item", "value", "latency_ms", "in_stock", "event"])
    assert arrays["item"].tolist() == [0, 0]
    assert arrays["value"].tolist() == [0, 0]
    assert np.isnan(arrays["latency_ms"]).all()
    assert arrays["in_stock"].tolist() == [-1, -1]
    assert arrays["event"].tolist() == [CODE["view_item"]] * 2


def test_item_lines_are_counted_by_role() -> None:
    arrays = encode(make_batch(3, [1, 1, 2]), ["impressions", "subjects"])
    assert arrays["impressions"].tolist() == [0, 2, 1]
    assert arrays["subjects"].tolist() == [0, 0, 0]


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(SchemaError, match="got `colour`"):
        encode(make_batch(1), ["colour"])


@given(st.lists(st.integers(0, 5), max_size=12), st.permutations(range(6)), st.integers(0, 6))
def test_take_keeps_each_events_lines(lines: list[int], order: list[int], count: int) -> None:
    batch, rows = make_batch(6, lines), np.array(order[:count], np.int64)
    picked = check_batch(take(batch, rows))
    for to, row in enumerate(rows):
        want = batch.items.filter(pl.col("event") == row)["item"].to_list()
        assert picked.items.filter(pl.col("event") == to)["item"].to_list() == want
    assert picked.events["id"].to_list() == [str(row) for row in rows]


def test_concat_renumbers_lines() -> None:
    joined = check_batch(concat_batches([make_batch(2, [1]), make_batch(3, [0, 2])]))
    assert joined.items["event"].to_list() == [1, 2, 4]
    assert len(concat_batches([])) == 0


def test_a_batch_that_breaks_its_contract_is_refused() -> None:
    events_frame, items = empty_frames()
    with pytest.raises(SchemaError, match="events schema"):
        check_batch(EventBatch(events_frame.drop("ts"), items))
    batch = make_batch(2, [1])
    missing = batch.events.with_columns(visitor=pl.lit(None, pl.String))
    with pytest.raises(SchemaError, match="`visitor` in every event"):
        check_batch(EventBatch(missing, batch.items))
    with pytest.raises(SchemaError, match="item lines"):
        check_batch(EventBatch(batch.events.head(1), batch.items))


def test_conform_refuses_what_does_not_fit() -> None:
    with pytest.raises(SchemaError, match="colour"):
        conform(pl.DataFrame({"colour": [1]}), EVENT_SCHEMA)
    with pytest.raises(SchemaError, match="does not fit"):
        conform(pl.DataFrame({"value": ["ten"]}), EVENT_SCHEMA)
