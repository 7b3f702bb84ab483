"""Purchase intent on small made-up shops: rows, context, model, no leakage, stage rates."""

from collections.abc import Sequence
from types import SimpleNamespace

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.errors import ModelError, SnapshotError
from recoup.events import CODE, EVENT_SCHEMA, EventBatch, conform, empty_frames, hash64, take
from recoup.features import FeatureSet, FeatureStore, count, time_since
from recoup.friction import IntentModel, Period, StageRates, training
from recoup.friction.intent_context import (
    CONTEXT_COLUMNS,
    Labelled,
    encode_context,
    encode_out_of_fold,
    learn_vocabulary,
)
from recoup.friction.intent_goals import goals_of
from recoup.friction.intent_rows import IntentRows, collect_rows
from recoup.friction.signals import SIGNAL_INDEX
from recoup.friction.training import IntentSettings, evaluate_intent, fit_intent, train_intent

FEATURES = FeatureSet(
    "small",
    1,
    (
        count("session_events", by="session"),
        count("session_adds", events=("add_to_cart",), by="session"),
        count("visitor_adds", events=("add_to_cart",)),
        time_since("since_event_s", by="session"),
    ),
)
QUICK = IntentSettings(rounds=(5, 10), seeds=(1, 2), leaves=4)
MINUTE = 60_000_000
START = 1_472_713_200_000_000

Line = tuple[int, str, str, str | None]


def make_batch(lines: Sequence[Line], first: int = 0) -> EventBatch:
    """Make events of (minute, visitor, event, order)."""
    frame = pl.DataFrame(
        {
            "ts": [START + minute * MINUTE for minute, *_ in lines],
            "source": ["test"] * len(lines),
            "id": [str(first + k) for k in range(len(lines))],
            "seq": [0] * len(lines),
            "event": [event for _, _, event, _ in lines],
            "visitor": [visitor for _, visitor, *_ in lines],
            "order": [order for *_, order in lines],
            "country": ["here" if hash64(visitor) % 2 else "there" for _, visitor, *_ in lines],
        },
        schema_overrides={"order": pl.String},
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    return EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])


def shop(seed: int, visitors: int = 400) -> list[Line]:
    """Make visits in which those who fill a cart buy more often."""
    rng = np.random.default_rng(seed)
    lines: list[Line] = []
    for k in range(visitors):
        minute, name = k * 7, f"v{k}"
        cart = rng.random() < 0.4
        for _ in range(int(rng.integers(1, 6))):
            lines.append((minute, name, "page_view", None))
            minute += int(rng.integers(1, 4))
        if cart:
            lines.append((minute, name, "add_to_cart", None))
            lines.append((minute + 1, name, "view_cart", None))
        if rng.random() < (0.5 if cart else 0.05):
            lines.append((minute + 2, name, "purchase", f"o{k}"))
            lines.append((minute + 3, name, "page_view", None))
    return sorted(lines)


def rows_of(lines: Sequence[Line], **more: Period) -> IntentRows:
    period = more.get("period", Period())
    return collect_rows([make_batch(lines)], FeatureStore(FEATURES), period)


def at(minute: int) -> int:
    return START + minute * MINUTE


@pytest.fixture(scope="module")
def trained() -> tuple[IntentModel, dict[str, object]]:
    return train_intent(
        [make_batch(shop(1))], FeatureStore(FEATURES), FEATURES.hash, settings=QUICK
    )


