"""Public logs open without a mapping, and their counts are what a query over the files gives."""

import datetime as dt
import random
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import SourceError
from recoup.events import EventBatch, check_batch, concat_batches
from recoup.sources import FORMATS, Source, open_source
from recoup.sources.shipped import NAMES, shipped_mapping

TAOBAO = {"view_item": 3926, "add_to_wishlist": 128, "add_to_cart": 190, "purchase": 77}
NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
FIRST_SHOP = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,HEART HOLDER,6,{0} 8:26,2.55,17850,United Kingdom
536366,22633,HAND WARMER,6,{0} 8:28,1.85,17850,United Kingdom
536365,71053,"LANTERN, WHITE",6,{0} 8:26,3.39,17850,United Kingdom
C536379,D,Discount,-1,{1} 9:41,27.5,14527,United Kingdom
536414,22139,,56,{1} 11:52,0,,United Kingdom
536420,21035,SET,12,{2} 12:03,2.95,16583,France
"""
SECOND_SHOP = """Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country
489434,85048,GLASS BALL,12,2009-12-01 07:45:00,6.95,13085.0,United Kingdom
C489449,22087,PAPER BUNTING,-12,2009-12-01 10:33:00,2.95,16321.0,Australia
"""


def read(source: Source) -> tuple[EventBatch, list[tuple[str, str]], set[str]]:
    """Give the events of a log, its dead letters and the kinds of its findings."""
    found = list(source.batches())
    batch = check_batch(concat_batches(part.batch for part in found))
    dead = pl.concat([part.dead_letters for part in found])
    kinds = {finding.kind for part in found for finding in part.findings}
    return batch, list(dead.select("path", "reason").iter_rows()), kinds


def money(batch: EventBatch, event: str) -> float:
    return int(batch.events.filter(pl.col("event") == event)["value"].sum()) / 1e6


def test_the_invoices_of_a_shop_are_its_orders_and_refunds(data_dir: Path) -> None:
    lines = pl.read_parquet(data_dir / "online_retail" / "*.parquet")
    bills = lines.group_by("Invoice").agg(
        pl.col("CustomerID", "InvoiceDate").first(),
        value=(pl.col("Quantity") * pl.col("Price")).sum(),
        back=pl.col("Invoice").first().str.starts_with("C"),
        lines=pl.len(),
    )
    named = bills.drop_nulls("CustomerID")
    source = open_source(data_dir / "online_retail", now=NOW)
    batch, dead, _ = read(source)
    assert source.name == "online_retail"
    assert batch.events.select("order", "event").sort("order").rows() == [
        (bill["Invoice"], "refund" if bill["back"] else "purchase")
        for bill in named.sort("Invoice").iter_rows(named=True)
    ]
    assert batch.events["visitor"].n_unique() == named["CustomerID"].n_unique() == 4383
    for event, back in (("purchase", False), ("refund", True)):
        expected = named.filter(pl.col("back") == back)["value"].sum()
        assert money(batch, event) == pytest.approx(abs(expected), abs=0.01)
    assert batch.items.height == named["lines"].sum()
    assert [reason for _, reason in dead] == ["missing_visitor"] * (len(bills) - len(named))
    assert batch.events["ts"].is_sorted()


def test_cdnow_gives_an_order_a_row_in_order_of_time(data_dir: Path) -> None:
    rows = pl.read_parquet(data_dir / "cdnow" / "cdnow.parquet")
    batch, dead, _ = read(open_source(data_dir / "cdnow", now=NOW))
    assert (len(batch), dead) == (rows.height, [])
    assert batch.events["visitor"].n_unique() == rows["customer_id"].n_unique()
    assert money(batch, "purchase") == pytest.approx(rows["spend"].sum())
    assert batch.events["quantity"].sum() == rows["n_cds"].sum()
    assert batch.events["ts"].is_sorted()
    per_day = rows.group_by(pl.col("date").dt.date()).len().sort("date").rows()
    assert batch.events.group_by(pl.col("ts").dt.date()).len().sort("ts").rows() == per_day


@pytest.mark.slow
def test_baskets_know_their_goods(data_dir: Path) -> None:
    folder = data_dir / "completejourney"
    lines = pl.read_parquet(folder / "transactions.parquet")
    batch, dead, kinds = read(open_source(folder, now=NOW))
    assert (len(batch), batch.items.height, dead) == (155_848, lines.height, [])
    assert "files_left_out" in kinds
    assert batch.events["visitor"].n_unique() == lines["household_id"].n_unique()
    assert money(batch, "purchase") == pytest.approx(lines["sales_value"].sum())
    goods = pl.read_parquet(folder / "products.parquet").with_columns(
        pl.col("product_id").cast(pl.Int32)
    )
    expected = lines.join(goods, on="product_id", how="left").group_by("product_category").len()
    found = batch.items.group_by("category").len()
    assert dict(found.iter_rows()) == dict(expected.iter_rows())


def test_lines_of_one_transaction_are_one_purchase(data_dir: Path) -> None:
    rows = pl.read_parquet(data_dir / "retailrocket_sample" / "*.parquet")
    bought = rows.filter(pl.col("event") == 2)
    batch, dead, _ = read(open_source(data_dir / "retailrocket_sample", now=NOW))
    purchases = batch.events.filter(pl.col("event") == "purchase")
    assert dead == []
    assert purchases.height == bought["transactionid"].n_unique() < bought.height
    assert set(purchases["order"]) == set(bought["transactionid"])
    assert batch.items.height == rows.height
    assert batch.events["visitor"].n_unique() == rows["visitorid"].n_unique()


@pytest.mark.parametrize(
    ("name", "events"),
    [
        ("taobao_sample", TAOBAO),
        ("session_clicks/yoochoose_100k.parquet", {"view_item": 83_846}),
    ],
)  # fmt: skip
def test_click_logs_open_as_they_are(data_dir: Path, name: str, events: dict[str, int]) -> None:
    batch, dead, _ = read(open_source(data_dir / name, now=NOW))
    assert dict(batch.events["event"].value_counts().iter_rows()) == events
    assert dead == []
    assert batch.events["ts"].is_sorted()


@pytest.mark.parametrize(
    "days",
    [
        ("12/1/2010", "12/1/2010", "12/2/2010"),
        ("01/12/2010", "01/12/2010", "02/12/2010"),
        ("01-12-2010", "01-12-2010", "02-12-2010"),
        ("2010-12-01", "2010-12-01", "2010-12-02"),
    ],
)
def test_the_first_shop_in_its_own_spelling(tmp_path: Path, days: tuple[str, str, str]) -> None:
    path = tmp_path / "OnlineRetail.csv"
    iso = [text.replace(" 8:", " 08:").replace(" 9:", " 09:") for text in [FIRST_SHOP]]
    path.write_text((iso[0] if days[0].startswith("2010") else FIRST_SHOP).format(*days))
    batch, dead, _ = read(open_source(path, now=NOW))
    assert batch.events.select("id", "event", "value", "visitor").rows() == [
        ("536365", "purchase", 35_640_000, "17850"),
        ("536366", "purchase", 11_100_000, "17850"),
        ("C536379", "refund", 27_500_000, "14527"),
        ("536420", "purchase", 35_400_000, "16583"),
    ]
    days_read = batch.events["ts"].dt.strftime("%m-%d").to_list()
    assert days_read == ["12-01", "12-01", "12-01", "12-02"]
    assert dead == [("OnlineRetail.csv:6 $.CustomerID", "missing_visitor")]
    assert batch.items.filter(pl.col("event") == 0)["item_name"].to_list() == [
        "HEART HOLDER", "LANTERN, WHITE",
    ]  # fmt: skip


def test_both_spellings_in_one_directory(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(FIRST_SHOP.format("12/1/2010", "12/1/2010", "12/2/2010"))
    (tmp_path / "a.csv").write_text(SECOND_SHOP)
    batch, dead, _ = read(open_source(tmp_path, now=NOW))
    assert batch.events["order"].to_list() == [
        "489434", "C489449", "536365", "536366", "C536379", "536420",
    ]  # fmt: skip
    assert batch.events["visitor"].to_list()[:2] == ["13085", "16321"]
    assert len(dead) == 1


def test_cdnow_as_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "CDNOW_master.txt"
    path.write_text(" 00002 19970112  1   12.00\n 00001 19970101  1   11.77\n")
    batch, dead, _ = read(open_source(path, now=NOW))
    assert batch.events.select("visitor", "value", "quantity").rows() == [
        ("00001", 11_770_000, 1), ("00002", 12_000_000, 1),
    ]  # fmt: skip
    assert dead == []


def test_retailrocket_as_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221999827,257597,view,355908,\n1433222276276,599528,transaction,356475,4000\n"
        "1433193500981,121688,addtocart,15335,\n1433222276277,599528,transaction,15335,4000\n"
    )
    (tmp_path / "category_tree.csv").write_text("categoryid,parentid\n1016,213\n")
    batch, dead, kinds = read(open_source(tmp_path, now=NOW))
    assert batch.events.select("event", "visitor", "order").rows() == [
        ("add_to_cart", "121688", None), ("view_item", "257597", None),
        ("purchase", "599528", "4000"),
    ]  # fmt: skip
    assert batch.items["event"].to_list() == [0, 1, 2, 2]
    assert (dead, "files_left_out" in kinds) == ([], True)


def test_yoochoose_as_it_is_published(tmp_path: Path) -> None:
    (tmp_path / "yoochoose-clicks.dat").write_text(
        "11,2014-04-03T10:44:35.672Z,214821275,S\n11,2014-04-03T10:45:01.674Z,214821275,0\n"
    )
    (tmp_path / "yoochoose-buys.dat").write_text(
        "11,2014-04-03T11:04:11.417Z,214821371,1046,1\n11,2014-04-03T11:04:11.417Z,214821275,12,2\n"
    )
    batch, dead, _ = read(open_source(tmp_path, now=NOW))
    assert batch.events.select("event", "category", "value").rows() == [
        ("view_item", "S", None), ("view_item", "0", None), ("purchase", None, 1_070_000_000),
    ]  # fmt: skip
    assert (dead, batch.items["event"].to_list()) == ([], [0, 1, 2, 2])


def test_taobao_as_it_is_published(tmp_path: Path) -> None:
    text = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"
    (tmp_path / "UserBehavior.csv").write_text(text)
    (tmp_path / "mine.csv").write_text(text)
    for name, told in (("UserBehavior.csv", None), ("mine.csv", "taobao")):
        batch, dead, _ = read(open_source(tmp_path / name, format=told, now=NOW))
        assert batch.events["event"].to_list() == ["view_item", "purchase"]
        assert batch.events["ts"][0] == dt.datetime(2017, 11, 24, 17, 21, 10, tzinfo=dt.UTC)
        assert dead == []


def test_orders_whose_lines_stand_apart_are_whole(tmp_path: Path) -> None:
    lines = [
        {"Invoice": f"{bill:05d}", "StockCode": f"S{part}", "Description": "x", "Quantity": 1,
         "InvoiceDate": "2010-12-01 08:26", "Price": 1.0, "CustomerID": bill, "Country": "F",
         "at": 3 * bill + 97 * part}
        for bill in range(12_000) for part in range(3)
    ]  # fmt: skip
    log = pl.DataFrame(lines).sort("at", maintain_order=True).drop("at")
    log.write_csv(tmp_path / "bills.csv")
    batch, _, _ = read(open_source(tmp_path / "bills.csv", now=NOW))
    assert batch.events["order"].to_list() == [f"{bill:05d}" for bill in range(12_000)]
    assert batch.items.group_by("event").len()["len"].unique().to_list() == [3]


GOOD = {
    "online_retail": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        ["536365", "85123A", "a b", "6", "12/1/2010 8:26", "2.55", "17850", "UK"],
    ),
    "completejourney": (
        "household_id,store_id,basket_id,product_id,quantity,sales_value,transaction_timestamp",
        ["900", "330", "536365", "1095275", "1", "0.5", "2017-01-01T11:53:26Z"],
    ),
    "cdnow": ("customer_id,date,n_cds,spend", ["1", "19970101", "1", "11.77"]),
    "retailrocket": (
        "timestamp,visitorid,event,itemid,transactionid",
        ["1433221999827", "257597", "transaction", "355908", "7"],
    ),
    "yoochoose": ("SessionId,ts,ItemId", ["11", "2014-04-03T11:04:11.417Z", "214821371"]),
    "taobao": ("user_id,item_id,category_id,behavior,ts", ["1", "22", "25", "pv", "1511544070"]),
}  # fmt: skip
JUNK = (
    "",
    "null",
    "NaN",
    "-1",
    "1e308",
    "9" * 20,
    '"',
    'a"b',
    "\x00",
    "2010-13-45",
    "C",
    "  ",
    "[]",
)


@pytest.mark.parametrize("name", GOOD)
def test_spoilt_rows_become_events_or_dead_letters(tmp_path: Path, name: str) -> None:
    head, good = GOOD[name]
    draw = random.Random(name)  # noqa: S311
    lines = [head]
    for number in range(10_000):
        fields = [str(number) if field in {"536365", "7"} else field for field in good]
        for _ in range(draw.randint(0, 2)):
            fields[draw.randrange(len(fields))] = draw.choice(JUNK)
        lines.append(",".join(fields))
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    batch, dead, _ = read(open_source(tmp_path / "log.csv", format=name, now=NOW))
    assert len(batch) > 1_600
    told = {int(path.split(":")[1].split(" ")[0]) for path, _ in dead}
    assert len(batch) + len(told) >= 3_300


def test_a_log_with_other_columns_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("SessionId,ItemId,ts,action\n1,2,2020-01-01,buy\n")
    with pytest.raises(SourceError, match="recoup inspect"):
        open_source(path, now=NOW)


def test_a_format_that_does_not_fit_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"without .*Invoice"):
        open_source(path, format="online_retail", now=NOW)


def test_every_shipped_mapping_is_a_format() -> None:
    assert set(NAMES) <= set(FORMATS)
    assert {shipped_mapping(name).source for name in NAMES} == set(NAMES)
