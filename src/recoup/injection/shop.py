"""The four tables of google_merch_store: hits taken or changed, their lines and sums kept true."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recoup.errors import ConfigError, SourceError
from recoup.events import concat_batches
from recoup.injection.plan import Change, Plan
from recoup.injection.values import changed
from recoup.sources.google_merch_store import GoogleMerchStore
from recoup.sources.google_merch_store.columns import HIT, PURCHASE, VISIT
from recoup.sources.google_merch_store.shape import table_file
from recoup.sources.mapping import Column

OF_HITS: Final = {
    "page": "page_path", "query": "search_keyword", "order": "transaction_id", "value": "revenue",
    "tax": "tax", "shipping": "shipping", "latency_ms": "page_load_ms", "option": "option",
    "step": "step",
}  # fmt: skip
OF_LINES: Final = {"price": "price", "quantity": "quantity", "item": "sku", "brand": "brand"}
ZONE: Final = "America/Los_Angeles"
"""The shop's days, at whose midnight the export splits a visit."""
AGAIN: Final = 100_000
"""Added to the number of a hit that is sent once more."""
ID: Final = "id_"


class ShopLog:
    """The shop's tables.

    Parameters
    ----------
    folder
        Where they are.
    source
        The same, as opened.
    """

    def __init__(self, folder: Path, source: GoogleMerchStore) -> None:
        self._folder, self._source = folder, source
        self._ids = pl.Series(ID, [], pl.String)

    def events(self) -> pl.DataFrame:
        """Read every event."""
        whole = concat_batches(part.batch for part in self._source.batches()).events
        self._ids = whole["id"]
        return whole

    def write(self, plan: Plan, out: Path) -> None:
        """Write the four tables as a plan says."""
        told = pl.DataFrame({
            ID: self._ids, "gone": plan.gone, "delay": plan.delay_us, "copies": plan.copies,
        }).unique(ID, keep="first", maintain_order=True)  # fmt: skip
        before = _named(self._table("events"))
        after = self._hits(before, told, plan)
        cut = _ends(before, after)
        cut.drop(ID).write_parquet(out / "events.parquet", compression="zstd")
        for name, fields in (("hit_products", OF_LINES), ("hit_promotions", {})):
            if table_file(self._folder, name) is not None:
                lines = self._changed(_named(self._table(name)), plan.changes, fields)
                _repeated(lines, told).drop(ID).write_parquet(
                    out / f"{name}.parquet", compression="zstd"
                )
        if table_file(self._folder, "sessions") is not None:
            sessions = _sums(self._table("sessions"), before, cut)
            sessions.write_parquet(out / "sessions.parquet", compression="zstd")

    def _table(self, name: str) -> pl.DataFrame:
        path = table_file(self._folder, name)
        if path is None or path.suffix != ".parquet":
            raise SourceError(
                f"Expected {name}.parquet in `{self._folder}`, got {path}",
                hint="the four tables are read and written as Parquet here",
            )
        table = pl.read_parquet(path)
        lacking = [c for c in (VISIT if name == "sessions" else HIT) if c not in table.columns]
        if lacking:
            raise SourceError(f"Expected columns {', '.join(lacking)} in `{path}`, got none")
        return table

    def _hits(self, hits: pl.DataFrame, told: pl.DataFrame, plan: Plan) -> pl.DataFrame:
        altered = self._changed(hits, plan.changes, OF_HITS)
        delays = altered.select(ID).join(told, on=ID, how="left", maintain_order="left")["delay"]
        moved = altered["ts"] + delays.fill_null(0).cast(pl.Duration("us"))
        return _repeated(altered.with_columns(moved.alias("ts")), told)

    def _changed(
        self, table: pl.DataFrame, changes: list[Change], fields: dict[str, str]
    ) -> pl.DataFrame:
        """Write the fields that stand in this table anew."""
        for change in changes:
            rows = table[ID].is_in(self._ids[change.rows].implode()).fill_null(value=False)
            if fields is OF_LINES and "is_impression" in table.columns:
                rows &= ~table["is_impression"].fill_null(value=False)
            for field in (*change.set, *change.scale, *change.add):
                if field not in {**OF_HITS, **OF_LINES}:
                    raise ConfigError(
                        f"Expected a field of the hits or their lines, got `{field}`",
                        hint=f"one of {', '.join([*OF_HITS, *OF_LINES])}",
                    )
                name = fields.get(field)
                if name is not None and name in table.columns:
                    table = table.with_columns(_put(table[name], rows, field, change))
        return table


def _put(column: pl.Series, rows: pl.Series, field: str, change: Change) -> pl.Series:
    new = changed(column.filter(rows).to_list(), field, Column(column=column.name), change)
    fresh = pl.Series(new, strict=False).cast(column.dtype, strict=False)
    return column.scatter(rows.arg_true(), fresh) if len(fresh) else column


