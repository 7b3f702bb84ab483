"""The life of a model: what it was fitted to, its card, its version, and which version serves."""

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EventBatch, hash64, iso
from recoup.friction.watch import InputWatch, Reference
from recoup.models.card import Fingerprint, ModelCard
from recoup.report.model_card import card_in_words, reliability_figure
from recoup.report.model_health import ModelHealth, forecast_of, parts_of
from recoup.stores import Registry
from recoup.stores.registry import Version

CARDS: Final = "cards"
"""Folder of a registry with a card a version: Markdown, JSON, and a reliability plot."""

NAMED: Final = ("device", "channel", "country")
"""Columns whose values a witness remembers by name."""


class Witness:
    """Sees a log pass by: takes its fingerprint, and remembers names that models see hashed.

    Parameters
    ----------
    source
        The log's name.
    until_us
        Events at or after it are none of the model's, and not in the fingerprint; int64
        microseconds UTC.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> witness = Witness("shop")
    >>> sum(len(batch) for batch in witness.watch([random_batch(100, seed=1)]))
    100
    >>> witness.fingerprint().events, witness.fingerprint().sha256[:8]
    (100, '318870b2')
    """

    def __init__(self, source: str, until_us: int | None = None) -> None:
        self._source = source
        self._until_us = until_us
        self._times, self._keys = hashlib.sha256(), hashlib.sha256()
        self._events = 0
        self._first: int | None = None
        self._last: int | None = None
        self._names: dict[str, dict[int, str]] = {column: {} for column in NAMED}

    def watch(self, batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
        """Let batches pass."""
        for batch in batches:
            if len(batch):
                self._see(batch)
            yield batch

    def fingerprint(self) -> Fingerprint:
        """Describe what has passed."""
        span = (_iso(self._first), _iso(self._last))
        both = hashlib.sha256(self._times.digest() + self._keys.digest())
        return Fingerprint(self._source, self._events, *span, both.hexdigest())

    def names(self, column: str, hashed: NDArray[np.int64]) -> list[str]:
        """Give values of a column by name, "" where unknown: n of them."""
        known = self._names[column]
        return [known.get(key, "") for key in hashed.tolist()]

    def _see(self, batch: EventBatch) -> None:
        for column, known in self._names.items():
            for name in batch.events[column].unique().drop_nulls().to_list():
                known.setdefault(hash64(name), name)
        ts = batch.events["ts"].to_physical().to_numpy()
        own = ts < (np.inf if self._until_us is None else self._until_us)
        ts, key = ts[own], batch.column("key")[own]
        if len(ts):
            self._take(np.ascontiguousarray(ts), np.ascontiguousarray(key))

    def _take(self, ts: NDArray[np.generic], key: NDArray[np.generic]) -> None:
        self._times.update(ts.tobytes())
        self._keys.update(key.tobytes())
        self._events += len(ts)
        low, high = int(ts.min()), int(ts.max())
        self._first = low if self._first is None else min(self._first, low)
        self._last = high if self._last is None else max(self._last, high)


class Kept(msgspec.Struct, frozen=True):
    """What a registry holds beside an artefact."""

    card: ModelCard
    reference: dict[str, Reference] = {}


def keep_model(
    registry: Path, artefact: bytes, card: ModelCard, reference: Mapping[str, Reference]
) -> Version:
    """Register an artefact as the next version of its name, with its card beside it.

    Parameters
    ----------
    registry
        Directory of the registry; made if it is absent.
    card
        Also written to ``cards/NAME-NUMBER.md``, ``.json`` and, where its reliability is known,
        ``.svg``.
    reference
        How its inputs were distributed when it was judged, for watching it at work.
    """
    kept = msgspec.to_builtins(Kept(card, dict(reference)))
    with Registry(registry) as models:
        version = models.save(card.name, artefact, kept)
    folder = registry / CARDS
    folder.mkdir(exist_ok=True)
    place = folder / f"{card.name}-{version.number}"
    figure = reliability_figure(card.reliability) if card.reliability else ""
    text = card_in_words(card, version.number, f"{place.name}.svg" if figure else None)
    place.with_suffix(".md").write_text(text, encoding="utf-8")
    place.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(card)) + b"\n")
    if figure:
        place.with_suffix(".svg").write_text(figure, encoding="utf-8")
    return version


class Loaded(msgspec.Struct, frozen=True):
    """A registered model: its bytes, its number, and what was kept beside it."""

    artefact: bytes
    number: int
    kept: Kept


def load_model(
    registry: Path, name: str, version: int | None = None, *, serving: bool = False
) -> Loaded:
    """Load a version: the one named, else the one that serves if asked for, else the newest.

    Raises
    ------
    ModelError
        If there is no registry, model or version, or a version was registered without a card.
    """
    with Registry(registry, read_only=True) as models:
        chosen = version
        if chosen is None and serving:
            chosen = models.promoted(name)
        artefact, told = models.load(name, chosen)
        number = chosen or models.versions(name)[-1].number
    try:
        kept = msgspec.convert(told, Kept)
    except msgspec.ValidationError as error:
        raise ModelError(
            f"Expected a card beside model `{name}` version {number}, got: {error}",
            hint="train it again",
        ) from error
    return Loaded(artefact, number, kept)


def health_of_model(
    loaded: Loaded, watch: InputWatch | None, bins: Iterable[tuple[float, float, int]]
) -> ModelHealth:
    """Compare a model at work with what it was when it was judged.

    Parameters
    ----------
    watch
        What has counted its inputs; None where the registry does not say how they were.
    bins
        Mean prediction, observed share and rows, by prediction.
    """
    moved, card = [] if watch is None else watch.drift(), loaded.kept.card
    here, then = forecast_of(bins), forecast_of(parts_of(card.reliability))
    return ModelHealth(
        name=card.name,
        version=loaded.number,
        hash=card.hash,
        rows=0 if watch is None else watch.rows,
        inputs=len(loaded.kept.reference),
        drifted=[] if watch is None else watch.drifted(),
        largest_psi=moved[0].psi if moved else None,
        predicted=None if here is None else here.predicted,
        observed=None if here is None else here.observed,
        calibration_error=None if here is None else here.error,
        expected_calibration_error=None if then is None else then.error,
        bias=None if here is None else here.bias,
        trained_to=card.fingerprint.last,
        worst=card.worst,
    )


class Standing(msgspec.Struct, frozen=True):
    """A registered version, and whether it serves."""

    name: str
    version: int
    hash: str
    serves: bool
    metrics: dict[str, object]


def standings(registry: Path) -> list[Standing]:
    """Give all registered versions, by name and number.

    Where none of a name's versions was promoted, the newest serves.
    """
    found = []
    with Registry(registry, read_only=True) as models:
        for name in models.names():
            versions = models.versions(name)
            serving = models.promoted(name) or versions[-1].number
            for each in versions:
                _, told = models.load(name, each.number)
                metrics = msgspec.convert(told, Kept).card.metrics
                serves = each.number == serving
                found.append(Standing(name, each.number, each.hash, serves, metrics))
    return found


def promote(registry: Path, name: str, number: int) -> int:
    """Let a version serve."""
    with Registry(registry) as models:
        models.promote(name, number, at=_now())
    return number


def roll_back(registry: Path, name: str) -> int:
    """Let the version serve that served before, and give its number."""
    with Registry(registry) as models:
        return models.roll_back(name, at=_now())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _iso(micros: int | None) -> str | None:
    if micros is None:
        return None
    return iso(micros)
