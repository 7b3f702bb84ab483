"""One event to one logged decision: features, intent, decision with propensity, group commit.

Ours: feature store, intent as it is trained and served (450 trees of 8 leaves, regression, network,
context), expected net value, decision log on SQLite while its writer runs, garbage collection as a
server has it (what was loaded is frozen). Peer: dict-and-deque features, LightGBM's own single-row
prediction of as many trees alone, LinUCB in plain numpy, appended to a list. Both decide at every
event, in turns; signals are not looked for. How long a record takes to be durable is measured in a
round of its own: whoever watches wants the interpreter's lock too.
"""

import collections
import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import report
from recoup.events import CODE, concat_batches, encode
from recoup.features import FeatureStore, standard_features
from recoup.friction.intent import IntentModel
from recoup.friction.intent_rows import Period, collect_rows
from recoup.friction.training import IntentSettings, fit_intent
from recoup.policies import ExpectedNetValue, Settings, SingleDecider
from recoup.policies.version import REASONS
from recoup.simulator import SCENARIOS, simulate
from recoup.stores import DecisionLog, SqliteJournal
from recoup.testing import random_batch

EVENTS = 20_000
ROUNDS = 5
WARM = 2_000
K5 = REASONS.index("K5")

INTENT = IntentSettings(rounds=(150,), origins=(0.5,))

Input = tuple[tuple[float, ...], NDArray[np.int64], tuple[int, ...], str]
"""An event's values for the feature store, its context, its numbers for the policy, the visitor."""

Measured = TypeVar("Measured")


def trained() -> tuple[IntentModel, lgb.Booster]:
    """Train intent on a simulated log, and the peer's trees, as many, on the same rows."""
    batch = concat_batches(list(simulate(6_000, 1.0, 7, SCENARIOS["decoys"]).batches))
    store = FeatureStore(standard_features())
    rows = collect_rows([batch], store, Period())
    model = fit_intent(rows, store.feature_set.hash, INTENT)[0]
    settings = {"objective": "binary", "num_leaves": INTENT.leaves, "verbose": -1}
    data = lgb.Dataset(rows.values, rows.positive)
    return model, lgb.train(settings | {"num_threads": 1}, data, model.learned.trees.n_trees)


class Ours:
    """The product's own path."""

    def __init__(self, log: DecisionLog, model: IntentModel, store: FeatureStore) -> None:
        self.store, self.log, self.model = store, log, model
        self.decider = SingleDecider(ExpectedNetValue(Settings(holdout_share=0.0)))

    def one(
        self,
        values: tuple[float, ...],
        context: NDArray[np.int64],
        event: tuple[int, ...],
        visitor: str,
    ) -> int:
        """Take one event through; give the record's ticket (0: no decision point)."""
        self.store.observe(*values)
        intent = self.model.score_one(self.store.row, context)
        decision = self.decider.decide(visitor, event, reason=K5, intent=intent, loss=0.3)
        return 0 if decision is None else self.log.append(decision)


class Peer:
    """The same steps as they are often written: dicts, deques, LightGBM and numpy."""

    def __init__(self, booster: lgb.Booster, width: int) -> None:
        self.booster, self.width = booster, width
        self.seen: dict[int, collections.deque[tuple[int, int]]] = {}
        self.inverse = np.stack([np.eye(width)] * 6)
        self.weights = np.zeros((6, width))
        self.records: list[tuple[int, float, list[float]]] = []

    def one(self, event: tuple[int, ...]) -> None:
        """Take one event through."""
        ts, code, visitor = event[0], event[2], event[3]
        window = self.seen.setdefault(visitor, collections.deque())
        window.append((ts, code))
        while window[0][0] < ts - 86_400_000_000:
            window.popleft()
        counts = collections.Counter(code for _, code in window)
        row = np.array([counts.get(code, 0) for code in range(self.width)], np.float64)
        intent = float(np.asarray(self.booster.predict(row[None, :], num_threads=1)).item())
        spread = np.sqrt(np.einsum("i,aij,j->a", row, self.inverse, row))
        scores = self.weights @ row + 0.5 * spread * intent
        odds = np.exp(scores - scores.max())
        self.records.append((ts, intent, (odds / odds.sum()).tolist()))


def micros(seconds: list[float]) -> dict[str, float]:
    """Give p50, p99 and p99.9 in microseconds."""
    quantiles = np.percentile(np.array(seconds) * 1e6, [50, 99, 99.9])
    return dict(zip(("p50", "p99", "p99.9"), quantiles.round(2).tolist(), strict=True))


