"""What signals do to purchase intent: a law of harm with two numbers a signal, learned from a log.

The unspoilt part of intent knows nothing of signals: it is fitted to events that show none, and
reads nothing that a signal is read from. Harm is then told apart by its law. Of those who would
have gone on to buy, a share ``leaves`` at the event that shows a signal; for those who stay, an
earlier signal takes ``lasting`` from the log-odds:

    p = sigmoid(unspoilt - sum of lasting over earlier signals) * product of (1 - leaves) over new

So a signal may only lower intent, what it takes is not hidden in what else goes with it, and the
intent without it is a matter of leaving it out. Few numbers are learned well from few showings.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csr_array

from recoup.events import EVENT_NAMES
from recoup.friction.explained import EXPLAINED

LEAST_SHOWN: Final = 100
"""Events that show a signal, below which nothing is learned of signals."""

_MOST_LEAVE: Final = 0.98
_MOST_LASTING: Final = 5.0
_FARTHEST: Final = 10.0


class EffectSettings(msgspec.Struct, frozen=True):
    """How the effects of signals are fitted.

    Parameters
    ----------
    leaves_rate, lasting_rate
        Rates of the exponential priors of both numbers: what few showings tell is taken to be 0.
        The second is higher, since the events of a session that follow a signal say much the same.
    step_ridge, slope_ridge
        Penalties on the corrections of the unspoilt part by step of the journey.
    folds
        Intent is calibrated, and judged, with the effects that other visitors have taught.
    """

    leaves_rate: float = 2.0
    lasting_rate: float = 4.0
    step_ridge: float = 1.0
    slope_ridge: float = 10.0
    folds: int = 3


class SignalEffects(NamedTuple):
    """What was learned: by event name a correction of the unspoilt log-odds, by signal its harm.

    ``offset`` and ``slope`` correct by the step at which the journey stands, shape (names,);
    ``leaves``, in [0, 1), and ``lasting``, at least 0, have one entry a signal.

    Examples
    --------
    >>> effects = no_effects()
    >>> effects.leaves[0] = 0.5
    >>> round(spoilt(0.0, 0b1, 0, effects), 3)  # a half chance, half of them leave
    -1.099
    """

    offset: NDArray[np.float64]
    slope: NDArray[np.float64]
    leaves: NDArray[np.float64]
    lasting: NDArray[np.float64]


class Shown(NamedTuple):
    """What effects are learned from, n rows.

    ``base`` is the log-odds of the unspoilt part, ``step`` the code of the event at which the
    journey stands, ``now`` and ``before`` the signals of the event and of its session before it, a
    bit each: shape (n,).
    """

    base: NDArray[np.float64]
    step: NDArray[np.int64]
    now: NDArray[np.int64]
    before: NDArray[np.int64]


class Labelled(NamedTuple):
    """Rows to learn from: ``positive`` are labels, ``visitor`` keys, shape (n,)."""

    shown: Shown
    positive: NDArray[np.bool_]
    visitor: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> "Labelled":
        """Keep some of the rows."""
        shown = Shown(*(part[keep] for part in self.shown))  # type: ignore[arg-type]
        return Labelled(shown, self.positive[keep], self.visitor[keep])


def no_effects() -> SignalEffects:
    """Give effects that change nothing."""
    names, signals = len(EVENT_NAMES), len(EXPLAINED)
    return SignalEffects(np.zeros(names), np.zeros(names), np.zeros(signals), np.zeros(signals))


def widened(effects: SignalEffects) -> SignalEffects:
    """Give effects that were learned when fewer signals were told: the later ones do nothing."""
    more = len(EXPLAINED) - len(effects.leaves)
    leaves, lasting = (np.pad(each, (0, more)) for each in (effects.leaves, effects.lasting))
    return SignalEffects(effects.offset, effects.slope, leaves, lasting)


def fit_effects(rows: Labelled, settings: EffectSettings) -> SignalEffects:
    """Fit by penalised maximum likelihood, with bounds.

    Parameters
    ----------
    rows
        Their ``base`` comes from models that did not see them.

    Returns
    -------
    No effects where fewer than :data:`LEAST_SHOWN` events show a signal.
    """
    showing = np.count_nonzero(rows.shown.now)
    if showing < LEAST_SHOWN or not 0.0 < rows.positive.mean() < 1.0:
        return no_effects()
    fit = _Fit(rows, settings)
    names, signals = len(EVENT_NAMES), len(EXPLAINED)
    bounds = [(None, None)] * (2 * names) + [(0.0, _MOST_LEAVE)] * signals
    bounds += [(0.0, _MOST_LASTING)] * signals
    start = np.concatenate([np.zeros(2 * names), np.full(2 * signals, 0.05)])
    found = minimize(fit.loss, start, jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"maxiter": 300})  # fmt: skip
    return SignalEffects(*_parts(found.x))


def effects_out_of_fold(rows: Labelled, settings: EffectSettings) -> NDArray[np.float64]:
    """Give each row's log-odds with the effects that other visitors teach: shape (n,)."""
    out, fold = rows.shown.base.copy(), rows.visitor % settings.folds
    for k in range(settings.folds):
        own = fold == k
        if own.any() and not own.all():
            effects = fit_effects(rows.where(~own), settings)
            out[own] = spoilt_rows(rows.where(own).shown, effects)
    return out


