"""Purchases gathered beside the engine, and who of the customers is overdue at the end."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.engine import Step
from recoup.events import EPOCH, TIMESTAMP
from recoup.friction.cycles import overdue_in
from recoup.friction.orders import DAY, PURCHASES, Orders, orders_of, purchases_of
from recoup.friction.repeat import NAMES, RepeatModel, inputs_at
from recoup.friction.watch import InputWatch
from recoup.models.card import reliability_of
from recoup.parts import Runs, frame_bytes
from recoup.report import ModelHealth
from recoup.report.funnel import SEGMENT_LIMIT
from recoup.report.model_health import parts_of
from recoup.report.repeat import EDGES_DAYS, CategoryOverdue, LookedBack, OverdueBin, Repeat
from recoup.runners.lifecycle import Loaded, health_of_model
from recoup.runners.repeat import day_of
from recoup.state import Changes

CUSTOMERS: Final = "customers.parquet"
OVERDUE: Final = "overdue.parquet"


class OrderBook:
    """Keeps shoppers' purchases, and says as of the end who is overdue, and by how much.

    Memory grows with purchases, some 80 bytes each; a receipt seen again is one more.

    Examples
    --------
    >>> from recoup.engine import Engine
    >>> from recoup.testing import random_batch
    >>> book = OrderBook()
    >>> book.step(Engine().step(random_batch(300, seed=1)))
    >>> book.purchases().height
    22
    """

    name = "orders"

    def __init__(self) -> None:
        self._runs = Runs(_in_order, pl.DataFrame(schema=PURCHASES), ordered=True)

    def step(self, step: Step, /) -> None:
        """Take the purchases of a batch; customers found to be no shoppers are taken out."""
        bought = purchases_of(step.shoppers.batch)
        if bought.height:
            self._runs.add(bought)
        if step.recognised.visitors:
            left = pl.col("visitor").is_in(step.recognised.visitors)
            self._runs.replace(self._runs.whole().filter(~left))

    def purchases(self) -> pl.DataFrame:
        """Give what was bought so far, in order of time: a frame of ``PURCHASES``."""
        return self._runs.whole()

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts."""
        return {"00000000": frame_bytes(self._runs.whole())}

    def changes(self) -> Changes:
        """Give the purchases that are new since the last call, as parts to save."""
        return self._runs.changes()

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If there is none.
        """
        self._runs.restore_parts(parts)


class Customers(msgspec.Struct, frozen=True):
    """What is told of customers, and whether the model that tells it still holds."""

    repeat: Repeat | None = None
    health: list[ModelHealth] = []


def write_customers(
    purchases: pl.DataFrame,
    model: RepeatModel,
    until: dt.datetime,
    path: Path,
    served: Loaded | None = None,
) -> Customers:
    """Write a row for each customer as of the end of a log, and give what is told of them.

    Parameters
    ----------
    until
        The log's last event: customers are judged as of the start of the next day.
    path
        Parquet: ``visitor``, ``orders`` (days on which they bought), ``last_order``, and in days
        ``elapsed``, ``usual``, ``latest`` and ``overdue_by``; ``p_purchase`` within the horizon.
        Beside it, where the model knows cycles of categories, :data:`OVERDUE`: a row for each
        customer and category in which they are overdue.
    served
        What the registry keeps of the model: it is then watched.

    Returns
    -------
    Nothing where nobody has bought.
    """
    if purchases.is_empty():
        return Customers()
    at, orders = day_of(until) + 1, orders_of(purchases)
    customers = customers_at(purchases, model, at)
    customers.write_parquet(path)
    back = look_back(orders, model, at - 1)
    categories = _write_overdue(purchases, model, at, path.with_name(OVERDUE))
    told = _repeat(customers, model, at, back, categories)
    return Customers(told, [] if served is None else [_health(served, model, orders, at, back)])


def look_back(orders: Orders, model: RepeatModel, end: int) -> LookedBack | None:
    """Compare who was expected to buy in the last horizon before a day with who did.

    Parameters
    ----------
    end
        Days since 1970-01-01 UTC. Customers are judged by what was known one horizon before.

    Returns
    -------
    None where nobody had bought by then.
    """
    origin = end - model.laws.horizon_days
    past = orders.before(origin)
    if not len(past):
        return None
    said = model.predict(past, origin)
    came = np.isin(said.customer, orders.buyers(origin, end))
    return LookedBack(
        origin=_date(origin),
        customers=len(came),
        expected_buyers=float(said.ours.sum()),
        buyers=int(came.sum()),
        bins=list(reliability_of(came, said.ours)),
    )


def _health(
    served: Loaded, model: RepeatModel, orders: Orders, at: int, back: LookedBack | None
) -> ModelHealth:
    reference = served.kept.reference
    watch = InputWatch(reference, NAMES) if reference else None
    if watch is not None:
        watch.step(inputs_at(orders.before(at), at, model.laws))
    return health_of_model(served, watch, [] if back is None else parts_of(back.bins))


def _write_overdue(
    purchases: pl.DataFrame, model: RepeatModel, at: int, path: Path
) -> list[CategoryOverdue]:
    """Write who is overdue in which category, the longest first, and sum it by category."""
    if not model.laws.cycles:
        return []
    waits = overdue_in(purchases, model.laws.cycles, at)
    late = waits.filter(pl.col("overdue_by") > 0)
    named = late.join(_names(purchases), on="customer", how="left")
    told = named.select("visitor", pl.all().exclude("visitor", "customer"))
    order = ["overdue_by", "visitor", "category"]
    told.sort(order, descending=[True, False, False]).write_parquet(path)
    by = pl.col("overdue_by").filter(pl.col("overdue_by") > 0)
    usual = pl.col("usual").filter(pl.col("orders") > 1)
    sums = waits.group_by("category").agg(
        customers=pl.len(), usual_days=usual.median(), overdue=by.len(), overdue_by_days=by.median()
    )
    most = sums.sort("overdue", "category", descending=[True, False]).head(SEGMENT_LIMIT)
    return [CategoryOverdue(**row) for row in most.to_dicts()]


def _names(purchases: pl.DataFrame) -> pl.DataFrame:
    names = purchases.unique("customer", keep="last", maintain_order=True)
    return names.select("customer", "visitor")


def _repeat(
    customers: pl.DataFrame,
    model: RepeatModel,
    at: int,
    back: LookedBack | None,
    categories: list[CategoryOverdue],
) -> Repeat:
    late = customers.filter(pl.col("overdue_by") > 0)
    return Repeat(
        as_of=_date(at),
        horizon_days=model.laws.horizon_days,
        customers=customers.height,
        returned=customers.filter(pl.col("orders") > 1).height,
        expected_buyers=float(customers["p_purchase"].sum()),
        overdue=late.height,
        overdue_by_days=_median(late["overdue_by"]),
        bins=[
            _bin(late, *edges) for edges in zip(EDGES_DAYS, (*EDGES_DAYS[1:], None), strict=True)
        ],
        model=model.hash,
        looked_back=back,
        categories=categories,
    )


def customers_at(purchases: pl.DataFrame, model: RepeatModel, at: int) -> pl.DataFrame:
    """Give a row for each customer as of the start of a day, the longest overdue first."""
    orders = orders_of(purchases)
    late, said = model.overdue(orders, at), model.predict(orders, at)
    past = orders.before(at)
    days = past.day[np.r_[past.starts[1:], len(past)] - 1]
    known = pl.DataFrame(
        {
            "customer": late.customer,
            "orders": past.histories(at).repeats.astype(np.int64) + 1,
            "last_order": pl.Series(days * DAY).cast(TIMESTAMP).dt.date(),
            "elapsed": late.elapsed,
            "usual": late.usual,
            "latest": late.latest,
            "overdue_by": late.by,
            "p_purchase": said.ours,
        }
    )
    named = known.join(_names(purchases), on="customer", how="left")
    told = named.select("visitor", pl.all().exclude("visitor", "customer"))
    return told.sort("overdue_by", "visitor", descending=[True, False])


def _bin(late: pl.DataFrame, over: float, until: float | None) -> OverdueBin:
    inside = pl.col("overdue_by") > over
    if until is not None:
        inside &= pl.col("overdue_by") <= until
    own = late.filter(inside)
    return OverdueBin(
        over_days=over,
        until_days=until,
        customers=own.height,
        expected_buyers=float(own["p_purchase"].sum()),
    )


def _date(day: int) -> dt.date:
    return (EPOCH + dt.timedelta(days=day)).date()


def _median(days: pl.Series) -> float | None:
    return float(np.median(days.to_numpy())) if len(days) else None


def _in_order(purchases: pl.DataFrame) -> pl.DataFrame:
    return purchases.sort(purchases.columns)
