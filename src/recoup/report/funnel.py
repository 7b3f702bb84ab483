"""From rows per session to what is told of them: funnel, segments, days, reliability of intent."""

import datetime as dt
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import MICROS, TIMESTAMP
from recoup.report.summary import (
    SEGMENTS,
    STAGES,
    Day,
    Funnel,
    IntentBin,
    Journeys,
    Period,
    Segment,
    Totals,
)

SEGMENT_LIMIT: Final = 12
"""Values of an attribute that are shown by name; the rest is summed up as ``(other)``."""

FILLED_DAYS: Final = 3660
"""Span of days within which days without a visit are listed too; a stray date adds no more."""

BOUGHT: Final = len(STAGES) - 1
UNKNOWN: Final = "(unknown)"
OTHER: Final = "(other)"


def tell_journeys(
    rows: pl.DataFrame, orders: pl.DataFrame, scored: pl.DataFrame, *, gap_us: int, limit: int
) -> Journeys:
    """Tell who came, how far they got and what they bought.

    Parameters
    ----------
    rows
        One or more per session: ``session``, ``visitor``, ``named`` (the source gave its own
        session id), the attributes of SEGMENTS, ``start`` and ``end`` (us), ``stage``.
    orders
        One per order: ``order``, ``ts`` (us), ``session``, ``value`` (micro-units), ``currency``.
    scored
        By session and bin of intent: how many ``events``, and their intent's sum in ``micros``.
    gap_us
        Silence that ends a session, in microseconds.
    limit
        Values of an attribute shown by name.
    """
    joined = _join_late(rows, gap_us)
    sessions = _sessions(joined)
    if sessions.is_empty():
        return Journeys()
    priced = _price(orders).join(joined.select("session", "of").unique(), on="session")
    totals = _totals(sessions.height, priced)
    return Journeys(
        visitors=sessions["visitor"].n_unique(),
        sessions=totals.sessions,
        period=_period(sessions),
        orders=totals.orders,
        revenue=totals.revenue,
        currency=totals.currency,
        other_currency_orders=totals.other_currency_orders,
        funnel=_funnel(np.bincount(sessions["stage"].to_numpy(), minlength=len(STAGES))),
        segments={name: _split(sessions, priced, name, limit) for name in SEGMENTS},
        daily=_daily(sessions, priced),
        intent=_reliability(scored, joined, sessions),
    )


def tell_totals(rows: pl.DataFrame, orders: pl.DataFrame, *, gap_us: int) -> Totals:
    """Tell the totals of :func:`tell_journeys` alone."""
    return _totals(int(_runs(rows, gap_us)["begins"].sum()), _price(orders))


def _totals(sessions: int, priced: pl.DataFrame) -> Totals:
    return Totals(
        sessions=sessions,
        orders=priced.height,
        revenue=int(priced["revenue"].sum()) / MICROS,
        currency=_main_currency(priced),
        other_currency_orders=priced.height - int(priced["ours"].sum()),
    )


def _price(orders: pl.DataFrame) -> pl.DataFrame:
    """Add whether an order is in the main currency, and its revenue there; sums need 128 bits."""
    ours = pl.col("currency").is_null() | pl.col("currency").eq_missing(_main_currency(orders))
    revenue = pl.when(ours).then(pl.col("value").cast(pl.Int128)).otherwise(0)
    return orders.with_columns(ours=ours, revenue=revenue)


def _join_late(rows: pl.DataFrame, gap_us: int) -> pl.DataFrame:
    """Add ``of``: the session that each row belongs to, once late events have closed gaps."""
    runs = _runs(rows, gap_us).select("session", run=pl.col("begins").cum_sum())
    of = runs.select("session", of=pl.col("session").first().over("run"))
    return rows.join(of, on="session")


def _runs(rows: pl.DataFrame, gap_us: int) -> pl.DataFrame:
    """Give the session keys in order of visitor and time, and whether a session begins at each."""
    whole = (
        rows.group_by("session")
        .agg(
            pl.col("visitor").min(),
            pl.col("named").any(),
            pl.col("start").min(),
            pl.col("end").max(),
        )
        .sort("visitor", "start", "end", "session")
    )
    silence = pl.col("start") - pl.col("end").cum_max().shift(1).over("visitor")
    both_named = pl.col("named") & pl.col("named").shift(1, fill_value=False)
    begins = ((silence > gap_us) | both_named).fill_null(value=True)
    return whole.select("session", begins=begins)


