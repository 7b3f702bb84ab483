import contextlib
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.errors import JournalError
from recoup.state import Journal
from recoup.stores import MemoryJournal, Registry, SqliteJournal
from recoup.stores.frames import decode_frame, encode_frame
from recoup.testing import check_journal, random_batch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def filled(path: Path, batches: int = 3) -> Path:
    """Make a journal of some batches, each in a transaction with its position and a state."""
    with SqliteJournal(path) as journal:
        for number in range(batches):
            append(journal, number)
    return path


def append(journal: SqliteJournal, number: int) -> None:
    with journal.transaction() as transaction:
        transaction.append("events", random_batch(200, seed=number).events)
        transaction.save_state("stage", "part", bytes([number]))
        transaction.save_position("shop", str(number + 1))


def append_many(journal: SqliteJournal, count: int) -> None:
    for number in range(count):
        append(journal, number)


def test_the_memory_journal_keeps_the_protocol() -> None:
    check_journal(MemoryJournal)


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_the_sqlite_journal_keeps_the_protocol(path: Path, synchronous: str) -> None:
    def make() -> SqliteJournal:
        return SqliteJournal(path, synchronous=synchronous)  # type: ignore[arg-type]

    check_journal(make, reopen=make)


@given(
    frame=st.builds(
        lambda ints, reals, texts: pl.DataFrame(
            {
                "ints": pl.Series(ints, dtype=pl.Int64).head(3),
                "reals": pl.Series(reals, dtype=pl.Float64).head(3),
                "texts": pl.Series(texts, dtype=pl.String).head(3),
                "lists": pl.Series(
                    [text and [text, None] for text in texts], dtype=pl.List(pl.String)
                ).head(3),
            }
        ),
        st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
        st.lists(st.none() | st.floats(), min_size=3, max_size=3),
        st.lists(st.none() | st.text(), min_size=3, max_size=3),
    ),
    rows=st.integers(0, 3),
)
@settings(max_examples=200)
def test_any_frame_comes_back_as_it_was(frame: pl.DataFrame, rows: int) -> None:
    some = frame.head(rows)
    again = decode_frame(encode_frame(some), some.schema, some.height)
    assert again.schema == some.schema
    assert again.equals(some)


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(JournalError, match="Arrow stream"):
        decode_frame(b"nonsense", pl.Schema({"a": pl.Int64}), 1)


def test_frames_of_one_kind_may_change_their_schema(path: Path) -> None:
    frames = [
        pl.DataFrame({"a": [1, None]}),
        pl.DataFrame({"a": ["x"], "b": [None]}),
        pl.DataFrame({"a": [1, 2]}).clear(),
        pl.DataFrame({"b": [None, None], "a": [None, None]}, schema={"b": pl.Int8, "a": pl.Date}),
    ]
    with SqliteJournal(path) as journal:
        for frame in frames:
            with journal.transaction() as transaction:
                transaction.append("drifting", frame)
    with SqliteJournal(path) as journal:
        read = [record.frame for record in journal.read()]
    assert [frame.schema for frame in read] == [frame.schema for frame in frames]
    assert [frame.rows() for frame in read] == [frame.rows() for frame in frames]


WRITES = {
    "append": lambda transaction, n: transaction.append("kind", pl.DataFrame({"n": [n]})),
    "save_state": lambda transaction, n: transaction.save_state("stage", f"{n % 2}", bytes([n])),
    "drop_state": lambda transaction, n: transaction.drop_state("stage", f"{n % 2}"),
    "save_position": lambda transaction, n: transaction.save_position("shop", f"row {n}"),
}


def contents(journal: Journal) -> object:
    """Give all that a journal holds."""
    records = [(record.offset, record.frame["n"].to_list()) for record in journal.read()]
    return records, journal.load_state("stage"), journal.position("shop")


