"""Time as data: ticks in the flow open decision points, and replay bit for bit."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import lightgbm as lgb
import msgspec
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recoup.decisions import DECISION_SCHEMA
from recoup.engine import NO_TICKS, Engine, Settings
from recoup.errors import SnapshotError
from recoup.events import EVENT_SCHEMA, MICROS, EventBatch, concat_batches, conform, take
from recoup.features import FeatureRows, standard_features
from recoup.friction.effects import no_effects
from recoup.friction.hesitation import HesitationModel
from recoup.friction.hesitation_training import HesitationSettings, fit_hesitation
from recoup.friction.intent import IntentModel, Learned
from recoup.friction.intent_context import Labelled, encode_context, learn_vocabulary
from recoup.friction.signals import Detected
from recoup.friction.waiting import HESITATION_SCHEMA
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows
from recoup.models.calibration import Calibration
from recoup.models.linear import no_linear
from recoup.models.trees import TreeEnsemble
from recoup.non_shoppers import Rule, Rules
from recoup.policies.version import HESITATION_LOSS, REASONS, Beliefs
from recoup.runners.explaining import ExplainedEvent, explain_sessions
from recoup.runners.hesitation_watch import HesitationWatch
from recoup.runners.local import LocalRunner
from recoup.runners.replay import ReplayHost
from recoup.simulator import load_scenario, simulate
from recoup.sources import open_source, write_native
from recoup.sources.base import SourceBatch, no_dead_letters
from recoup.stores import MemoryJournal, SqliteJournal

TICK_S = 10.0
UNREVIEWED = Settings(review_s=1e9, horizon_s=3_600.0)
"""Nothing is reviewed between batches, so that their size cannot matter."""
STAFF = Rules(rule=(Rule("staff", "page", equals=("/admin",)),))


@functools.cache
def model() -> HesitationModel:
    """Fit waits of a median of 20 s, of which a fifth never end, to one standard feature."""
    rng = np.random.default_rng(1)
    size = 2_000
    gone_on = rng.random(size) < 0.8
    wait = np.minimum(rng.lognormal(3.0, 0.6, size), LIMIT_S - 1)
    zeros = np.zeros(size, np.int64)
    rows = WaitRows(
        names=("visitor_sessions",),
        values=rng.integers(1, 4, (size, 1)).astype(np.float64),
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
    fitted = fit_hesitation(rows, "x", HesitationSettings(rounds=5, spread_rounds=3, leaves=4))
    fitted.bind(standard_features().names)
    return fitted


@pytest.fixture(scope="module")
def events() -> EventBatch:
    shop = simulate(visitors=800, days=0.5, seed=3, scenario=load_scenario("default"))
    return concat_batches(shop.batches)


class Log:
    """A source that gives its events so many at a time, and may end early."""

    name = "log"

    def __init__(self, events: EventBatch, rows: int, until: int | None = None) -> None:
        self.events, self.rows, self.until = events, rows, until

    def batches(self, position: str | None, /) -> Iterator[SourceBatch]:
        start = int(position or 0)
        while start < min(len(self.events), self.until or len(self.events)):
            at = np.arange(start, min(start + self.rows, len(self.events)))
            start = int(at[-1]) + 1
            yield SourceBatch(take(self.events, at), no_dead_letters(), (), str(start))


class ByStage:
    """Intent that grows with the funnel stage, and learns nothing."""

    hash = "by stage"

    def score(self, batch: EventBatch, rows: FeatureRows, seen: Detected) -> NDArray[np.float64]:
        del batch, rows
        return np.asarray(0.02 + 0.1 * seen.stage, np.float64)


def host(*, ticking: bool = True) -> ReplayHost:
    hesitation = model() if ticking else None
    return ReplayHost(Engine(UNREVIEWED, intent=ByStage(), hesitation=hesitation), None)


def run(
    events: EventBatch, rows: int, *, ticking: bool = True, tick_s: float | None = TICK_S
) -> MemoryJournal:
    journal = MemoryJournal()
    LocalRunner(host(ticking=ticking), journal, Log(events, rows), tick_s=tick_s).run()
    return journal


def told(journal: MemoryJournal | SqliteJournal, kind: str) -> pl.DataFrame:
    frames = [record.frame for record in journal.read(kind=kind)]
    return pl.concat(frames) if frames else pl.DataFrame()


@pytest.fixture(scope="module")
def whole(events: EventBatch) -> MemoryJournal:
    return run(events, 1_000)


def test_who_waits_too_long_at_a_tick_is_decided_on(whole: MemoryJournal) -> None:
    made = told(whole, "decisions")
    assert made.schema == DECISION_SCHEMA
    ours = made.filter(pl.col("reason") == "D9")
    assert ours.height > 50
    assert {"never", "wait:30", "act:coupon"} <= set(ours["action"])
    assert made["id"].is_unique().all()
    np.testing.assert_allclose(made["propensities"].list.sum().to_numpy(), 1.0, atol=1e-12)
    for action, chosen, options, odds in ours.select(
        "action", "propensity", "options", "propensities"
    ).iter_rows():
        assert odds[options.index(action)] == chosen
    assert set(ours.filter(pl.col("slice") == "holdout")["action"]) == {"never"}
    coupons = made.filter(pl.col("action") == "act:coupon")
    assert coupons.select("visitor", pl.col("ts").dt.date()).is_unique().all()


def test_every_long_wait_is_journalled_once_with_what_was_known(whole: MemoryJournal) -> None:
    waits = told(whole, "hesitations")
    assert waits.schema == HESITATION_SCHEMA
    assert waits.select("session", "event").is_unique().all()
    assert (waits["hesitation"] >= 0.9 - 1e-9).all()
    assert (waits["p_returns"].is_between(0.0, 0.5)).all()
    assert (waits["waited_s"] < LIMIT_S).all()
    first = told(whole, "decisions").filter(pl.col("reason") == "D9")
    known = first.join(waits, on=["session", "ts", "event"])
    assert known.height > 0.5 * first.height
    assert (known["ts"].dt.second() % TICK_S == 0).all()
    assert (known["visitor"] == known["visitor_right"]).all()
    assert (known["intent"] == known["intent_right"]).all()


def test_a_wait_that_was_drawn_ends_at_a_tick(whole: MemoryJournal) -> None:
    """A second decision on the same silence comes once the wait that was chosen has passed."""
    made = told(whole, "decisions").filter(pl.col("reason") == "D9").sort("session", "ts")
    again = made.with_columns(
        before=pl.col("action").shift(1).over("session", "event"),
        gap_s=pl.col("ts").diff().over("session", "event").dt.total_seconds(),
    ).filter(pl.col("before").is_not_null())
    assert again.height > 10
    assert again["before"].str.starts_with("wait:").all()
    waited = again.with_columns(wait_s=pl.col("before").str.slice(5).cast(pl.Int64))
    assert (waited["gap_s"] >= waited["wait_s"]).all()


@pytest.mark.parametrize("rows", [137, 5_000])
def test_batches_of_any_size_give_the_same(
    events: EventBatch, whole: MemoryJournal, rows: int
) -> None:
    other = run(events, rows)
    for kind in ("ticks", "hesitations", "decisions", "outcomes"):
        assert told(other, kind).equals(told(whole, kind)), kind


def test_without_a_model_ticks_change_nothing(events: EventBatch) -> None:
    ticked = run(events, 1_000, ticking=False)
    plain = run(events, 1_000, ticking=False, tick_s=None)
    assert [r.kind for r in ticked.read()] == [r.kind for r in plain.read()]
    for one, other in zip(ticked.read(), plain.read(), strict=True):
        assert one.frame.equals(other.frame)
    assert {record.kind for record in ticked.read()}.isdisjoint({"ticks", "hesitations"})


@pytest.mark.parametrize("ticking", [False, True])
def test_carts_are_abandoned_at_a_tick_where_nothing_else_happens(
    events: EventBatch, *, ticking: bool
) -> None:
    journal, log = MemoryJournal(), Log(events, 1_000, until=2_000)
    owner = host(ticking=ticking)
    runner = LocalRunner(owner, journal, log)
    runner.run()
    before = owner.engine.carts()
    assert before.waiting > 20
    hour = 3_600 * MICROS
    latest = int(events.column("ts")[:2_000].max())
    runner.tick(latest + 12 * hour)
    assert owner.engine.carts() == before
    runner.tick(latest + 25 * hour + MICROS)
    after = owner.engine.carts()
    assert (after.opened, after.purchased, after.waiting) == (before.opened, before.purchased, 0)
    assert sum(after.abandoned.values()) == sum(before.abandoned.values()) + before.waiting
    again = host(ticking=ticking)
    LocalRunner(again, journal, log)
    assert again.engine.carts() == after


@pytest.mark.parametrize("cut", [1_500, 4_000])
def test_a_cut_run_goes_on_to_the_same_journal(
    events: EventBatch, tmp_path: Path, cut: int
) -> None:
    parts = []
    for name, ends in (("whole", [None]), ("cut", [cut, None])):
        for until in ends:
            with SqliteJournal(tmp_path / f"{name}.db") as journal:
                log = Log(events, 500, until)
                runner = LocalRunner(host(), journal, log, snapshot_batches=4, tick_s=TICK_S)
                if until is None:
                    runner.run()
                else:
                    for arrival in log.batches(None):
                        runner.process(arrival)
                parts.append({**dict(enumerate(record.frame for record in journal.read()))})
    one, _, other = parts
    assert len(one) == len(other)
    assert all(one[k].equals(other[k]) for k in one)


def test_a_live_tick_is_journalled_and_folded_again(events: EventBatch, tmp_path: Path) -> None:
    log, half = Log(events, 500), len(events) // 2
    now = int(events.events["ts"].to_physical()[half]) + 60 * MICROS
    path = tmp_path / "live.db"
    with SqliteJournal(path) as journal:
        runner = LocalRunner(host(), journal, Log(events, half, half), snapshot_batches=99)
        runner.process(next(Log(events, half).batches(None)))
        frames = runner.tick(now)
        assert frames["hesitations"].height > 0
        assert frames["decisions"].height > 0
        totals, last = runner.totals, journal.last_offset
    with SqliteJournal(path) as journal:
        again = LocalRunner(host(), journal, log, snapshot_batches=99)
        assert again.totals == totals
        assert journal.last_offset == last
        assert again.tick(now).keys() <= {"told"}
        waiting = snapshot_of(again)
    with SqliteJournal(path) as journal:
        assert snapshot_of(LocalRunner(host(), journal, log, snapshot_batches=99)) == waiting


def test_a_snapshot_follows_every_few_ticks(events: EventBatch) -> None:
    journal = MemoryJournal()
    runner = LocalRunner(host(), journal, Log(events, 9), snapshot_batches=3)
    for second in range(2):
        runner.tick(10**15 + second * MICROS)
    assert journal.load_state("runner")[1] == {}
    runner.tick(10**15 + 3 * MICROS)
    assert journal.load_state("runner")[0] == [*journal.read()][-1].offset


def snapshot_of(runner: LocalRunner) -> Mapping[str, bytes]:
    parts: Mapping[str, bytes] = runner._host.snapshot()  # noqa: SLF001
    return parts


def test_decisions_at_ticks_have_outcomes_where_they_are_executed(whole: MemoryJournal) -> None:
    made = told(whole, "decisions").filter(pl.col("reason") == "D9")
    outcomes = told(whole, "outcomes")
    assert made["executed"].all()
    assert made["id"].is_in(outcomes["decision"].implode()).any()


def test_outcomes_are_known_at_a_tick_where_nothing_else_happens(events: EventBatch) -> None:
    engine = Engine(UNREVIEWED, intent=ByStage(), hesitation=model())
    engine.step(take(events, np.arange(1_000)))
    later = np.array([int(events.column("ts")[999]) + 8 * 3_600 * MICROS])
    assert engine.step(take(events, np.arange(0)), later).outcomes.height > 0


def test_the_engine_keeps_who_waits_in_its_snapshot(events: EventBatch) -> None:
    one, other = (Engine(UNREVIEWED, hesitation=model()) for _ in range(2))
    first, rest = take(events, np.arange(3_000)), take(events, np.arange(3_000, 3_500))
    one.step(first)
    other.restore(one.snapshot())
    begin, end = (int(part.column("ts")[-1]) for part in (first, rest))
    ticks = np.arange(begin, end, 10 * MICROS)
    left, right = one.step(rest, ticks), other.step(rest, ticks)
    assert left.hesitations.height > 0
    assert left.hesitations.equals(right.hesitations)
    assert left.decisions.equals(right.decisions)
    with pytest.raises(SnapshotError):
        Engine(UNREVIEWED, hesitation=model()).restore(Engine(UNREVIEWED).snapshot())
    assert Engine(UNREVIEWED).step(first, NO_TICKS).hesitations.is_empty()


def test_a_look_at_a_wait_told_before_opens_nothing_by_itself(events: EventBatch) -> None:
    def engine() -> Engine:
        return Engine(UNREVIEWED, intent=ByStage(), hesitation=model())

    first, nothing = take(events, np.arange(3_000)), take(events, np.arange(0))
    begin, end = (int(first.column("ts")[at]) for at in (0, -1))
    ticks = np.arange(begin, end, 10 * MICROS)
    waited, empty = engine().step(first, ticks).waited, engine().step(nothing).shoppers
    assert waited is not None
    none = np.zeros(len(waited.due), np.int64)
    told = msgspec.structs.replace(waited.due, row=none, look=none)
    assert engine().policy.step(empty, told).height > 10
    assert engine().policy.step(empty, msgspec.structs.replace(told, look=none + 1)).is_empty()


def test_who_is_found_to_be_no_shopper_waits_no_longer(events: EventBatch) -> None:
    first, nothing = take(events, np.arange(1_000)), take(events, np.arange(0))
    ticks = first.column("ts")[-1:].astype(np.int64) + 120 * MICROS

    def waiting(then: EventBatch) -> pl.Series:
        settings = msgspec.structs.replace(UNREVIEWED, rules=STAFF)
        engine = Engine(settings, intent=ByStage(), hesitation=model())
        engine.step(first)
        engine.step(then)
        return engine.step(nothing, ticks).hesitations["visitor"]

    before = waiting(nothing)
    assert len(before) > 5
    assert waiting(found_out(first, before[0])).equals(before[1:])


def found_out(events: EventBatch, visitor: str) -> EventBatch:
    """Let a visitor go on from the last of the events to a page of staff."""
    rows = events.events.with_row_index("row").filter(pl.col("visitor") == visitor)["row"]
    own = take(events, rows[-1:].to_numpy())
    admin = own.events.with_columns(pl.lit("found out").alias("id"), pl.lit("/admin").alias("page"))
    return EventBatch(conform(admin, EVENT_SCHEMA), own.items)


def test_waits_of_who_is_found_to_be_no_shopper_are_not_counted(events: EventBatch) -> None:
    settings = msgspec.structs.replace(UNREVIEWED, rules=STAFF)
    first, rest = take(events, np.arange(1_000)), take(events, np.arange(1_000, 3_000))
    later = rest.events["visitor"].implode()
    gone = first.events.filter(~pl.col("visitor").is_in(later), pl.col("event") == "view_item")

    def counted(*batches: EventBatch) -> int:
        engine = Engine(settings, intent=ByStage())
        watch = HesitationWatch(engine)
        for batch in batches:
            watch.step(engine.step(batch))
        total = watch.result().total
        return 0 if total is None else total.rows

    with_them = counted(first, found_out(first, gone["visitor"][-1]), rest)
    assert 0 < with_them < counted(first, rest)


@functools.cache
def intent_model() -> IntentModel:
    """Fit purchases to the pages of a visit; a search without results takes half of them."""
    rng = np.random.default_rng(2)
    views = rng.integers(0, 9, 2_000) * 1.0
    event = rng.integers(1, 4, (2_000, 1))
    buys = rng.random(2_000) < 0.03 * (1 + views)
    vocabulary = learn_vocabulary(Labelled(event, buys, np.arange(2_000)))
    data = lgb.Dataset(np.column_stack([views, encode_context(event, vocabulary)]), buys)
    booster = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 10)
    effects = no_effects()
    effects.leaves[0], effects.lasting[0] = 0.5, 0.4
    trees = TreeEnsemble.from_lightgbm(booster)
    learned = Learned(vocabulary, trees, no_linear(2), 0.0, Calibration(), effects)
    name = "session_events"
    fitted = IntentModel("x", (name,), ((name, ""),), ("event",), learned)
    fitted.bind(standard_features().names)
    return fitted


def reasons_of(
    events: EventBatch, rows: int, journal: MemoryJournal, until: int | None = None
) -> pl.DataFrame:
    engine = Engine(UNREVIEWED, intent=intent_model(), hesitation=model())
    owner = ReplayHost(engine, None, explains=True)
    log = Log(events, rows, until)
    LocalRunner(owner, journal, log, tick_s=TICK_S, snapshot_batches=3).run()
    return told(journal, "reasons")


def test_a_wait_that_is_too_long_is_a_reason_beside_the_session_s_signals(
    events: EventBatch,
) -> None:
    events, journal = take(events, np.arange(4_000)), MemoryJournal()
    reasons = reasons_of(events, 700, journal)
    waits = told(journal, "hesitations")
    own = reasons.filter(pl.col("signal") == "D9")
    assert own.height == waits.height > 100
    assert own.select("ts", "session", "visitor").equals(waits.select("ts", "session", "visitor"))
    np.testing.assert_allclose(own["repaired"], waits["intent"], atol=1e-9)
    whole = reasons.group_by("ts", "session").agg(
        pl.col("share").sum(), pl.col("intent", "unspoilt").first()
    )
    np.testing.assert_allclose(whole["share"], whole["intent"] - whole["unspoilt"], atol=1e-9)
    beside = own.select("ts", "session").join(reasons, on=["ts", "session"])
    assert "S1" in set(beside["signal"])
    assert not beside.filter(pl.col("signal") != "D9")["shown"].any()
    latest = events.events.filter(pl.col("page").is_not_null())
    named = own.filter(pl.col("page").is_not_null()).join(
        latest.select("source", "id", at="ts", where="page"), on=["source", "id"]
    )
    assert named.height > 20
    assert named.select((pl.col("at") < pl.col("ts")) & (pl.col("where") == pl.col("page")))[
        "at"
    ].all()


def test_reasons_of_waits_are_the_same_in_batches_of_any_size_and_after_a_cut(
    events: EventBatch,
) -> None:
    events = take(events, np.arange(4_000))
    by = ["ts", "session", "signal"]
    whole = reasons_of(events, 4_000, MemoryJournal()).sort(by)
    assert reasons_of(events, 333, MemoryJournal()).sort(by).equals(whole)
    journal = MemoryJournal()
    reasons_of(events, 333, journal, until=2_300)
    assert reasons_of(events, 333, journal).sort(by).equals(whole)


def test_one_shopper_s_waits_are_explained_as_a_replay_explains_them(
    events: EventBatch, tmp_path: Path
) -> None:
    events, path = take(events, np.arange(3_000)), tmp_path / "log.parquet"
    write_native([events], path)
    reasons = reasons_of(events, 3_000, MemoryJournal()).filter(pl.col("signal") == "D9")
    counts = reasons.group_by("visitor").len().sort("len", "visitor")
    who = counts["visitor"][-1]
    expected = reasons.filter(pl.col("visitor") == who).sort("ts")
    assert expected.height >= 3

    def waits(hesitation: HesitationModel | None) -> list[ExplainedEvent]:
        sessions = explain_sessions(
            open_source(path), intent_model(), hesitation=hesitation, visitor=who
        )
        moments = [each for session in sessions for each in session.events]
        assert moments == sorted(moments, key=lambda each: each.ts)
        return [each for each in moments if each.waited_s is not None]

    found = waits(model())
    assert [each.ts for each in found] == expected["ts"].to_list()
    own = [next(r for r in each.reasons if r.signal == "D9") for each in found]
    assert [each.share for each in own] == pytest.approx(expected["share"].to_list(), abs=1e-12)
    assert [each.page for each in found] == expected["page"].to_list()
    assert all(each.waited_s > 1 for each in found if each.waited_s is not None)
    assert waits(None) == []


def test_what_is_believed_of_hesitation_names_a_version_once_it_was_learned() -> None:
    prior = Beliefs.prior()
    assert prior.loss[REASONS.index("D9")] == HESITATION_LOSS
    moved = prior.recovered.copy()
    moved[-1, REASONS.index("D9")] += 0.1
    assert Beliefs(moved, prior.loss, prior.order_value).version != prior.version
