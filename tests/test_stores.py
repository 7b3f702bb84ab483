import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recoup.decisions import DECISION_SCHEMA, Action, Decision, Option
from recoup.errors import ConfigError, JournalError
from recoup.stores import (
    DecisionLog,
    MemoryJournal,
    MemoryKeyValue,
    SqliteJournal,
    SqliteKeyValue,
    decisions_frame,
    logged_decisions,
)
from recoup.stores.decision_log import KIND, unpack
from recoup.stores.memory import MemoryTransaction
from recoup.testing import check_keyvalue


def decision(number: int) -> Decision:
    options = (
        Option(Action("act", "coupon"), 0.25, 1e6 + number),
        Option(Action("wait", wait_s=60), 0.25, 0.1),
        Option(Action("never"), 0.5, 0.0),
    )
    return Decision(
        number, 10**15 + number, f"visitor-{number}", 5, 7, "policy", 0.9, options, number % 3,
        0.2, "K5", "v1", "abc", executed=True,
    )  # fmt: skip


class StallingJournal(MemoryJournal):
    """A journal whose disk stalls until it is let go, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.fails = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        self.go.wait(10.0)
        if self.fails:
            raise JournalError("the disk is full")
        with super().transaction() as transaction:
            yield transaction


def test_key_value_stores_keep_the_protocol(tmp_path: Path) -> None:
    check_keyvalue(MemoryKeyValue)
    with SqliteKeyValue(tmp_path / "state.db") as store:
        check_keyvalue(lambda: store)


def test_a_key_value_store_outlives_its_process(tmp_path: Path) -> None:
    with SqliteKeyValue(tmp_path / "state.db") as store:
        for number in range(1000):
            store.put(b"%04d" % number, b"%d" % (number * number))
    with SqliteKeyValue(tmp_path / "state.db", synchronous="FULL") as store:
        assert [int(value) for _, value in store.scan()] == [n * n for n in range(1000)]
        assert [int(value) for _, value in store.scan(b"09")] == [n * n for n in range(900, 1000)]


def test_a_closed_key_value_store_says_so(tmp_path: Path) -> None:
    store = SqliteKeyValue(tmp_path / "state.db")
    store.close()
    with pytest.raises(JournalError, match="closed"):
        store.get(b"a")


def test_decisions_come_back_from_the_log_as_they_went_in(tmp_path: Path) -> None:
    decisions = [decision(number) for number in range(500)]
    with SqliteJournal(tmp_path / "journal.db") as journal:
        with DecisionLog(journal, interval_s=0.001) as log:
            for each in decisions:
                log.append(each)
        assert [d for r in journal.read(kind=KIND) for d in unpack(r.frame)] == decisions
        frame = pl.concat(logged_decisions(journal))
    assert frame.schema == DECISION_SCHEMA
    assert frame.equals(decisions_frame(decisions))
    assert frame["action"].head(3).to_list() == ["act:coupon", "wait:60", "never"]
    assert frame["propensity"].head(3).to_list() == [0.25, 0.25, 0.5]


def test_decisions_frame_takes_no_decision() -> None:
    assert decisions_frame([]).schema == DECISION_SCHEMA


def test_what_is_reported_durable_is_in_the_journal_at_once(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "journal.db") as journal, DecisionLog(journal) as log:
        for number in range(50):
            ticket = log.append(decision(number))
            assert log.wait(ticket, timeout_s=10.0)
            assert log.durable == ticket == number + 1
            assert sum(frame.height for frame in logged_decisions(journal)) == ticket


def test_waiting_commits_before_the_interval_is_over() -> None:
    with DecisionLog(MemoryJournal(), interval_s=5.0) as log:
        start = time.perf_counter()
        assert log.wait(log.append(1), timeout_s=4.0)
        assert time.perf_counter() - start < 2.0
        assert log.waiting == 0


def test_a_record_becomes_durable_without_anybody_waiting() -> None:
    with DecisionLog(MemoryJournal(), interval_s=0.001) as log:
        log.append(1)
        deadline = time.perf_counter() + 10.0
        while not log.durable and time.perf_counter() < deadline:
            time.sleep(0.001)
        assert log.durable == 1


def test_waiting_for_a_stalled_disk_ends_at_the_timeout() -> None:
    journal = StallingJournal()
    with DecisionLog(journal) as log:
        log.append(1)
        assert not log.flush(timeout_s=0.02)
        assert log.waiting == 1
        journal.go.set()
        assert log.flush(timeout_s=10.0)


def test_a_full_log_refuses() -> None:
    journal = StallingJournal()
    with DecisionLog(journal, capacity=3, when_full="refuse") as log:
        for number in range(3):
            log.append(number)
        with pytest.raises(JournalError, match="at most 3"):
            log.append(3)
        journal.go.set()
        log.flush()
        assert log.append(4) == 4


def test_a_full_log_drops_and_counts() -> None:
    journal = StallingJournal()
    with DecisionLog(journal, capacity=3, when_full="drop") as log:
        tickets = [log.append(number) for number in range(5)]
        journal.go.set()
    assert tickets == [1, 2, 3, 0, 0]
    assert (log.dropped, log.durable) == (2, 3)


def test_a_full_log_waits_for_room() -> None:
    journal = StallingJournal()
    with DecisionLog(journal, capacity=2, interval_s=0.0) as log:
        log.append(1)
        log.append(2)
        threading.Timer(0.05, journal.go.set).start()
        assert [log.append(number) for number in range(3, 100)] == list(range(3, 100))
    assert log.durable == 99


def test_a_failed_writer_is_reported_and_nothing_counts_as_durable() -> None:
    journal = StallingJournal()
    journal.fails = True
    journal.go.set()
    log = DecisionLog(journal, interval_s=0.0)
    ticket = log.append(1)
    with pytest.raises(JournalError, match="disk is full"):
        log.wait(ticket)
    with pytest.raises(JournalError, match="disk is full"):
        log.append(2)
    with pytest.raises(JournalError, match="disk is full"):
        log.close()
    assert log.durable == 0


def test_a_closed_log_takes_nothing_and_closes_again() -> None:
    log = DecisionLog(MemoryJournal())
    log.append(1)
    log.close()
    log.close()
    with pytest.raises(JournalError, match="closed"):
        log.append(2)
    assert log.durable == 1


@pytest.mark.parametrize("settings", [{"interval_s": -1.0}, {"capacity": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        DecisionLog(MemoryJournal(), **settings)  # type: ignore[arg-type]


def test_packed_records_that_are_no_decisions_are_refused() -> None:
    with pytest.raises(JournalError, match="packed decisions"):
        unpack(pl.DataFrame({"records": [1], "packed": [b"\xc1"]}))
