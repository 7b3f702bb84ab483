"""What interventions recover, learned from the outcomes of executed decisions alone.

Per (intervention, reason) the share of orders after acting is compared with that after leaving the
journey alone (``never``, any wait, and the permanent holdout), each outcome weighed by the inverse
of the probability with which its decision was taken. The difference, over what the defect is
believed to take, is the recovered share; a normal likelihood updates the catalogue's prior.

What a long wait takes is learned as well. Intent at its decision is that of before the wait, so of
the orders that it promised, those that journeys left alone did not bring are what the wait took.
The prior counts as so many promised orders; Poisson orders with a gamma prior give the mean.
"""

from collections.abc import Collection
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import NEVER
from recoup.errors import SnapshotError
from recoup.events import MICROS
from recoup.interventions import HESITATES, INTERVENTIONS
from recoup.policies.version import REASONS, Beliefs, Settings

MAX_WEIGHT: Final = 50.0
"""Inverse propensities are cut here; with the standard floor of 0.02 nothing is."""
MAX_PENDING: Final = 1_000_000
_CONTROL: Final = len(INTERVENTIONS)
_ARMS: Final = {each.id: index for index, each in enumerate(INTERVENTIONS)}
_HESITATES: Final = REASONS.index(HESITATES)
_COUNT, _WEIGHT, _SQUARES, _ORDERS, _INTENT, _NET, _BOUGHT = range(7)
_FORMAT: Final = b"recoup.learner/3"
_LEAST_LOST: Final = 1e-4
PRIOR_PROMISED: Final = 20.0
"""Orders promised by intent that the prior of what a long wait takes is worth."""


