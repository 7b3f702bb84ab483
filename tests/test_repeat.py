"""Repeat purchase: BG/NBD, gaps between orders, who is overdue, and the model over all of it."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from recoup.cli import main
from recoup.errors import ModelError
from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, conform
from recoup.friction.bg_nbd import BgNbd, Histories, fit_bg_nbd
from recoup.friction.gaps import GapModel, fit_gaps, overdue
from recoup.friction.orders import Orders, collect_orders
from recoup.friction.repeat import RepeatModel
from recoup.friction.repeat_training import (
    RepeatSettings,
    default_horizon,
    evaluate_repeat,
    fit_repeat,
)
from recoup.runners.repeat import evaluate_repeat_on, train_repeat_on
from recoup.sources import open_source

QUICK = RepeatSettings(rounds=(30,), seeds=(1,), origins=4, held_out=1, max_rows_linear=3_000)
LAW = BgNbd(0.8, 30.0, 0.8, 3.0)


def simulate(law: BgNbd, customers: int, end: float, rng: np.random.Generator) -> Orders:
    """Draw orders of customers of BG/NBD, who start within the first fifth of the time."""
    rate = rng.gamma(law.r, 1.0 / law.alpha, customers)
    drop = rng.beta(law.a, law.b, customers)
    rows: list[tuple[int, int]] = []
    for c in range(customers):
        at = rng.random() * end / 5.0
        while at < end:
            rows.append((c, int(at)))
            if len(rows) > 1 and rows[-2][0] == c and rng.random() < drop[c]:
                break
            at += rng.exponential(1.0 / rate[c])
    found = np.unique(np.array(rows), axis=0)
    return Orders(found[:, 0], found[:, 1], np.ones(len(found)), np.ones(len(found)))


@pytest.fixture(scope="module")
def orders() -> Orders:
    return simulate(LAW, 1_000, 400.0, np.random.default_rng(5))


@pytest.fixture(scope="module")
def model(orders: Orders) -> RepeatModel:
    return fit_repeat(orders, 300, QUICK)[0]


def test_bg_nbd_is_found_again() -> None:
    known = simulate(LAW, 3_000, 400.0, np.random.default_rng(6)).histories(400)
    found = fit_bg_nbd(known)
    assert found.r / found.alpha == pytest.approx(0.8 / 30.0, rel=0.15)
    assert found.a / (found.a + found.b) == pytest.approx(0.8 / 3.8, rel=0.2)


def test_bg_nbd_of_the_whole_cdnow_cohort_is_near_the_published(data_dir: Path) -> None:
    # The paper fits a tenth of the cohort: r 0.243, alpha 4.414, a 0.793, b 2.426, in weeks.
    table = pl.read_parquet(data_dir / "cdnow" / "cdnow.parquet").unique(["customer_id", "date"])
    early = table.filter(pl.col("date") < pl.date(1997, 10, 1)).sort("customer_id", "date")
    day = early["date"].dt.epoch("d").to_numpy().astype(np.int64)
    none = np.zeros(len(day))
    known = Orders(early["customer_id"].to_numpy(), day, none, none).histories(int(day.max()))
    weeks = Histories(known.repeats, known.recency / 7.0, known.age / 7.0)
    found, published = fit_bg_nbd(weeks), BgNbd(0.243, 4.414, 0.793, 2.426)
    assert len(weeks) == 23_570
    got = [found.r, found.alpha, found.a, found.b]
    assert got == pytest.approx([0.243, 4.414, 0.793, 2.426], rel=0.12)
    loss = (found.log_likelihood(weeks) - published.log_likelihood(weeks)) / len(weeks)
    assert 0.0 < loss < 0.005


def test_the_probability_of_a_purchase_agrees_with_draws_from_the_law() -> None:
    law, rng = BgNbd(1.0, 10.0, 1.0, 2.0), np.random.default_rng(3)
    rate, drop = rng.gamma(law.r, 1.0 / law.alpha, 400_000), rng.beta(law.a, law.b, 400_000)
    first, second = rng.exponential(1.0 / rate), rng.exponential(1.0 / rate)
    gone = rng.random(400_000) < drop
    # One repeat, between the 4th and the 6th week, and none since until the 20th.
    seen = (first > 4.0) & (first < 6.0) & (gone | (first + second > 20.0))
    bought = ~gone[seen] & (first + second < 30.0)[seen]
    said = law.p_purchase(Histories(np.array([1.0]), np.array([5.0]), np.array([20.0])), 10.0)
    assert said[0] == pytest.approx(bought.mean(), abs=0.01)


def test_gaps_are_found_again_and_their_quantiles_hold() -> None:
    rng = np.random.default_rng(7)
    rate = rng.gamma(3.0, 1.0 / 60.0, 2_000)
    gaps = np.maximum(rng.gamma(2.0, 1.0 / rate[:, None], (2_000, 30)), 0.51)
    days = np.round(np.cumsum(gaps, axis=1)).astype(np.int64)
    keep = np.ones_like(days, bool)
    keep[:, 1:] = days[:, 1:] > days[:, :-1]
    keep &= days < 500
    customer = np.broadcast_to(np.arange(2_000)[:, None], days.shape)[keep]
    orders = Orders(customer, days[keep], np.ones(keep.sum()), np.ones(keep.sum()))
    model = fit_gaps(orders, 500)
    assert model.shape == pytest.approx(2.0, rel=0.15)
    second = Histories(np.ones(2_000), gaps[:, 1], gaps[:, 1])
    for level in (0.5, 0.9):
        assert (gaps[:, 2] < model.quantile(second, level)).mean() == pytest.approx(level, abs=0.03)


def test_who_has_left_for_good_is_not_waited_for() -> None:
    rng, n = np.random.default_rng(8), 4_000
    rate = rng.gamma(3.0, 1.0 / 60.0, n)
    gaps = np.maximum(np.round(rng.gamma(2.0, 1.0 / rate[:, None], (n, 30))), 1.0)
    days = np.cumsum(gaps, axis=1).astype(np.int64)
    stays = rng.random(days.shape) > 0.15
    stays[:, 0] = True
    keep = np.cumprod(stays, axis=1).astype(bool) & (days < 560)
    customer = np.broadcast_to(np.arange(n)[:, None], days.shape)[keep]
    orders = Orders(customer, days[keep], np.ones(keep.sum()), np.ones(keep.sum()))
    model, past = fit_gaps(orders, 500), orders.before(500)
    assert model.lapse == pytest.approx(0.15, abs=0.02)
    assert model.shape == pytest.approx(2.0, rel=0.15)
    said = model.p_purchase(past.histories(500), 60.0)
    came = np.isin(past.customers, orders.buyers(500, 560))
    for part in np.array_split(np.argsort(said), 4):
        assert came[part].mean() == pytest.approx(said[part].mean(), abs=0.04)


def test_who_is_overdue_and_by_how_much() -> None:
    customer, day = np.repeat([1, 2], 5), np.r_[np.arange(5) * 10, np.arange(5) * 10 + 35]
    orders = Orders(customer, day, np.ones(10), np.ones(10))
    model = GapModel(2.0, 3.0, 20.0)
    told = overdue(orders, model, 80)
    assert told.elapsed.tolist() == [40.0, 5.0]
    assert (told.by > 0.0).tolist() == [True, False]
    assert told.by == pytest.approx(told.elapsed - told.latest)
    known = orders.histories(80)
    assert model.longer(known, told.latest) == pytest.approx([0.1, 0.1])
    assert model.longer(known, told.usual) == pytest.approx([0.5, 0.5])


def test_no_order_behind_the_origin_is_read(orders: Orders, model: RepeatModel) -> None:
    altered = Orders(orders.customer, orders.day, orders.value.copy(), orders.quantity)
    altered.value[orders.day >= 300] = 1e6
    again, metrics = fit_repeat(altered.where(altered.day < 350), 300, QUICK)
    assert again.hash == model.hash
    assert metrics["horizon_days"] == model.laws.horizon_days == 28
    before = model.predict(orders.before(300), 300)
    np.testing.assert_array_equal(model.predict(altered, 300).ours, before.ours)


def test_a_model_survives_its_bytes_and_answers_for_shorter_horizons(
    orders: Orders, model: RepeatModel
) -> None:
    again = RepeatModel.from_bytes(model.to_bytes())
    assert again.hash == model.hash
    full, week = model.predict(orders, 300), again.predict(orders, 300, 7)
    np.testing.assert_array_equal(again.predict(orders, 300, 28).ours, full.ours)
    assert (week.ours < full.ours).all()
    judged = evaluate_repeat(model, orders, 300, 307, draws=50)
    assert judged["horizon_days"] == 7
    assert judged["base_rate"] == pytest.approx(float(week.ours.mean()), rel=0.25)


def test_where_bg_nbd_holds_it_is_hardly_beaten(orders: Orders, model: RepeatModel) -> None:
    told = evaluate_repeat(model, orders, 300, 400, draws=50)
    theirs = told["bg_nbd"]
    assert isinstance(theirs, dict)
    assert isinstance(told["log_loss"], float)
    assert abs(told["log_loss"] - theirs["log_loss"]) < 0.02
    assert isinstance(told["calibration_error"], float)
    assert told["calibration_error"] < 0.06


def drifting(levels: list[float]) -> Orders:
    """Customers who buy at most once in four weeks, more or fewer of them from one to the next."""
    rng, rows = np.random.default_rng(9), [np.array([np.arange(1_500), np.zeros(1_500, np.int64)])]
    for month, level in enumerate(levels):
        bought = np.flatnonzero(rng.random(1_500) < 1.0 / (1.0 + np.exp(1.0 - level)))
        rows.append(np.array([bought, 1 + 28 * month + rng.integers(0, 28, len(bought))]))
    customer, day = np.concatenate(rows, axis=1)
    order = np.lexsort((day, customer))
    ones = np.ones(len(day))
    return Orders(customer[order], day[order], ones, ones)


def test_a_level_that_lasts_is_expected_to_go_on() -> None:
    settings = RepeatSettings(rounds=(30,), seeds=(1,), horizon_days=28, max_rows_linear=3_000)
    rising = drifting([-0.6, -0.6, -0.6, -0.5, -0.3, 0.0, 0.3, 0.6, 0.9])
    until = 1 + 8 * 28
    model, _ = fit_repeat(rising, until, settings)
    assert model.learned.level > 0.1
    assert RepeatModel.from_bytes(model.to_bytes()).learned.level == model.learned.level
    without = msgspec.structs.replace(model.learned, level=0.0)
    flat = RepeatModel(model.laws, without, until)
    told = [evaluate_repeat(each, rising, until, until + 28, draws=10) for each in (model, flat)]
    assert told[0]["log_loss"] < told[1]["log_loss"]  # type: ignore[operator]
    steady, _ = fit_repeat(drifting([0.0] * 9), until, settings)
    assert abs(steady.learned.level) < 0.03


def test_what_cannot_be_trained_on_is_told(orders: Orders, model: RepeatModel) -> None:
    with pytest.raises(ModelError, match="at least 5 days"):
        fit_repeat(orders.before(4), 4)
    with pytest.raises(ModelError, match="at least 910 days"):
        fit_repeat(orders, 300, RepeatSettings(horizon_days=182))
    once = orders.where(np.isin(np.arange(len(orders)), orders.starts))
    with pytest.raises(ModelError, match="more than once"):
        fit_gaps(once, 400)
    with pytest.raises(ModelError, match="more than once"):
        fit_repeat(once, 400)
    with pytest.raises(ModelError, match="days after it"):
        evaluate_repeat(model, orders, 400, 400)
    with pytest.raises(ModelError, match="`repeat/1` artefact"):
        RepeatModel.from_bytes(b"other")
    assert [default_horizon(span) for span in (3, 224, 223)] == [1, 28, 14]


def test_orders_of_a_log_count_once() -> None:
    hour = dt.timedelta(hours=1)
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    told = [
        ("a", "purchase", "o1", noon, 5_000_000),
        ("a", "purchase", "o1", noon + 30 * hour, 5_000_000),
        ("a", "purchase", "o2", noon + hour, 7_000_000),
        ("b", "view_item", None, noon, None),
        ("b", "purchase", None, noon + 20 * hour, None),
    ]
    frame = pl.DataFrame(told, schema=["visitor", "event", "order", "ts", "value"], orient="row")
    frame = frame.with_row_index("id").with_columns(source=pl.lit("s"), seq=0)
    lines = pl.DataFrame({"event": [0, 0], "role": ["subject"] * 2, "quantity": [2, 3]})
    events = conform(frame.with_columns(pl.col("id").cast(pl.String)), EVENT_SCHEMA)
    found = collect_orders([EventBatch(events, conform(lines, ITEM_SCHEMA))])
    assert len(found.customers) == 2
    by_value = np.argsort(found.value)
    assert found.value[by_value].tolist() == [0.0, 12.0]
    assert found.quantity[by_value].tolist() == [1.0, 6.0]
    assert np.diff(found.day[by_value]).tolist() == [-1]
    with pytest.raises(ModelError, match="purchases"):
        collect_orders([])


def log_of(orders: Orders, path: Path) -> Path:
    day = (pl.Series(orders.day).cast(pl.Int64) + 18_262) * 86_400
    moments = pl.from_epoch(day, time_unit="s").dt.strftime("%Y-%m-%dT12:00:00Z")
    frame = pl.DataFrame({"ts": moments, "visitor": pl.Series(orders.customer).cast(pl.String)})
    frame = frame.with_columns(event=pl.lit("purchase"), id=pl.int_range(pl.len()).cast(pl.String))
    frame.sort("ts").write_ndjson(path)
    return path


def test_the_commands(
    orders: Orders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log, models = log_of(orders, tmp_path / "orders.ndjson"), str(tmp_path / "models")

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["recoup", *arguments, "--registry", models])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.out + captured.err
        return captured.out

    until = ("--until", "2020-06-30", "--horizon-days", "14")
    assert json.loads(run("train", "repeat", str(log), *until, "--json"))["version"] == 1
    judged = json.loads(run("evaluate", "repeat", str(log), "--json"))
    assert judged["origin"].startswith("2020-06-30")
    assert judged["forward"] is True
    assert {"customers", "horizon_days", "auc", "log_loss", "calibration_error"} <= set(judged)
    assert set(judged["bg_nbd"]) == {"auc", "log_loss", "calibration_error"}
    assert run("models", "list").count("repeat") == 1
    words = run("evaluate", "repeat", str(log), "--from", "2020-05-01")
    assert "BG/NBD" in words
    assert "no test forward in time" in words


ORIGINS = {
    "online_retail": ("2010-09-09", "2010-11-11"),
    "completejourney": ("2017-10-01", "2017-12-01"),
    "cdnow": ("1997-10-01", "1998-06-01"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("log", "origin"), [(log, origin) for log, days in ORIGINS.items() for origin in days]
)
def test_better_than_bg_nbd_forward_in_time(
    data_dir: Path, tmp_path: Path, log: str, origin: str
) -> None:
    day = dt.datetime.fromisoformat(origin).replace(tzinfo=dt.UTC)
    source = open_source(data_dir / log)
    train_repeat_on(source, tmp_path, until=day)
    told = evaluate_repeat_on(source, tmp_path, start=day)
    print(log, origin, told)  # noqa: T201
    assert told["forward"] is True
    gain = told["gain"]
    assert isinstance(gain, dict)
    assert gain["low"] > 0.0
    assert isinstance(told["calibration_error"], float)
    assert isinstance(told["calibration_by_chance"], float)
    # No level of the log lets expect the rise of the autumn of 2010.
    most = 0.05 if (log, origin) == ("online_retail", "2010-09-09") else 0.01
    assert told["calibration_error"] < max(most, 1.05 * told["calibration_by_chance"])
