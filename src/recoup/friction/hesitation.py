"""Hesitation: how long this shopper has waited, against how long shoppers in this state wait.

A cure model of the time from a step of a journey to the next one: with probability ``goes_on`` the
shopper goes on within the session's limit; then the logarithm of the wait is ``center + spread *
z``, and ``z`` follows a distribution learned for what the shopper waits on. Whoever does not go on
has left: a closed tab is not seen, so leaving is never observed, only the silence after it.

References
----------
Boag, "Maximum likelihood estimates of the proportion of patients cured by cancer therapy", JRSS B
1949: the cure model. Harrell, "Regression modeling strategies", 2015: location and scale models of
log time with an estimated residual distribution.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EventBatch, encode
from recoup.friction.intent_context import Vocabulary, encode_context
from recoup.friction.moment import Rows
from recoup.friction.waits import CONTEXT, LIMIT_S, event_of, state_of
from recoup.models.packing import digest, pack, unpack
from recoup.models.trees import TreeEnsemble

KIND: Final = "hesitation/1"
LEAST_S: Final = 1e-3
"""Shorter waits count as this long: less is the clock's, not the shopper's."""

_PARTS: Final = ("goes_on", "center", "spread")


class Shapes(NamedTuple):
    """Distributions of ``z``: ``below[k, j]`` is P(z <= knots[j]) for ``events[k]``.

    The first row, of event -1, is for any other event. Shapes (kinds,), (m,), (kinds, m); the
    knots ascend.
    """

    events: NDArray[np.int64]
    knots: NDArray[np.float64]
    below: NDArray[np.float64]


class Learned(NamedTuple):
    """What training learned.

    The trees read the features, then the vocabulary's codes: each context column's mean of going
    on, and each one's mean log wait. ``goes_on`` has a logistic link; ``center`` and ``spread``
    give a mean log wait and the logarithm of its scale.
    """

    vocabulary: Vocabulary
    goes_on: TreeEnsemble
    center: TreeEnsemble
    spread: TreeEnsemble
    shapes: Shapes


class Expected(NamedTuple):
    """What is expected of n waits as they begin: arrays of shape (n,).

    ``goes_on`` is P(another step within the session's limit); ``center`` and ``spread`` are of the
    logarithm of the wait in seconds; ``shape`` is the row of the shapes.
    """

    goes_on: NDArray[np.float64]
    center: NDArray[np.float64]
    spread: NDArray[np.float64]
    shape: NDArray[np.int64]

    def where(self, rows: NDArray[np.generic]) -> "Expected":
        """Pick some of the waits, by mask or row number."""
        return Expected(*(part[rows] for part in self))


class HesitationModel:
    """The distribution of a wait, given where the journey stands.

    Parameters
    ----------
    feature_hash
        Hash of the feature set that it was trained with.
    names
        The features that it reads.
    learned
        Its learned parts.

    Examples
    --------
    >>> shapes = Shapes(np.array([-1]), np.array([-1.0, 0.0, 1.0]), np.array([[0.0, 0.5, 1.0]]))
    >>> wait = Expected(np.array([0.8]), np.array([np.log(20.0)]), np.ones(1), np.zeros(1, int))
    >>> [round(float(hesitation(shapes, wait, np.array([s]))[0]), 2) for s in (5.0, 20.0, 40.0)]
    [0.0, 0.5, 0.85]
    >>> [round(float(p_returns(shapes, wait, np.array([s]))[0]), 2) for s in (5.0, 20.0, 40.0)]
    [0.8, 0.67, 0.38]
    """

    def __init__(self, feature_hash: str, names: tuple[str, ...], learned: Learned) -> None:
        width = len(names) + 2 * len(CONTEXT)
        for part in _PARTS:
            trees: TreeEnsemble = getattr(learned, part)
            if trees.n_features != width:
                raise ModelError(f"Expected trees over {width} columns, got {trees.n_features}")
        self.feature_hash = feature_hash
        self.names = names
        self.learned = learned
        self._picked = np.arange(len(names))

    @property
    def shapes(self) -> Shapes:
        """The distributions of ``z``, for :func:`hesitation` and :func:`p_returns`."""
        return self.learned.shapes

    def bind(self, names: tuple[str, ...]) -> None:
        """Say which features the rows to come hold, in the order of their columns.

        Raises
        ------
        ModelError
            If one that the model reads is not among them.
        """
        missing = sorted(set(self.names).difference(names))
        if missing:
            raise ModelError(
                f"Expected the features that the model reads, got none called {missing[0]}",
                hint="train the model again with the present feature set",
            )
        self._picked = np.array([names.index(name) for name in self.names], np.int64)

    def expect(
        self,
        batch: EventBatch,
        rows: Rows,
        stage: NDArray[np.int8],
        at: NDArray[np.int64] | slice = slice(None),
    ) -> Expected:
        """Say what is expected of waits that begin with events of a batch.

        Parameters
        ----------
        rows, stage
            Feature rows and funnel stages of its n events.
        at
            Which of the events; all of them unless set.
        """
        told = encode(batch, CONTEXT)
        context = np.column_stack([told[name][at] for name in CONTEXT]).astype(np.int64)
        state = state_of(told["event"][at], stage[at])
        return self.expect_rows(rows.values[at], context, state)

    def expect_rows(
        self,
        values: NDArray[np.float64],
        context: NDArray[np.int64],
        state: NDArray[np.int64],
    ) -> Expected:
        """Say what is expected of waits, from feature rows (n, d), context (n, k), state (n,)."""
        table = table_of(values[:, self._picked], context, self.learned.vocabulary)
        return Expected(
            self.learned.goes_on.predict(table),
            self.learned.center.predict(table),
            np.exp(self.learned.spread.predict(table)),
            shape_rows(self.shapes, event_of(state)),
        )

    def to_bytes(self) -> bytes:
        """Serialise; equal models give equal bytes."""
        meta: dict[str, object] = {
            "feature_hash": self.feature_hash,
            "names": list(self.names),
            **{part: getattr(self.learned, part).to_bytes() for part in _PARTS},
        }
        return pack(
            KIND, meta, {**self.learned.vocabulary._asdict(), **self.learned.shapes._asdict()}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "HesitationModel":
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
            shapes = Shapes(*(arrays[name] for name in Shapes._fields))  # type: ignore[arg-type]
        except (msgspec.ValidationError, KeyError) as error:
            raise ModelError(f"Expected a hesitation model, got other content: {error}") from error
        goes_on, center, spread = (TreeEnsemble.from_bytes(getattr(told, part)) for part in _PARTS)
        learned = Learned(vocabulary, goes_on, center, spread, shapes)
        return cls(told.feature_hash, told.names, learned)

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        return digest(self.to_bytes())


def hesitation(
    shapes: Shapes, wait: Expected, elapsed_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give P(would have gone on by now | goes on at all), in [0, 1]: shape (n,).

    It grows while nothing happens, from 0 to 1 at the session's limit.
    """
    most = _shape_below(shapes, wait, np.full(len(elapsed_s), LIMIT_S))
    below = _shape_below(shapes, wait, np.asarray(elapsed_s, np.float64))
    return np.where(elapsed_s >= LIMIT_S, 1.0, np.minimum(below / np.maximum(most, _TINY), 1.0))


def p_returns(
    shapes: Shapes,
    wait: Expected,
    elapsed_s: NDArray[np.float64],
    present_s: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Give P(still goes on by themselves within the session | waited so long): shape (n,).

    Parameters
    ----------
    present_s
        Seconds of the wait at which the shopper was last seen to do something on the page: until
        then they had not left. None where nobody was, as if at its beginning alone.
    """
    remaining = wait.goes_on * (1.0 - hesitation(shapes, wait, elapsed_s))
    if present_s is not None:
        remaining /= np.maximum(1.0 - hesitation(shapes, wait, present_s), _TINY)
    return np.asarray(remaining / np.maximum(remaining + 1.0 - wait.goes_on, _TINY))


def patience_s(shapes: Shapes, wait: Expected, level: float) -> NDArray[np.float64]:
    """Give the wait, in seconds, at which :func:`hesitation` reaches a level: shape (n,).

    Examples
    --------
    >>> shapes = Shapes(np.array([-1]), np.array([-1.0, 0.0, 1.0]), np.array([[0.0, 0.5, 1.0]]))
    >>> wait = Expected(np.array([0.8]), np.array([np.log(20.0)]), np.ones(1), np.zeros(1, int))
    >>> patience_s(shapes, wait, 0.9).round(1).tolist()
    [44.5]
    """
    target = level * _shape_below(shapes, wait, np.full(len(wait.center), LIMIT_S))
    z = np.empty(len(target))
    for row in np.unique(wait.shape):
        own = wait.shape == row
        z[own] = np.interp(target[own], shapes.below[row], shapes.knots)
    longest = np.log(LIMIT_S)
    return np.exp(np.clip(wait.center + wait.spread * z, np.log(LEAST_S), longest))


def gone_on_by(
    shapes: Shapes, wait: Expected, elapsed_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give P(has gone on by then), leaving included: shape (n,)."""
    return np.asarray(wait.goes_on * hesitation(shapes, wait, elapsed_s))


def table_of(
    values: NDArray[np.float64], context: NDArray[np.int64], vocabulary: Vocabulary
) -> NDArray[np.float64]:
    """Put features and both codes of the context side by side, as the trees read them."""
    return np.column_stack([values, encode_context(np.hstack([context, context]), vocabulary)])


def shape_rows(shapes: Shapes, event: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the row of the shapes for each event; 0 where it has none of its own."""
    rows = np.zeros(len(event), np.int64)
    for row, code in enumerate(shapes.events.tolist()):
        rows[event == code] = row
    return rows


_TINY: Final = 1e-12


def _shape_below(
    shapes: Shapes, wait: Expected, elapsed_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    z = (np.log(np.maximum(elapsed_s, LEAST_S)) - wait.center) / wait.spread
    below = np.empty(len(z))
    for row in np.unique(wait.shape):
        own = wait.shape == row
        below[own] = np.interp(z[own], shapes.knots, shapes.below[row])
    return np.where(elapsed_s < LEAST_S, below * np.maximum(elapsed_s, 0.0) / LEAST_S, below)


class _Meta(msgspec.Struct):
    feature_hash: str
    names: tuple[str, ...]
    goes_on: bytes
    center: bytes
    spread: bytes
