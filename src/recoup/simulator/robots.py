"""Visitors who do not shop: monitors and crawlers, by script."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import CODE, MICROS
from recoup.simulator import catalogue
from recoup.simulator import layout as at
from recoup.simulator.names import NAMES

Ints = NDArray[np.int64]

Kind = Literal["monitor", "checkout_monitor", "crawler"]
SESSION_S: Final = 1_800
"""Runs of a script that are closer than this belong to one session."""
_AWAY_S: Final = {"monitor": 300, "checkout_monitor": 900, "crawler": 14_400}
_ITEM: Final = 1


class RobotSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Visitors who do not shop.

    Parameters
    ----------
    kind
        ``monitor`` loads the home page; ``checkout_monitor`` puts an item in the cart, begins the
        checkout and never buys; ``crawler`` opens every item, two seconds apart.
    count
        How many of it, 1 to 1,000.
    every_s
        Seconds between two runs; None: 300, 900 and 14,400.

    Examples
    --------
    >>> RobotSpec("monitor").period_s
    300
    """

    kind: Kind
    count: int = 1
    every_s: int | None = None

    @property
    def period_s(self) -> int:
        """Seconds between two runs."""
        return _AWAY_S[self.kind] if self.every_s is None else self.every_s


def check_robot(spec: RobotSpec) -> None:
    """Check that a non-shopper states nothing impossible.

    Raises
    ------
    ConfigError
        If it does.
    """
    place = f"non-shopper `{spec.kind}`"
    if not 1 <= spec.count <= 1_000:  # noqa: PLR2004
        raise ConfigError(f"Expected 1 to 1,000 of it, got {spec.count} - at {place}")
    least = int(_script(spec.kind)[-1, at.E_TS] // MICROS) + 1
    if not least <= spec.period_s:
        raise ConfigError(
            f"Expected at least {least} s between runs, got {spec.period_s} - at {place}"
        )


def robot_people(specs: Sequence[RobotSpec]) -> Ints:
    """Give the circumstances of those who do not shop, one row each: a desktop in a data centre."""
    stated = {"device": "desktop", "browser": "Chrome", "os": "Windows", "channel": "direct",
              "country": "DE", "region": "DE-BE"}  # fmt: skip
    codes = [NAMES[name].index(value) + 1 for name, value in stated.items()]
    return np.tile([*codes, 1], (sum(spec.count for spec in specs), 1)).astype(np.int64)


class Robots:
    """Those who do not shop, and what they send.

    Parameters
    ----------
    specs
        Who they are; each begins its runs at another moment.
    begin
        Of the run, microseconds UTC.
    first
        Number of the first, behind all visitors.
    """

    def __init__(self, specs: Sequence[RobotSpec], begin: int, first: int) -> None:
        kinds = [spec for spec in specs for _ in range(spec.count)]
        self.kinds = [spec.kind for spec in kinds]
        self.visitors = list(range(first, first + len(kinds)))
        self._begin = begin
        self._scripts = [(_script(spec.kind), spec.period_s) for spec in kinds]

    def between(self, now: int, until: int) -> tuple[Ints, Ints]:
        """Give their events from ``now`` to before ``until``, and the item lines."""
        rows = [self._rows(index, now, until) for index in range(len(self._scripts))]
        events = np.concatenate([np.zeros((0, at.EVENT_WIDTH), np.int64), *rows])
        carts = np.flatnonzero(np.isin(events[:, at.E_EVENT], _WITH_LINES))
        lines = np.tile([0, 1, _ITEM, 1, 1, 0], (len(carts), 1)).astype(np.int64)
        lines[:, at.L_EVENT] = carts
        return events, lines

    def _rows(self, index: int, now: int, until: int) -> Ints:
        script, period_s = self._scripts[index]
        begin = self._begin + (7 + 13 * index % period_s) * MICROS
        period, length = period_s * MICROS, len(script)
        runs = np.arange(max(0, (now - begin) // period - 1), max(0, (until - begin) // period + 1))
        events = np.tile(script, (len(runs), 1))
        run = np.repeat(runs, length)
        events[:, at.E_TS] += begin + run * period
        events[:, at.E_VISITOR] = self.visitors[index]
        events[:, at.E_NUMBER] = 1 + run * length + np.tile(np.arange(length), len(runs))
        events[:, at.E_VISIT] = 1 if period_s < SESSION_S else 1 + run
        events[:, at.E_VISIT_NUMBER] = events[:, at.E_VISIT]
        events[:, at.E_NEW] = events[:, at.E_VISIT] == 1
        inside = (now <= events[:, at.E_TS]) & (events[:, at.E_TS] < until)
        return np.asarray(events[inside])


_WITH_LINES: Final = [CODE["view_cart"], CODE["begin_checkout"]]


def _script(kind: str) -> Ints:
    """Give one run: rows of events, times from 0."""
    home = ("page_view", catalogue.HOME, 0)
    item = ("view_item", catalogue.ITEM_PAGE + _ITEM, _ITEM)
    if kind == "monitor":
        steps = [home]
    elif kind == "crawler":
        items = range(1, len(NAMES["item"]) + 1)
        steps = [("view_item", catalogue.ITEM_PAGE + each, each) for each in items]
    else:
        steps = [
            home,
            item,
            ("add_to_cart", catalogue.ITEM_PAGE + _ITEM, _ITEM),
            ("view_cart", catalogue.CART_PAGE, 0),
            ("begin_checkout", catalogue.CHECKOUT_PAGE, 0),
        ]
    rows = np.full((len(steps), at.EVENT_WIDTH), at.NOTHING, np.int64)
    rows[:, : at.CODES] = 0
    rows[:, at.E_TS] = np.arange(len(steps)) * 2 * MICROS
    rows[:, at.E_BUILD] = 1
    goods = catalogue.goods().items
    for row, (name, page, number) in zip(rows, steps, strict=True):
        row[at.E_EVENT], row[at.E_PAGE], row[at.E_ITEM] = CODE[name], page, number
        row[at.E_CATEGORY] = goods[number, catalogue.ITEM_CATEGORY]
        if number:
            row[at.E_PRICE] = goods[number, catalogue.ITEM_PRICE]
        if name == "page_view":
            row[at.E_LATENCY] = 250
        if name in ("add_to_cart", "view_cart", "begin_checkout"):
            row[at.E_VALUE] = goods[_ITEM, catalogue.ITEM_PRICE]
        if name == "add_to_cart":
            row[at.E_QUANTITY] = 1
        if name == "view_item":
            row[at.E_IN_STOCK] = 1
    return rows
