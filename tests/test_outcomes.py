import datetime as dt
from collections import Counter
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA
from recoup.errors import ConfigError, SnapshotError
from recoup.events import EVENT_SCHEMA, MICROS, EventBatch, conform, empty_frames, encode, take
from recoup.outcomes import ABANDONMENT_SCHEMA, Abandonment, Cost, Followed, OutcomeJoin
from recoup.testing import check_stage, random_batch, split_batch

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
COSTS = {"coupon": Cost(order_share=0.1), "retry": Cost(20_000, order_share=0.01)}
NOTHING = pl.DataFrame(schema=DECISION_SCHEMA)


def at(seconds: float) -> dt.datetime:
    return START + dt.timedelta(seconds=seconds)


def micros(seconds: float) -> int:
    return round((START.timestamp() + seconds) * MICROS)


def event(name: str, seconds: float, **more: object) -> dict[str, object]:
    """Make one event; its id says what it is and when."""
    known = {"ts": at(seconds), "source": "s", "id": f"{name}@{seconds}", "seq": 0, "visitor": "v"}
    return {**known, "event": name, **more}


def batch_of(*rows: dict[str, object]) -> EventBatch:
    frame = pl.DataFrame(list(rows), infer_schema_length=None)
    money = pl.selectors.by_name("value", require_all=False)
    scaled = frame.with_columns((money * MICROS).round().cast(pl.Int64))
    return EventBatch(conform(scaled, EVENT_SCHEMA), empty_frames()[1])


def decision(
    number: int, seconds: float, action: str = "never", visitor: str = "v", *, executed: bool = True
) -> pl.DataFrame:
    row = {"id": number, "ts": at(seconds), "visitor": visitor, "action": action}
    return conform(pl.DataFrame({**row, "executed": executed}), DECISION_SCHEMA)


def make(horizon_s: float = 100.0, lateness_s: float = 20.0, refund_s: float = 50.0) -> OutcomeJoin:
    return OutcomeJoin(COSTS, horizon_s=horizon_s, lateness_s=lateness_s, refund_s=refund_s)


def fold(
    join: OutcomeJoin, decisions: pl.DataFrame, *steps: list[dict[str, object]]
) -> list[tuple[object, ...]]:
    """Step with the decisions first, then with batches; give (id, value, orders, revision)."""
    outcomes = [join.step(Followed(EventBatch(*empty_frames()), decisions))]
    outcomes += [join.step(Followed(batch_of(*rows), NOTHING)) for rows in steps]
    frame = pl.concat(outcomes)
    assert frame.schema == OUTCOME_SCHEMA
    units = frame.select("decision", pl.col("net_value_micros") / MICROS, "orders", "revision")
    return units.rows()


def test_an_outcome_matures_once_the_watermark_has_passed_the_horizon() -> None:
    join = make()
    view = [event("page_view", 100.0)]
    assert fold(join, decision(1, 0), [event("purchase", 40, value=50)], view) == []
    assert join.waiting == 1
    matured = join.step(Followed(batch_of(event("page_view", 100.1)), NOTHING))
    assert matured.row(0) == (1, 100, 50 * MICROS, 1, at(100), 0, 0)
    assert join.waiting == 0


def test_a_tick_matures_as_an_event_does() -> None:
    join = make()
    join.step(Followed(EventBatch(*empty_frames()), decision(1, 0)))
    assert join.step(Followed(EventBatch(*empty_frames()), NOTHING, micros(100))).height == 0
    assert join.step(Followed(EventBatch(*empty_frames()), NOTHING, micros(101))).height == 1


def test_the_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    purchases = [event("purchase", ts, value=2**n) for n, ts in enumerate((0, 0.001, 100, 100.001))]
    assert fold(make(), decision(1, 0), purchases, [event("page_view", 150)]) == [(1, 6.0, 2, 0)]


def test_decisions_that_were_not_executed_are_never_joined() -> None:
    join = make()
    found = fold(
        join,
        decision(1, 0, "act:coupon", executed=False),
        [event("purchase", 5, value=9), event("page_view", 500)],
    )
    assert found == []
    assert join.waiting == 0


def test_each_decision_of_a_visitor_has_a_window_of_its_own() -> None:
    decisions = pl.concat([decision(1, 0), decision(2, 50), decision(3, 60, visitor="other")])
    steps = [
        event("purchase", 40, value=10),
        event("purchase", 120, value=1),
        event("page_view", 200),
    ]
    assert fold(make(), decisions, steps) == [(1, 10.0, 1, 0), (2, 1.0, 1, 0), (3, 0.0, 0, 0)]


