"""Models at work, watched: what they read, and whether what they foretell comes."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from recoup.engine import Step
from recoup.errors import SnapshotError
from recoup.events import encode
from recoup.friction.steps import is_page
from recoup.friction.watch import InputWatch
from recoup.report import Hesitation, Journeys, ModelHealth
from recoup.report.model_health import parts_of
from recoup.runners.hesitation import HESITATION
from recoup.runners.lifecycle import Loaded, health_of_model
from recoup.runners.training import INTENT

ON_EVENTS: Final = (INTENT, HESITATION)
"""Models that read feature rows; repeat purchase reads customers, at the end."""


class ModelWatch:
    """A stage beside the engine: counts what the models of intent and of hesitation read.

    Of hesitation, the rows of pages on which a wait begins, as its card is of.

    Parameters
    ----------
    served
        Name -> what a registry keeps of a model at work.
    names
        Features in the order of the columns of rows.

    Examples
    --------
    >>> from recoup.engine import Engine
    >>> from recoup.testing import random_batch
    >>> watch = ModelWatch({}, ("session_adds",))
    >>> watch.step(Engine().step(random_batch(50, seed=1)))
    >>> watch.health(Journeys(), Hesitation())
    []
    """

    name = "model_watch"

    def __init__(self, served: Mapping[str, Loaded], names: tuple[str, ...]) -> None:
        self._served = {name: served[name] for name in ON_EVENTS if name in served}
        self._watches = {
            name: InputWatch(loaded.kept.reference, names) for name, loaded in self._served.items()
        }

    def step(self, step: Step, /) -> None:
        """Count the rows of a batch."""
        seen, waited = step.shoppers, step.waited
        if INTENT in self._watches:
            self._watches[INTENT].step(seen.rows.values)
        if HESITATION in self._watches and waited is not None:
            told = encode(seen.batch, ("event", "element"))
            pages = is_page(told["event"], told["element"]) & ~np.isnan(waited.goes_on)
            self._watches[HESITATION].step(seen.rows.values[pages])

    def health(self, journeys: Journeys, hesitation: Hesitation) -> list[ModelHealth]:
        """Say of each model whether it still holds."""
        bins = {
            INTENT: [(each.predicted, each.observed, each.events) for each in journeys.intent],
            HESITATION: parts_of(hesitation.forecast),
        }
        return [
            health_of_model(loaded, self._watches[name], bins[name])
            for name, loaded in self._served.items()
        ]

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        return msgspec.msgpack.encode(
            {name: watch.snapshot() for name, watch in self._watches.items()}
        )

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of other models, or of another version.
        """
        try:
            parts = msgspec.msgpack.decode(state, type=dict[str, bytes])
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of watched models: {error}") from error
        if parts.keys() != self._watches.keys():
            raise SnapshotError(f"Expected the state of {list(self._watches)}, got {list(parts)}")
        for name, watch in self._watches.items():
            watch.restore(parts[name])
