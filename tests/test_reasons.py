"""Reasons: Shapley shares that add up, single repairs, losses of showings, and known harm."""

from itertools import permutations

import lightgbm as lgb
import msgspec
import numpy as np
import polars as pl
import pytest
from benchmarks.reasons_study import decoys, study
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engine import Engine, Settings
from recoup.events import EVENT_NAMES, concat_batches
from recoup.features import standard_features
from recoup.friction.effects import (
    EffectSettings,
    Labelled,
    Shown,
    _Fit,
    effects_out_of_fold,
    fit_effects,
    no_effects,
)
from recoup.friction.explained import EXPLAINED, EXPLAINED_INDEX, LONG_WAIT, SYMPTOM_BITS
from recoup.friction.intent import IntentModel, Learned
from recoup.friction.intent_context import Labelled as Contexts
from recoup.friction.intent_context import encode_context, learn_vocabulary
from recoup.friction.moment import Kept
from recoup.friction.reasons import (
    MOST_APART,
    NUMBERS,
    REASON_SCHEMA,
    SLICES,
    Explainer,
    Explanation,
    lost_by,
)
from recoup.friction.signals import SIGNALS, Detected
from recoup.friction.training import IntentSettings
from recoup.models.calibration import Calibration
from recoup.models.linear import no_linear
from recoup.models.trees import TreeEnsemble
from recoup.non_shoppers import Rule, Rules
from recoup.runners.explaining import ReasonWatch
from recoup.simulator import SCENARIOS, simulate
from recoup.testing import random_batch

RAGE = EXPLAINED_INDEX["D7:rage_click"]
LEAVES, LASTING = {0: 0.6, 5: 0.3, RAGE: 0.5}, {0: 1.5, 7: 0.8, RAGE: 1.0}
"""Signal -> its harm; the others, which show as often, do none."""


class Rows:
    """Events of a shop in which a few signals do harm, and all show alike."""

    def __init__(self, seed: int, count: int = 6_000, showing: float = 0.15) -> None:
        rng = np.random.default_rng(seed)
        self.values = rng.normal(size=(count, 1))
        self.context = rng.integers(1, 4, (count, 2))
        bit = 1 << np.arange(len(EXPLAINED))
        now = rng.random((count, len(EXPLAINED))) < showing / 3
        before = rng.random((count, len(EXPLAINED))) < showing
        self.now, self.before = (each @ bit for each in (now, before))
        self.base = self.values[:, 0] + 0.5
        odds, stay = self.base.copy(), np.ones(count)
        for signal, lasting in LASTING.items():
            odds -= lasting * before[:, signal]
        for signal, leaves in LEAVES.items():
            stay *= 1 - leaves * now[:, signal]
        self.positive = rng.random(count) < stay / (1 + np.exp(-odds))
        shown = Shown(self.base, self.context[:, 0], self.now, self.before)
        self.labelled = Labelled(shown, self.positive, np.arange(count))


def trained() -> IntentModel:
    rows = Rows(1, 20_000)
    keys = np.arange(len(rows.positive))
    vocabulary = learn_vocabulary(Contexts(rows.context, rows.positive, keys))
    codes = encode_context(rows.context, vocabulary)
    table = np.column_stack([rows.values, codes])
    data = lgb.Dataset(table, rows.positive)
    booster = lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 10)
    trees = TreeEnsemble.from_lightgbm(booster)
    effects = fit_effects(rows.labelled, EffectSettings())
    calibration = Calibration(0.9, 1.1, -0.1)
    learned = Learned(vocabulary, trees, no_linear(3), 0.0, calibration, effects)
    return IntentModel("x", ("x",), (("x", ""),), ("event", "device"), learned)


MODEL = trained()
EXPLAINER = Explainer(MODEL)
VALUES, CONTEXT = np.array([0.4]), np.array([1, 2])


def intent(now: int, before: int) -> float:
    return MODEL.score_one(VALUES, CONTEXT, now, before)