def test_costs_are_taken_off_once_per_act_and_per_order() -> None:
    decisions = pl.concat(
        [decision(1, 0, "act:retry"), decision(2, 0, "act:coupon"), decision(3, 0, "wait:60")]
    )
    steps = [
        event("purchase", 1, value=10),
        event("purchase", 2, value=30),
        event("page_view", 200),
    ]
    assert fold(make(), decisions, steps) == [(1, 39.58, 2, 0), (2, 36.0, 2, 0), (3, 40.0, 2, 0)]
    assert fold(make(), decisions, [event("page_view", 200)]) == [
        (1, -0.02, 0, 0), (2, 0.0, 0, 0), (3, 0.0, 0, 0),
    ]  # fmt: skip


def test_what_later_acts_on_the_visitor_cost_in_the_window_stands_beside() -> None:
    acts = [decision(1, 0), decision(2, 10, "act:retry"), decision(3, 20, "act:coupon")]
    others = [decision(4, 101, "act:retry"), decision(5, 20, "act:coupon", visitor="other")]
    rows = [
        event("purchase", 15, value=10),
        event("purchase", 30, value=20),
        event("purchase", 110, value=40),
        event("page_view", 220),
    ]
    join = make()
    found = join.step(Followed(batch_of(*rows), pl.concat([*acts, *others])))
    later = dict(found.select("decision", pl.col("later_cost_micros") / MICROS).iter_rows())
    retries = (0.02 + 0.3, 0.02 + 0.4)
    assert later == pytest.approx({1: retries[0] + 2, 2: 6 + retries[1], 3: retries[1], 4: 0, 5: 0})
    net = dict(found.select("decision", pl.col("net_value_micros") / MICROS).iter_rows())
    assert net[1] == 30.0


def test_a_late_act_revises_the_window_that_it_lies_in() -> None:
    join = make()
    rows = [event("purchase", 30, value=20), event("page_view", 110)]
    first = join.step(Followed(batch_of(*rows), decision(1, 0)))
    assert first["later_cost_micros"].to_list() == [0]
    again = join.step(Followed(EventBatch(*empty_frames()), decision(2, 95, "act:retry")))
    told = again.select("decision", "revision", "later_cost_micros").rows()
    assert told == [(1, 1, 20_000)]


def test_an_executed_intervention_without_a_cost_is_refused() -> None:
    with pytest.raises(ConfigError, match="gift"):
        fold(make(), decision(1, 0, "act:gift"))


def test_a_receipt_seen_again_is_one_order() -> None:
    steps = [event("purchase", ts, value=10, order="A") for ts in (5, 9, 30)]
    assert fold(make(), decision(1, 0), [*steps, event("page_view", 200)]) == [(1, 10.0, 1, 0)]
    before = [event("purchase", ts, value=10, order="A") for ts in (-5, 9)]
    assert fold(make(), decision(1, 0), [*before, event("page_view", 200)]) == [(1, 0.0, 0, 0)]


def test_a_receipt_seen_again_long_after_its_order_is_no_new_one() -> None:
    join = make(refund_s=500.0)
    join.step(Followed(batch_of(event("purchase", 0, value=10, order="A")), NOTHING))
    join.step(Followed(batch_of(event("page_view", 400)), decision(1, 400)))
    again = batch_of(event("purchase", 401, value=10, order="A"), event("page_view", 600))
    assert join.step(Followed(again, NOTHING))["orders"].to_list() == [0]


def test_a_late_order_revises_a_matured_outcome() -> None:
    found = fold(
        make(),
        decision(1, 0, "act:coupon"),
        [event("page_view", 110)],
        [event("purchase", 95, value=20)],
        [event("purchase", 105, value=7)],
        [event("purchase", 99, value=30)],
    )
    assert found == [(1, 0.0, 0, 0), (1, 18.0, 1, 1), (1, 45.0, 2, 2)]


def test_a_late_order_that_changes_nothing_revises_nothing() -> None:
    order = event("purchase", 50, value=20, order="A")
    again = event("purchase", 95, value=20, order="A")
    assert fold(make(), decision(1, 0), [order, event("page_view", 110)], [again]) == [
        (1, 20.0, 1, 0)
    ]


