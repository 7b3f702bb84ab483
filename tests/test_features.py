"""The kernel against plain recomputation, in every order and batch size."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.events import CODE, hash64
from recoup.features import (
    Feature,
    FeatureSet,
    FeatureStore,
    Field,
    age,
    count,
    decayed,
    distinct,
    last,
    max_,
    mean,
    min_,
    rate,
    ratio,
    sessions,
    sum_,
    time_since,
)

S = 1_000_000
NULL = -(1 << 63)
VIEW, ADD = ("view_item",), ("add_to_cart",)
LATENESS_S, GAP_S, FORGET_S, BOUND = 1200, 300, 20_000, 6
PAIR = ("visitor", "item")

SETTINGS: dict[str, Any] = {
    "lateness_s": LATENESS_S,
    "session_gap_s": GAP_S,
    "forget_after_s": FORGET_S,
    "events_per_hour": BOUND,
    "session_horizon_s": 900,
}

FEATURES = FeatureSet(
    "all_kinds",
    1,
    (
        count("count_5m", window="5m"),
        count("views_20m", events=VIEW, window="20m"),
        count("count_session", by="session"),
        count("adds_ever", events=ADD),
        count("dear_20m", where=(Field("price") > 2.5,), window="20m"),
        count("mobile", where=(Field("device") == "mobile", Field("item").not_null())),
        count("no_price_session", where=(Field("price").is_null(),), by="session"),
        sum_("price_20m", "price", window="20m"),
        sum_("price_session", "price", events=VIEW, by="session"),
        sum_("latency_ever", "latency_ms"),
        mean("latency_5m", "latency_ms", window="5m"),
        mean("latency_session", "latency_ms", by="session"),
        mean("gap_session", "gap_s", by="session"),
        max_("gap_max", "gap_s", by="session"),
        last("break_last", "break_s"),
        min_("price_min_20m", "price", window="20m"),
        max_("price_max_5m", "price", window="5m"),
        max_("latency_max_session", "latency_ms", by="session"),
        min_("price_min_ever", "price"),
        last("price_last_session", "price", events=ADD, by="session"),
        last("latency_last_5m", "latency_ms", window="5m"),
        time_since("since_any"),
        time_since("since_view_session", events=VIEW, by="session"),
        time_since("since_add_20m", events=ADD, window="20m"),
        distinct("items_5m", "item", window="5m"),
        distinct("items_20m", "item", window="20m"),
        distinct("viewed_session", "item", events=VIEW, by="session"),
        rate("rate_20m", window="20m", per="1h"),
        decayed("decayed", half_life="5m"),
        decayed("decayed_price", "price", half_life="10m", events=VIEW),
        age("age_session", window="session"),
        age("age_ever"),
        sessions("sessions"),
        sessions("sessions_20m", window="20m"),
        ratio("adds_per_event", count("", events=ADD), count("")),
        count("pair_20m", events=VIEW, by=PAIR, window="20m"),
        time_since("since_pair", by=PAIR),
        distinct("item_visitors_20m", "device", by="item", window="20m"),
        count("item_30m_tile_10m", events=VIEW, by="item", window="30m", tile="10m"),
        mean("item_price_30m_tile_10m", "price", by="item", window="30m", tile="10m"),
        sum_("item_price_tile_10m", "price", by="item", tile="10m"),
    ),
)
LENGTHS = {"5m": 300 * S, "20m": 1200 * S, "30m": 1800 * S}
SCALE = {"price": S, "latency_ms": S, "gap_s": S, "break_s": S}

Event = dict[str, Any]


class Oracle:
    """Recomputes every row from the list of events, as the documentation says it."""

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.watermark = -math.inf
        self.held: dict[tuple[object, ...], list[Event]] = {}

    def row(self, event: Event) -> list[float]:
        too_late = event["ts"] < self.watermark - LATENESS_S * S
        self.watermark = max(self.watermark, event["ts"])
        if too_late:
            return [math.nan] * len(self.features.names)
        histories = {}
        for by, tile in {(f.by, f.tile) for f in self._declared()}:
            histories[by, tile] = self._admit(event, by, tile)
        return [self._value(feature, event, histories) for feature in self.features.features]

    def _declared(self) -> list[Feature]:
        plain = [f for f in self.features.features if f.operation != "ratio"]
        return plain + [o for f in self.features.features for o in f.operands]

    def _admit(self, event: Event, by: tuple[str, ...], tile: str) -> list[Event] | None:
        """Give the key's events up to this one; None where the event has no such key."""
        key = (by, tile, *(event[name] for name in by))
        if 0 in key:
            return None
        held = self.held.setdefault(key, [])
        if event not in held:
            held.append(event)
            held.sort(key=_order)
        if tile:
            start = event["ts"] // (600 * S) * (600 * S)
            return [e for e in held if e["ts"] // (600 * S) * (600 * S) <= start]
        place = held.index(event)
        history = held[: place + 1]
        hour = [e for e in held if e["ts"] // (3600 * S) == event["ts"] // (3600 * S)]
        if len(hour) > BOUND:
            held.remove(hour[-1])
        return history

    def _value(
        self, feature: Feature, event: Event, histories: dict[Any, list[Event] | None]
    ) -> float:
        if feature.operation == "ratio":
            top, bottom = (self._value(o, event, histories) for o in feature.operands)
            return math.nan if not bottom or math.isnan(bottom) else top / bottom
        history = histories[feature.by, feature.tile]
        if history is None:
            return math.nan
        now = event["ts"] // (600 * S) * (600 * S) if feature.tile else event["ts"]
        return _evaluate(feature, _alive(history, feature.tile), now)


def _order(event: Event) -> tuple[int, int, int]:
    return event["ts"], event["seq"], event["key"]


def _time(event: Event, tile: str) -> int:
    return int(event["ts"] // (600 * S) * (600 * S) if tile else event["ts"])


def _alive(history: list[Event], tile: str) -> list[Event]:
    """Annotate a history: silences and sessions; drop what was forgotten before."""
    start = 0
    for i in range(1, len(history)):
        if _time(history[i], tile) - _time(history[i - 1], tile) > FORGET_S * S:
            start = i
    alive = [dict(e) for e in history[start:]]
    for i, e in enumerate(alive):
        e["gap_s"] = e["break_s"] = NULL
        e["begins"] = True
        if i:
            before = alive[i - 1]
            silence = e["ts"] - before["ts"]
            if e["session"] and before["session"]:
                e["begins"] = e["session"] != before["session"]
            else:
                e["begins"] = silence > GAP_S * S
            e["break_s" if e["begins"] else "gap_s"] = silence
    return alive


def _passes(feature: Feature, event: Event) -> bool:
    if feature.events and event["event"] not in [CODE[name] for name in feature.events]:
        return False
    for condition in feature.where:
        value = event[condition.column]
        absent = value in {NULL, 0} if condition.column in {"item", "device"} else value == NULL
        wanted = {
            "gt": lambda v=value, c=condition: v > c.value * S,
            "eq": lambda v=value, c=condition: v == hash64(str(c.value)),
        }
        if condition.comparison in {"is_null", "not_null"}:
            if absent != (condition.comparison == "is_null"):
                return False
        elif absent or not wanted[condition.comparison]():
            return False
    return True


def _scope(feature: Feature, alive: list[Event], now: int) -> list[Event]:
    if feature.window in LENGTHS:
        return [e for e in alive if _time(e, feature.tile) > now - LENGTHS[feature.window]]
    if feature.window == "session":
        return alive[max(i for i, e in enumerate(alive) if e["begins"]) :]
    return alive


def _evaluate(feature: Feature, alive: list[Event], now: int) -> float:  # noqa: C901, PLR0911
    within = _scope(feature, alive, now)
    counted = [e for e in within if _passes(feature, e)]
    known = [
        int(e[feature.column]) for e in counted if feature.column and e[feature.column] != NULL
    ]
    unit = SCALE.get(feature.column, 1)
    match feature.operation:
        case "count":
            return float(len(counted))
        case "rate":
            return len(counted) / (LENGTHS[feature.window] / (3600 * S))
        case "sum":
            return sum(known) / unit
        case "mean":
            return sum(known) / len(known) / unit if known else math.nan
        case "min":
            return min(known) / unit if known else math.nan
        case "max":
            return max(known) / unit if known else math.nan
        case "last":
            return known[-1] / unit if known else math.nan
        case "time_since":
            before = [e for e in counted if e is not alive[-1]]
            return (now - before[-1]["ts"]) / S if before else math.nan
        case "age":
            return float((now - within[0]["ts"]) / S)
        case "sessions":
            return float(sum(e["begins"] for e in within))
        case "distinct":
            horizon = 900 * S if feature.window == "session" else LENGTHS[feature.window]
            return float(_distinct([(e["ts"], e[feature.column]) for e in counted], horizon))
    return _decay(feature, alive, unit)


def _distinct(seen: list[tuple[int, int]], horizon: int) -> int:
    """Count the values that were not seen within the horizon before."""
    return sum(
        value != 0 and all(v != value or t <= ts - horizon for t, v in seen[:i])
        for i, (ts, value) in enumerate(seen)
    )


def _decay(feature: Feature, alive: list[Event], unit: int) -> float:
    level = 0.0
    half_life = {"5m": 300 * S, "10m": 600 * S}[feature.half_life]
    for i, e in enumerate(alive):
        if i:
            level *= 2.0 ** (-(e["ts"] - alive[i - 1]["ts"]) / half_life)
        if _passes(feature, e) and not (feature.column and e[feature.column] == NULL):
            level += e[feature.column] if feature.column else 1.0
    return level / unit


def columns_of(events: list[Event], store: FeatureStore) -> dict[str, NDArray[np.generic]]:
    out: dict[str, NDArray[np.generic]] = {}
    for name in store.columns:
        values = [e[name.removesuffix("?")] for e in events]
        if name == "latency_ms":
            out[name] = np.array([math.nan if v == NULL else v / S for v in values])
        else:
            out[name] = np.array(values, np.int64)
    return out


EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "ts": st.one_of(
                st.integers(0, 40).map(lambda x: x * 60 * S),
                st.integers(0, 9000).map(lambda x: x * S),
            ),
            "seq": st.integers(0, 1),
            "event": st.sampled_from([CODE["view_item"], CODE["add_to_cart"], CODE["page_view"]]),
            "visitor": st.sampled_from([3, -(1 << 40)]),
            "session": st.sampled_from([0, 0, 5, 6]),
            "item": st.sampled_from([0, 11, 12]),
            "device": st.sampled_from([0, hash64("mobile"), hash64("desktop")]),
            "price": st.sampled_from([NULL, 0, S, 2 * S, 3 * S, 7 * S]),
            "latency_ms": st.sampled_from([NULL, 10 * S, 20_500_000]),
        }
    ),
    max_size=30,
)


