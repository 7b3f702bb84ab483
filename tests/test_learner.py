"""The learner: executed decisions only, sums free of order, and the true effect recovered."""

import numpy as np
import polars as pl
import pytest

from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA
from recoup.errors import SnapshotError
from recoup.interventions import INTERVENTIONS
from recoup.policies import Beliefs, Learner
from recoup.policies.version import REASONS

K5, D9 = REASONS.index("K5"), REASONS.index("D9")


def log_of(
    count: int,
    *,
    effect: float,
    executed: bool = True,
    lost: float = 0.12,
    reason: str = "K5",
    act: str = "act:payment_retry",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make decisions at an intent of 0.4, of which `lost` is lost; `effect` of that comes back."""
    rng = np.random.default_rng(11)
    acts = rng.random(count) < 0.3
    chance = 0.4 - lost + np.where(acts, effect * lost, 0.0)
    orders = (rng.random(count) < chance).astype(int)
    options = ["never", act]
    frame = pl.DataFrame(
        {
            "id": range(count),
            "slice": ["policy"] * count,
            "action": [options[int(act)] for act in acts],
            "propensity": np.where(acts, 0.3, 0.7),
            "options": [options] * count,
            "propensities": [[0.7, 0.3]] * count,
            "intent": [0.4] * count,
            "reason": [reason] * count,
            "executed": [executed] * count,
        }
    )
    missing = [name for name in DECISION_SCHEMA if name not in frame.columns]
    frame = frame.with_columns(pl.lit(None).alias(name) for name in missing)
    decisions = frame.select(pl.col(n).cast(kind) for n, kind in DECISION_SCHEMA.items())
    outcomes = pl.DataFrame(
        {
            "decision": range(count),
            "horizon_s": [3600] * count,
            "net_value_micros": orders * 50_000_000,
            "orders": orders,
            "matured_at": [0] * count,
            "revision": [0] * count,
            "later_cost_micros": [0] * count,
        }
    )
    return decisions, outcomes.select(pl.col(n).cast(kind) for n, kind in OUTCOME_SCHEMA.items())


@pytest.mark.parametrize("effect", [0.0, 0.8])
def test_the_true_effect_is_recovered(effect: float) -> None:
    learner = Learner()
    learner.step(*log_of(200_000, effect=effect))
    assert learner.beliefs().recovered[0, K5] == pytest.approx(effect, abs=0.08)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_a_long_wait_takes_is_learned_and_with_it_what_an_act_recovers(share: float) -> None:
    learner = Learner()
    log = log_of(50_000, effect=0.5, lost=0.4 * share, reason="D9", act="act:coupon")
    learner.step(*log)
    learned, prior = learner.beliefs(), Beliefs.prior()
    assert learned.loss[D9] == pytest.approx(share, abs=0.03)
    assert (learned.loss[:D9] == prior.loss[:D9]).all()
    coupon = [each.id for each in INTERVENTIONS].index("coupon")
    assert learned.recovered[coupon, D9] == pytest.approx(0.5, abs=0.15)
    assert learned.version != prior.version


def test_few_waits_move_the_prior_little_and_other_reasons_not_at_all() -> None:
    few, other = Learner(), Learner()
    few.step(*log_of(20, effect=0.0, lost=0.4, reason="D9", act="act:coupon"))
    other.step(*log_of(1_000, effect=0.0))
    prior = Beliefs.prior().loss[D9]
    assert prior < few.beliefs().loss[D9] < prior + 0.15
    assert other.beliefs().loss[D9] == prior


def test_a_foreign_log_teaches_nothing() -> None:
    learner = Learner()
    assert learner.step(*log_of(1000, effect=0.8, executed=False)) == 0
    assert learner.beliefs().version == Beliefs.prior().version


def test_order_split_and_restore_change_nothing() -> None:
    decisions, outcomes = log_of(3000, effect=0.5)
    whole = Learner()
    whole.step(decisions, outcomes)
    parts = Learner()
    parts.step(decisions[2000:], outcomes[:0])
    parts.step(decisions[:2000], outcomes[1500:].reverse())
    restored = Learner()
    restored.restore(parts.snapshot())
    restored.step(decisions[:0], outcomes[:1500].reverse())
    assert restored.beliefs().version == whole.beliefs().version
    left, right = Learner(), Learner()
    left.step(decisions[:1000], outcomes[:1000])
    right.step(decisions[1000:], outcomes[1000:])
    left.merge(right)
    assert left.beliefs().version == whole.beliefs().version


def test_an_outcome_counts_once() -> None:
    decisions, outcomes = log_of(500, effect=0.5)
    learner = Learner()
    assert learner.step(decisions, outcomes) == 500
    assert learner.step(decisions[:0], outcomes) == 0


def test_bytes_of_something_else_are_refused() -> None:
    with pytest.raises(SnapshotError):
        Learner().restore(b"something else")