def test_refunds_of_an_order_count_up_to_its_value_and_for_their_time() -> None:
    bought = [event("purchase", 5, value=20, order="A"), event("page_view", 101)]
    back = {"order": "A"}
    assert fold(make(), decision(1, 0), bought, [event("refund", 140, value=5, **back)]) == [
        (1, 20.0, 1, 0), (1, 15.0, 1, 1),
    ]  # fmt: skip
    whole = [event("refund", 6, value=15, **back), event("refund", 7, value=15, **back)]
    assert fold(make(), decision(1, 0), [*whole, *bought]) == [(1, 0.0, 1, 0)]
    unvalued = [event("refund", 50, **back)]
    assert fold(make(), decision(1, 0), bought[:1], unvalued, bought[1:]) == [(1, 0.0, 1, 0)]
    too_old = [event("refund", 151, value=5, **back)]
    assert fold(make(), decision(1, 0), bought, too_old) == [(1, 20.0, 1, 0)]
    of_another = [event("refund", 50, value=5, order="B")]
    assert fold(make(), decision(1, 0), of_another, bought) == [(1, 20.0, 1, 0)]


def test_a_refund_that_names_no_order_counts_in_its_window() -> None:
    steps = [
        event("purchase", 5, value=20),
        event("refund", 50, value=8),
        event("refund", 101, value=4),
    ]
    assert fold(make(), decision(1, 0), [*steps, event("page_view", 102)]) == [(1, 12.0, 1, 0)]


def test_a_decision_on_a_late_event_counts_the_orders_that_came_before_it() -> None:
    join = make()
    join.step(Followed(batch_of(event("purchase", 30, value=4)), NOTHING))
    late = Followed(batch_of(event("page_view", 15)), decision(1, 15))
    join.step(late)
    found = join.step(Followed(batch_of(event("page_view", 200)), NOTHING))
    assert found["net_value_micros"].to_list() == [4 * MICROS]


def test_the_state_forgets_what_nothing_can_revise() -> None:
    join = make()
    sizes = []
    for number in range(200):
        start = number * 40.0
        rows = [
            event("purchase", start + 5, value=3, order=f"o{number}"),
            event("page_view", start + 39),
        ]
        join.step(Followed(batch_of(*rows), decision(number, start)))
        sizes.append(len(join.snapshot()))
    assert max(sizes[100:]) <= max(sizes[:100]) + 8
    assert join.waiting <= 4


def random_steps(seed: int, parts: int = 3) -> list[Followed]:
    """Make batches whose page views are decided on; repeated receipts and refunds among them."""
    steps = []
    for part in range(parts):
        batch = random_batch(120, seed=seed * 10 + part, visitors=6, start_s=220 * part)
        orders = pl.Series([f"o{n % 7}" if n % 3 else None for n in range(120)])
        batch = EventBatch(batch.events.with_columns(order=orders), batch.items)
        steps.append(Followed(batch, decide(batch)))
    return steps


def decide(batch: EventBatch) -> pl.DataFrame:
    keys = encode(batch, ["key"])["key"].astype(np.int64)
    frame = batch.events.select("ts", "visitor", "event").with_columns(
        id=pl.Series(keys),
        action=pl.Series(np.where(keys % 2 == 0, "act:coupon", "never")),
        executed=pl.Series(keys % 3 > 0),
    )
    chosen = frame.filter(pl.col("event") == "page_view").drop("event")
    return conform(chosen, DECISION_SCHEMA)


def split(step: Followed, size: int) -> list[Followed]:
    return [Followed(part, decide(part)) for part in split_batch(step.batch, size)]


@pytest.mark.parametrize("seed", range(3))
def test_the_join_is_a_fold_whatever_the_size_of_its_batches(seed: int) -> None:
    check_stage(
        lambda: make(horizon_s=60.0), random_steps(seed), split=split, join=pl.concat, sizes=(1, 17)
    )


@given(seed=st.integers(0, 10**6), shuffle=st.integers(0, 10**6))
@settings(max_examples=25)
def test_final_outcomes_are_what_brute_force_says_in_any_order_of_arrival(
    seed: int, shuffle: int
) -> None:
    batch = random_steps(seed, parts=1)[0].batch
    jitter = np.random.Generator(np.random.PCG64(shuffle)).uniform(0, 19e6, len(batch))
    arrival = np.argsort(batch.events["ts"].to_physical().to_numpy() + jitter, kind="stable")
    join = make(horizon_s=60.0, refund_s=1000.0)
    found = [
        join.step(Followed(part, decide(part))) for part in split_batch(take(batch, arrival), 11)
    ]
    found.append(join.step(Followed(EventBatch(*empty_frames()), NOTHING, micros(10_000))))
    last = {row[0]: (*row[2:4], row[6]) for row in pl.concat(found).rows()}
    assert last == brute_force(batch, horizon=60 * MICROS, refund=1000 * MICROS)


