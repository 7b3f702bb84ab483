"""The models of a registry that serve a replay: intent, hesitation, repeat purchase."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

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
    intent, hesitation, repeat
        Purchase intent, how long shoppers wait, and who buys again.
    served
        Name -> what the registry keeps of each.
    """

    intent: IntentModel | None = None
    hesitation: HesitationModel | None = None
    repeat: RepeatModel | None = None
    served: dict[str, Loaded] = {}

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
    wanted = names & LOADERS.keys() or {INTENT}
    found = {name: load(registry, serving=True) for name, load in LOADERS.items() if name in wanted}
    ours = {name: model for name, (model, _) in found.items()}
    return Serving(**ours, served={name: loaded for name, (_, loaded) in found.items()})


LOADERS: Final[dict[str, Callable[..., tuple[Any, Loaded]]]] = {
    INTENT: load_intent,
    HESITATION: load_hesitation,
    REPEAT: load_repeat,
}
"""Name of a model in the registry, and in :class:`Serving` -> what loads it with its card."""