def explain(now: int, before: int) -> Explanation:
    return EXPLAINER.explain_one(VALUES, CONTEXT, now, before)


masks = st.integers(0, (1 << len(EXPLAINED)) - 1)


@settings(max_examples=60)
@given(now=masks, before=masks)
def test_shares_add_up_to_the_whole_on_both_scales(now: int, before: int) -> None:
    told = explain(now, before)
    assert told.intent == pytest.approx(intent(now, before), abs=1e-15)
    assert told.unspoilt == pytest.approx(intent(0, 0), abs=1e-15)
    share = sum(each.share for each in told.reasons)
    log_odds = sum(each.log_odds_share for each in told.reasons)
    assert share == pytest.approx(told.intent - told.unspoilt, abs=1e-12)
    assert log_odds == pytest.approx(told.log_odds - told.unspoilt_log_odds, abs=1e-12)
    lost = sum(each.lost for each in told.reasons)
    assert lost == pytest.approx(intent(0, before) - told.intent, abs=1e-12)
    assert len(told.reasons) == (now | before).bit_count()
    for each in told.reasons:
        assert each.share <= 1e-12 <= each.lost + 2e-12
        assert each.repaired >= told.intent - 1e-12
        assert each.shown or each.lost == 0.0


@settings(max_examples=25)
@given(st.sets(st.integers(0, len(EXPLAINED) - 1), min_size=1, max_size=5), masks)
def test_shares_are_the_mean_over_all_orders_of_repair(signals: set[int], of: int) -> None:
    bits = sum(1 << signal for signal in signals)
    now, before = bits & of, bits & ~of
    told = {each.signal: each for each in explain(now, before).reasons}
    share = dict.fromkeys(signals, 0.0)
    orders = list(permutations(signals))
    for order in orders:
        keep = 0
        for signal in order:
            without = intent(now & keep, before & keep)
            keep |= 1 << signal
            share[signal] += (intent(now & keep, before & keep) - without) / len(orders)
    for signal, expected in share.items():
        each = told[EXPLAINED[signal].id]
        assert each.share == pytest.approx(expected, abs=1e-12)
        alone = ~(1 << signal)
        assert each.repaired == pytest.approx(intent(now & alone, before & alone), abs=1e-15)


def test_a_showing_is_charged_with_what_it_took_itself() -> None:
    again = explain(now=1, before=1 | 1 << 5)
    [own] = [each for each in again.reasons if each.signal == SIGNALS[0].id]
    assert own.lost == pytest.approx(intent(0, 1 | 1 << 5) - again.intent, abs=1e-15)
    first = explain(now=1, before=1 << 5)
    [own] = [each for each in first.reasons if each.signal == SIGNALS[0].id]
    assert own.lost > 0.05
    [earlier] = [each for each in first.reasons if not each.shown]
    assert (earlier.signal, earlier.lost) == (SIGNALS[5].id, 0.0)


def test_of_many_signals_the_worst_are_still_told_apart() -> None:
    everything = (1 << len(EXPLAINED)) - 1
    told = explain(0, everything)
    assert len(told.reasons) == len(EXPLAINED) > MOST_APART
    assert [each.signal for each in told.reasons[:3]] == [EXPLAINED[k].id for k in (0, RAGE, 7)]
    assert explain(0, 0).reasons == ()


EVERYTHING = (1 << len(EXPLAINED)) - 1


def lasting(harm: dict[int, float]) -> Explainer:
    """Give an explainer of signals that take from the rest of the visit."""
    effects = no_effects()
    effects.lasting[list(harm)] = list(harm.values())
    names = (MODEL.feature_hash, MODEL.names, MODEL.inputs, MODEL.context)
    return Explainer(IntentModel(*names, MODEL.learned._replace(effects=effects)))


