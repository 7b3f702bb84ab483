"""A small neural network over squashed features: it sees joint effects that trees must step out."""

import math
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models.squash import center_and_spread, scale, squash, squash_one

_DECAY_FIRST: Final = 0.9
_DECAY_SECOND: Final = 0.999
_SMALL: Final = 1e-8
_LEAST_RATE: Final = 1e-6

Reals = NDArray[np.float32]


class NetworkModel(NamedTuple):
    """Log-odds ``level + direct . v + second . relu(first' v + bias)`` of inputs ``v``.

    ``v`` holds a number per feature, ``sign(x) log(1 + |x|)`` less ``center`` over ``spread``, held
    within 4 of 0 (0 where unknown), and then a 1 per feature that is unknown, else 0.

    Parameters
    ----------
    center, spread
        One per feature, shape (d,).
    first
        Weights of the hidden units, shape (2 d, units), in single precision: they are most of a
        score's work.
    bias
        Shape (units,), in single precision.
    second
        Shape (units,).
    direct
        Weights that pass the hidden units by, shape (2 d,).
    level
        Shape (1,).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(4_000, 2))
    >>> model = fit_network(x, x[:, 0] * x[:, 1] > 0.0, np.ones(4_000), NetworkSettings(epochs=20))
    >>> (network_rows(np.array([[1.0, 1.0], [1.0, -1.0]]), model) > 0.0).tolist()
    [True, False]
    """

    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    first: Reals
    bias: Reals
    second: NDArray[np.float64]
    direct: NDArray[np.float64]
    level: NDArray[np.float64]


class NetworkSettings(msgspec.Struct, frozen=True):
    """How a network is fitted.

    Parameters
    ----------
    units
        Hidden units of a member.
    members
        How many are fitted, from different first weights; their log-odds are averaged.
    epochs
        How often each row is seen. Few: later ones learn the rows by heart.
    batch
        Rows of a step.
    rate
        Step length at the start; it falls to 0 along half a cosine.
    decay
        By what share of the step length a step shrinks all weights.
    dropout
        Share of the hidden units that a row leaves out in a step, drawn anew.
    beside
        Weight of each further label; that of the label itself is 1.
    seed
        Of first weights and order of rows.
    """

    units: int = 96
    members: int = 2
    epochs: int = 6
    batch: int = 512
    rate: float = 2e-3
    decay: float = 0.3
    dropout: float = 0.2
    beside: float = 0.3
    seed: int = 0


