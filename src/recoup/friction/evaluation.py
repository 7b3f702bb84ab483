"""How well a probability predicts: ranking, log loss, calibration, and paired gains."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.decisions import Interval
from recoup.errors import ModelError

AFTER_EVENTS: Final = (1, 3, 5, 10, 20, 40)
CALIBRATION_BINS: Final = 15
_CLIP: Final = 1e-15

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def metrics_of(positive: Flags, probability: Floats) -> dict[str, float | int | None]:
    """Give ``rows``, ``base_rate``, ``auc``, ``pr_auc``, ``log_loss`` and ``calibration_error``.

    Parameters
    ----------
    positive, probability
        Labels, and probabilities in [0, 1]: shape (n,).

    Returns
    -------
    A measure that the rows cannot give is None: all but ``rows`` without any row, ranking without
    rows of both kinds.

    Examples
    --------
    >>> found = metrics_of(np.array([False, True, False, True]), np.array([0.1, 0.8, 0.4, 0.3]))
    >>> found["auc"], round(found["pr_auc"], 4), round(found["log_loss"], 4)
    (0.75, 0.8333, 0.5108)
    """
    y, p = np.asarray(positive, bool), np.asarray(probability, np.float64)
    if y.shape != p.shape:
        raise ModelError(f"Expected a probability per label, got {p.shape} for {y.shape}")
    rows = len(y)
    both = 0 < int(y.sum()) < rows
    return {
        "rows": rows,
        "base_rate": float(y.mean()) if rows else None,
        "auc": roc_auc(y, p) if both else None,
        "pr_auc": average_precision(y, p) if both else None,
        "log_loss": log_loss(y, p) if rows else None,
        "calibration_error": calibration_error(y, p) if rows else None,
    }


def breakdown(
    positive: Flags, probability: Floats, event_number: NDArray[np.int64], first_cart: Flags
) -> dict[str, object]:
    """Give the metrics of all rows, at the k-th event of a session, and at its first add-to-cart.

    Parameters
    ----------
    event_number
        Position of each row's event in its session, from 1: shape (n,).
    first_cart
        Whether the event is its session's first add-to-cart: shape (n,).
    """
    at = {
        str(k): metrics_of(positive[event_number == k], probability[event_number == k])
        for k in AFTER_EVENTS
    }
    cart = metrics_of(positive[first_cart], probability[first_cart])
    return {**metrics_of(positive, probability), "after_event": at, "first_add_to_cart": cart}


def roc_auc(positive: Flags, score: Floats) -> float:
    """Give P(a positive scores above a negative), ties counting a half."""
    order = np.argsort(score, kind="stable")
    ranked, y = score[order], positive[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, len(y)])
    mean_rank = np.repeat(starts + (sizes + 1) / 2.0, sizes)
    n_positive = int(y.sum())
    wins = mean_rank[y].sum() - n_positive * (n_positive + 1) / 2.0
    return float(wins / (n_positive * (len(y) - n_positive)))


def average_precision(positive: Flags, score: Floats, weight: Floats | None = None) -> float:
    """Give the mean precision over the steps of recall; tied scores are one step."""
    order = np.argsort(-score, kind="stable")
    w = np.ones(len(order)) if weight is None else weight[order]
    hits = np.cumsum(w * positive[order])
    seen = np.cumsum(w)
    ends = np.r_[np.diff(score[order]) != 0.0, True] & (seen > 0.0)
    gained = np.diff(np.r_[0.0, hits[ends]])
    return float(np.sum(gained * hits[ends] / seen[ends]) / hits[-1])


def log_loss(positive: Flags, probability: Floats, weight: Floats | None = None) -> float:
    """Give the mean negative log-likelihood, in nats."""
    return float(np.average(_losses(positive, probability), weights=weight))


def calibration_error(positive: Flags, probability: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Give the mean distance of predicted from observed rates, over bins of equal mass.

    Rows are ordered by probability, ties as they come, and cut into ``bins`` runs whose sizes
    differ by at most one row.
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [abs(probability[part].mean() - positive[part].mean()) * len(part) for part in parts]
    return float(sum(gaps) / len(order))


def calibration_by_chance(probability: Floats, *, draws: int = 200, seed: int = 0) -> float:
    """Give what the calibration error stays below in 97.5 % of the times if all was said right.

    Labels are drawn anew from the probabilities: few rows are off by chance alone.

    Examples
    --------
    >>> even = np.linspace(0.1, 0.9, 40_000)
    >>> round(calibration_by_chance(even[::10]), 3), round(calibration_by_chance(even), 3)
    (0.031, 0.01)
    """
    rng = np.random.default_rng(seed)
    errors = [
        calibration_error(rng.random(len(probability)) < probability, probability)
        for _ in range(draws)
    ]
    return float(np.quantile(errors, 0.975))


class Gain(msgspec.Struct, frozen=True):
    """How much better one prediction is than another on the same rows.

    Parameters
    ----------
    pr_auc
        Gain in average precision, with its 95 % interval over sessions drawn anew.
    log_loss
        Fall of the log loss, likewise; above 0 is better.
    """

    pr_auc: Interval
    log_loss: Interval


def paired_gain(
    positive: Flags,
    ours: Floats,
    theirs: Floats,
    session: NDArray[np.int64],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> Gain:
    """Compare two predictions by a bootstrap over whole sessions, both on each draw.

    Parameters
    ----------
    session
        Key of each row's session, shape (n,).

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: percentile intervals.
    """
    _, member = np.unique(session, return_inverse=True)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    pr, loss = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        weight = times.astype(np.float64)[member]
        pr[draw], loss[draw] = _gains(positive, ours, theirs, weight)
    center = _gains(positive, ours, theirs, np.ones(len(positive)))
    return Gain(*(_interval(value, drawn) for value, drawn in zip(center, (pr, loss), strict=True)))


def _gains(positive: Flags, ours: Floats, theirs: Floats, weight: Floats) -> tuple[float, float]:
    pr = average_precision(positive, ours, weight) - average_precision(positive, theirs, weight)
    return pr, log_loss(positive, theirs, weight) - log_loss(positive, ours, weight)


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _losses(positive: Flags, probability: Floats) -> Floats:
    p = np.clip(probability, _CLIP, 1.0 - _CLIP)
    return np.asarray(-np.log(np.where(positive, p, 1.0 - p)))
