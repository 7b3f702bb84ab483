"""The four tables joined: hits in the order of time, lines numbered by their hit."""

import datetime as dt
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.sources.base import no_dead_letters
from recoup.sources.drift import Watch
from recoup.sources.google_merch_store.columns import HIT, PURCHASE, TABLES, VISIT, Columns
from recoup.sources.google_merch_store.shape import (
    Change,
    dead_rows,
    key_types,
    read_table,
    settle,
    shape,
    table_file,
)
from recoup.sources.values import EARLIEST, SKEW

NAMING: Final = ("visitor_id", "visit_id", "transaction_id", "sku", "promo_id")
ACTIONS_ON_ITEMS: Final = (1, 2, 3, 4)
UNWATCHED: Final = (
    "search_keyword", "referer", "quantity", "revenue", "tax", "shipping", "product_name", "brand",
    "variant", "promo_name", "creative", "new_visits", "transaction_id",
)  # fmt: skip
"""Columns whose gaps say little: rare, beside another that says the same, or judged elsewhere."""


class Tables(msgspec.Struct, frozen=True):
    """Hits with the context of their visit, in the order of time, and the tables of lines.

    Parameters
    ----------
    hits
        One row per event that can be placed: the columns of ``HITS`` and ``SESSIONS``, its
        ``line`` in the table and whether it ``is_purchase``.
    products, promotions
        The columns of ``PRODUCTS`` and ``PROMOTIONS`` less their key; ``row`` is the hit's row
        number, ascending.
    dead_letters
        The hits that cannot be placed, the lines that belong to none, the numbers refused.
    findings
        What is wrong with the tables.
    """

    hits: pl.DataFrame
    products: pl.DataFrame
    promotions: pl.DataFrame
    dead_letters: pl.DataFrame
    findings: tuple[Finding, ...]


def is_shop(folder: Path) -> bool:
    """Say whether a directory holds hits of this shop's export, by its files' names, or columns."""
    found = {name: path for name in TABLES if (path := table_file(folder, name)) is not None}
    return "events" in found and (len(found) > 1 or _holds_hits(found["events"]))


def _holds_hits(path: Path) -> bool:
    try:
        return set(pl.read_parquet_schema(path)) >= {*HIT, "action_type"}
    except (pl.exceptions.PolarsError, OSError):
        return False


def load(folder: Path, now: dt.datetime) -> Tables:
    """Read the tables of a directory.

    Raises
    ------
    SourceError
        If there is no table of hits, or a table cannot be read.
    """
    reader = _Reader(folder)
    events = reader.table("events")
    reader.watch("events", events, events["ts"])
    hits, refused = _place(events, now, reader.label("events"))
    sessions = reader.table("sessions")
    reader.watch("sessions", sessions, sessions["visit_start"])
    context = sessions.drop_nulls(VISIT).sort("visit_start").unique(VISIT, keep="first")
    hits = hits.join(context, on=VISIT, how="left", maintain_order="left")
    rows = hits.select(HIT).with_row_index("row").unique(HIT, keep="first").drop_nulls()
    products = reader.lines("hit_products", rows, hits["ts"])
    promotions = reader.lines("hit_promotions", rows, hits["ts"])
    hits = _first_purchases(hits)
    findings = (*reader.findings, *_watch_actions(hits, products), *_orders(hits))
    dead = pl.concat([refused, *reader.dead])
    return Tables(hits, products, promotions, dead, findings)


