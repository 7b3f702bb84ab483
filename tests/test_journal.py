from pathlib import Path

from recoup.stores import MemoryJournal, SqliteJournal
from recoup.testing import check_journal


def test_memory_journal_keeps_the_protocol() -> None:
    check_journal(MemoryJournal)


def test_sqlite_journal_keeps_the_protocol(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    check_journal(lambda: SqliteJournal(path), reopen=lambda: SqliteJournal(path))