@given(
    transactions=st.lists(
        st.tuples(st.lists(st.sampled_from(sorted(WRITES)), max_size=4), st.booleans()), max_size=5
    )
)
@settings(max_examples=60)
def test_transactions_are_kept_whole_or_not_at_all(
    transactions: list[tuple[list[str], bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, SqliteJournal(Path(folder) / "j.db") as journal:
        expected = MemoryJournal()
        for number, (writes, fails) in enumerate(transactions):
            for each in (journal, expected):
                with contextlib.suppress(ZeroDivisionError), each.transaction() as transaction:
                    for write in writes:
                        WRITES[write](transaction, number)
                    number / (not fails)
        assert contents(journal) == contents(expected)


def test_a_second_writer_is_refused_and_a_reader_is_not(path: Path) -> None:
    with SqliteJournal(path) as journal:
        append(journal, 0)
        with pytest.raises(JournalError, match="only writer"):
            SqliteJournal(path)
        with SqliteJournal(path, read_only=True) as reader:
            assert reader.position("shop") == "1"
            append(journal, 1)
            assert [record.offset for record in reader.read()] == [1, 2]
            with pytest.raises(JournalError, match="readonly"):
                append(reader, 2)
    with SqliteJournal(path) as journal:
        assert journal.last_offset == 2


def test_a_full_disk_keeps_what_was_committed_and_room_lets_it_go_on(path: Path) -> None:
    with SqliteJournal(path, max_bytes=64 * 4096) as journal:
        with pytest.raises(JournalError, match="full") as caught:
            append_many(journal, 1000)
        assert "rolled back" in str(caught.value)
        kept = journal.last_offset
        assert 0 < kept < 1000
        assert journal.position("shop") == str(kept)
        assert journal.load_state("stage") == (kept, {"part": bytes([kept - 1])})
    with SqliteJournal(path) as journal:
        append(journal, kept)
        assert [record.offset for record in journal.read()] == list(range(1, kept + 2))


def test_a_file_of_somebody_else_is_refused_and_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another SQLite database"):
        SqliteJournal(path)
    assert path.read_bytes() == before


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        registry.save("intent", b"model", {})
    with pytest.raises(JournalError, match="another SQLite database"):
        SqliteJournal(tmp_path / "registry.db")


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"these are no SQLite pages" * 400)
    with pytest.raises(JournalError, match="not a database"):
        SqliteJournal(path)


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    with SqliteJournal(filled(path), read_only=True) as journal:
        assert [record.offset for record in journal.read()] == [1, 2, 3]


def test_a_journal_of_a_later_version_is_refused(path: Path) -> None:
    tamper(filled(path), "PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="got version 99"):
        SqliteJournal(path)


def test_an_absent_folder_and_an_absent_file_to_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="folder exists"):
        SqliteJournal(tmp_path / "absent" / "journal.db")
    with pytest.raises(JournalError, match="unable to open"):
        SqliteJournal(tmp_path / "journal.db", read_only=True)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE records SET data = CAST(substr(data, 1, 99) AS BLOB) WHERE offset = 2",
            "batch 2",
        ),
        ("UPDATE records SET kind = 'decisions' WHERE offset = 2", "batch 2"),
        (
            "UPDATE records SET data = (SELECT data FROM records LIMIT 1) WHERE offset = 2",
            "batch 2",
        ),
        ("DELETE FROM records WHERE offset = 2", "Expected batch 2"),
        ("UPDATE schemas SET data = x'00'", "schema 1"),
        ("DELETE FROM schemas", "Expected schema 1"),
    ],
)
def test_damaged_batches_do_not_pass(path: Path, statement: str, message: str) -> None:
    tamper(filled(path), statement)
    with SqliteJournal(path) as journal, pytest.raises(JournalError, match=message) as caught:
        list(journal.read())
    assert "restore a copy" in str(caught.value)


def test_a_damaged_state_does_not_pass(path: Path) -> None:
    tamper(filled(path), "UPDATE states SET data = x'07'")
    with SqliteJournal(path) as journal, pytest.raises(JournalError, match="state stage/part"):
        journal.load_state("stage")


def tamper(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_torn_log_of_writes_gives_whole_transactions_and_no_part_of_one(path: Path) -> None:
    """A power cut may lose the tail of the write-ahead log: cut it anywhere."""
    with SqliteJournal(path) as journal:
        for number in range(6):
            append(journal, number)
        wal = path.with_name("journal.db-wal")
        sizes = range(0, wal.stat().st_size, 3001)
        found = set()
        for size in sizes:
            copy = path.with_name(f"cut-{size}.db")
            shutil.copy(path, copy)
            copy.with_name(f"{copy.name}-wal").write_bytes(wal.read_bytes()[:size])
            with SqliteJournal(copy) as cut:
                last = cut.last_offset
                assert [record.offset for record in cut.read()] == list(range(1, last + 1))
                assert cut.position("shop") == (str(last) if last else None)
                assert cut.load_state("stage")[0] == last
            found.add(last)
    assert found == set(range(7)) - {6} or found == set(range(7))


def test_threads_take_turns_without_gaps(path: Path) -> None:
    with SqliteJournal(path) as journal:
        threads = [threading.Thread(target=append_many, args=(journal, 20)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [record.offset for record in journal.read()] == list(range(1, 81))


def test_columns_that_hold_only_nulls_cost_nothing() -> None:
    events = random_batch(1, seed=1).events
    assert len(encode_frame(events)) < 4000
    assert len(encode_frame(events)) < 0.4 * len(encode_frame(events.fill_null(strategy="zero")))
