"""Overdue against a category's cycle: each has its own, and who is late is late in one of them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.friction.cycles import LEAST_RETURNING, fit_cycles, overdue_in
from recoup.friction.orders import (
    DAY,
    PURCHASES,
    SEPARATOR,
    collect_purchases,
    orders_of,
)
from recoup.friction.repeat import RepeatModel
from recoup.friction.repeat_training import RepeatSettings, fit_repeat
from recoup.runners.replay import replay_source
from recoup.sources import open_source

DAYS, CUSTOMERS, FIRST = 200, 240, 18_262
CYCLES = {"milk": 5.0, "flour": 30.0}


def drawn() -> pl.DataFrame:
    """Draw customers of both categories; every fourth buys no milk any more from day 120 on."""
    rng = np.random.default_rng(3)
    parts = []
    for name, cycle in CYCLES.items():
        for customer in range(CUSTOMERS):
            day = np.unique(rng.gamma(4.0, cycle / 4.0, 90).cumsum().astype(int))
            kept = day[(day < DAYS) & ((name == "flour") | (customer % 4 > 0) | (day < 120))]
            parts.append(pl.DataFrame({"customer": customer + 1, "day": kept, "kind": name}))
    days = pl.concat(parts).group_by("customer", "day").agg(pl.col("kind").sort())
    return days.sort("day", "customer").select(
        "customer",
        order=pl.lit(0, pl.Int64),
        ts=(pl.col("day") + FIRST) * DAY,
        value=pl.lit(1.0),
        quantity=pl.lit(1.0),
        visitor="c" + pl.col("customer").cast(pl.String),
        categories=pl.col("kind").list.join(SEPARATOR),
    ).cast(PURCHASES)  # fmt: skip


def test_each_category_has_its_own_cycle_and_is_overdue_by_it() -> None:
    purchases, at = drawn(), FIRST + DAYS
    cycles = fit_cycles(purchases, at)
    assert list(cycles) == ["flour", "milk"]
    late = overdue_in(purchases, cycles, at)
    usual = dict(late.group_by("category").agg(pl.col("usual").median()).iter_rows())
    assert usual["milk"] == pytest.approx(5.0, abs=1.0)
    assert usual["flour"] == pytest.approx(30.0, abs=5.0)
    stayed_away = pl.col("customer") % 4 == 1
    share = late.group_by("category", gone=stayed_away).agg((pl.col("overdue_by") > 0).mean())
    found = {(category, gone): by for category, gone, by in share.iter_rows()}
    assert found["milk", True] == 1.0
    assert max(found["milk", False], found["flour", True], found["flour", False]) < 0.15


def test_what_comes_later_is_not_read_and_rare_categories_have_no_cycle() -> None:
    purchases, at = drawn(), FIRST + 100
    early = purchases.filter(pl.col("ts") < at * DAY)
    assert fit_cycles(purchases, at) == fit_cycles(early, at)
    assert overdue_in(purchases, fit_cycles(early, at), at).equals(
        overdue_in(early, fit_cycles(early, at), at)
    )
    few = purchases.filter(pl.col("customer") < LEAST_RETURNING)
    assert fit_cycles(few, FIRST + DAYS) == {}
    unnamed = purchases.with_columns(categories=pl.lit(None, pl.String))
    assert fit_cycles(unnamed, at) == {}
    assert overdue_in(unnamed, fit_cycles(purchases, at), at).is_empty()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the purchases as a log whose orders have lines."""
    path = tmp_path_factory.mktemp("orders") / "events.ndjson"
    rows = drawn().with_row_index("id").to_dicts()
    events = [
        {"ts": row["ts"] // 1_000_000 + 43_200, "event": "purchase", "visitor": row["visitor"]}
        | {"id": f"o{row['id']}", "order": f"o{row['id']}", "value": 1_000_000}
        | {"items": [{"item": k, "category": k} for k in row["categories"].split(SEPARATOR)]}
        for row in rows
    ]
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_categories_of_a_log_are_those_of_its_lines(log: Path) -> None:
    found = collect_purchases(each.batch for each in open_source(log).batches())
    want = drawn()
    assert found.sort("ts", "visitor")["categories"].equals(
        want.sort("ts", "visitor")["categories"]
    )


def test_who_is_overdue_in_a_category_is_told_by_a_replay(log: Path, tmp_path: Path) -> None:
    quick = RepeatSettings(rounds=(20,), seeds=(1,), origins=3, held_out=1, horizon_days=14)
    purchases, at = drawn(), FIRST + DAYS
    cycles = fit_cycles(purchases, at)
    fitted, _ = fit_repeat(orders_of(purchases), at, quick, cycles=cycles)
    model = RepeatModel.from_bytes(fitted.to_bytes())
    assert model.laws.cycles == cycles
    summary = replay_source(open_source(log), tmp_path, title="s", identity="s", repeat=model)
    assert summary.repeat is not None
    by_name = {each.category: each for each in summary.repeat.categories}
    late = pl.read_parquet(tmp_path / "overdue.parquet")
    assert by_name["milk"].overdue == late.filter(category="milk").height >= CUSTOMERS / 4
    assert by_name["milk"].usual_days == pytest.approx(5.0, abs=1.0)
    assert set(late.filter(category="milk").head(40)["visitor"]) <= {
        f"c{k}" for k in range(1, CUSTOMERS + 1, 4)
    }
    assert "Usually again after" in (tmp_path / "report.html").read_text(encoding="utf-8")