def main() -> None:
    """Time both on the same events, and report."""
    batch = random_batch(EVENTS, seed=3)
    store = FeatureStore(standard_features())
    columns = encode(batch, store.columns)
    values = list(zip(*(columns[name].tolist() for name in store.columns), strict=True))
    events = inputs(encode(batch, ("ts", "key")))
    visitors = batch.events["visitor"].to_list()
    model, booster = trained()
    context = model.context_of(batch)
    rows = store.step(columns).values
    given = list(zip(values, context, events, visitors, strict=True))
    gc.collect()
    gc.freeze()
    ours_rounds, peer_rounds = [], []
    for _ in range(ROUNDS):
        ours_rounds.append(micros(in_journal(time_ours, model, given)))
        peer = Peer(booster, len(store.names))
        slow = [timed(peer.one, event) for event in events[: EVENTS // 5]]
        peer_rounds.append(micros(slow[WARM // 5 :]))
    ours_micros, peer_micros = middle(ours_rounds), middle(peer_rounds)
    report(
        "decide_single",
        ours=ours_micros["p50"],
        peer=peer_micros["p50"],
        peer_name="dict features + lightgbm.Booster.predict + numpy LinUCB, not durable",
        ratio=peer_micros["p50"] / ours_micros["p50"],
        unit="us (p50)",
        runs=ROUNDS,
        ours_percentiles_us=ours_micros,
        peer_percentiles_us=peer_micros,
        p99_us_of_rounds=[each["p99"] for each in ours_rounds],
        intent_us=time_intent(model, rows, context),
        intent_without_network_us=time_intent(without_network(model), rows, context),
        durable_ms=in_journal(time_durable, model, given),
        load=os.getloadavg()[0],
    )


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Give the median over rounds of each percentile."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def in_journal(
    measure: Callable[["Ours", list[Input]], Measured],
    model: IntentModel,
    given: list[Input],
) -> Measured:
    """Measure with a store and a log of their own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SqliteJournal(Path(folder) / "journal.db") as journal,
        DecisionLog(journal) as log,
    ):
        return measure(Ours(log, model, FeatureStore(standard_features())), given)


def inputs(columns: dict[str, NDArray[np.generic]]) -> list[tuple[int, ...]]:
    """Make every event a visitor's first declined payment, so that each is decided on."""
    rows = zip(columns["ts"].tolist(), columns["key"].tolist(), strict=True)
    code = CODE["payment_error"]
    return [
        (ts, key, code, n + 1, 50_000_000, 0, 0, n + 1, 4, 0) for n, (ts, key) in enumerate(rows)
    ]


def time_ours(ours: Ours, given: list[Input]) -> list[float]:
    """Give the seconds of each event."""
    took: list[float] = []
    tickets = 0
    for each in given:
        start = time.perf_counter()
        ticket = ours.one(*each)
        took.append(time.perf_counter() - start)
        tickets += ticket > 0
    assert tickets > EVENTS // 2
    return took[WARM:]


def without_network(model: IntentModel) -> IntentModel:
    """Give the model with the trees speaking for the network."""
    learned = model.learned._replace(network=None, network_share=0.0)
    return IntentModel(model.feature_hash, model.names, model.inputs, model.context, learned)


def time_intent(
    model: IntentModel, rows: NDArray[np.float64], context: NDArray[np.int64]
) -> dict[str, float]:
    """Give the microseconds of scoring an event alone."""
    each = zip(np.ascontiguousarray(rows), context, strict=True)
    return micros([timed(model.score_one, *one) for one in each][WARM:])


def time_durable(ours: Ours, given: list[Input]) -> dict[str, float]:
    """Give the milliseconds from an event's decision until its record is durable."""
    appended: list[tuple[int, float]] = []
    durable: list[tuple[int, float]] = []
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ours.log, durable, done))
    watcher.start()
    for each in given:
        ticket = ours.one(*each)
        if ticket:
            appended.append((ticket, time.perf_counter()))
    ours.log.flush()
    done.set()
    watcher.join()
    quantiles = np.percentile(np.array(_waits(appended, durable)) * 1e3, [50, 99, 99.9]).round(2)
    return dict(zip(("p50", "p99", "p99.9"), quantiles.tolist(), strict=True))


def _watch(log: DecisionLog, durable: list[tuple[int, float]], done: threading.Event) -> None:
    """Note when the durable ticket moves, twice a millisecond."""
    while not done.is_set() or not durable or durable[-1][0] < log.durable:
        durable.append((log.durable, time.perf_counter()))
        time.sleep(5e-4)


def _waits(appended: list[tuple[int, float]], durable: list[tuple[int, float]]) -> list[float]:
    tickets = np.array([ticket for ticket, _ in durable])
    times = np.array([at for _, at in durable])
    first = np.searchsorted(tickets, [ticket for ticket, _ in appended])
    return [
        float(times[min(place, len(times) - 1)] - at)
        for place, (_, at) in zip(first, appended, strict=True)
    ]


def timed(work: object, *args: object) -> float:
    """Give the seconds that one call takes."""
    assert callable(work)
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
