"""Models at work, watched: what each of the three foretold beside what came, and what it reads."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from recoup.engine import Engine
from recoup.errors import SnapshotError
from recoup.events import CODE, EventBatch, concat_batches, encode
from recoup.features import standard_features
from recoup.friction.orders import Orders
from recoup.friction.repeat_training import RepeatSettings, fit_repeat
from recoup.friction.watch import Reference, reference_of
from recoup.models.card import Fingerprint, ModelCard, ReliabilityBin, SliceMetrics
from recoup.report import (
    Behaving,
    Hesitation,
    HesitationTally,
    Journeys,
    Judged,
    ModelHealth,
    Period,
    model_story,
    render_html,
    summarise,
)
from recoup.runners.customers import look_back
from recoup.runners.lifecycle import Kept, Loaded, health_of_model
from recoup.runners.model_watch import ModelWatch
from recoup.runners.repeat import Places
from recoup.testing import random_batch

DATA = Fingerprint("shop", 3, "2024-05-01T00:00:00Z", "2024-05-02T00:00:00Z", "ab")
NAMES = standard_features().names


def loaded(name: str, reference: dict[str, Reference], *bins: ReliabilityBin) -> Loaded:
    card = ModelCard(
        name=name, hash="h", purpose="P.", inputs="i", fingerprint=DATA, reliability=bins
    )
    return Loaded(b"", 3, Kept(card, reference))


def waits(rng: np.random.Generator, goes_on: np.ndarray, second: float) -> Behaving:
    """Draw sessions of a first page that go on to a second one with the chance given."""
    count = len(goes_on)
    first = random_batch(count, seed=1).events.with_columns(
        pl.lit("page_view").cast(pl.Enum(list(CODE))).alias("event"),
        pl.lit(None, pl.String).alias("element"),
        visitor=pl.Series([f"{second}-{k}" for k in range(count)]),
        ts=pl.Series(np.full(count, int(second * 1e6))).cast(pl.Datetime("us", "UTC")),
        id=pl.Series([f"{second}-{k}" for k in range(count)]),
    )
    next_ = first.filter(pl.Series(rng.random(count) < goes_on)).with_columns(
        pl.col("ts") + pl.duration(seconds=20), id=pl.col("id") + "b"
    )
    events = pl.concat([first, next_])
    batch = EventBatch(events, random_batch(1, seed=1).items.clear())
    session = encode(batch, ("visitor",))["visitor"].astype(np.int64)
    said = np.append(goes_on, np.full(next_.height, np.nan))
    nothing = np.zeros((len(batch), 6), np.bool_)
    return Behaving(batch, session, nothing, Judged(said, np.full(len(batch), 60.0)))


def test_what_hesitation_foretold_stands_beside_what_came() -> None:
    rng = np.random.default_rng(3)
    tally = HesitationTally(lateness_s=0.0, level=0.9)
    goes_on = rng.beta(2.0, 2.0, 6_000)
    tally.step(waits(rng, goes_on, 1e6))
    off = rng.beta(2.0, 2.0, 6_000)
    tally.step(waits(rng, off, 1.02e6))
    tally.step(waits(rng, np.array([0.5]), 1.04e6))
    again = HesitationTally(lateness_s=0.0, level=0.9)
    again.restore(tally.snapshot())
    found = again.result().forecast
    assert found == tally.result().forecast
    assert sum(each.rows for each in found) == 12_000
    assert [each.predicted for each in found] == sorted(each.predicted for each in found)
    assert np.mean([each.low <= each.predicted <= each.high for each in found]) > 0.8
    both = np.append(goes_on, off)
    want = [both[(both * 20).astype(int) == k].mean() for k in np.unique((both * 20).astype(int))]
    assert [each.predicted for each in found] == pytest.approx(want, abs=1e-5)


def test_without_a_model_nothing_is_foretold() -> None:
    tally, seen = HesitationTally(), random_batch(100, seed=1)
    tally.step(Behaving(seen, np.arange(100), np.zeros((100, 6), np.bool_)))
    assert tally.result().forecast == []


def test_inputs_are_counted_where_each_model_reads_them() -> None:
    rows = np.random.default_rng(1).normal(size=(500, len(NAMES)))
    served = {name: loaded(name, reference_of(rows, NAMES)) for name in ("intent", "hesitation")}
    engine, watch, events = Engine(), ModelWatch(served, NAMES), 0
    for seed in range(3):
        step = engine.step(random_batch(200, seed=seed, start_s=600 * seed))
        watch.step(step)
        events += len(step.shoppers)
    assert [each.rows for each in watch.health(Journeys(), Hesitation())] == [events, 0]
    again = ModelWatch(served, NAMES)
    again.restore(watch.snapshot())
    assert again.health(Journeys(), Hesitation()) == watch.health(Journeys(), Hesitation())
    with pytest.raises(SnapshotError):
        ModelWatch({"intent": served["intent"]}, NAMES).restore(watch.snapshot())
    with pytest.raises(SnapshotError):
        again.restore(b"nothing")


def test_a_model_is_further_off_where_what_it_foretells_has_changed() -> None:
    then = ReliabilityBin(0.3, 0.31, 0.2, 0.4, 900)
    same = health_of_model(loaded("intent", {}, then), None, [(0.2, 0.21, 10), (0.4, 0.41, 10)])
    assert (same.predicted, same.observed) == pytest.approx((0.3, 0.31))
    assert same.expected_calibration_error == pytest.approx(0.01)
    assert model_story.holds(same)
    moved = health_of_model(loaded("intent", {}, then), None, [(0.2, 0.1, 10), (0.4, 0.5, 10)])
    assert moved.bias == pytest.approx(1.0)
    assert moved.calibration_error == pytest.approx(0.1)
    assert not model_story.holds(moved)
    nothing = health_of_model(loaded("intent", {}), None, [])
    assert nothing.predicted is None
    assert model_story.holds(nothing)


def test_the_report_says_which_model_to_train_again_and_what_flatters_it() -> None:
    worst = SliceMetrics("device", "mobile<b>", 900, 0.1, 0.3, 0.02, 1.0)
    off = ModelHealth(
        name="hesitation", version=3, hash="h", rows=10, inputs=70, predicted=0.5, observed=0.6,
        calibration_error=0.1, expected_calibration_error=0.01, worst=worst,
        trained_to="2024-05-02T00:00:00Z",
    )  # fmt: skip
    begin = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
    journeys = Journeys(period=Period(begin, begin + dt.timedelta(days=3)))
    summary = summarise(source="s", events=1, journeys=journeys, models=[off])
    page = render_html(summary)
    assert "Can the predictions be trusted?" in page
    assert "Train it again" in page
    assert "learned from part of this log" in page
    assert "mobile&lt;b&gt;" in page
    later = Journeys(period=Period(begin + dt.timedelta(days=2), begin + dt.timedelta(days=3)))
    assert "learned from" not in " ".join(
        model_story.sentences(summarise(source="s", events=1, journeys=later, models=[off]))
    )


def test_the_latest_whole_horizon_is_looked_back_on() -> None:
    rng = np.random.default_rng(2)
    own = [np.unique(rng.gamma(3.0, (4 + c % 27) / 3, 90).cumsum().astype(int)) for c in range(200)]
    who = np.repeat(np.arange(200), [len(days) for days in own])
    orders = Orders(who, np.concatenate(own), np.ones(len(who)), np.ones(len(who))).before(400)
    quick = RepeatSettings(rounds=(20,), seeds=(1,), origins=3, held_out=1, horizon_days=14)
    model, _ = fit_repeat(orders, 300, quick)
    back = look_back(orders, model, 400)
    assert back is not None
    said = model.predict(orders.before(386), 386)
    assert back.customers == len(said.customer)
    assert back.expected_buyers == pytest.approx(said.ours.sum())
    bought = {c for c, d in zip(who.tolist(), np.concatenate(own), strict=True) if 386 <= d < 400}
    assert back.buyers == len(bought & set(said.customer.tolist()))
    assert back.buyers == pytest.approx(back.expected_buyers, rel=0.25)
    assert look_back(orders, model, 10) is None


def test_a_customers_place_is_that_of_the_first_purchase() -> None:
    drawn = random_batch(400, seed=4)
    device = pl.Series(np.random.default_rng(4).choice(["mobile", "desktop", ""], 400))
    told = drawn.events.with_columns(device=device.replace({"": None}))
    batch = EventBatch(told, drawn.items.clear())
    parts = [EventBatch(batch.events[i : i + 100], batch.items.clear()) for i in range(0, 400, 100)]
    places = Places()
    assert len(concat_batches(places.watch(parts))) == 400
    bought = batch.events.filter(pl.col("event") == "purchase", pl.col("device").is_not_null())
    first = bought.unique("visitor", keep="first", maintain_order=True)
    who = encode(EventBatch(first, batch.items.clear()), ("visitor",))["visitor"].astype(np.int64)
    assert places.of("device", who) == first["device"].to_list()
    assert places.of("device", np.array([1])) == [""]
    assert first.height > 5
