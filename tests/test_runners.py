import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from recoup.decisions import Finding
from recoup.errors import ConfigError, JournalError, SnapshotError
from recoup.events import DEAD_LETTER_SCHEMA, EventBatch, concat_batches, empty_frames, take
from recoup.intake import Intake
from recoup.runners import LocalRunner, Totals
from recoup.runners.local import BATCH_SCHEMA, FINDING_SCHEMA, STAGE
from recoup.stores import MemoryJournal, SqliteJournal
from recoup.stores.memory import MemoryTransaction
from recoup.testing import CountingHost, ListArrival, ListFeed, random_batch

BATCHES = [random_batch(50, seed=seed, start_s=90 * seed) for seed in range(12)]


def intake() -> Intake:
    return Intake(lateness_s=60.0)


def run(
    journal: MemoryJournal | SqliteJournal,
    host: CountingHost,
    batches: list[EventBatch],
    every: int = 3,
) -> LocalRunner:
    runner = LocalRunner(host, journal, ListFeed(batches), intake=intake(), snapshot_batches=every)
    runner.run()
    return runner


def journalled(
    journal: MemoryJournal | SqliteJournal,
) -> list[tuple[int, str, list[tuple[object, ...]]]]:
    return [(record.offset, record.kind, record.frame.rows()) for record in journal.read()]


@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_runner_dropped_after_every_batch_ends_as_one_that_never_stopped(
    tmp_path: Path, every: int
) -> None:
    whole, host = MemoryJournal(), CountingHost()
    totals = run(whole, host, BATCHES, every).totals
    with SqliteJournal(tmp_path / "journal.db") as journal:
        for _ in BATCHES:
            runner = LocalRunner(
                CountingHost(), journal, ListFeed(BATCHES), intake=intake(), snapshot_batches=every
            )
            next(runner.stream())
        last = CountingHost()
        assert run(journal, last, BATCHES, every).totals == totals
        assert last.snapshot() == host.snapshot()
        assert journalled(journal) == journalled(whole)


def test_totals_and_dead_letters_count_what_came_in() -> None:
    repeated = concat_batches(
        [BATCHES[0], take(BATCHES[0], np.arange(40, 50)), BATCHES[5], BATCHES[1]]
    )
    bad = pl.DataFrame([("log:1", "not_json", "", "{")], DEAD_LETTER_SCHEMA, orient="row")
    finding = Finding("column_missing", "price", "2026-01-01T00:00:00Z", None, "gone")
    arrival = ListArrival(repeated, bad, (finding,), "1")
    journal = MemoryJournal()
    runner = LocalRunner(CountingHost(), journal, ListFeed([]), intake=intake())
    processed = runner.process(arrival)
    late = runner.totals.dead_letters["too_late"]
    assert late > 10
    assert runner.totals.duplicates == 10
    assert runner.totals.events == 150 - late == len(processed.admitted.batch)
    assert runner.totals.dead_letters == {"not_json": 1, "too_late": late}
    records = {record.kind: record.frame for record in journal.read()}
    assert set(records) == {"events", "items", "dead_letters", "findings", "counts", "batches"}
    assert records["dead_letters"].height == late + 1
    assert records["findings"].schema == FINDING_SCHEMA
    assert records["findings"].row(0)[:2] == ("column_missing", "price")
    assert records["batches"].schema == BATCH_SCHEMA
    again = LocalRunner(CountingHost(), journal, ListFeed([]), intake=intake())
    assert again.totals == runner.totals


def test_a_batch_without_events_moves_the_position_only() -> None:
    journal = MemoryJournal()
    empty = EventBatch(*empty_frames())
    totals = run(journal, CountingHost(), [empty, BATCHES[0], empty]).totals
    assert totals == Totals(3, 50, 0, totals.late)
    assert journal.position("list") == "3"


