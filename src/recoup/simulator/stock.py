"""Stock that runs out and comes back, item by item, and shoppers who need the same again."""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.simulator.clock import DAY_US
from recoup.simulator.names import NAMES
from recoup.simulator.people import uniforms

Ints = NDArray[np.int64]

CYCLE, OUT, PHASE = range(3)
_KEY: Final = 0x5EED


class StockSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When items are out of stock: each for part of a cycle of its own, then delivered again.

    Parameters
    ----------
    out_share
        Mean share of the time that an item is out of stock, in [0, 0.5]; some up to
        twice as long, some hardly ever.
    cycle_days
        Median of the items' cycles.

    Examples
    --------
    >>> int((stock_cycles(StockSpec(0.05, 7.0))[1:, OUT] > 0).sum())
    288
    """

    out_share: float = 0.0
    cycle_days: float = 7.0


class HabitSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many buyers need the same again, and when.

    Parameters
    ----------
    share
        P(an order is one of a kind that is needed again).
    cycle_days
        Median time until then; shoppers' own cycles differ by a log-normal of sigma 0.4.
    sigma
        Of the log-normal around a shopper's own cycle.

    Examples
    --------
    >>> HabitSpec(0.6, 14.0).sigma
    0.35
    """

    share: float = 0.0
    cycle_days: float = 21.0
    sigma: float = 0.35


def check_stock(stock: StockSpec, habits: HabitSpec) -> None:
    """Check that stock and habits state nothing impossible.

    Raises
    ------
    ConfigError
        If they do.
    """
    if not (0 <= stock.out_share <= 0.5 and 0.05 <= stock.cycle_days <= 365):  # noqa: PLR2004
        raise ConfigError("Expected out_share in [0, 0.5], cycle_days in [0.05, 365] - at `stock`")
    if not (0 <= habits.share <= 1 and 0.1 <= habits.cycle_days <= 365 and 0 < habits.sigma <= 2):  # noqa: PLR2004
        raise ConfigError(
            "Expected share in [0, 1], cycle_days in [0.1, 365], sigma in (0, 2] - at `habits`"
        )


def stock_cycles(spec: StockSpec) -> Ints:
    """Give each item's cycle, time out of stock in it, and phase, microseconds; row 0 is no item.

    Shape (1 + items, 3).
    """
    keys = np.arange(len(NAMES["item"]), dtype=np.int64) + _KEY
    days = spec.cycle_days * np.exp(0.4 * (uniforms(keys, 1) - 0.5))
    out = spec.out_share * 2.0 * uniforms(keys, 2)
    cycle = (days * DAY_US).astype(np.int64)
    table = np.stack(
        [cycle, (cycle * out).astype(np.int64), (cycle * uniforms(keys, 3)).astype(np.int64)],
        axis=1,
    )
    return np.concatenate([[[1, 0, 0]], table]).astype(np.int64)


def outages(cycles: Ints, begin: int, end: int) -> list[dict[str, Any]]:
    """Tell when each item is out of stock within a run: item, from and to, microseconds UTC."""
    told = []
    for item, (cycle, out, phase) in zip(NAMES["item"], cycles[1:].tolist(), strict=True):
        if out == 0:
            continue
        start = begin - (begin + phase) % cycle
        while start < end:
            if start + out > begin:
                told.append({"item": item, "from": max(start, begin), "to": min(start + out, end)})
            start += cycle
    return told
