"""Train repeat purchase on a log of orders, and judge it forward in time beside BG/NBD."""

from collections.abc import Callable
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.friction.bg_nbd import fit_bg_nbd
from recoup.friction.evaluation import (
    calibration_by_chance,
    log_loss,
    metrics_of,
    paired_gain,
)
from recoup.friction.gaps import GapModel, fit_gaps
from recoup.friction.intent import blend
from recoup.friction.level import expected_level, level_of
from recoup.friction.orders import Orders
from recoup.friction.repeat import (
    Laws,
    Learned,
    RepeatModel,
    inputs_at,
    log_odds,
    probability,
)
from recoup.models.linear import LinearModel, fit_linear, linear_rows
from recoup.models.trees import TreeEnsemble

__all__ = ["Held", "RepeatSettings", "default_horizon", "evaluate_repeat", "fit_repeat"]

Floats = NDArray[np.float64]

HORIZONS: Final = (91, 28, 14, 7, 1)
"""Horizons in days to choose from: the longest that fits :data:`SPANS` times into the log."""

SPANS: Final = 8


class RepeatSettings(msgspec.Struct, frozen=True):
    """How repeat purchase is trained.

    Parameters
    ----------
    horizon_days
        None chooses by the length of the log: see :func:`default_horizon`.
    rounds
        Numbers of trees to choose from, ascending, on later times than they were fitted to.
    seeds
        One ensemble is fitted per seed, and their raw scores averaged.
    origins
        At most so many moments, half a horizon apart, at which every customer is a row.
    held_out
        The latest origins, on each of which a model fitted to what lies before it is judged.
    decay
        An origin weighs ``exp(-decay)`` times the next: shops change.
    max_rows, max_rows_linear
        At most so many rows are drawn for a fit of the trees, and of the regression.
    linear_share, linear_l2
        Weight of the logistic regression beside the trees, and its penalty.
    level_origins
        At most so many origins, a horizon apart, tell how far a shop's level lasts.
    """

    horizon_days: int | None = None
    rounds: tuple[int, ...] = (50, 100, 150)
    seeds: tuple[int, ...] = (1, 2, 3)
    origins: int = 12
    held_out: int = 3
    decay: float = 0.15
    max_rows: int = 100_000
    max_rows_linear: int = 30_000
    learning_rate: float = 0.05
    leaves: int = 7
    min_rows_in_leaf: int = 100
    l2: float = 20.0
    linear_share: float = 0.5
    linear_l2: float = 1e-3
    level_origins: int = 6


def default_horizon(span_days: int) -> int:
    """Choose the horizon by the length of the log that is trained on.

    Examples
    --------
    >>> [default_horizon(days) for days in (60, 120, 273, 800)]
    [7, 14, 28, 91]
    """
    return next((h for h in HORIZONS if h * SPANS <= span_days), HORIZONS[-1])


class Held(msgspec.Struct, frozen=True):
    """Customers at origins that a model was judged on: n of them.

    Parameters
    ----------
    positive
        Whether they bought within the horizon, shape (n,).
    scores
        P(bought) by each number of trees, shape (n, numbers of trees).
    bg_nbd
        What BG/NBD says, shape (n,).
    repeats
        Orders after the first before the origin, shape (n,).
    customer, inputs
        Who, and what the model read of them: shapes (n,) and (n, inputs).
    """

    positive: NDArray[np.bool_]
    scores: Floats
    bg_nbd: Floats
    repeats: Floats
    customer: NDArray[np.int64]
    inputs: Floats


Judged = Callable[[Held, Floats], object]
"""Told the rows that a model was judged on, and what it said of them."""


