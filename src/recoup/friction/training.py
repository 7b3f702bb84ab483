"""Train purchase intent on a log, and judge it on another: time splits, calibration, metrics."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import MICROS, EventBatch, take
from recoup.friction.effects import (
    EffectSettings,
    Labelled,
    Shown,
    effects_out_of_fold,
    fit_effects,
)
from recoup.friction.evaluation import breakdown
from recoup.friction.explained import SYMPTOM_BITS
from recoup.friction.intent import (
    Inputs,
    IntentModel,
    Learned,
    columns_of,
    mix,
    read_inputs,
    shares_of,
)
from recoup.friction.intent_context import (
    CONTEXT_COLUMNS,
    encode_context,
    encode_out_of_fold,
    learn_vocabulary,
)
from recoup.friction.intent_goals import goals_of
from recoup.friction.intent_rows import MOST_ROWS, IntentRows, Period, Store, collect_rows
from recoup.models.calibration import Calibration, fit_calibration
from recoup.models.linear import LinearModel, fit_linear, linear_rows, no_linear
from recoup.models.network import (
    NetworkModel,
    NetworkSettings,
    fit_network,
    network_rows,
    no_network,
)
from recoup.models.nodes import LOGISTIC
from recoup.models.scoring import link_raw
from recoup.models.trees import TreeEnsemble
from recoup.non_shoppers import Rules

__all__ = ["IntentSettings", "evaluate_intent", "fit_intent", "train_intent"]

Progress = Callable[[int], object]
Judged = Callable[[IntentRows, NDArray[np.float64]], object]
"""Shown the rows that a model was judged on, and what it said of them."""

LESS: Final = {
    "visitor_events": "session_events",
    "visitor_views": "session_views",
    "visitor_adds": "session_adds",
    "visitor_cart_views": "session_cart_views",
}
"""A visitor's past as the trees read it: what lies before the present session."""

UNREAD: Final = ("item_", "query_", "page_", "since_item_")
"""Beginnings of the names of features that brought nothing on time splits: those of entities."""

SIGNALLED: Final = (
    "session_troubles", "since_trouble_s", "session_empty_searches", "session_out_of_stock",
    "last_search_results", "last_promise_days", "last_latency_ms", "session_latency_mean_ms",
    "session_latency_max_ms",
)  # fmt: skip
"""Features that tell what signals are read from: the effects of signals speak for them."""


class IntentSettings(msgspec.Struct, frozen=True):
    """How purchase intent is trained. The defaults were chosen on time splits.

    Parameters
    ----------
    rounds
        Numbers of trees to choose from, ascending.
    origins
        Where the time splits lie, as shares of the period's sessions: a model fitted to what lies
        before an origin is judged on what lies between it and the next.
    seeds
        One ensemble is fitted per seed, and their raw scores averaged.
    min_rows_in_leaf
        At most this many; less on small logs.
    half_weight_events
        A row weighs ``1 / (events of its session + this)``: long sessions do not drown the rest.
    rows_per_session
        Each ensemble is fitted to at most this many rows of a session, drawn anew: the rows of
        one session say much the same. So is the regression; the network reads all rows.
    linear_share, linear_l2
        Weight of the logistic regression beside the trees, and its penalty.
    network_share, network
        Weight of the network beside the trees, and how it is fitted.
    most_rows
        Events held in memory; a longer log is sampled by visitor, see
        :func:`recoup.friction.intent_rows.collect_rows`.
    effects
        How the effects of signals are fitted beside.
    gap_s
        A session that may go on beyond the period's end is left out: its label is unknown.
    """

    rounds: tuple[int, ...] = (100, 150, 200, 250)
    origins: tuple[float, ...] = (0.4, 0.6, 0.8)
    seeds: tuple[int, ...] = (1, 2, 3)
    learning_rate: float = 0.05
    leaves: int = 8
    min_rows_in_leaf: int = 300
    l2: float = 20.0
    feature_share: float = 0.2
    row_share: float = 0.7
    half_weight_events: float = 5.0
    rows_per_session: int = 8
    linear_share: float = 0.1
    linear_l2: float = 1e-4
    network_share: float = 0.45
    network: NetworkSettings = NetworkSettings()
    folds: int = 5
    most_rows: int = MOST_ROWS
    effects: EffectSettings = EffectSettings()
    gap_s: int = 1_800


