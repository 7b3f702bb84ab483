"""All signals that reasons tell: symptoms, what shoppers do about them, and a wait that lasts.

A symptom is what a shopper meets; behaviours and long waits are how a shopper wavers. Purchase
intent is fitted to events without symptoms, so whatever its features know of wavering is in the
unspoilt part; the effects of behaviours are what it does not know.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import EventBatch
from recoup.friction.behaviour import BEHAVIOURS, BehaviourDetector
from recoup.friction.signal_kinds import Signal
from recoup.friction.signals import SIGNALS, Detected, SignalDetector
from recoup.parts import gather, under
from recoup.state import Changes

_NAMES: Final = {
    "revisits": "coming back to one item again and again",
    "oscillation": "in the cart, out, and in again",
    "comparison_loop": "to and fro between items",
    "rage_click": "clicks in a rage",
    "dead_click": "a click without reaction in time",
    "error_click": "a click that met an error",
}

WAVERING: Final = (
    *(
        Signal(
            f"{'D7' if name.endswith('click') else 'D9'}:{name}", _NAMES[name], (),
            "page" if name.endswith("click") else "item",
        )
        for name in BEHAVIOURS
    ),
    Signal("D9", "a wait that is too long", (), "page"),
)  # fmt: skip
"""Behaviours, as ``row:name`` of the catalogue, and the long wait, which only a tick shows."""

EXPLAINED: Final = (*SIGNALS, *WAVERING)
"""What reasons tell, a bit each: symptoms, then :data:`WAVERING`; append, never reorder."""

EXPLAINED_INDEX: Final = {signal.id: index for index, signal in enumerate(EXPLAINED)}

LONG_WAIT: Final = EXPLAINED_INDEX["D9"]
SYMPTOM_BITS: Final = (1 << len(SIGNALS)) - 1

_ONE: Final = tuple[bytes, bytes]


class JourneyDetector:
    """A fold over sessions that finds symptoms and behaviours: all that an event itself shows.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> found = JourneyDetector().step(random_batch(50, seed=1), np.ones(50, np.int64))
    >>> found.signals.shape, found.behaved.shape
    ((50, 20), (50, 6))
    """

    name = "signals"

    def __init__(self) -> None:
        self._symptoms = SignalDetector()
        self._behaviours = BehaviourDetector()

    def step(self, batch: EventBatch, session: NDArray[np.int64]) -> Detected:
        """Fold a batch: ``session`` holds each event's session key, shape (n,)."""
        seen = self._symptoms.step(batch, session)
        behaved = self._behaviours.detect(batch, session, np.asarray(seen.signals.any(axis=1)))
        told, earlier = (each << len(SIGNALS) for each in (behaved.told, behaved.before))
        before = seen.before | earlier
        return Detected(seen.signals, seen.stage, before, seen.step, behaved.shown, told)

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        return msgspec.msgpack.encode((self._symptoms.snapshot(), self._behaviours.snapshot()))

    def changes(self) -> Changes:
        """Give what changed since the last call, as parts to save."""
        behaviours = self._behaviours.snapshot()
        return gather({"symptoms": self._symptoms.changes(), "behaviours": behaviours})

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        try:
            symptoms, behaviours = msgspec.msgpack.decode(state, type=_ONE)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of a journey detector: {error}") from error
        self._symptoms.restore(symptoms)
        self._behaviours.restore(behaviours)

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together."""
        self._symptoms.restore_parts(under("symptoms", parts))
        self._behaviours.restore(parts.get("behaviours", b""))
