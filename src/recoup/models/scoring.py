"""The kernels that score trees, and the tables they read."""

import math
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models.addresses import halves_at, last_axis, reals_at, words_at
from recoup.models.nodes import (
    CATEGORICAL,
    DEFAULT_LEFT,
    LOGISTIC,
    MISSING_NAN,
    MISSING_ZERO,
    Nodes,
)

MAX_NARROW_LEAVES: Final = 62
_ALL_LEAVES: Final = (1 << MAX_NARROW_LEAVES) - 1
_ZERO: Final = 1e-35
_MAX_CATEGORY: Final = float(2**31)
_ORDERED, _IF_MISSING, _IF_ZERO, _SETS, _END, _HAS_ZERO = range(6)


class Tables(NamedTuple):
    """An ensemble of narrow trees, compiled.

    ``threshold``, ``tree`` and ``mask`` have one entry per node and list, lists by feature:
    ``bounds[f]`` holds where the feature's list of ordered thresholds begins (closed by infinity),
    then its nodes that send a missing value right, then those that send a zero right where zero
    is missing, then its sets of categories, their end, and whether zero is missing. ``leaf`` has
    shape (trees, leaves of the widest). ``settings`` are divisor, link and slope.
    """

    threshold: NDArray[np.float64]
    tree: NDArray[np.int32]
    mask: NDArray[np.int64]
    bounds: NDArray[np.int32]
    leaf: NDArray[np.float64]
    first_word: NDArray[np.int32]
    words: NDArray[np.int64]
    settings: NDArray[np.float64]


class Paths(NamedTuple):
    """The arrays of :class:`recoup.models.nodes.Nodes`, for kernels."""

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


@njit(cache=True, nogil=True)
def scan_one(row: NDArray[np.float64], tables: Tables, reach: NDArray[np.int64]) -> float:
    """Predict one row, with scratch space of shape (trees,) for ``reach``."""
    raw = float(scan_raw(row, tables, reach)) / tables.settings[0]
    if tables.settings[1] == LOGISTIC:
        return 1.0 / (1.0 + math.exp(-tables.settings[2] * raw))
    return float(raw)


@njit(cache=True, nogil=True)
def scan_located(row: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    """Predict one row as :func:`scan_one` does; ``places`` are those of tables, then scratch."""
    tables = Tables(
        reals_at(places, 0),
        halves_at(places, 1),
        words_at(places, 2),
        halves_at(places, 3).reshape(-1, last_axis(places, 3)),
        reals_at(places, 4).reshape(-1, last_axis(places, 4)),
        halves_at(places, 5),
        words_at(places, 6),
        reals_at(places, 7),
    )
    return scan_one(row, tables, words_at(places, 8))


@njit(cache=True, nogil=True)
def scan_batch(
    rows: NDArray[np.float64],
    tables: Tables,
    reach: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """Fill ``out`` with the sum over trees of every row."""
    for i in range(rows.shape[0]):
        out[i] = scan_raw(rows[i], tables, reach)


@njit(cache=True, nogil=True)
def walk_batch(rows: NDArray[np.float64], paths: Paths, out: NDArray[np.float64]) -> None:
    """Fill ``out`` with the sum over trees of every row, each tree walked from its root."""
    out[:] = 0.0
    for t in range(paths.first_leaf.shape[0] - 1):
        start = paths.first_node[t]
        leaf_start = paths.first_leaf[t]
        single = paths.first_node[t + 1] == start
        for i in range(rows.shape[0]):
            node = -1 if single else 0
            while node >= 0:
                k = start + node
                x, threshold, decision = (
                    rows[i, paths.feature[k]],
                    paths.threshold[k],
                    paths.decision[k],
                )
                goes = _goes_left(x, threshold, decision, paths.first_word, paths.words)
                node = paths.left[k] if goes else paths.right[k]
            out[i] += paths.leaf[leaf_start + ~node]


def link_raw(raw: NDArray[np.float64], link: int, slope: float) -> NDArray[np.float64]:
    """Turn raw scores into predictions."""
    if link != LOGISTIC:
        return raw
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-slope * raw)))