def train_intent(  # noqa: PLR0913 - one argument an option
    batches: Iterable[EventBatch],
    store: Store,
    feature_hash: str,
    *,
    period: Period | None = None,
    history: Iterable[EventBatch] = (),
    settings: IntentSettings | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    judged: Judged | None = None,
) -> tuple[IntentModel, dict[str, object]]:
    """Train on a log.

    Events at or after the period's end are not read at all: neither features nor labels know them.

    Parameters
    ----------
    batches
        The log, admitted by intake, in order of time.
    store
        An empty feature store; it is folded through the history and the log.
    feature_hash
        Hash of its feature set, which the model remembers.
    period
        Which events are rows; what lies before is folded only.
    history
        An earlier log, folded for features only.
    judged
        Shown the rows of the time splits, with their calibrated probabilities.
    rules
        By which bots, monitors, staff and test orders are left out; the built-in ones if None.

    Returns
    -------
    The model, and its metrics on the time splits: every row of them was scored by a model that was
    fitted to earlier sessions alone.

    Raises
    ------
    ModelError
        If there is no row, or too few sessions that buy.
    """
    chosen, period = settings or IntentSettings(), period or Period()
    seen = before(batches, period.until)
    rows = collect_rows(
        seen,
        store,
        period,
        history=history,
        rules=rules,
        progress=progress,
        most_rows=chosen.most_rows,
    )
    end = period.until if period.until is not None else int(rows.ts.max()) + 1
    rows = determined(rows, end - chosen.gap_s * MICROS)
    return fit_intent(rows, feature_hash, chosen, judged=judged)


def evaluate_intent(  # noqa: PLR0913 - one argument an option
    model: IntentModel,
    batches: Iterable[EventBatch],
    store: Store,
    *,
    period: Period | None = None,
    history: Iterable[EventBatch] = (),
    rules: Rules | None = None,
    progress: Progress | None = None,
    judged: Judged | None = None,
    most_rows: int = MOST_ROWS,
) -> dict[str, object]:
    """Judge a model on a log.

    Returns
    -------
    ``rows``, ``base_rate``, ``auc``, ``pr_auc``, ``log_loss``, ``calibration_error``, and the same
    under ``after_event`` (keys 1, 3, 5, 10, 20, 40) and ``first_add_to_cart``.

    Raises
    ------
    ModelError
        If there is no row, or the features are not those that the model reads.
    """
    rows = collect_rows(
        batches,
        store,
        period or Period(),
        history=history,
        rules=rules,
        progress=progress,
        most_rows=most_rows,
    )
    model.bind(rows.names)
    probability = model.score_rows(rows.values, rows.context, rows.now, rows.before)
    if judged is not None:
        judged(rows, probability)
    return report(rows, probability)


def report(rows: IntentRows, probability: NDArray[np.float64]) -> dict[str, object]:
    """Give the metrics of scored rows in the fixed shape."""
    return breakdown(rows.positive, probability, rows.event_number, rows.first_cart)


def fit_intent(
    rows: IntentRows,
    feature_hash: str,
    settings: IntentSettings,
    *,
    judged: Judged | None = None,
) -> tuple[IntentModel, dict[str, object]]:
    """Choose the number of trees and calibrate on time splits, then fit to all rows.

    Trees, regression and network are fitted to events that show no symptom; effects of signals
    to the rows of the time splits, where the unspoilt log-odds are of models that did not see them.
    """
    _check_size(rows)
    held = _hold_out(rows, settings)
    best = _best_of(held, settings)
    shown = held.shown(best)
    effects = fit_effects(shown, settings.effects)
    calm = _calm(rows)
    vocabulary = learn_vocabulary(calm.labelled)
    members = [_fit(calm, settings, seed, settings.rounds[best]) for seed in settings.seeds]
    trees = TreeEnsemble.mean_of([TreeEnsemble.from_lightgbm(booster) for booster, _ in members])
    probability, calibration = _calibrate(held, shown, settings)
    learned = Learned(
        vocabulary,
        trees,
        members[0][1],
        settings.linear_share,
        calibration,
        effects,
        _fit_network(calm, settings),
        settings.network_share,
    )
    inputs = _choose_inputs(rows.names)
    model = IntentModel(feature_hash, rows.names, inputs, CONTEXT_COLUMNS, learned)
    metrics = report(held.rows, probability)
    if judged is not None:
        judged(held.rows, probability)
    extra = {"trees": trees.n_trees, "training_rows": len(rows), "hash": model.hash}
    return model, {**metrics, **extra}


