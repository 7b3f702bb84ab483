import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.friction.evaluation import (
    average_precision,
    breakdown,
    calibration_error,
    log_loss,
    metrics_of,
    paired_gain,
    roc_auc,
)

Drawn = tuple[NDArray[np.bool_], NDArray[np.float64]]


@st.composite
def predictions(draw: st.DrawFn) -> Drawn:
    """Draw labels of both kinds and scores with many ties."""
    pairs = draw(
        st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=60).filter(
            lambda found: len({label for label, _ in found}) == 2
        )
    )
    return np.array([y for y, _ in pairs]), np.array([s / 12.0 for _, s in pairs])


@given(predictions())
def test_auc_is_the_share_of_pairs_ranked_right(drawn: Drawn) -> None:
    y, p = drawn
    wins = (p[y][:, None] > p[~y]).mean() + 0.5 * (p[y][:, None] == p[~y]).mean()
    assert abs(roc_auc(y, p) - wins) < 1e-12


@given(predictions())
def test_average_precision_sums_precision_over_steps_of_recall(drawn: Drawn) -> None:
    y, p = drawn
    total, recall = 0.0, 0.0
    for threshold in sorted(set(p.tolist()), reverse=True):
        above = p >= threshold
        reached = y[above].sum() / y.sum()
        total += (reached - recall) * y[above].mean()
        recall = reached
    assert abs(average_precision(y, p) - total) < 1e-12


@given(predictions(), st.integers(0, 100))
def test_weights_count_as_repeats(drawn: Drawn, seed: int) -> None:
    y, p = drawn
    times = np.random.default_rng(seed).integers(0, 3, len(y))
    times[np.flatnonzero(y)[0]] = 1
    repeated = np.repeat(y, times), np.repeat(p, times)
    weight = times.astype(float)
    assert abs(average_precision(y, p, weight) - average_precision(*repeated)) < 1e-12
    assert abs(log_loss(y, p, weight) - log_loss(*repeated)) < 1e-9


@given(predictions())
def test_log_loss_and_calibration_error_by_hand(drawn: Drawn) -> None:
    y, p = drawn
    p = 0.05 + 0.9 * p
    by_hand = -np.mean([np.log(q if label else 1 - q) for label, q in zip(y, p, strict=True)])
    assert abs(log_loss(y, p) - by_hand) < 1e-12
    order = np.argsort(p, kind="stable")
    size, more = divmod(len(y), 15)
    expected, at = 0.0, 0
    for part in range(15):
        rows = order[at : at + size + (part < more)]
        at += len(rows)
        if len(rows):
            expected += len(rows) / len(y) * abs(p[rows].mean() - y[rows].mean())
    assert abs(calibration_error(y, p) - expected) < 1e-12


def test_measures_that_rows_cannot_give_are_none() -> None:
    none = metrics_of(np.zeros(0, bool), np.zeros(0))
    assert none == dict.fromkeys(none, None) | {"rows": 0}
    alike = metrics_of(np.zeros(3, bool), np.full(3, 0.25))
    assert alike["auc"] is None
    assert alike["pr_auc"] is None
    assert alike["calibration_error"] == 0.25
    with pytest.raises(ModelError, match="probability per label"):
        metrics_of(np.zeros(3, bool), np.zeros(2))


def test_the_breakdown_takes_the_rows_it_names() -> None:
    rng = np.random.default_rng(1)
    y, p = rng.random(3_000) < 0.3, rng.random(3_000)
    number, cart = rng.integers(1, 45, 3_000), rng.random(3_000) < 0.1
    told = breakdown(y, p, number, cart)
    assert told["first_add_to_cart"] == metrics_of(y[cart], p[cart])
    assert told["after_event"] == {
        str(k): metrics_of(y[number == k], p[number == k]) for k in (1, 3, 5, 10, 20, 40)
    }
    assert told["auc"] == metrics_of(y, p)["auc"]


def test_a_gain_is_found_where_there_is_one_and_only_there() -> None:
    rng = np.random.default_rng(2)
    truth = rng.beta(0.5, 3.0, 400)
    session = np.repeat(np.arange(400), 5)
    y = (rng.random(400) < truth)[session]
    good, blurred = truth[session], 0.5 * truth[session] + 0.5 * rng.beta(0.5, 3.0, 400)[session]
    gain = paired_gain(y, good, blurred, session, draws=200, seed=3)
    assert gain.pr_auc.low > 0.0
    assert gain.log_loss.low > 0.0
    assert gain.pr_auc.low < gain.pr_auc.value < gain.pr_auc.high
    none = paired_gain(y, good, good, session, draws=50, seed=3)
    assert none.pr_auc.low == none.pr_auc.high == 0.0
    other = rng.beta(0.5, 3.0, 400)[session], rng.beta(0.5, 3.0, 400)[session]
    chance = paired_gain(y, *other, session, draws=200, seed=3)
    assert chance.pr_auc.low < 0.0 < chance.pr_auc.high


def test_rows_of_one_session_are_drawn_together() -> None:
    rng = np.random.default_rng(4)
    y = np.repeat(rng.random(60) < 0.4, 20)
    a, b = np.repeat(rng.random(60), 20), np.repeat(rng.random(60), 20)
    together = paired_gain(y, a, b, np.repeat(np.arange(60), 20), draws=300)
    apart = paired_gain(y, a, b, np.arange(1_200), draws=300)
    assert together.log_loss.width > 2.5 * apart.log_loss.width
