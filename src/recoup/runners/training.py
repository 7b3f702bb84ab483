"""Training and judging purchase intent on logs, with a registry for the models."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.events import micros_of
from recoup.features import FeatureStore, standard_features
from recoup.friction import IntentModel, Period
from recoup.friction.intent_context import CONTEXT_COLUMNS
from recoup.friction.intent_rows import MOST_ROWS, IntentRows
from recoup.friction.training import IntentSettings, evaluate_intent, train_intent
from recoup.friction.watch import Reference, reference_of
from recoup.models.card import (
    ModelCard,
    ReliabilityBin,
    SliceMetrics,
    reliability_of,
    slices_of,
    worst_of,
)
from recoup.non_shoppers import Rules
from recoup.runners.backfill import admitted
from recoup.runners.lifecycle import NAMED, Loaded, Witness, keep_model, load_model
from recoup.sources import Source

INTENT: Final = "intent"
"""Under which the registry keeps purchase intent."""

PURPOSE: Final = (
    "P(purchase later in this session | journey so far), at every event of a session that has not "
    "bought yet."
)
LIMITS: Final = (
    "The vocabulary of channels, countries and the like ages: train again as they change.",
    "Calibration is of events, not of sessions: long sessions weigh as often as they have events.",
    "A prediction is no effect: what lowers it need not be what keeps the shopper from buying.",
)

Progress = Callable[[int], None]


def train_intent_on(  # noqa: PLR0913
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    most_rows: int = MOST_ROWS,
    settings: IntentSettings | None = None,
) -> dict[str, object]:
    """Train on a log, register the model, and give its measures on the time splits.

    Parameters
    ----------
    source, history
        The log, and an earlier one that is folded for features only.
    registry
        Directory of the model registry; made if it is absent.
    start, until
        Rows at or after ``start`` and before ``until``.
    rules
        By which bots, monitors, staff and test orders are left out; the built-in ones if None.
    progress
        Told the number of events read so far.
    most_rows
        Events held in memory; a longer log is sampled by visitor.
    settings
        How it is trained; the best known where None.

    Raises
    ------
    ModelError
        If too few sessions buy.
    """
    features = standard_features()
    settings = msgspec.structs.replace(settings or IntentSettings(), most_rows=most_rows)
    witness, judged = Witness(source.name, period_of(start, until).until), _Judged()
    model, metrics = train_intent(
        witness.watch(admitted(source)),
        FeatureStore(features),
        features.hash,
        period=period_of(start, until),
        history=() if history is None else witness.watch(admitted(history)),
        settings=settings,
        rules=rules,
        progress=progress,
        judged=judged,
    )
    card = ModelCard(
        name=INTENT,
        hash=model.hash,
        purpose=PURPOSE,
        inputs=f"{features.name}, version {features.version}, {features.hash}",
        fingerprint=witness.fingerprint(),
        settings=msgspec.to_builtins(settings),
        metrics=metrics,
        reliability=judged.reliability(),
        slices=judged.slices(witness),
        limits=LIMITS,
    )
    version = keep_model(registry, model.to_bytes(), card, judged.reference(model))
    told = {**metrics, "worst_slice": card.worst, "model": version.hash}
    return {**told, "version": version.number}


def evaluate_intent_on(
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    version: int | None = None,
) -> dict[str, object]:
    """Judge a registered model on a log; parameters as of :func:`train_intent_on`.

    Parameters
    ----------
    version
        Which version; the newest where none is named.

    Raises
    ------
    ModelError
        If the registry holds no such model, or none of its rows can be scored.
    """
    model = load_intent(registry, version)[0]
    witness, judged = Witness(source.name), _Judged()
    metrics = evaluate_intent(
        model,
        witness.watch(admitted(source)),
        FeatureStore(standard_features()),
        period=period_of(start, until),
        history=() if history is None else witness.watch(admitted(history)),
        rules=rules,
        progress=progress,
        judged=judged,
    )
    slices = judged.slices(witness)
    told = {"reliability": judged.reliability(), "slices": slices, "worst_slice": worst_of(slices)}
    return {**metrics, **told, "model": model.hash}


def load_intent(
    registry: Path, version: int | None = None, *, serving: bool = False
) -> tuple[IntentModel, Loaded]:
    """Give a model of purchase intent, ready for rows of the standard features, and its card.

    Parameters
    ----------
    version
        Which version; where none is named, the newest.
    serving
        Where no version is named, the promoted one before the newest.

    Raises
    ------
    ModelError
        If there is no registry, it holds no such model, or the model reads other features.
    """
    loaded = load_model(registry, INTENT, version, serving=serving)
    model = IntentModel.from_bytes(loaded.artefact)
    model.bind(standard_features().names)
    return model, loaded


class _Judged:
    """Keeps the rows that a model was judged on, and what it said of them."""

    def __call__(self, rows: IntentRows, probability: NDArray[np.float64]) -> None:
        self._rows, self._probability = rows, probability

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        return reliability_of(self._rows.positive, self._probability)

    def slices(self, witness: Witness) -> tuple[SliceMetrics, ...]:
        rows = self._rows
        told = {
            column: witness.names(column, rows.context[:, CONTEXT_COLUMNS.index(column)])
            for column in NAMED
        }
        sessions = rows.values[:, rows.names.index("visitor_sessions")]
        visits = rows.values[:, rows.names.index("visitor_visit_number")]
        returning = (sessions > 1) | (visits > 1)
        told["visitor_type"] = np.where(returning, "returning", "new").tolist()
        return slices_of(rows.positive, self._probability, told)

    def reference(self, model: IntentModel) -> dict[str, Reference]:
        read = sorted({name for name, _ in model.inputs})
        columns = [self._rows.names.index(name) for name in read]
        return reference_of(self._rows.values[:, columns], tuple(read))


def period_of(start: dt.datetime | None, until: dt.datetime | None) -> Period:
    """Give the period between two moments; None is unbounded."""
    bounds = (None if each is None else micros_of(each) for each in (start, until))
    return Period(*bounds)
