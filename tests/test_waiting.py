"""Waits of open sessions: told once, at the right tick, whatever the size of batches."""

import functools
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.errors import ConfigError, SnapshotError
from recoup.events import EVENT_SCHEMA, MICROS, EventBatch, conform, empty_frames, take
from recoup.friction.hesitation import HesitationModel, hesitation, p_returns
from recoup.friction.hesitation_training import HesitationSettings, fit_hesitation
from recoup.friction.moment import Rows
from recoup.friction.waiting import Waiting
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows

START = 1_472_713_200_000_000
Line = tuple[float, int, str]


@functools.cache
def model() -> HesitationModel:
    """Fit waits of a median of 20 s, of which a fifth never end."""
    rng = np.random.default_rng(1)
    size = 3_000
    gone_on = rng.random(size) < 0.8
    wait = np.minimum(rng.lognormal(3.0, 0.6, size), LIMIT_S - 1)
    zeros = np.zeros(size, np.int64)
    rows = WaitRows(
        names=("x",),
        values=rng.random((size, 1)),
        context=np.zeros((size, len(CONTEXT)), np.int64),
        wait_s=np.where(gone_on, wait, LIMIT_S),
        gone_on=gone_on,
        state=zeros,
        page=np.ones(size, bool),
        session=zeros,
        visitor=np.arange(size),
        ts=zeros,
        key=zeros,
    )
    return fit_hesitation(rows, "x", HesitationSettings(rounds=5, spread_rounds=3, leaves=4))


def batch_of(lines: list[Line]) -> tuple[EventBatch, Rows, NDArray[np.int8]]:
    frame = pl.DataFrame(
        {
            "ts": [START + round(second * MICROS) for second, *_ in lines],
            "source": ["test"] * len(lines),
            "id": [str(k) for k in range(len(lines))],
            "seq": [0] * len(lines),
            "event": [event for *_, event in lines],
            "visitor": [str(session) for _, session, _ in lines],
        }
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    count = len(lines)
    rows = SimpleNamespace(
        values=np.full((count, 1), 0.5),
        session=np.array([session for _, session, _ in lines], np.int64),
        session_start=np.zeros(count, np.int64),
        status=np.zeros(count, np.int8),
    )
    return (
        EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1]),
        rows,
        np.zeros(count, np.int8),
    )


def at(second: float) -> int:
    return START + round(second * MICROS)


def test_a_wait_is_told_once_when_it_has_become_too_long() -> None:
    waiting = Waiting(model())
    waiting.step(*batch_of([(0.0, 1, "page_view"), (1.0, 2, "page_view"), (30.0, 2, "view_item")]))
    assert len(waiting.tick(at(5.0))) == 0
    due = waiting.tick(at(62.0))
    assert due.session.tolist() == [1]
    assert due.since.tolist() == [START]
    assert 0.9 <= due.hesitation[0] < 1.0
    assert 0.0 < due.p_returns[0] < 0.5
    assert len(waiting.tick(at(63.0))) == 0
    assert waiting.tick(at(120.0)).session.tolist() == [2]
    waiting.step(*batch_of([(130.0, 1, "page_view")]))
    assert waiting.tick(at(250.0)).session.tolist() == [1]


def test_what_happens_on_a_page_ends_no_wait_and_a_closed_session_is_no_wait() -> None:
    waiting = Waiting(model())
    waiting.step(*batch_of([(0.0, 1, "page_view"), (50.0, 1, "scroll"), (0.0, 2, "page_view")]))
    assert waiting.tick(at(100.0)).session.tolist() == [1, 2]
    waiting.step(*batch_of([(200.0, 3, "page_view")]))
    assert len(waiting.tick(at(200.0 + LIMIT_S))) == 0


def test_a_tick_is_bounded_and_the_rest_comes_next() -> None:
    waiting = Waiting(model())
    waiting.step(*batch_of([(float(k), 10 + k, "page_view") for k in range(7)]))
    assert waiting.tick(at(300.0), most=4).session.tolist() == [10, 11, 12, 13]
    assert waiting.tick(at(300.0), most=4).session.tolist() == [14, 15, 16]


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 5)), min_size=1, max_size=40),
    size=st.integers(1, 9),
)
def test_batches_of_any_size_and_a_restore_change_nothing(
    steps: list[tuple[int, int]], size: int
) -> None:
    batch, rows, stage = batch_of([(float(s), who, "page_view") for s, who in steps])
    whole, parted = Waiting(model()), Waiting(model())
    whole.step(batch, rows, stage)
    for start in range(0, len(batch), size):
        picked = np.arange(start, min(start + size, len(batch)))
        part = SimpleNamespace(
            values=rows.values[picked],
            session=rows.session[picked],
            session_start=rows.session_start[picked],
            status=rows.status[picked],
        )
        parted.step(take(batch, picked), part, stage[picked])
        state = parted.snapshot()
        parted = Waiting(model())
        parted.restore(state)
    assert parted.snapshot() == whole.snapshot()
    one, other = whole.tick(at(130.0)), parted.tick(at(130.0))
    for name in one.__struct_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_tick_says_what_the_model_says() -> None:
    waiting = Waiting(model(), level=0.5)
    batch, rows, stage = batch_of([(0.0, 1, "page_view")])
    waiting.step(batch, rows, stage)
    due = waiting.tick(at(40.0))
    expected = model().expect(batch, rows, stage)
    np.testing.assert_allclose(
        due.hesitation, hesitation(model().shapes, expected, np.array([40.0]))
    )
    np.testing.assert_allclose(due.p_returns, p_returns(model().shapes, expected, np.array([40.0])))


def test_sessions_are_bounded_and_other_states_refused() -> None:
    waiting = Waiting(model(), max_sessions=50)
    for k in range(1, 2_000):
        waiting.step(*batch_of([(k / 10.0, k, "page_view")]))
    assert len(waiting.snapshot()) < 64 * 1_100
    with pytest.raises(SnapshotError, match="this model"):
        Waiting(model(), level=0.5).restore(waiting.snapshot())
    with pytest.raises(SnapshotError, match="this model"):
        waiting.restore(b"something else")
    with pytest.raises(ConfigError, match="level"):
        Waiting(model(), level=1.0)