def fit_network(
    features: NDArray[np.float64],
    positive: NDArray[np.bool_],
    weight: NDArray[np.float64],
    settings: NetworkSettings,
    beside: NDArray[np.bool_] | None = None,
) -> NetworkModel:
    """Fit to the weighted log loss by stochastic steps of falling length.

    Further labels share the hidden units while these are fitted, and are then dropped: where the
    label is rare, they teach the units what matters. An input that never varies is not learned
    from, and has no weight.

    Parameters
    ----------
    features, positive, weight
        Shapes (n, d), (n,), (n,); NaN is missing.
    beside
        Further labels, shape (n, k).

    Raises
    ------
    ModelError
        If the labels are all alike.

    References
    ----------
    Caruana, "Multitask learning", Machine Learning 28, 1997.
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15,
    2014.
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    rate = float(np.average(positive, weights=weight))
    if not 0.0 < rate < 1.0:
        raise ModelError("Expected labels of both kinds to fit a network to, got one kind only")
    table = squash(features, np.empty(features.shape, np.float32))
    center, spread = (part.astype(np.float32) for part in center_and_spread(table))
    table = scale(table, center, spread)
    labels = positive[:, None] if beside is None else np.column_stack([positive, beside])
    told = _Told(
        table,
        labels.astype(np.float32),
        (weight / weight.mean()).astype(np.float32),
        *_varying(table),
        np.array([1.0] + [settings.beside] * (labels.shape[1] - 1), np.float32),
    )
    fitted = [
        _fit_member(told, settings, np.random.default_rng([settings.seed, k]))
        for k in range(settings.members)
    ]
    first, bias, second, direct, level = zip(*fitted, strict=True)
    return NetworkModel(
        center=center.astype(np.float64),
        spread=spread.astype(np.float64),
        first=_spread_out(np.concatenate(first, axis=1), told).astype(np.float32),
        bias=np.concatenate(bias),
        second=np.concatenate([part[:, 0] for part in second]).astype(np.float64)
        / settings.members,
        direct=_spread_out(np.mean([part[:, :1] for part in direct], axis=0), told)[:, 0].copy(),
        level=np.mean([part[:1] for part in level], axis=0, dtype=np.float64),
    )


def no_network(width: int) -> NetworkModel:
    """Make the network that gives log-odds of 0 to every row of ``width`` features."""
    zeros, none = np.zeros(width), np.zeros(0)
    return NetworkModel(
        zeros,
        np.ones(width),
        np.zeros((2 * width, 0), np.float32),
        none.astype(np.float32),
        none,
        np.zeros(2 * width),
        np.zeros(1),
    )


def network_rows(features: NDArray[np.float64], model: NetworkModel) -> NDArray[np.float64]:
    """Give the log-odds of rows of shape (n, d): shape (n,)."""
    out = np.empty(len(features))
    _score_rows(np.ascontiguousarray(features), model, np.empty(len(model.bias), np.float32), out)
    return out


@njit(cache=True, nogil=True)
def network_one(row: NDArray[np.float64], model: NetworkModel, hidden: Reals) -> float:
    """Give the log-odds of one row, in compiled code; ``hidden`` is scratch, shape (units,)."""
    total = model.level[0]
    width, units = row.shape[0], hidden.shape[0]
    hidden[:] = model.bias
    for j in range(width):
        x, at, v = row[j], j, 1.0
        if x != x:  # noqa: PLR0124
            at = width + j
        else:
            v = squash_one(x, model.center[j], model.spread[j])
        total += model.direct[at] * v
        short = np.float32(v)
        for k in range(units):
            hidden[k] += model.first[at, k] * short
    for k in range(units):
        total += model.second[k] * max(hidden[k], 0.0)
    return float(total)


@njit(cache=True, nogil=True)
def _score_rows(
    features: NDArray[np.float64],
    model: NetworkModel,
    hidden: Reals,
    out: NDArray[np.float64],
) -> None:
    for i in range(features.shape[0]):
        out[i] = network_one(features[i], model, hidden)


class _Told(NamedTuple):
    """Squashed and scaled rows, NaN where unknown, with labels and weights.

    ``label`` has shape (n, k), the first the one that matters, and ``shares`` their weights, shape
    (k,). ``values`` and ``gaps`` are the columns whose value, and whose being unknown, varies.
    """

    table: Reals
    label: Reals
    weight: Reals
    values: NDArray[np.int64]
    gaps: NDArray[np.int64]
    shares: Reals

    def inputs(self, chosen: NDArray[np.int64]) -> Reals:
        rows = self.table[chosen]
        missing = np.isnan(rows)
        rows[missing] = 0.0
        return np.concatenate(
            [rows[:, self.values], missing[:, self.gaps]], axis=1, dtype=np.float32
        )

    def rates(self) -> NDArray[np.float64]:
        found = np.average(self.label, axis=0, weights=self.weight)
        return np.asarray(np.clip(found, _LEAST_RATE, 1.0 - _LEAST_RATE))


def _varying(table: Reals) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low, high = np.fmin.reduce(table, axis=0), np.fmax.reduce(table, axis=0)
    unknown = np.isnan(table).sum(axis=0)
    return np.flatnonzero(high > low), np.flatnonzero((unknown > 0) & (unknown < len(table)))


def _spread_out(weights: Reals, told: _Told) -> NDArray[np.float64]:
    """Put the weights of inputs that vary in their places, and 0 in the others."""
    width = told.table.shape[1]
    out = np.zeros((2 * width, weights.shape[1]))
    out[np.r_[told.values, width + told.gaps]] = weights
    return out


def _fit_member(told: _Told, settings: NetworkSettings, rng: np.random.Generator) -> list[Reals]:
    """Fit first weights, bias, second weights, direct weights and level."""
    rows, width = len(told.table), len(told.values) + len(told.gaps)
    parts = _first_weights(width, settings.units, rng, told.rates())
    moments = [(np.zeros_like(part), np.zeros_like(part)) for part in parts]
    batch = min(settings.batch, rows)
    steps, step = settings.epochs * (rows // batch), 0
    for _ in range(settings.epochs):
        order = rng.permutation(rows)
        for start in range(0, rows - batch + 1, batch):
            kept = _kept((batch, settings.units), settings.dropout, rng)
            slopes = _slopes(told, order[start : start + batch], parts, kept)
            length = settings.rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            step += 1
            for part, moment, slope in zip(parts, moments, slopes, strict=True):
                change = _change(moment, slope, step)
                if part is not parts[-1]:
                    change += settings.decay * part
                np.subtract(part, np.float32(length) * change, out=part)
    return parts


def _change(moment: tuple[Reals, Reals], slope: Reals, step: int) -> Reals:
    """Renew the mean and the mean square of a part's slopes, and give the step's direction."""
    mean, square = moment
    mean += (1.0 - _DECAY_FIRST) * (slope - mean)
    square += (1.0 - _DECAY_SECOND) * (slope * slope - square)
    size = np.sqrt(square / (1.0 - _DECAY_SECOND**step)) + _SMALL
    return np.asarray(mean / (1.0 - _DECAY_FIRST**step) / size, np.float32)


def _kept(shape: tuple[int, int], dropout: float, rng: np.random.Generator) -> Reals:
    """Draw which units each row keeps: 0, or what makes up for those left out."""
    if not dropout:
        return np.ones(shape, np.float32)
    drawn = rng.random(shape, dtype=np.float32) >= dropout
    return np.asarray(drawn / np.float32(1.0 - dropout), np.float32)


def _first_weights(
    width: int, units: int, rng: np.random.Generator, rates: NDArray[np.float64]
) -> list[Reals]:
    return [
        (rng.normal(size=(width, units)) / math.sqrt(max(width, 1))).astype(np.float32),
        np.zeros(units, np.float32),
        (rng.normal(size=(units, len(rates))) * 0.5 / math.sqrt(units)).astype(np.float32),
        np.zeros((width, len(rates)), np.float32),
        np.log(rates / (1.0 - rates)).astype(np.float32),
    ]


def _slopes(told: _Told, chosen: NDArray[np.int64], parts: list[Reals], kept: Reals) -> list[Reals]:
    """Give the slopes of the batch's mean loss."""
    first, bias, second, direct, level = parts
    v = told.inputs(chosen)
    hidden = np.maximum(v @ first + bias, 0.0) * kept
    p = 0.5 * (1.0 + np.tanh(0.5 * (hidden @ second + v @ direct + level)))
    weight = told.weight[chosen][:, None] * told.shares / np.float32(len(chosen))
    error = weight * (p - told.label[chosen])
    back = (error @ second.T) * (hidden > 0.0) * kept
    return [v.T @ back, back.sum(axis=0), hidden.T @ error, v.T @ error, error.sum(axis=0)]