@njit(cache=True, nogil=True)
def scan_raw(row: NDArray[np.float64], tables: Tables, reach: NDArray[np.int64]) -> float:
    """Sum one row's leaves, before divisor and link."""
    threshold, tree, mask, bounds = tables.threshold, tables.tree, tables.mask, tables.bounds
    leaf, first_word, words = tables.leaf, tables.first_word, tables.words
    reach[:] = _ALL_LEAVES
    for f in range(bounds.shape[0]):
        x = row[f]
        k = bounds[f, 0]
        if x != x:  # noqa: PLR0124
            for node in range(bounds[f, 1], bounds[f, 2]):
                reach[tree[node]] &= mask[node]
        elif bounds[f, 5] and abs(x) <= _ZERO:
            for node in range(bounds[f, 2], bounds[f, 3]):
                reach[tree[node]] &= mask[node]
        else:
            while threshold[k] < x:
                reach[tree[k]] &= mask[k]
                k += 1
            for node in range(bounds[f, 3], bounds[f, 4]):
                if not _in_set(x, threshold[node], first_word, words):
                    reach[tree[node]] &= mask[node]
    total = 0.0
    for t in range(leaf.shape[0]):
        total += leaf[t, _lowest_bit(reach[t])]
    return total


@njit(cache=True, nogil=True)
def _lowest_bit(bits: int) -> int:
    """Give the position of the lowest set bit: de Bruijn's table, 32 bits at a time."""
    low = bits & 0xFFFFFFFF
    if low != 0:
        return int(_DE_BRUIJN[(((low & -low) * 0x077CB531) & 0xFFFFFFFF) >> 27])
    high = bits >> 32
    return 32 + int(_DE_BRUIJN[(((high & -high) * 0x077CB531) & 0xFFFFFFFF) >> 27])


@njit(cache=True, nogil=True)
def _in_set(
    x: float, which: float, first_word: NDArray[np.int32], words: NDArray[np.int64]
) -> bool:
    if not -1.0 < x < _MAX_CATEGORY:
        return False
    category = int(x)
    word = first_word[int(which)] + (category >> 5)
    if word >= first_word[int(which) + 1]:
        return False
    return bool((words[word] >> (category & 31)) & 1)


@njit(cache=True, nogil=True)
def _goes_left(
    x: float,
    threshold: float,
    decision: int,
    first_word: NDArray[np.int32],
    words: NDArray[np.int64],
) -> bool:
    """Decide as LightGBM does."""
    if decision & CATEGORICAL:
        return _in_set(x, threshold, first_word, words)
    if x != x:  # noqa: PLR0124
        if decision & MISSING_NAN:
            return bool(decision & DEFAULT_LEFT)
        x = 0.0
    if decision & MISSING_ZERO and abs(x) <= _ZERO:
        return bool(decision & DEFAULT_LEFT)
    return x <= threshold


def _de_bruijn() -> NDArray[np.int64]:
    table = np.zeros(32, np.int64)
    for bit in range(32):
        table[((0x077CB531 << bit) & 0xFFFFFFFF) >> 27] = bit
    return table


_DE_BRUIJN: Final = _de_bruijn()


