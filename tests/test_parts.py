"""State in parts: restored as it was at any point, and what is written follows what changed."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.errors import SnapshotError
from recoup.parts import Runs, SavedTable
from recoup.state import Changes

EDITS = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-3, 3)), max_size=12), max_size=25
)


def keep(parts: dict[str, bytes], changes: Changes) -> None:
    for name in changes.dropped:
        del parts[name]
    parts |= changes.saved


def arrays(table: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Give a table's keys and rows, in no particular order."""
    keys = np.array(list(table), np.int64)
    return keys, np.array([(value, -value) for value in table.values()], np.int64).reshape(-1, 2)


@settings(max_examples=60)
@given(calls=EDITS, cut=st.integers(0, 25))
def test_a_table_comes_back_and_goes_on_alike(calls: list[list[tuple[int, int]]], cut: int) -> None:
    table: dict[int, int] = {}
    saved, parts = SavedTable(2), dict[str, bytes]()
    for number, edits in enumerate(calls):
        for key, value in edits:
            if value == 0:
                table.pop(key, None)
            else:
                table[key] = value
        keep(parts, saved.changes(*arrays(table)))
        keys, rows = SavedTable(2).restore_parts(parts)
        assert dict(zip(keys.tolist(), rows[:, 0].tolist(), strict=True)) == table
        if number == cut:
            saved = SavedTable(2)
            saved.restore_parts(parts)
    once, again = SavedTable(2), SavedTable(2)
    if parts:
        once.restore_parts(parts)
        again.restore_parts(parts)
        table[99] = 1
        assert once.changes(*arrays(table)) == again.changes(*arrays(table))


def test_what_is_written_of_a_table_follows_what_changed() -> None:
    keys, rows = np.arange(50_000), np.zeros((50_000, 4), np.int64)
    saved, parts, written = SavedTable(4), dict[str, bytes](), 0
    keep(parts, saved.changes(keys, rows))
    whole = sum(map(len, parts.values()))
    for call in range(200):
        rows[np.arange(call * 50, call * 50 + 100)] += 1
        changes = saved.changes(keys, rows)
        written += sum(map(len, changes.saved.values()))
        keep(parts, changes)
        assert sum(map(len, parts.values())) <= 2 * whole
    assert written < 200 * 100 * 5 * 8 * 1.1
    assert saved.changes(keys, rows) == Changes({}, ())


def counts(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("key").agg(pl.col("n").sum())


EMPTY = pl.DataFrame(schema={"key": pl.Int64(), "n": pl.Int64()})


@settings(max_examples=40)
@given(
    calls=st.lists(st.lists(st.integers(0, 20), max_size=10), max_size=15), cut=st.integers(0, 15)
)
def test_runs_come_back_and_go_on_alike(calls: list[list[int]], cut: int) -> None:
    runs, parts = Runs(counts, EMPTY), dict[str, bytes]()
    other, other_parts = Runs(counts, EMPTY), dict[str, bytes]()
    for number, keys in enumerate(calls):
        rows = pl.DataFrame({"key": keys, "n": [1] * len(keys)}, EMPTY.schema)
        for each, kept in ((runs, parts), (other, other_parts)):
            each.add(rows)
            keep(kept, each.changes())
        assert parts == other_parts
        if number == cut:
            runs = Runs(counts, EMPTY)
            runs.restore_parts(parts)
    want = {key: sum(keys.count(key) for keys in calls) for keys in calls for key in keys}
    assert dict(runs.whole().iter_rows()) == want


def test_each_row_of_runs_is_written_a_few_times_only() -> None:
    runs, parts, written = Runs(counts, EMPTY), dict[str, bytes](), 0
    rng = np.random.default_rng(1)
    for _ in range(64):
        runs.add(pl.DataFrame({"key": rng.integers(0, 1 << 40, 2000), "n": np.ones(2000, int)}))
        changes = runs.changes()
        written += sum(map(len, changes.saved.values()))
        keep(parts, changes)
    assert written < 8 * sum(map(len, parts.values()))


def test_parts_of_something_else_are_refused() -> None:
    other = SavedTable(3).changes(np.arange(2), np.zeros((2, 3), np.int64)).saved
    for parts in ({}, {"00000000": b"\xc1"}, other):
        with pytest.raises(SnapshotError):
            SavedTable(2).restore_parts(parts)
    for parts in ({}, {"00000000": b"no rows"}):
        with pytest.raises(SnapshotError):
            Runs(counts, EMPTY).restore_parts(parts)
