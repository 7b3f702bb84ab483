"""What each option at a decision point is worth, and with which probability it is taken.

Against ``never``, with p the probability that they buy anyway and l what the defect took from it:

- act(a): r * l * margin * V - cost_a - share_a * V * (p + r * l); r is the recovered share. The
  share of the order is paid also by those who would have bought anyway.
- wait(tau): the best act, but later: r fades by exp(-tau / fade), and of those who buy anyway the
  part 1 - exp(-tau / resolve) has bought by then and costs nothing. That is what waiting learns.
- never: 0.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.friction.signals import SIGNALS
from recoup.friction.waiting import LOOKS_S
from recoup.interventions import INTERVENTIONS, eligible

ACTS: Final = len(INTERVENTIONS)
WAITS_S: Final = LOOKS_S
"""The finite grid of waits, in seconds: they end where a lasting wait is looked at again."""
FIRST_ACT: Final = 1 + len(WAITS_S)
OPTIONS: Final = FIRST_ACT + ACTS
"""Option codes: 0 never, then the waits, then the interventions in the catalogue's order."""

MARGIN, FLOOR, TEMPERATURE, RESOLVE_S, FADE, LEAVE_S = range(6)
"""Positions in the settings array, float64 (6,); FADE is a share of the deadline."""

_MICROS_PER_S: Final = 1e6
_DEADLINE: Final = 4
_UNEXPLAINED: Final = len(SIGNALS)
_WAITS: Final = np.array(WAITS_S, np.float64)


class Tables(NamedTuple):
    """What the policy believes and allows, frozen within a batch; m interventions, k + 2 reasons.

    ``answers`` bool (m, k + 2), ``rules`` int64 (m, 5), ``unexplained_at`` int64 (m,) and ``costs``
    float64 (m, 2) are the catalogue's (:class:`recoup.interventions.Limits`); ``recovered`` float64
    (m, k + 2) the mean recovered shares; ``settings`` float64 (6,).
    """

    answers: NDArray[np.bool_]
    rules: NDArray[np.int64]
    unexplained_at: NDArray[np.int64]
    costs: NDArray[np.float64]
    recovered: NDArray[np.float64]
    settings: NDArray[np.float64]


@njit(cache=True, nogil=True)
def value_options(
    tables: Tables,
    shopper: tuple[float, float, float],
    reason: int,
    allowed: NDArray[np.bool_],
    codes: NDArray[np.int64],
    values: NDArray[np.float64],
) -> int:
    """Fill the codes and values of the eligible options and give their number.

    Parameters
    ----------
    shopper
        P(buys anyway), what the defect took from it, both in [0, 1], and the order's value if they
        buy, micro-units.
    reason
        Column of ``tables.recovered``.
    allowed
        Which interventions are eligible, shape (m,).
    codes, values
        Outputs, shape (OPTIONS,); values in micro-units, against ``never``.
    """
    codes[0], values[0] = 0, 0.0
    count = 1
    for index in range(_WAITS.shape[0]):
        best = -np.inf
        for act in range(ACTS):
            in_time = _WAITS[index] * _MICROS_PER_S < tables.rules[act, _DEADLINE]
            if allowed[act] and in_time:
                best = max(best, _net(tables, shopper, reason, act, _WAITS[index]))
        if best > -np.inf:
            codes[count], values[count] = 1 + index, best
            count += 1
    for act in range(ACTS):
        if allowed[act]:
            codes[count] = FIRST_ACT + act
            values[count] = _net(tables, shopper, reason, act, 0.0)
            count += 1
    return count


@njit(cache=True, nogil=True)
def _net(
    tables: Tables, shopper: tuple[float, float, float], reason: int, act: int, wait_s: float
) -> float:
    anyway, lost, value = shopper
    settings = tables.settings
    fade_s = settings[FADE] * tables.rules[act, _DEADLINE] / _MICROS_PER_S
    saved = tables.recovered[act, reason] * np.exp(-wait_s / fade_s) * lost
    still = anyway * np.exp(-wait_s / settings[RESOLVE_S])
    shown = tables.costs[act, 0] * np.exp(-wait_s / settings[LEAVE_S])
    share = tables.costs[act, 1] * value
    return float(saved * settings[MARGIN] * value - shown - share * (still + saved))


@njit(cache=True, nogil=True)
def allow(
    tables: Tables,
    stage: int,
    now: int,
    reason: tuple[int, int],
    acted_at: NDArray[np.int64],
    allowed: NDArray[np.bool_],
) -> bool:
    """Fill which interventions may be shown now, and say whether there is any.

    Parameters
    ----------
    reason
        Column of ``tables.answers`` (behind the signals: an unexplained drop, hesitation), and when
        it was met.
    acted_at
        When this visitor had each, newest first: shape (m, 3).
    allowed
        Output, shape (m,).
    """
    any_allowed = False
    column, reason_at = reason
    for act in range(ACTS):
        answered = tables.answers[act, column]
        answered &= column != _UNEXPLAINED or stage >= tables.unexplained_at[act]
        allowed[act] = answered and eligible(
            tables.rules[act], stage, now, reason_at, acted_at[act]
        )
        any_allowed |= allowed[act]
    return any_allowed


@njit(cache=True, nogil=True)
def propensities(
    values: NDArray[np.float64], floor: float, temperature: float, out: NDArray[np.float64]
) -> None:
    """Fill the probability of each option: a floor each, the rest by softmax of the values.

    Parameters
    ----------
    values
        Micro-units, shape (c,).
    floor
        Least probability of an option; at most 1 / c is used.
    temperature
        Micro-units; infinite for a uniform draw.
    """
    count = values.shape[0]
    least = min(floor, 1.0 / count)
    total = 0.0
    best = values.max()
    for index in range(count):
        out[index] = np.exp((values[index] - best) / temperature)
        total += out[index]
    for index in range(count):
        out[index] = least + (1.0 - count * least) * out[index] / total


@njit(cache=True, nogil=True)
def draw(probabilities: NDArray[np.float64], at: float) -> int:
    """Give the index whose cumulative interval holds ``at`` in (0, 1).

    Examples
    --------
    >>> draw(np.array([0.25, 0.75]), 0.2), draw(np.array([0.25, 0.75]), 0.3)
    (0, 1)
    """
    total = 0.0
    for index in range(probabilities.shape[0]):
        total += probabilities[index]
        if at < total:
            return index
    return len(probabilities) - 1
