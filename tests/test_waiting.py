"""Waits of open sessions: told once, at the right tick, whatever the size of batches."""

import functools

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.engine import NO_TICKS
from recoup.errors import ConfigError, SnapshotError
from recoup.events import EVENT_SCHEMA, MICROS, EventBatch, conform, empty_frames, encode
from recoup.friction import SIGNALS
from recoup.friction.hesitation import HesitationModel, hesitation, p_returns, patience_s
from recoup.friction.hesitation_training import HesitationSettings, fit_hesitation
from recoup.friction.moment import Kept, Moment, furthest_stage
from recoup.friction.waiting import Due, Waiting
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows
from recoup.runners.ticks import ticks_among
from recoup.state import Changes

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


def moment_of(lines: list[Line]) -> Moment:
    frame = pl.DataFrame(
        {
            "ts": [START + round(second * MICROS) for second, *_ in lines],
            "source": ["test"] * len(lines),
            "id": [str(k) for k in range(len(lines))],
            "seq": [0] * len(lines),
            "event": [event for *_, event in lines],
            "visitor": [f"v{session}" for _, session, _ in lines],
        },
        schema_overrides={"ts": pl.Int64, "event": pl.String},
    ).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    count = len(lines)
    rows = Kept(
        values=np.full((count, 1), 0.5),
        session=np.array([session for _, session, _ in lines], np.int64),
        session_start=np.zeros(count, np.int64),
        status=np.zeros(count, np.int8),
    )
    batch = EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])
    codes = encode(batch, ("event",))["event"].astype(np.int64)
    nothing = np.zeros((count, len(SIGNALS)), np.bool_)
    intent = np.array([second for second, *_ in lines]) / 10_000.0
    return Moment(batch, rows, ("x",), intent, nothing, furthest_stage(codes, rows.session))


def key_of(lines: list[Line], row: int) -> int:
    return int(encode(moment_of(lines).batch, ("key",))["key"][row])


def at(*seconds: float) -> NDArray[np.int64]:
    return np.array([START + round(second * MICROS) for second in seconds], np.int64)


def tick(waiting: Waiting, second: float) -> Due:
    """Tick where nothing else happens."""
    return waiting.step(moment_of([]), at(second)).due


def first(due: Due) -> list[int]:
    told: list[int] = due.session[due.look == 0].tolist()
    return told


def test_a_wait_is_told_when_it_has_become_too_long() -> None:
    waiting = Waiting(model())
    lines = [(0.0, 1, "page_view"), (1.0, 2, "page_view"), (30.0, 2, "view_item")]
    told = waiting.step(moment_of(lines), NO_TICKS)
    assert len(told.due) == 0
    assert told.patience_s[0] == pytest.approx(43.0, rel=0.1)
    assert len(tick(waiting, 32.0)) == 0
    due = tick(waiting, 62.0)
    assert (due.session.tolist(), due.visitor.to_list()) == ([1], ["v1"])
    assert due.since.tolist() == [START]
    assert (due.look[0], due.ts[0], due.row[0]) == (0, at(62.0)[0], 0)
    assert 0.9 <= due.hesitation[0] < 1.0
    assert 0.0 < due.p_returns[0] < 0.5
    assert 0.5 < due.loss[0] < 1.0
    assert len(tick(waiting, 63.0)) == 0
    assert first(tick(waiting, 120.0)) == [2]
    waiting.step(moment_of([(130.0, 1, "page_view")]), NO_TICKS)
    assert first(tick(waiting, 250.0)) == [1]


def test_a_wait_is_looked_at_again_while_it_lasts() -> None:
    waiting = Waiting(model())
    due = waiting.step(moment_of([(0.0, 1, "page_view"), (1_900.0, 2, "scroll")]),
                       at(*range(10, 1_900, 10))).due  # fmt: skip
    seconds = ((due.ts - START) / MICROS).tolist()
    assert due.look.tolist() == [0, 1, 2, 3]
    assert [second - seconds[0] for second in seconds] == [0.0, 30.0, 120.0, 600.0]
    assert due.row.tolist() == [1] * 4
    assert due.visitor.to_list() == ["v1"] * 4
    assert (np.diff(due.p_returns) < 0).all()


def test_what_happens_on_a_page_ends_no_wait_and_a_closed_session_is_no_wait() -> None:
    waiting = Waiting(model())
    lines = [(0.0, 1, "page_view"), (50.0, 1, "scroll"), (0.0, 2, "page_view")]
    waiting.step(moment_of(lines), NO_TICKS)
    due = tick(waiting, 100.0)
    assert first(due) == [1, 2]
    assert due.intent.tolist() == [0.005, 0.0]
    waiting.step(moment_of([(200.0, 3, "page_view")]), NO_TICKS)
    assert len(tick(waiting, 200.0 + LIMIT_S)) == 0