def _sessions(joined: pl.DataFrame) -> pl.DataFrame:
    """One row per session; an attribute is the earliest that the session's events name."""
    first = [pl.col(name).drop_nulls().first().fill_null(UNKNOWN) for name in SEGMENTS]
    return (
        joined.sort("of", "start", *SEGMENTS, nulls_last=True)
        .group_by("of", maintain_order=True)
        .agg(
            pl.col("visitor").first(), pl.col("start").min(), pl.col("end").max(),
            pl.col("stage").max(), *first,
        )
    )  # fmt: skip


def _period(sessions: pl.DataFrame) -> Period:
    ends = sessions.select(pl.col("start").min(), pl.col("end").max()).cast(TIMESTAMP).row(0)
    return Period(*(end.replace(tzinfo=dt.UTC) for end in ends))


def _funnel(reached: NDArray[np.integer]) -> Funnel:
    return Funnel(*(int(n) for n in reached[::-1].cumsum()[::-1]))


def _main_currency(orders: pl.DataFrame) -> str | None:
    counts = orders.group_by("currency").len().sort("len", "currency", descending=[True, False])
    named = counts.filter(pl.col("currency").is_not_null())
    return named["currency"][0] if named.height else None


def _split(
    sessions: pl.DataFrame, orders: pl.DataFrame, attribute: str, limit: int
) -> list[Segment]:
    sizes = sessions.group_by(attribute).len().sort("len", attribute, descending=[True, False])
    if sizes[attribute].to_list() == [UNKNOWN]:
        return []
    shown = sizes[attribute].head(limit).to_list()
    named = sessions.select(
        "of", "stage", value=pl.when(pl.col(attribute).is_in(shown)).then(attribute)
        .otherwise(pl.lit(OTHER)),
    )  # fmt: skip
    bought = orders.join(named.select("of", "value").rename({"value": "segment"}), on="of")
    sums = {
        value: (count, revenue)
        for value, count, revenue in bought.group_by("segment")
        .agg(pl.len(), pl.col("revenue").sum())
        .iter_rows()
    }
    parts = named.partition_by("value", as_dict=True)
    order = [value for value in dict.fromkeys([*shown, OTHER]) if (value,) in parts]
    return [_segment(value, parts[(value,)], sums.get(value, (0, 0))) for value in order]


def _segment(value: str, sessions: pl.DataFrame, bought: tuple[int, int]) -> Segment:
    reached = np.bincount(sessions["stage"].to_numpy(), minlength=len(STAGES))
    return Segment(value, _funnel(reached), bought[0], bought[1] / MICROS)


def _daily(sessions: pl.DataFrame, orders: pl.DataFrame) -> list[Day]:
    visits = sessions.group_by(date=_date("start")).agg(
        sessions=pl.len(), buyers=(pl.col("stage") == BOUGHT).sum()
    )
    bought = orders.group_by(date=_date("ts")).agg(orders=pl.len(), revenue=pl.col("revenue").sum())
    days = visits.join(bought, on="date", how="full", coalesce=True).sort("date")
    if (days["date"][-1] - days["date"][0]).days < FILLED_DAYS:
        every = pl.date_range(days["date"][0], days["date"][-1], eager=True)
        days = pl.DataFrame({"date": every}).join(days, on="date", how="left").sort("date")
    return [
        Day(date, s, b, o, revenue / MICROS)
        for date, s, b, o, revenue in days.fill_null(0).iter_rows()
    ]


def _date(column: str) -> pl.Expr:
    return pl.col(column).cast(TIMESTAMP).dt.date()


def _reliability(
    scored: pl.DataFrame, joined: pl.DataFrame, sessions: pl.DataFrame
) -> list[IntentBin]:
    """Compare what was predicted with what followed, bin by bin; exact, since all is counted."""
    bought = joined.select("session", "of").unique().join(
        sessions.select("of", bought=pl.col("stage") == BOUGHT), on="of"
    )  # fmt: skip
    bins = (
        scored.join(bought, on="session")
        .group_by("bin")
        .agg(
            pl.col("events").sum(),
            pl.col("micros").sum(),
            followed=pl.col("events").filter(pl.col("bought")).sum(),
        )
        .sort("bin")
    )
    return [
        IntentBin(micros / MICROS / events, followed / events, events)
        for _, events, micros, followed in bins.iter_rows()
    ]