def _numbered(events: list[Event]) -> list[Event]:
    return [{**e, "key": 100 + 7 * i % 31} for i, e in enumerate(events)]


def _arrival(events: list[Event], disorder_s: int, seed: int) -> list[Event]:
    rng = np.random.default_rng(seed)
    late = rng.integers(0, disorder_s * S + 1, len(events))
    place = np.argsort([e["ts"] + d for e, d in zip(events, late, strict=True)], kind="stable")
    return [events[i] for i in place]


def _agree(ours: NDArray[np.float64], oracle: list[list[float]]) -> None:
    expected = np.array(oracle, float).reshape(ours.shape)
    inexact = [i for i, name in enumerate(FEATURES.names) if name.startswith("decayed")]
    exact = [i for i in range(ours.shape[1]) if i not in inexact]
    for column in exact:
        np.testing.assert_array_equal(
            ours[:, column], expected[:, column], err_msg=FEATURES.names[column]
        )
    np.testing.assert_allclose(ours[:, inexact], expected[:, inexact], rtol=1e-9)


@given(EVENTS, st.sampled_from([0, 600, 1500]), st.integers(0, 99))
@settings(max_examples=150)
def test_rows_equal_a_plain_recomputation(events: list[Event], disorder: int, seed: int) -> None:
    arrived = _arrival(_numbered(events), disorder, seed)
    store, oracle = FeatureStore(FEATURES, **SETTINGS), Oracle(FEATURES)
    rows = store.step(columns_of(arrived, store))
    _agree(rows.values, [oracle.row(event) for event in arrived])


