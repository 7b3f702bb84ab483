"""Features against peers: ``python -m benchmarks.bench_features [EVENTS]``.

One core, CPU time, one row per event, in one run. Outputs are asserted equal before timing, where
the peer can express them: River has no distinct count by time, and its float sums drift. Batches
and logs are folded by kernels specialised to the set, as ``FeatureStore(..., specialised=True)``
has them; ``features_common_kernel`` tells the rates of the kernel that all sets share.
"""

import os
import sys

os.environ["POLARS_MAX_THREADS"] = "1"

import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.feature_peers import DictDeque, RiverRolling, frame, polars_12, polars_40, tuples
from benchmarks.feature_workload import Columns, cut, delay, workload
from benchmarks.harness import RUNS, both_seconds, compare_rates, cpu_seconds, report
from recoup.features import FeatureSet, FeatureStore
from recoup.features.arena import give_back
from recoup.features.standard import benchmark_12, benchmark_40, standard_features

BATCH = 4096
EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
RIVER_SHARE = 50
PYTHON_SHARE = 5
HOST_S = 5


def main() -> None:
    """Run all of them."""
    columns = workload(EVENTS)
    check_outputs(workload(60_000))
    compare_12(columns)
    compare_40(columns)
    single(columns)
    late(columns)
    standard(columns)
    common_kernel(columns)
    fresh_memory(columns)
    warm_start()
    snapshots(EVENTS)


def streaming(
    features: FeatureSet, columns: Columns, *, specialised: bool = True
) -> Callable[[], object]:
    """Give the work of folding the columns in calls of :data:`BATCH`, with a new store."""
    batches = cut(columns, BATCH)

    def work() -> None:
        store = FeatureStore(features, specialised=specialised)
        for batch in batches:
            store.step(batch)

    return work


def backfilling(
    features: FeatureSet, columns: Columns, *, specialised: bool = True
) -> Callable[[], object]:
    """Give the work of computing the served rows of a whole log."""
    store = FeatureStore(features, specialised=specialised)
    return lambda: store.rows_of_log(columns)


def check_outputs(columns: Columns) -> None:
    """Assert that peers and both of our ways give equal rows; warm the kernels up."""
    for features, peer in ((benchmark_12(), polars_12), (benchmark_40(), polars_40)):
        store = FeatureStore(features, specialised=True)
        rows = np.concatenate([store.step(batch).values for batch in cut(columns, BATCH)])
        np.testing.assert_array_equal(store.rows_of_log(columns).values, rows)
        np.testing.assert_array_equal(FeatureStore(features).rows_of_log(columns).values, rows)
        theirs = peer(frame(columns)).cast(pl.Float64).fill_null(np.nan).to_numpy()
        np.testing.assert_allclose(rows, theirs, rtol=1e-12)
        if features.name == "benchmark_12":
            by_hand = np.array(DictDeque().fold(tuples(columns)), float)
            np.testing.assert_array_equal(rows, by_hand)
            some = {name: column[:3000] for name, column in columns.items()}
            river = np.array(RiverRolling().fold(tuples(some)), float)
            shared = [c for c in range(12) if c != 10]
            check_river(rows[:3000][:, shared], river)


