"""Purchase intent: P(purchase later in this session | journey so far), at every event."""

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EventBatch, encode
from recoup.friction.intent_context import Vocabulary, encode_context, encode_one
from recoup.friction.moment import Rows
from recoup.models.calibration import Calibration, calibrate_one
from recoup.models.packing import digest, pack, unpack
from recoup.models.scoring import Tables, scan_one
from recoup.models.trees import TreeEnsemble

KIND: Final = "intent/1"

Inputs = tuple[tuple[str, str], ...]


class IntentTables(NamedTuple):
    """A model as compiled code reads it.

    Input j is column ``picked[j]`` of the feature row, less column ``less[j]`` where that is not
    negative; ``calibration`` holds a, b, c; ``row`` and ``reach`` are scratch, of shapes
    (inputs + context,) and (trees,).
    """

    picked: NDArray[np.int64]
    less: NDArray[np.int64]
    vocabulary: Vocabulary
    trees: Tables
    calibration: NDArray[np.float64]
    row: NDArray[np.float64]
    reach: NDArray[np.int64]


class IntentModel:
    """Trees over features and learned context, calibrated.

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
    vocabulary, trees, calibration
        Its learned parts.

    Examples
    --------
    >>> import lightgbm as lgb
    >>> from recoup.friction.intent_context import Labelled, learn_vocabulary
    >>> rng = np.random.default_rng(1)
    >>> carts, kind = rng.poisson(1.0, 500) * 1.0, rng.integers(1, 3, (500, 1))
    >>> buys = rng.random(500) < 0.2 * carts
    >>> vocabulary = learn_vocabulary(Labelled(kind, buys, np.arange(500)))
    >>> rows = np.column_stack([carts, encode_context(kind, vocabulary)])
    >>> data = lgb.Dataset(rows, buys, feature_name=["carts", "event"])
    >>> booster = lgb.train({"objective": "binary", "verbose": -1}, data, 10)
    >>> trees = TreeEnsemble.from_lightgbm(booster)
    >>> read = (("carts", ""),)
    >>> model = IntentModel("set", ("carts",), read, ("event",), vocabulary, trees, Calibration())
    >>> round(model.score_one(np.array([2.0]), np.array([1])), 1)
    0.3
    """

    def __init__(
        self,
        feature_hash: str,
        names: tuple[str, ...],
        inputs: Inputs,
        context: tuple[str, ...],
        vocabulary: Vocabulary,
        trees: TreeEnsemble,
        calibration: Calibration,
    ) -> None:
        if trees.n_features != len(inputs) + len(context) or trees.tables is None:
            raise ModelError(
                f"Expected narrow trees over {len(inputs)} inputs and {len(context)} context "
                f"columns, got trees over {trees.n_features}"
            )
        self.feature_hash = feature_hash
        self.names = names
        self.inputs = inputs
        self.context = context
        self.vocabulary = vocabulary
        self.trees = trees
        self.calibration = calibration
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
        assert self.trees.tables is not None  # noqa: S101
        c = self.calibration
        picked, less = columns_of(self.inputs, names)
        self.tables = IntentTables(
            picked=picked,
            less=less,
            vocabulary=self.vocabulary,
            trees=self.trees.tables,
            calibration=np.array([c.a, c.b, c.c]),
            row=np.empty(self.trees.n_features),
            reach=np.empty(self.trees.n_trees, np.int64),
        )

    def score(
        self,
        batch: EventBatch,
        rows: Rows,
        stage: NDArray[np.int8] | None = None,  # noqa: ARG002
    ) -> NDArray[np.float64]:
        """Score a batch of events, n of them, with their feature rows.

        Returns
        -------
        P(purchase later in this session), shape (n,).
        """
        told = encode(batch, self.context)
        columns = [told[name] for name in self.context]
        return self.score_rows(rows.values, np.column_stack(columns).astype(np.int64))

    def score_rows(
        self, values: NDArray[np.float64], context: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Score rows of shape (n, d) whose context is one array of shape (n, k)."""
        read = read_inputs(values, self.tables.picked, self.tables.less)
        told = encode_context(context, self.vocabulary)
        return self.calibration.apply(self.trees.predict(np.column_stack([read, told])))

    def score_one(self, values: NDArray[np.float64], context: NDArray[np.int64]) -> float:
        """Score one event: its feature row, shape (d,), and its context, shape (k,) int64.

        Not to be called from several threads at once: the model holds its scratch space.
        """
        return score_intent(values, context, self.tables)

    def to_bytes(self) -> bytes:
        """Serialise; equal models give equal bytes."""
        c = self.calibration
        meta: dict[str, object] = {
            "feature_hash": self.feature_hash,
            "names": list(self.names),
            "inputs": [list(pair) for pair in self.inputs],
            "context": list(self.context),
            "calibration": [c.a, c.b, c.c],
            "trees": self.trees.to_bytes(),
        }
        return pack(KIND, meta, self.vocabulary._asdict())

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
            vocabulary = Vocabulary(**arrays)  # type: ignore[arg-type]
        except (msgspec.ValidationError, TypeError) as error:
            raise ModelError(f"Expected an intent model, got other content: {error}") from error
        return cls(
            told.feature_hash,
            told.names,
            told.inputs,
            told.context,
            vocabulary,
            TreeEnsemble.from_bytes(told.trees),
            Calibration(*told.calibration),
        )

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        return digest(self.to_bytes())


@njit(cache=True, nogil=True)
def score_intent(
    values: NDArray[np.float64], context: NDArray[np.int64], tables: IntentTables
) -> float:
    """Score one event in compiled code; see :meth:`IntentModel.score_one`."""
    row = tables.row
    width = tables.picked.shape[0]
    for j in range(width):
        row[j] = values[tables.picked[j]]
        if tables.less[j] >= 0:
            row[j] -= values[tables.less[j]]
    encode_one(context, tables.vocabulary, row, width)
    c = tables.calibration
    raw = scan_one(row, tables.trees, tables.reach)
    return float(calibrate_one(raw, c[0], c[1], c[2]))


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


class _Meta(msgspec.Struct):
    feature_hash: str
    names: tuple[str, ...]
    inputs: Inputs
    context: tuple[str, ...]
    calibration: tuple[float, float, float]
    trees: bytes
