"""How long a customer usually waits before buying again, and who is overdue.

Gaps between orders are gamma with a shape shared by all (1 is a Poisson process, more is more
regular) and a rate that differs by customer as a gamma law: the cycle of the shop, sharpened by the
customer's own gaps. The predictive law of the next gap is then beta prime, in closed form. After
every order a customer may have left for good (the cure fraction of survival analysis): then no gap
is waited for.

Sources: Schmittlein and Morrison, "Prediction of future random events with the condensed negative
binomial distribution", JASA 78, 1983; Platzer and Reutterer, "Ticking away the moments: timing
regularity helps to better predict customer activity", Marketing Science 35(5), 2016.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaincc, betaincinv, gammaln

from recoup.errors import ModelError
from recoup.friction.bg_nbd import Histories
from recoup.friction.orders import Orders

Floats = NDArray[np.float64]

OVERDUE_QUANTILE: Final = 0.9
"""A customer whose gap is longer than this quantile of the predictive law is overdue."""

_LEAST: Final = 1e-9


class GapModel(msgspec.Struct, frozen=True):
    """Gamma gaps of ``shape``, with rates that are gamma of shape ``r`` and rate ``beta`` (days).

    Parameters
    ----------
    lapse
        P(no order follows an order), of everyone alike; in [0, 1).

    Examples
    --------
    Three gaps of ten days each, and 30 days without an order since:

    >>> model = GapModel(shape=1.5, r=2.0, beta=20.0)
    >>> known = Histories(np.array([3.0]), np.array([30.0]), np.array([60.0]))
    >>> model.quantile(known, 0.9).round(1).tolist(), model.p_purchase(known, 7.0).round(2).tolist()
    ([29.5], [0.39])

    If one in ten leaves after an order, they have probably left:

    >>> leaving = GapModel(shape=1.5, r=2.0, beta=20.0, lapse=0.1)
    >>> leaving.p_lapsed(known).round(2).tolist(), leaving.p_purchase(known, 7.0).round(2).tolist()
    ([0.53], [0.18])
    """

    shape: float
    r: float
    beta: float
    lapse: float = 0.0

    def quantile(self, known: Histories, level: float) -> Floats:
        """Give a quantile of the gap after the last order of one who comes back, in days."""
        share = betaincinv(self.shape, self.r + self.shape * known.repeats, level)
        return np.asarray((self.beta + known.recency) * share / np.maximum(1.0 - share, _LEAST))

    def longer(self, known: Histories, gap: Floats) -> Floats:
        """Give P(a gap is longer than ``gap`` days | it ends): shape (n,)."""
        total = self.beta + known.recency
        return np.asarray(
            betaincc(self.shape, self.r + self.shape * known.repeats, gap / (gap + total))
        )

    def p_purchase(self, known: Histories, horizon: float) -> Floats:
        """Give P(buys within ``horizon`` days | has not bought since the last order)."""
        waited = known.age - known.recency
        now, then = self.longer(known, waited), self.longer(known, waited + horizon)
        return (1.0 - self.p_lapsed(known)) * (1.0 - then / np.maximum(now, _LEAST))

    def p_lapsed(self, known: Histories) -> Floats:
        """Give P(left for good | has not bought since the last order): shape (n,)."""
        return self.lapse / np.maximum(self.still_open(known), _LEAST)

    def still_open(self, known: Histories) -> Floats:
        """Give P(no order since the last, for so long): shape (n,)."""
        return self.lapse + (1.0 - self.lapse) * self.longer(known, known.age - known.recency)


class Overdue(msgspec.Struct, frozen=True):
    """How long customers have waited, against their own cycle: shape (n,) each, in days.

    Parameters
    ----------
    customer
        Keys of the customers.
    elapsed
        Since the last order.
    usual, latest
        Median and 90 % quantile of the predictive law of this gap, of those who come back.
    by
        ``elapsed - latest``; above 0 the customer is overdue by so much.
    """

    customer: NDArray[np.int64]
    elapsed: Floats
    usual: Floats
    latest: Floats
    by: Floats


def overdue(orders: Orders, model: GapModel, at: int) -> Overdue:
    """Say who is overdue as of the start of a day, and by how much.

    Parameters
    ----------
    at
        Days since 1970-01-01 UTC; orders of that day and later are not read.
    """
    past = orders.before(at)
    known = past.histories(at)
    elapsed = known.age - known.recency
    latest = model.quantile(known, OVERDUE_QUANTILE)
    return Overdue(past.customers, elapsed, model.quantile(known, 0.5), latest, elapsed - latest)


def fit_gaps(orders: Orders, at: int) -> GapModel:
    """Fit by maximum likelihood to complete gaps and to those still open at the start of a day.

    Raises
    ------
    ModelError
        If no customer has bought twice.
    """
    past = orders.before(at)
    known = past.histories(at)
    if not np.any(known.repeats > 0.0):
        raise ModelError(
            "Expected customers who bought more than once, got none",
            hint="train on a longer log of orders",
        )
    gaps = np.maximum(np.diff(past.day, prepend=past.day[0]), 1).astype(np.float64)
    gaps[past.starts] = 1.0
    logs = np.add.reduceat(np.log(gaps), past.starts)
    cycle = float(known.recency.sum() / known.repeats.sum())

    def law(point: Floats) -> GapModel:
        shape, r, beta, lapse = np.exp(point).tolist()
        return GapModel(shape, r, beta * cycle, lapse / (1.0 + lapse))

    def loss(point: Floats) -> float:
        return -_mean_likelihood(law(point), known, logs)

    bounds = [(-4.0, 4.0), (-4.0, 6.0), (-8.0, 8.0), (-8.0, 4.0)]
    start = np.array([0.0, 0.0, 0.0, -3.0])
    return law(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)


def _mean_likelihood(model: GapModel, known: Histories, logs: Floats) -> float:
    x, total = known.repeats, model.beta + known.recency
    own = model.r + model.shape * x
    complete = (model.shape - 1.0) * logs - x * gammaln(model.shape) + gammaln(own)
    complete += x * np.log1p(-model.lapse)
    prior = model.r * np.log(model.beta) - gammaln(model.r)
    still_open = np.log(np.maximum(model.still_open(known), _LEAST))
    return float(np.mean(complete + prior - own * np.log(total) + still_open))
