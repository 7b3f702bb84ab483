"""What an intervention does to a journey that is still open."""

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.simulator import layout as at
from recoup.simulator.moves import ANNOY, RESCUE, go, leave
from recoup.simulator.randomness import uniform
from recoup.simulator.world import Remedies

ACTS, IN_TIME, RECOVERED, ANNOYED = range(4)
LEDGER: Final = ("acts", "in_time", "brought_back", "driven_away")
"""Counts per intervention: made, while the visit was open, and what they changed."""


@njit(cache=True, nogil=True)
def act_on(
    states: NDArray[np.int64],
    gaps: NDArray[np.float64],
    remedies: Remedies,
    which: NDArray[np.int64],
    when: NDArray[np.int64],
    ledger: NDArray[np.int64],
) -> None:
    """Show each visitor of ``states`` an intervention; -1 in ``which`` leaves one alone."""
    for row in range(states.shape[0]):
        if which[row] >= 0:
            act(states[row], gaps, remedies, which[row], when[row], ledger)


@njit(cache=True, nogil=True)
def act(
    own: NDArray[np.int64],
    gaps: NDArray[np.float64],
    remedies: Remedies,
    which: int,
    when: int,
    ledger: NDArray[np.int64],
) -> None:
    """Show an intervention to a visitor at a moment, microseconds UTC.

    One who is about to leave for a cause that the intervention answers stays with the stated
    probability, which fades with the time since the cause. One who would have gone on may be
    annoyed. One who has left is not reached; the act is paid all the same.
    """
    ledger[which, ACTS] += 1
    own[at.COST] += remedies.cost_micros[which]
    if own[at.STATE] in (at.ARRIVE, at.LAND) or own[at.NEXT_TS] >= own[at.END]:
        return
    ledger[which, IN_TIME] += 1
    own[at.OFFER] |= 1 << which
    own[at.OFFER_PPM] += remedies.offer_ppm[which]
    if own[at.STATE] == at.LEAVE:
        _bring_back(own, gaps, remedies, which, when, ledger)
    elif uniform(own[at.KEY], ANNOY + which) < _annoyance(own, remedies, which):
        ledger[which, ANNOYED] += 1
        leave(own, at.LEAVE)


@njit(cache=True, nogil=True)
def _annoyance(own: NDArray[np.int64], remedies: Remedies, which: int) -> float:
    """Give P(one who would have gone on leaves); who takes offers badly is annoyed more easily."""
    browses = own[at.LOADED] == 0
    chance = remedies.annoys_browsing[which] if browses else remedies.annoys[which]
    return float(chance) * math.exp(-remedies.spread[which] * own[at.TRAIT] * at.MOOD_UNIT)


@njit(cache=True, nogil=True)
def _bring_back(
    own: NDArray[np.int64],
    gaps: NDArray[np.float64],
    remedies: Remedies,
    which: int,
    when: int,
    ledger: NDArray[np.int64],
) -> None:
    cause = own[at.CAUSE]
    if own[at.WOULD] == at.LEAVE or (cause == at.WHIM and own[at.LOADED] == 0):
        return
    delay_s = max(0.0, (when - own[at.CAUSE_TS]) / 1e6)
    fading = math.exp(-delay_s / remedies.fade_s[which])
    spread = remedies.spread[which]
    tilt = spread * (own[at.TRAIT] * at.MOOD_UNIT - spread / 2.0)
    tilt += remedies.warm[which] * own[at.MOOD] * at.MOOD_UNIT
    share = remedies.recovered[which, cause] * fading * math.exp(tilt)
    if uniform(own[at.KEY], RESCUE + which) >= share:
        return
    ledger[which, RECOVERED] += 1
    if cause != at.WHIM:
        own[at.SPARED] |= 1 << cause
    own[at.NEXT_TS] = when
    go(own, gaps, own[at.WOULD])
