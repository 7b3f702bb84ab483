"""The policy: exact propensities, slices that hold, limits kept, one path for all sizes."""

import datetime as dt
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.decisions import DECISION_SCHEMA, Defect, Interval, Recommendation
from recoup.errors import ConfigError, SnapshotError
from recoup.events import CODE, EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, conform, hash_column, take
from recoup.friction.moment import Moment
from recoup.friction.signals import SignalDetector
from recoup.policies import Beliefs, ExpectedNetValue, Settings, SingleDecider
from recoup.policies.slices import slice_of, uniform
from recoup.policies.version import REASONS

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
NAMES = ["view_item", "add_to_cart", "begin_checkout", "payment_error", "page_view", "purchase"]


def moment_of(names: list[str], visitors: list[str], *, gap_s: int = 10, first: int = 0) -> Moment:
    count = len(names)
    frame = pl.DataFrame(
        {
            "ts": [START + dt.timedelta(seconds=gap_s * (first + n)) for n in range(count)],
            "source": ["web"] * count,
            "id": [str(first + n) for n in range(count)],
            "seq": [0] * count,
            "event": names,
            "visitor": visitors,
            "value": [60_000_000] * count,
        }
    )
    batch = EventBatch(conform(frame, EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA))
    return know(batch, SignalDetector())


def know(batch: EventBatch, detector: SignalDetector) -> Moment:
    session = hash_column(batch.events["visitor"])
    found = detector.step(batch, session)
    zeros = np.zeros(len(batch), np.int8)
    rows = SimpleNamespace(
        values=np.zeros((len(batch), 1)), session=session, session_start=session, status=zeros
    )
    intent = np.full(len(batch), 0.4)
    return Moment(batch, rows, ("none",), intent, found.signals, found.stage)


def declined(count: int) -> Moment:
    return moment_of(["payment_error"] * count, [f"v{n}" for n in range(count)])


@settings(max_examples=15)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=80),
    size=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_batches_of_any_size_and_a_restore_change_nothing(
    names: list[str], size: int, seed: int
) -> None:
    visitors = [f"v{n % 5}" for n in range(len(names))]
    whole = moment_of(names, visitors)
    expected = ExpectedNetValue(Settings(seed=seed)).step(whole)
    policy, detector, parts = ExpectedNetValue(Settings(seed=seed)), SignalDetector(), []
    for start in range(0, len(names), size):
        picked = np.arange(start, min(start + size, len(names)))
        parts.append(policy.step(know(take(whole.batch, picked), detector)))
        state = policy.snapshot()
        policy = ExpectedNetValue(Settings(seed=seed))
        policy.restore(state)
    assert pl.concat(parts).equals(expected)


def test_propensities_sum_to_one_keep_the_floor_and_are_those_drawn_by() -> None:
    frame = ExpectedNetValue(Settings(holdout_share=0.0)).step(declined(6000))
    assert frame.schema == DECISION_SCHEMA
    odds = frame["propensities"]
    np.testing.assert_allclose(odds.list.sum().to_numpy(), 1.0, atol=1e-12)
    assert odds.list.min().to_numpy().min() >= 0.02 - 1e-12
    policy = frame.filter(pl.col("slice") == "policy")
    for label in policy["options"][0]:
        share = (policy["action"] == label).mean()
        place = policy["options"][0].to_list().index(label)
        expected = policy["propensities"][0][place]
        error = 4 * (expected * (1 - expected) / policy.height) ** 0.5
        assert abs(share - expected) < error, (label, share, expected)


def test_slices_hold_for_good_and_the_holdout_is_never_acted_on() -> None:
    chosen = Settings(random_share=0.2, holdout_share=0.3)
    frame = ExpectedNetValue(chosen).step(declined(4000))
    shares = {name: (frame["slice"] == name).mean() for name in ("policy", "random", "holdout")}
    assert shares == pytest.approx({"policy": 0.5, "random": 0.2, "holdout": 0.3}, abs=0.03)
    held = frame.filter(pl.col("slice") == "holdout")
    assert set(held["action"]) == {"never"}
    assert set(held["propensity"]) == {1.0}
    free = frame.filter(pl.col("slice") == "random")
    assert free["propensities"].list.max().to_numpy() == pytest.approx(1 / 6)
    again = ExpectedNetValue(chosen, executes=False).step(declined(4000))
    assert again["slice"].equals(frame["slice"])
    assert not again["executed"].any()


def test_caps_cooldowns_and_stages_come_before_propensities() -> None:
    names = ["payment_error"] * 400
    frame = ExpectedNetValue(Settings(holdout_share=0.0, seed=3)).step(
        moment_of(names, ["v"] * 200 + ["w"] * 200, gap_s=1)
    )
    acts = frame.filter(pl.col("action") == "act:payment_retry")
    for _, own in acts.group_by("visitor"):
        gaps = np.diff(np.sort(own["ts"].dt.epoch("s").to_numpy()))
        assert own.height <= 2
        assert (gaps >= 120).all()
    early = ExpectedNetValue(Settings(holdout_share=0.0)).step(
        moment_of(["page_view", "view_item"], ["v", "w"])
    )
    assert early.height == 0


