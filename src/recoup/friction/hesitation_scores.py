"""How well the distribution of a wait predicts: likelihood, calibration, order; paired gains."""

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.decisions import Interval

GRID_S: Final = np.array(
    [
        0.05, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0,
        14.0, 17.0, 20.0, 24.0, 28.0, 33.0, 40.0, 50.0, 60.0, 75.0, 90.0, 120.0, 150.0, 200.0,
        300.0, 450.0, 700.0, 1_100.0, 1_800.0,
    ]
)  # fmt: skip
"""The stated grid of times, in seconds: the log score is the likelihood of its intervals."""

_FLOOR: Final = 1e-9

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def bins_of(wait_s: Floats, gone_on: Flags) -> NDArray[np.int64]:
    """Give the interval of the grid in which each wait ended; for others, how many it outlasted.

    Interval ``k`` is ``(GRID_S[k - 1], GRID_S[k]]``, the first one from 0.
    """
    ended = np.searchsorted(GRID_S, wait_s, side="left").clip(max=len(GRID_S) - 1)
    outlasted = np.searchsorted(GRID_S, wait_s, side="right")
    return np.where(gone_on, ended, outlasted)


def log_scores(surviving: Floats, wait_s: Floats, gone_on: Flags) -> Floats:
    """Give each wait's log-likelihood on the grid, in nats: above is better. Shape (n,).

    Parameters
    ----------
    surviving
        P(wait > grid time), shape (n, len(GRID_S) + 1); the first column is 1.
    wait_s, gone_on
        How long each wait was seen, and whether it ended then; shape (n,).

    Examples
    --------
    >>> half = np.linspace(1.0, 0.5, len(GRID_S) + 1)[None]
    >>> round(float(log_scores(half, np.array([2000.0]), np.array([False]))[0]), 4)
    -0.6931
    """
    bins, row = bins_of(wait_s, gone_on), np.arange(len(wait_s))
    before = surviving[row, bins]
    after = surviving[row, np.minimum(bins + 1, len(GRID_S))]
    return np.log(np.maximum(np.where(gone_on, before - after, before), _FLOOR))


def transform_error(below: Floats, gone_on: Flags) -> float:
    """Give the largest distance of the probability integral transform from uniform.

    The transforms of censored waits are themselves censored: their distribution is estimated after
    Kaplan and Meier, and compared up to the largest one observed.

    Parameters
    ----------
    below
        Predicted P(wait <= the time seen), shape (n,).
    gone_on
        Whether the wait ended then.

    Examples
    --------
    >>> round(transform_error(np.array([0.25, 0.5, 0.75, 1.0]), np.ones(4, bool)), 2)
    0.25
    """
    order = np.lexsort((~gone_on, below))
    u, ended = below[order], gone_on[order]
    at_risk = len(u) - np.arange(len(u))
    reached = 1.0 - np.cumprod(1.0 - ended / at_risk)
    earlier = np.r_[0.0, reached[:-1]]
    if not ended.any():
        return 0.0
    return float(max(np.abs(reached - u)[ended].max(), np.abs(earlier - u)[ended].max()))


def chance_error(goes_on: Floats, *, draws: int = 100, seed: int = 0) -> float:
    """Give the :func:`transform_error` that right predictions exceed one time in twenty.

    Waits are drawn from the predictions: a transform is uniform, and censored where the shopper
    leaves. Work: draws times a sort of n.

    Parameters
    ----------
    goes_on
        Predicted P(the wait ends), shape (n,).

    Examples
    --------
    >>> round(chance_error(np.full(50, 0.7)), 2), round(chance_error(np.full(5_000, 0.7)), 2)
    (0.19, 0.02)
    """
    rng = np.random.default_rng(seed)
    errors = np.empty(draws)
    for draw in range(draws):
        transform = rng.random(len(goes_on))
        gone_on = transform < goes_on
        errors[draw] = transform_error(np.minimum(transform, goes_on), gone_on)
    return float(np.quantile(errors, 0.95))


def concordance(expected: Floats, wait_s: Floats, gone_on: Flags) -> float | None:
    """Give Harrell's C: P(the wait expected to be shorter ends first), ties counting a half.

    A pair is compared where one wait ended while the other was still seen. None without a pair.

    References
    ----------
    Harrell et al., "Evaluating the yield of medical tests", JAMA 1982.

    Examples
    --------
    >>> concordance(np.array([1.0, 3.0, 2.0]), np.array([5.0, 9.0, 9.0]), np.array([1, 0, 1]) == 1)
    1.0
    """
    ranks = np.unique(expected, return_inverse=True)[1].astype(np.int64)
    order = np.lexsort((gone_on, -wait_s))
    wins, pairs = _count_pairs(ranks[order], wait_s[order], gone_on[order])
    return wins / pairs if pairs else None


def mean_gain(
    gain: Floats, session: NDArray[np.int64], *, draws: int = 1_000, seed: int = 0
) -> Interval:
    """Give the mean of paired gains, with a 95 % bootstrap interval over whole sessions.

    Examples
    --------
    >>> mean_gain(np.array([1.0, 1.0, 1.0]), np.array([1, 1, 2]), draws=10)
    Interval(value=1.0, low=1.0, high=1.0)
    """
    _, member = np.unique(session, return_inverse=True)
    total = np.bincount(member, weights=gain)
    rows = np.bincount(member).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for draw in range(draws):
        picked = rng.integers(len(rows), size=len(rows))
        means[draw] = total[picked].sum() / rows[picked].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(gain.mean()), float(low), float(high))


@njit(cache=True, nogil=True)
def _count_pairs(ranks: NDArray[np.int64], wait_s: Floats, gone_on: Flags) -> tuple[float, float]:
    """Count concordant and comparable pairs, longest waits first, with a Fenwick tree of ranks."""
    size = ranks.shape[0]
    tree = np.zeros(size + 1, np.int64)
    wins, pairs, seen, row = 0.0, 0.0, 0, 0
    while row < size:
        last = row
        while last < size and wait_s[last] == wait_s[row]:
            last += 1
        for k in range(row, last):
            if not gone_on[k]:
                _add(tree, ranks[k])
                seen += 1
        for k in range(row, last):
            if gone_on[k]:
                below, own = _up_to(tree, ranks[k]), _up_to(tree, ranks[k] + 1)
                wins += seen - own + 0.5 * (own - below)
                pairs += seen
        for k in range(row, last):
            if gone_on[k]:
                _add(tree, ranks[k])
                seen += 1
        row = last
    return wins, pairs


@njit(cache=True, nogil=True)
def _add(tree: NDArray[np.int64], rank: int) -> None:
    at = rank + 1
    while at < tree.shape[0]:
        tree[at] += 1
        at += at & -at


@njit(cache=True, nogil=True)
def _up_to(tree: NDArray[np.int64], end: int) -> int:
    """Count the ranks below ``end``."""
    total = 0
    at = end
    while at > 0:
        total += tree[at]
        at -= at & -at
    return total
