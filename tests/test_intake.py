import datetime as dt
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.errors import ConfigError, SnapshotError
from recoup.events import (
    DEAD_LETTER_SCHEMA,
    EVENT_SCHEMA,
    EventBatch,
    concat_batches,
    conform,
    empty_frames,
    take,
)
from recoup.intake import Admitted, Intake
from recoup.testing import check_stage, random_batch, split_batch

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
YEAR_S = 366 * 86_400


def events(*rows: tuple[str, float] | tuple[str, float, str]) -> EventBatch:
    """Make page views of (id, seconds since the start, visitor)."""
    frame = pl.DataFrame(
        {
            "ts": [START + dt.timedelta(seconds=row[1]) for row in rows],
            "source": "shop",
            "id": [row[0] for row in rows],
            "seq": 0,
            "event": "page_view",
            "visitor": [row[2] if len(row) > 2 else "v" for row in rows],
        }
    )
    return EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])


def ids(admitted: Admitted) -> list[str]:
    return admitted.batch.events["id"].to_list()


def joined(outputs: Sequence[Admitted]) -> tuple[EventBatch, int, int, pl.DataFrame, int | None]:
    return (
        concat_batches([each.batch for each in outputs]),
        sum(each.duplicates for each in outputs),
        sum(each.late for each in outputs),
        pl.concat([each.dead_letters for each in outputs]),
        outputs[-1].watermark,
    )


def messy(seed: int, count: int = 300) -> list[EventBatch]:
    """Make batches with repeats, late events, some too late, and clocks far ahead."""
    random = np.random.Generator(np.random.PCG64(seed))
    batch = random_batch(count, seed=seed)
    rows = np.sort(random.choice(count, count // 4, replace=False))
    later = random_batch(count, seed=seed + 1, start_s=int(random.integers(0, 900)))
    broken = take(batch, rows[::9])
    far = EventBatch(
        broken.events.with_columns(
            pl.col("ts") + dt.timedelta(days=500), pl.col("id") + "-far", visitor=pl.lit("broken")
        ),
        broken.items,
    )
    return [batch, concat_batches([far, take(batch, rows), later]), take(later, rows)]


@pytest.mark.parametrize("seed", range(4))
def test_the_intake_is_a_fold_whatever_the_size_of_its_batches(seed: int) -> None:
    check_stage(
        lambda: Intake(lateness_s=60.0), messy(seed), split=split_batch, join=joined, sizes=(1, 7)
    )


@given(
    rows=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 60)), min_size=1, max_size=40),
    lateness=st.integers(1, 30),
    cut=st.integers(0, 40),
)
@settings(max_examples=200)
def test_every_event_is_judged_as_the_rules_say(
    rows: list[tuple[int, int]], lateness: int, cut: int
) -> None:
    admitted: dict[str, int] = {}
    watermark = rows[0][1]
    expected: list[tuple[str, int]] = []
    duplicates = late = refused = 0
    for number, ts in rows:
        key = str(number)
        if ts < watermark - lateness:
            refused += 1
        elif key in admitted and admitted[key] >= watermark - lateness:
            same = abs(admitted[key] - ts) <= 1
            duplicates += same
            refused += not same
        else:
            admitted[key] = ts
            expected.append((key, ts))
            late += ts < watermark
            watermark = max(watermark, ts)

    intake = Intake(lateness_s=float(lateness))
    batch = events(*((str(number), float(ts)) for number, ts in rows))
    found, doubles, behind, dead, last = joined(
        [
            intake.step(take(batch, part))
            for part in np.split(np.arange(len(rows)), [min(cut, len(rows))])
        ]
    )
    seconds = [(ts - START).total_seconds() for ts in found.events["ts"]]
    assert list(zip(found.events["id"], seconds, strict=True)) == expected
    assert (doubles, behind, dead.height) == (duplicates, late, refused)
    assert last == round((START.timestamp() + watermark) * 1e6)


def test_a_repeat_within_the_lateness_is_dropped_and_counted() -> None:
    intake = Intake(lateness_s=10.0)
    assert ids(intake.step(events(("a", 0), ("b", 1), ("a", 0.9)))) == ["a", "b"]
    again = intake.step(events(("b", 1), ("c", 5)))
    assert (ids(again), again.duplicates, again.dead_letters.height) == (["c"], 1, 0)


def test_another_event_under_an_id_that_was_given_before_is_not_taken_for_a_repeat() -> None:
    intake = Intake(lateness_s=60.0)
    intake.step(events(("v1", 0)))
    admitted = intake.step(events(("v1", 40), ("v1", 0)))
    assert (len(admitted.batch), admitted.duplicates) == (0, 1)
    path, reason, detail, raw = admitted.dead_letters.row(0)
    assert (path, reason) == ("shop/v1", "id_reused")
    assert detail.startswith("40.0 s from another event of the same source and id")
    assert "page_view" in raw


