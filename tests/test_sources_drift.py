"""Columns that vanish, change names or lose values: noticed, dated and survived."""

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.decisions import Finding
from recoup.sources import merge_findings, open_source
from recoup.sources.drift import HOUR_US, Watch, apart
from recoup.sources.follow import like_names

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
START = dt.datetime(2026, 1, 1)  # noqa: DTZ001
ROWS = 24_000
CHANGE = 13_000
SINCE = (START + dt.timedelta(seconds=60 * CHANGE)).strftime("%Y-%m-%dT%H:%M:%SZ")
MAPPING = """
ts = "time"
[event]
column = "act"
names = { view = "view_item", cart = "add_to_cart", buy = "purchase" }
[columns]
visitor = "uid"
item = "sku"
device = "dev"
price = "amount"
"""


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    random = np.random.default_rng(7)
    return pl.DataFrame(
        {
            "time": [START + dt.timedelta(seconds=60 * n) for n in range(ROWS)],
            "uid": [f"user-{n}" for n in random.integers(0, 900, ROWS)],
            "act": random.choice(["view", "cart", "buy"], ROWS, p=[0.8, 0.15, 0.05]),
            "sku": [f"SKU{n:05d}" for n in random.integers(0, 500, ROWS)],
            "dev": random.choice(["mobile", "desktop", "tablet"], ROWS),
            "amount": random.random(ROWS).round(2) * 100,
        }
    )


def read(path: Path) -> tuple[pl.DataFrame, list[Finding]]:
    mapping = path.parent / "mapping.txt"
    mapping.write_text(MAPPING)
    found = list(open_source(path, mapping=mapping, now=NOW).batches())
    findings = merge_findings(finding for batch in found for finding in batch.findings)
    events = pl.concat([batch.batch.events for batch in found])
    return events, [finding for finding in findings if finding.kind != "ids_made"]


def after(table: pl.DataFrame, row: int = CHANGE) -> pl.Expr:
    return pl.int_range(table.height) >= row


def told(findings: list[Finding]) -> list[tuple[str, str, str | None]]:
    return [(finding.kind, finding.column, finding.since) for finding in findings]


def test_a_clean_log_gives_no_finding(table: pl.DataFrame, tmp_path: Path) -> None:
    table.write_parquet(tmp_path / "log.parquet")
    events, findings = read(tmp_path / "log.parquet")
    assert (events.height, findings) == (ROWS, [])


