"""Overdue in a category: how long its buyers usually wait before they buy it again.

A household buys milk each week and a lamp once in years: how late somebody is, the category's own
cycle tells. It is the gap law (:mod:`recoup.friction.gaps`) of each category, fitted to the days on
which customers bought it.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from recoup.friction.gaps import GapModel, fit_gaps, overdue
from recoup.friction.orders import DAY, SEPARATOR, Orders, told_once

MOST_CATEGORIES: Final = 50
"""Categories with a cycle of their own: those that most customers bought again."""

LEAST_RETURNING: Final = 100
"""Customers who bought a category on more than one day, from which a cycle is fitted."""

MOST_CUSTOMERS: Final = 500
"""Customers that a cycle is fitted to: those with the least keys, which are hashes."""

OVERDUE_SCHEMA: Final = pl.Schema(
    {
        "customer": pl.Int64(), "category": pl.String(), "orders": pl.Int64(),
        "elapsed": pl.Float64(), "usual": pl.Float64(), "latest": pl.Float64(),
        "overdue_by": pl.Float64(),
    }
)  # fmt: skip
"""A customer in a category: days on which they bought it, and the days of the gap since."""


def fit_cycles(purchases: pl.DataFrame, at: int) -> dict[str, GapModel]:
    """Fit the gap law of each category that enough customers bought again.

    Parameters
    ----------
    purchases
        A frame of :data:`recoup.friction.orders.PURCHASES`.
    at
        Days since 1970-01-01 UTC; purchases of that day and later are not read.

    Returns
    -------
    Laws by category, at most :data:`MOST_CATEGORIES`, in order of the names; none where the log
    names no category.
    """
    days = days_of_categories(purchases, at)
    again = days.group_by("category", "customer").len().filter(pl.col("len") > 1)
    sizes = again.group_by("category").len().filter(pl.col("len") >= LEAST_RETURNING)
    most = sizes.sort("len", "category", descending=[True, False]).head(MOST_CATEGORIES)
    return {name: fit_gaps(_some(orders_in(days, name)), at) for name in sorted(most["category"])}


def overdue_in(purchases: pl.DataFrame, cycles: Mapping[str, GapModel], at: int) -> pl.DataFrame:
    """Say how long customers have waited in each category, against its cycle and their own.

    Returns
    -------
    A frame of :data:`OVERDUE_SCHEMA`: who bought the category before the start of day ``at``;
    ``overdue_by`` above 0 is how many days they are late.
    """
    days = days_of_categories(purchases, at).filter(pl.col("category").is_in(list(cycles)))
    named = {str(name): own for (name,), own in days.partition_by("category", as_dict=True).items()}
    parts = [_waited(name, own, cycles[name], at) for name, own in sorted(named.items())]
    return pl.concat([pl.DataFrame(schema=OVERDUE_SCHEMA), *parts])


def _waited(category: str, days: pl.DataFrame, law: GapModel, at: int) -> pl.DataFrame:
    orders = orders_in(days, category)
    late = overdue(orders, law, at)
    told = {
        "customer": late.customer, "orders": orders.histories(at).repeats + 1.0,
        "elapsed": late.elapsed, "usual": late.usual, "latest": late.latest, "overdue_by": late.by,
    }  # fmt: skip
    return pl.DataFrame(told).select(
        pl.lit(category).alias(name) if name == "category" else pl.col(name).cast(kind)
        for name, kind in OVERDUE_SCHEMA.items()
    )


def days_of_categories(purchases: pl.DataFrame, at: int) -> pl.DataFrame:
    """Give each day on which a customer bought a category, once, in order."""
    told = told_once(purchases).filter(pl.col("ts") < at * DAY, pl.col("categories").is_not_null())
    lines = told.select(
        "customer", category=pl.col("categories").str.split(SEPARATOR), day=pl.col("ts") // DAY
    ).explode("category")
    return lines.unique().sort("category", "customer", "day")


def orders_in(days: pl.DataFrame, category: str) -> Orders:
    """Give the days on which a category was bought; spend and units are not told apart."""
    own = days.filter(pl.col("category") == category).with_columns(one=pl.lit(1.0))
    return Orders(*(own[name].to_numpy() for name in ("customer", "day", "one", "one")))


def _some(orders: Orders) -> Orders:
    return orders.where(np.isin(orders.customer, orders.customers[:MOST_CUSTOMERS]))