def test_a_row_is_an_event_before_the_first_purchase() -> None:
    lines: list[Line] = [
        (0, "a", "page_view", None),
        (1, "a", "add_to_cart", None),
        (2, "a", "add_to_cart", None),
        (3, "a", "purchase", "o1"),
        (4, "a", "page_view", None),
        (5, "b", "page_view", None),
        (6, "b", "add_to_cart", None),
        (200, "a", "page_view", None),
    ]
    rows = rows_of(lines)
    by_time = np.argsort(rows.ts)
    assert ((rows.ts[by_time] - START) // MINUTE).tolist() == [0, 1, 2, 5, 6, 200]
    assert rows.positive[by_time].tolist() == [True, True, True, False, False, False]
    assert rows.event_number[by_time].tolist() == [1, 2, 3, 1, 2, 1]
    assert rows.first_cart[by_time].tolist() == [False, True, False, False, True, False]


def test_the_receipt_viewed_again_is_no_purchase() -> None:
    lines: list[Line] = [
        (0, "a", "purchase", "o1"),
        (100, "a", "page_view", None),
        (101, "a", "purchase", "o1"),
        (102, "a", "page_view", None),
        (103, "a", "purchase", "o2"),
    ]
    rows = rows_of(lines)
    assert ((rows.ts - START) // MINUTE).tolist() == [100, 101, 102]
    assert rows.positive.tolist() == [True, True, True]
    nameless = rows_of([(0, "a", "page_view", None), (1, "a", "purchase", None)])
    assert nameless.positive.tolist() == [True]


def test_rows_tell_what_an_event_shows_from_what_was_shown_before_and_where_it_struck() -> None:
    names = ("add_to_cart", "begin_checkout", "payment_error", "page_view")
    rows = rows_of([(minute, "a", name, None) for minute, name in enumerate(names)])
    declined = 1 << SIGNAL_INDEX["K5"]
    assert rows.now.tolist() == [0, 0, declined, 0]
    assert rows.before.tolist() == [0, 0, 0, declined]
    stands = ("add_to_cart", "begin_checkout", "begin_checkout", "page_view")
    event = rows.context[:, CONTEXT_COLUMNS.index("event")]
    assert event.tolist() == [CODE[name] for name in stands]


def test_goals_are_what_the_session_goes_on_to_do_and_whether_its_visitor_ever_buys() -> None:
    lines: list[Line] = [
        (0, "a", "add_to_cart", None),
        (1, "a", "view_cart", None),
        (2, "a", "begin_checkout", None),
        (3, "a", "page_view", None),
        (100, "a", "page_view", None),
        (101, "a", "purchase", "o1"),
        (200, "b", "page_view", None),
        (201, "b", "add_to_cart", None),
    ]
    rows = rows_of(lines)
    goals = goals_of(rows)[np.argsort(rows.ts)].astype(int)
    assert goals[:, 0].tolist() == [1, 1, 0, 0, 1, 0, 0]
    assert goals[:, 1].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert goals[:, 2].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert goals[:, 3].tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_the_network_learns_beside_what_shoppers_go_on_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(shop(1))
    ours = fit_intent(rows, "x", QUICK)[0].learned
    monkeypatch.setattr(training, "goals_of", lambda each: ~goals_of(each))
    other = fit_intent(rows, "x", QUICK)[0].learned
    assert ours.network is not None
    assert other.network is not None
    assert (ours.network.first != other.network.first).any()


def test_a_period_is_half_open_and_history_is_only_folded() -> None:
    lines = shop(2, visitors=40)
    whole = rows_of(lines)
    middle = Period(at(60), at(150))
    part = rows_of(lines, period=middle)
    np.testing.assert_array_equal(np.sort(part.ts), np.sort(whole.ts[middle.contains(whole.ts)]))
    past = make_batch([line for line in lines if line[0] < 60])
    rest = make_batch([line for line in lines if line[0] >= 60], first=len(past))
    split = collect_rows([rest], FeatureStore(FEATURES), Period(until=at(150)), history=[past])
    np.testing.assert_array_equal(split.values, part.values)
    np.testing.assert_array_equal(split.positive, part.positive)
    np.testing.assert_array_equal(split.event_number, part.event_number)
    with pytest.raises(ModelError, match="events in the period"):
        rows_of(lines, period=Period(at(10**6)))


def test_repeated_events_are_no_rows() -> None:
    lines = shop(3, visitors=10)
    batch = make_batch(lines)
    once = collect_rows([batch], FeatureStore(FEATURES), Period())
    twice = collect_rows([batch, batch], FeatureStore(FEATURES), Period())
    np.testing.assert_array_equal(twice.ts, once.ts)


@settings(max_examples=10)
@given(cut=st.integers(5, 500), seed=st.integers(0, 100))
def test_what_comes_after_a_moment_changes_no_score(cut: int, seed: int) -> None:
    model = cached_model()
    lines = shop(seed, visitors=60)
    cut = min(cut, len(lines))
    told = make_batch(lines)
    later = [
        (minute, visitor, "purchase", f"x{k}") for k, (minute, visitor, *_) in enumerate(lines)
    ]
    changed = make_batch([*lines[:cut], *later[cut:]])
    shuffled = take(told, np.r_[np.arange(cut), np.arange(len(lines) - 1, cut - 1, -1)])
    scores = []
    for batch in (told, changed, take(told, np.arange(cut)), shuffled):
        rows = FeatureStore(FEATURES).step(
            {c: batch.column(c) for c in FeatureStore(FEATURES).columns}
        )
        scores.append(model.score(batch, rows)[:cut])
    for other in scores[1:]:
        np.testing.assert_array_equal(scores[0], other)


_CACHE: list[IntentModel] = []


def cached_model() -> IntentModel:
    if not _CACHE:
        store = FeatureStore(FEATURES)
        _CACHE.append(train_intent([make_batch(shop(1))], store, "x", settings=QUICK)[0])
    return _CACHE[0]


def test_training_knows_nothing_of_what_comes_after_its_period() -> None:
    lines = shop(4)
    until = at(1_500)
    late = [(m, v, "purchase", f"late{k}") for k, (m, v, *_) in enumerate(lines) if m >= 1_500]
    other = sorted([*(line for line in lines if line[0] < 1_500), *late])
    models = [
        train_intent(
            [make_batch(told)],
            FeatureStore(FEATURES),
            "x",
            period=Period(until=until),
            settings=QUICK,
        )[0]
        for told in (lines, other)
    ]
    assert models[0].to_bytes() == models[1].to_bytes()


def test_training_twice_gives_the_same_bytes(
    trained: tuple[IntentModel, dict[str, object]],
) -> None:
    batch = make_batch(shop(1))
    parts = [take(batch, part) for part in np.array_split(np.arange(len(batch)), 7)]
    again, metrics = train_intent(parts, FeatureStore(FEATURES), FEATURES.hash, settings=QUICK)
    assert again.to_bytes() == trained[0].to_bytes()
    assert metrics == trained[1]


def test_the_model_has_learned_and_its_metrics_have_the_fixed_shape(
    trained: tuple[IntentModel, dict[str, object]],
) -> None:
    model, metrics = trained
    judged = evaluate_intent(model, [make_batch(shop(99))], FeatureStore(FEATURES))
    shape = {"rows", "base_rate", "auc", "pr_auc", "log_loss", "calibration_error"}
    for told in (metrics, judged):
        assert shape | {"after_event", "first_add_to_cart"} <= set(told)
        assert list(msgspec.convert(told["after_event"], dict[str, dict[str, float | None]])) == [
            "1", "3", "5", "10", "20", "40",
        ]  # fmt: skip
        assert set(msgspec.convert(told["first_add_to_cart"], dict[str, object])) == shape
    rows = rows_of(shop(99))
    scores = model.score_rows(rows.values, rows.context)
    carted = rows.values[:, rows.names.index("session_adds")] > 0
    assert scores[carted].mean() > 1.25 * scores[~carted].mean()
    assert abs(scores.mean() - rows.positive.mean()) < 0.1
    period = Period(at(100), at(1_000))
    part = evaluate_intent(model, [make_batch(shop(99))], FeatureStore(FEATURES), period=period)
    assert 0 < msgspec.convert(part["rows"], int) < msgspec.convert(judged["rows"], int)


def test_what_shows_a_signal_is_read_by_no_part_of_the_model() -> None:
    rows = rows_of(shop(1))
    shown = np.arange(len(rows)) % 9 == 0
    values = np.where(shown[:, None], 100.0 * rows.values + 7.0, rows.values)
    signalled = msgspec.structs.replace(rows, now=shown.astype(np.int64))
    other = msgspec.structs.replace(signalled, values=values)
    model, same = (fit_intent(each, "set", QUICK)[0].learned for each in (signalled, other))
    assert model.trees.to_bytes() == same.trees.to_bytes()
    assert model.network is not None
    assert same.network is not None
    assert len(model.network.bias) == QUICK.network.units * QUICK.network.members
    for one, two in zip(
        (*model.linear, *model.network), (*same.linear, *same.network), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_one_event_scores_as_in_a_batch_and_bytes_hold_the_model(
    trained: tuple[IntentModel, dict[str, object]],
) -> None:
    model = trained[0]
    rows = rows_of(shop(5, visitors=50))
    many = model.score_rows(rows.values, rows.context)
    assert len(np.unique(many)) > 5
    again = IntentModel.from_bytes(model.to_bytes())
    assert again.hash == model.hash
    np.testing.assert_array_equal(again.score_rows(rows.values, rows.context), many)
    ones = [model.score_one(rows.values[k], rows.context[k]) for k in range(len(rows))]
    np.testing.assert_allclose(ones, many, rtol=0, atol=1e-12)
    order = tuple(reversed(rows.names))
    again.bind(order)
    turned = again.score_rows(np.ascontiguousarray(rows.values[:, ::-1]), rows.context)
    np.testing.assert_array_equal(turned, many)
    with pytest.raises(ModelError, match="none called"):
        again.bind(("session_events",))
    with pytest.raises(ModelError, match="artefact"):
        IntentModel.from_bytes(b"nonsense")


def test_a_log_without_purchases_is_refused() -> None:
    lines: list[Line] = [(k, f"v{k}", "page_view", None) for k in range(100)]
    with pytest.raises(ModelError, match="sessions that buy"):
        train_intent([make_batch(lines)], FeatureStore(FEATURES), "x", settings=QUICK)


def labelled(seed: int, sessions: int) -> Labelled:
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), rng.integers(1, 5, sessions))
    buys = rng.random(sessions) < 0.3
    context = rng.integers(-4, 4, (len(session), 2))
    return Labelled(context, buys[session], session)


def test_a_vocabulary_counts_each_session_once_for_each_value() -> None:
    rows = labelled(1, 200)
    vocabulary = learn_vocabulary(rows)
    overall = len(np.unique(rows.session[rows.positive])) / 200
    encoded = encode_context(rows.context, vocabulary)
    for column in range(2):
        for value in np.unique(rows.context[:, column]):
            own = rows.context[:, column] == value
            shown = len(np.unique(rows.session[own]))
            bought = len(np.unique(rows.session[own & rows.positive]))
            expected = np.log((bought + 20 * overall) / (shown + 20))
            np.testing.assert_allclose(encoded[own, column], expected, rtol=1e-12)
    unseen = encode_context(np.array([[99, -99]]), vocabulary)
    np.testing.assert_allclose(unseen, np.log(overall))
    with pytest.raises(ModelError, match="sessions that buy"):
        learn_vocabulary(rows.where(~rows.positive))


def test_out_of_fold_codes_do_not_know_their_own_labels() -> None:
    rows = labelled(2, 200)
    fold = rows.session % 5
    before = encode_out_of_fold(rows, fold)
    turned = Labelled(rows.context, rows.positive ^ (fold == 3), rows.session)
    np.testing.assert_array_equal(encode_out_of_fold(turned, fold)[fold == 3], before[fold == 3])
    assert np.any(encode_out_of_fold(turned, fold)[fold != 3] != before[fold != 3])


def visits(
    lines: Sequence[tuple[int, int, int, str]],
) -> tuple[EventBatch, object, NDArray[np.int8]]:
    """Make a batch of (minute, session, stage, event) with what stage rates read of it."""
    batch = make_batch([(minute, str(s), event, None) for minute, s, _, event in lines])
    session = np.array([s for _, s, _, _ in lines])
    rows = SimpleNamespace(session=session, values=None, session_start=session, status=session)
    return batch, rows, np.array([stage for _, _, stage, _ in lines], np.int8)


def test_stage_rates_count_closed_sessions_once() -> None:
    rates = StageRates()
    lines = [(0, 1, 0, "page_view"), (1, 1, 3, "add_to_cart"), (2, 1, 5, "purchase")]
    lines += [(k, 2 + k, 3, "add_to_cart") for k in range(3)]
    rates.step(*visits(sorted(lines)))  # type: ignore[arg-type]
    np.testing.assert_allclose(rates.rates, 1 / 50)
    rates.step(*visits([(200, 90, 0, "page_view")]))  # type: ignore[arg-type]
    overall = 2 / 54
    expected = [
        (1 + 20 * overall) / 21,
        overall,
        overall,
        (1 + 20 * overall) / 24,
        overall,
        20 * overall / 21,
    ]
    np.testing.assert_allclose(rates.rates, expected, rtol=1e-12)
    batch, rows, stage = visits([(201, 91, 3, "view_cart")])
    assert rates.score(batch, rows, SimpleNamespace(stage=stage)).tolist() == [rates.rates[3]]  # type: ignore[arg-type]


def test_stage_rates_resume_from_their_snapshot() -> None:
    rng = np.random.default_rng(1)
    lines = [
        (k, int(rng.integers(40)), int(rng.integers(6)), "purchase" if k % 9 == 0 else "page_view")
        for k in range(600)
    ]
    straight, resumed = StageRates(), StageRates()
    for start in range(0, 600, 100):
        part = visits(lines[start : start + 100])
        straight.step(*part)  # type: ignore[arg-type]
        saved = resumed.snapshot()
        resumed = StageRates()
        resumed.restore(saved)
        resumed.step(*part)  # type: ignore[arg-type]
    np.testing.assert_array_equal(straight.rates, resumed.rates)
    assert straight.snapshot() == resumed.snapshot()
    assert len(np.unique(straight.rates)) > 2
    with pytest.raises(SnapshotError, match="same gap"):
        StageRates(session_gap_s=60).restore(straight.snapshot())
    with pytest.raises(SnapshotError, match="state of stage rates"):
        straight.restore(b"nonsense")


def test_stage_rates_forget_closed_sessions() -> None:
    rates = StageRates()
    for hour in range(50):
        rates.step(*visits([(hour * 60 + k, hour * 60 + k, 1, "page_view") for k in range(60)]))  # type: ignore[arg-type]
    assert len(rates.snapshot()) < 60 * 100
    assert rates.hash == StageRates().hash != StageRates(session_gap_s=60).hash