class NotingJournal(MemoryJournal):
    """A journal that notes which parts of a snapshot are written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        with super().transaction() as transaction:
            yield transaction
            for stage, parts in transaction.states.items():
                known = self.load_state(stage)[1]
                self.writes += [
                    part for part, state in parts.items() if known.get(part) is not state
                ]


def test_snapshots_rewrite_only_the_parts_that_changed() -> None:
    journal = NotingJournal()
    runner = LocalRunner(
        CountingHost(), journal, ListFeed(BATCHES), intake=intake(), snapshot_batches=1
    )
    feed = ListFeed(BATCHES).batches(None)
    runner.process(next(feed))
    assert sum(part.startswith("host/") for part in journal.writes) == 4
    journal.writes.clear()
    one_visitor = take(BATCHES[1], np.flatnonzero(BATCHES[1].events["visitor"] == "visitor-1"))
    runner.process(ListArrival(one_visitor, next(feed).dead_letters, (), "2"))
    assert sum(part.startswith("host/") for part in journal.writes) == 1
    assert "totals" in journal.writes


def test_a_part_that_is_gone_is_dropped_from_the_snapshot() -> None:
    class Shrinking(CountingHost):
        def snapshot(self) -> dict[str, bytes]:
            parts = super().snapshot()
            return parts if len(self.steps) < 2 else {"only": parts["part-0"]}

        def __init__(self) -> None:
            super().__init__()
            self.steps: list[int] = []

        def step(self, batch: EventBatch, /) -> dict[str, pl.DataFrame]:
            self.steps.append(len(batch))
            return super().step(batch)

    journal = MemoryJournal()
    run(journal, Shrinking(), BATCHES[:2], every=1)
    parts = journal.load_state(STAGE)[1]
    assert [part for part in parts if part.startswith("host/")] == ["host/only"]


class Journaling(CountingHost):
    """An incremental host: each snapshot adds what came since, and every third starts anew."""

    class Changes(msgspec.Struct):
        saved: dict[str, bytes]
        dropped: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def changes(self) -> "Journaling.Changes":
        self.calls += 1
        state = msgspec.msgpack.encode((self.calls, super().snapshot()))
        dropped = (
            tuple(f"{n}" for n in range(self.calls - 3, self.calls)) if self.calls % 3 == 0 else ()
        )
        return self.Changes({f"{self.calls}": state}, tuple(n for n in dropped if n != "0"))

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        states = [
            msgspec.msgpack.decode(s, type=tuple[int, dict[str, bytes]]) for s in parts.values()
        ]
        self.calls, latest = max(states, key=lambda state: state[0])
        super().restore(latest)


def test_an_incremental_host_is_asked_for_its_changes_only() -> None:
    whole, last = MemoryJournal(), Journaling()
    run(whole, last, BATCHES, every=2)
    names = {part for part in whole.load_state(STAGE)[1] if part.startswith("host/")}
    assert names == {"host/6"}
    journal = MemoryJournal()
    for _ in BATCHES:
        runner = LocalRunner(
            Journaling(), journal, ListFeed(BATCHES), intake=intake(), snapshot_batches=2
        )
        next(runner.stream())
    run(journal, Journaling(), BATCHES, every=2)
    assert journalled(journal) == journalled(whole)
    assert journal.load_state(STAGE) == whole.load_state(STAGE)


def test_a_journal_that_fails_ends_the_runner_and_a_new_one_goes_on(tmp_path: Path) -> None:
    whole = MemoryJournal()
    run(whole, CountingHost(), BATCHES)
    path = tmp_path / "journal.db"
    with SqliteJournal(path, max_bytes=30 * 4096) as journal:
        runner = LocalRunner(
            CountingHost(), journal, ListFeed(BATCHES), intake=intake(), snapshot_batches=3
        )
        with pytest.raises(JournalError, match="full"):
            runner.run()
        with pytest.raises(JournalError, match="new runner"):
            runner.process(next(ListFeed(BATCHES).batches(None)))
        assert 0 < int(journal.position("list") or 0) < 12
    with SqliteJournal(path) as journal:
        run(journal, CountingHost(), BATCHES)
        assert journalled(journal) == journalled(whole)


def test_a_tail_that_folds_to_something_else_is_noticed() -> None:
    class Other(CountingHost):
        def step(self, batch: EventBatch, /) -> dict[str, pl.DataFrame]:
            frames = super().step(batch)
            return {"counts": frames["counts"].with_columns(pl.col("value") + 1)}

    journal = MemoryJournal()
    runner = LocalRunner(CountingHost(), journal, ListFeed(BATCHES), intake=intake())
    next(runner.stream())
    with pytest.raises(JournalError, match="folded again"):
        LocalRunner(Other(), journal, ListFeed(BATCHES), intake=intake())


def test_a_host_may_not_take_a_kind_of_the_runner() -> None:
    class Greedy(CountingHost):
        def step(self, batch: EventBatch, /) -> dict[str, pl.DataFrame]:
            return {"events": batch.events}

    runner = LocalRunner(Greedy(), MemoryJournal(), ListFeed(BATCHES))
    with pytest.raises(AssertionError, match="may not journal"):
        runner.run()


def test_a_snapshot_of_something_else_is_refused() -> None:
    journal = MemoryJournal()
    with journal.transaction() as transaction:
        transaction.save_state(STAGE, "totals", b"\xc1")
    with pytest.raises(SnapshotError, match="totals"):
        LocalRunner(CountingHost(), journal, ListFeed(BATCHES))


def test_snapshots_come_at_least_after_every_batch() -> None:
    with pytest.raises(ConfigError, match="snapshot_batches"):
        LocalRunner(CountingHost(), MemoryJournal(), ListFeed([]), snapshot_batches=0)


def test_a_source_with_the_shape_of_ours_is_a_feed() -> None:
    class Log:
        name = "log"

        def batches(self, after: str | None = None, *, rows: int = 8) -> Iterator[ListArrival]:
            del rows
            return ListFeed(BATCHES).batches(after)

        def size_hint(self) -> int | None:
            return None

    assert LocalRunner(CountingHost(), MemoryJournal(), Log()).run().batches == 12


def test_memory_and_sqlite_hold_the_same_snapshot(tmp_path: Path) -> None:
    memory = MemoryJournal()
    run(memory, CountingHost(), BATCHES)
    with SqliteJournal(tmp_path / "journal.db") as journal:
        run(journal, CountingHost(), BATCHES)
        assert journal.load_state(STAGE) == memory.load_state(STAGE)
        parts: Mapping[str, bytes] = journal.load_state(STAGE)[1]
        assert {part.split("/")[0] for part in parts} == {"host", "intake", "totals"}