@given(EVENTS, st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=60)
def test_batches_of_any_size_and_single_events_give_the_same_bits(
    events: list[Event], size: int, seed: int
) -> None:
    arrived = _arrival(_numbered(events), 1500, seed)
    whole, parts, single = (FeatureStore(FEATURES, **SETTINGS) for _ in range(3))
    columns = columns_of(arrived, whole)
    expected = whole.step(columns)
    for start in range(0, len(arrived), size):
        got = parts.step({name: c[start : start + size] for name, c in columns.items()})
        for name in ("values", "session", "session_start", "status"):
            want = getattr(expected, name)[start : start + size]
            np.testing.assert_array_equal(getattr(got, name), want)
    for row in range(len(arrived)):
        status = single.observe(*(columns[name][row].item() for name in single.columns))
        assert status == expected.status[row]
        np.testing.assert_array_equal(single.row, expected.values[row])
    assert whole.snapshot() == parts.snapshot() == single.snapshot()
    log = single.rows_of_log(columns)
    np.testing.assert_array_equal(log.values, expected.values)
    np.testing.assert_array_equal(log.status, expected.status)


@pytest.mark.slow
@given(EVENTS, st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=60)
def test_kernels_specialised_to_the_set_give_the_same_bits(
    events: list[Event], size: int, seed: int
) -> None:
    arrived = _arrival(_numbered(events), 1500, seed)
    plain = FeatureStore(FEATURES, **SETTINGS)
    special = FeatureStore(FEATURES, **SETTINGS, specialised=True)
    columns = columns_of(arrived, plain)
    for start in range(0, len(arrived), size):
        part = {name: c[start : start + size] for name, c in columns.items()}
        expected, got = plain.step(part), special.step(part)
        for name in ("values", "session", "session_start", "status"):
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert special.snapshot() == plain.snapshot()
    whole = special.rows_of_log(columns)
    np.testing.assert_array_equal(whole.values, plain.rows_of_log(columns).values)