def brute_force(batch: EventBatch, horizon: int, refund: int) -> dict[int, tuple[int, int, int]]:
    rows = batch.events.with_columns(pl.col("ts").to_physical()).to_dicts()
    expected = {}
    decided = decide(batch).with_columns(pl.col("ts").to_physical()).to_dicts()
    for made in decided:
        if not made["executed"]:
            continue
        mine = [row for row in rows if row["visitor"] == made["visitor"]]
        end = made["ts"] + horizon
        orders: dict[str, tuple[int, int]] = {}
        for row in mine:
            if row["event"] == "purchase":
                key = row["order"] or f"event {row['id']}"
                orders[key] = min(
                    orders.get(key, (row["ts"], row["value"])), (row["ts"], row["value"])
                )
        counted = {key: value for key, (ts, value) in orders.items() if made["ts"] < ts <= end}
        given_back: Counter[str] = Counter()
        unnamed = 0
        for row in mine:
            if row["event"] != "refund" or row["ts"] <= made["ts"]:
                continue
            if row["order"] in counted and row["ts"] <= end + refund:
                given_back[row["order"]] += row["value"]
            elif not row["order"] and row["ts"] <= end:
                unnamed += row["value"]
        refunds = unnamed + sum(min(value, given_back[key]) for key, value in counted.items())
        share = 0.1 if made["action"] == "act:coupon" else 0.0
        cost = sum(round(value * share) for value in counted.values())
        net = sum(counted.values()) - refunds - cost
        expected[made["id"]] = (net, len(counted), later_cost(decided, made, end, orders))
    return expected


def later_cost(
    decided: list[dict[str, Any]],
    made: dict[str, Any],
    end: int,
    orders: dict[str, tuple[int, int]],
) -> int:
    cost = 0
    for other in decided:
        same = other["executed"] and other["visitor"] == made["visitor"]
        if same and other["action"] == "act:coupon" and made["ts"] < other["ts"] <= end:
            placed = [value for ts, value in orders.values() if other["ts"] < ts <= end]
            cost += sum(round(value * 0.1) for value in placed)
    return cost


def test_a_join_of_other_settings_is_refused() -> None:
    with pytest.raises(SnapshotError, match="settings"):
        make(horizon_s=50.0).restore(make().snapshot())


@pytest.mark.parametrize(
    "wrong", [{"horizon_s": 10.0}, {"lateness_s": -1.0}, {"refund_s": float("inf")}]
)
def test_lengths_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="horizon_s"):
        make(**wrong)


# Abandonment


def left(
    *rows: dict[str, object], now: float = 10_000.0, horizon_s: float = 100.0
) -> tuple[list[tuple[float, float, str]], Abandonment]:
    """Fold events, then silence; give the abandoned carts as (opened, left, step)."""
    stage = Abandonment(horizon_s=horizon_s, lateness_s=20.0)
    frames = [stage.step(encode(batch_of(*rows), stage.columns)), stage.tick(micros(now))]
    frame = pl.concat(frames)
    assert frame.schema == ABANDONMENT_SCHEMA
    times = [(row[1], row[2], row[4]) for row in frame.rows()]
    return [
        ((a - START).total_seconds(), (b - START).total_seconds(), s) for a, b, s in times
    ], stage


@pytest.mark.parametrize(
    ("names", "step"),
    [
        (["add_to_cart"], "cart"),
        (["page_view", "view_cart", "page_view"], "cart"),
        (["begin_checkout"], "checkout"),
        (["add_to_cart", "begin_checkout", "view_cart"], "checkout"),
        (["add_to_cart", "begin_checkout", "add_shipping_info"], "shipping"),
        (["begin_checkout", "add_payment_info", "add_shipping_info"], "payment"),
        (["begin_checkout", "payment_error"], "payment"),
    ],
)
def test_a_cart_left_is_counted_by_the_last_step_reached(names: list[str], step: str) -> None:
    abandoned, stage = left(*(event(name, n) for n, name in enumerate(names)))
    opened = 1.0 if names[0] == "page_view" else 0.0
    assert abandoned == [(opened, len(names) - 1.0, step)]
    assert stage.carts().abandoned == {step: 1}


