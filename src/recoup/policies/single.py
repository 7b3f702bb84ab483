"""One event at a time: the policy's fast path, by the kernel that batches use."""

import struct
from typing import Final

import numpy as np

from recoup.decisions import Action, Decision, Option
from recoup.models.addresses import Located
from recoup.policies.core import NUMBERS, WHOLE
from recoup.policies.slices import SLICES
from recoup.policies.timing import LABELS, ExpectedNetValue
from recoup.policies.value import OPTIONS
from recoup.policies.version import REASONS

_INPUT: Final = struct.Struct(f"={NUMBERS}q2d")
_OUTPUT: Final = struct.Struct(f"={WHOLE + OPTIONS}q{2 * OPTIONS}d")
_ODDS: Final = WHOLE + OPTIONS
_VALUES: Final = _ODDS + OPTIONS
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
        self._given, self._drawn = bytearray(_INPUT.size), bytearray(_OUTPUT.size)
        given, drawn = np.frombuffer(self._given, np.int64), np.frombuffer(self._drawn, np.int64)
        numbers, reals = given[:NUMBERS], given[NUMBERS:].view(np.float64)
        whole, codes = drawn[:WHOLE], drawn[WHOLE:_ODDS]
        odds, values = drawn[_ODDS:_VALUES].view(np.float64), drawn[_VALUES:].view(np.float64)
        self._located = Located(numbers, reals, whole, codes, odds, values)
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
        _INPUT.pack_into(self._given, 0, *event, reason, intent, loss)
        if not self._policy.decide_one(self._located.places):
            return None
        return self._decision(visitor, event, intent)

    def _decision(self, visitor: str, event: tuple[int, ...], intent: float) -> Decision:
        drawn = _OUTPUT.unpack(self._drawn)
        _, count, chosen, key, group, reason = drawn[:WHOLE]
        options = tuple([
            Option(_ACTIONS[code], odd, value)
            for code, odd, value in zip(
                drawn[WHOLE : WHOLE + count], drawn[_ODDS : _ODDS + count], drawn[_VALUES:],
                strict=False,
            )
        ])  # fmt: skip
        policy = self._policy
        return Decision(
            key, event[0], visitor, event[7], event[1], SLICES[group], self._shares[group],
            options, chosen, intent, REASONS[reason], self._version, policy.model,
            policy.executes,
        )  # fmt: skip
