"""The models of a registry that serve a replay: intent, hesitation, repeat purchase."""

from pathlib import Path

import msgspec

from recoup.friction.hesitation import HesitationModel
from recoup.friction.intent import IntentModel
from recoup.friction.repeat import RepeatModel
from recoup.runners.hesitation import HESITATION, load_hesitation
from recoup.runners.lifecycle import Loaded
from recoup.runners.repeat import REPEAT, load_repeat
from recoup.runners.training import INTENT, load_intent
from recoup.stores import Registry


class Serving(msgspec.Struct, frozen=True):
    """Models that serve; None where the registry has none of the name.

    Parameters
    ----------
    intent, served
        Purchase intent, and what the registry keeps beside it.
    hesitation, repeat
        How long shoppers wait, and who buys again.
    """

    intent: IntentModel | None = None
    served: Loaded | None = None
    hesitation: HesitationModel | None = None
    repeat: RepeatModel | None = None

    @property
    def names(self) -> dict[str, str | None]:
        """Each model's hash, shortened, behind words that say which: what a replay is told by."""
        models = {
            "with model": self.intent,
            "with hesitation": self.hesitation,
            "with repeat": self.repeat,
        }
        return {word: None if model is None else model.hash[:12] for word, model in models.items()}


def load_serving(registry: Path) -> Serving:
    """Load the promoted version of each model, else the newest.

    Raises
    ------
    ModelError
        If there is no registry, it holds none of these models, or one reads other features.
    """
    with Registry(registry, read_only=True) as models:
        names = set(models.names())
    none = not names & {INTENT, HESITATION, REPEAT}
    intent, served = (
        load_intent(registry, serving=True) if INTENT in names or none else (None, None)
    )
    return Serving(
        intent,
        served,
        load_hesitation(registry, serving=True) if HESITATION in names else None,
        load_repeat(registry, serving=True) if REPEAT in names else None,
    )
