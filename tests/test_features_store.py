"""The store's bounds, errors, sessions and training tables."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recoup.errors import ConfigError, FeatureError, SchemaError, SnapshotError
from recoup.events import EVENT_SCHEMA, EventBatch, conform, empty_frames, encode, hash64
from recoup.features import (
    FeatureSet,
    FeatureStore,
    age,
    backfill,
    count,
    distinct,
    last,
    max_,
    mean,
    standard_features,
    sum_,
)

S = 1_000_000
HOUR = 3600 * S
SMALL = FeatureSet("small", 1, (count("n_5m", window="5m"), count("n"), count("s", by="session")))


def _columns(
    store: FeatureStore, ts: list[int], **more: list[int]
) -> dict[str, NDArray[np.generic]]:
    n = len(ts)
    columns: dict[str, NDArray[np.generic]] = {c: np.zeros(n, np.int64) for c in store.columns}
    columns |= {"ts": np.array(ts, np.int64), "key": np.arange(n), "visitor": np.ones(n, np.int64)}
    return columns | {name: np.array(values) for name, values in more.items()}


def _batch(minutes: list[float], visitors: list[str], price: list[float | None]) -> EventBatch:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    events = conform(
        pl.DataFrame(
            {
                "ts": [start + dt.timedelta(minutes=m) for m in minutes],
                "source": "shop",
                "id": [str(i) for i in range(len(minutes))],
                "seq": 0,
                "event": "view_item",
                "visitor": visitors,
                "price": [None if p is None else round(p * S) for p in price],
            }
        ),
        EVENT_SCHEMA,
    )
    return EventBatch(events, empty_frames()[1])


def test_null_prices_are_no_zeros() -> None:
    features = FeatureSet("p", 1, (mean("mean", "price", window="1h"), max_("max", "price")))
    store = FeatureStore(features)
    batch = _batch([0, 1, 2], ["v", "v", "v"], [4.0, None, 0.0])
    rows = store.step(encode(batch, store.columns)).values
    np.testing.assert_array_equal(rows, [[4.0, 4.0], [4.0, 4.0], [2.0, 4.0]])


def test_the_window_is_open_at_its_far_end() -> None:
    store = FeatureStore(SMALL)
    values = store.step(_columns(store, [0, 300 * S - 1, 300 * S, 300 * S])).values[:, 0]
    assert values.tolist() == [1.0, 2.0, 2.0, 3.0]


def test_a_late_event_merges_two_sessions_from_then_on() -> None:
    store = FeatureStore(SMALL)
    rows = store.step(_columns(store, [0, 2400 * S, 1200 * S, 2400 * S + 1]))
    assert rows.values[:, 2].tolist() == [1.0, 1.0, 2.0, 4.0]
    assert rows.status.tolist() == [0, 0, 1, 0]
    assert rows.session[1] != rows.session[0] == rows.session[2] == rows.session[3]
    assert rows.session_start.tolist() == [0, 2400 * S, 0, 0]


def test_the_sources_own_sessions_win_over_silence() -> None:
    store = FeatureStore(SMALL)
    own = [7, 7, 8, 0, 8]
    rows = store.step(_columns(store, [0, HOUR, HOUR + 1, HOUR + 2, HOUR + 3], session=own))
    assert rows.values[:, 2].tolist() == [1.0, 2.0, 1.0, 2.0, 3.0]
    assert len(set(rows.session.tolist())) == 2


def test_repeated_and_too_late_events_leave_no_trace() -> None:
    store = FeatureStore(SMALL, lateness_s=60)
    rows = store.step(_columns(store, [0, 0, 100 * S, 30 * S], key=[1, 1, 2, 3]))
    assert rows.status.tolist() == [0, 2, 0, 3]
    np.testing.assert_array_equal(rows.values[:, 1], [1.0, 1.0, 2.0, np.nan])
    assert rows.session[3] == 0


def test_a_key_holds_the_first_events_of_each_hour_in_any_order_of_arrival() -> None:
    states = []
    for ts in ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 2, 4]):
        store = FeatureStore(SMALL, events_per_hour=3)
        store.step(_columns(store, [t * S for t in ts], key=ts))
        states.append(store.snapshot())
        after = store.step(_columns(store, [HOUR], key=[9]))
        assert after.values[0, 1] == 4.0
    assert states[0] == states[1] == states[2]


def test_a_forgotten_key_begins_anew_whether_swept_or_not() -> None:
    features = FeatureSet("f", 1, (count("n"), age("age"), distinct("d", "item", window="1h")))
    late = 20 * HOUR
    for sweep in (False, True):
        store = FeatureStore(features, forget_after_s=10 * 3600)
        store.step(_columns(store, [0, 1, late - 1], visitor=[1, 1, 2], item=[4, 5, 4]))
        assert store.keys == {("visitor",): 2}
        if sweep:
            store.sweep()
            assert store.keys == {("visitor",): 1}
        row = store.step(_columns(store, [late], item=[4])).values[0]
        assert row.tolist() == [1.0, 0.0, 1.0]


def test_memory_stays_bounded_while_visitors_come_and_go() -> None:
    store = FeatureStore(SMALL, lateness_s=60, forget_after_s=7200)
    sizes = []
    for hour in range(40):
        ts = [hour * HOUR + i * S for i in range(200)]
        store.step(_columns(store, ts, visitor=[1 + hour * 200 + i for i in range(200)]))
        sizes.append(store.used_bytes)
    assert sum(store.keys.values()) <= 200 * 8
    assert sizes[-1] <= 2 * sizes[12]


def test_memory_stays_bounded_for_single_events_too() -> None:
    store = FeatureStore(SMALL, lateness_s=60, forget_after_s=7200)
    for visitor in range(1, 20_000):
        event = {"ts": visitor * 60 * S, "key": visitor, "visitor": visitor}
        store.observe(*(event.get(name, 0) for name in store.columns))
    assert sum(store.keys.values()) <= 500
    assert store.used_bytes < 1_000_000


def test_columns_must_be_there_and_of_one_length() -> None:
    store = FeatureStore(SMALL)
    columns = _columns(store, [1, 2])
    with pytest.raises(SchemaError, match="seq missing"):
        store.step({name: column for name, column in columns.items() if name != "seq"})
    with pytest.raises(SchemaError, match="as long as"):
        store.step(columns | {"seq": np.zeros(3, np.int64)})


def test_a_snapshot_of_another_set_setting_or_kind_is_refused() -> None:
    state = FeatureStore(SMALL).snapshot()
    other = FeatureSet("small", 2, SMALL.features)
    for store in (FeatureStore(other), FeatureStore(SMALL, lateness_s=1)):
        with pytest.raises(SnapshotError):
            store.restore(state)
    with pytest.raises(SnapshotError):
        FeatureStore(SMALL).restore(b"no snapshot")


def test_bounds_are_checked() -> None:
    with pytest.raises(ConfigError):
        FeatureStore(SMALL, events_per_hour=0)
    with pytest.raises(ConfigError):
        FeatureStore(SMALL, session_gap_s=-1)
    with pytest.raises(ConfigError):
        FeatureStore(SMALL, forget_after_s=1000)
    long = FeatureSet("long", 1, (count("n", window="30d"),))
    with pytest.raises(FeatureError, match="forgotten"):
        FeatureStore(long, forget_after_s=86_400)


def test_served_rows_know_only_what_had_arrived_and_settled_rows_know_all() -> None:
    store = FeatureStore(SMALL)
    batch = _batch([0, 2, 1], ["v", "v", "v"], [None, None, None])
    served = backfill(store, [batch], how="served")
    settled = backfill(store, [batch], how="settled")
    assert served["n"].to_list() == [1.0, 2.0, 2.0]
    assert settled["n"].to_list() == [1.0, 3.0, 2.0]
    assert served["status"].to_list() == [0, 0, 1]
    assert store.watermark is None
    with pytest.raises(ConfigError):
        backfill(store, [batch], how="guessed")  # type: ignore[arg-type]


def test_a_long_log_equals_the_stream_of_its_batches() -> None:
    rng = np.random.default_rng(5)
    store = FeatureStore(standard_features())
    n = 3000
    ts = np.sort(rng.integers(0, 6 * HOUR, n)) - rng.integers(0, 600 * S, n)
    columns: dict[str, NDArray[np.generic]] = {c: np.zeros(n, np.int64) for c in store.columns}
    columns |= {"ts": ts, "key": np.arange(n), "event": rng.integers(0, 30, n)}
    for name in ("visitor", "item", "page", "query"):
        columns[name] = rng.integers(1, 40, n)
    for number, name in enumerate(store.columns):
        if store.columns[number].endswith("?"):
            columns[name] = rng.integers(1, 10**9, n)
    for name in ("latency_ms", "dwell_ms", "promise_days"):
        columns[name] = rng.random(n) * 100
    log = store.rows_of_log(columns)
    for start in range(0, n, 700):
        part = store.step({name: column[start : start + 700] for name, column in columns.items()})
        np.testing.assert_array_equal(part.values, log.values[start : start + 700])
    restored = FeatureStore(standard_features())
    restored.restore(store.snapshot())
    assert restored.snapshot() == store.snapshot()
    assert len(store.names) >= 40
    assert np.isfinite(log.values).any(axis=0).sum() >= 60


def test_the_last_event_of_equal_time_is_told_by_seq_then_key() -> None:
    features = FeatureSet("l", 1, (last("step", "step"), sum_("steps", "step")))
    store = FeatureStore(features)
    for order in ([0, 1, 2], [2, 0, 1]):
        store = FeatureStore(features)
        seq, key, step = np.array([0, 0, 1]), np.array([5, 6, 4]), np.array([10, 20, 30])
        columns = _columns(store, [7, 7, 7])
        columns |= {"seq": seq[order], "key": key[order], "step?": step[order]}
        store.step(columns)
        final = _columns(store, [8], key=[9], **{"step?": [-(1 << 63)]})
        assert store.step(final).values[0].tolist() == [30.0, 60.0]


def test_the_session_of_a_source_is_hashed_with_its_visitor() -> None:
    store = FeatureStore(SMALL)
    rows = store.step(_columns(store, [1, 2], visitor=[1, 2], session=[hash64("s")] * 2))
    assert rows.session[0] != rows.session[1]