def test_of_many_signals_only_those_that_bring_least_are_one_together() -> None:
    harmful = {3: 1.5, 15: 0.9, 17: 0.5, 19: 0.2}
    explainer = lasting(harmful)
    everything = explainer.explain_one(VALUES, CONTEXT, 0, EVERYTHING).reasons
    alone = explainer.explain_one(VALUES, CONTEXT, 0, sum(1 << k for k in harmful)).reasons
    assert [each.signal for each in alone] == [SIGNALS[k].id for k in harmful]
    for found, exact in zip(everything, alone, strict=False):
        assert found.signal == exact.signal
        assert found.share == pytest.approx(exact.share, abs=1e-12)


def test_those_together_share_by_what_each_would_bring() -> None:
    told = lasting({k: 0.1 + 0.02 * k for k in range(len(EXPLAINED))}).explain_one(
        VALUES, CONTEXT, 0, EVERYTHING
    )
    least = sorted(told.reasons, key=lambda each: each.repaired)[: len(EXPLAINED) - MOST_APART + 1]
    share = np.array([each.share for each in least])
    gain = np.array([each.repaired for each in least]) - told.intent
    np.testing.assert_allclose(share / share.sum(), gain / gain.sum())
    assert share.min() < 2 * share.max()


def test_rows_are_explained_as_one_by_one() -> None:
    rows = Rows(3, 200)
    of, numbers = EXPLAINER.explain_rows(rows.values, rows.context, rows.now, rows.before)
    assert of.tolist() == sorted(of.tolist())
    for k in (0, 17, 101):
        one = EXPLAINER.explain_one(
            rows.values[k], rows.context[k], int(rows.now[k]), int(rows.before[k])
        )
        own = numbers[of == k]
        assert own[:, 3].sum() == pytest.approx(sum(each.share for each in one.reasons), abs=1e-12)
        np.testing.assert_allclose(own[:, 6], one.intent)
    none = np.zeros(200, np.int64)
    assert EXPLAINER.explain_rows(rows.values, rows.context, none, none)[1].shape == (0, 8)


def test_known_harm_is_found_and_harmless_signals_take_next_to_nothing() -> None:
    effects = MODEL.learned.effects
    for learned, truth in ((effects.leaves, LEAVES), (effects.lasting, LASTING)):
        for signal, expected in truth.items():
            assert learned[signal] == pytest.approx(expected, abs=0.15)
        harmless = np.delete(learned, list(truth))
        assert harmless.max() < 0.2
        assert (harmless == 0.0).sum() >= len(harmless) // 3


def test_of_few_showings_the_priors_believe_less_harm() -> None:
    rows = Rows(10, 2_000, showing=0.05).labelled
    usual = fit_effects(rows, EffectSettings())
    free = fit_effects(rows, EffectSettings(leaves_rate=0.0, lasting_rate=0.0))
    harmless = [k for k in range(len(EXPLAINED)) if k not in {**LEAVES, **LASTING}]
    assert usual.leaves[harmless].sum() < 0.8 * free.leaves[harmless].sum()
    assert usual.lasting[harmless].sum() < 0.8 * free.lasting[harmless].sum()


def test_one_event_scores_as_in_a_batch_and_bytes_hold_the_effects() -> None:
    rows = Rows(4, 300)
    many = MODEL.score_rows(rows.values, rows.context, rows.now, rows.before)
    ones = [
        MODEL.score_one(rows.values[k], rows.context[k], int(rows.now[k]), int(rows.before[k]))
        for k in range(300)
    ]
    np.testing.assert_allclose(ones, many, rtol=0, atol=1e-12)
    again = IntentModel.from_bytes(MODEL.to_bytes())
    assert again.hash == MODEL.hash
    np.testing.assert_array_equal(
        again.score_rows(rows.values, rows.context, rows.now, rows.before), many
    )
    calm = MODEL.score_rows(rows.values, rows.context)
    assert (calm >= many - 1e-12).all()
    assert calm.mean() > many.mean() + 0.02


