"""Training and judging hesitation on logs, with a registry for the models."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from recoup.errors import ModelError
from recoup.features import FeatureStore, standard_features
from recoup.friction.hesitation import HesitationModel
from recoup.friction.hesitation_baselines import Baselines, baselines_from_bytes
from recoup.friction.hesitation_evaluation import evaluate_hesitation
from recoup.friction.hesitation_training import HesitationSettings, Trained, train_hesitation
from recoup.friction.intent_rows import MOST_ROWS
from recoup.friction.waits import CONTEXT
from recoup.friction.watch import reference_of
from recoup.models.card import ModelCard, SliceMetrics, reliability_of, slices_of
from recoup.models.packing import digest, pack, unpack
from recoup.non_shoppers import Rules
from recoup.runners.backfill import admitted
from recoup.runners.lifecycle import NAMED, Loaded, Witness, keep_model, load_model
from recoup.runners.training import period_of
from recoup.sources import Source

HESITATION: Final = "hesitation"
"""Under which the registry keeps hesitation."""

KIND: Final = "hesitation_with_peers/1"
PURPOSE: Final = (
    "How long a shopper waits before the next page or step forward, and P(goes on at all within "
    "the session). Reliability and slices are of the latter."
)
LIMITS: Final = (
    "Single states drift as the traffic's mix does: train again as campaigns change.",
    "A closed tab is never seen, only the silence after it.",
    "A long wait is no effect: what makes shoppers wait need not be what keeps them from buying.",
)

Progress = Callable[[int], None]


def train_hesitation_on(  # noqa: PLR0913
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    most_rows: int = MOST_ROWS,
    settings: HesitationSettings | None = None,
) -> dict[str, object]:
    """Train on a log, register the model with its peers, and give its measures on a time split.

    Parameters are those of :func:`recoup.runners.training.train_intent_on`.

    Raises
    ------
    ModelError
        If too few waits end.
    """
    features, settings = standard_features(), settings or HesitationSettings()
    witness = Witness(source.name, period_of(start, until).until)
    trained = train_hesitation(
        witness.watch(admitted(source, progress)),
        FeatureStore(features),
        features.hash,
        period=period_of(start, until),
        history=() if history is None else witness.watch(admitted(history)),
        rules=rules,
        settings=settings,
        most_rows=most_rows,
    )
    artefact = _to_bytes(trained.model, trained.baselines)
    rows, names = trained.judged, trained.model.names
    card = ModelCard(
        name=HESITATION,
        hash=digest(artefact),
        purpose=PURPOSE,
        inputs=f"{features.name}, version {features.version}, {features.hash}",
        fingerprint=witness.fingerprint(),
        settings=msgspec.to_builtins(settings),
        metrics=trained.metrics,
        reliability=reliability_of(rows.gone_on, trained.goes_on),
        slices=_slices(trained, witness),
        limits=LIMITS,
    )
    read = rows.values[:, [rows.names.index(name) for name in names]]
    version = keep_model(registry, artefact, card, reference_of(read, names))
    told = {**trained.metrics, "worst_slice": card.worst, "model": version.hash}
    return {**told, "version": version.number}


def evaluate_hesitation_on(
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
    """Judge a registered model, the newest where none is named, beside its peers on a log.

    Raises
    ------
    ModelError
        If the registry holds no such model, or there is no row.
    """
    loaded = load_model(registry, HESITATION, version)
    model, baselines = _from_bytes(loaded.artefact)
    metrics = evaluate_hesitation(
        model,
        admitted(source, progress),
        FeatureStore(standard_features()),
        baselines=baselines,
        period=period_of(start, until),
        history=() if history is None else admitted(history),
        rules=rules,
    )
    return {**metrics, "model": loaded.kept.card.hash}


def load_hesitation(
    registry: Path, version: int | None = None, *, serving: bool = False
) -> tuple[HesitationModel, Loaded]:
    """Give a model of hesitation, ready for rows of the standard features, and its card.

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
    loaded = load_model(registry, HESITATION, version, serving=serving)
    model, _ = _from_bytes(loaded.artefact)
    model.bind(standard_features().names)
    return model, loaded


def _slices(trained: Trained, witness: Witness) -> tuple[SliceMetrics, ...]:
    rows = trained.judged
    told = {name: witness.names(name, rows.context[:, CONTEXT.index(name)]) for name in NAMED}
    sessions = rows.values[:, rows.names.index("visitor_sessions")]
    told["visitor_type"] = np.where(sessions > 1, "returning", "new").tolist()
    return slices_of(rows.gone_on, trained.goes_on, told)


def _to_bytes(model: HesitationModel, baselines: Baselines) -> bytes:
    return pack(KIND, {"model": model.to_bytes(), "peers": baselines.to_bytes()}, {})


def _from_bytes(artefact: bytes) -> tuple[HesitationModel, Baselines]:
    meta, _ = unpack(KIND, artefact)
    model, peers = meta.get("model"), meta.get("peers")
    if not isinstance(model, bytes) or not isinstance(peers, bytes):
        raise ModelError("Expected a hesitation model with its peers, got other content")
    return HesitationModel.from_bytes(model), baselines_from_bytes(peers)
