"""Whether the arms have the sizes they should have; where not, no other number is sound."""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from scipy import special, stats

from recoup.causal.estimate import Floats
from recoup.errors import ConfigError

ALARM: Final = 0.001
_CONCENTRATION: Final = 10_000.0


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the arms, against those intended.

    Parameters
    ----------
    units, expected
        By arm: how many there are, and how many there should be.
    p_value
        Of the intended shares; small where assignment or logging is broken.
    mismatch
        Whether it is below 0.001.

    Examples
    --------
    See `check_sample_ratio`.
    """

    units: dict[str, int]
    expected: dict[str, float]
    p_value: float
    mismatch: bool


def check_sample_ratio(
    units: Mapping[str, int], shares: Mapping[str, float] | None = None, *, anytime: bool = False
) -> SampleRatio:
    """Test the sizes of arms against intended shares.

    Parameters
    ----------
    units
        Independent units in each arm.
    shares
        Intended, in any unit; equal where None.
    anytime
        Give a p-value that holds at every look (a Dirichlet mixture of multinomials) instead of
        Pearson's chi-square.

    Raises
    ------
    ConfigError
        If ``shares`` names other arms, or one is not above 0.

    Examples
    --------
    >>> found = check_sample_ratio({"control": 50_000, "new": 49_000})
    >>> round(found.p_value, 6), found.mismatch
    (0.001482, False)
    >>> check_sample_ratio({"control": 500_000, "new": 490_000}).mismatch
    True

    References
    ----------
    Fabijan et al. (2019), Diagnosing sample ratio mismatch in online controlled experiments, KDD.
    Lindon & Malek (2022), Anytime-valid inference for multinomial count data, NeurIPS.
    """
    wanted = dict.fromkeys(units, 1.0) if shares is None else shares
    if set(wanted) != set(units) or min(wanted.values()) <= 0:
        raise ConfigError(
            f"Expected a share above 0 for each of the arms {sorted(units)}, got {dict(wanted)}"
        )
    seen = np.array(list(units.values()), np.float64)
    share = np.array([wanted[name] for name in units])
    share /= share.sum()
    expected = share * seen.sum()
    p_value = _anytime(seen, share) if anytime else _pearson(seen, expected)
    return SampleRatio(
        units=dict(units),
        expected=dict(zip(units, expected.tolist(), strict=True)),
        p_value=p_value,
        mismatch=p_value < ALARM,
    )


def _pearson(seen: Floats, expected: Floats) -> float:
    return float(stats.chisquare(seen, expected).pvalue) if len(seen) > 1 else 1.0


def _anytime(seen: Floats, share: Floats) -> float:
    prior = _CONCENTRATION * share
    gained = float(np.sum(special.gammaln(prior + seen) - special.gammaln(prior)))
    whole = math.lgamma(_CONCENTRATION) - math.lgamma(_CONCENTRATION + float(seen.sum()))
    evidence = gained + whole - float(seen @ np.log(share))
    return min(1.0, math.exp(-min(evidence, 700.0)))
