"""Train hesitation on a log: who goes on, how long those wait, and how waits scatter."""

from collections.abc import Iterable
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import MICROS, EventBatch
from recoup.friction.hesitation import LEAST_S, HesitationModel, Learned, Shapes, table_of
from recoup.friction.hesitation_baselines import Baselines, fit_baselines
from recoup.friction.hesitation_evaluation import report_waits
from recoup.friction.intent_context import Vocabulary
from recoup.friction.intent_rows import MOST_ROWS, Period, Store
from recoup.friction.training import before
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows, collect_waits, event_of
from recoup.models.trees import TreeEnsemble
from recoup.non_shoppers import Rules

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNREAD: Final = ("query_", "since_item_")
"""Beginnings of the names of features that hesitation does not read: too rare to say much."""

PRIOR_ROWS: Final = 50.0
"""Weight of the overall mean in that of a context value, in rows."""

MIN_ROWS: Final = 30
MAX_VALUES: Final = 8_192
MIN_WAITS: Final = 300
"""Waits that must end before anything is learned."""

_EARLIER: Final = 0.75
_OUTSIDE: Final = 6.0
_SPREAD_MASS: Final = 2e-3
_SPREAD_FLOOR: Final = 0.05


class HesitationSettings(msgspec.Struct, frozen=True):
    """How hesitation is trained; the defaults were chosen on a time split.

    Parameters
    ----------
    rounds, spread_rounds
        Trees for who goes on and for the mean log wait, and for its scale.
    min_rows_in_leaf
        At most this many; less on small logs.
    folds
        Parts, by visitor, so that no residual is of a row that was fitted to.
    knots
        Points at which the distributions of residuals are kept.
    shape_weight
        Weight of all waits in the distribution of one event's, in waits.
    """

    rounds: int = 150
    spread_rounds: int = 80
    learning_rate: float = 0.08
    leaves: int = 31
    min_rows_in_leaf: int = 100
    l2: float = 5.0
    feature_share: float = 0.35
    row_share: float = 0.8
    folds: int = 3
    knots: int = 200
    shape_weight: float = 200.0
    seed: int = 1


def train_hesitation(
    batches: Iterable[EventBatch],
    store: Store,
    feature_hash: str,
    *,
    period: Period | None = None,
    history: Iterable[EventBatch] = (),
    rules: Rules | None = None,
    settings: HesitationSettings | None = None,
    most_rows: int = MOST_ROWS,
) -> "Trained":
    """Train on a log.

    The measures are of a time split: a model fitted to the earlier three quarters of the rows,
    judged on the later ones.

    Parameters
    ----------
    batches
        The log, admitted by intake, in order of time. Events at or after the period's end are not
        read at all.
    store
        An empty feature store; it is folded through the history and the log.
    feature_hash
        Hash of its feature set, which the model remembers.
    period
        Which steps are rows; what lies before is folded only.
    history
        An earlier log, folded for features only.
    rules
        By which bots, monitors, staff and test orders are recognised; their sessions are left out.
    most_rows
        Events held in memory; a longer log is sampled by visitor.

    Raises
    ------
    ModelError
        If too few waits end.
    """
    period = period or Period()
    seen = before(batches, period.until)
    rows = collect_waits(
        seen,
        store,
        period,
        history=history,
        rules=rules,
        end=period.until,
        most_rows=most_rows,
    )
    rows = settled(rows, int(rows.ts.max()) if period.until is None else period.until)
    check_enough(rows)
    chosen = settings or HesitationSettings()
    origin = int(np.quantile(rows.ts, _EARLIER))
    earlier = settled(rows.where(rows.ts < origin), origin)
    later = rows.where((rows.ts >= origin) & rows.page)
    judged = fit_hesitation(earlier, feature_hash, chosen)
    metrics = report_waits(judged, later)
    goes_on = judged.expect_rows(later.values, later.context, later.state).goes_on
    model = fit_hesitation(rows, feature_hash, chosen)
    return Trained(model, fit_baselines(rows, model), metrics, later, goes_on)


class Trained(msgspec.Struct, frozen=True):
    """A trained model, with what it was measured on.

    Parameters
    ----------
    baselines
        Peers fitted to the same rows.
    metrics
        Measures on the time split.
    judged, goes_on
        Its later rows, and each one's P(goes on) by the model fitted to the earlier ones.
    """

    model: HesitationModel
    baselines: Baselines
    metrics: dict[str, object]
    judged: WaitRows
    goes_on: Floats


def settled(rows: WaitRows, end: int) -> WaitRows:
    """Leave out waits that the log's end may have cut: short ones alone would be known of them."""
    return rows.where(rows.ts <= end - int(LIMIT_S * MICROS))


def check_enough(rows: WaitRows) -> None:
    """Refuse waits of which too few end, or all.

    Raises
    ------
    ModelError
        If there are fewer than :data:`MIN_WAITS` that end, or none that does not.
    """
    if int(rows.gone_on.sum()) < MIN_WAITS or bool(rows.gone_on.all()):
        raise ModelError(
            f"Expected at least {MIN_WAITS} waits that end, and some that do not, "
            f"got {int(rows.gone_on.sum())} of {len(rows)}",
            hint="train on a longer period",
        )


