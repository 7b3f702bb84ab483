"""What is known at a moment of a journey: an event's row, its intent, signals and funnel stage."""

from typing import Final, Protocol

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.events import CODE, EVENT_NAMES, EventBatch, take

LANDED, LISTED, VIEWED, CARTED, CHECKOUT, PURCHASED = range(6)
STAGES: Final = ("landed", "listing", "item", "cart", "checkout", "purchased")
"""Names of the funnel stages; a stage's position is its code."""

_STAGE_EVENTS: Final = {
    LISTED: ("search", "view_search_results", "filter_results", "view_item_list", "select_item"),
    VIEWED: ("view_item", "add_to_wishlist"),
    CARTED: ("add_to_cart", "remove_from_cart", "view_cart"),
    CHECKOUT: ("begin_checkout", "add_shipping_info", "add_payment_info", "payment_error"),
    PURCHASED: ("purchase",),
}


def _stage_of_names() -> NDArray[np.int8]:
    stages = np.zeros(len(EVENT_NAMES), np.int8)
    for stage, names in _STAGE_EVENTS.items():
        for name in names:
            stages[CODE[name]] = stage
    return stages


STAGE_OF_CODE: Final = _stage_of_names()
"""Event code -> the funnel stage that such an event shows. Shape (names,)."""

NO_ROWS: Final = (2, 3)
"""Statuses of events that are no rows to learn from: repeated, too late."""


class Rows(Protocol):
    """What a moment needs of feature rows: ``recoup.features.FeatureRows`` has it."""

    @property
    def values(self) -> NDArray[np.float64]:
        """Feature values, shape (n, d)."""
        ...

    @property
    def session(self) -> NDArray[np.int64]:
        """Stable session keys, shape (n,)."""
        ...

    @property
    def session_start(self) -> NDArray[np.int64]:
        """When each session began, int64 microseconds UTC, shape (n,)."""
        ...

    @property
    def status(self) -> NDArray[np.int8]:
        """0 in order, 1 late, 2 repeated, 3 too late; shape (n,)."""
        ...


class Kept(msgspec.Struct, frozen=True):
    """Some feature rows out of a batch's, with what a moment needs of them."""

    values: NDArray[np.float64]
    session: NDArray[np.int64]
    session_start: NDArray[np.int64]
    status: NDArray[np.int8]


class Moment(msgspec.Struct, frozen=True):
    """A batch of events with all that was known as of each of them.

    Parameters
    ----------
    batch
        The events, n of them.
    rows
        Their feature rows.
    names
        Names of the features, one per column of ``rows.values``.
    intent
        P(purchase later in this session), shape (n,).
    signals
        Which signals each event shows, bool, shape (n, len(SIGNALS)).
    stage
        Furthest funnel stage of the session, the event included: shape (n,), 0 to 5.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from recoup.events import EventBatch, empty_frames
    >>> none = np.zeros(0)
    >>> rows = SimpleNamespace(
    ...     values=np.zeros((0, 1)), session=none, session_start=none, status=none
    ... )
    >>> len(Moment(EventBatch(*empty_frames()), rows, ("a",), none, np.zeros((0, 1), bool), none))
    0
    """

    batch: EventBatch
    rows: Rows
    names: tuple[str, ...]
    intent: NDArray[np.float64]
    signals: NDArray[np.bool_]
    stage: NDArray[np.int8]

    def __len__(self) -> int:
        """Count the events."""
        return len(self.batch)

    def where(self, kept: NDArray[np.bool_]) -> "Moment":
        """Keep some of the events, in their order; ``kept`` is of shape (n,)."""
        if kept.all():
            return self
        at = np.flatnonzero(kept)
        rows = Kept(*(getattr(self.rows, name)[at] for name in Kept.__struct_fields__))
        arrays = (self.intent[at], self.signals[at], self.stage[at])
        return Moment(take(self.batch, at), rows, self.names, *arrays)


def furthest_stage(
    codes: NDArray[np.int64],
    session: NDArray[np.int64],
    before: NDArray[np.int8] | None = None,
) -> NDArray[np.int8]:
    """Give the furthest stage of each event's session, up to and including the event.

    Parameters
    ----------
    codes
        Event codes in order of the journeys, shape (n,).
    session
        Session keys, shape (n,).
    before
        Furthest stage of each event's session before this batch, shape (n,); zeros if None.

    Examples
    --------
    >>> codes = np.array([CODE["view_item"], CODE["purchase"], CODE["page_view"]])
    >>> furthest_stage(codes, np.array([7, 7, 7])).tolist()
    [2, 5, 5]
    """
    own = STAGE_OF_CODE[codes]
    if before is not None:
        own = np.maximum(own, before)
    order = np.argsort(session, kind="stable")
    reached = np.empty_like(own)
    _running_maximum(session, own, order, reached)
    return reached


@njit(cache=True, nogil=True)
def _running_maximum(
    session: NDArray[np.int64],
    own: NDArray[np.int8],
    order: NDArray[np.int64],
    reached: NDArray[np.int8],
) -> None:
    best = np.int8(0)
    for position in range(order.shape[0]):
        row = order[position]
        if position == 0 or session[row] != session[order[position - 1]]:
            best = np.int8(0)
        best = max(best, own[row])
        reached[row] = best
