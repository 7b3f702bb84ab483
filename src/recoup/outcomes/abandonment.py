"""Abandonment: carts and checkouts that neither a purchase nor a return followed.

A visitor's cart opens with the first event of a cart or checkout step, and closes with a purchase.
It is abandoned when its visitor does nothing at all for the horizon. Who leaves and comes back
within it, as coupon hunters do, has abandoned nothing.

Events are folded in their own order, ``(ts, seq, key)``, once the watermark has left them behind by
the allowed lateness; so neither the order of arrival nor the size of the batches changes a number.
"""

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import ConfigError, SnapshotError
from recoup.events import CODE, MICROS, TIMESTAMP

VERSION: Final = 1

STEPS: Final = ("cart", "checkout", "shipping", "payment")
"""The last step reached, in the order of a checkout."""

STEP_OF: Final = {
    "add_to_cart": 0,
    "view_cart": 0,
    "begin_checkout": 1,
    "add_shipping_info": 2,
    "add_payment_info": 3,
    "payment_error": 3,
}
"""Event name -> the step that it reaches."""

PASSIVE: Final = ("delivery", "refund")
"""Events that happen to a visitor, and are no sign of a return."""

ABANDONMENT_SCHEMA: Final = pl.Schema(
    {
        "visitor": pl.Int64(),
        "opened": TIMESTAMP,
        "left": TIMESTAMP,
        "abandoned_at": TIMESTAMP,
        "step": pl.String(),
    }
)
"""One row per abandoned cart; ``visitor`` is the hash of the visitor's key."""


class Carts(msgspec.Struct, frozen=True):
    """What became of the carts.

    Parameters
    ----------
    opened, purchased
        How many there were, and how many were bought.
    abandoned
        Step -> carts left there.
    waiting
        Carts whose horizon has not passed: neither bought nor abandoned.
    """

    opened: int = 0
    purchased: int = 0
    abandoned: dict[str, int] = {}
    waiting: int = 0


class _Cart(msgspec.Struct, array_like=True):
    opened: int
    last: int
    step: int


class _State(msgspec.Struct, frozen=True, array_like=True):
    version: int
    settings: tuple[int, int]
    watermark: int | None
    carts: dict[int, _Cart]
    counts: tuple[int, int, dict[int, int]]
    unsettled: bytes