def fit_hesitation(
    rows: WaitRows, feature_hash: str, settings: HesitationSettings
) -> HesitationModel:
    """Fit all parts; one thread and fixed seeds, so equal rows give equal bytes."""
    check_enough(rows)
    names = tuple(name for name in rows.names if not name.startswith(UNREAD))
    values = rows.values[:, [rows.names.index(name) for name in names]]
    fold = rows.visitor % settings.folds
    vocabulary = _learn_vocabulary(rows)
    table = table_of(values, rows.context, vocabulary)
    fitting = _Fitting(table, settings)
    log_wait = np.log(np.maximum(rows.wait_s, LEAST_S))
    every = np.ones(len(rows), bool)
    goes_on = fitting.fit("binary", every, rows.gone_on.astype(np.float64), settings.rounds)
    center = fitting.fit("regression", rows.gone_on, log_wait, settings.rounds)
    residual = log_wait - _predict_out_of_fold(fitting, rows.gone_on, log_wait, fold)
    scale = np.log(np.abs(residual) + _SPREAD_FLOOR)
    spread = fitting.fit("regression", rows.gone_on, scale, settings.spread_rounds)
    z = residual / np.exp(spread.predict(table))
    shapes = _learn_shapes(z[rows.gone_on], event_of(rows.state[rows.gone_on]), settings)
    learned = Learned(vocabulary, goes_on, center, spread, shapes)
    return HesitationModel(feature_hash, names, learned)


class _Fitting:
    """Boosted trees over rows of one table, binned once."""

    def __init__(self, table: Floats, settings: HesitationSettings) -> None:
        self.table = table
        self.settings = settings
        self._data = lgb.Dataset(table, params=_parameters(len(table), settings))

    def fit(self, objective: str, rows: Flags, target: Floats, rounds: int) -> TreeEnsemble:
        """Fit to some of the rows."""
        picked = np.flatnonzero(rows)
        data = self._data.construct().subset(picked.tolist())
        data.construct().set_label(target[picked])
        parameters = _parameters(len(self.table), self.settings) | {"objective": objective}
        return TreeEnsemble.from_lightgbm(lgb.train(parameters, data, rounds))


def _predict_out_of_fold(
    fitting: _Fitting, rows: Flags, target: Floats, fold: NDArray[np.int64]
) -> Floats:
    """Predict each row with trees fitted to other visitors."""
    predicted = np.zeros(len(target))
    for part in np.unique(fold):
        own = fold == part
        trees = fitting.fit("regression", rows & ~own, target, fitting.settings.rounds)
        predicted[own] = trees.predict(fitting.table[own])
    return predicted


def _learn_vocabulary(rows: WaitRows) -> Vocabulary:
    """Learn each context value's rate of going on, then each one's mean log wait.

    Only values of many rows have a code of their own, so that a row's label weighs little in its
    code. Codes out of fold would differ by fold, and trees would tell the folds apart by them.
    """
    log_wait = np.log(np.maximum(rows.wait_s, LEAST_S))
    every = np.ones(len(rows), bool)
    targets = ((every, rows.gone_on.astype(np.float64)), (rows.gone_on, log_wait))
    columns = [
        _learn_means(rows.context[mask, j], target[mask])
        for mask, target in targets
        for j in range(len(CONTEXT))
    ]
    absent = [target[mask].mean() for mask, target in targets]
    return Vocabulary(
        first=np.cumsum([0, *(len(keys) for keys, _ in columns)]).astype(np.int64),
        keys=np.concatenate([keys for keys, _ in columns]),
        codes=np.concatenate([codes for _, codes in columns]),
        absent=np.repeat(absent, len(CONTEXT)),
    )


def _learn_means(values: NDArray[np.int64], target: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Give the values shown often enough, ascending, with their shrunken means."""
    keys, member = np.unique(values, return_inverse=True)
    shown = np.bincount(member, minlength=len(keys))
    total = np.bincount(member, weights=target, minlength=len(keys))
    overall = target.mean()
    kept = shown >= MIN_ROWS
    if kept.sum() > MAX_VALUES:
        kept &= shown >= np.sort(shown)[-MAX_VALUES]
    return keys[kept], ((total + PRIOR_ROWS * overall) / (shown + PRIOR_ROWS))[kept]


def _learn_shapes(z: Floats, event: NDArray[np.int64], settings: HesitationSettings) -> Shapes:
    """Learn the distribution of residuals, of all waits and of those on each event."""
    inner = np.unique(np.quantile(z, np.linspace(0.0, 1.0, settings.knots)))
    knots = np.r_[inner[0] - _OUTSIDE, inner, inner[-1] + _OUTSIDE]
    pooled = _share_below(z, knots)
    events = np.unique(event)
    rows = [pooled]
    for code in events:
        own = z[event == code]
        weight = settings.shape_weight / (len(own) + settings.shape_weight)
        rows.append(weight * pooled + (1.0 - weight) * _share_below(own, knots))
    spread = np.linspace(0.0, 1.0, len(knots))
    below = [(1.0 - _SPREAD_MASS) * row + _SPREAD_MASS * spread for row in rows]
    return Shapes(np.r_[-1, events].astype(np.int64), knots, np.vstack(below))


def _share_below(z: Floats, knots: Floats) -> Floats:
    return np.asarray(np.searchsorted(np.sort(z), knots, side="right") / max(len(z), 1))


def _parameters(rows: int, settings: HesitationSettings) -> dict[str, object]:
    return {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": min(max(rows // 500, 20), settings.min_rows_in_leaf),
        "lambda_l2": settings.l2,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "feature_pre_filter": False,
        "verbose": -1,
    }
