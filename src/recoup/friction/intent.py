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


class IntentTables(NamedTuple):
    """A model as compiled code reads it.

    ``picked`` are the columns of the features that the model reads; ``calibration`` holds a, b, c;
    ``row`` and ``reach`` are scratch, of shapes (picked + context,) and (trees,).
    """

    picked: NDArray[np.int64]
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
        The features that the trees read, in the order of their columns; the context follows.
        Rows to score hold these, in this order, unless :meth:`bind` says otherwise.
    context
        The event columns that it encodes by itself.
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
    >>> model = IntentModel("set", ("carts",), ("event",), vocabulary, trees, Calibration())
    >>> round(model.score_one(np.array([2.0]), np.array([1])), 1)
    0.3
    """

    def __init__(
        self,
        feature_hash: str,
        names: tuple[str, ...],
        context: tuple[str, ...],
        vocabulary: Vocabulary,
        trees: TreeEnsemble,
        calibration: Calibration,
    ) -> None:
        if trees.n_features != len(names) + len(context) or trees.tables is None:
            raise ModelError(
                f"Expected narrow trees over {len(names)} features and {len(context)} context "
                f"columns, got trees over {trees.n_features}"
            )
        self.feature_hash = feature_hash
        self.names = names
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
        missing = [name for name in self.names if name not in names]
        if missing:
            raise ModelError(
                f"Expected the features that the model reads, got none called {missing[0]}",
                hint="train the model again with the present feature set",
            )
        assert self.trees.tables is not None  # noqa: S101
        c = self.calibration
        self.tables = IntentTables(
            picked=np.array([names.index(name) for name in self.names], np.int64),
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
        picked = self.tables.picked
        told = encode_context(context, self.vocabulary)
        return self.calibration.apply(
            self.trees.predict(np.column_stack([values[:, picked], told]))
        )

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
    encode_one(context, tables.vocabulary, row, width)
    c = tables.calibration
    raw = scan_one(row, tables.trees, tables.reach)
    return float(calibrate_one(raw, c[0], c[1], c[2]))


class _Meta(msgspec.Struct):
    feature_hash: str
    names: tuple[str, ...]
    context: tuple[str, ...]
    calibration: tuple[float, float, float]
    trees: bytes