def test_a_careful_reader_is_told_only_once_they_have_fallen_silent() -> None:
    """They scroll through a long page for two minutes, where 43 s of silence are too long."""
    waiting = Waiting(model())
    reads = [(0.0, 1, "page_view"), *((10.0 * k, 1, "scroll") for k in range(1, 13))]
    moment = moment_of([*reads, (125.0, 2, "scroll")])
    assert len(waiting.step(moment, at(*range(10, 125, 10))).due) == 0
    assert len(tick(waiting, 160.0)) == 0
    due = tick(waiting, 170.0)
    assert (first(due), due.since.tolist()) == ([1], [START])
    waiting.step(moment_of([(175.0, 1, "scroll")]), NO_TICKS)
    assert tick(waiting, 200.0).look.tolist() == [1]


def test_who_was_seen_on_the_page_is_more_likely_to_come_back() -> None:
    """Of two who have waited for 100 s, the one who scrolled at 50 s had not left by then."""
    waiting = Waiting(model())
    lines = [(0.0, 1, "page_view"), (0.0, 2, "page_view"), (50.0, 2, "scroll")]
    moment = moment_of(lines)
    waiting.step(moment, NO_TICKS)
    due = tick(waiting, 100.0)
    assert due.hesitation[0] == due.hesitation[1]
    expected = model().expect(moment.batch, moment.rows, moment.stage)
    by_now, by_then = (hesitation(model().shapes, expected, np.full(3, s)) for s in (100.0, 50.0))
    stays = expected.goes_on * (1.0 - by_now) / (1.0 - by_then)
    assert due.p_returns[1] == pytest.approx(stays[1] / (stays[1] + 1.0 - expected.goes_on[1]))
    assert due.p_returns[1] > 2.0 * due.p_returns[0]


@pytest.mark.parametrize("event", ["page_timing", "stock_status", "delivery", "payment_error"])
def test_what_no_shopper_does_is_no_sign_of_reading(event: str) -> None:
    waiting = Waiting(model())
    waiting.step(moment_of([(0.0, 1, "page_view"), (40.0, 1, event)]), NO_TICKS)
    assert first(tick(waiting, 50.0)) == [1]


def test_a_triple_click_and_a_comparison_shopper_wait_for_nothing() -> None:
    clicks = [(20.0 + k / 10, 1, "click_frustration") for k in range(3)]
    compares = [(20.0 * k, 2, "view_item") for k in range(4)]
    waiting = Waiting(model())
    lines = sorted([(0.0, 1, "view_item"), *clicks, *compares])
    assert len(waiting.step(moment_of(lines), at(*range(10, 60, 10))).due) == 0
    assert first(tick(waiting, 62.0)) == []


def test_nobody_waits_after_buying_nor_once_found_to_be_no_shopper() -> None:
    waiting = Waiting(model())
    lines = [(0.0, 1, "page_view"), (5.0, 1, "purchase"), (6.0, 2, "page_view")]
    waiting.step(moment_of([*lines, (7.0, 3, "page_view")]), NO_TICKS)
    waiting.leave_out([2])
    assert first(tick(waiting, 300.0)) == [3]


def test_a_step_that_comes_late_begins_no_wait_over_a_later_one() -> None:
    waiting = Waiting(model())
    lines = [(50.0, 1, "page_view"), (10.0, 1, "page_view"), (20.0, 1, "scroll")]
    waiting.step(moment_of(lines), NO_TICKS)
    due = tick(waiting, 100.0)
    assert (due.since.tolist(), due.event.tolist()) == ([START + 50 * MICROS], [key_of(lines, 0)])
    assert due.intent.tolist() == [0.005]


def test_an_event_told_again_changes_nothing() -> None:
    waiting = Waiting(model())
    moment = moment_of([(0.0, 1, "page_view"), (20.0, 1, "page_view")])
    assert isinstance(moment.rows, Kept)
    rows = msgspec.structs.replace(moment.rows, status=np.array([0, 2], np.int8))
    told = waiting.step(msgspec.structs.replace(moment, rows=rows), NO_TICKS)
    assert np.isnan(told.patience_s).tolist() == [False, True]
    assert tick(waiting, 100.0).since.tolist() == [START]


