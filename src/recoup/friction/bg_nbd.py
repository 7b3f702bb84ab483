"""BG/NBD: repeat purchases of customers who may drop out unseen; the baseline of repeat purchase.

While alive, a customer buys at a Poisson rate that differs by customer as a gamma law (``r``,
``alpha``); after each purchase they drop out with a probability that differs by customer as a beta
law (``a``, ``b``).

Source: Fader, Hardie and Lee, "Counting your customers" the easy way: an alternative to the
Pareto/NBD model, Marketing Science 24(2), 2005.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, gammaln

from recoup.errors import ModelError

Floats = NDArray[np.float64]


class Histories(msgspec.Struct, frozen=True):
    """What BG/NBD knows of n customers.

    Parameters
    ----------
    repeats
        Purchases after the first, shape (n,).
    recency
        Time of the last purchase, since the first; 0 without repeats: shape (n,).
    age
        Time observed, since the first purchase: shape (n,), in the same unit.
    """

    repeats: Floats
    recency: Floats
    age: Floats

    def __len__(self) -> int:
        """Count the customers."""
        return len(self.repeats)


class BgNbd(msgspec.Struct, frozen=True):
    """BG/NBD with its four parameters; ``alpha`` is in the unit of time of the histories.

    Examples
    --------
    The authors' parameters for CDNOW, in weeks, and a customer with two repeats:

    >>> model = BgNbd(0.243, 4.414, 0.793, 2.426)
    >>> one = Histories(np.array([2.0]), np.array([30.43]), np.array([38.86]))
    >>> model.p_purchase(one, 39.0).round(3).tolist()
    [0.555]
    """

    r: float
    alpha: float
    a: float
    b: float

    def p_alive(self, known: Histories) -> Floats:
        """Give P(not yet dropped out): shape (n,)."""
        x = known.repeats
        gone = np.log(self.a / (self.b + np.maximum(x, 1.0) - 1.0)) + (self.r + x) * np.log(
            (self.alpha + known.age) / (self.alpha + known.recency)
        )
        return np.where(x > 0.0, 1.0 / (1.0 + np.exp(gone)), 1.0)

    def p_purchase(self, known: Histories, horizon: float) -> Floats:
        """Give P(at least one purchase within ``horizon``): shape (n,).

        One who is alive cannot drop out before the next purchase, so that the wait for it is
        Pareto: gamma-mixed exponential.
        """
        waited = np.log((self.alpha + known.age) / (self.alpha + known.age + horizon))
        return np.asarray(-np.expm1((self.r + known.repeats) * waited) * self.p_alive(known))

    def log_likelihood(self, known: Histories) -> float:
        """Sum the log-likelihood over customers: the paper's equation 6."""
        return float(np.sum(_log_likelihood(np.array([self.r, self.alpha, self.a, self.b]), known)))


def fit_bg_nbd(known: Histories) -> BgNbd:
    """Fit by maximum likelihood, from three starts.

    Raises
    ------
    ModelError
        If no customer has bought twice.
    """
    if not np.any(known.repeats > 0.0):
        raise ModelError(
            "Expected customers who bought more than once, got none",
            hint="train on a longer log of orders",
        )
    scale = max(float(known.age.mean()), 1e-6)
    shrunk = Histories(known.repeats, known.recency / scale, known.age / scale)

    def loss(logs: Floats) -> float:
        return -float(np.mean(_log_likelihood(np.exp(logs), shrunk)))

    starts = (np.zeros(4), np.array([-1.0, -1.0, 0.0, 1.0]), np.array([1.0, 0.0, -2.0, 1.0]))
    bounds = [(-12.0, 12.0)] * 4
    found = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    best = min(found, key=lambda one: float(one.fun))
    r, alpha, a, b = np.exp(best.x).tolist()
    return BgNbd(r, alpha * scale, a, b)


def _log_likelihood(parameters: Floats, known: Histories) -> Floats:
    r, alpha, a, b = parameters
    x, recency, age = known.repeats, known.recency, known.age
    shared = gammaln(r + x) - gammaln(r) + r * np.log(alpha) - betaln(a, b)
    alive = betaln(a, b + x) - (r + x) * np.log(alpha + age)
    # Without a repeat nobody has had the chance to drop out: that term is absent.
    gone = betaln(a + 1.0, b + np.maximum(x, 1.0) - 1.0) - (r + x) * np.log(alpha + recency)
    return np.asarray(shared + np.where(x > 0.0, np.logaddexp(alive, gone), alive))