def test_effects_are_not_learned_from_a_handful_and_judged_by_others() -> None:
    few = Rows(5, 2_000, showing=0.002)
    for part, nothing in zip(
        fit_effects(few.labelled, EffectSettings()), no_effects(), strict=True
    ):
        np.testing.assert_array_equal(part, nothing)
    rows, visitor = Rows(6, 3_000), np.arange(3_000)
    judged = effects_out_of_fold(rows.labelled, EffectSettings())
    turned = rows.positive ^ (visitor % 3 == 1)
    again = effects_out_of_fold(rows.labelled._replace(positive=turned), EffectSettings())
    np.testing.assert_array_equal(judged[visitor % 3 == 1], again[visitor % 3 == 1])
    assert np.any(judged[visitor % 3 == 0] != again[visitor % 3 == 0])


def test_the_gradient_of_the_loss_is_its_slope() -> None:
    rows = Rows(7, 500)
    fit = _Fit(rows.labelled, EffectSettings())
    count = 2 * len(EVENT_NAMES) + 2 * len(EXPLAINED)
    theta = np.random.default_rng(1).uniform(0.05, 0.4, count)
    _, gradient = fit.loss(theta)
    picked = [1, 2, len(EVENT_NAMES) + 1, count - 54, count - 47, count - 27, count - 1]
    for k in picked:
        step = np.zeros(count)
        step[k] = 1e-5
        slope = (fit.loss(theta + step)[0] - fit.loss(theta - step)[0]) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-5)


@given(masks, masks, st.floats(0.0, 0.99))
def test_a_long_wait_is_a_signal_whose_harm_is_known(now: int, before: int, loss: float) -> None:
    wait = 1 << LONG_WAIT
    now, before = now & ~wait, before & ~wait
    served = intent(now, before)
    told = EXPLAINER.explain_wait(served, now, before, loss)
    own = next(each for each in told.reasons if each.signal == "D9")
    assert own.repaired == pytest.approx(served, abs=1e-9)
    assert own.lost == pytest.approx(served - told.intent, abs=1e-9)
    assert told.unspoilt == pytest.approx(explain(now, before).unspoilt, abs=1e-9)
    whole = sum(each.share for each in told.reasons)
    assert whole == pytest.approx(told.intent - told.unspoilt, abs=1e-9)
    assert all(each.lost == 0.0 and not each.shown for each in told.reasons if each is not own)
    assert {each.signal for each in told.reasons} == {
        "D9", *(EXPLAINED[k].id for k in range(LONG_WAIT) if ((now | before) >> k) & 1)
    }  # fmt: skip


def test_a_wait_alone_leaves_the_share_of_buyers_that_it_did_not_take() -> None:
    plain = msgspec.structs.replace(MODEL.learned.calibration, a=1.0, b=1.0, c=0.0)
    learned = MODEL.learned._replace(calibration=plain)
    model = IntentModel("x", ("x",), (("x", ""),), ("event", "device"), learned)
    told = Explainer(model).explain_wait(0.4, 0, 0, 0.75)
    assert told.unspoilt == pytest.approx(0.4, abs=1e-12)
    assert told.intent == pytest.approx(0.1, abs=1e-12)
    many = Explainer(model).explain_waits(*(np.array([v]) for v in (0.4, 0, 0, 0.75)))
    assert many[1][0, NUMBERS.index("intent")] == told.intent


def test_intent_is_fitted_to_events_without_symptoms_and_not_only_without_behaviours() -> None:
    behaves = 1 << RAGE
    assert SYMPTOM_BITS & behaves == 0
    assert sum(1 << k for k in range(len(SIGNALS))) == SYMPTOM_BITS
    assert [each.id for each in EXPLAINED[: len(SIGNALS)]] == [each.id for each in SIGNALS]


