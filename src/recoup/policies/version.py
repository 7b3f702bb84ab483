"""A policy's settings, and the versioned beliefs that it decides by until it adopts others."""

import hashlib
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.friction.signals import SIGNALS
from recoup.interventions import HESITATES, INTERVENTIONS, UNEXPLAINED

REASONS: Final = (*(signal.id for signal in SIGNALS), UNEXPLAINED, HESITATES)
"""Reasons of a decision point; a reason's position is its code."""

_HESITATES: Final = len(REASONS) - 1

PRIOR_LOSS: Final = 0.3
"""Share of buyers that a signal is believed to cost before evidence: our judgement."""

HESITATION_LOSS: Final = 0.6
"""The same of a wait that is too long: the learner's prior. The model says for whom how much."""


class Settings(msgspec.Struct, frozen=True):
    """How a policy weighs and explores.

    Parameters
    ----------
    margin
        Share of an order's value that is left once the goods are paid.
    floor
        Least propensity of each eligible option.
    temperature
        Softmax temperature, micro-units of expected net value.
    resolve_s, leave_s, fade
        Time scales: of buying without help, of leaving, and of the effect's fading as a share of
        the deadline.
    random_share, holdout_share
        Share of visitors always decided at random, and never acted on.
    seed
        Seed of slices and draws.
    order_value
        Order value assumed before any is seen, micro-units.
    watch_confidence, max_watched
        P(real) from which a defect opens decision points, and how many may.
    max_sessions
        Most sessions, and visitors, remembered.
    """

    margin: float = 0.4
    floor: float = 0.02
    temperature: float = 20_000.0
    resolve_s: float = 300.0
    leave_s: float = 300.0
    fade: float = 0.5
    random_share: float = 0.05
    holdout_share: float = 0.1
    seed: int = 0
    order_value: int = 50_000_000
    watch_confidence: float = 0.8
    max_watched: int = 64
    max_sessions: int = 1 << 20

    def __post_init__(self) -> None:
        """Refuse shares and floors that are no probabilities.

        Raises
        ------
        ConfigError
            If a share, the floor or the margin leaves its range.
        """
        shares = (self.random_share, self.holdout_share, self.margin)
        if not all(0 <= each <= 1 for each in shares) or sum(shares[:2]) > 1:
            raise ConfigError("Expected margin and slice shares in [0, 1], slices summing to <= 1")
        if not 0 < self.floor <= 1 / 16 or self.temperature <= 0:
            raise ConfigError("Expected 0 < floor <= 1/16 and a positive temperature")

    def array(self) -> NDArray[np.float64]:
        """Give what the kernel reads, in the order of ``recoup.policies.value``."""
        times = (self.resolve_s, self.fade, self.leave_s)
        return np.array([self.margin, self.floor, self.temperature, *times])

    def slice_probabilities(self) -> tuple[float, float, float]:
        """Give the probability of each slice, in the order of ``SLICES``."""
        rest = 1.0 - self.random_share - self.holdout_share
        return rest, self.random_share, self.holdout_share


class Beliefs(msgspec.Struct, frozen=True):
    """What a policy believes of effects and losses, by m interventions and the reasons.

    Parameters
    ----------
    recovered
        Mean recovered share, float64 (m, len(REASONS)).
    loss
        Share of buyers that each reason costs, float64 (len(REASONS),).
    order_value
        Mean order value, micro-units.

    Examples
    --------
    >>> Beliefs.prior().version == Beliefs.prior().version
    True
    """

    recovered: NDArray[np.float64]
    loss: NDArray[np.float64]
    order_value: int

    @staticmethod
    def prior(order_value: int = 50_000_000) -> "Beliefs":
        """Give the catalogue's priors."""
        means = np.array([[each.prior_mean] for each in INTERVENTIONS])
        shape = (len(INTERVENTIONS), len(REASONS))
        loss = np.full(len(REASONS), PRIOR_LOSS)
        loss[_HESITATES] = HESITATION_LOSS
        return Beliefs(np.broadcast_to(means, shape).copy(), loss, order_value)

    @property
    def version(self) -> str:
        """Name of these beliefs: a hash of their bytes.

        What is believed of hesitation enters once something was learned of it: a shop without ticks
        keeps the names that it had.
        """
        known, waits = self.recovered[:, :_HESITATES], self.recovered[:, _HESITATES]
        body = known.tobytes() + self.loss[:_HESITATES].tobytes() + str(self.order_value).encode()
        learned = self.loss[_HESITATES] != HESITATION_LOSS
        if learned or (waits != [each.prior_mean for each in INTERVENTIONS]).any():
            body += waits.tobytes() + self.loss[_HESITATES:].tobytes()
        return f"net-value-{hashlib.sha256(body).hexdigest()[:12]}"
