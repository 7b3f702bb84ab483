"""Evidence: the same for batches of any size, bounded, and restored as it was."""

from types import SimpleNamespace

import numpy as np
import pytest

from recoup.defects import Evidence
from recoup.errors import SnapshotError
from recoup.events import EventBatch, hash_column, take
from recoup.friction.moment import Moment
from recoup.friction.signals import SIGNALS
from recoup.testing import random_batch


def moment_of(batch: EventBatch) -> Moment:
    session = hash_column(batch.events["visitor"])
    count = len(batch)
    values = np.zeros((count, 1))
    rows = SimpleNamespace(
        values=values, session=session, session_start=session, status=np.zeros(count, np.int8)
    )
    stable = (session % 97 == 0)[:, None] & np.eye(len(SIGNALS), dtype=bool)[0]
    return Moment(batch, rows, ("x",), np.full(count, 0.2), stable, np.zeros(count, np.int8))


@pytest.mark.parametrize("size", [37, 400])
def test_batches_of_any_size_and_a_restore_change_nothing(size: int) -> None:
    batch = random_batch(2000, seed=5)
    whole = Evidence()
    whole.step(moment_of(batch))
    parts = Evidence()
    for start in range(0, len(batch), size):
        picked = np.arange(start, min(start + size, len(batch)))
        parts.step(moment_of(take(batch, picked)))
        if start > len(batch) // 2:
            state = parts.snapshot()
            parts = Evidence()
            parts.restore(state)
    for name, frame in whole.tables().items():
        assert parts.tables()[name].equals(frame), name


def test_only_the_newest_sessions_are_kept() -> None:
    evidence = Evidence(max_sessions=20)
    evidence.step(moment_of(random_batch(3000, seed=6)))
    tables = evidence.tables()
    assert tables["sessions"].height == 20
    kept = set(tables["sessions"]["session"])
    assert set(tables["touches"]["session"]) <= kept
    assert set(tables["orders"]["session"]) <= kept


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(SnapshotError):
        Evidence().restore(b"something else")