@given(EVENTS, st.integers(0, 99), st.integers(0, 99))
@settings(max_examples=60)
def test_the_settled_state_is_the_same_for_every_order_of_arrival(
    events: list[Event], seed: int, other: int
) -> None:
    numbered = _numbered(events)
    states = []
    for arrived in (
        sorted(numbered, key=_order),
        _arrival(numbered, LATENESS_S, seed),
        _arrival(numbered, LATENESS_S, other),
    ):
        store = FeatureStore(FEATURES, **SETTINGS)
        assert np.all(store.step(columns_of(arrived, store)).status != 3)
        states.append(store.snapshot())
    assert states[0] == states[1] == states[2]


@given(EVENTS, st.integers(0, 30), st.integers(0, 99))
@settings(max_examples=60)
def test_snapshot_and_restore_anywhere_change_nothing(
    events: list[Event], cut: int, seed: int
) -> None:
    arrived = _arrival(_numbered(events), 1500, seed)
    whole, begun, resumed = (FeatureStore(FEATURES, **SETTINGS) for _ in range(3))
    columns = columns_of(arrived, whole)
    expected = whole.step(columns)
    begun.step({name: column[:cut] for name, column in columns.items()})
    resumed.restore(begun.snapshot())
    rows = resumed.step({name: column[cut:] for name, column in columns.items()})
    np.testing.assert_array_equal(rows.values, expected.values[cut:])
    np.testing.assert_array_equal(rows.session, expected.session[cut:])
    assert resumed.snapshot() == whole.snapshot()


@given(EVENTS, st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=60)
def test_incremental_snapshots_hold_the_whole_state_at_any_call(
    events: list[Event], size: int, seed: int
) -> None:
    arrived = _arrival(_numbered(events), 1500, seed)
    store = FeatureStore(FEATURES, **SETTINGS)
    columns = columns_of(arrived, store)
    parts: dict[str, bytes] = {}
    for start in range(0, len(arrived), size):
        store.step({name: c[start : start + size] for name, c in columns.items()})
        changes = store.changes()
        parts |= changes.saved
        for name in changes.dropped:
            del parts[name]
        restored = FeatureStore(FEATURES, **SETTINGS)
        restored.restore_parts(parts)
        assert restored.snapshot() == store.snapshot()
        if start % 2:
            store = restored


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_measures_that_are_no_numbers_or_huge_do_no_harm(value: float) -> None:
    features = FeatureSet("x", 1, (sum_("sum", "latency_ms", window="1h"), count("n", window="1h")))
    store = FeatureStore(features)
    n = 5
    columns: dict[str, NDArray[np.generic]] = {c: np.zeros(n, np.int64) for c in store.columns}
    columns |= {"ts": np.arange(n) * S, "key": np.arange(n), "visitor": np.ones(n, np.int64)}
    columns["latency_ms"] = np.array([1.0, value, 2.0, value, 4.0])
    sums = store.step(columns).values[:, 0]
    if math.isfinite(value):
        assert sums[1] == 1.0 + math.copysign(1e9, value)
        assert sums[4] == 7.0 + 2 * math.copysign(1e9, value)
    else:
        assert sums.tolist() == [1.0, 1.0, 3.0, 3.0, 7.0]