class Abandonment:
    """The stage that counts carts and checkouts left for good, by the last step reached.

    Parameters
    ----------
    horizon_s
        Silence after which a cart is abandoned, in seconds.
    lateness_s
        The allowed lateness, in seconds, as the intake's.

    Raises
    ------
    ConfigError
        If the horizon is not positive, or the lateness negative.

    Examples
    --------
    >>> from recoup.events import encode
    >>> from recoup.testing import random_batch
    >>> batch = random_batch(2000, seed=1, visitors=400)
    >>> stage = Abandonment(horizon_s=600, lateness_s=60)
    >>> left = stage.step(encode(batch, stage.columns))
    >>> left.height, stage.carts().opened
    (267, 393)
    """

    name = "abandonment"
    columns: tuple[str, ...] = ("ts", "seq", "key", "visitor", "event")
    """What :meth:`step` reads, as ``recoup.events.encode`` gives it."""

    def __init__(self, *, horizon_s: float = 86_400.0, lateness_s: float = 3600.0) -> None:
        if not 0 < horizon_s < float("inf") or not 0 <= lateness_s < float("inf"):
            raise ConfigError(
                "Expected a positive horizon_s and a lateness_s of at least 0, got "
                f"{horizon_s} and {lateness_s}"
            )
        self.horizon_s = horizon_s
        self._horizon = round(horizon_s * MICROS)
        self._lateness = round(lateness_s * MICROS)
        self._take_up(None, {}, np.empty((0, len(self.columns)), np.int64))
        self._opened = self._purchased = 0
        self._abandoned: Counter[int] = Counter()

    def _take_up(
        self, watermark: int | None, carts: dict[int, _Cart], unsettled: NDArray[np.int64]
    ) -> None:
        self._watermark = watermark
        self._carts = carts
        self._unsettled = unsettled
        self._due = [(cart.last, visitor) for visitor, cart in carts.items()]
        heapq.heapify(self._due)

    def step(self, columns: Mapping[str, NDArray[np.generic]], /) -> pl.DataFrame:
        """Fold events, and give the carts that are now known to be abandoned.

        Parameters
        ----------
        columns
            The columns of :attr:`columns`, each of shape (n,).

        Returns
        -------
        Frame of :data:`ABANDONMENT_SCHEMA`.
        """
        events = np.column_stack([columns[name].astype(np.int64) for name in self.columns])
        return self._fold(events, int(events[:, 0].max()) if len(events) else None)

    def tick(self, now: int) -> pl.DataFrame:
        """Move the watermark to a time at least, and give what is then known to be abandoned.

        Parameters
        ----------
        now
            Int64 microseconds UTC.
        """
        return self._fold(np.empty((0, len(self.columns)), np.int64), now)

    def carts(self) -> Carts:
        """Count the carts so far, with those of events that are not settled yet."""
        if len(self._unsettled):
            ahead = Abandonment(horizon_s=self.horizon_s, lateness_s=0.0)
            ahead._restore(self._state())
            ahead._settle(ahead._unsettled)
            ahead._unsettled = self._unsettled[:0]
            return ahead.carts()
        abandoned = {STEPS[step]: count for step, count in sorted(self._abandoned.items())}
        return Carts(self._opened, self._purchased, abandoned, len(self._carts))

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes, the same for any size of batches."""
        return msgspec.msgpack.encode(self._state())

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of other lengths of time.
        """
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"Expected a snapshot of abandonment, got {error}") from error
        if (found.version, found.settings) != (VERSION, (self._horizon, self._lateness)):
            raise SnapshotError(
                f"Expected version {VERSION}, horizon {self._horizon} us and lateness "
                f"{self._lateness} us, got {found.version} and {found.settings}",
                hint="restore with the settings that the snapshot was taken with",
            )
        self._restore(found)

    def _restore(self, state: _State) -> None:
        unsettled = np.frombuffer(state.unsettled, np.int64).reshape(-1, len(self.columns))
        carts = {visitor: msgspec.structs.replace(cart) for visitor, cart in state.carts.items()}
        self._take_up(state.watermark, carts, unsettled)
        self._opened, self._purchased, abandoned = state.counts
        self._abandoned = Counter(abandoned)

    def _state(self) -> _State:
        return _State(
            VERSION,
            (self._horizon, self._lateness),
            self._watermark,
            dict(sorted(self._carts.items())),
            (self._opened, self._purchased, dict(sorted(self._abandoned.items()))),
            self._unsettled[_order(self._unsettled)].tobytes(),
        )

    def _fold(self, events: NDArray[np.int64], now: int | None) -> pl.DataFrame:
        self._unsettled = np.concatenate([self._unsettled, events])
        if now is None or (self._watermark is not None and now < self._watermark):
            return _frame([])
        self._watermark = now
        settled = self._unsettled[:, 0] < now - self._lateness
        left = self._settle(self._unsettled[settled])
        self._unsettled = self._unsettled[~settled]
        return _frame(left + self._expire(now - self._lateness))

    def _settle(self, events: NDArray[np.int64]) -> list[tuple[int, int, int, int, str]]:
        """Fold events that nothing can precede any more, in their own order."""
        left = []
        events = events[~np.isin(events[:, 4], _PASSIVE_CODES)]
        concerned = np.isin(events[:, 4], _CODES)
        buyers = np.unique(events[concerned, 3])
        holders = np.fromiter(self._carts, np.int64, len(self._carts))
        rows = events[np.isin(events[:, 3], np.union1d(buyers, holders))]
        for ts, _, _, visitor, code in rows[_order(rows)].tolist():
            left += self._expire(ts)
            self._move(ts, visitor, code)
        return left

    def _move(self, ts: int, visitor: int, code: int) -> None:
        """Fold one event into its visitor's cart."""
        cart = self._carts.get(visitor)
        step = _STEP_OF_CODE.get(code)
        if code == CODE["purchase"]:
            self._purchased += self._carts.pop(visitor, None) is not None
        elif cart is not None:
            cart.last = ts
            cart.step = max(cart.step, -1 if step is None else step)
        elif step is not None:
            self._carts[visitor] = _Cart(ts, ts, step)
            self._opened += 1
            heapq.heappush(self._due, (ts, visitor))

    def _expire(self, now: int) -> list[tuple[int, int, int, int, str]]:
        """Give up the carts whose visitor was silent for the horizon before a time."""
        left = []
        while self._due and self._due[0][0] + self._horizon < now:
            last, visitor = heapq.heappop(self._due)
            cart = self._carts.get(visitor)
            if cart is None:
                continue
            if cart.last != last:
                heapq.heappush(self._due, (cart.last, visitor))
                continue
            del self._carts[visitor]
            self._abandoned[cart.step] += 1
            left.append((visitor, cart.opened, last, last + self._horizon, STEPS[cart.step]))
        return left


_STEP_OF_CODE: Final = {CODE[name]: step for name, step in STEP_OF.items()}
_PASSIVE_CODES: Final = np.array([CODE[name] for name in PASSIVE], np.int64)
_CODES: Final = np.array(sorted(_STEP_OF_CODE), np.int64)


def _order(events: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the rows in the order of events: (ts, seq, key)."""
    return np.lexsort((events[:, 2], events[:, 1], events[:, 0]))


def _frame(left: list[tuple[int, int, int, int, str]]) -> pl.DataFrame:
    physical = {
        name: pl.Int64() if dtype == TIMESTAMP else dtype
        for name, dtype in ABANDONMENT_SCHEMA.items()
    }
    return pl.DataFrame(left, physical, orient="row").cast(dict(ABANDONMENT_SCHEMA))  # type: ignore[arg-type]
