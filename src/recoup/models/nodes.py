"""The nodes of a tree ensemble as flat arrays, read from LightGBM's model text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models.packing import pack, unpack

KIND: Final = "trees/1"
CATEGORICAL, DEFAULT_LEFT, MISSING_ZERO, MISSING_NAN = 1, 2, 4, 8
"""Bits of a node's decision, as LightGBM sets them."""

LOGISTIC, IDENTITY = 1, 0
_LINKS: Final = {
    "binary": LOGISTIC,
    "cross_entropy": LOGISTIC,
    "xentropy": LOGISTIC,
    "regression": IDENTITY,
    "regression_l1": IDENTITY,
    "huber": IDENTITY,
    "quantile": IDENTITY,
}


class Nodes(msgspec.Struct, frozen=True):
    """Trees as flat arrays, tree after tree.

    A child of at least 0 is a node of the same tree; ``~child`` is a leaf of it.

    Parameters
    ----------
    n_features
        Width of a row.
    link, slope, divisor
        The prediction is ``raw / divisor``, through ``1 / (1 + exp(-slope * .))`` if logistic.
    first_node, first_leaf
        Where each tree's nodes and leaves begin, shape (trees + 1,).
    feature, threshold, decision, left, right
        One per node. A categorical node's threshold is the number of its set of categories.
    leaf
        One value per leaf.
    first_word, words
        Where each categorical node's set begins, and the sets, 32 categories a word.
    """

    n_features: int
    link: int
    slope: float
    divisor: float
    first_node: NDArray[np.int32]
    first_leaf: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    decision: NDArray[np.int8]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    leaf: NDArray[np.float64]
    first_word: NDArray[np.int32]
    words: NDArray[np.int64]


_ARRAYS: Final = tuple(Nodes.__struct_fields__[4:])


def parse_model(text: str) -> Nodes:
    """Read the text of a LightGBM model of one output.

    Raises
    ------
    ModelError
        If it is no such text, has several classes or linear leaves, or an unknown objective.
    """
    head, *trees = text.split("\nend of trees", maxsplit=1)[0].split("\nTree=")
    header = _fields(head)
    if "max_feature_idx" not in header or not trees:
        raise ModelError("Expected the text of a LightGBM model with trees, got something else")
    if header.get("num_tree_per_iteration") != "1":
        raise ModelError("Expected a model of one output, got several classes")
    parts = [_parse_tree(_fields(tree)) for tree in trees]
    link, slope = _parse_link(header.get("objective", "regression"))
    divisor = float(len(parts)) if "average_output" in head.splitlines() else 1.0
    return _join(parts, int(header["max_feature_idx"]) + 1, link, slope, divisor)


def mean_nodes(members: Sequence[Nodes]) -> Nodes:
    """Join ensembles into the one whose raw score is the mean of theirs.

    Raises
    ------
    ModelError
        If there is none, or they differ in width or link, or average their own trees.
    """
    kinds = {(m.n_features, m.link, m.slope, m.divisor) for m in members}
    if len(kinds) != 1 or next(iter(kinds))[3] != 1.0:
        raise ModelError("Expected ensembles of one width and link, that sum their trees")
    n_features, link, slope, _ = next(iter(kinds))
    trees = [tree for m in members for tree in _split(m)]
    return _join(trees, n_features, link, slope, float(len(members)))


def nodes_to_bytes(nodes: Nodes) -> bytes:
    """Serialise; equal nodes give equal bytes."""
    meta = {name: getattr(nodes, name) for name in ("n_features", "link", "slope", "divisor")}
    return pack(KIND, meta, {name: getattr(nodes, name) for name in _ARRAYS})


def nodes_from_bytes(data: bytes) -> Nodes:
    """Read what :func:`nodes_to_bytes` gave.

    Raises
    ------
    ModelError
        If the bytes are no such artefact, or of another version.
    """
    meta, arrays = unpack(KIND, data)
    return Nodes(**meta, **arrays)  # type: ignore[arg-type]


