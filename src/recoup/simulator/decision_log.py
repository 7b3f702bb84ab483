"""A randomised log of decisions: when a shopper may be acted on, how, and with what chance."""

import math
from itertools import pairwise
from typing import Final, Literal

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.friction.moment import CARTED, CHECKOUT, LANDED, LISTED, VIEWED
from recoup.friction.signals import SIGNALS
from recoup.interventions import INTERVENTIONS, best_for
from recoup.simulator.randomness import derive, uniform

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BROWSE, CART, TROUBLE = range(3)
NEEDS: Final = ("browse", "cart", "trouble")
PACES: Final = ("active", "quiet")
STATES: Final = tuple(f"{need} {pace}" for need in NEEDS for pace in PACES)
"""What a policy needs at least: trouble that is not over, else a cart, else neither; and whether
the shopper has been silent for :data:`QUIET_S`. In alphabetical order."""
QUIET_S: Final = 30.0
TYPING_S: Final = 20.0
"""Nobody is disturbed this long after the payment was sent off."""
LEAST, MOST = 0.02, 0.6
POPUP: Final = "search_assist"
"""What a shop shows to somebody who only browses."""

_STAGE_OF_DEPTH: Final = np.array(
    [LANDED, LISTED, LISTED, VIEWED, CARTED, CARTED, CHECKOUT, CHECKOUT, CHECKOUT, CHECKOUT]
)
_LOG, _BUSY, _PICK = 1 << 20, 1 << 21, 1 << 22


class LoggingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy that acts at random, with known chances, at points of a clock.

    A journey enters at its first visible trouble or first item in the cart, and has a decision
    point at each of ``times_s`` after that, until it buys.

    Parameters
    ----------
    executes
        Whether the acts happen in the shop. Else they are drawn and told, with the outcome they
        would have had, and the shop is left alone.
    times_s
        Seconds after the entry, increasing, the last at most 1,500.
    actions
        ``suited``: the one act that fits what is visible; ``any``: one of all that fit, a coupon
        and a pop-up among them, each as likely.
    hazard
        P(act) at an open point of somebody active and without trouble.
    trouble, quiet
        Factors on it where there is trouble, or silence. The product is held in [0.02, 0.6].
    busy
        P(something else stands in the place, so that the point is closed).
    horizon_s
        Outcomes are net values from the entry to this many seconds after it.

    Examples
    --------
    >>> LoggingSpec().chance(np.array([TROUBLE]), np.array([False])).round(2).tolist()
    [0.22]
    """

    executes: bool = False
    times_s: tuple[int, ...] = (0, 30, 60, 120, 240, 480)
    actions: Literal["suited", "any"] = "suited"
    hazard: float = 0.14
    trouble: float = 1.6
    quiet: float = 1.4
    busy: float = 0.1
    horizon_s: int = 14_400

    def chance(self, need: Ints, quiet: Bools) -> Floats:
        """Give P(act) at open points."""
        raised = np.where(need == TROUBLE, self.trouble, 1.0) * np.where(quiet, self.quiet, 1.0)
        return np.clip(self.hazard * raised, LEAST, MOST)


LONGEST_S: Final = 1_500


def check_logging(spec: LoggingSpec) -> None:
    """Check that a logging policy states nothing impossible.

    Raises
    ------
    ConfigError
        If it does.
    """
    times = spec.times_s
    rising = all(early < late for early, late in pairwise(times))
    if not times or not rising or not 0 <= times[0] <= times[-1] <= LONGEST_S:
        raise ConfigError(
            f"Expected rising seconds up to {LONGEST_S}, got {list(times)} - at `logging.times_s`",
            hint="such as [0, 30, 60, 120, 240, 480]",
        )
    if not spec.horizon_s > times[-1]:
        raise ConfigError("Expected a horizon beyond the last point - at `logging.horizon_s`")
    factors = (spec.trouble, spec.quiet)
    finite = all(0 < factor < math.inf for factor in factors)
    if not (0 <= spec.busy < 1 and 0 < spec.hazard < 1 and finite):
        raise ConfigError(
            "Expected busy in [0, 1), hazard in (0, 1), finite factors above 0 - at `logging`"
        )


def eligible(spec: LoggingSpec, signal: Ints, depth: Ints, loaded: Bools) -> Bools:
    """Say which interventions fit what is visible. Shape (n, interventions).

    Parameters
    ----------
    signal
        1 + index of the trouble that is not over, 0 for none; shape (n,).
    depth
        How far the visit came, by :data:`recoup.simulator.sight.DEPTH_OF`.
    loaded
        Whether something is in the cart.
    """
    stage = np.where(loaded, np.maximum(_STAGE_OF_DEPTH[depth], CARTED), _STAGE_OF_DEPTH[depth])
    fits = _fitting()[signal, stage, loaded.astype(np.int64)]
    if spec.actions == "suited":
        return np.asarray(fits & (np.cumsum(fits, axis=1) == 1))
    popup = (signal == 0) & ~loaded
    fits = fits.copy()
    fits[popup, _index(POPUP)] = True
    return fits


def _index(key: str) -> int:
    return [each.id for each in INTERVENTIONS].index(key)


def _fitting() -> Bools:
    """Tabulate what fits, shape (1 + signals, stages, 2, interventions)."""
    table = np.zeros((1 + len(SIGNALS), CHECKOUT + 1, 2, len(INTERVENTIONS)), np.bool_)
    for row, each in enumerate(INTERVENTIONS):
        first, last = each.stages
        if each.general:
            table[:, first : last + 1, 1, row] = True
        for code, signal in enumerate(SIGNALS, 1):
            if each in best_for(signal.id, first):
                table[code, first : last + 1, :, row] = True
    return table


@njit(cache=True, nogil=True)
def draw_log(keys: Ints, points: int) -> Floats:
    """Draw what decides a log: shape (n, points, 3), whether busy, whether acted, and which."""
    found = np.empty((keys.shape[0], points, 3), np.float64)
    for row in range(keys.shape[0]):
        for point in range(points):
            found[row, point, 0] = uniform(derive(keys[row], _BUSY), point)
            found[row, point, 1] = uniform(derive(keys[row], _LOG), point)
            found[row, point, 2] = uniform(derive(keys[row], _PICK), point)
    return found