class _Reader:
    """Reads the tables one by one, and keeps what was wrong with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changes: dict[str, list[Change]] = {}
        self._keys: Columns = {}
        self.dead: list[pl.DataFrame] = []
        self.findings: list[Finding] = []

    def label(self, name: str) -> str:
        """Give the name of a table's file."""
        path = table_file(self._folder, name)
        return name if path is None else path.name

    def table(self, name: str) -> pl.DataFrame:
        """Read a table; one that is not there is empty, and noted."""
        table, dead = read_table(self._folder, name)
        if table is None:
            detail = f"The log has no table `{name}`."
            self.findings.append(Finding("table_missing", name, None, None, detail))
            return pl.DataFrame(schema={**TABLES[name], **self._keys})
        table, self._changes[name] = settle(name, table)
        if name == "events":
            self._keys = key_types(table)
        shaped, refused, findings = shape(name, table, self.label(name), self._keys)
        self.dead += [dead, refused]
        self.findings += findings
        return shaped

    def watch(self, name: str, table: pl.DataFrame, ts: pl.Series) -> None:
        """Date the changes of names, and look for columns that fall silent.

        Parameters
        ----------
        table
            As :meth:`table` gave it, every row.
        ts
            Moment of each row.
        """
        for change in self._changes.get(name, []):
            moment = None if change.rows is None else ts.gather(change.rows).min()
            since = None if moment is None else iso_of(moment)
            detail = f"`{name}.{change.new}` is read on as `{change.old}`: {change.reason}."
            column = f"{name}.{change.old}"
            self.findings.append(Finding("column_renamed", column, since, None, detail))
        watch = Watch(NAMING, table=f"{name}.")
        watch.observe({c: table[c] for c in TABLES[name] if c not in UNWATCHED}, ts)
        self.findings += watch.findings()

    def lines(self, name: str, rows: pl.DataFrame, ts: pl.Series) -> pl.DataFrame:
        """Read a table of lines, each numbered by the row of its hit, in ascending order."""
        table = self.table(name)
        number = table.select(HIT).join(rows, on=HIT, how="left", maintain_order="left")["row"]
        orphans = number.is_null()
        if orphans.any():
            detail = (
                f"{int(orphans.sum()):,} of {table.height:,} lines belong to no hit that could be "
                "placed, and are left out."
            )
            self.findings.append(Finding("orphan_lines", name, None, None, detail))
        self.watch(name, table, ts.gather(number))
        kept = table.drop(HIT).insert_column(0, number.cast(pl.UInt32).alias("row"))
        return kept.filter(~orphans).sort("row", maintain_order=True)


def iso_of(moment: object) -> str | None:
    """Write a moment as ISO 8601 UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(moment, dt.datetime) else None


def _place(events: pl.DataFrame, now: dt.datetime, label: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the hits that have a visitor and a time from those that do not."""
    ts = events["ts"]
    masks = {
        ("visitor_id", "missing_visitor"): events["visitor_id"].is_null(),
        ("ts", "bad_timestamp"): ts.is_null() | (ts < EARLIEST).fill_null(value=False),
        ("ts", "future_timestamp"): (ts > now + SKEW).fill_null(value=False),
    }
    refused = pl.repeat(False, events.height, dtype=pl.Boolean, eager=True)  # noqa: FBT003
    dead = [no_dead_letters()]
    for (column, reason), mask in masks.items():
        dead.append(dead_rows(events, mask & ~refused, label, column, reason))
        refused |= mask
    placed = events.with_row_index("line", offset=1).filter(~refused)
    if not placed["ts"].is_sorted():
        placed = placed.sort("ts", maintain_order=True)
    return placed, pl.concat(dead)


def _first_purchases(hits: pl.DataFrame) -> pl.DataFrame:
    """Mark the first hit of each transaction: a receipt viewed again is no second purchase."""
    order = pl.coalesce("transaction_id", pl.concat_str(VISIT, separator="-"))
    buys = (pl.col("action_type") == PURCHASE).fill_null(value=False)
    return hits.with_columns(is_purchase=buys & (pl.int_range(pl.len()).over(buys, order) == 0))


def _watch_actions(hits: pl.DataFrame, products: pl.DataFrame) -> tuple[Finding, ...]:
    """Look for what is missing from single kinds of hits: orders, revenue, lines."""
    bought = hits.filter("is_purchase")
    orders = Watch(NAMING, table="events.", scope=" of purchases")
    orders.observe({c: bought[c] for c in ("transaction_id", "revenue")}, bought["ts"])
    on_items = hits.with_row_index("row").filter(pl.col("action_type").is_in(ACTIONS_ON_ITEMS))
    lined = on_items["row"].is_in(products["row"].unique().implode())
    shown = Watch(scope=" of clicks, details and cart changes")
    shown.observe({"hit_products": lined.set(~lined, None)}, on_items["ts"])
    return (*orders.findings(), *(shown.findings() if products.height else ()))


def _orders(hits: pl.DataFrame) -> tuple[Finding, ...]:
    """Say which orders are odd: without revenue, or with several amounts under one number."""
    buys = hits.filter(pl.col("action_type") == PURCHASE).drop_nulls("transaction_id")
    orders = buys.group_by("transaction_id").agg(pl.col("revenue").drop_nulls().len())
    poor = orders.filter(pl.col("revenue") == 0).height
    many = orders.filter(pl.col("revenue") > 1).height
    found = []
    if poor:
        detail = f"{poor:,} of {orders.height:,} orders have no revenue."
        found.append(Finding("order_without_value", "events.revenue", None, None, detail))
    if many:
        detail = f"{many:,} order numbers come with more than one revenue; the first one counts."
        found.append(Finding("order_reused", "events.transaction_id", None, None, detail))
    return tuple(found)