def spoilt_rows(shown: Shown, effects: SignalEffects) -> NDArray[np.float64]:
    """Give the log-odds of rows with their signals: shape (n,)."""
    out = np.empty(len(shown.base))
    _spoil_rows(shown, effects, out)
    return out


@njit(cache=True, nogil=True)
def corrected(base: float, step: int, effects: SignalEffects) -> float:
    """Give the unspoilt log-odds at a step of the journey; -1: at none that is known."""
    if not 0 <= step < effects.offset.shape[0]:
        return base
    near = min(max(base, -_FARTHEST), _FARTHEST)
    return float(base + effects.offset[step] + effects.slope[step] * near)


@njit(cache=True, nogil=True)
def spoilt(unspoilt: float, now: int, before: int, effects: SignalEffects) -> float:
    """Give the log-odds with signals, from those without."""
    if now == 0 and before == 0:
        return unspoilt
    odds, stay = unspoilt, 1.0
    for signal in range(effects.leaves.shape[0]):
        if (before >> signal) & 1:
            odds -= effects.lasting[signal]
        if (now >> signal) & 1:
            stay *= 1.0 - effects.leaves[signal]
    if stay == 1.0:
        return odds
    return float(odds + np.log(stay) - np.log1p(np.exp(odds) * (1.0 - stay)))


@njit(cache=True, nogil=True)
def _spoil_rows(shown: Shown, effects: SignalEffects, out: NDArray[np.float64]) -> None:
    for row in range(out.shape[0]):
        unspoilt = corrected(shown.base[row], shown.step[row], effects)
        out[row] = spoilt(unspoilt, shown.now[row], shown.before[row], effects)


class _Fit:
    """The penalised loss of rows, and its gradient."""

    def __init__(self, rows: Labelled, settings: EffectSettings) -> None:
        shown = rows.shown
        self._shown, self._positive, self._settings = shown, rows.positive, settings
        self._near = np.clip(shown.base, -_FARTHEST, _FARTHEST)
        self._now, self._before = (_bits(each) for each in (shown.now, shown.before))

    def loss(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        effects = SignalEffects(*_parts(theta))
        step, near, chosen = self._shown.step, self._near, self._settings
        odds = self._shown.base + effects.offset[step] + effects.slope[step] * near
        goes_on = 0.5 * (1.0 + np.tanh(0.5 * (odds - self._before @ effects.lasting)))
        p = np.clip(goes_on * np.exp(self._now @ np.log1p(-effects.leaves)), 1e-12, 1 - 1e-12)
        value = -np.log(np.where(self._positive, p, 1.0 - p)).sum()
        by_log_p = np.where(self._positive, -1.0, p / (1.0 - p))
        by_odds = by_log_p * (1.0 - goes_on)
        penalties = (chosen.step_ridge, chosen.slope_ridge)
        corrections = (effects.offset, effects.slope)
        for ridge, each in zip(penalties, corrections, strict=True):
            value += 0.5 * ridge * float(each @ each)
        value += chosen.leaves_rate * effects.leaves.sum()
        value += chosen.lasting_rate * effects.lasting.sum()
        names = len(effects.offset)
        gradient = [
            np.bincount(step, by_odds, names) + chosen.step_ridge * effects.offset,
            np.bincount(step, by_odds * near, names) + chosen.slope_ridge * effects.slope,
            chosen.leaves_rate - self._now.T @ by_log_p / (1.0 - effects.leaves),
            chosen.lasting_rate - self._before.T @ by_odds,
        ]
        return float(value), np.concatenate(gradient)


def _parts(theta: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    names, signals = len(EVENT_NAMES), len(EXPLAINED)
    return np.split(theta, np.cumsum([names, names, signals]))


def _bits(masks: NDArray[np.int64]) -> csr_array:
    """Give masks as a sparse matrix of ones, shape (n, signals)."""
    bits = (masks[:, None] >> np.arange(len(EXPLAINED))) & 1
    return csr_array(bits.astype(np.float64))
