"""The model card: what a model is, what it was fitted to, how well it predicts and for whom not."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

RELIABILITY_BINS: Final = 15
LEAST_ROWS: Final = 500
"""Rows that a slice needs to be judged."""

LEAST_POSITIVE: Final = 25
MOST_SLICES: Final = 8
"""Largest values of an attribute that are judged."""

_CLIP: Final = 1e-15


class Fingerprint(msgspec.Struct, frozen=True):
    """What a model was fitted to.

    Parameters
    ----------
    source
        The log's name.
    events
        How many of its events were read, history included.
    first, last
        Their span, ISO 8601 UTC; None without events.
    sha256
        Of their times and their (source, id) keys, in order, hexadecimal.
    """

    source: str
    events: int
    first: str | None
    last: str | None
    sha256: str


class ReliabilityBin(msgspec.Struct, frozen=True):
    """Rows of about the same prediction: what was predicted, and what came.

    Parameters
    ----------
    predicted, observed
        Mean prediction, and share of positives, with its 95 % Wilson interval ``low``, ``high``.
        The interval takes rows as independent; those of one session are not.
    rows
        How many.
    """

    predicted: float
    observed: float
    low: float
    high: float
    rows: int


class SliceMetrics(msgspec.Struct, frozen=True):
    """How well a model predicts for some rows alone.

    Parameters
    ----------
    attribute, value
        Which rows.
    rows, base_rate
        How many, and the share of positives among them.
    log_loss
        In nats.
    skill
        Share of the uncertainty that the model takes away: 1 less its log loss over that of always
        saying the slice's own base rate. 0 or less: no better than that.
    bias
        Mean prediction over the base rate; 1 is right.
    """

    attribute: str
    value: str
    rows: int
    base_rate: float
    log_loss: float
    skill: float
    bias: float


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that is worth knowing of a registered model.

    Parameters
    ----------
    name, hash
        Under which the registry keeps it, and SHA-256 of its artefact.
    purpose
        What it predicts, in a sentence.
    inputs
        Hash of the feature set that it reads, or what else it reads.
    fingerprint
        What it was fitted to.
    settings
        How.
    metrics
        How well it predicts rows that it was not fitted to.
    reliability, slices
        The same, by prediction and by who it is about.
    limits
        When not to trust it.
    """

    name: str
    hash: str
    purpose: str
    inputs: str
    fingerprint: Fingerprint
    settings: dict[str, object] = {}
    metrics: dict[str, object] = {}
    reliability: tuple[ReliabilityBin, ...] = ()
    slices: tuple[SliceMetrics, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def worst(self) -> SliceMetrics | None:
        """The slice in which it has the least skill; None where none is large enough."""
        return worst_of(self.slices)


def worst_of(slices: Sequence[SliceMetrics]) -> SliceMetrics | None:
    """Give the slice of the least skill; None of none."""
    return min(slices, key=lambda each: each.skill, default=None)


def reliability_of(positive: Flags, probability: Floats) -> tuple[ReliabilityBin, ...]:
    """Cut rows into 15 bins of equal mass by prediction, and compare.

    Parameters
    ----------
    positive, probability
        Labels, and probabilities in [0, 1]: shape (n,).

    Examples
    --------
    >>> p = np.linspace(0.0, 1.0, 1500)
    >>> bins = reliability_of(np.random.default_rng(1).random(1500) < p, p)
    >>> len(bins), round(bins[7].predicted, 2), round(bins[7].observed, 2)
    (15, 0.5, 0.49)
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, RELIABILITY_BINS) if len(part)]
    return tuple(_bin(positive[part], probability[part]) for part in parts)


def slices_of(
    positive: Flags, probability: Floats, attributes: Mapping[str, Sequence[str]]
) -> tuple[SliceMetrics, ...]:
    """Judge the largest values of some attributes on their own, in order of attribute and size.

    Parameters
    ----------
    positive, probability
        Labels, and probabilities in [0, 1]: shape (n,).
    attributes
        Attribute -> its value in each row, n of them; "" is unknown, and no slice.
    """
    found = []
    for attribute, told in attributes.items():
        values, member, counts = np.unique(
            np.asarray(told, str), return_inverse=True, return_counts=True
        )
        largest = np.argsort(-counts, kind="stable")[:MOST_SLICES]
        for code in largest:
            own = member == code
            if values[code] and own.sum() >= LEAST_ROWS and positive[own].sum() >= LEAST_POSITIVE:
                found.append(_slice(attribute, str(values[code]), positive[own], probability[own]))
    return tuple(found)


def _bin(positive: Flags, probability: Floats) -> ReliabilityBin:
    low, high = wilson(int(positive.sum()), len(positive))
    return ReliabilityBin(
        float(probability.mean()), float(positive.mean()), low, high, len(positive)
    )


def wilson(hits: int, rows: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Give Wilson's interval of a share.

    References
    ----------
    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Examples
    --------
    >>> [round(end, 4) for end in wilson(2, 10)]
    [0.0567, 0.5098]
    """
    share, spread = hits / rows, z * z / rows
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / rows + spread / (4 * rows))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def _slice(attribute: str, value: str, positive: Flags, probability: Floats) -> SliceMetrics:
    base = float(positive.mean())
    p = np.clip(probability, _CLIP, 1.0 - _CLIP)
    loss = float(-np.log(np.where(positive, p, 1.0 - p)).mean())
    plain = -(base * math.log(base) + (1 - base) * math.log1p(-base)) if base < 1 else 0.0
    skill = 1.0 - loss / plain if plain else 0.0
    bias = float(probability.mean()) / base
    return SliceMetrics(attribute, value, len(positive), base, loss, skill, bias)