LINES = st.lists(
    st.tuples(st.integers(0, 900), st.integers(1, 5), st.sampled_from(["page_view", "scroll"])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=25)
@given(lines=LINES, size=st.integers(1, 9), every=st.sampled_from([1.0, 7.0, 60.0]))
def test_batches_of_any_size_and_a_restore_change_nothing(
    lines: list[Line], size: int, every: float
) -> None:
    """Events late and in order, with the ticks that they bring among them."""
    moment = moment_of([(float(s), who, event) for s, who, event in lines])
    ts = moment.batch.column("ts").astype(np.int64)
    whole, parted, parts = Waiting(model()), Waiting(model()), dict[str, bytes]()
    want, got, watermark = whole.step(moment, ticks_among(ts, None, every)).due, [], None
    for start in range(0, len(moment), size):
        own = np.zeros(len(moment), np.bool_)
        own[start : start + size] = True
        due = parted.step(moment.where(own), ticks_among(ts[own], watermark, every)).due
        got.append((start, due))
        watermark = int(ts[: start + size].max())
        parts = keep(parts, parted.changes())
        parted = Waiting(model())
        parted.restore_parts(parts)
    whole.changes()
    assert parted.snapshot() == whole.snapshot()
    assert np.concatenate([start + due.row for start, due in got]).tolist() == want.row.tolist()
    for name in ("ts", "session", "event", "since", "look", "intent", "hesitation", "p_returns"):
        found = np.concatenate([getattr(due, name) for _, due in got])
        np.testing.assert_array_equal(found, getattr(want, name))


def keep(parts: dict[str, bytes], changes: Changes) -> dict[str, bytes]:
    kept = {name: state for name, state in parts.items() if name not in changes.dropped}
    return kept | changes.saved


def by_hand(lines: list[Line], ticks: NDArray[np.int64], patience_us: int) -> set[tuple[int, int]]:
    """Ask at every tick, session by session, what has happened until then: (tick, session)."""
    told, seen = set(), set()
    for now in ticks.tolist():
        for session in {who for _, who, _ in lines}:
            steps = [START + s * MICROS for s, who, e in lines if who == session and e != "scroll"]
            since = max((ts for ts in steps if ts <= now), default=None)
            if since is None or (session, since) in seen:
                continue
            own = [START + s * MICROS for s, who, _ in lines if who == session]
            silent = now - max(ts for ts in own if ts <= now)
            if patience_us <= silent and now - since < LIMIT_S * MICROS:
                seen.add((session, since))
                told.add((now, session))
    return told


@settings(max_examples=25)
@given(lines=LINES)
def test_waits_in_order_are_told_as_a_loop_over_ticks_tells_them(lines: list[Line]) -> None:
    ordered = sorted(lines)
    moment = moment_of([(float(s), who, event) for s, who, event in ordered])
    ticks = ticks_among(moment.batch.column("ts").astype(np.int64), None, 7.0)
    told = Waiting(model()).step(moment, ticks)
    patience = told.patience_s[np.isfinite(told.patience_s)]
    if not len(patience):
        return
    want = by_hand(ordered, ticks, int(np.ceil(patience[0] * MICROS)))
    due = told.due
    new = due.look == 0
    assert set(zip(due.ts[new].tolist(), due.session[new].tolist(), strict=True)) == want


def test_a_tick_says_what_the_model_says() -> None:
    waiting = Waiting(model(), level=0.5)
    moment = moment_of([(0.0, 1, "page_view")])
    waiting.step(moment, NO_TICKS)
    due = tick(waiting, 40.0)
    expected = model().expect(moment.batch, moment.rows, moment.stage)
    shapes, elapsed = model().shapes, np.array([40.0])
    np.testing.assert_allclose(due.hesitation, hesitation(shapes, expected, elapsed))
    np.testing.assert_allclose(due.p_returns, p_returns(shapes, expected, elapsed))
    np.testing.assert_allclose(due.loss, 1.0 - due.p_returns / expected.goes_on)
    patience = patience_s(shapes, expected, 0.5)
    np.testing.assert_allclose(hesitation(shapes, expected, patience), 0.5, atol=1e-6)


def test_sessions_are_bounded_and_other_states_refused() -> None:
    waiting = Waiting(model(), max_sessions=50)
    for k in range(1, 2_000, 50):
        lines = [(j / 10.0, j, "page_view") for j in range(k, k + 50)]
        waiting.step(moment_of(lines), NO_TICKS)
    assert len(waiting.snapshot()) < 110 * 1_100
    waiting.step(moment_of([(200.0 + LIMIT_S, 9_999, "page_view")]), NO_TICKS)
    head = waiting.changes().saved["head"]
    assert b"v9999" in head
    assert len(head) < 150  # and no visitor of a wait that is over
    with pytest.raises(SnapshotError, match="this model"):
        Waiting(model(), level=0.5).restore(waiting.snapshot())
    with pytest.raises(SnapshotError, match="this model"):
        waiting.restore(b"something else")
    with pytest.raises(ConfigError, match="level"):
        Waiting(model(), level=1.0)


def test_ticks_pause_where_nobody_can_be_waiting() -> None:
    day = 86_400.0
    ticks = ticks_among(at(0.0, day), None, 10.0)
    assert len(ticks) == LIMIT_S / 10 + 1
    assert len(ticks_among(at(0.0, 0.0, 3.0), int(at(0.0)[0]), 10.0)) <= 1
    assert len(ticks_among(at(), None)) == 0
    with pytest.raises(ConfigError, match="millisecond"):
        ticks_among(at(0.0), None, 0.0)
