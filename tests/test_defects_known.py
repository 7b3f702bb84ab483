"""Defects known to be there: simulated ones, and ones injected into a real log."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recoup.decisions import Defect
from recoup.defects import Evidence
from recoup.engine import Engine, Settings
from recoup.events import ITEM_SCHEMA, EventBatch, concat_batches, encode
from recoup.features import FeatureStore, standard_features
from recoup.friction.moment import Moment
from recoup.friction.signals import SIGNALS
from recoup.simulator import load_scenario, simulate
from recoup.sources import open_source

HOUR = 3_600_000_000
CHECKOUT = ("begin_checkout", "add_shipping_info", "add_payment_info", "purchase")
STEPS = {"begin_checkout": CHECKOUT, "add_to_cart": ("add_to_cart", *CHECKOUT)}
STEPS |= {"purchase": CHECKOUT[3:], "add_payment_info": CHECKOUT[2:]}


def sure(defects: list[Defect]) -> list[Defect]:
    return [each for each in defects if each.confidence > 0.5]


def ranked(scenario: str, seed: int) -> tuple[list[Defect], list[dict[str, object]]]:
    simulation = simulate(20_000, 7.0, seed, load_scenario(scenario))
    engine = Engine(Settings(executes=False))
    events = concat_batches(simulation.batches)
    engine.step(events)
    return sure(engine.evidence.ranked(now_of(events.events))), simulation.truth["defects"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_simulated_defects_are_named_where_they_are(seed: int) -> None:
    found, truth = ranked("default", seed)
    named = {(each.type, key, value) for each in found for key, value in each.entity.items()}
    missed = [
        known["id"]
        for known in truth
        if not any((known["type"], *pair) in named for pair in known["entity"].items())  # type: ignore[attr-defined]
    ]
    assert len(missed) <= 2, missed
    assert len(found) <= len(truth) + 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_simulated_shop_without_defects_is_quiet(seed: int) -> None:
    found, _ = ranked("quiet", seed)
    assert found == []


@pytest.fixture(scope="module")
def real_log(data_dir: Path) -> pl.DataFrame:
    store, parts = FeatureStore(standard_features()), []
    for each in open_source(data_dir / "google_merch_store").batches():
        rows = store.step(encode(each.batch, store.columns))
        parts.append(each.batch.events.with_columns(pl.Series("own", rows.session)))
    return pl.concat(parts)


def told(log: pl.DataFrame) -> Evidence:
    count = log.height
    session = log["own"].to_numpy()
    rows = SimpleNamespace(
        values=np.zeros((count, 1)),
        session=session,
        session_start=session,
        status=np.zeros(count, np.int8),
    )
    batch = EventBatch(log.drop("own"), pl.DataFrame(schema=ITEM_SCHEMA))
    none = np.zeros((count, len(SIGNALS)), np.bool_)
    evidence = Evidence()
    evidence.step(Moment(batch, rows, ("x",), np.full(count, 0.1), none, np.zeros(count, np.int8)))
    return evidence


def now_of(log: pl.DataFrame) -> int:
    return int(log["ts"].dt.epoch("us").max() or 0) + HOUR  # type: ignore[arg-type]


def inject(
    log: pl.DataFrame, step: str, since: dt.datetime, until: dt.datetime, entity: dict[str, str]
) -> tuple[pl.DataFrame, int]:
    """Cut the sessions of an entity at a step, within some days; give the orders lost, too."""
    column, value = next(iter(entity.items()))
    event, at = pl.col("event").cast(pl.String), pl.col("ts")
    first = log.group_by("own").agg(pl.col(column).drop_nulls().first())
    hit = log.join(first.filter(pl.col(column) == value).select("own"), on="own", how="semi")
    hit = hit.filter(event.is_in(STEPS[step]) & (at >= since) & (at < until))
    cut = hit.group_by("own").agg(at.min().alias("cut"))
    joined = log.join(cut, on="own", how="left", maintain_order="left")
    gone = joined.filter(at >= pl.col("cut"))
    lost = gone.filter(event == "purchase")["own"].n_unique()
    kept = joined.filter(pl.col("cut").is_null() | (at < pl.col("cut"))).drop("cut")
    return kept, lost


def day(number: int) -> dt.datetime:
    return dt.datetime(2016, 9, number, tzinfo=dt.UTC)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "since", "until", "entity"),
    [
        ("begin_checkout", 19, 21, {"browser": "Chrome"}),
        ("add_to_cart", 10, 17, {"device": "mobile"}),
        ("purchase", 20, 27, {"os": "Macintosh"}),
    ],
)
def test_a_defect_injected_into_the_real_log_tops_the_list(
    real_log: pl.DataFrame, step: str, since: int, until: int, entity: dict[str, str]
) -> None:
    log, lost = inject(real_log, step, day(since), day(until), entity)
    first = told(log).ranked(now_of(log))[0]
    assert entity.items() <= first.entity.items()
    assert first.confidence > 0.9
    assert abs((first.since - day(since)).total_seconds()) <= 12 * 3600
    end = first.until or dt.datetime(2016, 9, 26, 7, tzinfo=dt.UTC)
    hours = (end - first.since).total_seconds() / 3600
    assert first.lost_orders_per_hour.low * hours <= max(lost, 1) * 1.3
    assert first.lost_orders_per_hour.high * hours >= lost * 0.7


@pytest.mark.slow
def test_the_real_log_as_it_is_raises_no_sure_alarm(real_log: pl.DataFrame) -> None:
    assert sure(told(real_log).ranked(now_of(real_log))) == []


@pytest.mark.slow
@pytest.mark.parametrize("event", ["begin_checkout", "add_to_cart"])
def test_lost_tracking_in_the_real_log_is_a_finding(real_log: pl.DataFrame, event: str) -> None:
    within = (pl.col("ts") >= day(12)) & (pl.col("ts") < day(17))
    log = real_log.filter(~(within & (pl.col("event").cast(pl.String) == event)))
    ranking = told(log).ranking(now_of(log))
    assert sure(ranking.defects) == []
    assert event in {each.column for each in ranking.findings}


@pytest.mark.slow
def test_a_renamed_page_in_the_real_log_raises_no_sure_alarm(real_log: pl.DataFrame) -> None:
    moved = (pl.col("ts") >= day(14)) & (pl.col("page") == "/basket.html")
    renamed = pl.when(moved).then(pl.lit("/cart")).otherwise(pl.col("page"))
    log = real_log.with_columns(renamed.alias("page"))
    assert sure(told(log).ranked(now_of(log))) == []