def _calibrate(
    held: "_Held", shown: Labelled, settings: IntentSettings
) -> tuple[NDArray[np.float64], Calibration]:
    """Fit the calibration, and give the calibrated probabilities that it was fitted to."""
    rows = held.rows
    raw = effects_out_of_fold(shown, settings.effects)
    scores = link_raw(raw, LOGISTIC, 1.0)
    calibration = fit_calibration(scores, rows.positive)
    return calibration.apply(scores), calibration


def _calm(rows: IntentRows) -> IntentRows:
    """Keep the events that show no symptom."""
    return rows.where(rows.now & SYMPTOM_BITS == 0)


class _Held(msgspec.Struct, frozen=True):
    """Later rows with the log-odds of models of earlier ones: a column per number of trees."""

    rows: IntentRows
    raw: NDArray[np.float64]

    def shown(self, which: int) -> Labelled:
        rows = self.rows
        step = rows.context[:, CONTEXT_COLUMNS.index("event")]
        shown = Shown(self.raw[:, which].copy(), step.copy(), rows.now, rows.before)
        return Labelled(shown, rows.positive, rows.visitor)


def _best_of(held: _Held, settings: IntentSettings) -> int:
    calm = held.rows.now & SYMPTOM_BITS == 0
    rows, weight = held.rows.where(calm), _weights(held.rows, settings)[calm]
    scores = link_raw(held.raw[calm], LOGISTIC, 1.0)
    losses = [_weighted_loss(rows, scores[:, k], weight) for k in range(len(settings.rounds))]
    return int(np.argmin(losses))


def before(batches: Iterable[EventBatch], until: int | None) -> Iterable[EventBatch]:
    """Give the events before a time, int64 microseconds UTC; all of them where it is None."""
    if until is None:
        yield from batches
        return
    for batch in batches:
        ts = batch.events["ts"].to_physical().to_numpy()
        yield batch if len(ts) == 0 or ts.max() < until else _cut(batch, ts < until)


def _cut(batch: EventBatch, keep: NDArray[np.bool_]) -> EventBatch:
    return take(batch, np.flatnonzero(keep))


def determined(rows: IntentRows, latest: int) -> IntentRows:
    """Leave out sessions that do not buy but may go on after ``latest``: they have no label yet."""
    last = _session_wise(rows, rows.ts, np.maximum)
    return rows.where(rows.positive | (last < latest))


def _session_wise(
    rows: IntentRows, values: NDArray[np.int64], combine: np.ufunc
) -> NDArray[np.int64]:
    starts = np.flatnonzero(np.r_[True, rows.session[1:] != rows.session[:-1]])
    sizes = np.diff(np.r_[starts, len(rows)])
    return np.repeat(combine.reduceat(values, starts), sizes)


def _check_size(rows: IntentRows) -> None:
    buying = len(np.unique(rows.session[rows.positive]))
    if buying < _MIN_BUYING_SESSIONS:
        raise ModelError(
            f"Expected at least {_MIN_BUYING_SESSIONS} sessions that buy, got {buying}",
            hint="train on a longer period; until then stage rates stand in",
        )


_MIN_BUYING_SESSIONS: Final = 20


def _hold_out(rows: IntentRows, settings: IntentSettings) -> _Held:
    """Score later sessions with models fitted to earlier ones: (n, numbers of trees)."""
    start = _session_wise(rows, rows.ts, np.minimum)
    edges = np.quantile(np.unique(start), [*settings.origins, 1.0]).astype(np.int64)
    edges[-1] = int(start.max()) + 1
    parts: list[IntentRows] = []
    scores: list[NDArray[np.float64]] = []
    for origin, end in pairwise(edges.tolist()):
        earlier = _calm(rows.where(_session_wise(rows, rows.ts, np.maximum) < origin))
        later = rows.where((start >= origin) & (start < end))
        if not earlier.positive.any() or len(later) == 0:
            continue
        parts.append(later)
        scores.append(_score_later(earlier, later, settings))
    return _Held(_concat(parts), np.concatenate(scores))