_Tree = dict[str, NDArray[Any]]


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _parse_link(objective: str) -> tuple[int, float]:
    name, *settings = objective.split()
    if name not in _LINKS:
        raise ModelError(
            f"Expected one of the objectives {', '.join(_LINKS)}, got {name}",
            hint="score other objectives with LightGBM itself",
        )
    if "sqrt" in settings:
        raise ModelError("Expected an objective without `reg_sqrt`, got one with it")
    slopes = [float(s.removeprefix("sigmoid:")) for s in settings if s.startswith("sigmoid:")]
    return _LINKS[name], slopes[0] if slopes else 1.0


def _parse_tree(fields: Mapping[str, str]) -> _Tree:
    if fields.get("is_linear", "0") != "0":
        raise ModelError("Expected trees with constant leaves, got linear ones")

    def numbers(name: str, dtype: type) -> NDArray[Any]:
        return np.array(fields.get(name, "").split(), dtype)

    if int(fields["num_leaves"]) == 1:
        fields = {"leaf_value": fields["leaf_value"]}
    return {
        "feature": numbers("split_feature", np.int32),
        "threshold": numbers("threshold", np.float64),
        "decision": numbers("decision_type", np.int8),
        "left": numbers("left_child", np.int32),
        "right": numbers("right_child", np.int32),
        "leaf": numbers("leaf_value", np.float64),
        "first_word": numbers("cat_boundaries", np.int32),
        "words": numbers("cat_threshold", np.int64),
    }


def _split(nodes: Nodes) -> list[_Tree]:
    return [_one_tree(nodes, t) for t in range(len(nodes.first_leaf) - 1)]


def _one_tree(nodes: Nodes, tree: int) -> _Tree:
    own = slice(nodes.first_node[tree], nodes.first_node[tree + 1])
    parts: _Tree = {
        name: getattr(nodes, name)[own]
        for name in ("feature", "threshold", "decision", "left", "right")
    }
    sets = parts["threshold"][parts["decision"] & CATEGORICAL == 1].astype(np.int64)
    if len(sets) == 0:
        parts["first_word"], parts["words"] = np.zeros(0, np.int32), np.zeros(0, np.int64)
    else:
        first = nodes.first_word[sets.min() : sets.max() + 2]
        parts["first_word"] = first - first[0]
        parts["words"] = nodes.words[first[0] : first[-1]]
        parts["threshold"] = np.where(
            parts["decision"] & CATEGORICAL == 1,
            parts["threshold"] - sets.min(),
            parts["threshold"],
        )
    parts["leaf"] = nodes.leaf[nodes.first_leaf[tree] : nodes.first_leaf[tree + 1]]
    return parts


def _join(
    trees: Sequence[_Tree], n_features: int, link: int, slope: float, divisor: float
) -> Nodes:
    """Lay trees end to end, renumbering their sets of categories."""
    thresholds: list[NDArray[Any]] = []
    first_word: list[NDArray[Any]] = [np.zeros(1, np.int64)]
    words: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    sets = n_words = 0
    for tree in trees:
        categorical = tree["decision"] & CATEGORICAL == 1
        thresholds.append(np.where(categorical, tree["threshold"] + sets, tree["threshold"]))
        if len(tree["words"]):
            first_word.append(tree["first_word"][1:] + n_words)
            words.append(tree["words"])
            sets += len(tree["first_word"]) - 1
            n_words += len(tree["words"])

    def joined(name: str, dtype: type) -> NDArray[Any]:
        return np.concatenate([tree[name] for tree in trees]).astype(dtype)

    return Nodes(
        n_features=n_features,
        link=link,
        slope=slope,
        divisor=divisor,
        first_node=_starts([len(tree["feature"]) for tree in trees]),
        first_leaf=_starts([len(tree["leaf"]) for tree in trees]),
        feature=joined("feature", np.int32),
        threshold=np.concatenate(thresholds).astype(np.float64),
        decision=joined("decision", np.int8),
        left=joined("left", np.int32),
        right=joined("right", np.int32),
        leaf=joined("leaf", np.float64),
        first_word=np.concatenate(first_word).astype(np.int32),
        words=np.concatenate(words).astype(np.int64),
    )


def _starts(counts: list[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
