"""The four tables, brought to the columns and types that the rest reads."""

from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.events import DEAD_LETTER_SCHEMA, TIMESTAMP
from recoup.sources.base import RAW_LIMIT

NAME: Final = "google_merch_store"
PURCHASE: Final = 6
VISIT: Final = ("visitor_id", "visit_id")
HIT: Final = (*VISIT, "hit_number")

HITS: Final = {
    "visitor_id": pl.String(), "visit_id": pl.String(), "hit_number": pl.Int64(),
    "ts": TIMESTAMP, "hit_type": pl.String(), "action_type": pl.Int64(), "step": pl.Int64(),
    "option": pl.String(), "page_path": pl.String(), "page_title": pl.String(),
    "search_keyword": pl.String(), "event_category": pl.String(), "event_action": pl.String(),
    "event_label": pl.String(), "content_group2": pl.String(), "referer": pl.String(),
    "transaction_id": pl.String(), "revenue": pl.Float64(), "tax": pl.Float64(),
    "shipping": pl.Float64(), "page_load_ms": pl.Float64(), "server_response_ms": pl.Float64(),
    "dom_interactive_ms": pl.Float64(), "redirect_ms": pl.Float64(), "promo_view": pl.Boolean(),
    "promo_click": pl.Boolean(),
}  # fmt: skip
SESSIONS: Final = {
    "visitor_id": pl.String(), "visit_id": pl.String(), "visit_number": pl.Int64(),
    "visit_start": TIMESTAMP, "new_visits": pl.Int64(), "channel": pl.String(),
    "source": pl.String(), "medium": pl.String(), "campaign": pl.String(), "device": pl.String(),
    "browser": pl.String(), "os": pl.String(), "country": pl.String(), "region": pl.String(),
    "city": pl.String(),
}  # fmt: skip
PRODUCTS: Final = {
    "visitor_id": pl.String(), "visit_id": pl.String(), "hit_number": pl.Int64(),
    "sku": pl.String(), "product_name": pl.String(), "category": pl.String(),
    "variant": pl.String(), "brand": pl.String(), "price": pl.Float64(), "quantity": pl.Int64(),
    "revenue": pl.Float64(), "is_impression": pl.Boolean(), "list_name": pl.String(),
    "list_position": pl.Int64(),
}  # fmt: skip
PROMOTIONS: Final = {
    "visitor_id": pl.String(), "visit_id": pl.String(), "hit_number": pl.Int64(),
    "promo_id": pl.String(), "promo_name": pl.String(), "creative": pl.String(),
    "promo_position": pl.String(), "is_click": pl.Boolean(),
}  # fmt: skip
TABLES: Final = {
    "events": HITS, "sessions": SESSIONS, "hit_products": PRODUCTS, "hit_promotions": PROMOTIONS,
}  # fmt: skip

NOTHING: Final = ("", "(not set)", "not available in demo dataset", "(not provided)")
"""What the export writes where it means "unknown"."""


class Tables(msgspec.Struct, frozen=True):
    """Hits with the context of their visit, in the order of time, and the tables of lines.

    Parameters
    ----------
    hits
        One row per event that can be placed: the columns of ``HITS`` and ``SESSIONS``.
    products, promotions
        The columns of ``PRODUCTS`` and ``PROMOTIONS``; ``row`` is the hit's row number.
    dead_letters
        The hits that cannot be placed.
    findings
        What is wrong with the tables.
    """

    hits: pl.DataFrame
    products: pl.DataFrame
    promotions: pl.DataFrame
    dead_letters: pl.DataFrame
    findings: tuple[Finding, ...]


def is_shop(folder: Path) -> bool:
    """Say whether a directory holds hits of this shop's export, by the names of its files."""
    names = {path.stem for path in folder.glob("*.parquet")}
    return "events" in names and len(names & TABLES.keys()) > 1


