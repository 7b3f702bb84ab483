"""Kill -9 at every kind of write, and at random points: nothing is lost, nothing is doubled."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "crash_worker.py"
TABLES = ("records", "schemas", "stages", "states", "positions")


def run_trials(*trials: dict[str, object]) -> list[int]:
    """Run trials in the worker, and give the kills of each."""
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), json.dumps(trials)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    assert done.returncode == 0, f"{trials}\n{done.stderr}"
    kills: list[int] = json.loads(done.stdout)
    return kills


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give all that a journal's file holds, byte for byte."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608
            for table in TABLES
        }
    finally:
        connection.close()


def assert_same(path: Path, expected: dict[str, list[tuple[object, ...]]], what: str) -> None:
    found = contents(path)
    for table in TABLES:
        assert found[table] == expected[table], f"{table} differs after {what}"


def never_killed(folder: Path, batches: int) -> dict[str, list[tuple[object, ...]]]:
    path = folder / "whole.db"
    assert run_trials(
        {"path": str(path), "batches": batches, "kind": None, "kills": [], "seed": 0}
    ) == [0]
    return contents(path)


def test_the_workload_has_repeats_late_events_decisions_and_outcomes(tmp_path: Path) -> None:
    rows = never_killed(tmp_path, 12)["records"]
    kinds = {row[1] for row in rows}
    assert kinds >= {
        "events",
        "items",
        "dead_letters",
        "decisions",
        "outcomes",
        "abandonments",
        "ticks",
        "told",
    }


@pytest.mark.parametrize(
    "statements",
    [range(1, 110, 2), pytest.param(range(2, 160), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_a_run_killed_at_a_statement_loses_and_doubles_nothing(
    tmp_path: Path, statements: range
) -> None:
    whole = never_killed(tmp_path, 4)
    trials = [
        {
            "path": str(tmp_path / f"{k}.db"),
            "batches": 4,
            "kind": "statement",
            "kills": [k],
            "seed": 0,
        }
        for k in statements
    ]
    kills = run_trials(*trials)
    assert kills[:100] == [1] * len(kills[:100])
    for k in statements:
        assert_same(tmp_path / f"{k}.db", whole, f"a kill at statement {k}")


RANDOM_KILLS = {"statement": [1, 110], "instruction": [1, 3000], "time": [0.02, 0.3]}


@pytest.mark.parametrize(("kind", "seed"), [("statement", 11), ("instruction", 12), ("time", 13)])
def test_a_run_killed_again_and_again_ends_as_one_never_killed(
    tmp_path: Path, kind: str, seed: int
) -> None:
    whole = never_killed(tmp_path, 30)
    total = 0
    while total < 5:
        path = tmp_path / f"killed-{seed}.db"
        kills = kill_at_random(path, 30, kind, seed)
        assert_same(path, whole, f"{kills} kills by {kind}, seed {seed}")
        total += kills
        seed += 100


@pytest.mark.slow
def test_hundreds_of_kills_at_random_points(tmp_path: Path) -> None:
    whole = never_killed(tmp_path, 60)
    total = 0
    for seed in range(21, 30):
        for kind in RANDOM_KILLS:
            path = tmp_path / f"{kind}-{seed}.db"
            kills = kill_at_random(path, 60, kind, seed)
            assert_same(path, whole, f"{kills} kills by {kind}, seed {seed}")
            total += kills
    assert total >= 300


def kill_at_random(path: Path, batches: int, kind: str, seed: int) -> int:
    kills = RANDOM_KILLS[kind]
    trial = {"path": str(path), "batches": batches, "kind": kind, "kills": kills, "seed": seed}
    return run_trials(trial)[0]