def _score_later(
    earlier: IntentRows, later: IntentRows, settings: IntentSettings
) -> NDArray[np.float64]:
    booster, linear = _fit(earlier, settings, settings.seeds[0], settings.rounds[-1])
    context = encode_context(later.context, learn_vocabulary(earlier.labelled))
    table = _matrix(later, context)
    beside = linear_rows(table, linear), network_rows(table, _fit_network(earlier, settings))
    shares = shares_of(settings.linear_share, settings.network_share)
    trees = [
        np.asarray(booster.predict(table, num_iteration=k, raw_score=True)) for k in settings.rounds
    ]
    return np.column_stack([mix((told, *beside), shares) for told in trees])


def _concat(parts: list[IntentRows]) -> IntentRows:
    fields = IntentRows.__struct_fields__[1:]
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in fields]
    return IntentRows(parts[0].names, *joined)


def _weighted_loss(
    rows: IntentRows, scores: NDArray[np.float64], weight: NDArray[np.float64]
) -> float:
    p = np.clip(scores, 1e-9, 1 - 1e-9)
    loss = -np.log(np.where(rows.positive, p, 1.0 - p))
    return float(np.average(loss, weights=weight))


def _weights(rows: IntentRows, settings: IntentSettings) -> NDArray[np.float64]:
    events = _session_wise(rows, np.ones(len(rows), np.int64), np.add)
    weight = 1.0 / (events + settings.half_weight_events)
    return np.asarray(weight / weight.mean())


def _fit(
    rows: IntentRows, settings: IntentSettings, seed: int, rounds: int
) -> tuple[lgb.Booster, LinearModel]:
    """Fit both parts, the context encoded out of fold so that no label meets itself."""
    fold = rows.visitor % settings.folds
    drawn = _draw(rows, settings.rows_per_session, seed)
    context = encode_out_of_fold(rows.labelled, fold)[drawn]
    own = rows.where(drawn)
    table, weight = _matrix(own, context), _weights(own, settings)
    data = lgb.Dataset(table, own.positive, weight=weight)
    booster = lgb.train(_parameters(len(own), settings, seed), data, rounds)
    if seed != settings.seeds[0] or not settings.linear_share:
        return booster, no_linear(table.shape[1])
    return booster, fit_linear(table, own.positive, weight, l2=settings.linear_l2)


def _fit_network(rows: IntentRows, settings: IntentSettings) -> NetworkModel:
    """Fit the network to all rows, the context encoded out of fold, and to goals beside."""
    if not settings.network_share:
        return no_network(len(_choose_inputs(rows.names)) + len(CONTEXT_COLUMNS))
    context = encode_out_of_fold(rows.labelled, rows.visitor % settings.folds)
    table = _matrix(rows, context)
    weight = _weights(rows, settings)
    return fit_network(table, rows.positive, weight, settings.network, goals_of(rows))


def _draw(rows: IntentRows, most: int, seed: int) -> NDArray[np.bool_]:
    """Draw at most so many rows of each session."""
    chance = np.random.default_rng(seed).random(len(rows))
    order = np.lexsort((chance, rows.session))
    session = rows.session[order]
    starts = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    sizes = np.diff(np.r_[starts, len(rows)])
    drawn = np.zeros(len(rows), bool)
    drawn[order] = np.arange(len(rows)) - np.repeat(starts, sizes) < most
    return drawn


def _choose_inputs(names: tuple[str, ...]) -> Inputs:
    read = [name for name in names if not name.startswith(UNREAD) and name not in SIGNALLED]
    pairs = [(name, LESS.get(name, "")) for name in read]
    return tuple((name, other if other in names else "") for name, other in pairs)


def _matrix(rows: IntentRows, context: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = columns_of(_choose_inputs(rows.names), rows.names)
    return np.column_stack([read_inputs(rows.values, *columns), context])


def _parameters(rows: int, settings: IntentSettings, seed: int) -> dict[str, object]:
    smallest = min(max(rows // 200, 20), settings.min_rows_in_leaf)
    return {
        "objective": "binary",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": smallest,
        "lambda_l2": settings.l2,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "max_bin": 127,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
