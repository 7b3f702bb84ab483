"""What signals do to purchase intent: log-odds that they take, learned beside the unspoilt part.

The unspoilt part knows nothing of signals: it is fitted to events that show none, and reads nothing
that a signal is read from. The effects know its log-odds, the step and the device, and which
signals the event, and the session before it, showed; each of these may only lower intent. So what
signals take is not hidden in what else goes with them, and what intent would be without one is a
matter of leaving it out.
"""

from typing import Final, NamedTuple

import lightgbm as lgb
import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.friction.signals import SIGNALS
from recoup.models.scoring import Tables, scan_raw
from recoup.models.trees import TreeEnsemble

BESIDE: Final = ("event", "device")
"""Columns of context that the effects read as well: where the journey stands, and on what."""

LEAST_SHOWN: Final = 100
"""Events that show a signal, below which nothing is learned of signals."""


class EffectSettings(msgspec.Struct, frozen=True):
    """How the effects of signals are fitted: few and small trees, wary of a handful of events.

    Parameters
    ----------
    folds
        Intent is calibrated, and judged, with the effects that other visitors have taught.
    """

    rounds: int = 120
    learning_rate: float = 0.08
    leaves: int = 12
    min_rows_in_leaf: int = 30
    l2: float = 5.0
    folds: int = 3


class Shown(NamedTuple):
    """What the effects read of n rows.

    ``base`` is the unspoilt log-odds, shape (n,); ``beside`` the encoded columns of context, shape
    (n, m); ``now`` and ``before`` the signals of the event and of its session before it, a bit
    each, shape (n,).
    """

    base: NDArray[np.float64]
    beside: NDArray[np.float64]
    now: NDArray[np.int64]
    before: NDArray[np.int64]

    def where(self, keep: NDArray[np.generic]) -> "Shown":
        """Keep some of the rows, by mask or position."""
        return Shown(*(part[keep] for part in self))


class EffectTables(NamedTuple):
    """Effects as compiled code reads them.

    ``beside`` says where in the row of the unspoilt part the columns beside stand; ``row`` and
    ``reach`` are scratch, of shapes (columns,) and (trees,).
    """

    trees: Tables
    beside: NDArray[np.int64]
    row: NDArray[np.float64]
    reach: NDArray[np.int64]


def fit_effects(
    shown: Shown, positive: NDArray[np.bool_], settings: EffectSettings
) -> TreeEnsemble | None:
    """Fit trees whose raw score is to be added to the unspoilt log-odds.

    Parameters
    ----------
    shown, positive
        Rows, and their labels; ``base`` comes from models that did not see them.

    Returns
    -------
    None where fewer than :data:`LEAST_SHOWN` events show a signal.
    """
    if np.count_nonzero(shown.now) < LEAST_SHOWN or not 0.0 < positive.mean() < 1.0:
        return None
    table = effect_table(shown, len(SIGNALS))
    data = lgb.Dataset(table, positive, init_score=shown.base.copy())
    free = 1 + shown.beside.shape[1]
    booster = lgb.train(_parameters(settings, free, table.shape[1]), data, settings.rounds)
    return TreeEnsemble.from_lightgbm(booster)


def effects_out_of_fold(
    shown: Shown, positive: NDArray[np.bool_], visitor: NDArray[np.int64], settings: EffectSettings
) -> NDArray[np.float64]:
    """Give each row's effects as the rows of other visitors teach them: shape (n,)."""
    out, fold = np.zeros(len(positive)), visitor % settings.folds
    for k in range(settings.folds):
        own = fold == k
        trees = fit_effects(shown.where(~own), positive[~own], settings)
        if trees is not None and own.any():
            out[own] = effect_rows(trees, shown.where(own))
    return out


def effect_rows(trees: TreeEnsemble, shown: Shown) -> NDArray[np.float64]:
    """Give what to add to the unspoilt log-odds, shape (n,)."""
    return trees.predict_raw(effect_table(shown, signals_of(trees, shown.beside.shape[1])))


def effect_table(shown: Shown, signals: int) -> NDArray[np.float64]:
    """Give what the trees read: log-odds, columns beside, signals now, signals before."""
    bit = np.arange(signals)
    bits = [(each[:, None] >> bit) & 1 for each in (shown.now, shown.before)]
    return np.column_stack([shown.base, shown.beside, *bits]).astype(np.float64)


def signals_of(trees: TreeEnsemble, beside: int) -> int:
    """Give how many signals trees know; those that came later have no effect in them.

    Raises
    ------
    ModelError
        If the trees are wide, or over other columns.
    """
    known, odd = divmod(trees.n_features - 1 - beside, 2)
    if trees.tables is None or odd or not 0 < known <= len(SIGNALS):
        raise ModelError(f"Expected narrow trees over signals, got {trees.n_features} columns")
    return known


def tables_of(trees: TreeEnsemble | None, beside: NDArray[np.int64]) -> EffectTables:
    """Give effects as compiled code reads them; without trees they are 0."""
    if trees is None:
        tables, width, count = _NOTHING, 1 + len(beside), 0
    else:
        signals_of(trees, len(beside))
        assert trees.tables is not None  # noqa: S101
        tables, width, count = trees.tables, trees.n_features, trees.n_trees
    return EffectTables(tables, beside, np.zeros(width), np.zeros(count, np.int64))


@njit(cache=True, nogil=True)
def begin_effects(base: float, row: NDArray[np.float64], effects: EffectTables) -> None:
    """Take up an event: its unspoilt log-odds, and the row that they were computed from."""
    effects.row[0] = base
    for j in range(effects.beside.shape[0]):
        effects.row[1 + j] = row[effects.beside[j]]


@njit(cache=True, nogil=True)
def effect_of(now: int, before: int, effects: EffectTables) -> float:
    """Give what signals add to the log-odds of the event taken up."""
    first = 1 + effects.beside.shape[0]
    count = (effects.row.shape[0] - first) // 2
    for j in range(count):
        effects.row[first + j] = float((now >> j) & 1)
        effects.row[first + count + j] = float((before >> j) & 1)
    return float(scan_raw(effects.row, effects.trees, effects.reach) / effects.trees.settings[0])


def _nothing() -> Tables:
    """Make tables of no tree over no feature."""
    return Tables(
        threshold=np.full(1, np.inf),
        tree=np.zeros(1, np.int32),
        mask=np.zeros(1, np.int64),
        bounds=np.zeros((0, 6), np.int32),
        leaf=np.zeros((0, 1)),
        first_word=np.zeros(1, np.int32),
        words=np.zeros(0, np.int64),
        settings=np.array([1.0, 0.0, 1.0]),
    )


_NOTHING: Final = _nothing()


def _parameters(settings: EffectSettings, free: int, width: int) -> dict[str, object]:
    return {
        "objective": "binary",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_rows_in_leaf,
        "lambda_l2": settings.l2,
        "monotone_constraints": [0] * free + [-1] * (width - free),
        "monotone_constraints_method": "advanced",
        "max_bin": 127,
        "seed": 1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
