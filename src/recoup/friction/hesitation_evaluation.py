"""Judge hesitation on a log, beside a table by state and a Weibull regression with cure."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EventBatch
from recoup.friction.hesitation import Expected, HesitationModel, gone_on_by
from recoup.friction.hesitation_baselines import Baselines, table_survival, weibull_survival
from recoup.friction.hesitation_scores import (
    GRID_S,
    chance_error,
    concordance,
    log_scores,
    mean_gain,
    transform_error,
)
from recoup.friction.intent_rows import Period, Store
from recoup.friction.waits import WaitRows, collect_waits, state_name
from recoup.non_shoppers import Rules

LEAST_ROWS: Final = 500
"""States with fewer rows are not told apart."""

TICK_US: Final = (1_000_000, 1_000)
"""Resolutions at which a log may keep its times; the transform is randomised within one."""

_WHOLE: Final = 0.99

Floats = NDArray[np.float64]


def evaluate_hesitation(
    model: HesitationModel,
    batches: Iterable[EventBatch],
    store: Store,
    *,
    baselines: Baselines | None = None,
    period: Period | None = None,
    history: Iterable[EventBatch] = (),
    rules: Rules | None = None,
) -> dict[str, object]:
    """Judge a model on the pages of a log; see :func:`report_waits` for what it gives.

    Raises
    ------
    ModelError
        If there is no page, or the features are not those that the model reads.
    """
    rows = collect_waits(batches, store, period or Period(), history=history, rules=rules)
    if not rows.page.any():
        raise ModelError("Expected pages in the period, got none", hint="see --from and --until")
    return report_waits(model, rows, baselines)


def report_waits(
    model: HesitationModel, rows: WaitRows, baselines: Baselines | None = None
) -> dict[str, object]:
    """Judge a model on rows: those of pages alone, since other events may share their moment.

    Returns
    -------
    ``rows``, ``censored``, ``pit_error``, ``pit_chance`` (what right predictions exceed one time in
    twenty), ``concordance``, ``log_score``, and the same under ``states`` for each with at least
    500 rows; under ``baselines``, if given, each peer's ``log_score``, and the model's ``gain`` in
    log score with its 95 % interval over sessions drawn anew.
    """
    model.bind(rows.names)
    rows = rows.where(rows.page)
    expected = model.expect_rows(rows.values, rows.context, rows.state)
    surviving = survival_of(model, expected)
    scores = log_scores(surviving, rows.wait_s, rows.gone_on)
    below = _transform(model, expected, rows)
    mean_wait = _restricted_mean(surviving)
    scored = np.column_stack([scores, below, mean_wait, expected.goes_on])
    told = _measures(rows, scored)
    told["states"] = {
        state_name(int(state)): _measures(rows.where(own), scored[own])
        for state in np.unique(rows.state)
        if (own := rows.state == state).sum() >= LEAST_ROWS
    }
    if baselines is not None:
        told["baselines"] = _compare(model, rows, scores, baselines)
    return told


def survival_of(model: HesitationModel, expected: Expected) -> Floats:
    """Give P(wait > grid time), shape (n, grid + 1); the first column is 1."""
    count = len(expected.goes_on)
    columns = [gone_on_by(model.shapes, expected, np.full(count, time)) for time in GRID_S]
    return np.column_stack([np.ones(count), 1.0 - np.column_stack(columns)])


def _measures(rows: WaitRows, scored: Floats) -> dict[str, object]:
    """Measure rows by their score, transform, expected wait and P(goes on), shape (n, 4)."""
    scores, below, mean_wait, goes_on = scored.T
    return {
        "rows": len(rows),
        "censored": int((~rows.gone_on).sum()),
        "pit_error": transform_error(below, rows.gone_on) if len(rows) else None,
        "pit_chance": chance_error(goes_on) if len(rows) else None,
        "concordance": concordance(mean_wait, rows.wait_s, rows.gone_on),
        "log_score": float(scores.mean()) if len(rows) else None,
    }


def _transform(model: HesitationModel, expected: Expected, rows: WaitRows) -> Floats:
    """Give P(wait <= the time seen), drawn at random within the resolution of the log's clock."""
    chance = (rows.key.view(np.uint64) >> np.uint64(11)).astype(np.float64) / 2.0**53
    away = (chance - 0.5) * _resolution_s(rows)
    seen = np.where(rows.gone_on, np.maximum(rows.wait_s + away, 0.0), rows.wait_s)
    return gone_on_by(model.shapes, expected, seen)


def _resolution_s(rows: WaitRows) -> float:
    wait_us = np.rint(rows.wait_s[rows.gone_on] * 1e6).astype(np.int64)
    for tick in TICK_US:
        if len(wait_us) and (wait_us % tick == 0).mean() > _WHOLE:
            return tick / 1e6
    return 1e-6


def _restricted_mean(surviving: Floats) -> Floats:
    """Give the expected wait within the session's limit, by the trapezoid rule on the grid."""
    middle = 0.5 * (surviving[:, 1:] + surviving[:, :-1])
    return np.asarray(middle @ np.diff(np.r_[0.0, GRID_S]))


def _compare(
    model: HesitationModel, rows: WaitRows, scores: Floats, baselines: Baselines
) -> dict[str, object]:
    survivals = {
        "kaplan_meier_by_state": table_survival(rows, baselines),
        "weibull_with_cure": weibull_survival(rows, model, baselines),
    }
    return {name: _peer(rows, scores, surviving) for name, surviving in survivals.items()}


def _peer(rows: WaitRows, scores: Floats, surviving: Floats) -> dict[str, object]:
    theirs = log_scores(surviving, rows.wait_s, rows.gone_on)
    return {"log_score": float(theirs.mean()), "gain": mean_gain(scores - theirs, rows.session)}
