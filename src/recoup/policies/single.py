"""One event at a time: the policy's fast path, by the kernel that batches use."""

from typing import Final

import numpy as np

from recoup.decisions import Action, Decision, Option
from recoup.policies.core import COUNT, Outputs
from recoup.policies.slices import SLICES
from recoup.policies.timing import LABELS, ExpectedNetValue
from recoup.policies.value import OPTIONS
from recoup.policies.version import REASONS

_ACTIONS: Final = tuple(Action.parse(label) for label in LABELS)


class SingleDecider:
    """Decides for a policy on single events: equal to its batches, without their overhead.

    It writes to the policy's own memory. What it needs of an event is handed over as numbers.

    Parameters
    ----------
    policy
        Whose beliefs, limits and memory are used; call :meth:`refresh` when it adopts others.

    Examples
    --------
    >>> from recoup.events import CODE
    >>> decider = SingleDecider(ExpectedNetValue())
    >>> event = (1_714_521_600_000_000, 11, CODE["payment_error"], 5, 60_000_000, 0, 0, 7, 4, 0)
    >>> decision = decider.decide("v", event, reason=REASONS.index("K5"), intent=0.4, loss=0.3)
    >>> decision.reason, len(decision.options), round(sum(o.propensity for o in decision.options))
    ('K5', 6, 1)
    """

    def __init__(self, policy: ExpectedNetValue) -> None:
        self._policy = policy
        self._numbers = np.zeros((1, 11), np.int64)
        self._reals = np.zeros((1, 2))
        whole, codes = np.zeros((1, 6), np.int64), np.zeros((1, OPTIONS), np.int64)
        self._outputs = Outputs(whole, codes, np.zeros((1, OPTIONS)), np.zeros((1, OPTIONS)))
        self.refresh()

    def refresh(self) -> None:
        """Take up the policy's present version."""
        self._version = self._policy.beliefs.version
        self._shares = self._policy.settings.slice_probabilities()

    def decide(
        self, visitor: str, event: tuple[int, ...], *, reason: int, intent: float, loss: float
    ) -> Decision | None:
        """Decide on one event; None where it opens no decision point.

        Parameters
        ----------
        visitor
            The visitor key.
        event
            Time, key, code, visitor hash, value, price, quantity, session, stage and status, as
            ``encode`` gives them.
        reason, loss
            Position in ``REASONS`` or -1, and the share of buyers that it takes.
        intent
            P(purchase later in this session).
        """
        numbers = self._numbers
        numbers[0] = (*event, reason)
        self._reals[0] = (intent, loss)
        if not self._policy.decide_into(numbers, self._reals, self._outputs):
            return None
        return self._decision(visitor, event, intent)

    def _decision(self, visitor: str, event: tuple[int, ...], intent: float) -> Decision:
        whole = self._outputs.whole[0].tolist()
        count = whole[COUNT]
        drawn = self._outputs
        codes = drawn.codes[0, :count].tolist()
        odds, values = drawn.odds[0, :count].tolist(), drawn.values[0, :count].tolist()
        options = tuple(
            Option(_ACTIONS[code], odd, value)
            for code, odd, value in zip(codes, odds, values, strict=True)
        )
        _, _, chosen, key, group, reason = whole
        policy = self._policy
        return Decision(
            key, event[0], visitor, event[7], event[1], SLICES[group], self._shares[group],
            options, chosen, intent, REASONS[reason], self._version, policy.model,
            policy.executes,
        )  # fmt: skip
