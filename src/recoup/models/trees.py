"""A compiled scorer of gradient-boosted trees: LightGBM trains, this scores.

Trees of at most 62 leaves are scored as in QuickScorer: the nodes of all trees are kept by
feature, in order of threshold, each with a mask of the leaves that stay reachable when the row
goes right there. A row's scan of a feature stops at the first threshold it does not exceed, and
a tree's exit leaf is the lowest one left. Wider trees are walked from their roots.

Sources: LightGBM's ``Tree::Predict`` for the decisions; Lucchese et al., "QuickScorer: a fast
algorithm to rank documents with additive ensembles of regression trees", SIGIR 2015.
"""

from collections.abc import Sequence
from typing import Final

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models.addresses import Located
from recoup.models.nodes import (
    Nodes,
    mean_nodes,
    nodes_from_bytes,
    nodes_to_bytes,
    parse_model,
)
from recoup.models.packing import digest
from recoup.models.scoring import (
    MAX_NARROW_LEAVES,
    Paths,
    Tables,
    compile_tables,
    link_raw,
    scan_batch,
    scan_located,
    walk_batch,
)


class TreeEnsemble:
    """A sum of regression trees, and the link that turns it into a prediction.

    Parameters
    ----------
    nodes
        The trees, as :func:`recoup.models.nodes.parse_model` gives them.

    Attributes
    ----------
    n_features
        Width of a row.
    n_trees
        How many trees.
    tables
        What other compiled code passes to :func:`recoup.models.scoring.scan_one` in its own loop,
        or None where a tree has more than 62 leaves.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> features = rng.normal(size=(400, 3))
    >>> data = lgb.Dataset(features, features[:, 0] > 0.5)
    >>> booster = lgb.train({"objective": "binary", "verbose": -1}, data, 20)
    >>> ensemble = TreeEnsemble.from_lightgbm(booster)
    >>> round(ensemble.predict_one(np.array([1.0, 0.0, 0.0])), 2)
    0.91
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.n_features = nodes.n_features
        self.n_trees = len(nodes.first_leaf) - 1
        narrow = int(np.diff(nodes.first_leaf).max()) <= MAX_NARROW_LEAVES
        self.tables: Tables | None = compile_tables(nodes) if narrow else None
        scratch = np.empty(self.n_trees, np.int64)
        self._located = Located(*(self.tables or ()), scratch)
        self._places = self._located.places

    @classmethod
    def from_lightgbm(cls, booster: lgb.Booster) -> "TreeEnsemble":
        """Compile a trained booster, up to its best iteration.

        Raises
        ------
        ModelError
            If it has several classes, linear leaves, or an objective of unknown link.
        """
        return cls(parse_model(booster.model_to_string(num_iteration=booster.best_iteration)))

    @classmethod
    def mean_of(cls, members: Sequence["TreeEnsemble"]) -> "TreeEnsemble":
        """Join ensembles into the one whose raw score is the mean of theirs.

        Raises
        ------
        ModelError
            If there is none, or they differ in width or link.
        """
        return cls(mean_nodes([member.nodes for member in members]))

    @classmethod
    def from_bytes(cls, data: bytes) -> "TreeEnsemble":
        """Read what :meth:`to_bytes` gave.

        Raises
        ------
        ModelError
            If the bytes are no such artefact, or of another version.
        """
        return cls(nodes_from_bytes(data))

    def to_bytes(self) -> bytes:
        """Serialise; equal ensembles give equal bytes."""
        return nodes_to_bytes(self.nodes)

    @property
    def hash(self) -> str:
        """SHA-256 of :meth:`to_bytes`, in hexadecimal."""
        return digest(self.to_bytes())

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict rows; NaN is missing.

        Parameters
        ----------
        features
            Shape (n, n_features).

        Returns
        -------
        Shape (n,); probabilities where the link is logistic.

        Raises
        ------
        ModelError
            If the rows are of another width.
        """
        return link_raw(self.predict_raw(features), self.nodes.link, self.nodes.slope)

    def predict_raw(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the sum over trees, before the link: shape (n,). See :meth:`predict`."""
        rows = np.ascontiguousarray(features, np.float64)
        if rows.ndim != _MATRIX or rows.shape[1] != self.n_features:
            raise ModelError(f"Expected rows of {self.n_features} features, got {rows.shape}")
        out = np.empty(len(rows))
        if self.tables is None:
            paths = Paths(*(getattr(self.nodes, name) for name in Paths._fields))
            walk_batch(rows, paths, out)
        else:
            scan_batch(rows, self.tables, np.empty(self.n_trees, np.int64), out)
        return out / self.nodes.divisor

    def predict_one(self, row: NDArray[np.float64]) -> float:
        """Predict one row of shape (n_features,), contiguous float64.

        Not to be called from several threads at once: the ensemble holds its scratch space.
        """
        if self.tables is None:
            return float(self.predict(row[np.newaxis])[0])
        if len(row) != self.n_features:
            raise ModelError(f"Expected a row of {self.n_features} features, got {len(row)}")
        return scan_located(row, self._places)


_MATRIX: Final = 2
