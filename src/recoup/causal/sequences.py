"""Bounds that hold at every moment at once: looking at them as often as one likes costs nothing.

A boundary u(v) holds a martingale whose variance process is v: P(some t has S_t >= u(V_t)) is at
most alpha. A confidence sequence is a sequence of intervals all of which hold the mean, together,
with the stated confidence. The names and meanings are those of the `confseq` package.
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import optimize, special

from recoup.causal.estimate import Floats, Ints
from recoup.errors import ConfigError

_LAMBDA_LIMIT: Final = 0.5


def normal_mixture_bound(
    variance: float, alpha: float, optimal: float, *, alpha_optimal: float = 0.05, sides: int = 1
) -> float:
    """Bound a sub-Gaussian sum of variance ``variance``, tightest about variance ``optimal``.

    Parameters
    ----------
    sides
        1: P(S_t >= u) <= alpha; 2: of abs(S_t).

    Examples
    --------
    >>> round(normal_mixture_bound(100, 0.05, 100, sides=2), 4)
    30.3521

    References
    ----------
    Howard, Ramdas, McAuliffe & Sekhon (2021), Time-uniform, nonparametric, nonasymptotic
    confidence sequences, Annals of Statistics 49, section 3 (all boundaries here).
    """
    rho = _rho(optimal, alpha_optimal, sides)
    scale = variance + rho
    threshold = math.log(1 / alpha)
    if sides == 2:  # noqa: PLR2004 - above and below
        return math.sqrt(scale * (2 * threshold + math.log(scale / rho)))

    def log_wealth(total: float) -> float:
        root = math.sqrt(scale)
        fit = 0.5 * math.log(4 * rho / scale) + total**2 / (2 * scale)
        return fit + float(special.log_ndtr(total / root))

    return _crossing(log_wealth, threshold, math.sqrt(scale))


def normal_log_mixture(
    total: float, variance: float, optimal: float, *, alpha_optimal: float = 0.05
) -> float:
    """Give the log evidence against mean 0 of a sub-Gaussian sum, either sign counting.

    Its exponential reaches 1/alpha, at any time, with chance at most alpha: exp(-log mixture) is a
    p-value that holds at every look.

    Examples
    --------
    >>> round(normal_log_mixture(10, 100, 100), 4)
    -0.651
    """
    rho = _rho(optimal, alpha_optimal, 2)
    scale = variance + rho
    return 0.5 * math.log(rho / scale) + total**2 / (2 * scale)


def gamma_exponential_bound(
    variance: float, alpha: float, optimal: float, scale: float, *, alpha_optimal: float = 0.05
) -> float:
    """Bound a sub-exponential sum with ``scale`` c, above: differences at least -c apart suffice.

    Examples
    --------
    >>> round(gamma_exponential_bound(100, 0.05, 100, 2), 4)
    33.0202
    """
    rho = _rho(optimal, alpha_optimal, 1)
    first, all_ = rho / scale**2, (variance + rho) / scale**2
    constant = (
        first * math.log(first)
        - float(special.gammaln(first))
        - math.log(float(special.gammainc(first, first)))
    )

    def log_wealth(total: float) -> float:
        shifted = (scale * total + variance) / scale**2
        mass = math.log(float(special.gammainc(all_, shifted + first)))
        gamma = float(special.gammaln(all_)) + mass
        return constant + gamma - all_ * math.log(shifted + first) + shifted

    return _crossing(log_wealth, math.log(1 / alpha), math.sqrt(variance + rho))


def poly_stitching_bound(
    variance: float, alpha: float, least: float, scale: float = 0.0, *, power: float = 1.4
) -> float:
    """Bound a sub-gamma sum by stitching: as wide as the law of the iterated logarithm asks.

    Parameters
    ----------
    least
        Variance from which the bound is tight.

    Examples
    --------
    >>> round(poly_stitching_bound(100, 0.05, 10, 3), 4)
    64.4875
    """
    eta, used = 2.0, max(variance, least)
    depth = power * math.log(math.log(eta * used / least))
    depth += math.log(float(special.zeta(power)) / (alpha * math.log(eta) ** power))
    first = (eta**0.25 + eta**-0.25) / math.sqrt(2)
    second = (math.sqrt(eta) + 1) / 2 * scale * depth
    return math.sqrt(first**2 * used * depth + second**2) + second


def beta_binomial_bound(
    variance: float,
    alpha: float,
    optimal: float,
    below: float,
    above: float,
    *,
    alpha_optimal: float = 0.05,
) -> float:
    """Bound, above, a sum of steps in [-below, above], two-sided in its mixture.

    Examples
    --------
    >>> round(beta_binomial_bound(100, 0.05, 100, 0.2, 0.8), 4)
    31.4308
    """
    log_wealth = _beta_binomial_wealth(variance, optimal, below, above, alpha_optimal)
    limit = variance / below * (1 - 1e-12)
    return _crossing(log_wealth, math.log(1 / alpha), math.sqrt(variance), limit)


def bernoulli_interval(
    successes: int, trials: int, *, alpha: float = 0.05, optimal_trials: int = 100
) -> tuple[float, float]:
    """Give an interval for a rate that holds at every number of trials at once.

    Examples
    --------
    >>> low, high = bernoulli_interval(227, 2000)
    >>> round(low, 6), round(high, 6)
    (0.090882, 0.138606)
    """
    edge, threshold = 1e-9, math.log(1 / alpha)
    rate = min(max(successes / trials, edge), 1 - edge)

    def excess(mean: float) -> float:
        variance = trials * mean * (1 - mean)
        optimal = optimal_trials * mean * (1 - mean)
        wealth = _beta_binomial_wealth(variance, optimal, mean, 1 - mean, 0.05)
        return wealth(successes - trials * mean) - threshold

    low = 0.0 if successes == 0 else optimize.brentq(excess, edge, rate, xtol=1e-12)
    high = 1.0 if successes == trials else optimize.brentq(excess, rate, 1 - edge, xtol=1e-12)
    return float(low), float(high)


def hoeffding_sequence(values: Floats, *, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Give a confidence sequence for the mean of values in [0, 1], from their range alone.

    Parameters
    ----------
    values
        Shape (n,), in order; each with the same mean given those before it.

    Returns
    -------
    tuple
        Lower and upper ends, each of shape (n,).

    Examples
    --------
    >>> low, high = hoeffding_sequence(np.tile([0.0, 1.0], 500))
    >>> bool(low[-1] < 0.5 < high[-1])
    True

    References
    ----------
    Waudby-Smith & Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86
    (this sequence and the next).
    """
    _check_unit(values)
    count = np.arange(1, len(values) + 1)
    bets = np.minimum(np.sqrt(8 * math.log(2 / alpha) / (count * np.log(count + 1))), 1.0)
    return _around(values, bets, bets**2 / 8, alpha)