def test_effects_that_know_fewer_signals_are_read_and_the_later_do_nothing() -> None:
    old = MODEL.learned.effects
    fewer = old._replace(leaves=old.leaves[:20], lasting=old.lasting[:20])
    learned = MODEL.learned._replace(effects=fewer)
    model = IntentModel("x", ("x",), (("x", ""),), ("event", "device"), learned)
    read = IntentModel.from_bytes(model.to_bytes())
    assert len(read.learned.effects.leaves) == len(EXPLAINED)
    told = Explainer(read).explain_one(VALUES, CONTEXT, 1 | 1 << RAGE, 1 << RAGE)
    shares = {each.signal: each.share for each in told.reasons}
    assert shares["D7:rage_click"] == 0.0
    assert shares["S1"] < -0.01


def test_events_are_explained_in_their_context_and_others_left_out() -> None:
    batch, rng = random_batch(60, seed=1), np.random.default_rng(8)
    none, session = np.zeros(60, np.int64), np.arange(60)
    rows = Kept(np.full((60, 1), 0.4), session, none, none.astype(np.int8))
    shows = rng.random((60, len(SIGNALS))) < 0.1
    seen = Detected(shows, none.astype(np.int8), none, rng.integers(1, 4, 60))
    every = EXPLAINER.reasons(batch, rows, seen)
    assert every.schema == REASON_SCHEMA
    assert set(every["session"]) == set(np.flatnonzero(shows.any(axis=1)))
    odd = EXPLAINER.reasons(batch, rows, seen, session % 2 == 1)
    assert odd.equals(every.filter(pl.col("session") % 2 == 1))
    context = MODEL.context_of(batch, seen)
    for row, served in every.select("session", "intent").unique().iter_rows():
        now = int(seen.now[row])
        assert served == pytest.approx(MODEL.score_one(VALUES, context[row], now, 0), abs=1e-12)


def test_who_is_no_shopper_is_told_no_reasons() -> None:
    name = "visitor_sessions"
    model = IntentModel("x", (name,), ((name, ""),), MODEL.context, MODEL.learned)
    model.bind(standard_features().names)
    batch = concat_batches(list(simulate(200, 0.2, 3, SCENARIOS["decoys"]).batches))

    def told(rules: Rules) -> pl.DataFrame:
        engine = Engine(Settings(rules=rules), intent=model)
        return ReasonWatch(engine).step(engine.step(batch))["reasons"]

    every = told(Rules())
    staff = every["visitor"][0]
    rules = Rules(rule=(Rule("staff", "visitor", equals=(staff,)),))
    assert told(rules).equals(every.filter(pl.col("visitor") != staff))


def test_losses_are_summed_by_signal_and_slice() -> None:
    frame = pl.DataFrame(
        {
            "signal": ["D8", "D8", "D8", "K5"],
            "shown": [True, True, False, True],
            "session": [1, 1, 2, 3],
            "lost": [0.25, 0.5, 0.0, 0.125],
            "page": ["/a", "/b", "/b", None],
        }
    )
    frame = frame.select(
        frame[name] if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in REASON_SCHEMA.items()
    )
    assert lost_by(frame).rows() == [("D8", 2, 1, 0.75), ("K5", 1, 1, 0.125)]
    assert lost_by(frame, "page").rows() == [("D8", "/b", 1, 1, 0.5), ("D8", "/a", 1, 1, 0.25)]
    assert lost_by(frame.clear(), *SLICES[:2]).is_empty()


@pytest.mark.slow
def test_the_harmful_signal_is_the_top_reason_and_losses_rank_as_in_truth() -> None:
    quick = IntentSettings(rounds=(40, 80), origins=(0.3, 0.65), seeds=(1,), network_share=0.0)
    told = study(decoys(2), 2, 10_000, quick)
    for moment in ("complete", "latest"):
        judged = told[moment]
        assert judged["journeys"] > 200
        assert judged["top_reason"] > 0.8
        assert judged["top_reason"] > judged["last_signal"] + 0.2
        assert judged["top_reason"] > judged["fixed_severity"] + 0.2
    assert told["spearman"] > 0.6  # few shoppers; the study on more is told in docs/reasons.md