def test_the_same_id_of_another_source_is_another_event() -> None:
    one = events(("a", 0))
    other = EventBatch(one.events.with_columns(source=pl.lit("app")), one.items)
    intake = Intake()
    assert len(intake.step(one).batch) == len(intake.step(other).batch) == 1


def test_what_comes_too_late_becomes_a_dead_letter_with_its_whole_row() -> None:
    intake = Intake(lateness_s=10.0)
    admitted = intake.step(events(("a", 100), ("edge", 90), ("b", 89.5)))
    assert (ids(admitted), admitted.late) == (["a", "edge"], 1)
    letter = admitted.dead_letters
    assert letter.schema == DEAD_LETTER_SCHEMA
    path, reason, detail, raw = letter.row(0)
    assert (path, reason, detail) == ("shop/b", "too_late", "10.5 s behind the watermark")
    assert '"id":"b"' in raw
    assert "latency_ms" not in raw


def test_one_broken_clock_does_not_move_the_watermark() -> None:
    intake = Intake(lateness_s=10.0)
    broken = [(f"x{n}", 2.0 * YEAR_S + n, "broken") for n in range(20)]
    admitted = intake.step(events(("a", 0), *broken, ("b", 1)))
    assert ids(admitted) == ["a", "b"]
    assert admitted.dead_letters["reason"].to_list() == ["far_ahead"] * 20
    assert "ahead of the watermark" in admitted.dead_letters["detail"][0]


def test_several_visitors_in_a_row_move_the_watermark_over_a_gap() -> None:
    intake = Intake(lateness_s=10.0)
    intake.step(events(("a", 0, "u"), ("x", 2.0 * YEAR_S, "v")))
    ahead = [(name, 2.0 * YEAR_S + n, name) for n, name in enumerate("wyz")]
    admitted = intake.step(events(*ahead))
    assert ids(admitted) == ["y", "z"]
    assert ids(intake.step(events(("late", 5, "u")))) == []


def test_a_normal_event_between_clears_the_suspicion() -> None:
    intake = Intake(lateness_s=10.0)
    rows = [(f"{n}", 0.0 if n % 2 else 2.0 * YEAR_S, f"v{n}") for n in range(1, 20)]
    assert len(ids(intake.step(events(*rows)))) == 10


def test_the_suspicion_outlives_a_restart() -> None:
    first = Intake()
    first.step(events(("a", 0, "u"), ("x", 2.0 * YEAR_S, "v"), ("y", 2.0 * YEAR_S, "w")))
    second = Intake()
    second.restore(first.snapshot())
    assert ids(second.step(events(("z", 2.0 * YEAR_S, "z")))) == ["z"]


@pytest.mark.parametrize("seed", range(3))
def test_learning_what_was_admitted_gives_the_same_state(seed: int) -> None:
    served, learner = Intake(lateness_s=60.0), Intake(lateness_s=60.0)
    for batch in messy(seed):
        learner.learn(served.step(batch).batch, served.clock)
        assert learner.snapshot() == served.snapshot()


def test_memory_is_bounded_by_the_lateness() -> None:
    intake = Intake(lateness_s=30.0)
    sizes = []
    for seed in range(60):
        intake.step(random_batch(500, seed=seed, start_s=1000 * seed))
        sizes.append(len(intake.snapshot()))
    assert max(sizes[30:]) <= 1.5 * max(sizes[:30])
    assert len(intake._table) <= 4096  # noqa: SLF001


def test_only_recent_parts_of_the_snapshot_change() -> None:
    intake = Intake(lateness_s=3600.0)
    intake.step(random_batch(1000, seed=1))
    before = intake.parts()
    intake.step(random_batch(50, seed=2, start_s=2200))
    after = intake.parts()
    changed = {name for name, state in after.items() if before.get(name) != state}
    assert len(before) > 8
    assert "clock" in changed
    assert len(changed) <= 3


def test_an_empty_batch_changes_nothing() -> None:
    intake = Intake()
    admitted = intake.step(EventBatch(*empty_frames()))
    assert (len(admitted.batch), admitted.watermark, admitted.dead_letters.height) == (0, None, 0)


@pytest.mark.parametrize("parts", [{}, {"clock": b"nonsense"}])
def test_parts_without_a_sound_clock_are_refused(parts: dict[str, bytes]) -> None:
    with pytest.raises(SnapshotError, match="snapshot of the intake"):
        Intake().restore_parts(parts)


def test_a_snapshot_of_another_lateness_is_refused() -> None:
    with pytest.raises(SnapshotError, match="lateness"):
        Intake(lateness_s=5.0).restore(Intake(lateness_s=6.0).snapshot())


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lateness_out_of_range_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="lateness_s"):
        Intake(lateness_s=wrong)
