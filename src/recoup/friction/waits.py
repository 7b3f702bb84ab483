"""The rows of hesitation: one per step of a journey, with the wait until the next one."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import EVENT_NAMES, MICROS, EventBatch, encode
from recoup.friction.intent_rows import MOST_ROWS, STRANGERS, Period, Sample, Store, chain
from recoup.friction.moment import NO_ROWS, STAGES, furthest_stage
from recoup.friction.steps import is_page, is_step
from recoup.non_shoppers import NonShoppers, Rules

LIMIT_S: Final = 1_800.0
"""A wait that has lasted this long is over: the session has ended without another step."""

CONTEXT: Final = (
    "event", "page", "item", "category", "country", "channel", "traffic_source", "medium",
    "device", "browser", "os",
)  # fmt: skip
"""Event columns that the model encodes by itself, beside the features."""

_META: Final = ("ts", "seq", "key", "event", "element", "visitor")
_STATE: Final = len(STAGES)


class WaitRows(msgspec.Struct, frozen=True):
    """Steps in order of (session, time): n of them.

    Parameters
    ----------
    names, values
        Features by name, and their values as of the step, shape (n, d).
    context
        Values of :data:`CONTEXT`, shape (n, k).
    wait_s
        Seconds until the next step, or until the wait was no longer seen, in (0, 1800].
    gone_on
        Whether the next step was seen; the others are censored. Shape (n,).
    state
        Of the journey: see :func:`state_name`.
    page
        Whether the step opened a page.
    session, visitor, ts, key
        Whose step it is, when, and the event's key.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    context: NDArray[np.int64]
    wait_s: NDArray[np.float64]
    gone_on: NDArray[np.bool_]
    state: NDArray[np.int64]
    page: NDArray[np.bool_]
    session: NDArray[np.int64]
    visitor: NDArray[np.int64]
    ts: NDArray[np.int64]
    key: NDArray[np.int64]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.wait_s)

    def where(self, keep: NDArray[np.bool_]) -> "WaitRows":
        """Keep some of the rows."""
        arrays = self.__struct_fields__[1:]
        return WaitRows(self.names, *(getattr(self, name)[keep] for name in arrays))


def state_of(event: NDArray[Any], stage: NDArray[Any]) -> NDArray[np.int64]:
    """Give the state of a journey: what it waits on, and its furthest stage so far. Shape (n,)."""
    return np.asarray(event.astype(np.int64) * _STATE + stage)


def state_name(state: int) -> str:
    """Name a state as ``stage/event``.

    Examples
    --------
    >>> from recoup.events import CODE
    >>> state_name(int(state_of(np.array([CODE["view_item"]]), np.array([3]))[0]))
    'cart/view_item'
    """
    event, stage = divmod(state, _STATE)
    return f"{STAGES[stage]}/{EVENT_NAMES[event]}"


def event_of(state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the code of the event that a state waits on. Shape (n,)."""
    return state // _STATE


def collect_waits(
    batches: Iterable[EventBatch],
    store: Store,
    period: Period,
    *,
    history: Iterable[EventBatch] = (),
    rules: Rules | None = None,
    end: int | None = None,
    most_rows: int = MOST_ROWS,
) -> WaitRows:
    """Fold a log through a feature store and keep the waits that begin in a period.

    Of steps at the same moment the last one counts: together they are one. A wait that is still
    on when the log ends is censored there, and any other at :data:`LIMIT_S`.

    Parameters
    ----------
    store
        Empty; folded through the history and the log.
    rules
        By which bots, monitors, staff and test orders are recognised; their sessions are left out.
    end
        When the log ends, int64 microseconds UTC; its latest event where it is None.
    most_rows
        Events held in memory; a log that has more is sampled by visitor.

    Raises
    ------
    ModelError
        If the period holds no step of a shopper.
    """
    sample, latest = Sample(most_rows), 0
    non_shoppers, strangers = NonShoppers(rules), [np.zeros(0, np.int64)]
    wanted = tuple(dict.fromkeys((*store.columns, *_META, *CONTEXT)))
    for past, batch in chain(history, batches):
        arrays: dict[str, NDArray[Any]] = dict(encode(batch, wanted))
        rows = store.step(arrays)
        seen = non_shoppers.step(batch, rows.session)
        strangers.append(np.unique(rows.session[seen.mask]))
        valid = ~np.isin(rows.status, NO_ROWS)
        told = {name: arrays[name][valid] for name in _META}
        step = is_step(told["event"], told["element"])
        kept = step & period.contains(told["ts"]) & (not past)
        told |= {"session": rows.session[valid], "step": step, "kept": kept}
        told["context"] = np.column_stack([arrays[name][valid] for name in CONTEXT])
        sample.add(told, rows.values[valid])
        latest = max(latest, int(arrays["ts"].max()))
    joined, values = sample.joined()
    if not len(values):
        raise ModelError(
            "Expected pages or steps in the period, got none", hint="see --from and --until"
        )
    measured = _measure(store.names, values, joined, latest if end is None else end)
    kept_waits = measured.where(~np.isin(measured.session, np.concatenate(strangers)))
    if not len(kept_waits):
        raise ModelError("Expected pages or steps of shoppers, got none", hint=STRANGERS)
    return kept_waits


def _measure(
    names: tuple[str, ...], values: NDArray[np.float64], told: dict[str, NDArray[Any]], end: int
) -> WaitRows:
    """Order the events, and measure from each step to the next one of its session."""
    order = np.lexsort([told[name] for name in ("key", "seq", "ts", "session")])
    stage = furthest_stage(told["event"][order], told["session"][order])
    steps = told["step"][order]
    order, stage = order[steps], stage[steps]
    session, ts = told["session"][order], told["ts"][order]
    follows = np.r_[session[1:] == session[:-1], False]
    gap = np.r_[ts[1:] - ts[:-1], 0]
    wait = np.where(follows, gap, np.maximum(end - ts, 1)) / MICROS
    keep = told["kept"][order] & ~(follows & (gap == 0))
    row = np.cumsum(told["kept"]) - 1
    at = order[keep]
    event = told["event"][at]
    return WaitRows(
        names=names,
        values=values[row[at]],
        context=told["context"][at].astype(np.int64),
        wait_s=np.minimum(wait[keep], LIMIT_S),
        gone_on=follows[keep] & (wait[keep] < LIMIT_S),
        state=state_of(event, stage[keep]),
        page=is_page(event, told["element"][at]),
        session=told["session"][at].astype(np.int64),
        visitor=told["visitor"][at].astype(np.int64),
        ts=told["ts"][at].astype(np.int64),
        key=told["key"][at].astype(np.int64),
    )
