"""Whatever a file holds, a source gives events, dead letters or a clear error; no row vanishes."""

import datetime as dt
import gzip
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recoup.errors import RecoupError
from recoup.events import check_batch
from recoup.sources import open_source
from recoup.sources.base import SourceBatch

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
MAPPING = """
ts = "time"
[event]
column = "what"
names = { see = "view_item", buy = "purchase" }
[columns]
visitor = "who"
item = "sku"
price = "price"
quantity = "n"
latency_ms = "ms"
in_stock = "stock"
id = "id"
[items]
column = "lines"
"""
FIELDS = ("time", "what", "who", "sku", "price", "n", "ms", "stock", "id", "lines")
FIELD_REASONS = ("bad_number", "bad_flag", "bad_items", "negative_")
EXAMPLES = int(os.environ.get("RECOUP_FUZZ", "40"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = st.text(max_size=12) | st.sampled_from(
    ["2026-01-02T03:04:05Z", "1767225600", "1767225600000", "see", "buy", "NaN", "inf", "-3",
     "12,5",
     "$1,200.50", "true", "[]", '[{"item":"a","price":-1}]', "2026-01-01 00:00", "\ufeff", "\x00",
     '"', "9" * 400, "1e400", "20260101"]
)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=1_700_000_000, max_value=1_790_000_000)
    | st.floats(allow_nan=True, allow_infinity=True)
    | texts
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.dictionaries(st.sampled_from(FIELDS) | texts, values, max_size=8)


def read(path: Path, mapping: Path) -> list[SourceBatch] | None:
    """Read a log, or give None where it is refused with a message and a remedy."""
    try:
        batches = list(open_source(path, mapping=mapping, now=NOW).batches(rows=7))
    except RecoupError:
        return None
    for batch in batches:
        check_batch(batch.batch)
        assert batch.dead_letters["path"].null_count() == 0
        assert batch.dead_letters["reason"].null_count() == 0
    return batches


def rows_refused(batches: list[SourceBatch]) -> int:
    reasons = pl.concat([batch.dead_letters["reason"] for batch in batches]).to_list()
    return sum(not reason.startswith(FIELD_REASONS) for reason in reasons)


@pytest.fixture(scope="module")
def mapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "mapping.toml"
    path.write_text(MAPPING)
    return path


@SETTINGS
@given(rows=st.lists(records | values, max_size=12))
def test_every_json_line_becomes_an_event_or_a_dead_letter(
    tmp_path: Path, mapping: Path, rows: list[object]
) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches = read(path, mapping)
    if batches is not None:
        events = sum(len(batch.batch) for batch in batches)
        assert events + rows_refused(batches) == len(rows)


@SETTINGS
@given(rows=st.lists(st.lists(texts, min_size=len(FIELDS), max_size=len(FIELDS)), max_size=12))
def test_every_csv_row_becomes_an_event_or_a_dead_letter(
    tmp_path: Path, mapping: Path, rows: list[list[str]]
) -> None:
    def quoted(cell: str) -> str:
        flat = cell.replace("\n", " ").replace("\r", " ")
        return '"' + flat.replace('"', '""') + '"'

    path = tmp_path / "log.csv"
    lines = [",".join(FIELDS), *(",".join(map(quoted, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    batches = read(path, mapping)
    if batches is not None:
        events = sum(len(batch.batch) for batch in batches)
        assert events + rows_refused(batches) == len(rows)


HEADS = [
    b"", b"time,what,who\n", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"\xff\xfe",
    b"\xef\xbb\xbf", b'{"time":1767225600,"what":"see","who":1}\n',
]  # fmt: skip


@SETTINGS
@given(
    body=st.binary(max_size=300),
    suffix=st.sampled_from([".csv", ".ndjson", ".json", ".tsv", ".parquet", ".csv.gz", ".csv.zst"]),
    head=st.sampled_from(HEADS),
)
def test_arbitrary_bytes_never_break_a_source(
    tmp_path: Path, mapping: Path, body: bytes, suffix: str, head: bytes
) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_bytes(head + body)
    read(path, mapping)


@SETTINGS
@given(cut=st.floats(min_value=0.0, max_value=1.0))
def test_a_truncated_gzip_gives_what_could_be_read(
    tmp_path: Path, mapping: Path, cut: float
) -> None:
    line = '{{"time":{},"what":"see","who":"v{}","sku":"{}"}}\n'
    text = "".join(line.format(1767225600 + n, n, n * 7919 % 10007) for n in range(500))
    packed = gzip.compress(text.encode())
    path = tmp_path / "log.ndjson.gz"
    path.write_bytes(packed[: int(len(packed) * cut)])
    batches = read(path, mapping)
    if batches is None or cut == 1.0:
        return
    events = pl.concat([batch.batch.events for batch in batches])
    reasons = pl.concat([batch.dead_letters for batch in batches])["reason"].to_list()
    assert events["visitor"].to_list() == [f"v{n}" for n in range(events.height)]
    assert events.height <= 500
    assert reasons == ["truncated"]


columns = st.fixed_dictionaries(
    {},
    optional={
        "time": st.lists(leaves, min_size=5, max_size=5),
        "what": st.lists(texts | st.integers(0, 3), min_size=5, max_size=5),
        "who": st.lists(st.integers() | st.floats() | texts | st.none(), min_size=5, max_size=5),
        "price": st.lists(st.floats() | st.none(), min_size=5, max_size=5),
        "n": st.lists(st.integers(-(2**62), 2**62) | st.none(), min_size=5, max_size=5),
        "lines": st.lists(st.lists(st.text(max_size=3), max_size=3), min_size=5, max_size=5),
    },
)


@SETTINGS
@given(table=columns)
def test_parquet_columns_of_any_type_are_read(
    tmp_path: Path, mapping: Path, table: dict[str, list[object]]
) -> None:
    path = tmp_path / "log.parquet"
    series = []
    for name, cells in table.items():
        try:
            series.append(pl.Series(name, cells, strict=True))
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            series.append(pl.Series(name, [str(cell) for cell in cells]))
    pl.DataFrame(series).write_parquet(path)
    batches = read(path, mapping)
    if batches is not None:
        assert sum(len(batch.batch) for batch in batches) + rows_refused(batches) == 5