def test_nothing_is_decided_once_they_have_bought() -> None:
    frame = ExpectedNetValue().step(moment_of(["purchase", "payment_error"], ["v", "v"]))
    assert frame.height == 0


def test_a_coupon_is_not_worth_its_cost_for_one_who_would_have_bought_anyway() -> None:
    frame = ExpectedNetValue(Settings(holdout_share=0.0)).step(declined(1))
    worth = dict(zip(frame["options"][0], frame["values_micros"][0], strict=True))
    assert worth["act:coupon"] < 0 < worth["act:payment_retry"]
    assert worth["wait:600"] < worth["wait:30"] < worth["act:payment_retry"]
    assert worth["never"] == 0.0


def test_single_events_get_the_decisions_of_batches() -> None:
    moment = declined(200)
    chosen = Settings(holdout_share=0.0)
    frame = ExpectedNetValue(chosen).step(moment)
    decider = SingleDecider(ExpectedNetValue(chosen))
    keys = moment.batch.column("key") if hasattr(moment.batch, "column") else frame["event"]
    for n, row in enumerate(frame.iter_rows(named=True)):
        at = int(moment.batch.events["ts"].dt.epoch("us")[n])
        session = int(moment.rows.session[n])
        event = (at, int(keys[n]), CODE["payment_error"], session, 60_000_000, 0, 0, session, 4, 0)
        loss = float(Beliefs.prior().loss[0])
        one = decider.decide(
            row["visitor"], event, reason=REASONS.index("K5"), intent=0.4, loss=loss
        )
        assert one is not None
        assert (one.id, one.action.label, one.propensity) == (
            row["id"], row["action"], row["propensity"],
        )  # fmt: skip
        assert [o.value_micros for o in one.options] == row["values_micros"]


def test_single_events_follow_batches_beliefs_and_growth_of_the_same_policy() -> None:
    chosen = Settings(holdout_share=0.0)
    alone, mixed = ExpectedNetValue(chosen), ExpectedNetValue(chosen)
    decider = SingleDecider(mixed)
    loss = float(Beliefs.prior().loss[0])
    for round_number in range(3):
        moment = moment_of(["payment_error"] * 900, [f"v{round_number}-{n}" for n in range(900)])
        expected = alone.step(moment)
        events = zip(moment.batch.column("ts").tolist(), expected["event"], strict=True)
        for n, (at, key) in enumerate(events):
            session = int(moment.rows.session[n])
            event = (at, key, CODE["payment_error"], session, 60_000_000, 0, 0, session, 4, 0)
            one = decider.decide("v", event, reason=REASONS.index("K5"), intent=0.4, loss=loss)
            assert one is not None
            assert one.id == expected["id"][n]
            assert one.propensity == expected["propensity"][n]
        between = declined(300 * (round_number + 1))
        assert mixed.step(between).equals(alone.step(between))
        beliefs = Beliefs(alone.beliefs.recovered * 0.9, alone.beliefs.loss, 40_000_000)
        for policy in (alone, mixed):
            policy.adopt(beliefs)
            policy.restore(policy.snapshot())
        decider.refresh()


def test_a_confirmed_defect_opens_decision_points_on_its_entity() -> None:
    hour = Interval(1.0, low=0.5, high=1.5)
    defect = Defect(
        id="d", type="unexplained_drop", entity={"browser": "Safari"}, since=START, until=None,
        observed=5.0, expected=20.0, exposed=50, lost_orders_per_hour=hour,
        lost_value_per_hour=hour, confidence=0.95,
        recommended=Recommendation("error_recovery", 0.9, hour, 600.0), evidence="",
    )  # fmt: skip
    policy = ExpectedNetValue(Settings(holdout_share=0.0))
    moment = moment_of(["begin_checkout"] * 2, ["v", "w"])
    events = moment.batch.events.with_columns(browser=pl.Series(["Safari", "Chrome"]))
    moment = know(EventBatch(events, moment.batch.items), SignalDetector())
    assert policy.step(moment).height == 0
    policy.watch([defect])
    frame = policy.step(moment)
    assert frame["visitor"].to_list() == ["v"]
    assert frame["reason"].to_list() == ["unexplained_drop"]


def test_draws_are_uniform_and_belong_to_their_counter() -> None:
    draws = np.array([uniform(5, n) for n in range(20_000)])
    assert abs(draws.mean() - 0.5) < 0.01
    assert np.histogram(draws, 10, (0, 1))[0].min() > 1800
    assert uniform(5, 17) == draws[17]
    assert slice_of(1, 2, np.array([1.0, 0.0])) == 1


def test_settings_and_bytes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError):
        Settings(random_share=0.7, holdout_share=0.7)
    with pytest.raises(ConfigError):
        Settings(floor=0.5)
    with pytest.raises(SnapshotError):
        ExpectedNetValue().restore(b"something else")