def fit_repeat(
    orders: Orders,
    until: int,
    settings: RepeatSettings | None = None,
    *,
    judged: Judged | None = None,
    cycles: dict[str, GapModel] | None = None,
) -> tuple[RepeatModel, dict[str, object]]:
    """Train on the orders before a day.

    Parameters
    ----------
    until
        Days since 1970-01-01 UTC; orders of that day and later are not read.
    judged
        Told what the measures are of.
    cycles
        Gap laws by category, which the model keeps: see :func:`recoup.friction.cycles.fit_cycles`.

    Returns
    -------
    The model, and its measures on the latest origins inside the log, each scored by a model that
    knows only what lies before it.

    Raises
    ------
    ModelError
        If the log is too short, or too few customers buy again.
    """
    chosen, past = settings or RepeatSettings(), orders.before(until)
    span = until - int(past.day.min()) if len(past) else 0
    horizon = chosen.horizon_days or default_horizon(span)
    if span < (chosen.held_out + 2) * horizon:
        raise ModelError(
            f"Expected orders over at least {(chosen.held_out + 2) * horizon} days, got {span}",
            hint="train on a longer log, or with a shorter horizon",
        )
    known = max(chosen.held_out, min(chosen.level_origins, span // horizon - 2))
    parts = [_judge(past, until - (k + 1) * horizon, horizon, chosen) for k in range(known)]
    held = _concat(parts[: chosen.held_out])
    losses = [log_loss(held.positive, held.scores[:, k]) for k in range(len(chosen.rounds))]
    best = int(np.argmin(losses))
    raw = [log_odds(part.scores[:, best]) for part in parts]
    levels = [level_of(part.positive, said) for part, said in zip(parts, raw, strict=True)]
    # An origin is judged with the level that those before it let expect.
    scores = probability(
        np.concatenate([raw[k] + expected_level(levels[k + 1 :]) for k in range(chosen.held_out)])
    )
    if judged is not None:
        judged(held, scores)
    laws = msgspec.structs.replace(_laws(past, until, horizon), cycles=cycles or {})
    learned = _fit(past, until, laws, chosen, chosen.rounds[best])
    model = RepeatModel(laws, msgspec.structs.replace(learned, level=expected_level(levels)), until)
    told = _measures(held.positive, scores, held.bg_nbd)
    return model, {"customers": len(past.starts), "horizon_days": horizon, **told}


def evaluate_repeat(
    model: RepeatModel, orders: Orders, at: int, end: int, *, draws: int = 1_000
) -> dict[str, object]:
    """Judge a model forward in time: who bought in the horizon from the start of a day on.

    Parameters
    ----------
    at, end
        Days since 1970-01-01 UTC: the origin, and where what is known ends. The horizon is the
        model's, or what is known after the origin where that is less.

    Returns
    -------
    ``customers``, ``horizon_days``, ``base_rate``, ``auc``, ``log_loss``, ``calibration_error``,
    ``calibration_by_chance`` (what that error would hardly exceed if every probability were right),
    the measures again under ``bg_nbd``, and ``gain``: the fall of the log loss below BG/NBD's with
    its 95 % interval over customers drawn anew.

    Raises
    ------
    ModelError
        If nobody bought before the origin, or nothing is known after it.
    """
    horizon = min(model.laws.horizon_days, end - at)
    past = orders.before(at)
    if horizon < 1 or not len(past):
        raise ModelError(
            "Expected customers before the origin and days after it, got none",
            hint="see --from and --until: the origin is --from",
        )
    said = model.predict(past, at, horizon)
    positive = np.isin(said.customer, orders.buyers(at, at + horizon))
    late = model.overdue(past, at)
    return {
        "customers": len(positive),
        "horizon_days": horizon,
        **_measures(positive, said.ours, said.bg_nbd),
        "calibration_by_chance": calibration_by_chance(said.ours),
        "gain": _gain(positive, said.ours, said.bg_nbd, draws),
        "overdue": int((late.by > 0.0).sum()),
    }


def _concat(parts: list[Held]) -> Held:
    names = Held.__struct_fields__
    return Held(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _laws(past: Orders, at: int, horizon: int) -> Laws:
    return Laws(fit_bg_nbd(past.histories(at)), fit_gaps(past, at), horizon)


def _judge(past: Orders, origin: int, horizon: int, settings: RepeatSettings) -> Held:
    """Fit to what lies before an origin, and score what follows it by each number of trees."""
    before = past.before(origin)
    laws = _laws(before, origin, horizon)
    table, positive, weight = _rows(before, origin, laws, settings)
    booster = _boost(table, positive, weight, settings, settings.rounds[-1], settings.seeds[0])
    linear = _fit_linear(table, positive, weight, settings)
    inputs = inputs_at(before, origin, laws)
    beside = linear_rows(inputs, linear)
    raw = [
        np.asarray(booster.predict(inputs, num_iteration=k, raw_score=True))
        for k in settings.rounds
    ]
    scores = [probability(blend(told, beside, settings.linear_share)) for told in raw]
    bought = np.isin(before.customers, past.buyers(origin, origin + horizon))
    known = before.histories(origin)
    theirs = laws.bg_nbd.p_purchase(known, horizon)
    scored = np.column_stack(scores)
    return Held(bought, scored, theirs, known.repeats, before.customers, inputs)


def _fit(past: Orders, until: int, laws: Laws, settings: RepeatSettings, rounds: int) -> Learned:
    table, positive, weight = _rows(past, until, laws, settings)
    boosters = [_boost(table, positive, weight, settings, rounds, seed) for seed in settings.seeds]
    trees = TreeEnsemble.mean_of([TreeEnsemble.from_lightgbm(booster) for booster in boosters])
    linear = _fit_linear(table, positive, weight, settings)
    return Learned(trees, linear, settings.linear_share)


def _fit_linear(
    table: Floats, positive: NDArray[np.bool_], weight: Floats, settings: RepeatSettings
) -> LinearModel:
    few = slice(settings.max_rows_linear)
    return fit_linear(table[few], positive[few], weight[few], l2=settings.linear_l2)


def _boost(
    table: Floats,
    positive: NDArray[np.bool_],
    weight: Floats,
    settings: RepeatSettings,
    rounds: int,
    seed: int,
) -> lgb.Booster:
    data = lgb.Dataset(table, positive, weight=weight)
    return lgb.train(_parameters(len(table), settings, seed), data, rounds)


def _rows(
    past: Orders, until: int, laws: Laws, settings: RepeatSettings
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Give inputs, labels and weights of every customer at every origin."""
    h = laws.horizon_days
    step, first = max(h // 2, 1), int(past.day.min()) + h
    origins = range(until - h, first - 1, -step)[: settings.origins]
    tables, labels, weights = [], [], []
    for k, origin in enumerate(origins):
        before = past.before(origin)
        tables.append(inputs_at(before, origin, laws))
        labels.append(np.isin(before.customers, past.buyers(origin, origin + h)))
        weights.append(np.full(len(labels[-1]), np.exp(-settings.decay * k)))
    joined = [np.concatenate(parts) for parts in (tables, labels, weights)]
    drawn = np.random.default_rng(0).permutation(len(joined[0]))[: settings.max_rows]
    return joined[0][drawn], joined[1][drawn], joined[2][drawn]


def _measures(positive: NDArray[np.bool_], ours: Floats, theirs: Floats) -> dict[str, object]:
    own, other = (metrics_of(positive, said) for said in (ours, theirs))
    kept = ("base_rate", "auc", "log_loss", "calibration_error")
    return {**{k: own[k] for k in kept}, "bg_nbd": {k: other[k] for k in kept[1:]}}


def _gain(
    positive: NDArray[np.bool_], ours: Floats, theirs: Floats, draws: int
) -> dict[str, float] | None:
    if not 0 < positive.sum() < len(positive):
        return None
    found = paired_gain(positive, ours, theirs, np.arange(len(positive)), draws=draws).log_loss
    return {"log_loss": found.value, "low": found.low, "high": found.high}


def _parameters(rows: int, settings: RepeatSettings, seed: int) -> dict[str, object]:
    return {
        "objective": "binary",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": min(max(rows // 100, 10), settings.min_rows_in_leaf),
        "lambda_l2": settings.l2,
        "feature_fraction": 0.4,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
