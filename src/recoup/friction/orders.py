"""Orders by customer and day: what repeat purchase is learned from."""

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.events import MICROS, EventBatch, hash_column
from recoup.friction.bg_nbd import Histories
from recoup.non_shoppers import NonShoppers, Rules

DAY: Final = 86_400 * MICROS
"""Microseconds of a day; days are UTC and counted from 1970-01-01."""


class Orders(msgspec.Struct, frozen=True):
    """Days on which customers bought: n of them, in order of (customer, day), each pair once.

    Parameters
    ----------
    customer
        Keys of the customers, int64, shape (n,).
    day
        Days since 1970-01-01 UTC, int64, shape (n,).
    value, quantity
        What was spent that day, in currency units, and units bought: shape (n,).

    Examples
    --------
    >>> days = np.array([0, 7, 20, 3])
    >>> orders = Orders(np.array([1, 1, 1, 2]), days, np.ones(4), np.ones(4))
    >>> orders.histories(28).age.tolist(), orders.before(20).histories(20).repeats.tolist()
    ([28.0, 25.0], [1.0, 0.0])
    """

    customer: NDArray[np.int64]
    day: NDArray[np.int64]
    value: NDArray[np.float64]
    quantity: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the days on which somebody bought."""
        return len(self.day)

    def before(self, day: int) -> "Orders":
        """Keep what lies before a day."""
        return self.where(self.day < day)

    def where(self, keep: NDArray[np.bool_]) -> "Orders":
        """Keep some of the rows."""
        return Orders(*(getattr(self, name)[keep] for name in self.__struct_fields__))

    @property
    def starts(self) -> NDArray[np.int64]:
        """Row of each customer's first order: shape (customers,)."""
        return np.flatnonzero(np.r_[len(self) > 0, self.customer[1:] != self.customer[:-1]])

    @property
    def customers(self) -> NDArray[np.int64]:
        """Each customer once, in order: shape (customers,)."""
        return self.customer[self.starts]

    def histories(self, at: int) -> Histories:
        """Give each customer's repeats, recency and age in days, as of the start of a day."""
        starts = self.starts
        sizes = np.diff(np.r_[starts, len(self)])
        first, last = self.day[starts], self.day[starts + sizes - 1]
        parts = (sizes - 1, last - first, at - first)
        return Histories(*(part.astype(np.float64) for part in parts))

    def buyers(self, start: int, end: int) -> NDArray[np.int64]:
        """Give the customers who bought on a day in ``[start, end)``."""
        return np.unique(self.customer[(self.day >= start) & (self.day < end)])


PURCHASES: Final = pl.Schema(
    {
        "customer": pl.Int64(),
        "order": pl.Int64(),
        "ts": pl.Int64(),
        "value": pl.Float64(),
        "quantity": pl.Float64(),
        "visitor": pl.String(),
        "categories": pl.String(),
    }
)
"""Purchases of a log: keys of customer and order (0: unnamed), when, currency units, units, who;
the categories of what was bought, joined by :data:`SEPARATOR`, null where none is named."""

SEPARATOR: Final = "\x1f"


def collect_orders(batches: Iterable[EventBatch], rules: Rules | None = None) -> Orders:
    """Read the purchases of a log; an order told twice counts once, where it was told first.

    Parameters are those of :func:`collect_purchases`.

    Raises
    ------
    ModelError
        If there is no purchase of a shopper.
    """
    return orders_of(collect_purchases(batches, rules))


def collect_purchases(batches: Iterable[EventBatch], rules: Rules | None = None) -> pl.DataFrame:
    """Read the purchases of a log: a frame of :data:`PURCHASES`.

    Memory grows with purchases, not with events.

    Parameters
    ----------
    rules
        By which bots, monitors, staff and test orders are recognised: they are no customers.
    """
    non_shoppers, strangers, parts = NonShoppers(rules), set[str](), []
    for batch in batches:
        seen = non_shoppers.step(batch, batch.column("visitor").astype(np.int64))
        strangers.update(seen.visitors)
        parts.append(purchases_of(batch))
    table = pl.concat(parts) if parts else pl.DataFrame(schema=PURCHASES)
    return table.filter(~pl.col("visitor").is_in(strangers))


def purchases_of(batch: EventBatch) -> pl.DataFrame:
    """Give the purchases among events: a frame of :data:`PURCHASES`."""
    numbered = batch.events.with_row_index("event_row")
    bought = numbered.filter(pl.col("event") == "purchase")
    lines = batch.items.filter(pl.col("role") == "subject").group_by("event")
    units = lines.agg(
        units=pl.col("quantity").fill_null(1).sum(),
        kinds=pl.col("category").cast(pl.String).drop_nulls().unique().sort().str.join(SEPARATOR),
    )
    joined = bought.join(
        units, left_on="event_row", right_on="event", how="left", maintain_order="left"
    )
    return pl.DataFrame(
        {
            "customer": hash_column(joined["visitor"]),
            "order": hash_column(joined["order"]),
            "ts": joined["ts"].to_physical(),
            "value": (joined["value"].fill_null(0) / MICROS).cast(pl.Float64),
            "quantity": joined.select(pl.coalesce("quantity", "units", pl.lit(1)))
            .to_series()
            .cast(pl.Float64),
            "visitor": joined["visitor"],
            "categories": joined.select(
                pl.when(pl.col("kinds") != "").then("kinds").otherwise(pl.col("category"))
            ).to_series(),
        },
        schema=PURCHASES,
    )


def orders_of(purchases: pl.DataFrame) -> Orders:
    """Give the days on which customers bought.

    Raises
    ------
    ModelError
        If there is no purchase.
    """
    if purchases.is_empty():
        raise ModelError(
            "Expected purchases in the log, got none",
            hint="repeat purchase needs `purchase` events; map orders to them",
        )
    by_day = (
        told_once(purchases)
        .group_by("customer", day=pl.col("ts") // DAY)
        .agg(pl.col("value", "quantity").sum())
        .sort("customer", "day")
    )
    names = Orders.__struct_fields__
    return Orders(*(by_day[name].to_numpy() for name in names))


def told_once(purchases: pl.DataFrame) -> pl.DataFrame:
    """Give each order once, as it was told first; those without a name all count."""
    told = purchases.sort("ts", maintain_order=True)
    named = told.filter(pl.col("order") != 0).unique("order", keep="first", maintain_order=True)
    return pl.concat([named, told.filter(pl.col("order") == 0)])