def compile_tables(nodes: Nodes) -> Tables:
    """Sort the nodes of narrow trees into lists by feature.

    Raises
    ------
    ModelError
        If two nodes of a feature disagree on what is missing.
    """
    masks, trees = _masks(nodes)
    lists: list[NDArray[np.int64]] = []
    bounds = np.zeros((nodes.n_features, 6), np.int32)
    position = 0
    for f in range(nodes.n_features):
        own = np.flatnonzero(nodes.feature == f)
        parts = _lists_of_feature(nodes, own)
        sizes = [len(part) for part in parts]
        sizes[0] += 1
        bounds[f, :_HAS_ZERO] = position + np.concatenate([[0], np.cumsum(sizes)])
        bounds[f, _HAS_ZERO] = bool(np.any(nodes.decision[own] & MISSING_ZERO))
        position = int(bounds[f, _END])
        lists += [parts[0], np.array([-1]), *parts[1:]]
    picked = np.concatenate(lists).astype(np.int64)
    threshold = np.where(picked < 0, np.inf, _at(nodes.threshold, picked))
    return Tables(
        threshold=threshold,
        tree=_at(trees, picked).astype(np.int32),
        mask=_at(masks, picked).astype(np.int64),
        bounds=bounds,
        leaf=_leaf_table(nodes),
        first_word=nodes.first_word,
        words=nodes.words,
        settings=np.array([nodes.divisor, nodes.link, nodes.slope]),
    )


def _at(values: NDArray[np.generic], rows: NDArray[np.int64]) -> NDArray[np.generic]:
    return np.concatenate([values, np.zeros(1, values.dtype)])[rows]


def _lists_of_feature(nodes: Nodes, own: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split a feature's nodes: ordered, right if missing, right if zero, sets."""
    kinds = set((nodes.decision[own] & (MISSING_ZERO | MISSING_NAN)).tolist())
    categorical = nodes.decision[own] & CATEGORICAL == 1
    if len(set(categorical.tolist())) > 1 or (not categorical.any() and len(kinds) > 1):
        raise ModelError("Expected one treatment of missing values per feature, got several")
    ordered = own[~categorical]
    ordered = ordered[np.argsort(nodes.threshold[ordered], kind="stable")]
    rest = [own[[not _decides_left(nodes, int(k), x) for k in own]] for x in (np.nan, 0.0)]
    return [ordered, *rest, own[categorical]]


def _decides_left(nodes: Nodes, node: int, x: float) -> bool:
    return _goes_left(x, nodes.threshold[node], nodes.decision[node], nodes.first_word, nodes.words)


def _leaf_table(nodes: Nodes) -> NDArray[np.float64]:
    counts = np.diff(nodes.first_leaf)
    table = np.zeros((len(counts), int(counts.max())))
    for t, (order, start) in enumerate(zip(_leaf_orders(nodes), nodes.first_leaf, strict=False)):
        table[t, : len(order)] = nodes.leaf[start + np.array(order)]
    return table


def _leaf_orders(nodes: Nodes) -> list[list[int]]:
    return [_order_tree(nodes, t)[0] for t in range(len(nodes.first_leaf) - 1)]


def _masks(nodes: Nodes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each node's mask of leaves outside its left subtree, and its tree."""
    masks = np.zeros(len(nodes.feature), np.int64)
    for t in range(len(nodes.first_leaf) - 1):
        for node, (start, end) in _order_tree(nodes, t)[1].items():
            masks[nodes.first_node[t] + node] = _ALL_LEAVES & ~(((1 << (end - start)) - 1) << start)
    trees = np.repeat(np.arange(len(nodes.first_leaf) - 1), np.diff(nodes.first_node))
    return masks, trees


def _order_tree(nodes: Nodes, tree: int) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """Give a tree's leaves from left to right, and each node's span of leaves on its left."""
    start = nodes.first_node[tree]
    if nodes.first_node[tree + 1] == start:
        return [0], {}
    leaves: list[int] = []
    spans: dict[int, tuple[int, int]] = {}
    begun: dict[int, int] = {}
    stack = [(0, False)]
    while stack:
        node, left_done = stack.pop()
        if node < 0:
            leaves.append(~node)
        elif left_done:
            spans[node] = (begun[node], len(leaves))
            stack.append((int(nodes.right[start + node]), False))
        else:
            begun[node] = len(leaves)
            stack += [(node, True), (int(nodes.left[start + node]), False)]
    return leaves, spans
