"""Runs a small workload in forked processes and kills them: `python crash_worker.py TRIALS`.

A script of its own, so that the forks start from a process that has imported everything and run
nothing: a fork of a process with busy threads may hang.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup import intake
from recoup.decisions import DECISION_SCHEMA
from recoup.engine import NO_TICKS
from recoup.events import (
    DEAD_LETTER_SCHEMA,
    EventBatch,
    concat_batches,
    conform,
    encode,
    event_keys,
    take,
)
from recoup.outcomes import Abandonment, Cost, Followed, OutcomeJoin
from recoup.runners import LocalRunner
from recoup.stores import SqliteJournal
from recoup.testing import CountingHost, ListArrival, random_batch

LATENESS_S = 120.0
ATTEMPTS = 400
SNAPSHOT_BATCHES = 3
TICK_S = 15.0


class ShopHost:
    """A host of several stages: counts, decisions that are executed, outcomes, carts, ticks."""

    ticking = True

    def __init__(self) -> None:
        self.counts = CountingHost()
        self.join = OutcomeJoin({"coupon": Cost(10, 0.1)}, horizon_s=200.0, lateness_s=LATENESS_S)
        self.abandonment = Abandonment(horizon_s=150.0, lateness_s=LATENESS_S)
        self.ticks = 0

    def step(
        self, batch: EventBatch, /, ticks: NDArray[np.int64] = NO_TICKS
    ) -> dict[str, pl.DataFrame]:
        counts = self.counts.step(batch)
        decisions = _decisions(batch)
        outcomes = self.join.step(Followed(batch, decisions))
        left = self.abandonment.step(encode(batch, self.abandonment.columns))
        self.ticks += len(ticks)
        told = pl.DataFrame({"ticks": [self.ticks]})
        return {
            **counts,
            "decisions": decisions,
            "outcomes": outcomes,
            "abandonments": left,
            "told": told,
        }

    def snapshot(self) -> dict[str, bytes]:
        return {
            **self.counts.snapshot(),
            "outcomes": self.join.snapshot(),
            "abandonment": self.abandonment.snapshot(),
            "ticks": str(self.ticks).encode(),
        }

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        rest = dict(parts)
        self.ticks = int(rest.pop("ticks"))
        self.join.restore(rest.pop("outcomes"))
        self.abandonment.restore(rest.pop("abandonment"))
        self.counts.restore(rest)


def _decisions(batch: EventBatch) -> pl.DataFrame:
    """Decide on every page view: the coupon for half of them, by id."""
    keys = event_keys(batch.events)
    rows = np.flatnonzero((batch.events["event"] == "page_view").to_numpy())
    return conform(
        pl.DataFrame(
            {
                "id": keys[rows],
                "ts": batch.events["ts"].gather(rows),
                "visitor": batch.events["visitor"].gather(rows),
                "action": np.where(keys[rows] % 2 == 0, "act:coupon", "never"),
                "executed": keys[rows] % 3 > 0,
            }
        ),
        DECISION_SCHEMA,
    )


class Shop:
    """A source with repeats, late events, and some that come too late; made as it is read."""

    name = "shop"

    def __init__(self, count: int) -> None:
        self.count = count

    def batches(self, position: str | None, /) -> Iterator[ListArrival]:
        again = np.arange(0, 40, 7)
        for number in range(int(position or 0), self.count):
            old = take(_fresh(max(0, number - number % 5)), again)
            batch = concat_batches([_fresh(number), old])
            yield ListArrival(batch, _bad_rows(number), (), str(number + 1))


def _fresh(number: int) -> EventBatch:
    return random_batch(40, seed=number, start_s=80 * number)


def _bad_rows(number: int) -> pl.DataFrame:
    rows = [(f"log:{number}", "not_json", "", "{")] if number % 4 == 1 else []
    return pl.DataFrame(rows, DEAD_LETTER_SCHEMA, orient="row")


def warm_up() -> None:
    """Load the compiled kernels once, before the forks; touches no thread."""
    one = np.ones(1, np.int64)
    table, judged = np.zeros((8, 2), np.int64), np.zeros((1, 2), np.int64)
    intake.insert(table, one, one)
    intake.judge(table, one, one, one, 1, np.zeros(4, np.int64), np.ones(3, np.int64), judged)


def run(path: Path, batches: int) -> None:
    """Fold the workload into the journal, from wherever it stands."""
    journal = SqliteJournal(path)
    runner = LocalRunner(
        ShopHost(),
        journal,
        Shop(batches),
        intake=intake.Intake(lateness_s=LATENESS_S),
        snapshot_batches=SNAPSHOT_BATCHES,
        tick_s=TICK_S,
    )
    runner.run()
    journal.close()


def _die_at(count: int) -> Callable[..., int]:
    """Make a hook that kills its own process when it is called for the count-th time."""
    left = [count]

    def hook(*_: object) -> int:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    return hook


def _hooked(kind: str, count: int) -> None:
    """Have every connection opened from here on call a hook that kills."""
    connect, hook = sqlite3.connect, _die_at(count)

    def connect_with_hook(*args: object, **settings: object) -> sqlite3.Connection:
        connection = connect(*args, **settings)  # type: ignore[call-overload]
        if kind == "statement":
            connection.set_trace_callback(hook)
        else:
            connection.set_progress_handler(hook, 1)
        return connection  # type: ignore[no-any-return]

    sqlite3.connect = connect_with_hook  # type: ignore[assignment]


def attempt(path: Path, batches: int, kind: str | None, when: float) -> bool:
    """Run in a forked process; say whether it was killed."""
    child = os.fork()
    if not child:
        try:
            if kind in {"statement", "instruction"}:
                _hooked(str(kind), int(when))
            run(path, batches)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kind == "time":
        time.sleep(when)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a run over {path} failed")
    return False


def trial(path: str, batches: int, kind: str | None, kills: list[float], seed: int) -> int:
    """Kill runs over one journal until one ends; give the number of kills.

    Parameters
    ----------
    kind
        What ``kills`` counts: a ``statement`` or an ``instruction`` of SQLite, or, of ``time``,
        the share of what a run from start to end takes.
    kills
        Without a seed, when to kill each run before the last; with one, the bounds between which
        every run is killed at random.
    """
    unit = _seconds_of_a_run(Path(f"{path}.scratch"), batches) if kind == "time" else 1.0
    source = random.Random(seed)  # noqa: S311
    for number in range(ATTEMPTS):
        over = not seed and number == len(kills)
        when = 0.0 if over else source.uniform(*kills) if seed else kills[number]
        if not attempt(Path(path), batches, None if over else kind, when * unit):
            return number
    raise SystemExit(f"no run over {path} ended in {ATTEMPTS} attempts (seed {seed})")


def _seconds_of_a_run(path: Path, batches: int) -> float:
    start = time.perf_counter()
    attempt(path, batches, None, 0.0)
    return time.perf_counter() - start


if __name__ == "__main__":
    warm_up()
    print(json.dumps([trial(**each) for each in json.loads(sys.argv[1])]))  # noqa: T201
