"""What hesitation is measured against: a table by state, and a Weibull regression with cure.

Both are fitted to the rows that the model was fitted to, and kept beside it in its artefact's
registry entry, so that one run of ``recoup evaluate hesitation`` compares all three.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from recoup.friction.hesitation import HesitationModel, table_of
from recoup.friction.hesitation_scores import GRID_S, bins_of
from recoup.friction.waits import WaitRows
from recoup.models.packing import pack, unpack
from recoup.models.squash import center_and_spread, scale, squash

KIND: Final = "hesitation_baselines/1"
STATE_WEIGHT: Final = 20.0
"""Weight of all rows in the table of one state, in rows."""

_RIDGE: Final = 1e-3
_STEPS: Final = 150

Floats = NDArray[np.float64]


class Baselines(NamedTuple):
    """Fitted peers.

    Parameters
    ----------
    states, surviving
        Kaplan and Meier's P(wait > grid time) by state, shapes (s + 1,) and (s + 1, grid + 1); the
        first row, of state -1, is of all states.
    center, spread
        What the Weibull regression's columns are standardised by, shape (d,).
    weights
        Of its log-odds of going on, of its log scale, and its log shape: (2 (d + s + 1) + 1,).
    """

    states: NDArray[np.int64]
    surviving: Floats
    center: Floats
    spread: Floats
    weights: Floats

    def to_bytes(self) -> bytes:
        """Serialise; equal baselines give equal bytes."""
        return pack(KIND, {}, self._asdict())


def baselines_from_bytes(data: bytes) -> Baselines:
    """Read what :meth:`Baselines.to_bytes` gave.

    Raises
    ------
    ModelError
        If the bytes are no such artefact, or of another version.
    """
    _, arrays = unpack(KIND, data)
    return Baselines(*(arrays[name] for name in Baselines._fields))  # type: ignore[arg-type]


def fit_baselines(rows: WaitRows, model: HesitationModel) -> Baselines:
    """Fit both peers; the regression reads what the model reads, and the state."""
    states, surviving = _fit_table(rows)
    squashed, center, spread = _standardise(_columns(rows, model))
    design = np.hstack([squashed, _indicators(rows.state, states)])
    return Baselines(states, surviving, center, spread, _fit_weibull(design, rows))


def table_survival(rows: WaitRows, baselines: Baselines) -> Floats:
    """Give P(wait > grid time) by the table: shape (n, grid + 1), its first column 1."""
    return np.asarray(baselines.surviving[_row_of(rows.state, baselines.states)])


def weibull_survival(rows: WaitRows, model: HesitationModel, baselines: Baselines) -> Floats:
    """Give P(wait > grid time) by the Weibull regression with cure: shape (n, grid + 1)."""
    columns = _scaled(_columns(rows, model), baselines.center, baselines.spread)
    design = np.hstack([columns, _indicators(rows.state, baselines.states)])
    odds, log_scale, shape = _split(baselines.weights, design)
    grid = np.log(np.r_[1e-9, GRID_S])
    hazard = np.exp(np.clip(shape * (grid[None] - log_scale[:, None]), -50.0, 50.0))
    return np.asarray(1.0 - _logistic(odds)[:, None] * -np.expm1(-hazard))


def _fit_table(rows: WaitRows) -> tuple[NDArray[np.int64], Floats]:
    """Fit Kaplan and Meier's table, each state's shrunken towards that of all rows."""
    states, counts = np.unique(rows.state, return_counts=True)
    overall = _kaplan_meier(rows)
    tables = [overall]
    for state, count in zip(states, counts, strict=True):
        weight = count / (count + STATE_WEIGHT)
        own = _kaplan_meier(rows.where(rows.state == state))
        tables.append(weight * own + (1.0 - weight) * overall)
    return np.r_[-1, states].astype(np.int64), np.vstack(tables)


def _kaplan_meier(rows: WaitRows) -> Floats:
    size = len(GRID_S)
    bins = bins_of(rows.wait_s, rows.gone_on)
    ended = np.bincount(bins[rows.gone_on], minlength=size)[:size]
    lost = np.bincount(bins[~rows.gone_on], minlength=size + 1)[:size]
    at_risk = len(bins) - np.r_[0, np.cumsum(ended)[:-1]] - np.cumsum(lost)
    return np.asarray(np.r_[1.0, np.cumprod(1.0 - ended / np.maximum(at_risk, 1))])


def _columns(rows: WaitRows, model: HesitationModel) -> Floats:
    picked = [rows.names.index(name) for name in model.names]
    return table_of(rows.values[:, picked], rows.context, model.learned.vocabulary)


def _standardise(columns: Floats) -> tuple[Floats, Floats, Floats]:
    center, spread = center_and_spread(squash(columns, np.empty(columns.shape)))
    return _scaled(columns, center, spread), center, spread


def _scaled(columns: Floats, center: Floats, spread: Floats) -> Floats:
    return np.nan_to_num(scale(squash(columns, np.empty(columns.shape)), center, spread))


def _row_of(state: NDArray[np.int64], states: NDArray[np.int64]) -> NDArray[np.int64]:
    at = np.searchsorted(states, state).clip(max=len(states) - 1)
    return np.where(states[at] == state, at, 0)


def _indicators(state: NDArray[np.int64], states: NDArray[np.int64]) -> Floats:
    """Give a column for each known state, and one of ones."""
    columns = np.zeros((len(state), len(states)))
    columns[np.arange(len(state)), _row_of(state, states)] = 1.0
    columns[:, 0] = 1.0
    return columns


def _fit_weibull(design: Floats, rows: WaitRows) -> Floats:
    """Fit by maximum likelihood, with a small ridge on all but the intercepts."""
    log_wait = np.log(rows.wait_s)
    width, columns = design.shape[1], design.shape[1] - len(np.unique(rows.state)) - 1
    start = np.zeros(2 * width + 1)
    start[width + columns] = float(log_wait[rows.gone_on].mean())
    found = minimize(
        _weibull_loss,
        start,
        args=(design, log_wait, rows.gone_on),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS},
    )
    return np.asarray(found.x)


def _weibull_loss(
    weights: Floats, design: Floats, log_wait: Floats, gone_on: NDArray[np.bool_]
) -> tuple[float, Floats]:
    """Give the mean negative log-likelihood of a Weibull model with cure, and its gradient.

    A wait that ended has density ``p f(t)``; one that did not, survival ``1 - p + p exp(-h)`` with
    ``h = (t / scale) ** shape``.
    """
    odds, log_scale, shape = _split(weights, design)
    away = log_wait - log_scale
    log_h = np.clip(shape * away, -50.0, 50.0)
    h = np.exp(log_h)
    p = _logistic(odds)
    still = np.exp(-h)
    surviving = np.maximum(1.0 - p + p * still, 1e-300)
    ended = np.log(np.maximum(p, 1e-300)) + np.log(shape) + log_h - log_wait - h
    loss = -np.where(gone_on, ended, np.log(surviving))
    d_odds = np.where(gone_on, -(1.0 - p), p * (1.0 - p) * (1.0 - still) / surviving)
    d_log_h = np.where(gone_on, h - 1.0, p * still * h / surviving)
    d_shape = d_log_h * away * shape - gone_on
    ridge = np.full(len(weights), _RIDGE / len(design))
    count = len(design)
    gradient = np.concatenate([design.T @ d_odds, design.T @ (-shape * d_log_h), [d_shape.sum()]])
    penalty = 0.5 * float(ridge @ weights**2)
    return float(loss.mean()) + penalty, gradient / count + ridge * weights


def _split(weights: Floats, design: Floats) -> tuple[Floats, Floats, float]:
    width = design.shape[1]
    shape = float(np.exp(np.clip(weights[-1], -3.0, 3.0)))
    return design @ weights[:width], design @ weights[width:-1], shape


def _logistic(odds: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * odds)))
