"""What is injected is what the truth says, in the log's own format."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from recoup.errors import ConfigError, SourceError
from recoup.events import EventBatch, concat_batches
from recoup.injection import inject_log, parse_spec
from recoup.injection.plan import FUNNEL
from recoup.simulator import load_scenario, write_simulation
from recoup.sources import open_source, write_native

ROW = '\n[[defect]]\nid = "d"\nkind = "{}"\nstep = "{}"\n{}'


def spec(kind: str, step: str, more: str = "", seed: int = 1) -> str:
    return f"seed = {seed}\n" + ROW.format(kind, step, more)


def read(path: Path, **how: object) -> EventBatch:
    found = list(open_source(path, **how).batches())  # type: ignore[arg-type]
    assert sum(part.dead_letters.height for part in found) == 0
    return concat_batches(part.batch for part in found)


def bought(batch: EventBatch) -> pl.DataFrame:
    return batch.events.filter(pl.col("event") == "purchase")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_simulation(folder, visitors=1500, days=2.0, seed=3, scenario=load_scenario("quiet"))
    return folder


DROP = 'where = { device = "mobile" }\nfrom = "2026-03-02T06:00:00Z"\nshare = 0.7\ntype = "K8"'


def test_a_dropped_step_takes_the_orders_the_truth_names(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    truth = inject_log(
        shop / "events.parquet", parse_spec(spec("drop", "add_payment_info", DROP)), out
    )
    before, after = read(shop / "events.parquet"), read(out / "events.parquet")
    defect = truth["defects"][0]
    lost = bought(before).join(bought(after), on="id", how="anti")
    assert defect["lost_orders"] == bought(before).height - bought(after).height == lost.height > 5
    assert defect["lost_value"] == pytest.approx(int(lost["value"].sum()) / 1e6)
    assert set(lost["device"]) == {"mobile"}
    assert 0.5 < defect["sessions"] / defect["met_by"] < 0.9
    assert len(before) - len(after) == defect["removed_events"]
    assert json.loads((out / "truth.json").read_text()) == truth


def test_who_leaves_does_nothing_more_in_that_session(shop: Path, tmp_path: Path) -> None:
    inject_log(shop, parse_spec(spec("drop", "begin_checkout")), tmp_path / "out")
    before, after = read(shop).events, read(tmp_path / "out").events
    gone = before.join(after, on="id", how="anti")
    first = gone.group_by("session").agg(pl.col("ts").min().alias("cut"))
    kept = after.join(first, on="session").filter(pl.col("ts") > pl.col("cut"))
    assert kept.is_empty()
    assert not set(after["event"].cast(pl.String)) & set(FUNNEL[FUNNEL.index("begin_checkout") :])


def test_who_browses_on_only_misses_the_funnel(shop: Path, tmp_path: Path) -> None:
    inject_log(shop, parse_spec(spec("drop", "begin_checkout", 'then = "browse"')), tmp_path / "o")
    gone = read(shop).events.join(read(tmp_path / "o").events, on="id", how="anti")
    assert set(gone["event"].cast(pl.String)) <= set(FUNNEL)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    shop: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        inject_log(shop, parse_spec(spec("drop", "purchase", "share = 0.5", seed)), tmp_path / name)
    first, second, third = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "abc"
    )
    assert first == second != third


def test_a_lost_tag_is_a_nuisance_and_purchases_go_on(shop: Path, tmp_path: Path) -> None:
    truth = inject_log(shop, parse_spec(spec("lose", "add_to_cart")), tmp_path / "out")
    before, after = read(shop), read(tmp_path / "out")
    assert truth["defects"] == []
    assert truth["nuisances"][0]["kind"] == "tracking_break"
    assert bought(before).height == bought(after).height
    assert "add_to_cart" not in after.events["event"].cast(pl.String)
    assert len(before) - len(after) == truth["nuisances"][0]["removed_events"]


def test_a_slowed_step_comes_late_and_so_does_what_follows(shop: Path, tmp_path: Path) -> None:
    more = 'by_ms = 4000\nleave = 0.3\nwhere = { device = "mobile" }'
    truth = inject_log(shop, parse_spec(spec("slow", "view_item", more)), tmp_path / "out")
    both = read(shop).events.join(read(tmp_path / "out").events, on="id", suffix="_after")
    slowed = both.filter((pl.col("event") == "view_item") & (pl.col("device") == "mobile"))
    more_ms = slowed["latency_ms_after"] - slowed["latency_ms"].fill_null(0)
    assert more_ms.to_list() == pytest.approx([4000.0] * slowed.height)
    delays = both.with_columns(late=(pl.col("ts_after") - pl.col("ts")).dt.total_milliseconds())
    assert set(delays["late"].unique() % 4000) == {0}
    assert delays.filter(pl.col("device") != "mobile")["late"].sum() == 0
    assert 0 < slowed.height <= truth["defects"][0]["slowed"]
    assert truth["defects"][0]["removed_events"] == len(read(shop)) - both.height > 0


def test_altered_and_repeated_steps(shop: Path, tmp_path: Path) -> None:
    text = spec("alter", "view_item", "set = { in_stock = false }\nscale = { price = 2.0 }")
    text += ROW.format("duplicate", "add_to_cart", "times = 2").replace('"d"', '"e"')
    truth = inject_log(shop, parse_spec(text), tmp_path / "out")
    before, after = read(shop).events, read(tmp_path / "out").events
    views = after.filter(pl.col("event") == "view_item")
    assert views["in_stock"].to_list() == [False] * views.height
    assert views["price"].sum() == 2 * before.filter(pl.col("event") == "view_item")["price"].sum()
    adds = int((before["event"] == "add_to_cart").sum())
    assert int((after["event"] == "add_to_cart").sum()) == 3 * adds
    assert truth["defects"][1]["duplicated"] == 2 * adds
    assert after["id"].n_unique() == after.height


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.ndjson", "log.parquet"])
def test_a_table_stays_the_table_it_was(tmp_path: Path, name: str) -> None:
    frame = pl.DataFrame({
        "when": [f"2026-03-0{day}T10:0{minute}:00Z" for day in (1, 2) for minute in range(4)],
        "who": [f"v{day}" for day in (1, 2) for _ in range(4)],
        "what": ["see", "cart", "pay", "buy"] * 2,
        "note": ['a "quoted", one', "two\nlines", "x", None] * 2,
        "total": [None, None, None, 12.5, None, None, None, 30.0],
        "shop": ["north"] * 4 + ["south"] * 4,
    })  # fmt: skip
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    path = folder / name
    if name.endswith("parquet"):
        frame.write_parquet(path)
    else:
        text = frame.write_ndjson() if "ndjson" in name else frame.write_csv()
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        'ts = "when"\n[event]\ncolumn = "what"\nnames = { see = "view_item", cart = "add_to_cart", '
        'pay = "add_payment_info", buy = "purchase" }\n[columns]\nvisitor = "who"\n'
        'value = "total"\nmarket = "shop"\n'
    )
    text = spec("drop", "purchase", 'where = { market = "north" }')
    text += ROW.format("alter", "purchase", "set = { value = 99.5 }").replace('"d"', '"e"')
    text += ROW.format("slow", "add_to_cart", "by_ms = 1500").replace('"d"', '"f"')
    truth = inject_log(folder, parse_spec(text), out, mapping=mapping)
    assert (truth["defects"][0]["lost_orders"], truth["defects"][0]["lost_value"]) == (1, 12.5)
    assert sorted(file.name for file in out.iterdir()) == sorted([name, "truth.json"])
    before, after = read(folder, mapping=mapping).events, read(out, mapping=mapping).events
    assert after["value"].drop_nulls().to_list() == [99_500_000]
    assert after["extra"].to_list() == before.filter(pl.int_range(8) != 3)["extra"].to_list()
    late = after["ts"] - before.filter(pl.int_range(8) != 3)["ts"]
    assert late.dt.total_milliseconds().to_list() == [0, 0, 1500, 0, 0, 1500, 1500]


def test_lines_of_an_order_go_together(tmp_path: Path) -> None:
    path = tmp_path / "online.csv"
    path.write_text(
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
        "1,A,a,1,2010-12-01 08:26,2.5,7,France\n2,B,b,1,2010-12-01 08:27,3,8,Spain\n"
        "1,C,c,2,2010-12-01 08:26,1,7,France\n"
    )
    text = spec("drop", "purchase", 'where = { country = "France" }')
    truth = inject_log(path, parse_spec(text), tmp_path / "out")
    assert (truth["defects"][0]["lost_orders"], truth["defects"][0]["lost_value"]) == (1, 4.5)
    lines = (tmp_path / "out" / "online.csv").read_text().splitlines()
    assert [line[0] for line in lines] == ["I", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (spec("drop", "purchase", "colour = 3"), "colour"),
        (spec("drop", "buy"), "`buy`"),
        (spec("drop", "purchase", 'where = { planet = "Mars" }'), "planet"),
        (spec("drop", "purchase", 'where = { country = "Atlantis" }'), "Atlantis"),
        (spec("drop", "purchase", 'from = "2031-01-01"'), "beside it"),
        (spec("drop", "purchase", 'from = "2026-03-04"\nto = "2026-03-03"'), "before `to`"),
        (spec("drop", "purchase", 'from = "soon"'), "soon"),
        (spec("drop", "purchase", "share = 0"), "share"),
        (spec("drop", "purchase", "hours = [3, 3]"), "hours"),
        (spec("drop", "purchase", "by_ms = 3"), "by_ms"),
        (spec("slow", "purchase"), "by_ms"),
        (spec("alter", "purchase"), "`set` or `scale`"),
        (spec("alter", "purchase", "set = { mood = 1 }"), "mood"),
        (spec("drop", "purchase") + ROW.format("drop", "purchase", ""), "each `id` once"),
        (spec("drop", "contact", 'where = { device = "mobile" }'), "got none"),
        ("seed = 1", "defect"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(
    shop: Path, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        inject_log(shop / "events.parquet", parse_spec(text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_in_use_is_left_alone(shop: Path) -> None:
    with pytest.raises(ConfigError, match="empty directory"):
        inject_log(shop, parse_spec(spec("drop", "purchase")), shop)


def test_a_field_that_the_log_lacks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cdnow.csv"
    path.write_text("customer_id,date,n_cds,spend\n1,1997-01-01,1,11.77\n")
    with pytest.raises(ConfigError, match="latency_ms"):
        inject_log(
            path, parse_spec(spec("alter", "purchase", "set = { latency_ms = 9 }")), tmp_path / "o"
        )


def test_a_native_log_in_parts_keeps_its_parts(shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    whole = list(open_source(shop / "events.parquet").batches())
    for number, part in enumerate(whole):
        write_native([part.batch], folder / f"part-{number}.ndjson")
    truth = inject_log(
        folder, parse_spec(spec("drop", "purchase", "share = 0.5")), tmp_path / "out"
    )
    assert len(list((tmp_path / "out").glob("*.ndjson"))) == len(whole)
    lost = bought(read(folder)).height - bought(read(tmp_path / "out")).height
    assert truth["defects"][0]["lost_orders"] == lost > 0


def test_zstd_text_cannot_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson.zst"
    frame = pl.DataFrame({"ts": ["2026-01-01"], "event": ["purchase"], "visitor": ["v"]})
    frame.lazy().sink_ndjson(path, compression="zstd")
    with pytest.raises(SourceError, match="zstd"):
        inject_log(path, parse_spec(spec("drop", "purchase")), tmp_path / "out")


def part_of(shop: Path, folder: Path) -> Path:
    """Keep every fourth visitor of the shop."""
    folder.mkdir()
    for table in shop.glob("*.parquet"):
        rows = pl.scan_parquet(table).filter(pl.col("visitor_id") % 4 == 0)
        rows.collect().write_parquet(folder / table.name)
    return folder


@pytest.mark.slow
def test_the_four_tables_stay_true_to_each_other(data_dir: Path, tmp_path: Path) -> None:
    folder, out = part_of(data_dir / "google_merch_store", tmp_path / "in"), tmp_path / "out"
    more = (
        'where = { browser = "Chrome", device = "desktop" }\nfrom = "2016-09-13T00:00:00Z"\n'
        'to = "2016-09-20T00:00:00Z"\nshare = 0.8'
    )
    truth = inject_log(folder, parse_spec(spec("drop", "add_payment_info", more)), out)
    before, after = bought(read(folder)), bought(read(out))
    lost = before.join(after, on="order", how="anti")
    assert truth["defects"][0]["lost_orders"] == lost.height == before.height - after.height > 20
    assert truth["defects"][0]["lost_value"] == pytest.approx(int(lost["value"].sum()) / 1e6)
    assert set(zip(lost["browser"], lost["device"], strict=True)) == {("Chrome", "desktop")}
    _tables_agree(out)
    names = ("events", "sessions", "hit_products", "hit_promotions")
    for name in names:
        old, new = (pl.read_parquet_schema(where / f"{name}.parquet") for where in (folder, out))
        assert old == new


def _tables_agree(folder: Path) -> None:
    hits = pl.read_parquet(folder / "events.parquet")
    key = ["visitor_id", "visit_id"]
    for name in ("hit_products", "hit_promotions"):
        lines = pl.read_parquet(folder / f"{name}.parquet")
        assert lines.join(hits, on=[*key, "hit_number"], how="anti").is_empty()
    sums = hits.group_by(key).agg(hits=pl.len().cast(pl.Int64), exits=pl.col("is_exit").sum())
    sessions = pl.read_parquet(folder / "sessions.parquet")
    visits = sessions.group_by(key).agg(pl.col("hits", "transactions").sum())
    joined = visits.join(sums, on=key, how="full", suffix="_found")
    assert joined.filter(pl.col("hits").ne_missing(pl.col("hits_found"))).is_empty()
    sold = hits.filter(pl.col("action_type") == 6).select(key).unique()
    without = visits.filter(pl.col("transactions") > 0).join(sold, on=key, how="anti")
    assert without.is_empty()
