"""Purchase intent on the real log, beside a quick model of 22 features on the same splits."""

import datetime as dt
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray

from recoup.features import FeatureStore, standard_features
from recoup.friction.evaluation import Gain, average_precision, paired_gain, roc_auc
from recoup.friction.intent_context import CONTEXT_COLUMNS
from recoup.friction.intent_rows import IntentRows, Period, collect_rows
from recoup.friction.training import IntentSettings, determined, fit_intent
from recoup.intake import Intake
from recoup.sources import open_source

pytestmark = pytest.mark.slow

QUICK_FEATURES = (
    "session_events", "session_page_views", "session_lists", "session_searches",
    "session_selects", "session_views", "session_adds", "session_removes", "session_cart_views",
    "session_checkout_steps", "session_promotions", "session_age_s", "since_event_s",
    "session_items", "session_pages", "session_categories", "last_price", "visitor_visit_number",
)  # fmt: skip
QUICK_CONTEXT = ("device", "channel", "country", "browser")
QUICK = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.8,
    "num_threads": 1,
    "seed": 1,
    "verbose": -1,
}


def micros(month: int, day: int) -> int:
    return int(dt.datetime(2016, month, day, 7, tzinfo=dt.UTC).timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def rows(data_dir: Path) -> IntentRows:
    intake = Intake()
    source = open_source(data_dir / "google_merch_store")
    batches = (intake.step(arrival.batch).batch for arrival in source.batches())
    return collect_rows(batches, FeatureStore(standard_features()), Period())


def quick_table(rows: IntentRows, vocabularies: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    columns = [rows.values[:, rows.names.index(name)] for name in QUICK_FEATURES]
    for name, known in zip(QUICK_CONTEXT, vocabularies, strict=True):
        values = rows.context[:, CONTEXT_COLUMNS.index(name)]
        found = np.searchsorted(known, values).clip(max=len(known) - 1)
        columns.append(np.where(known[found] == values, found, -1).astype(np.float64))
    return np.column_stack(columns)


def quick_scores(earlier: IntentRows, later: IntentRows) -> NDArray[np.float64]:
    vocabularies = []
    for name in QUICK_CONTEXT:
        values = earlier.context[:, CONTEXT_COLUMNS.index(name)]
        known, counts = np.unique(values, return_counts=True)
        vocabularies.append(known[counts >= 200])
    categorical = list(range(len(QUICK_FEATURES), len(QUICK_FEATURES) + len(QUICK_CONTEXT)))
    table = quick_table(earlier, vocabularies)
    data = lgb.Dataset(table, earlier.positive, categorical_feature=categorical)
    booster = lgb.train(QUICK, data, 200)
    return np.asarray(booster.predict(quick_table(later, vocabularies)))


def compare(rows: IntentRows, start: int, until: int) -> tuple[Gain, dict[str, float]]:
    earlier = determined(rows.where(rows.ts < start), start - 1_800_000_000)
    later = rows.where((rows.ts >= start) & (rows.ts < until))
    model, _ = fit_intent(earlier, "standard", IntentSettings())
    ours = model.score_rows(later.values, later.context)
    theirs = quick_scores(earlier, later)
    gain = paired_gain(later.positive, ours, theirs, later.session, draws=400)
    cart = later.first_cart
    return gain, {
        "auc": roc_auc(later.positive, ours),
        "pr_auc": average_precision(later.positive, ours),
        "auc_first_cart": roc_auc(later.positive[cart], ours[cart]),
        "pr_auc_first_cart": average_precision(later.positive[cart], ours[cart]),
        "quick_auc": roc_auc(later.positive, theirs),
        "quick_pr_auc": average_precision(later.positive, theirs),
        "quick_auc_first_cart": roc_auc(later.positive[cart], theirs[cart]),
        "quick_pr_auc_first_cart": average_precision(later.positive[cart], theirs[cart]),
    }


WEEKS = [
    (micros(9, 5), micros(9, 12)),
    (micros(9, 12), micros(9, 19)),
    (micros(9, 19), micros(9, 27)),
]


def test_intent_beats_the_quick_model_over_weekly_origins(rows: IntentRows) -> None:
    found = [compare(rows, *week) for week in WEEKS]
    for gain, measures in found:
        print(gain, measures)  # noqa: T201
        assert gain.pr_auc.low > 0.0
        assert gain.log_loss.low > 0.0
        assert measures["auc"] > measures["quick_auc"]
        assert measures["pr_auc_first_cart"] > measures["quick_pr_auc_first_cart"]


def test_rows_of_the_real_log(rows: IntentRows) -> None:
    split = micros(9, 19)
    earlier, later = rows.where(rows.ts < split), rows.where(rows.ts >= split)
    assert (len(earlier), len(later)) == (232_029, 98_821)
    assert len(np.unique(earlier.session[earlier.positive])) == 490
    assert len(np.unique(later.session[later.positive])) == 207
