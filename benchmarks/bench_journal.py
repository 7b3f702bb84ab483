"""The journal against one SQLite row per event, and the decision log's latencies."""

import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import compare_rates, report
from recoup.decisions import Action, Decision, Option
from recoup.events import EVENT_SCHEMA, EventBatch
from recoup.intake import Intake
from recoup.stores import DecisionLog, SqliteJournal
from recoup.testing import random_batch

BATCH = 4096
BATCHES = 24
DECISIONS = 50_000
WAITED = 300


def main() -> None:
    """Time appending, reading, the intake, and group commit."""
    batches = [random_batch(BATCH, seed=seed, start_s=8192 * seed) for seed in range(BATCHES)]
    frames = [batch.events for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        check_equal(Path(folder), frames[:2])
        compare_append(Path(folder), frames)
        compare_read(Path(folder), frames)
        for synchronous in ("NORMAL", "FULL"):
            time_decision_log(Path(folder), synchronous)
    compare_intake(batches)


def compare_append(folder: Path, frames: list[pl.DataFrame]) -> None:
    """Append the same events, in transactions of the same size."""
    count = iter(range(1000))
    compare_rates(
        "journal_append",
        lambda: append_batches(folder / f"ours-{next(count)}.db", frames),
        lambda: append_rows(folder / f"rows-{next(count)}.db", frames[:4]),
        count=BATCH * len(frames),
        peer_count=BATCH * 4,
        peer_name="sqlite3, one row per event",
    )


def compare_read(folder: Path, frames: list[pl.DataFrame]) -> None:
    """Read them back as frames."""
    ours, rows = folder / "ours.db", folder / "rows.db"
    append_batches(ours, frames)
    append_rows(rows, frames[:4])
    sizes = ours.stat().st_size / len(frames), rows.stat().st_size / 4
    compare_rates(
        "journal_read",
        lambda: read_batches(ours),
        lambda: read_rows(rows),
        count=BATCH * len(frames),
        peer_count=BATCH * 4,
        peer_name="sqlite3, one row per event",
    )
    report(
        "journal_size",
        ours=sizes[0] / BATCH,
        peer=sizes[1] / BATCH,
        peer_name="sqlite3, one row per event",
        ratio=sizes[1] / sizes[0],
        unit="bytes/event",
        runs=1,
    )


def compare_intake(batches: list[EventBatch]) -> None:
    """Judge the same events with our table, and with a Python dict of ids."""
    expected = [len(Intake(lateness_s=600.0).step(batch).batch) for batch in batches[:2]]
    assert expected == [judge_in_python([batch]) for batch in batches[:2]]
    compare_rates(
        "intake",
        lambda: judge_all(batches),
        lambda: judge_in_python(batches),
        count=BATCH * len(batches),
        peer_name="dict of (source, id)",
    )


def judge_all(batches: list[EventBatch]) -> int:
    """Admit every batch, none of its columns computed before; count the events."""
    intake = Intake(lateness_s=600.0)
    fresh = [EventBatch(batch.events, batch.items) for batch in batches]
    return sum(len(intake.step(batch).batch) for batch in fresh)


def judge_in_python(batches: list[EventBatch]) -> int:
    """Do what the intake does with a dict, without its dead letters or bound on memory."""
    seen: dict[tuple[str, str], int] = {}
    lateness, watermark, count = 600_000_000, 0, 0
    for batch in batches:
        rows = batch.events.select("source", "id", pl.col("ts").to_physical()).iter_rows()
        for source, name, ts in rows:
            key = (source, name)
            if ts < watermark - lateness or seen.get(key, 0) >= watermark - lateness > 0:
                continue
            seen[key] = ts
            watermark = max(watermark, ts)
            count += 1
    return count


def append_batches(path: Path, frames: list[pl.DataFrame]) -> None:
    """Append frames to a journal, each in a transaction with its position."""
    with SqliteJournal(path) as journal:
        for number, frame in enumerate(frames):
            with journal.transaction() as transaction:
                transaction.append("events", frame)
                transaction.save_position("shop", str(number))


def append_rows(path: Path, frames: list[pl.DataFrame]) -> None:
    """Insert every event as a row of its own, in transactions of the same size."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    names = ", ".join(f'"{name}"' for name in EVENT_SCHEMA)
    connection.execute(f"CREATE TABLE events ({names})")
    marks = ", ".join("?" * len(EVENT_SCHEMA))
    for frame in frames:
        plain = frame.with_columns(pl.col("ts").to_physical())
        connection.executemany(f"INSERT INTO events VALUES ({marks})", plain.iter_rows())  # noqa: S608
        connection.commit()
    connection.close()


def read_batches(path: Path) -> pl.DataFrame:
    """Read a journal's events as one frame."""
    with SqliteJournal(path, read_only=True) as journal:
        return pl.concat([record.frame for record in journal.read(kind="events")])


def read_rows(path: Path) -> pl.DataFrame:
    """Read rows as one frame of the same schema."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM events ORDER BY rowid").fetchall()
    connection.close()
    physical = {**EVENT_SCHEMA, "ts": pl.Int64()}
    return pl.DataFrame(rows, physical, orient="row").cast({"ts": EVENT_SCHEMA["ts"]})


def check_equal(folder: Path, frames: list[pl.DataFrame]) -> None:
    """Make sure that both keep the same events."""
    append_batches(folder / "a.db", frames)
    append_rows(folder / "b.db", frames)
    assert read_batches(folder / "a.db").equals(pl.concat(frames))
    assert read_rows(folder / "b.db").equals(pl.concat(frames))


def time_decision_log(folder: Path, synchronous: str) -> None:
    """Time what the deciding thread pays, and how long a waited-for record takes to be durable."""
    options = (Option(Action("act", "coupon"), 0.5, 1e6), Option(Action("never"), 0.5, 0.0))
    decision = Decision(
        1, 10**15, "visitor", 5, 7, "policy", 0.9, options, 0, 0.2, "K5", "v1", "abc",
        executed=True,
    )  # fmt: skip
    with SqliteJournal(folder / f"log-{synchronous}.db", synchronous=synchronous) as journal:  # type: ignore[arg-type]
        with DecisionLog(journal) as log:
            appends = np.array([time_append(log, decision) for _ in range(DECISIONS)])
            waits = [time_until_durable(log, decision) for _ in range(WAITED)]
        assert log.durable == DECISIONS + WAITED
    p50, p99, p999 = np.percentile(appends, [50, 99, 99.9]) / 1000
    report(
        f"decision_log_append_{synchronous.lower()}",
        ours=float(p50),
        peer=None,
        peer_name="none",
        ratio=None,
        unit="us",
        runs=DECISIONS,
        p99_us=float(p99),
        p999_us=float(p999),
        durable_ms_p50=statistics.median(waits) * 1000,
        durable_ms_p99=float(np.percentile(waits, 99)) * 1000,
    )


def time_append(log: DecisionLog, decision: Decision) -> int:
    """Give the nanoseconds of one append, some microseconds after the last."""
    until = time.perf_counter_ns() + 5_000
    while time.perf_counter_ns() < until:
        pass
    start = time.perf_counter_ns()
    log.append(decision)
    return time.perf_counter_ns() - start


def time_until_durable(log: DecisionLog, decision: Decision) -> float:
    """Give the seconds from an append to its being durable, waited for."""
    start = time.perf_counter()
    log.wait(log.append(decision))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
