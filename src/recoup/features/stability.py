"""The population stability index: how far a distribution has moved, in one number."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 10
LEAST: Final = 1e-4
"""A share of rows is taken as at least this, so that an empty bin has a finite logarithm."""

LARGE: Final = 0.25
"""Above this a distribution has moved so far that a model should be looked at."""

Floats = NDArray[np.float64]


def bin_edges(values: Floats) -> Floats:
    """Give the inner edges of ten bins of equal mass; fewer where values repeat, none without any.

    Parameters
    ----------
    values
        Shape (n,); NaN is left out.
    """
    defined = values[~np.isnan(values)]
    inner = np.arange(1, BINS) / BINS
    return np.unique(np.quantile(defined, inner)) if len(defined) else defined


def bin_counts(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """Count values by bin, NaN in the last one: shape (len(edges) + 2,)."""
    undefined = np.isnan(values)
    bins = np.where(undefined, len(edges) + 1, np.searchsorted(edges, values, side="left"))
    return np.bincount(bins, minlength=len(edges) + 2).astype(np.int64)


def stability_index(before: NDArray[np.int64], after: NDArray[np.int64]) -> float:
    """Give the population stability index of two counts over the same bins.

    Below 0.1 is small, above 0.25 large (Siddiqi 2006, Credit Risk Scorecards). It is the sum of
    both relative entropies, 0 where the shares are equal.

    Examples
    --------
    >>> round(stability_index(np.array([50, 50]), np.array([20, 80])), 3)
    0.416
    """
    old, new = (np.maximum(counts / counts.sum(), LEAST) for counts in (before, after))
    return float(((new - old) * np.log(new / old)).sum())