def load(folder: Path) -> Tables:
    """Read the tables of a directory.

    Raises
    ------
    SourceError
        If there is no table of hits, or a table cannot be read.
    """
    found: dict[str, pl.DataFrame] = {}
    findings: list[Finding] = []
    for name, columns in TABLES.items():
        found[name], noticed = _shape(name, _read(folder, name), columns)
        findings += noticed
    hits, dead = _place(found["events"])
    context = found["sessions"].sort("visit_start").unique(VISIT, keep="first")
    hits = hits.join(context, on=VISIT, how="left", maintain_order="left")
    rows = hits.select(HIT).with_row_index("row").unique(HIT, keep="first").drop_nulls()
    products, promotions = (_numbered(found[n], rows) for n in ("hit_products", "hit_promotions"))
    return Tables(_first_purchases(hits), products, promotions, dead, tuple(findings))


def _read(folder: Path, name: str) -> pl.DataFrame | None:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        if name == "events":
            raise SourceError(
                f"Expected a table of hits, got no `{path}`",
                hint="the directory should hold events.parquet, and sessions.parquet, "
                "hit_products.parquet, hit_promotions.parquet where there are any",
            )
        return None
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"Expected a Parquet table, got `{path}`: {error}", hint="copy the file anew"
        ) from error


def _shape(
    name: str, table: pl.DataFrame | None, columns: dict[str, pl.DataType]
) -> tuple[pl.DataFrame, list[Finding]]:
    """Give a table just the columns expected of it; what it lacks is null, and noted."""
    if table is None:
        finding = Finding("table_missing", name, None, None, f"The log has no table `{name}`.")
        return pl.DataFrame(schema=columns), [finding]
    findings = [
        Finding(
            "column_missing", f"{name}.{column}", None, None, f"Table `{name}` has no `{column}`."
        )
        for column in columns
        if column not in table.columns
    ]
    shaped = table.select(
        _typed(table, column, dtype).alias(column) for column, dtype in columns.items()
    )
    return shaped, findings


def _typed(table: pl.DataFrame, column: str, dtype: pl.DataType) -> pl.Expr:
    if column not in table.columns:
        return pl.lit(None, dtype)
    got, value = table.schema[column], pl.col(column)
    if dtype == pl.String:
        text = value.cast(pl.String)
        return pl.when(~text.is_in(NOTHING)).then(text)
    if isinstance(got, pl.Datetime) and dtype == TIMESTAMP:
        zoned = value.dt.replace_time_zone("UTC") if got.time_zone is None else value
        return zoned.cast(TIMESTAMP)
    if dtype == pl.Float64:
        number = value.cast(dtype, strict=False)
        return pl.when(number.is_finite()).then(number)
    return value.cast(dtype, strict=False)


def _place(events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the hits that have a visitor and a time from those that do not."""
    events = events.with_row_index("line")
    reason = (
        pl.when(pl.col("visitor_id").is_null())
        .then(pl.lit("missing_visitor"))
        .when(pl.col("ts").is_null())
        .then(pl.lit("bad_timestamp"))
    )
    events = events.with_columns(reason=reason)
    refused = events.filter(pl.col("reason").is_not_null())
    dead = refused.select(
        path=pl.format("events.parquet:{}", pl.col("line") + 1),
        reason=pl.col("reason"),
        detail=pl.lit("the hit belongs to no visitor, or to no time"),
        raw=pl.struct(pl.exclude("line", "reason")).struct.json_encode().str.head(RAW_LIMIT),
    )
    placed = events.filter(pl.col("reason").is_null()).drop("reason")
    return placed.sort("ts", maintain_order=True), pl.DataFrame(dead, DEAD_LETTER_SCHEMA)


def _numbered(lines: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Replace the key of each line by the row number of its hit, in ascending order."""
    joined = lines.join(rows, on=HIT, how="inner").drop(HIT)
    return joined.sort("row", maintain_order=True)


def _first_purchases(hits: pl.DataFrame) -> pl.DataFrame:
    """Mark the first hit of each transaction: a receipt viewed again is no second purchase."""
    order = pl.coalesce("transaction_id", pl.concat_str(VISIT, separator="-"))
    first = (pl.col("action_type") == PURCHASE).fill_null(value=False)
    return hits.with_columns(is_purchase=first & (pl.int_range(pl.len()).over(first, order) == 0))
