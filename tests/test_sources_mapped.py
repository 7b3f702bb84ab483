import datetime as dt
import json
import re
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import MappingError, SourceError
from recoup.events import EventBatch, check_batch, concat_batches
from recoup.sources import SourceBatch, open_source
from recoup.sources.convert import DETAILS
from recoup.sources.json_table import WORDS as JSON_WORDS
from recoup.sources.mapping import parse_mapping
from recoup.sources.tables import LINE_WORDS

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
MAPPING = """
source = "shop"
ts = "time"
[event]
column = "what"
names = { see = "view_item", cart = "add_to_cart", buy = "purchase", ping = "ignore" }
[columns]
visitor = "who"
item = "sku"
price = "price"
"""


class Log:
    """A log and its mapping in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mapping = folder / "mapping.txt"
        self.mapping.write_text(MAPPING)

    def write(self, rows: list[dict[str, object]], name: str = "log.ndjson") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def read(self, path: Path, *, rows: int = 8192) -> list[SourceBatch]:
        found = list(open_source(path, mapping=self.mapping, now=NOW).batches(rows=rows))
        for batch in found:
            check_batch(batch.batch)
        return found

    def whole(self, path: Path) -> tuple[EventBatch, list[tuple[str, str]], dict[str, str]]:
        """Read a log; give its events, its dead letters and the details of its findings."""
        found = self.read(path)
        dead = pl.concat([batch.dead_letters for batch in found])
        findings = {f.kind: f.detail for batch in found for f in batch.findings}
        events = concat_batches(batch.batch for batch in found)
        return events, list(dead.select("path", "reason").iter_rows()), findings


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def row(second: int = 0, **more: object) -> dict[str, object]:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=second)
    return {"time": moment.isoformat(), "what": "see", "who": f"v{second % 3}", "sku": "A", **more}


def test_rows_become_events(log: Log) -> None:
    path = log.write([row(0, price=1.5, colour="red"), row(1, what="buy")])
    batch, dead, findings = log.whole(path)
    first, second = batch.events.rows(named=True)
    assert (first["event"], first["visitor"], first["item"]) == ("view_item", "v0", "A")
    assert (first["price"], first["source"], first["extra"]) == (
        1_500_000,
        "shop",
        '{"colour":"red"}',
    )
    assert (second["event"], second["price"], second["seq"]) == ("purchase", None, 2)
    assert dead == []
    assert set(findings) == {"ids_made"}


def test_bad_rows_are_dead_letters_with_place_and_reason(log: Log) -> None:
    path = log.write(
        [
            row(0, time="soon"),
            row(1, time="2027-01-01"),
            row(2, who=None),
            row(3, what=""),
            row(4, price=-1),
            row(5, price="free"),
            row(6),
        ]
    )
    batch, dead, _ = log.whole(path)
    assert dead == [
        ("log.ndjson:1 $.time", "bad_timestamp"),
        ("log.ndjson:2 $.time", "future_timestamp"),
        ("log.ndjson:3 $.who", "missing_visitor"),
        ("log.ndjson:4 $.what", "missing_event"),
        ("log.ndjson:5 $.price", "negative_price"),
        ("log.ndjson:6 $.price", "bad_number"),
    ]
    assert batch.events["seq"].to_list() == [5, 6, 7]
    assert batch.events["price"].null_count() == 3


def test_unknown_and_ignored_events_are_counted(log: Log) -> None:
    path = log.write([row(n, what=w) for n, w in enumerate(["zap", "zap", "ping", "Add To Cart"])])
    batch, _, findings = log.whole(path)
    assert batch.events["event"].to_list() == ["custom", "custom", "add_to_cart"]
    assert batch.events["custom_name"].to_list() == ["zap", "zap", None]
    assert "`zap` 2" in findings["unknown_event"]
    assert findings["rows_ignored"].startswith("1 rows")


def test_ids_are_made_from_content_and_place(log: Log) -> None:
    path = log.write([row(0), row(0), row(1)])
    first, _, _ = log.whole(path)
    again, _, _ = log.whole(path)
    assert first.events["id"].n_unique() == 3
    assert first.events["id"].equals(again.events["id"])


def test_ids_given_are_kept_and_the_missing_ones_made(log: Log) -> None:
    log.mapping.write_text(MAPPING + 'id = "key"\n')
    batch, _, findings = log.whole(log.write([row(0, key=7), row(1, key=7.0), row(2)]))
    assert batch.events["id"].to_list()[:2] == ["7", "7"]
    assert len(batch.events["id"][2]) == 16
    assert findings["ids_made"].startswith("1 of 3")


def test_any_stop_resumes_exactly(log: Log) -> None:
    rows = [row(n, who=None if n % 11 == 5 else f"v{n}") for n in range(400)]
    path = log.write(rows)
    whole = log.read(path, rows=37)
    for number, batch in enumerate(whole):
        source = open_source(path, mapping=log.mapping, now=NOW)
        rest = list(source.batches(after=batch.position, rows=37))
        assert [one.position for one in rest] == [one.position for one in whole[number + 1 :]]
        for one, other in zip(rest, whole[number + 1 :], strict=True):
            assert one.batch.events.equals(other.batch.events)
            assert one.dead_letters.equals(other.dead_letters)
            assert one.findings == other.findings


def test_the_size_of_batches_changes_no_row(log: Log) -> None:
    path = log.write([row(n, who=None if n % 7 == 5 else "v") for n in range(300)])
    events = [
        pl.concat([batch.batch.events for batch in log.read(path, rows=size)])
        for size in (1, 64, 8192)
    ]
    assert events[0].equals(events[1])
    assert events[1].equals(events[2])


def test_a_foreign_position_is_refused(log: Log) -> None:
    source = open_source(log.write([row()]), mapping=log.mapping, now=NOW)
    with pytest.raises(SourceError, match="position"):
        list(source.batches("17"))


def test_a_directory_is_one_log_in_order_of_names(log: Log) -> None:
    folder = log.folder / "logs"
    folder.mkdir()
    for name, second in (("b.ndjson", 1), ("a.ndjson", 0)):
        (folder / name).write_text(json.dumps(row(second)) + "\n")
    (folder / "c.parquet").write_bytes(b"PAR1 broken")
    batch, dead, _ = log.whole(folder)
    assert batch.events["visitor"].to_list() == ["v0", "v1"]
    assert dead == [("c.parquet", "unreadable_file")]


def test_sorting_by_time_moves_lines_with_their_events(log: Log) -> None:
    log.mapping.write_text(
        MAPPING.replace("ts =", 'order = "time"\nts =') + '[items]\ncolumn = "l"\n'
    )
    path = log.write([row(5, l=["x", "y"]), row(1, l=["z"]), row(3)])
    batch, _, _ = log.whole(path)
    assert batch.events["seq"].to_list() == [2, 3, 1]
    assert batch.items.select("event", "item").rows() == [(0, "z"), (2, "x"), (2, "y")]


def test_rows_far_out_of_order_are_reported(log: Log) -> None:
    _, _, findings = log.whole(log.write([row(n * 7000 % 100_003) for n in range(100)]))
    assert "unordered" in findings


def test_order_lines_become_orders(log: Log) -> None:
    log.mapping.write_text(
        """
        ts = "day"
        event = { constant = "purchase" }
        [columns]
        visitor = "who"
        order = "bill"
        [items]
        group_by = ["bill"]
        fields = { item = "sku", quantity = "n", price = "each" }
        """
    )
    lines = [
        ("2026-01-01", "u", "b1", "x", 2, 1.5),
        ("2026-01-01", "u", "b1", "y", 1, 4.0),
        ("2026-01-02", "u", "b2", "x", -1, 1.5),
        ("2026-01-03", None, "b3", "x", 1, 1.5),
        ("2026-01-04", "w", None, "x", 1, 1.5),
        ("2026-01-04", "w", None, "x", 1, 1.5),
    ]
    path = log.folder / "bills.csv"
    pl.DataFrame(lines, ["day", "who", "bill", "sku", "n", "each"], orient="row").write_csv(path)
    batch, dead, _ = log.whole(path)
    assert batch.events.select("event", "value").rows() == [
        ("purchase", 7_000_000), ("refund", 1_500_000), ("purchase", 1_500_000),
        ("purchase", 1_500_000),
    ]  # fmt: skip
    assert batch.items.select("event", "item", "quantity").rows() == [
        (0, "x", 2), (0, "y", 1), (1, "x", 1), (2, "x", 1), (3, "x", 1),
    ]  # fmt: skip
    assert dead == [("bills.csv:5 $.who", "missing_visitor")]


def test_an_order_that_spans_blocks_is_one_event(log: Log) -> None:
    log.mapping.write_text(
        'ts="day"\nevent={constant="purchase"}\n[columns]\nvisitor="who"\n'
        '[items]\ngroup_by=["bill"]\nfields={item="sku"}\n'
    )
    bills = [number // 5 for number in range(20_000)]
    frame = pl.DataFrame({"day": "2026-01-01", "who": "u", "bill": bills, "sku": "x"})
    frame.write_parquet(log.folder / "bills.parquet")
    batch, _, _ = log.whole(log.folder / "bills.parquet")
    assert len(batch) == 4_000
    assert batch.items.group_by("event").len()["len"].unique().to_list() == [5]


def test_item_lines_from_objects_columns_and_lists(log: Log) -> None:
    log.mapping.write_text(MAPPING + '[items]\ncolumn = "l"\nfields = { item = "code" }\n')
    rows = [
        row(0, l=[{"code": "x", "price": 2, "quantity": "3"}, {"code": 7, "price": -1}]),
        row(1, l="no list"),
        row(2, l={"code": "single"}),
    ]
    batch, dead, _ = log.whole(log.write(rows))
    assert batch.items.select("event", "role", "item", "price", "quantity").rows() == [
        (0, "subject", "x", 2_000_000, 3), (0, "subject", "7", None, None),
    ]  # fmt: skip
    assert batch.events["extra"].to_list() == [None, None, '{"l.code":"single"}']
    assert dead == [("log.ndjson:1 $.l", "bad_items"), ("log.ndjson:2 $.l", "bad_items")]
    log.mapping.write_text(MAPPING + '[items]\ncolumns = ["i1", "i2"]\nrole = "impression"\n')
    batch, _, _ = log.whole(log.write([row(0, i1="a", i2="b"), row(1, i2="c")]))
    assert batch.items.select("event", "role", "item").rows() == [
        (0, "impression", "a"), (0, "impression", "b"), (1, "impression", "c"),
    ]  # fmt: skip


def test_constants_values_scales_units_and_filters(log: Log) -> None:
    log.mapping.write_text(
        MAPPING
        + """
        country = { constant = "SE" }
        device = { column = "dev", values = { m = "mobile" } }
        latency_ms = { column = "secs", scale = 1000 }
        value = { column = "ore", unit = "cents" }
        order = { any = ["o1", "o2"] }
        page = ["host", "path"]
        [[ignore]]
        column = "bot"
        equals = ["yes"]
        [[ignore]]
        column = "agent"
        matches = "(?i)monitor"
        """
    )
    rows = [
        row(0, dev="m", secs="0.25", ore=1250, o2="n2", host="h", path="p"),
        row(1, bot="yes"),
        row(2, agent="Monitor/1"),
    ]
    batch, dead, findings = log.whole(log.write(rows))
    event = batch.events.row(0, named=True)
    assert len(batch) == 1
    assert (event["country"], event["device"], event["latency_ms"]) == ("SE", "mobile", 250.0)
    assert (event["value"], event["order"], event["page"]) == (12_500_000, "n2", "h-p")
    assert (dead, findings["rows_ignored"][:6]) == ([], "2 rows")


def test_missing_columns_are_said_with_a_remedy(log: Log) -> None:
    with pytest.raises(MappingError, match=r"(?s)time.*Hint"):
        log.read(log.write([{"a": 1, "b": 2}]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ts = [", "TOML"),
        ("", "mapping"),
        ('ts = "t"\nevent = "e"\n[columns]\n', "visitor"),
        ('ts = "t"\nevent = "e"\n[columns]\nvisitor = "v"\nshoe = "s"\n', "shoe"),
        ('ts = "t"\nevent = { constant = "walk" }\n[columns]\nvisitor = "v"\n', "walk"),
        ('ts = "t"\n[event]\n[columns]\nvisitor = "v"\n', "constant"),
        ('ts = "t"\nevent = "e"\ncolour = 1\n[columns]\nvisitor = "v"\n', "colour"),
        (
            'event = "e"\n[ts]\ncolumn = "t"\ntimezone = "Mars/Base"\n[columns]\nvisitor = "v"\n',
            "Mars",
        ),
        (
            'ts = "t"\nevent = "e"\n[columns]\nvisitor = "v"\n[items]\nrole = "subject"\n',
            "group_by",
        ),
        ('ts = "t"\nevent = "e"\n[columns]\nvisitor = { column = "v", constant = 1 }\n', "both"),
    ],
)
def test_mappings_that_break_the_format_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(MappingError, match=message):
        parse_mapping(text)


def test_the_mapping_shown_in_the_docs_is_one() -> None:
    docs = (Path(__file__).parent.parent / "docs" / "sources.md").read_text()
    mapping = parse_mapping(docs.split("```toml\n")[1].split("```")[0])
    assert mapping.event.names["heartbeat"] == "ignore"
    assert mapping.columns["price"].unit == "cents"


def test_every_reason_and_finding_is_in_the_docs() -> None:
    root = Path(__file__).parent.parent
    docs = (root / "docs" / "sources.md").read_text()
    code = "".join(path.read_text() for path in (root / "src/recoup/sources").rglob("*.py"))
    kinds = set(re.findall(r'Finding\(\s*"(\w+)"', code)) | {"ids_missing", "null_rate_shift"}
    reasons = {*DETAILS, *LINE_WORDS, *JSON_WORDS, "wrong_column_count", "unreadable_file"}
    assert {word for word in kinds | reasons if f"`{word}`" not in docs} == set()
