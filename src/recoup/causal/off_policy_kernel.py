"""One pass over a log of decisions: the moments that every off-policy estimate needs."""

import math
from typing import Final

import numpy as np
from numba import njit

from recoup.causal.estimate import Floats, Ints

# Columns of the moments: a score for each, per row.
WEIGHT: Final = 0
IPS: Final = 1
VALUE: Final = 2
RESIDUAL: Final = 3
CLIPPED_IPS: Final = 4
SG_IPS: Final = 5
DR: Final = 6
CLIPPED_DR: Final = 7
SWITCH_DR: Final = 8
DR_OS: Final = 9
SG_DR: Final = 10
CENTRED_IPS: Final = 11
COLUMNS: Final = 12

# Products of two columns, for the variance of ratios.
WEIGHT_CENTRED: Final = 12
WEIGHT_RESIDUAL: Final = 13
WEIGHT_VALUE: Final = 14
VALUE_RESIDUAL: Final = 15
MOMENTS: Final = 16

OVERLAP_BINS: Final = 33
"""Weights by power of two: bin b holds [2^(b-17), 2^(b-16)), bin 0 also zero and all below."""


@njit(cache=True, nogil=True)
def row_scores(
    reward: float,
    propensity: float,
    target: float,
    quality: float,
    value: float,
    parameters: Floats,
    out: Floats,
) -> None:
    """Write the scores of one row into ``out``, shape (COLUMNS,).

    ``parameters`` holds clip, switch, optimistic shrinkage, sub-Gaussian, a reward near the
    weighted mean, from which CENTRED_IPS counts (the ratio's variance then cancels nothing), and
    clip and sub-Gaussian without a model.
    """
    weight = target / propensity
    residual = reward - quality
    clipped = min(weight, parameters[0])
    switched = weight if weight <= parameters[1] else 0.0
    lam = parameters[2]
    shrunk = weight if math.isinf(lam) else lam * weight / (weight * weight + lam)
    smoothed = weight / (1.0 - parameters[3] + parameters[3] * weight)
    out[WEIGHT] = weight
    out[IPS] = weight * reward
    out[VALUE] = value
    out[RESIDUAL] = weight * residual
    out[CLIPPED_IPS] = min(weight, parameters[5]) * reward
    out[SG_IPS] = weight / (1.0 - parameters[6] + parameters[6] * weight) * reward
    out[DR] = value + weight * residual
    out[CLIPPED_DR] = value + clipped * residual
    out[SWITCH_DR] = value + switched * residual
    out[DR_OS] = value + shrunk * residual
    out[SG_DR] = value + smoothed * residual
    out[CENTRED_IPS] = weight * (reward - parameters[4])


@njit(cache=True, nogil=True)
def accumulate(  # noqa: PLR0913, PLR0917 - the compiled pass takes its columns one by one
    reward: Floats,
    propensity: Floats,
    target: Floats,
    quality: Floats,
    value: Floats,
    parameters: Floats,
    shift: Floats,
    sums: Floats,
    squares: Floats,
    overlap: Ints,
) -> tuple[int, float]:
    """Add a log's rows to moments about ``shift``; give the first bad row (or -1), largest weight.

    Parameters
    ----------
    quality, value
        Shape (n,), or (0,) where there is no model: then both are 0 in every row.
    shift, sums
        Shape (COLUMNS,). A shift near the means keeps the sums of squares exact enough.
    squares
        Shape (MOMENTS,): squares of the columns, then the products.
    overlap
        Shape (OVERLAP_BINS,): rows by power of two of the weight.
    """
    scores = np.empty(COLUMNS)
    modelled = len(quality) > 0
    largest = 0.0
    for row in range(len(reward)):
        fitted = quality[row] if modelled else 0.0
        expected = value[row] if modelled else 0.0
        if not _usable(reward[row], propensity[row], target[row], fitted, expected):
            return row, largest
        row_scores(reward[row], propensity[row], target[row], fitted, expected, parameters, scores)
        largest = max(largest, scores[WEIGHT])
        overlap[_overlap_bin(scores[WEIGHT])] += 1
        for column in range(COLUMNS):
            centred = scores[column] - shift[column]
            scores[column] = centred
            sums[column] += centred
            squares[column] += centred * centred
        squares[WEIGHT_CENTRED] += scores[WEIGHT] * scores[CENTRED_IPS]
        squares[WEIGHT_RESIDUAL] += scores[WEIGHT] * scores[RESIDUAL]
        squares[WEIGHT_VALUE] += scores[WEIGHT] * scores[VALUE]
        squares[VALUE_RESIDUAL] += scores[VALUE] * scores[RESIDUAL]
    return -1, largest


@njit(cache=True, nogil=True)
def _usable(reward: float, propensity: float, target: float, fitted: float, value: float) -> bool:
    finite = math.isfinite(reward) and math.isfinite(fitted) and math.isfinite(value)
    return finite and 0.0 < propensity <= 1.0 and 0.0 <= target <= 1.0 + 1e-9


@njit(cache=True, nogil=True)
def _overlap_bin(weight: float) -> int:
    exponent = math.frexp(weight)[1] + 16
    return 0 if weight <= 0.0 or exponent < 0 else min(exponent, 32)
