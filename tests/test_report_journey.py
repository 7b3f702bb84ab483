"""The tally against a recomputation by hand, for any order of arrival and any batches."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.decisions import DECISION_SCHEMA
from recoup.errors import SnapshotError
from recoup.events import EVENT_SCHEMA, MICROS, conform, hash64
from recoup.report import DecisionTally, Funnel, SessionTally, Steps
from recoup.report.summary import SEGMENTS, STAGES

BEGIN = dt.datetime(2016, 9, 1, 23, tzinfo=dt.UTC)
GAP_S = 1800
NAMES = ("page_view", "view_item_list", "view_item", "add_to_cart", "begin_checkout", "purchase")


class Event(NamedTuple):
    """An event as the brute force sees it; ``own`` numbers the source's session, or is None."""

    second: int
    visitor: str
    own: int | None
    stage: int
    device: str | None
    order: str | None
    value: int
    intent: float


events_of = st.builds(
    Event,
    st.integers(0, 40_000),
    st.sampled_from(["plain-a", "plain-b", "named-c"]),
    st.integers(0, 2),
    st.integers(0, 5),
    st.sampled_from([None, "desktop", "mobile"]),
    st.sampled_from([None, "o1", "o2"]),
    st.integers(-(10**7), 10**9),
    st.sampled_from([float("nan"), 0.0, 0.01, 0.3, 1.0]),
)


def _distinct(events: Sequence[Event]) -> list[Event]:
    """One event a second, so that "earliest" is one; ids of the source only for named visitors."""
    by_second = {event.second: event for event in events}
    return [
        event._replace(own=event.own if event.visitor.startswith("named") else None)
        for _, event in sorted(by_second.items())
    ]


def _true_sessions(events: Sequence[Event]) -> list[list[Event]]:
    sessions: dict[object, list[Event]] = {}
    last: dict[str, tuple[int, int]] = {}
    for event in events:
        key: object = (event.visitor, event.own)
        if event.own is None:
            second, number = last.get(event.visitor, (-(10**9), 0))
            number += event.second - second > GAP_S
            last[event.visitor] = (event.second, number)
            key = (event.visitor, "by silence", number)
        sessions.setdefault(key, []).append(event)
    return list(sessions.values())


def _steps(rows: Sequence[tuple[int, Event]]) -> Steps:
    frame = pl.DataFrame(
        {
            "ts": [BEGIN + dt.timedelta(seconds=event.second) for _, event in rows],
            "source": ["shop"] * len(rows),
            "id": [str(event.second) for _, event in rows],
            "seq": [0] * len(rows),
            "event": [NAMES[event.stage] for _, event in rows],
            "visitor": [event.visitor for _, event in rows],
            "session": [None if e.own is None else f"{e.visitor}/{e.own}" for _, e in rows],
            "device": [event.device for _, event in rows],
            "order": [event.order for _, event in rows],
            "value": [event.value for _, event in rows],
            "currency": ["EUR"] * len(rows),
        },
        schema={"ts": EVENT_SCHEMA["ts"]}
        | dict.fromkeys(("source", "id"), pl.String)
        | {"seq": pl.Int64}
        | dict.fromkeys(("event", "visitor", "session", "device", "order"), pl.String)
        | {"value": pl.Int64, "currency": pl.String},
    )
    return Steps(
        conform(frame, EVENT_SCHEMA),
        np.array([session for session, _ in rows], np.int64),
        np.array([event.stage for _, event in rows], np.int8),
        np.array([event.intent for _, event in rows]),
    )


