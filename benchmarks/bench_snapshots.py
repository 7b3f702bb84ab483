"""What a snapshot costs in the runner: `python -m benchmarks.bench_snapshots [VISITORS]`.

The replay's host (engine and tallies) folds two events of each visitor through the local runner;
then shopping goes on among all of them. Reported: a snapshot of what changed in 16 batches of 8,192
events, beside one of the whole state, and what a restart reads. Not part of `make bench`.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from benchmarks.harness import report
from recoup.engine import Engine, Settings
from recoup.events import DEAD_LETTER_SCHEMA, MICROS, TIMESTAMP, EventBatch
from recoup.runners import LocalRunner
from recoup.runners.replay import ReplayHost
from recoup.state import Changes
from recoup.stores import SqliteJournal
from recoup.testing import ListArrival, random_batch

ROWS = 8192
EVENTS_PER_VISITOR = 2
EVERY = 16
FASTER = 100
"""How much less time lies between events than in the tests' random batches: 2 s there."""

BATCH_S = 2 * ROWS // FASTER
START = 1_767_225_600 * MICROS


class Shop:
    """A source of random visitors, made as it is read."""

    name = "shop"

    def __init__(self, visitors: int) -> None:
        self.visitors = visitors
        self.count = (EVENTS_PER_VISITOR * visitors // ROWS // EVERY + 2) * EVERY

    def batches(self, position: str | None, /) -> Iterator[ListArrival]:
        """Read on behind a position, or from the start."""
        none = pl.DataFrame(schema=DEAD_LETTER_SCHEMA)
        for number in range(int(position or 0), self.count):
            batch = random_batch(ROWS, seed=number, visitors=self.visitors)
            passed = (pl.col("ts").to_physical() - START) // FASTER + number * BATCH_S * MICROS
            times = (START + passed).cast(TIMESTAMP)
            batch = EventBatch(batch.events.with_columns(ts=times), batch.items)
            yield ListArrival(batch, none, (), str(number + 1))


class Watched(ReplayHost):
    """Notes the seconds and bytes of each snapshot."""

    def __init__(self) -> None:
        super().__init__(Engine(Settings(executes=False)), None)
        self.taken: list[tuple[float, int]] = []

    def changes(self) -> Changes:
        """Give what changed."""
        begun = time.process_time()
        changes = super().changes()
        self.taken.append((time.process_time() - begun, size(changes.saved)))
        return changes


def size(parts: Mapping[str, bytes]) -> int:
    """Count the bytes of parts."""
    return sum(map(len, parts.values()))


def main() -> None:
    """Fold, and report the last snapshot of what changed beside one of the whole."""
    visitors = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        with SqliteJournal(path) as journal:
            host = Watched()
            LocalRunner(host, journal, Shop(visitors), snapshot_batches=EVERY).run()
            seconds, written = host.taken[-1]
            begun = time.process_time()
            whole = host.snapshot()
            whole_s = time.process_time() - begun
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            del host
            begun = time.process_time()
            _, parts = journal.load_state("runner")
            LocalRunner(Watched(), journal, Shop(visitors), snapshot_batches=EVERY)
            restart_s = time.process_time() - begun
    report(
        "snapshot_changes",
        ours=seconds,
        peer=whole_s,
        peer_name="the whole state",
        ratio=whole_s / seconds,
        unit="cpu_s",
        runs=1,
        visitors=visitors,
        written_mb=written / 1e6,
        whole_mb=size(whole) / 1e6,
        kept_mb=size(parts) / 1e6,
        largest_mb={name: round(len(state) / 1e6, 1) for name, state in whole.items()},
        restart_cpu_s=restart_s,
        peak_rss_mb=peak,
    )


if __name__ == "__main__":
    main()