def check_river(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    """River has 0 where no value was seen, and sums of floats."""
    np.testing.assert_allclose(np.nan_to_num(ours), np.nan_to_num(theirs), rtol=1e-6, atol=1e-6)


def compare_12(columns: Columns) -> None:
    """Compare the small set with all peers."""
    features, data = benchmark_12(), frame(columns)
    events = tuples({name: column[: EVENTS // PYTHON_SHARE] for name, column in columns.items()})
    few = events[: EVENTS // RIVER_SHARE]
    peers: list[tuple[str, Callable[[], object], int]] = [
        ("dict+deque", lambda: DictDeque().fold(events), len(events)),
        ("polars rolling", lambda: polars_12(data), EVENTS),
        ("river rolling", lambda: RiverRolling().fold(few), len(few)),
    ]
    ways = {
        "features_12_streaming": streaming(features, columns),
        "features_12_backfill": backfilling(features, columns),
    }
    for name, ours in ways.items():
        for peer_name, peer, count in peers[: 3 if name.endswith("streaming") else 2]:
            compare_rates(
                name, ours, peer, count=EVENTS, peer_count=count, peer_name=peer_name, runs=5
            )


def compare_40(columns: Columns) -> None:
    """Compare the large set with Polars."""
    features = benchmark_40()
    count = EVENTS // 2
    data = frame({name: column[:count] for name, column in columns.items()})
    for name, ours in (
        ("features_40_streaming", streaming(features, columns)),
        ("features_40_backfill", backfilling(features, columns)),
    ):
        compare_rates(
            name,
            ours,
            lambda: polars_40(data),
            count=EVENTS,
            peer_count=count,
            peer_name="polars rolling",
            runs=5,
        )


def single(columns: Columns) -> None:
    """Time one event a call, its row included, against the same in pure Python."""
    some = {name: column[:100_000] for name, column in columns.items()}
    half = 50_000
    peer = DictDeque()
    events = tuples(some)
    for event in events[:half]:
        peer.fold_one(*event)
    theirs = _per_call(peer.fold_one, events[half:])
    for features in (benchmark_12(), benchmark_40(), standard_sized()):
        store = FeatureStore(features)
        values = list(zip(*(some[name].tolist() for name in store.columns), strict=True))
        for value in values[:half]:
            store.observe(*value)
        observe = store.observe
        ours = _per_call(observe, values[half:])
        report(
            "features_single",
            ours=statistics.median(ours),
            peer=statistics.median(theirs),
            peer_name="dict+deque (12)",
            ratio=statistics.median(theirs) / statistics.median(ours),
            unit="us/call, timer included",
            runs=1,
            features=len(features.names),
            p99=float(np.percentile(ours, 99)),
        )


def standard_sized() -> FeatureSet:
    """Give the part of the standard set that the workload's columns carry."""
    carried = workload(10)
    kept = tuple(
        feature
        for feature in standard_features().features
        if set(FeatureStore(FeatureSet("x", 1, (feature,))).columns) <= set(carried)
    )
    return FeatureSet("standard_carried", 1, kept)


def _per_call(work: Callable[..., object], events: list[tuple[Any, ...]]) -> list[float]:
    times = []
    for event in events:
        start = time.perf_counter_ns()
        work(*event)
        times.append((time.perf_counter_ns() - start) / 1000)
    return times


def late(columns: Columns) -> None:
    """Time late events against none."""
    features = benchmark_12()
    ours = streaming(features, columns)
    for share in (0.01, 0.1):
        delayed = streaming(features, delay(columns, share))
        times = [(cpu_seconds(delayed), cpu_seconds(ours)) for _ in range(RUNS)]
        slower = statistics.median(a / b for a, b in times)
        report(
            "features_late",
            ours=EVENTS / statistics.median(a for a, _ in times),
            peer=EVENTS / statistics.median(b for _, b in times),
            peer_name="ours without late events",
            ratio=1 / slower,
            unit="events/cpu_s",
            late_share=share,
            costs_more=slower - 1,
        )


def standard(columns: Columns) -> None:
    """Report the part of the standard set that the columns carry, which has no peer."""
    features = standard_sized()
    report_rate("features_standard_streaming", features, streaming(features, columns))


def common_kernel(columns: Columns) -> None:
    """Report what the kernel that all sets share reaches, in the same ways."""
    for features in (benchmark_12(), benchmark_40(), standard_sized()):
        for way, prepare in (("streaming", streaming), ("backfill", backfilling)):
            work = prepare(features, columns, specialised=False)
            report_rate("features_common_kernel", features, work, way=way)


def fresh_memory(columns: Columns) -> None:
    """Report what streaming reaches where the process keeps no memory, and all is new to it."""
    for features in (benchmark_12(), benchmark_40()):
        work = streaming(features, columns)
        report_rate("features_fresh_memory", features, work, before=give_all_back)


def give_all_back() -> None:
    """Give kept memory back to the system, and leave it the time to give it to its host."""
    give_back()
    time.sleep(HOST_S)


def report_rate(
    name: str,
    features: FeatureSet,
    work: Callable[[], object],
    before: Callable[[], None] = lambda: None,
    **more: object,
) -> None:
    """Report the rate of what has no peer, after a first turn that is not counted."""
    work()
    times = []
    for _ in range(3):
        before()
        times.append(both_seconds(work))
    report(
        name,
        ours=EVENTS / statistics.median(both for both, _ in times),
        peer=None,
        peer_name="none",
        ratio=None,
        unit="events/cpu_s",
        runs=3,
        features=len(features.names),
        ours_user_time=EVENTS / statistics.median(user for _, user in times),
        **more,
    )


def warm_start() -> None:
    """Time a process that starts with compiled kernels, folds and ends."""
    for specialised in (False, True):
        code = (
            "import numpy as np; from recoup.features import FeatureStore, standard_features as s;"
            f"f = FeatureStore(s(), specialised={specialised});"
            "f.step({c: np.ones(9, np.int64) for c in f.columns});"
            "f.observe(*([2] * len(f.columns)))"
        )
        times, used = [], []
        for _ in range(4):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(time.perf_counter() - start)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        report(
            "features_warm_start",
            ours=statistics.median(times[1:]),
            peer=None,
            peer_name="none",
            ratio=None,
            unit="s, whole process",
            runs=3,
            specialised=specialised,
            cpu_s=statistics.median(used[1:]),
        )


def snapshots(visitors: int) -> None:
    """Report the whole and the incremental snapshot, and restoring, of many visitors."""
    features = benchmark_12()
    store = FeatureStore(features)
    columns = workload(4 * visitors)
    rng = np.random.default_rng(3)
    columns["visitor"] = rng.permutation(4 * visitors) % visitors + 1
    for batch in cut(columns, BATCH):
        store.step(batch)
    parts: dict[str, bytes] = {}
    start = time.process_time()
    parts |= store.changes().saved
    first = time.process_time() - start
    more = {name: column[:BATCH] for name, column in workload(4 * visitors, seed=8).items()}
    more["ts"] = more["ts"] - more["ts"][0] + columns["ts"][-1]
    store.step(more)
    start = time.process_time()
    changes = store.changes().saved
    again = time.process_time() - start
    parts |= changes
    other = FeatureStore(features)
    start = time.process_time()
    other.restore_parts(parts)
    restoring = time.process_time() - start
    assert other.keys == store.keys
    report(
        "features_snapshot",
        ours=again,
        peer=first,
        peer_name="ours, whole",
        ratio=first / again,
        unit="cpu_s",
        runs=1,
        visitors=visitors,
        incremental_mb=sum(map(len, changes.values())) / 1e6,
        whole_mb=sum(map(len, parts.values())) / 1e6,
        restore_s=restoring,
        state_mb=store.used_bytes / 1e6,
    )


if __name__ == "__main__":
    main()
