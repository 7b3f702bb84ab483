"""Item lines: what a hit shows, and what it acts on."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import ITEM_SCHEMA, MICROS, ItemRole, conform
from recoup.sources.google_merch_store.tables import Tables

MAX_QUANTITY: Final = 1_000_000
"""A larger quantity is a slip of the export: the log has one of 10**16."""

SUBJECT: Final = ("item", "item_category", "brand", "list_name", "price", "quantity", "position")


class Lines:
    """The item lines of all hits, sliced by rows of hits.

    Parameters
    ----------
    tables
        With ``products`` and ``promotions`` in ascending order of ``row``.
    """

    def __init__(self, tables: Tables) -> None:
        self._products, self._promotions = tables.products, tables.promotions
        self._product_rows = _rows(tables.products)
        self._promotion_rows = _rows(tables.promotions)

    def between(self, first: int, last: int) -> pl.DataFrame:
        """Give the lines of the hits in [first, last), as a frame of ``ITEM_SCHEMA``."""
        products = _slice(self._products, self._product_rows, first, last)
        promotions = _slice(self._promotions, self._promotion_rows, first, last)
        lines = pl.concat([_products(products, first), _promotions(promotions, first)])
        return lines.sort("event", maintain_order=True)

    def clicked(self, first: int, last: int) -> pl.DataFrame:
        """Give the promotion that each hit in [first, last) clicks on, where there is one."""
        promotions = _slice(self._promotions, self._promotion_rows, first, last)
        return (
            promotions.filter("is_click")
            .select(event=(pl.col("row") - first).cast(pl.UInt32), clicked_promotion="promo_id")
            .unique("event", keep="first", maintain_order=True)
        )


def _rows(lines: pl.DataFrame) -> NDArray[np.uint32]:
    return lines["row"].to_numpy()


def _slice(lines: pl.DataFrame, rows: NDArray[np.uint32], first: int, last: int) -> pl.DataFrame:
    start, stop = np.searchsorted(rows, (first, last)).tolist()
    return lines.slice(start, stop - start)


def _products(lines: pl.DataFrame, first: int) -> pl.DataFrame:
    sane = pl.col("quantity").is_between(0, MAX_QUANTITY)
    frame = lines.select(
        event=(pl.col("row") - first).cast(pl.UInt32),
        role=pl.when(pl.col("is_impression"))
        .then(pl.lit("impression"))
        .otherwise(pl.lit("subject"))
        .cast(ItemRole),
        item="sku",
        item_name="product_name",
        category=_category(pl.col("category")),
        brand="brand",
        variant=pl.col("variant").cast(pl.String).str.strip_chars(),
        list_name="list_name",
        price=micros(pl.col("price")),
        quantity=pl.when(sane).then("quantity"),
        position=pl.when(pl.col("list_position") > 0).then("list_position"),
        value=micros(pl.col("revenue")),
    )
    return conform(frame, ITEM_SCHEMA)


def _promotions(lines: pl.DataFrame, first: int) -> pl.DataFrame:
    frame = lines.select(
        event=(pl.col("row") - first).cast(pl.UInt32),
        role=pl.lit("promotion").cast(ItemRole),
        item_name="promo_name",
        variant="creative",
        promotion="promo_id",
    )
    return conform(frame, ITEM_SCHEMA)


def _category(column: pl.Expr) -> pl.Expr:
    """Turn ``Home/Apparel/Men's/`` into ``Apparel/Men's``; a template left unfilled into null."""
    path = column.cast(pl.String).str.strip_chars("/").str.strip_prefix("Home/")
    return pl.when(~path.str.contains("${", literal=True) & (path != "")).then(path)


def micros(column: pl.Expr) -> pl.Expr:
    """Turn currency units into int64 micro-units; what does not fit is null."""
    scaled = (column.cast(pl.Float64, strict=False) * MICROS).round()
    return scaled.cast(pl.Int64, strict=False)


def hit_columns(items: pl.DataFrame, clicked: pl.DataFrame, height: int) -> pl.DataFrame:
    """Give each hit what its lines say of it. Shape (height, 9).

    These are the measures of its subject, where it has exactly one, how many impressions it shows,
    and the promotion it clicks on.
    """
    role = pl.col("role")
    subjects = items.filter(role == "subject").rename({"category": "item_category"})
    single = subjects.filter(pl.len().over("event") == 1).select("event", *SUBJECT)
    shown = items.filter(role == "impression").group_by("event").agg(impressions=pl.len())
    hits = pl.DataFrame({"event": np.arange(height, dtype=np.uint32)})
    for columns in (single, shown, clicked):
        hits = hits.join(columns, on="event", how="left", maintain_order="left")
    return hits.drop("event")
