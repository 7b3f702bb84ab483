"""Purchase intent: P(purchase later in this session | journey so far), at every event."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EventBatch, encode
from recoup.friction.effects import (
    Shown,
    SignalEffects,
    corrected,
    no_effects,
    spoilt,
    spoilt_rows,
    widened,
)
from recoup.friction.intent_context import Vocabulary, encode_context, encode_one
from recoup.friction.moment import Rows
from recoup.friction.signals import Detected
from recoup.models.calibration import Calibration, calibrate_one
from recoup.models.linear import LinearModel, linear_one, linear_rows
from recoup.models.network import NetworkModel, network_one, network_rows, no_network
from recoup.models.nodes import LOGISTIC
from recoup.models.packing import digest, pack, unpack
from recoup.models.scoring import Tables, link_raw, scan_raw
from recoup.models.trees import TreeEnsemble

KIND: Final = "intent/3"

Inputs = tuple[tuple[str, str], ...]


class IntentTables(NamedTuple):
    """A model as compiled code reads it.

    Input j is column ``picked[j]`` of the feature row, less column ``less[j]`` where that is not
    negative; ``shares`` are the weights of trees, linear part and network, shape (3,);
    ``calibration`` holds a, b, c; ``row``, ``reach`` and ``hidden`` are scratch, of shapes
    (inputs + context,), (trees,) and (units,). ``effects`` are those of signals; ``step`` is where
    in the context the event stands, -1 where it does not.
    """

    picked: NDArray[np.int64]
    less: NDArray[np.int64]
    vocabulary: Vocabulary
    trees: Tables
    linear: LinearModel
    network: NetworkModel
    shares: NDArray[np.float64]
    calibration: NDArray[np.float64]
    row: NDArray[np.float64]
    reach: NDArray[np.int64]
    hidden: NDArray[np.float32]
    effects: SignalEffects
    step: int


class Learned(NamedTuple):
    """What training learned.

    ``share`` and ``network_share`` are the weights, in [0, 1], of the log-odds of the linear part
    and of the network, which None leaves out; the trees have the rest. ``effects`` are those of
    signals, see :mod:`recoup.friction.effects`.
    """

    vocabulary: Vocabulary
    trees: TreeEnsemble
    linear: LinearModel
    share: float
    calibration: Calibration
    effects: SignalEffects = no_effects()
    network: NetworkModel | None = None
    network_share: float = 0.0


class IntentModel:
    """Trees, a regression and a network over features and learned context; signals; calibrated.

    Parameters
    ----------
    feature_hash
        Hash of the feature set that it was trained with.
    names
        The features of that set, in the order of their columns. Rows to score hold these, in this
        order, unless :meth:`bind` says otherwise.
    inputs
        What the trees read: features, each less another one or less nothing ("").
    context
        The event columns that it encodes by itself; for the trees they follow the inputs.
    learned
        Its learned parts.

    Examples
    --------
    >>> import lightgbm as lgb
    >>> from recoup.friction.intent_context import Labelled, learn_vocabulary
    >>> from recoup.models.linear import fit_linear
    >>> rng = np.random.default_rng(1)
    >>> carts, kind = rng.poisson(1.0, 500) * 1.0, rng.integers(1, 3, (500, 1))
    >>> buys = rng.random(500) < 0.2 * carts
    >>> vocabulary = learn_vocabulary(Labelled(kind, buys, np.arange(500)))
    >>> rows = np.column_stack([carts, encode_context(kind, vocabulary)])
    >>> data = lgb.Dataset(rows, buys, feature_name=["carts", "event"])
    >>> booster = lgb.train({"objective": "binary", "verbose": -1}, data, 10)
    >>> trees = TreeEnsemble.from_lightgbm(booster)
    >>> read = (("carts", ""),)
    >>> linear = fit_linear(rows, buys, np.ones(500), l2=0.01)
    >>> learned = Learned(vocabulary, trees, linear, 0.4, Calibration())
    >>> model = IntentModel("set", ("carts",), read, ("event",), learned)
    >>> round(model.score_one(np.array([2.0]), np.array([1])), 1)
    0.4
    """

    def __init__(
        self,
        feature_hash: str,
        names: tuple[str, ...],
        inputs: Inputs,
        context: tuple[str, ...],
        learned: Learned,
    ) -> None:
        trees = learned.trees
        if trees.n_features != len(inputs) + len(context) or trees.tables is None:
            raise ModelError(
                f"Expected narrow trees over {len(inputs)} inputs and {len(context)} context "
                f"columns, got trees over {trees.n_features}"
            )
        self.feature_hash = feature_hash
        self.names = names
        self.inputs = inputs
        self.context = context
        self.learned = learned
        self.bind(names)

    def bind(self, names: tuple[str, ...]) -> None:
        """Say which features the rows to come hold, in the order of their columns.

        Not needed where they are those of the feature set that the model was trained with.

        Raises
        ------
        ModelError
            If one that the model reads is not among them.
        """
        read = {name for pair in self.inputs for name in pair if name}
        missing = sorted(read.difference(names))
        if missing:
            raise ModelError(
                f"Expected the features that the model reads, got none called {missing[0]}",
                hint="train the model again with the present feature set",
            )
        assert self.learned.trees.tables is not None  # noqa: S101
        c, network = self.learned.calibration, self._network
        picked, less = columns_of(self.inputs, names)
        self.tables = IntentTables(
            picked=picked,
            less=less,
            vocabulary=self.learned.vocabulary,
            trees=self.learned.trees.tables,
            linear=self.learned.linear,
            network=network,
            shares=np.array(shares_of(self.learned.share, self.learned.network_share)),
            calibration=np.array([c.a, c.b, c.c]),
            row=np.empty(self.learned.trees.n_features),
            reach=np.empty(self.learned.trees.n_trees, np.int64),
            hidden=np.empty(len(network.bias), np.float32),
            effects=self.learned.effects,
            step=self._step,
        )

    @property
    def _network(self) -> NetworkModel:
        network = self.learned.network
        return no_network(self.learned.trees.n_features) if network is None else network

    @property
    def _step(self) -> int:
        return self.context.index("event") if "event" in self.context else -1

    def score(
        self, batch: EventBatch, rows: Rows, seen: Detected | None = None
    ) -> NDArray[np.float64]:
        """Score a batch of events, n of them, with their feature rows.

        Parameters
        ----------
        seen
            The signals of the journeys; None: none was shown.

        Returns
        -------
        P(purchase later in this session), shape (n,).
        """
        if seen is None:
            return self.score_rows(rows.values, self.context_of(batch))
        context = self.context_of(batch, seen)
        return self.score_rows(rows.values, context, seen.now, seen.before)

    def context_of(self, batch: EventBatch, seen: Detected | None = None) -> NDArray[np.int64]:
        """Give the context of events, shape (n, k); for a symptom, the step it struck at."""
        told = dict(encode(batch, self.context))
        if seen is not None and "event" in told:
            told["event"] = seen.step
        return np.column_stack([told[name] for name in self.context]).astype(np.int64)

    def score_rows(
        self,
        values: NDArray[np.float64],
        context: NDArray[np.int64],
        now: NDArray[np.int64] | None = None,
        before: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float64]:
        """Score rows of shape (n, d) whose context is one array of shape (n, k).

        Parameters
        ----------
        now, before
            Signals that each event shows, and that its session showed before it, a bit each; None:
            none of them. Shape (n,).
        """
        read = read_inputs(values, self.tables.picked, self.tables.less)
        told = encode_context(context, self.learned.vocabulary)
        table = np.column_stack([read, told])
        parts = (
            self.learned.trees.predict_raw(table),
            linear_rows(table, self.learned.linear),
            network_rows(table, self._network),
        )
        raw = mix(parts, shares_of(self.learned.share, self.learned.network_share))
        none = np.zeros(len(raw), np.int64)
        step = context[:, self._step] if self._step >= 0 else none - 1
        bits = (none if each is None else each for each in (now, before))
        raw = spoilt_rows(Shown(raw, step, *bits), self.learned.effects)
        return self.learned.calibration.apply(link_raw(raw, LOGISTIC, 1.0))

    def score_one(
        self, values: NDArray[np.float64], context: NDArray[np.int64], now: int = 0, before: int = 0
    ) -> float:
        """Score one event: its feature row, shape (d,), and its context, shape (k,) int64.

        Not to be called from several threads at once: the model holds its scratch space.
        """
        return score_intent(values, context, now, before, self.tables)

    def to_bytes(self) -> bytes:
        """Serialise; equal models give equal bytes."""
        c = self.learned.calibration
        meta: dict[str, object] = {
            "feature_hash": self.feature_hash,
            "names": list(self.names),
            "inputs": [list(pair) for pair in self.inputs],
            "context": list(self.context),
            "calibration": [c.a, c.b, c.c],
            "share": self.learned.share,
            "network_share": self.learned.network_share,
            "trees": self.learned.trees.to_bytes(),
        }
        linear = {f"linear_{name}": part for name, part in self.learned.linear._asdict().items()}
        effects = {f"effects_{name}": part for name, part in self.learned.effects._asdict().items()}
        network = {f"network_{name}": part for name, part in self._network._asdict().items()}
        arrays = {**self.learned.vocabulary._asdict(), **linear, **effects, **network}
        return pack(KIND, meta, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "IntentModel":
        """Read what :meth:`to_bytes` gave.

        Raises
        ------
        ModelError
            If the bytes are no such artefact, or of another version.
        """
        meta, arrays = unpack(KIND, data)
        try:
            told = msgspec.convert(meta, _Meta)
            vocabulary = Vocabulary(*(arrays[name] for name in Vocabulary._fields))  # type: ignore[arg-type]
            linear = LinearModel(*(arrays[f"linear_{name}"] for name in LinearModel._fields))  # type: ignore[arg-type]
            effects = SignalEffects(*(arrays[f"effects_{n}"] for n in SignalEffects._fields))  # type: ignore[arg-type]
            effects = widened(effects)
            network = NetworkModel(*(arrays[f"network_{n}"] for n in NetworkModel._fields))  # type: ignore[arg-type]
        except (msgspec.ValidationError, KeyError) as error:
            raise ModelError(f"Expected an intent model, got other content: {error}") from error
        trees, calibration = TreeEnsemble.from_bytes(told.trees), Calibration(*told.calibration)
        learned = Learned(
            vocabulary,
            trees,
            linear,
            told.share,
            calibration,
            effects,
            network,
            told.network_share,
        )
        return cls(told.feature_hash, told.names, told.inputs, told.context, learned)

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        return digest(self.to_bytes())


@njit(cache=True, nogil=True)
def score_intent(
    values: NDArray[np.float64],
    context: NDArray[np.int64],
    now: int,
    before: int,
    tables: IntentTables,
) -> float:
    """Score one event in compiled code; see :meth:`IntentModel.score_one`."""
    unspoilt = unspoilt_log_odds(values, context, tables)
    return intent_of(spoilt(unspoilt, now, before, tables.effects), tables)


@njit(cache=True, nogil=True)
def unspoilt_log_odds(
    values: NDArray[np.float64], context: NDArray[np.int64], tables: IntentTables
) -> float:
    """Give the log-odds, before calibration, of an event as if no signal had shown."""
    row = tables.row
    width = tables.picked.shape[0]
    for j in range(width):
        row[j] = values[tables.picked[j]]
        if tables.less[j] >= 0:
            row[j] -= values[tables.less[j]]
    encode_one(context, tables.vocabulary, row, width)
    trees = scan_raw(row, tables.trees, tables.reach) / tables.trees.settings[0]
    share = tables.shares
    raw = share[0] * trees
    if share[1] != 0.0:
        raw += share[1] * linear_one(row, tables.linear)
    if share[2] != 0.0:
        raw += share[2] * network_one(row, tables.network, tables.hidden)
    return corrected(raw, context[tables.step] if tables.step >= 0 else -1, tables.effects)


@njit(cache=True, nogil=True)
def intent_of(log_odds: float, tables: IntentTables) -> float:
    """Turn log-odds into a calibrated probability."""
    c = tables.calibration
    return float(calibrate_one(1.0 / (1.0 + math.exp(-log_odds)), c[0], c[1], c[2]))


def columns_of(
    inputs: Inputs, names: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give the column of each input's feature, and of what is taken from it (-1: nothing)."""
    picked = [names.index(name) for name, _ in inputs]
    less = [names.index(other) if other else -1 for _, other in inputs]
    return np.array(picked, np.int64), np.array(less, np.int64)


def read_inputs(
    values: NDArray[np.float64], picked: NDArray[np.int64], less: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the inputs of feature rows: shape (n, inputs)."""
    read = values[:, picked]
    read[:, less >= 0] -= values[:, less[less >= 0]]
    return read


def shares_of(linear: float, network: float) -> tuple[float, float, float]:
    """Give the weights of trees, linear part and network."""
    return 1.0 - linear - network, linear, network


def mix(parts: Sequence[NDArray[np.float64]], shares: tuple[float, ...]) -> NDArray[np.float64]:
    """Mix the log-odds of parts; one without a share has no say."""
    mixed = np.zeros(len(parts[0]))
    for part, share in zip(parts, shares, strict=True):
        if share:
            mixed += share * part
    return mixed


def blend(
    trees: NDArray[np.float64], linear: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Mix the log-odds of trees and of a linear part."""
    return mix((trees, linear), (1.0 - share, share))


class _Meta(msgspec.Struct):
    feature_hash: str
    names: tuple[str, ...]
    inputs: Inputs
    context: tuple[str, ...]
    calibration: tuple[float, float, float]
    share: float
    network_share: float
    trees: bytes
