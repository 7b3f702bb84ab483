"""P-values of several hypotheses, adjusted so that the error over all of them is held."""

from typing import Literal

import numpy as np
from scipy import stats

from recoup.causal.estimate import Floats
from recoup.errors import ConfigError

Correction = Literal["holm", "benjamini_hochberg", "none"]


def adjust_p_values(p_values: Floats, correction: Correction = "holm") -> Floats:
    """Adjust p-values, shape (k,): reject where the result is at most the level.

    ``holm`` holds the chance of any false rejection, whatever the dependence;
    ``benjamini_hochberg`` the expected share of false ones among rejections, under independence or
    positive dependence.

    Examples
    --------
    >>> adjust_p_values(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    >>> adjust_p_values(np.array([0.01, 0.04, 0.03]), "benjamini_hochberg").round(3).tolist()
    [0.03, 0.04, 0.04]

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure. Benjamini & Hochberg
    (1995), Controlling the false discovery rate.
    """
    if len(p_values) == 0 or correction == "none":
        return p_values
    if correction == "benjamini_hochberg":
        return np.asarray(stats.false_discovery_control(p_values), np.float64)
    if correction != "holm":
        raise ConfigError(f"Expected holm, benjamini_hochberg or none, got {correction!r}")
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    found = np.empty(len(p_values))
    found[order] = np.minimum(steps, 1.0)
    return found