def test_a_rename_between_files_is_followed(table: pl.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    table[:CHANGE].write_csv(folder / "1.csv")
    table[CHANGE:].rename({"uid": "customer_id", "sku": "x7"}).write_csv(folder / "2.csv")
    events, findings = read(folder)
    assert events.height == ROWS
    assert events["item"].null_count() == 0
    assert told(findings) == [("column_renamed", "sku", SINCE), ("column_renamed", "uid", SINCE)]
    assert "`customer_id`" in findings[1].detail


def test_a_rename_inside_a_json_file_is_followed_from_its_first_row(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    iso = table.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S"))
    renamed = iso[CHANGE:].rename({"time": "when", "uid": "user", "sku": "product"})
    path = tmp_path / "log.ndjson"
    path.write_text(iso[:CHANGE].write_ndjson() + renamed.write_ndjson())
    events, findings = read(path)
    assert events.height == ROWS
    assert events["visitor"].to_list() == table["uid"].to_list()
    assert events["item"].to_list() == table["sku"].to_list()
    assert sorted(told(findings)) == [
        ("column_renamed", name, SINCE) for name in ("sku", "time", "uid")
    ]


def test_a_column_that_goes_null_while_another_begins(table: pl.DataFrame, tmp_path: Path) -> None:
    changed = table.with_columns(
        dev=pl.when(~after(table)).then("dev"), device_type=pl.when(after(table)).then("dev")
    )
    changed.write_parquet(tmp_path / "log.parquet")
    events, findings = read(tmp_path / "log.parquet")
    assert events["device"].to_list() == table["dev"].to_list()
    assert told(findings) == [("column_renamed", "dev", SINCE)]


def test_a_new_column_of_another_kind_is_not_taken_for_the_old(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    changed = table.with_columns(
        dev=pl.when(~after(table)).then("dev"),
        note=pl.when(after(table)).then(pl.format("see ticket {} please", pl.int_range(ROWS))),
    )
    changed.write_parquet(tmp_path / "log.parquet")
    events, findings = read(tmp_path / "log.parquet")
    assert events["device"].null_count() == ROWS - CHANGE
    assert ("column_renamed", "dev") not in [(kind, column) for kind, column, _ in told(findings)]
    assert [f.column for f in findings if f.kind == "column_missing"] == ["dev"]


def test_a_dropped_column_is_dated(table: pl.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    table[:CHANGE].write_csv(folder / "1.csv")
    table[CHANGE:].drop("dev").write_csv(folder / "2.csv")
    events, findings = read(folder)
    last = (START + dt.timedelta(seconds=60 * (CHANGE - 1))).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert events.height == ROWS
    assert told(findings) == [("column_missing", "dev", last)]


def test_ids_that_go_missing_are_dated_and_the_rows_kept_as_dead_letters(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    lost = after(table) & (pl.int_range(ROWS) % 5 < 2)
    table.with_columns(uid=pl.when(~lost).then("uid")).write_parquet(tmp_path / "log.parquet")
    events, findings = read(tmp_path / "log.parquet")
    assert events.height == ROWS - (ROWS - CHANGE) * 2 // 5
    assert told(findings) == [("ids_missing", "uid", "2026-01-10T00:00:00Z")]


def test_a_gap_in_one_kind_of_event_is_dated_from_and_to(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    gap = pl.int_range(ROWS).is_between(4 * 1440, 9 * 1440 - 1) & (pl.col("act") == "buy")
    table.with_columns(amount=pl.when(~gap).then("amount")).write_parquet(tmp_path / "log.parquet")
    _, findings = read(tmp_path / "log.parquet")
    assert [(f.kind, f.column, f.since, f.until) for f in findings] == [
        ("column_missing", "amount", "2026-01-05T00:00:00Z", "2026-01-10T00:00:00Z")
    ]


def test_columns_that_only_some_events_have_give_no_finding(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    bought = pl.col("act") == "buy"
    sparse = table.with_columns(
        amount=pl.when(bought).then("amount"), sku=pl.when(~bought).then("sku")
    )
    sparse.write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet")[1] == []


def test_following_can_be_switched_off(table: pl.DataFrame, tmp_path: Path) -> None:
    changed = table.with_columns(
        dev=pl.when(~after(table)).then("dev"), device_type=pl.when(after(table)).then("dev")
    )
    changed.write_parquet(tmp_path / "log.parquet")
    mapping = tmp_path / "off.toml"
    mapping.write_text("follow_renames = false\n" + MAPPING)
    source = open_source(tmp_path / "log.parquet", mapping=mapping, now=NOW)
    events = pl.concat([batch.batch.events for batch in source.batches()])
    assert events["device"].null_count() == ROWS - CHANGE


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("visitor_id", "user_id", True),
        ("sku", "product_sku", True),
        ("page_path", "pagePath", True),
        ("price", "country", False),
        ("flag_a", "zebra", False),
    ],
)
def test_like_names(old: str, new: str, *, same: bool) -> None:
    assert like_names(old, new) is same


@settings(max_examples=60)
@given(rate=st.floats(0.05, 1.0), seed=st.integers(0, 2**32 - 1), days=st.integers(2, 40))
def test_steady_columns_are_never_reported(rate: float, seed: int, days: int) -> None:
    random = np.random.default_rng(seed)
    hours = np.sort(random.integers(0, 24 * days, 3_000))
    values = pl.Series(["x" if there else None for there in random.random(3_000) < rate])
    watch = Watch({"a"})
    watch.observe({"a": values}, pl.Series(hours * HOUR_US))
    assert watch.findings() == ()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_no_finding(seed: int) -> None:
    random = np.random.default_rng(seed)
    hours = np.arange(4_000) // 20
    values = pl.Series([None if n > 2_500 and n % 2 else "x" for n in range(4_000)])
    order = random.permutation(4_000)
    found = []
    for rows in (np.arange(4_000), order):
        watch = Watch({"a"})
        for part in np.array_split(rows, 7):
            watch.observe({"a": values[part]}, pl.Series(hours[part] * HOUR_US))
        found.append(watch.findings())
    assert found[0] == found[1]
    assert [finding.kind for finding in found[0]] == ["ids_missing"]


def test_a_rare_symptom_is_no_drift() -> None:
    values: list[str | None] = [None] * 4_000
    for row in (3, 4, *range(3_000, 3_200, 2)):
        values[row] = "declined"
    watch = Watch()
    watch.observe({"error": pl.Series(values)}, pl.Series(np.arange(4_000) // 50 * HOUR_US))
    assert watch.findings() == ()


def test_a_shift_must_stand_wholly_apart() -> None:
    rows = np.full(10, 100.0)
    assert apart(rows, np.array([90.0] * 6 + [50.0] * 4)) == (6, 10)
    assert apart(rows, np.array([90.0, 40.0] * 5)) is None
    assert apart(rows, np.array([90.0] * 10)) is None