def _named(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.concat_str(HIT, separator="-").alias(ID))


def _repeated(table: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Take the rows of hits that are gone, and repeat those that are sent again."""
    beside = table.select(ID).join(told, on=ID, how="left", maintain_order="left")
    gone = beside["gone"].fill_null(value=False)
    copies = (1 + beside["copies"].fill_null(0)).to_numpy() * (~gone).to_numpy()
    taken = np.repeat(np.arange(table.height), copies)
    starts = np.cumsum(copies) - copies
    number = np.arange(len(taken)) - np.repeat(starts, copies)
    later = pl.Series(number * AGAIN, dtype=table.schema["hit_number"])
    return table[taken].with_columns(pl.col("hit_number") + later)


def _ends(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Let the last page of every visit that was cut be its exit."""
    if "is_exit" not in after.columns:
        return after
    shorter = _touched(before, after)
    page = (pl.col("hit_type") == "PAGE") if "hit_type" in after.columns else pl.lit(value=True)
    last = (pl.col("hit_number") == pl.col("hit_number").filter(page).max()).over(VISIT)
    cut = after.join(shorter, on=VISIT, how="left", maintain_order="left")
    return cut.with_columns(is_exit=pl.when("touched").then(last & page).otherwise("is_exit")).drop(
        "touched"
    )


def _touched(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Name the visits whose hits are no longer the same."""
    measures = (pl.len().alias("hits"), pl.col("ts").cast(pl.Int64).sum().alias("when"))
    one, two = (table.group_by(VISIT).agg(*measures) for table in (before, after))
    joined = one.join(two, on=VISIT, how="left", suffix="_after")
    same = (pl.col("hits") == pl.col("hits_after")) & (pl.col("when") == pl.col("when_after"))
    changed_ = joined.filter(~same.fill_null(value=False))
    return changed_.select(*VISIT, touched=pl.lit(value=True))


def _sums(sessions: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Sum the visits that changed up anew; a visit without a hit has no row."""
    touched = _touched(before, after)
    key = [*VISIT, "ga_date"] if "ga_date" in sessions.columns else list(VISIT)
    sums = _measured(after, touched, key)
    sold = _measured(before, touched, key).select(*key, sold="transactions")
    joined = (
        sessions.join(touched, on=VISIT, how="left", maintain_order="left")
        .join(sums, on=key, how="left", maintain_order="left", suffix="_new")
        .join(sold, on=key, how="left", maintain_order="left")
    )
    kept = joined.filter(pl.col("touched").is_null() | pl.col("hits_new").is_not_null())
    renewed = [
        pl.when(_renews(name)).then(pl.col(f"{name}_new").cast(dtype)).otherwise(name).alias(name)
        for name, dtype in sessions.schema.items()
        if f"{name}_new" in kept.columns
    ]
    return kept.with_columns(renewed).select(sessions.columns)


MONEY: Final = ("transactions", "revenue", "total_revenue")


def _renews(name: str) -> pl.Expr:
    """Say which sums change: those of money only where an order went."""
    touched = pl.col("touched").is_not_null()
    if name not in MONEY:
        return touched
    return touched & pl.col("transactions_new").ne_missing(pl.col("sold"))


def _measured(hits: pl.DataFrame, touched: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    inside = hits.join(touched, on=VISIT, how="semi")
    local = pl.col("ts").dt.replace_time_zone("UTC").dt.convert_time_zone(ZONE)
    dated = inside.with_columns(ga_date=local.dt.strftime("%Y%m%d"))
    return dated.group_by(key).agg(**_measures(hits.columns))


def _measures(columns: list[str]) -> dict[str, pl.Expr]:
    receipt = pl.col("action_type") == PURCHASE
    paid = receipt & pl.col("revenue").is_not_null()
    costs = [name for name in ("tax", "shipping") if name in columns]
    total = pl.col("revenue").filter(paid).sum()
    named = pl.col("transaction_id").filter(receipt).drop_nulls().n_unique()
    sold = pl.max_horizontal(paid.sum(), named)
    spent = sum((pl.col(name).filter(paid).sum() for name in costs), pl.lit(0.0))
    length = (pl.col("ts").max() - pl.col("ts").min()).dt.total_seconds()
    pages = (pl.col("hit_type") == "PAGE").sum()
    return {
        "hits": pl.len(),
        "pageviews": pl.when(pages > 0).then(pages),
        "bounces": pl.when(pl.len() == 1).then(1),
        "time_on_site_s": pl.when(length > 0).then(length),
        "transactions": pl.when(sold > 0).then(sold),
        "revenue": pl.when(sold > 0).then(total - spent),
        "total_revenue": pl.when(sold > 0).then(total),
    }