def empirical_bernstein_sequence(values: Floats, *, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Give a confidence sequence for the mean of values in [0, 1] that uses their variance.

    Parameters and result are those of `hoeffding_sequence`.

    Examples
    --------
    >>> low, high = empirical_bernstein_sequence(np.full(1000, 0.3))
    >>> bool(high[-1] - low[-1] < 0.02)
    True
    """
    _check_unit(values)
    count = np.arange(1, len(values) + 1)
    bets = np.minimum(_plug_in_bets(values, count, alpha / 2), _LAMBDA_LIMIT)
    growth, past = -np.log1p(-bets) - bets, (np.cumsum(values) / count)[:-1]
    low = _around(values, bets, (values - np.append(0.0, past)) ** 2 * growth, alpha)[0]
    high = _around(values, bets, (values - np.append(1.0, past)) ** 2 * growth, alpha)[1]
    return low, high


def conjugate_bernstein_sequence(
    values: Floats, *, optimal: float, alpha: float = 0.05
) -> tuple[Floats, Floats]:
    """Give the empirical Bernstein sequence of a gamma-exponential mixture.

    It is tightest where the sum of squared deviations is about ``optimal``; parameters and result
    are else those of `hoeffding_sequence`. Each side takes alpha / 2; `confseq` 0.0.11 halves alpha
    twice, so its sequence at 0.05 is this one at 0.025. Each row takes a root search.

    Examples
    --------
    >>> low, high = conjugate_bernstein_sequence(np.tile([0.0, 1.0], 500), optimal=250)
    >>> bool(low[-1] < 0.5 < high[-1])
    True
    """
    _check_unit(values)
    count = np.arange(1, len(values) + 1)
    means = np.cumsum(values) / count
    predicted = np.concatenate([[0.5], means[:-1]])
    spreads = np.cumsum((values - predicted) ** 2)
    reach = np.array(
        [
            gamma_exponential_bound(v, alpha / 2, optimal, 1.0, alpha_optimal=alpha / 2)
            for v in spreads
        ]
    )
    return np.maximum(means - reach / count, 0.0), np.minimum(means + reach / count, 1.0)


def betting_sequence(
    values: Floats, *, alpha: float = 0.05, grid: int = 1_000
) -> tuple[Floats, Floats]:
    """Give the tightest of these sequences for values in [0, 1]: by betting against each mean.

    Two gamblers bet, with half of the capital each, that the mean is higher, or lower, than each of
    ``grid + 1`` means; a mean stays while neither has multiplied its half by 1 / alpha. Time and
    memory grow as n times ``grid``. Parameters and result are else those of `hoeffding_sequence`.

    Examples
    --------
    >>> low, high = betting_sequence(np.tile([0.0, 1.0], 200), grid=100)
    >>> round(float(low[-1]), 2), round(float(high[-1]), 2)
    (0.4, 0.59)
    """
    _check_unit(values)
    count, means = np.arange(1, len(values) + 1), np.arange(grid + 1) / grid
    bets = _plug_in_bets(values, count, alpha / 2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        above = np.minimum(bets[:, None], _LAMBDA_LIMIT / means)
        below = np.minimum(bets[:, None], _LAMBDA_LIMIT / (1 - means))
        away = values[:, None] - means
        wealth = np.maximum(np.cumprod(1 + above * away, 0), np.cumprod(1 - below * away, 0)) / 2
    stays = ~(wealth > 1 / alpha)
    first = np.where(stays.any(axis=1), stays.argmax(axis=1), 0)
    last = np.where(stays.any(axis=1), grid - stays[:, ::-1].argmax(axis=1), grid)
    low, high = np.maximum(means[first] - 1 / grid, 0.0), np.minimum(means[last] + 1 / grid, 1.0)
    return low, high


def _plug_in_bets(values: Floats, count: Ints, alpha: float) -> Floats:
    """Size each bet by the variance of what came before it."""
    means = (0.5 + np.cumsum(values)) / (count + 1)
    spreads = (0.25 + np.cumsum((values - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], spreads[:-1]])
    return np.asarray(np.sqrt(2 * math.log(1 / alpha) / (count * np.log(1 + count) * before)))


def _around(values: Floats, bets: Floats, cost: Floats, alpha: float) -> tuple[Floats, Floats]:
    total = np.cumsum(bets)
    centre = np.cumsum(bets * values) / total
    reach = (math.log(2 / alpha) + np.cumsum(cost)) / total
    return np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)


def _check_unit(values: Floats) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise ConfigError(
            "Expected values in [0, 1], got others", hint="rescale them by their known bounds"
        )


def _rho(optimal: float, alpha: float, sides: int) -> float:
    """Give the mixture's precision that is best at variance ``optimal``."""
    log = math.log(1 / (alpha * (2 if sides == 1 else 1)))
    return optimal / (2 * log + math.log(1 + 2 * log))


def _crossing(
    log_wealth: Callable[[float], float], threshold: float, step: float, limit: float = math.inf
) -> float:
    """Find where a growing function of the sum reaches ``threshold``, up to ``limit``."""
    high = min(step, limit)
    while log_wealth(high) < threshold:
        if high >= limit:
            return limit
        high = min(2 * high, limit)
    found = optimize.brentq(
        lambda total: log_wealth(total) - threshold, 0.0, high, xtol=1e-12, rtol=1e-14
    )
    return float(found)


def _beta_binomial_wealth(
    variance: float, optimal: float, below: float, above: float, alpha: float
) -> Callable[[float], float]:
    g, h = below, above
    width = g + h
    prior = max(_rho(optimal, alpha, 2) - g * h, 1e-3 * g * h)
    start = float(special.betaln(prior / (g * width), prior / (h * width)))

    def log_wealth(total: float) -> float:
        up, down = (variance + h * total) / (h * width), (variance - g * total) / (g * width)
        mixed = float(special.betaln(prior / (g * width) + down, prior / (h * width) + up))
        known = variance / (g * h) * math.log(width) - up * math.log(g) - down * math.log(h)
        return known + mixed - start

    return log_wealth
