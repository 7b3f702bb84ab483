from pathlib import Path

from recoup.intake import Intake
from recoup.runners import LocalRunner
from recoup.stores import MemoryJournal, SqliteJournal
from recoup.testing import CountingHost, ListFeed, random_batch


def test_a_runner_restarted_after_every_batch_ends_as_one_that_never_stopped(
    tmp_path: Path,
) -> None:
    batches = [random_batch(50, seed=s, start_s=90 * s) for s in range(12)]
    whole = MemoryJournal()
    host = CountingHost()
    totals = LocalRunner(host, whole, ListFeed(batches), intake=Intake(lateness_s=60.0)).run()
    for stop in range(1, 13):
        journal = SqliteJournal(tmp_path / "journal.db")
        again = CountingHost()
        runner = LocalRunner(
            again,
            journal,
            ListFeed(batches[:stop]),
            intake=Intake(lateness_s=60.0),
            snapshot_batches=3,
        )
        for _ in zip(runner.stream(), range(1), strict=False):
            pass
        journal.close()
    journal = SqliteJournal(tmp_path / "journal.db", read_only=True)
    runner = LocalRunner(again, journal, ListFeed(batches), intake=Intake(lateness_s=60.0))
    assert runner.totals == totals
    assert again.snapshot() == host.snapshot()
    assert [(r.kind, r.frame.rows()) for r in journal.read()] == [
        (r.kind, r.frame.rows()) for r in whole.read()
    ]
    journal.close()