class Learner:
    """Sums over matured outcomes, exact and commutative, and the beliefs that follow.

    Weights and orders are summed as int64 micro-units: any order of arrival, and any split over
    shards, gives the same beliefs. The first outcome of a decision counts; later revisions of its
    value do not change what was learned. At most a million decisions await their outcome.

    Parameters
    ----------
    settings
        Those of the policy.

    Examples
    --------
    >>> Learner().beliefs().version == Beliefs.prior().version
    True
    """

    name = "learner"

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._prior = Beliefs.prior(self.settings.order_value)
        self._sums = np.zeros((_CONTROL + 1, len(REASONS), 7), np.int64)
        self._pending: dict[int, tuple[int, int, int, int, str | None]] = {}

    def step(self, decisions: pl.DataFrame, outcomes: pl.DataFrame) -> int:
        """Fold decisions and matured outcomes; give the number of outcomes learned from."""
        self._await(decisions.filter("executed"))
        learned = 0
        first = outcomes.filter(pl.col("revision") == 0)
        for decision, net, orders in first.select("decision", "net_value_micros", "orders").rows():
            known = self._pending.pop(decision, None)
            if known is not None:
                self._add(known, net, orders)
                learned += 1
        return learned

    def _await(self, decisions: pl.DataFrame) -> None:
        picked = decisions.select(
            "id", "visitor", "action", "reason", "intent", "slice", "propensity", "options",
            "propensities",
        )  # fmt: skip
        for key, visitor, action, reason, intent, group, chance, options, odds in picked.rows():
            arm = _ARMS.get(action.removeprefix("act:"), _CONTROL)
            if arm == _CONTROL and group != "holdout":
                chance = sum(p for o, p in zip(options, odds, strict=True) if _is_control(o))  # noqa: PLW2901
            weight = round(min(1.0 / chance, MAX_WEIGHT) * MICROS)
            told = (arm, REASONS.index(reason), weight, round(intent * MICROS), visitor)
            self._pending[key] = told
        for key in list(self._pending)[: max(len(self._pending) - MAX_PENDING, 0)]:
            del self._pending[key]

    def _add(self, known: tuple[int, int, int, int, str | None], net: int, orders: int) -> None:
        arm, reason, weight, intent, _ = known
        squares = round(weight * weight / MICROS)
        bought = min(orders, 1)
        whole = (1, weight, squares, weight * bought, weight * intent // MICROS, net, orders)
        self._sums[arm, reason] += np.array(whole, np.int64)

    def leave_out(self, visitors: Collection[str]) -> None:
        """Forget decisions that await their outcome, of visitors who are no shoppers."""
        if visitors:
            kept = ((key, told) for key, told in self._pending.items() if told[-1] not in visitors)
            self._pending = dict(kept)

    def merge(self, other: "Learner") -> None:
        """Add what another shard's learner has summed."""
        self._sums += other._sums  # noqa: SLF001

    def beliefs(self) -> Beliefs:
        """Give the posterior means, as a version that a policy can adopt."""
        control = self._sums[_CONTROL]
        if not control[:, _COUNT].any():
            return self._prior
        recovered, loss = self._prior.recovered.copy(), self._prior.loss.copy()
        loss[_HESITATES] = _taken(control[_HESITATES], loss[_HESITATES])
        for arm, reason in np.argwhere(self._sums[:_CONTROL, :, _COUNT] > 0):
            sums = self._sums[arm, reason], control[reason]
            recovered[arm, reason] = _posterior(arm, *sums, loss[reason])
        return Beliefs(recovered, loss, self._order_value())

    def _order_value(self) -> int:
        """Mean net value of an order where nothing was done, shrunk to what was assumed."""
        net, orders = self._sums[_CONTROL, :, _NET].sum(), self._sums[_CONTROL, :, _BOUGHT].sum()
        assumed = 10
        return int((net + assumed * self.settings.order_value) // (orders + assumed))

    def snapshot(self) -> bytes:
        """Give sums and pending decisions as versioned bytes."""
        pending = sorted(self._pending.items())
        return _FORMAT + msgspec.msgpack.encode((self._sums.tobytes(), pending))

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        body = state.removeprefix(_FORMAT)
        if len(body) == len(state):
            raise SnapshotError("Expected the state of a learner of version 3, got other bytes")
        kind = tuple[bytes, list[tuple[int, tuple[int, int, int, int, str | None]]]]
        sums, pending = msgspec.msgpack.decode(body, type=kind)
        self._sums = np.frombuffer(sums, np.int64).reshape(self._sums.shape).copy()
        self._pending = dict(pending)


def _is_control(option: str) -> bool:
    return option == NEVER or option.startswith("wait:")


def _taken(left: NDArray[np.int64], prior: float) -> float:
    """Give the share of the orders promised by intent that did not come, of who was left alone."""
    if not left[_COUNT]:
        return prior
    effective = float(left[_WEIGHT]) ** 2 / (float(left[_SQUARES]) * MICROS)
    promised, came = (effective * left[k] / left[_WEIGHT] for k in (_INTENT, _ORDERS))
    kept = (came + PRIOR_PROMISED * (1.0 - prior)) / (promised + PRIOR_PROMISED)
    return float(np.clip(1.0 - kept, 0.0, 1.0))


def _posterior(arm: int, acted: NDArray[np.int64], left: NDArray[np.int64], loss: float) -> float:
    """Give the mean recovered share: a normal update of the catalogue's Beta prior."""
    each = INTERVENTIONS[arm]
    prior = each.prior_mean
    variance = prior * (1 - prior) / (each.prior_wins + each.prior_losses + 1)
    if not left[_COUNT]:
        return prior
    lost = max(loss * acted[_INTENT] / acted[_WEIGHT], _LEAST_LOST)
    rate, noise = _rate(acted)
    base, base_noise = _rate(left)
    seen, seen_variance = (rate - base) / lost, (noise + base_noise) / lost**2
    share = variance / (variance + seen_variance)
    return float(np.clip(prior + share * (seen - prior), -0.5, 1.0))


def _rate(sums: NDArray[np.int64]) -> tuple[float, float]:
    """Give the weighted share that ordered, with its variance; one order and one miss are added."""
    effective = float(sums[_WEIGHT]) ** 2 / (float(sums[_SQUARES]) * MICROS)
    rate = float(sums[_ORDERS]) / float(sums[_WEIGHT])
    padded = (rate * effective + 1) / (effective + 2)
    return rate, padded * (1 - padded) / effective
