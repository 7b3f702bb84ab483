"""Training and judging purchase intent on logs, with a registry for the models."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

from recoup.features import FeatureStore, standard_features
from recoup.friction import IntentModel, Period
from recoup.friction.training import evaluate_intent, train_intent
from recoup.runners.backfill import admitted
from recoup.sources import Source
from recoup.stores import Registry

INTENT: Final = "intent"
"""Under which the registry keeps purchase intent."""

Progress = Callable[[int], None]


def train_intent_on(
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    progress: Progress | None = None,
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
    progress
        Told the number of events read so far.

    Raises
    ------
    ModelError
        If too few sessions buy.
    """
    features = standard_features()
    model, metrics = train_intent(
        admitted(source),
        FeatureStore(features),
        features.hash,
        period=_period(start, until),
        history=() if history is None else admitted(history),
        progress=progress,
    )
    told: dict[str, object] = {"source": source.name, "features": features.name, "metrics": metrics}
    with Registry(registry) as models:
        version = models.save(INTENT, model.to_bytes(), told)
    return {**metrics, "model": version.hash, "version": version.number}


def evaluate_intent_on(
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Judge the newest registered model on a log; parameters as of :func:`train_intent_on`.

    Raises
    ------
    ModelError
        If the registry holds no model, or none of its rows can be scored.
    """
    model = load_intent(registry)
    metrics = evaluate_intent(
        model,
        admitted(source),
        FeatureStore(standard_features()),
        period=_period(start, until),
        history=() if history is None else admitted(history),
        progress=progress,
    )
    return {**metrics, "model": model.hash}


def load_intent(registry: Path) -> IntentModel:
    """Give the newest model of purchase intent, ready for rows of the standard features.

    Raises
    ------
    ModelError
        If there is no registry, it holds no such model, or the model reads other features.
    """
    with Registry(registry, read_only=True) as models:
        artefact, _ = models.load(INTENT)
    model = IntentModel.from_bytes(artefact)
    model.bind(standard_features().names)
    return model


def _period(start: dt.datetime | None, until: dt.datetime | None) -> Period:
    return Period(_micros(start), _micros(until))


def _micros(moment: dt.datetime | None) -> int | None:
    if moment is None:
        return None
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