def _served(sessions: Sequence[Sequence[Event]], seed: int) -> list[tuple[int, Event]]:
    """Give each event a session key as it might have been served, in a shuffled order.

    Where the source has no session ids, a late event may close a gap after rows were served: the
    pieces of one session then carry different keys.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for number, session in enumerate(sessions):
        pieces = 1 if session[0].own is not None else 1 + (draw.random() < 0.3)
        cut = int(draw.integers(len(session))) if pieces == 2 else len(session)
        rows += [(hash64(f"{number}/{k >= cut}"), event) for k, event in enumerate(session)]
    return [rows[k] for k in draw.permutation(len(rows))]


def _tallied(rows: Sequence[tuple[int, Event]], size: int) -> SessionTally:
    tally = SessionTally(session_gap_s=GAP_S)
    for start in range(0, len(rows), size):
        tally.step(_steps(rows[start : start + size]))
    return tally


@given(st.lists(events_of, max_size=40), st.integers(0, 10**6), st.integers(1, 41))
def test_the_tally_is_the_brute_force_for_any_order_and_batches(
    drawn: list[Event], seed: int, size: int
) -> None:
    events = _distinct(drawn)
    sessions = _true_sessions(events)
    tally = _tallied(_served(sessions, seed), size)
    found, totals = tally.result(), tally.totals()

    furthest = [max(event.stage for event in session) for session in sessions]
    reached = [sum(stage >= k for stage in furthest) for k in range(len(STAGES))]
    assert found.funnel == Funnel(*reached)
    assert found.sessions == len(sessions)
    assert found.visitors == len({event.visitor for event in events})

    bought = [event for event in events if event.stage == 5]
    orders = {event.order or f"event {event.second}": event for event in reversed(bought)}
    assert found.orders == len(orders)
    assert found.revenue == pytest.approx(sum(e.value for e in orders.values()) / MICROS)

    assert (totals.sessions, totals.orders) == (found.sessions, found.orders)
    assert (totals.revenue, totals.currency) == (found.revenue, found.currency)

    devices = Counter(
        next((event.device for event in session if event.device), "(unknown)")
        for session in sessions
    )
    told = {segment.value: segment.funnel.sessions for segment in found.segments.get("device", [])}
    assert told == ({} if set(devices) <= {"(unknown)"} else devices)

    begun = Counter(_date(session[0].second) for session in sessions)
    placed = Counter(_date(event.second) for event in orders.values())
    days = {day.date: (day.sessions, day.orders) for day in found.daily}
    assert {date: n for date, (n, _) in days.items() if n} == begun
    assert {date: n for date, (_, n) in days.items() if n} == placed


@given(st.lists(events_of, max_size=40), st.integers(0, 10**6))
def test_intent_is_compared_with_what_followed(drawn: list[Event], seed: int) -> None:
    sessions = _true_sessions(_distinct(drawn))
    found = _tallied(_served(sessions, seed), 7).result().intent
    counts: dict[float, list[int]] = defaultdict(list)
    for session in sessions:
        bought = max(event.stage for event in session) == 5
        for event in session:
            if event.stage < 5 and event.intent == event.intent:
                counts[event.intent].append(bought)
    assert [(b.events, round(b.predicted, 6)) for b in found] == [
        (len(hits), p) for p, hits in sorted(counts.items())
    ]
    assert [b.observed for b in found] == pytest.approx(
        [float(np.mean(hits)) for _, hits in sorted(counts.items())]
    )


@given(st.lists(events_of, max_size=30), st.integers(0, 30), st.integers(0, 10**6))
def test_snapshot_and_restore_anywhere_change_nothing(
    drawn: list[Event], cut: int, seed: int
) -> None:
    rows = _served(_true_sessions(_distinct(drawn)), seed)
    whole = _tallied(rows, 5)
    first = _tallied(rows[:cut], 3)
    again = SessionTally(session_gap_s=GAP_S)
    again.restore(first.snapshot())
    assert again.result() == first.result()
    if rows[cut:]:
        again.step(_steps(rows[cut:]))
    assert again.result() == whole.result()


def test_many_folds_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    events = [
        Event(
            7 * k, f"plain-{draw.integers(40)}", None, int(draw.integers(6)), "tv", None, 10**6, 0.1
        )
        for k in range(3000)
    ]
    rows = _served(_true_sessions(events), 3)
    once = _tallied(rows, 3000)
    monkeypatch.setattr("recoup.report.journey.PENDING_LIMIT", 64)
    assert _tallied(rows, 50).result() == once.result()


def test_values_beyond_the_limit_are_summed_up() -> None:
    events = [
        Event(4000 * k, f"plain-{k}", None, 5, f"d{min(k, 3)}", None, 10**6, 0.5) for k in range(8)
    ]
    tally = _tallied(_served(_true_sessions(events), 1), 8)
    devices = tally.result(segment_limit=1).segments["device"]
    assert [(s.value, s.funnel.sessions, s.orders, s.revenue) for s in devices] == [
        ("d3", 5, 5, 5.0),
        ("(other)", 3, 3, 3.0),
    ]


def test_orders_of_another_currency_are_told_apart_and_unnamed_ones_count() -> None:
    events = [Event(k, "plain-a", None, 5, None, f"o{k}", 2 * MICROS, 0.5) for k in range(4)]
    steps = _steps([(1, event) for event in events])
    priced = steps.events.with_columns(currency=pl.Series(["EUR", "EUR", "SEK", None]))
    tally = SessionTally()
    tally.step(Steps(priced, steps.session, steps.stage))
    found = tally.result()
    assert (found.currency, found.orders, found.other_currency_orders) == ("EUR", 4, 1)
    assert found.revenue == 6.0


def test_sums_beyond_64_bits_do_not_wrap() -> None:
    events = [Event(k, "plain-a", None, 5, None, f"o{k}", 2**63 - 1, 0.5) for k in range(5)]
    found = _tallied([(1, event) for event in events], 5).result()
    assert found.revenue == pytest.approx(5 * 2**63 / MICROS)


def test_a_stray_date_adds_no_thousands_of_days() -> None:
    events = [Event(k, "plain-a", None, 0, None, None, 0, 0.5) for k in (0, 40 * 365 * 86_400)]
    found = _tallied([(k, event) for k, event in enumerate(events)], 2).result()
    assert len(found.daily) == 2


def test_state_of_another_kind_is_refused() -> None:
    tally = SessionTally(session_gap_s=60)
    for state in (b"", b"\x00rubbish", SessionTally(session_gap_s=61).snapshot()):
        with pytest.raises(SnapshotError):
            tally.restore(state)
    for state in (b"", SessionTally().snapshot()):
        with pytest.raises(SnapshotError):
            DecisionTally().restore(state)


@given(st.permutations(range(6)), st.integers(1, 6))
def test_decisions_are_counted_in_any_order(order: list[int], size: int) -> None:
    rows = [
        {"ts": BEGIN + dt.timedelta(days=3 * k), "action": action, "reason": reason,
         "slice": part, "executed": k == 5}
        for k, (action, reason, part) in enumerate(
            [("never", "S1", "policy"), ("wait:60", "S1", "policy"), ("act:coupon", "K5", "random"),
             ("never", None, "holdout"), ("act:coupon", "K5", "policy"), ("wait:5", "K5", "policy")]
        )
    ]  # fmt: skip
    frame = conform(pl.DataFrame([rows[k] for k in order]), DECISION_SCHEMA)
    tally = DecisionTally()
    for start in range(0, 6, size):
        tally.step(frame[start : start + size])
    again = DecisionTally()
    again.restore(tally.snapshot())
    again.step(frame[:0])
    found = again.result()
    assert (found.total, found.executed) == (6, 1)
    assert found.by_action == {"act:coupon": 2, "never": 2, "wait:5": 1, "wait:60": 1}
    assert found.by_reason == {"K5": 3, "S1": 2, "": 1}
    assert found.by_slice == {"policy": 4, "holdout": 1, "random": 1}
    assert len(found.daily) == 16
    assert (found.daily[6].act, found.daily[7].act, found.daily[15].wait) == (1, 0, 1)


def test_the_attributes_are_columns_or_the_kind_of_visitor() -> None:
    assert {name for name in SEGMENTS if name not in EVENT_SCHEMA} == {"visitor_type"}


def _date(second: int) -> dt.date:
    return (BEGIN + dt.timedelta(seconds=second)).date()
