"""Signals of behaviour, and the false alarms of the catalogue that must not look like one."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.errors import SnapshotError
from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, conform, take
from recoup.friction.behaviour import BEHAVIOURS, BehaviourDetector
from recoup.friction.explained import EXPLAINED, EXPLAINED_INDEX, JourneyDetector

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
Row = dict[str, object]


def batch_of(rows: list[Row]) -> EventBatch:
    """Make events ten seconds apart, unless they say when (``at``, in seconds)."""
    filled = []
    for n, row in enumerate(rows):
        told = {key: value for key, value in row.items() if key != "at"}
        when = START + dt.timedelta(seconds=float(str(row.get("at", 10 * n))))
        filled.append({"ts": when, "source": "web", "id": str(n), "seq": 0, "visitor": "v"} | told)
    frame = pl.DataFrame(filled, infer_schema_length=None)
    return EventBatch(conform(frame, EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA))


def shown(rows: list[Row]) -> list[set[str]]:
    batch = batch_of(rows)
    found = BehaviourDetector().step(batch, np.ones(len(batch), np.int64))
    return [{name for name, hit in zip(BEHAVIOURS, row, strict=True) if hit} for row in found]


def view(item: str) -> Row:
    return {"event": "view_item", "item": item}


def click(at: float, element: str = "buy", **more: object) -> Row:
    return {"event": "click_frustration", "element": element, "at": at} | more


LIST: Row = {"event": "view_item_list"}
ADD: Row = {"event": "add_to_cart", "item": "a", "element": "buy"}
REMOVE: Row = {"event": "remove_from_cart", "item": "a"}
DEAD_RAGE = [click(k / 4, option="dead") for k in range(3)]


@pytest.mark.parametrize(
    ("rows", "behaviour"),
    [
        ([view("a"), LIST] * 3 + [view("a")], "revisits"),
        ([view("a"), view("b"), view("a"), view("c"), view("a"), LIST, view("a")], "revisits"),
        ([ADD, REMOVE, ADD], "oscillation"),
        ([ADD, REMOVE | {"quantity": 1}, ADD], "oscillation"),
        ([ADD | {"quantity": 3}, REMOVE, ADD], "oscillation"),
        ([view("a"), view("b")] * 3, "comparison_loop"),
        (DEAD_RAGE, "rage_click"),
        ([click(0.0, option="dead")], "dead_click"),
        ([click(0.0, latency_ms=2_600.0)], "dead_click"),
        ([click(0.0, option="error")], "error_click"),
        ([ADD | {"at": 0.0}, {"event": "ui_error", "at": 0.05}], "error_click"),
        (
            [ADD | {"at": 0.0}, {"event": "ui_error", "element": "buy", "at": 0.05}],
            "error_click",
        ),
        (
            [view("a") | {"page": "/p"}, {"event": "page_view", "page": "/q"}] * 3
            + [view("a") | {"page": "/p"}],
            "revisits",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_behaviour_shows(rows: list[Row], behaviour: str) -> None:
    assert behaviour in shown(rows)[-1]


STEPPER = [click(k / 5, "plus", option="rage", latency_ms=40.0) for k in range(6)]
CALENDAR = [click(k / 3, "next_month", latency_ms=90.0) for k in range(5)]
PAGINATION: list[Row] = [
    {"event": "view_item_list", "element": "next_page", "at": k / 4} for k in range(5)
]
TRIPLE_CLICK = [click(k / 10, "title", option="rage") for k in range(3)]
READER: list[Row] = [view("a"), {"event": "scroll"}, {"event": "scroll"}, view("a"), view("a")]
COMPARISON = [view("a"), view("b")] * 4
CHANGED_MIND: list[Row] = [ADD, REMOVE]
TWO_OF_IT: list[Row] = [ADD, ADD, ADD, REMOVE]
COUNTER: list[Row] = [ADD, ADD, REMOVE | {"quantity": 1}, ADD, REMOVE | {"quantity": 1}, ADD]
SIZES: list[Row] = [view("a"), ADD, LIST] * 6
RELOADED: list[Row] = [
    {"event": "page_view", "page": "/p/a"},
    view("a") | {"page": "/p/a"},
] * 6
VITALS: list[Row] = [
    {"event": "page_timing", "element": "img.hero", "latency_ms": 4_000.0, "at": k / 4}
    for k in range(4)
]
SLOW_PAGE: list[Row] = [
    {"event": "custom", "element": "quick view", "latency_ms": 9_000.0, "at": k / 4}
    for k in range(4)
]
REFUSED: list[Row] = [
    {"event": "form_error", "element": "postcode", "latency_ms": 3_000.0, "at": 0.0},
    {"event": "ui_error", "element": "postcode", "at": 0.05},
    {"event": "ui_error", "element": "postcode", "at": 0.08},
]
COUPON_HUNTER: list[Row] = [
    ADD,
    {"event": "coupon_attempt", "error_code": "expired"},
    {"event": "view_cart", "at": 3_000},
    {"event": "coupon_attempt", "error_code": "expired", "at": 3_010},
    {"event": "view_cart", "at": 7_000},
]


@pytest.mark.parametrize(
    ("rows", "behaviours"),
    [
        pytest.param(STEPPER, {"rage_click", "dead_click"}, id="stepper"),
        pytest.param(CALENDAR, {"rage_click", "dead_click"}, id="calendar"),
        pytest.param(PAGINATION, {"rage_click", "dead_click"}, id="pagination"),
        pytest.param(TRIPLE_CLICK, {"rage_click", "revisits"}, id="triple click"),
        pytest.param(READER, set(BEHAVIOURS), id="careful reader"),
        pytest.param(COUNTER, set(BEHAVIOURS), id="one more, one less"),
        pytest.param(SIZES, set(BEHAVIOURS), id="one size after the other"),
        pytest.param(RELOADED, set(BEHAVIOURS), id="page loaded again"),
        pytest.param(VITALS, set(BEHAVIOURS), id="timing of an element"),
        pytest.param(SLOW_PAGE, set(BEHAVIOURS), id="page load told by a click"),
        pytest.param(REFUSED, set(BEHAVIOURS), id="errors without a click"),
        pytest.param(COMPARISON, {"revisits", "oscillation"}, id="comparison shopper"),
        pytest.param(CHANGED_MIND, set(BEHAVIOURS), id="changed mind"),
        pytest.param(TWO_OF_IT, set(BEHAVIOURS), id="two of it"),
        pytest.param(COUPON_HUNTER, set(BEHAVIOURS), id="coupon hunter"),
        pytest.param(
            [click(2.0 * k, option="dead") for k in range(5)], {"rage_click"}, id="slow clicks"
        ),
        pytest.param(
            [click(k / 4, f"e{k}", option="dead") for k in range(5)], {"rage_click"}, id="elements"
        ),
        pytest.param(
            [ADD | {"at": 0.0}, {"event": "ui_error", "at": 0.2}], {"error_click"}, id="later error"
        ),
    ],
)
def test_what_only_looks_like_a_behaviour_does_not(rows: list[Row], behaviours: set[str]) -> None:
    assert all(not behaviours & found for found in shown(rows))


def test_a_stepper_that_is_dead_is_a_rage_click_as_well() -> None:
    dead = [row | {"latency_ms": 4_000.0} for row in STEPPER]
    assert "rage_click" in shown(dead)[-1]


def test_a_session_that_fell_silent_begins_anew() -> None:
    rows = [view("a"), LIST, view("a"), LIST, view("a"), LIST]
    assert "revisits" not in shown([*rows, view("a") | {"at": 4_000}])[-1]
    assert "revisits" in shown([*rows, view("a")])[-1]


KINDS = st.sampled_from([view("a"), view("b"), LIST, ADD, REMOVE, click(0.0, option="dead")])


@settings(max_examples=30)
@given(
    kinds=st.lists(st.tuples(KINDS, st.integers(1, 3)), min_size=1, max_size=40),
    size=st.integers(1, 7),
)
def test_batches_of_any_size_and_a_restore_change_nothing(
    kinds: list[tuple[Row, int]], size: int
) -> None:
    batch = batch_of([row | {"at": n / 2} for n, (row, _) in enumerate(kinds)])
    keys = np.array([who for _, who in kinds])
    whole = BehaviourDetector().step(batch, keys)
    detector, parts = BehaviourDetector(), []
    for start in range(0, len(batch), size):
        picked = np.arange(start, min(start + size, len(batch)))
        parts.append(detector.step(take(batch, picked), keys[picked]))
        state = detector.snapshot()
        detector = BehaviourDetector()
        detector.restore(state)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_memory_is_bounded_and_bytes_of_something_else_are_refused() -> None:
    detector = BehaviourDetector(max_sessions=20)
    for key in range(1, 300):
        detector.step(batch_of([view("a")]), np.array([key]))
    assert len(detector.snapshot()) < 20 * 60
    many = BehaviourDetector()
    many.step(batch_of([view(f"i{k}") for k in range(500)]), np.ones(500, np.int64))
    assert len(many.snapshot()) < 64 * 12
    with pytest.raises(SnapshotError):
        detector.restore(b"something else")
    with pytest.raises(SnapshotError):
        JourneyDetector().restore(b"something else")


def told(rows: list[Row]) -> list[tuple[set[str], set[str]]]:
    """Give the signals that reasons tell of each event, and of its session before it."""
    batch = batch_of(rows)
    seen = JourneyDetector().step(batch, np.ones(len(batch), np.int64))
    pairs = zip(seen.now.tolist(), seen.before.tolist(), strict=True)
    return [(named(now), named(before)) for now, before in pairs]


def named(bits: int) -> set[str]:
    return {each.id for k, each in enumerate(EXPLAINED) if (bits >> k) & 1}


def test_behaviours_are_told_beside_symptoms_and_remembered() -> None:
    search: Row = {"event": "search", "query": "x", "results": 0}
    found = told([search, ADD, REMOVE, ADD, search, LIST])
    assert found[0] == ({"S1"}, set())
    assert found[3] == ({"D9:oscillation"}, {"S1"})
    assert found[4] == ({"S1"}, {"S1", "D9:oscillation"})
    assert found[5] == (set(), {"S1", "D9:oscillation"})


@pytest.mark.parametrize(
    ("rows", "signals"),
    [
        pytest.param(DEAD_RAGE, {"D7"}, id="the tag calls it dead"),
        pytest.param([click(0.0, option="error")], {"D7"}, id="the tag calls it an error"),
        pytest.param([click(0.0, latency_ms=2_600.0)], {"D7:dead_click"}, id="by its reaction"),
        pytest.param(
            [click(k / 4, latency_ms=4_000.0) for k in range(3)], {"D7:rage_click"}, id="rage"
        ),
        pytest.param(
            [LIST | {"element": "x", "at": 0.0}, {"event": "ui_error", "at": 0.05}],
            {"D7:error_click"}, id="a script error",
        ),
        pytest.param(
            [ADD | {"at": 0.0}, {"event": "ui_error", "option": "add_to_cart", "at": 0.05}],
            {"D6"}, id="a failed add",
        ),
    ],
)  # fmt: skip
def test_one_click_is_told_as_one_signal(rows: list[Row], signals: set[str]) -> None:
    assert told(rows)[-1][0] == signals


@pytest.mark.parametrize(
    "rows", [STEPPER, CALENDAR, PAGINATION, TRIPLE_CLICK, READER, CHANGED_MIND, TWO_OF_IT]
)
def test_reasons_tell_nothing_of_what_only_looks_like_a_behaviour(rows: list[Row]) -> None:
    assert told(rows) == [(set(), set())] * len(rows)


def test_what_reasons_tell_has_names_of_its_own() -> None:
    assert len(EXPLAINED_INDEX) == len(EXPLAINED) == len({each.name for each in EXPLAINED}) < 53
    assert [each.id.partition(":")[2] for each in EXPLAINED[20:26]] == list(BEHAVIOURS)


@settings(max_examples=15)
@given(kinds=st.lists(KINDS, min_size=1, max_size=30), size=st.integers(1, 7))
def test_journeys_are_read_alike_in_batches_of_any_size(kinds: list[Row], size: int) -> None:
    batch = batch_of([row | {"at": n / 2} for n, row in enumerate(kinds)])
    keys, whole, parts = np.ones(len(batch), np.int64), JourneyDetector(), []
    every, detector = whole.step(batch, keys), JourneyDetector()
    saved: dict[str, bytes] = {}
    for start in range(0, len(batch), size):
        picked = np.arange(start, min(start + size, len(batch)))
        parts.append(detector.step(take(batch, picked), keys[picked]))
        changes = detector.changes()
        saved = {k: v for k, v in saved.items() if k not in changes.dropped} | changes.saved
        detector = JourneyDetector()
        detector.restore_parts(saved)
    for name in ("now", "before", "behaved"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(every, name))
    again = JourneyDetector()
    again.restore(whole.snapshot())
    assert again.snapshot() == whole.snapshot()
