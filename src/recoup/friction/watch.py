"""Watching a model at work: whether what it reads still looks like what it was judged on."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError, SnapshotError
from recoup.features.stability import LARGE, bin_counts, bin_edges, stability_index

VERSION: Final = 1


class Reference(msgspec.Struct, frozen=True):
    """How one input was distributed when the model was judged.

    Parameters
    ----------
    edges
        Inner edges of the bins.
    counts
        Rows in each bin, and in the last one those in which it was undefined.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class InputDrift(msgspec.Struct, frozen=True):
    """How far an input has moved: see :func:`recoup.features.stability.stability_index`."""

    feature: str
    psi: float


def reference_of(values: NDArray[np.float64], names: tuple[str, ...]) -> dict[str, Reference]:
    """Describe the columns of rows, shape (n, d), by name."""
    found = {}
    for column, name in enumerate(names):
        edges = bin_edges(values[:, column])
        counts = bin_counts(values[:, column], edges)
        found[name] = Reference(tuple(edges.tolist()), tuple(counts.tolist()))
    return found


class InputWatch:
    """A stage that counts a model's inputs by the bins of its reference.

    State is one count a bin and input: some 12 x 80 numbers, however many events come.

    Parameters
    ----------
    reference
        Input -> its distribution when the model was judged.
    names
        The features that rows hold, in the order of their columns.

    Raises
    ------
    ModelError
        If the rows lack an input.

    Examples
    --------
    >>> rows = np.random.default_rng(1).normal(size=(1000, 1))
    >>> watch = InputWatch(reference_of(rows, ("x",)), ("x",))
    >>> watch.step(rows + 1.0)
    >>> watch.drift()[0].feature, round(watch.drift()[0].psi, 1)
    ('x', 1.0)
    """

    name = "input_watch"

    def __init__(self, reference: Mapping[str, Reference], names: tuple[str, ...]) -> None:
        missing = sorted(set(reference).difference(names))
        if missing:
            raise ModelError(f"Expected the inputs of the model, got none called {missing[0]}")
        self._reference = dict(reference)
        self._columns = [names.index(name) for name in reference]
        self._edges = [np.array(each.edges) for each in reference.values()]
        self._counts = [np.zeros(len(each.counts), np.int64) for each in reference.values()]

    def step(self, values: NDArray[np.float64], /) -> None:
        """Count rows, shape (n, d)."""
        for column, edges, counts in zip(self._columns, self._edges, self._counts, strict=True):
            np.add(counts, bin_counts(values[:, column], edges), out=counts)

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return int(self._counts[0].sum()) if self._counts else 0

    def drift(self) -> list[InputDrift]:
        """Give how far each input has moved, the furthest first; nothing before the first row."""
        if not self.rows:
            return []
        moved = [
            InputDrift(name, stability_index(np.array(each.counts), counts))
            for (name, each), counts in zip(self._reference.items(), self._counts, strict=True)
        ]
        return sorted(moved, key=lambda each: (-each.psi, each.feature))

    def drifted(self) -> list[InputDrift]:
        """Give the inputs that have moved so far that the model should be looked at."""
        return [each for each in self.drift() if each.psi > LARGE]

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        return msgspec.msgpack.encode((VERSION, [counts.tolist() for counts in self._counts]))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another reference.
        """
        try:
            version, counts = msgspec.msgpack.decode(state, type=tuple[int, list[list[int]]])
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected the state of an input watch: {error}") from error
        sizes = [len(own) for own in self._counts]
        if version != VERSION or [len(own) for own in counts] != sizes:
            raise SnapshotError("Expected the state of an input watch of this reference")
        self._counts = [np.array(own, np.int64) for own in counts]