def test_a_purchase_is_no_abandonment() -> None:
    abandoned, stage = left(event("add_to_cart", 0), event("purchase", 50), event("page_view", 60))
    assert abandoned == []
    assert (stage.carts().opened, stage.carts().purchased, stage.carts().waiting) == (1, 1, 0)


def test_who_leaves_and_returns_within_the_horizon_has_abandoned_nothing() -> None:
    rows = [event("add_to_cart", 0), event("page_view", 90), event("page_view", 180)]
    abandoned, stage = left(*rows, event("purchase", 270))
    assert abandoned == []
    assert stage.carts().opened == 1


def test_who_returns_after_the_horizon_has_abandoned_one_cart_and_opens_another() -> None:
    abandoned, stage = left(
        event("add_to_cart", 0), event("begin_checkout", 101), event("purchase", 102)
    )
    assert abandoned == [(0.0, 0.0, "cart")]
    assert (stage.carts().opened, stage.carts().purchased) == (2, 1)


def test_a_return_at_the_very_horizon_counts() -> None:
    assert left(event("add_to_cart", 0), event("page_view", 100), now=150)[0] == []


def test_what_happens_to_a_visitor_is_no_return() -> None:
    abandoned, _ = left(
        event("add_to_cart", 0), event("delivery", 90), event("refund", 99), now=130
    )
    assert abandoned == [(0.0, 0.0, "cart")]


def test_a_cart_whose_horizon_has_not_passed_waits() -> None:
    abandoned, stage = left(event("add_to_cart", 0), now=115)
    assert abandoned == []
    assert (stage.carts().waiting, stage.carts().abandoned) == (1, {})


def test_carts_of_events_that_are_not_settled_are_counted() -> None:
    stage = Abandonment(horizon_s=100.0, lateness_s=20.0)
    stage.step(encode(batch_of(event("add_to_cart", 0), event("page_view", 5)), stage.columns))
    before = stage.snapshot()
    assert (stage.carts().opened, stage.carts().waiting) == (1, 1)
    assert stage.snapshot() == before


def test_somebody_elses_events_are_no_return() -> None:
    abandoned, _ = left(event("add_to_cart", 0), event("page_view", 60, visitor="w"), now=150)
    assert len(abandoned) == 1


def encoded(batch: EventBatch) -> dict[str, np.ndarray]:
    return encode(batch, Abandonment.columns)


def split_columns(columns: dict[str, np.ndarray], size: int) -> list[dict[str, np.ndarray]]:
    count = len(columns["ts"])
    return [
        {name: column[start : start + size] for name, column in columns.items()}
        for start in range(0, count, size)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_abandonment_is_a_fold_whatever_the_size_of_its_batches(seed: int) -> None:
    steps = [encoded(random_batch(200, seed=seed * 9 + n, start_s=350 * n)) for n in range(3)]
    check_stage(
        lambda: Abandonment(horizon_s=45.0, lateness_s=15.0),
        steps,
        split=split_columns,
        join=pl.concat,
        sizes=(1, 17),
    )


@given(seed=st.integers(0, 10**6), shuffle=st.integers(0, 10**6))
@settings(max_examples=25)
def test_the_order_of_arrival_within_the_lateness_changes_nothing(seed: int, shuffle: int) -> None:
    batch = random_batch(150, seed=seed, visitors=8)
    ts = batch.events["ts"].to_physical().to_numpy()
    jitter = np.random.Generator(np.random.PCG64(shuffle)).uniform(0, 14e6, len(batch))
    results = []
    for order in (np.argsort(ts, kind="stable"), np.argsort(ts + jitter, kind="stable")):
        stage = Abandonment(horizon_s=25.0, lateness_s=15.0)
        frames = [stage.step(encoded(part)) for part in split_batch(take(batch, order), 13)]
        frames.append(stage.tick(micros(10_000)))
        results.append((pl.concat(frames).rows(), stage.carts(), stage.snapshot()))
    assert results[0] == results[1]
    assert results[0][1].opened > 0


def test_abandonment_of_other_settings_is_refused() -> None:
    with pytest.raises(SnapshotError, match="settings"):
        Abandonment(horizon_s=5.0).restore(Abandonment(horizon_s=6.0).snapshot())
    with pytest.raises(ConfigError, match="horizon_s"):
        Abandonment(horizon_s=0.0)
