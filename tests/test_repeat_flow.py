"""Repeat purchase in the flow: who is overdue at the end of a replay, and who is no customer."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.engine import Engine
from recoup.events import EventBatch
from recoup.friction.orders import Orders, collect_orders
from recoup.friction.repeat import RepeatModel
from recoup.friction.repeat_training import RepeatSettings, fit_repeat
from recoup.models.card import Fingerprint, ModelCard
from recoup.non_shoppers import Rule, Rules
from recoup.report import Summary, render_html
from recoup.runners.backfill import admitted
from recoup.runners.customers import OrderBook
from recoup.runners.lifecycle import keep_model, promote
from recoup.runners.repeat import REPEAT
from recoup.runners.replay import replay_source
from recoup.runners.serving import load_serving
from recoup.sources import open_source
from recoup.testing import random_batch

DAYS = 300
QUICK = RepeatSettings(rounds=(20,), seeds=(1,), origins=3, held_out=1, horizon_days=14)
STAFF = Rules(rule=(Rule("staff", "visitor", equals=("staff",)),))


def draw() -> Orders:
    """Draw regular customers, of cycles from 4 to 30 days; every fifth stays away from half on."""
    rng = np.random.default_rng(2)
    own = [
        np.unique(rng.gamma(3.0, (4 + c % 27) / 3.0, 90).cumsum().astype(int)) for c in range(200)
    ]
    own = [d[(d < DAYS) & ((d < DAYS // 2) | (c % 5 > 0))] for c, d in enumerate(own)]
    who = np.repeat(np.arange(200), [len(days) for days in own])
    return Orders(who, np.concatenate(own), np.ones(len(who)), np.ones(len(who)))


@pytest.fixture(scope="module")
def model() -> RepeatModel:
    return fit_repeat(draw(), DAYS, QUICK)[0]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the orders as a log, among them those of staff, every day."""
    orders = draw()
    who = [f"c{customer}" for customer in orders.customer.tolist()] + ["staff"] * DAYS
    day = np.append(orders.day, np.arange(DAYS))
    frame = pl.DataFrame({"visitor": who, "day": day}).sort("day", "visitor").with_row_index("id")
    moments = pl.from_epoch((pl.col("day") + 18_262) * 86_400 + 43_200 + pl.col("id") % 3_600)
    path = tmp_path_factory.mktemp("orders") / "events.ndjson"
    frame.select(
        pl.col("id").cast(pl.String),
        "visitor",
        ts=moments.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        event=pl.lit("purchase"),
        order="o" + pl.col("id").cast(pl.String),
        value=10.0,
    ).write_ndjson(path)
    return path


def run(log: Path, out: Path, model: RepeatModel | None) -> Summary:
    return replay_source(open_source(log), out, title="s", identity="s", repeat=model, rules=STAFF)


@pytest.fixture(scope="module")
def replayed(log: Path, model: RepeatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    run(log, out, model)
    return out


def test_who_is_overdue_is_told_as_of_the_end(
    log: Path, model: RepeatModel, replayed: Path
) -> None:
    told = json.loads((replayed / "summary.json").read_text(encoding="utf-8"))["repeat"]
    customers = pl.read_parquet(replayed / "customers.parquet")
    orders = collect_orders(admitted(open_source(log)), STAFF)
    at = int(orders.day.max()) + 1
    late = model.overdue(orders, at)
    assert told["customers"] == customers.height == len(late.customer)
    assert told["categories"] == []
    assert not (replayed / "overdue.parquet").exists()
    assert told["overdue"] == int((late.by > 0).sum()) > 20
    assert told["overdue_by_days"] == pytest.approx(np.median(late.by[late.by > 0]))
    assert sum(each["customers"] for each in told["bins"]) == told["overdue"]
    np.testing.assert_allclose(
        np.sort(customers["p_purchase"]), np.sort(model.predict(orders, at).ours)
    )
    assert customers["overdue_by"].is_sorted(descending=True)
    bought = pl.DataFrame({"customer": orders.customer, "day": orders.day}).group_by("customer")
    want = bought.agg(pl.len().alias("n"), pl.col("day").max()).sort("n", "day")
    found = customers.select("orders", pl.col("last_order").to_physical()).sort(pl.all())
    assert found.rows() == want.select("n", "day").rows()
    gone = customers.filter(pl.col("overdue_by") > 0)["visitor"]
    assert np.mean([int(name[1:]) % 5 == 0 for name in gone]) > 0.8


def test_staff_is_no_customer(log: Path, replayed: Path) -> None:
    customers = pl.read_parquet(replayed / "customers.parquet")
    assert "staff" not in customers["visitor"]
    batches = list(admitted(open_source(log)))
    assert (
        len(collect_orders(batches).customers) == len(collect_orders(batches, STAFF).customers) + 1
    )


def test_what_was_bought_before_one_was_found_out_is_taken_out_too() -> None:
    """A test order gives its visitor away; earlier orders of the same visitor teach nothing."""
    frames = [order_of("a", "o1", 0), order_of("b", "o2", 1), order_of("a", "TEST-1", 2)]
    assert len(collect_orders(frames).customers) == 1


def order_of(visitor: str, order: str, day: int) -> EventBatch:
    batch = random_batch(1, seed=day, start_s=86_400 * day)
    events = batch.events.with_columns(
        visitor=pl.lit(visitor),
        event=pl.lit("purchase").cast(batch.events.schema["event"]),
        order=pl.lit(order).cast(batch.events.schema["order"]),
        id=pl.lit(order),
    )
    return EventBatch(events, batch.items.clear())


def test_it_is_a_section_of_the_report(replayed: Path, log: Path, tmp_path: Path) -> None:
    page = (replayed / "report.html").read_text(encoding="utf-8")
    assert "Customers who buy again" in page
    assert "are overdue" in page
    without = run(log, tmp_path, None)
    assert without.repeat is None
    assert not (tmp_path / "customers.parquet").exists()
    assert "Customers who buy again" not in render_html(without)


def test_purchases_survive_a_cut(log: Path) -> None:
    batches = list(admitted(open_source(log)))
    engine, book, parts = Engine(), OrderBook(), dict[str, bytes]()
    for batch in batches:
        book.step(engine.step(batch))
        changes = book.changes()
        parts = {n: s for n, s in parts.items() if n not in changes.dropped} | changes.saved
    again = OrderBook()
    again.restore_parts(parts)
    assert again.purchases().equals(book.purchases())
    again.restore_parts(book.snapshot())
    assert again.purchases().equals(book.purchases())


def test_the_promoted_model_serves(model: RepeatModel, tmp_path: Path) -> None:
    later = fit_repeat(draw(), DAYS - 30, QUICK)[0]
    data = Fingerprint("log", 0, None, None, "s")
    for each in (model, later):
        card = ModelCard(name=REPEAT, hash=each.hash, purpose="P.", inputs="i", fingerprint=data)
        keep_model(tmp_path, each.to_bytes(), card, {})
    assert load_serving(tmp_path).names["with repeat"] == later.hash[:12]
    promote(tmp_path, REPEAT, 1)
    assert load_serving(tmp_path).names["with repeat"] == model.hash[:12]
