"""Sessions as rows: when they began, who came, whom they met, and what they bought."""

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from recoup.events import EVENT_SCHEMA, MICROS, EventBatch

ATTRIBUTES: Final = ("device", "browser", "os", "channel", "country", "region", "build")
"""Columns that a session has one value of: the first one told."""

_NEVER: Final = int(np.iinfo(np.int64).min)


def session_table(
    batches: Iterable[EventBatch], entity: Mapping[str, str], *, gap_s: float = 1800.0
) -> pl.DataFrame:
    """Give one row a session.

    Parameters
    ----------
    batches
        Admitted events, in any order.
    entity
        Attribute -> value, such as ``{"browser": "Safari"}``: ``touched`` says whether some event
        of the session has each of them. Sessions in which an attribute was never told are left
        out: who never came to pay says nothing of a payment method.
    gap_s
        Silence that ends a session, where the source has none of its own.

    Returns
    -------
    ``ts``, ``visitor``, :data:`ATTRIBUTES`, ``visitor_type`` (``new`` at a visitor's first session
    in the log), ``orders`` (each order once, at its earliest purchase), ``value`` in currency
    units, ``touched``.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> table = session_table([random_batch(300, seed=1)], {})
    >>> table.height >= 20, table["orders"].sum() > 0
    (True, True)
    """
    keep = ("ts", "seq", "id", "event", "visitor", "session", "order", "value")
    columns = list(dict.fromkeys((*keep, *ATTRIBUTES, *entity)))
    frames = [batch.events.select(columns) for batch in batches]
    empty = pl.DataFrame(schema=EVENT_SCHEMA).select(columns)
    events = pl.concat([empty, *frames]).sort("visitor", "ts", "seq", "id")
    numbered = events.with_columns(_session(gap_s).alias("__session"), _counted().alias("__first"))
    touched = [
        (pl.col(name) == value).any().fill_null(value=False) for name, value in entity.items()
    ]
    asked = [pl.col(name).is_not_null().any() for name in entity]
    bought = (pl.col("event") == "purchase") & pl.col("__first")
    table = numbered.group_by("__session", maintain_order=True).agg(
        pl.col("ts").min(),
        pl.col("visitor").first(),
        *(pl.col(name).drop_nulls().first() for name in ATTRIBUTES),
        bought.sum().alias("orders"),
        (pl.col("value").filter(bought).sum() / MICROS).alias("value"),
        pl.all_horizontal(touched or [pl.lit(value=True)]).alias("touched"),
        pl.all_horizontal(asked or [pl.lit(value=True)]).alias("__asked"),
    )
    first = pl.col("ts") == pl.col("ts").min().over("visitor")
    kind = pl.when(first).then(pl.lit("new")).otherwise(pl.lit("returning"))
    told = table.with_columns(kind.alias("visitor_type")).filter("__asked")
    return told.drop("__session", "__asked")


def _session(gap_s: float) -> pl.Expr:
    """Give sessions numbers: a new one where visitor or session changes, or after a silence."""
    visitor, own = pl.col("visitor"), pl.col("session")
    silence = pl.col("ts").diff() > pl.duration(microseconds=round(gap_s * MICROS))
    told = own.is_not_null() & own.shift().is_not_null()
    begins = pl.when(told).then(own != own.shift()).otherwise(silence)
    return ((visitor != visitor.shift()) | begins).fill_null(value=True).cum_sum()


def _counted() -> pl.Expr:
    """Say which purchase is the first of its order; one without an order is its own."""
    order = pl.col("order")
    rank = pl.col("ts").rank("ordinal").over("order", "event")
    return order.is_null() | (rank == 1)


def episodes(sessions: pl.DataFrame, horizon_s: float, *, cut: int | None = None) -> pl.DataFrame:
    """Join a visitor's sessions into episodes: what someone bought later, they did not fail to buy.

    An episode begins with a session and takes up all of the visitor's sessions that begin less than
    the horizon later; the next one then begins another.

    Parameters
    ----------
    sessions
        As :func:`session_table` gives them.
    horizon_s
        In seconds; 0 leaves sessions as they are.
    cut
        A moment, in microseconds, across which no episode goes, such as an incident's start: what
        began before it is then untouched.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> table = session_table([random_batch(300, seed=1)], {})
    >>> joined = episodes(table, 86_400.0)
    >>> joined.height <= table.height, joined["orders"].sum() == table["orders"].sum()
    (True, True)
    """
    if horizon_s <= 0:
        return sessions
    ordered = sessions.sort("visitor", "ts")
    visitor = ordered["visitor"].rank("dense").to_numpy().astype(np.int64)
    begins = np.empty(ordered.height, np.bool_)
    ts = ordered["ts"].cast(pl.Int64).to_numpy()
    _begin(visitor, ts, round(horizon_s * MICROS), _NEVER if cut is None else cut, begins)
    numbered = ordered.with_columns(pl.Series("__episode", np.cumsum(begins)))
    summed = ("orders", "value")
    kept = [name for name in sessions.columns if name not in (*summed, "touched")]
    return (
        numbered.group_by("__episode", maintain_order=True)
        .agg(
            *(pl.col(name).first() for name in kept),
            *(pl.col(name).sum() for name in summed),
            pl.col("touched").any(),
        )
        .select(sessions.columns)
    )


@njit(cache=True, nogil=True)
def _begin(
    visitor: NDArray[np.int64],
    ts: NDArray[np.int64],
    horizon: int,
    cut: int,
    begins: NDArray[np.bool_],
) -> None:
    since = 0
    for row in range(len(ts)):
        over = ts[row] - since >= horizon or since < cut <= ts[row]
        begins[row] = over or row == 0 or visitor[row] != visitor[row - 1]
        if begins[row]:
            since = ts[row]
