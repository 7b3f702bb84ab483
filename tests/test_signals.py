"""Signals: the catalogue's symptoms, what must not look like one, and the fold that finds them."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.errors import SnapshotError
from recoup.events import CODE, EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, conform, take
from recoup.friction.moment import STAGES, furthest_stage
from recoup.friction.signals import SIGNAL_INDEX, SIGNALS, SignalDetector

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)


def batch_of(*rows: dict[str, object]) -> EventBatch:
    base = {"source": "web", "seq": 0, "visitor": "v"}
    filled = [
        {"ts": START + dt.timedelta(seconds=10 * n), "id": str(n)} | base | row
        for n, row in enumerate(rows)
    ]
    frame = pl.DataFrame(filled, infer_schema_length=None)
    return EventBatch(conform(frame, EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA))


def shown(*rows: dict[str, object]) -> list[set[str]]:
    batch = batch_of(*rows)
    found = SignalDetector().step(batch, np.ones(len(batch), np.int64)).signals
    return [{each.id for each, hit in zip(SIGNALS, row, strict=True) if hit} for row in found]


CART = {"event": "add_to_cart", "item": "i", "price": 10_000_000}
CHECKOUT = {"event": "begin_checkout", "value": 50_000_000}


@pytest.mark.parametrize(
    ("rows", "signal"),
    [
        ([{"event": "search", "results": 0}], "S1"),
        ([{"event": "filter_results", "results": 0}], "S5"),
        ([{"event": "search", "query": q} for q in "abc"], "S3"),
        ([{"event": "view_search_results", "latency_ms": 9000.0}], "S6"),
        ([{"event": "search", "error_code": "503"}], "S6"),
        ([{"event": "view_item", "in_stock": False}], "D1"),
        ([{"event": "view_item", "promise_days": 9.0}], "D2"),
        ([{"event": "add_to_cart", "error_code": "500"}], "D6"),
        ([{"event": "ui_error", "option": "add_to_cart"}], "D6"),
        ([{"event": "click_frustration", "option": "dead"}], "D7"),
        ([{"event": "page_timing", "latency_ms": 9000.0}], "D8"),
        ([CART, {"event": "price_change", "item": "i", "price": 12_000_000}], "C1"),
        ([{**CHECKOUT, "shipping": 9_000_000}], "C2"),
        ([CART, {"event": "stock_status", "in_stock": False}], "C3"),
        ([{"event": "coupon_attempt", "error_code": "expired"}], "C4"),
        ([{"event": "auth_error"}, {"event": "auth_error"}], "K2"),
        ([{"event": "form_error", "element": "zip"}] * 2, "K3"),
        ([{"event": "shipping_quote", "results": 0}], "K4"),
        ([{"event": "payment_error", "payment_method": "card"}], "K5"),
        ([CHECKOUT, {"event": "ui_error"}], "K8"),
        (
            [{**CHECKOUT, "promise_days": 2.0}, {"event": "promise_change", "promise_days": 5.0}],
            "K11",
        ),
        (
            [
                {"event": "view_item", "item": "i", "promise_days": 2.0},
                CART,
                {"event": "view_cart"},
                {**CHECKOUT, "promise_days": 4.0},
            ],
            "K11",
        ),
    ],
)
def test_each_symptom_shows(rows: list[dict[str, object]], signal: str) -> None:
    assert signal in shown(*rows)[-1]


@pytest.mark.parametrize(
    ("rows", "signal"),
    [
        ([{"event": "search"}], "S1"),
        ([{"event": "search", "results": 3}], "S1"),
        ([{"event": "search", "query": "a"}] * 4, "S3"),
        ([{"event": "view_item"}], "D1"),
        ([{"event": "click_frustration", "option": "rage"}] * 3, "D7"),
        ([CART, {"event": "price_change", "item": "i", "price": 8_000_000}], "C1"),
        ([CART, {"event": "price_change", "item": "j", "price": 12_000_000}], "C1"),
        ([{**CHECKOUT, "shipping": 1_000_000}, {**CHECKOUT, "shipping": 9_000_000}], "C2"),
        ([{"event": "auth_error"}], "K2"),
        ([{"event": "form_error", "element": e} for e in ("zip", "city")], "K3"),
        ([{"event": "add_payment_info", "payment_method": "card"}], "K5"),
        ([{"event": "ui_error"}], "K8"),
        ([{**CHECKOUT, "promise_days": 5.0}, {**CHECKOUT, "promise_days": 4.0}], "K11"),
        (
            [
                {"event": "view_item", "item": "fast", "promise_days": 1.0},
                {"event": "view_item", "item": "i", "promise_days": 5.0},
                CART,
                {**CHECKOUT, "promise_days": 5.0},
                {"event": "view_item", "item": "slow", "promise_days": 6.0},
            ],
            "K11",
        ),
        (
            [
                CART,
                {"event": "view_item", "item": "other"},
                {"event": "stock_status", "item": "other", "in_stock": False},
            ],
            "C3",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_looks_like_a_symptom_does_not(
    rows: list[dict[str, object]], signal: str
) -> None:
    """A stepper is no dead click, turning pages no new search, an unknown count no zero."""
    assert all(signal not in each for each in shown(*rows))


EVENTS = st.sampled_from(
    ["search", "view_item", "add_to_cart", "begin_checkout", "auth_error", "form_error", "purchase"]
)


@settings(max_examples=25)
@given(
    names=st.lists(EVENTS, min_size=1, max_size=40),
    sessions=st.lists(st.integers(1, 5), min_size=40, max_size=40),
    size=st.integers(1, 7),
)
def test_batches_of_any_size_and_a_restore_change_nothing(
    names: list[str], sessions: list[int], size: int
) -> None:
    rows: list[dict[str, object]] = [
        {"event": name, "element": "e", "query": str(n)} for n, name in enumerate(names)
    ]
    batch = batch_of(*rows)
    keys = np.array(sessions[: len(batch)], np.int64)
    whole = SignalDetector().step(batch, keys)
    detector = SignalDetector()
    parts = []
    for start in range(0, len(batch), size):
        picked = np.arange(start, min(start + size, len(batch)))
        part = detector.step(take(batch, picked), keys[picked])
        parts.append(part)
        state = detector.snapshot()
        detector = SignalDetector()
        detector.restore(state)
    for name in ("signals", "stage", "before", "step"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    codes = np.array([CODE[name] for name in names])
    np.testing.assert_array_equal(furthest_stage(codes, keys), whole.stage)


def test_a_journey_remembers_what_it_showed_and_where_it_stands_without_symptoms() -> None:
    rows: list[dict[str, object]] = [CART, CHECKOUT, {"event": "ui_error", "option": "checkout"}]
    rows += [{"event": "payment_error"}, {"event": "view_item", "in_stock": False}, CART]
    batch = batch_of(*rows)
    found = SignalDetector().step(batch, np.ones(len(batch), np.int64))
    error, declined, gone = (1 << SIGNAL_INDEX[name] for name in ("K8", "K5", "D1"))
    assert found.now.tolist() == [0, 0, error, declined, gone, 0]
    known = error | declined
    assert found.before.tolist() == [0, 0, 0, error, known, known | gone]
    stands = ("add_to_cart", "begin_checkout", "begin_checkout", "begin_checkout", "view_item")
    assert found.step.tolist() == [CODE[name] for name in (*stands, "add_to_cart")]
    failed = SignalDetector().step(
        batch_of({"event": "ui_error", "option": "add_to_cart"}), np.ones(1, np.int64)
    )
    assert failed.step.tolist() == [CODE["add_to_cart"]]
    lone = SignalDetector().step(batch_of({"event": "payment_error"}), np.ones(1, np.int64))
    assert lone.step.tolist() == [CODE["payment_error"]]


def test_many_sessions_are_remembered_and_idle_ones_forgotten() -> None:
    detector = SignalDetector(max_sessions=100)
    one = batch_of({"event": "auth_error"})
    for key in range(1, 3000):
        detector.step(one, np.array([key]))
    detector.step(one, np.array([2999]))
    assert detector.step(one, np.array([2999])).signals[0, SIGNAL_INDEX["K2"]]
    assert len(detector.snapshot()) < 3000 * 120


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(SnapshotError):
        SignalDetector().restore(b"something else")


def test_stages_are_in_order_of_the_funnel() -> None:
    assert STAGES[0] == "landed"
    assert furthest_stage(np.array([CODE["scroll"]]), np.array([1])).tolist() == [0]
    before = np.array([3], np.int8)
    assert furthest_stage(np.array([CODE["scroll"]]), np.array([1]), before).tolist() == [3]
