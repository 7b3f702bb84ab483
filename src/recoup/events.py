"""The event vocabulary and its columnar schema.

An event is something a shopper did, or was shown, at a time. Events travel in batches: one polars
frame of events, one row each, and beside it one frame of item lines, each pointing at its event by
row number. Kernels never see frames: :func:`encode` turns the columns they ask for into numpy
arrays, with every entity as a stable 64-bit hash.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recoup.errors import SchemaError

MICROS: Final = 1_000_000

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Money and every summed measure are int64 counts of 1e-6 units; times are int64 microseconds."""

EVENT_NAMES: Final = (
    "custom",
    "session_start",
    "page_view",
    "page_timing",
    "scroll",
    "login",
    "sign_up",
    "search",
    "view_search_results",
    "filter_results",
    "view_item_list",
    "select_item",
    "view_promotion",
    "select_promotion",
    "view_item",
    "add_to_wishlist",
    "add_to_cart",
    "remove_from_cart",
    "view_cart",
    "begin_checkout",
    "add_shipping_info",
    "add_payment_info",
    "purchase",
    "refund",
    "ui_error",
    "click_frustration",
    "payment_error",
    "form_error",
    "auth_error",
    "coupon_attempt",
    "stock_status",
    "price_change",
    "promise_change",
    "shipping_quote",
    "delivery",
    "return",
    "contact",
    "page_leave",
)
"""Canonical names, GA4's first. A name's position is its code for ever: append, never reorder."""

CODE: Final = {name: code for code, name in enumerate(EVENT_NAMES)}
"""Event name -> int64 code, as kernels see it."""

EventName: Final = pl.Enum(EVENT_NAMES)
ItemRole: Final = pl.Enum(["subject", "impression", "promotion"])
"""What an item is to its event: what it acts on, one of a list shown, or a promotion shown."""

TIMESTAMP: Final = pl.Datetime("us", "UTC")

ENTITIES: Final = (
    "visitor", "session", "item", "query", "page", "category", "brand", "list_name", "promotion",
    "order", "coupon", "payment_method", "shipping_method", "element",
)  # fmt: skip
"""String columns that name what an event is about."""

CONTEXT: Final = (
    "device", "browser", "os", "channel", "traffic_source", "medium", "campaign", "country",
    "region", "city", "language", "build", "market", "arm", "currency", "error_code", "option",
)  # fmt: skip
"""String columns that say under which circumstances it happened."""

MONEY: Final = ("value", "price", "tax", "shipping")
"""Int64 micro-units of the event's currency. ``price`` is one unit of the event's own item."""

COUNTS: Final = ("quantity", "position", "results", "step", "attempt", "visit_number")
"""Int64 measures."""

REALS: Final = ("latency_ms", "promise_days", "dwell_ms", "propensity")
"""Float64 measures; null where unknown, never NaN or infinite."""

FLAGS: Final = ("in_stock", "is_new_visitor")
"""Boolean measures."""

EVENT_SCHEMA: Final = pl.Schema(
    {
        "ts": TIMESTAMP,
        "source": pl.String(),
        "id": pl.String(),
        "seq": pl.Int64(),
        "event": EventName,
        "custom_name": pl.String(),
        **dict.fromkeys(ENTITIES, pl.String()),
        **dict.fromkeys(CONTEXT, pl.String()),
        **dict.fromkeys(MONEY, pl.Int64()),
        **dict.fromkeys(COUNTS, pl.Int64()),
        **dict.fromkeys(REALS, pl.Float64()),
        **dict.fromkeys(FLAGS, pl.Boolean()),
        "extra": pl.String(),
    }
)
"""One row per event, in this column order.

``(source, id)`` is the deduplication key. Events are ordered by ``(ts, seq, source, id)``; ``seq``
is the source's own counter where it has one (GA4's ``batch_event_index``, a hit number), else 0.
``custom_name`` keeps the raw name of an event outside the vocabulary; ``extra`` keeps unknown
fields as one JSON object. ``ts``, ``source``, ``id``, ``seq``, ``event`` and ``visitor`` are never
null; everything else may be.
"""

EXTRA: Final = "extra."
"""Settings call a field inside ``extra`` by this and its name."""

ITEM_SCHEMA: Final = pl.Schema(
    {
        "event": pl.UInt32(),
        "role": ItemRole,
        "item": pl.String(),
        "item_name": pl.String(),
        "category": pl.String(),
        "brand": pl.String(),
        "variant": pl.String(),
        "list_name": pl.String(),
        "promotion": pl.String(),
        "price": pl.Int64(),
        "quantity": pl.Int64(),
        "position": pl.Int64(),
        "value": pl.Int64(),
    }
)
"""One row per item line; ``event`` is the row number of its event within the batch, ascending."""

REQUIRED: Final = ("ts", "source", "id", "seq", "event", "visitor")

DEAD_LETTER_SCHEMA: Final = pl.Schema(
    {"path": pl.String(), "reason": pl.String(), "detail": pl.String(), "raw": pl.String()}
)
"""What could not be understood: where it stood, why (a short fixed code), and the raw text."""

ENTITY_LABELS: Final = {"traffic_source": "source"}
"""Column -> the attribute's public name, where the two differ (``source`` is the dedup key)."""


class EventBatch(msgspec.Struct, frozen=True):
    """Events with their item lines, in arrival order.

    Parameters
    ----------
    events
        Frame of :data:`EVENT_SCHEMA`.
    items
        Frame of :data:`ITEM_SCHEMA`, sorted by ``event``.

    Examples
    --------
    >>> batch = EventBatch(*empty_frames())
    >>> batch.events.height, batch.items.height
    (0, 0)
    """

    events: pl.DataFrame
    items: pl.DataFrame
    _encoded: dict[str, NDArray[np.generic]] = {}

    def __len__(self) -> int:
        """Count the events."""
        return self.events.height

    def column(self, name: str) -> NDArray[np.generic]:
        """Give one column as :func:`encode` does, computed once however many stages ask for it."""
        if name not in self._encoded:
            self._encoded[name] = _encode_column(self, name)
        return self._encoded[name]


def micros_of(when: dt.datetime) -> int:
    """Give a moment as int64 microseconds since 1970 UTC; one without a zone is UTC.

    Examples
    --------
    >>> micros_of(dt.datetime(1970, 1, 2))
    86400000000
    """
    zoned = when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when
    return (zoned - EPOCH) // dt.timedelta(microseconds=1)


def moment_of(micros: int) -> dt.datetime:
    """Give microseconds since 1970 as a moment UTC.

    Examples
    --------
    >>> moment_of(86400000000).isoformat()
    '1970-01-02T00:00:00+00:00'
    """
    return EPOCH + dt.timedelta(microseconds=micros)


def iso(micros: int) -> str:
    """Give microseconds since 1970 as ISO 8601 UTC.

    Examples
    --------
    >>> iso(86400000000)
    '1970-01-02T00:00:00Z'
    """
    return moment_of(micros).isoformat().replace("+00:00", "Z")


def empty_frames() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make an events frame and an items frame without rows."""
    return pl.DataFrame(schema=EVENT_SCHEMA), pl.DataFrame(schema=ITEM_SCHEMA)


def conform(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Order a frame's columns as the schema does, adding null columns for what it lacks.

    Raises
    ------
    SchemaError
        If the frame has a column that the schema lacks, or one that cannot be cast to its type.
    """
    unknown = [name for name in frame.columns if name not in schema]
    if unknown:
        raise SchemaError(
            f"Expected only columns of the schema, got {', '.join(unknown)} besides",
            hint="keep unknown fields as JSON in `extra`",
        )
    columns = [
        pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    ]
    try:
        return frame.select(columns)
    except pl.exceptions.InvalidOperationError as error:
        raise SchemaError(f"A column does not fit its type: {error}") from error


def check_batch(batch: EventBatch) -> EventBatch:
    """Return the batch if it keeps its contract.

    Raises
    ------
    SchemaError
        If a schema differs, a required column has nulls, or an item line points at no event.
    """
    for name, frame, schema in (
        ("events", batch.events, EVENT_SCHEMA),
        ("items", batch.items, ITEM_SCHEMA),
    ):
        if frame.schema != schema:
            raise SchemaError(f"Expected the {name} schema, got {frame.schema}")
    for name in REQUIRED:
        if batch.events[name].null_count():
            raise SchemaError(f"Expected `{name}` in every event, got null")
    lines = batch.items["event"]
    if lines.len() and (not lines.is_sorted() or int(lines[-1]) >= batch.events.height):
        raise SchemaError("Expected item lines sorted by an event of the batch")
    return batch


def concat_batches(batches: Iterable[EventBatch]) -> EventBatch:
    """Join batches end to end, renumbering the item lines."""
    events, items, start = [], [], 0
    for batch in batches:
        events.append(batch.events)
        items.append(batch.items.with_columns((pl.col("event") + start).cast(pl.UInt32)))
        start += len(batch)
    if not events:
        return EventBatch(*empty_frames())
    return EventBatch(pl.concat(events), pl.concat(items))


def take(batch: EventBatch, rows: NDArray[np.integer]) -> EventBatch:
    """Pick events by row number, in the order given, with their item lines.

    Parameters
    ----------
    rows
        Shape (n,), distinct row numbers.
    """
    picked = pl.DataFrame({"event": rows}, schema={"event": pl.UInt32}).with_row_index("to")
    items = (
        batch.items.join(picked, on="event", how="inner", maintain_order="left")
        .sort("to", maintain_order=True)
        .with_columns(event=pl.col("to").cast(pl.UInt32))
        .drop("to")
    )
    return EventBatch(batch.events[rows], items)


def hash64(value: str) -> int:
    """Hash a string to a signed 64-bit key: XXH3-64 of its UTF-8 bytes, the same for ever.

    Zero stands for "absent", so the one string in 2**64 that hashes to 0 gets 1.

    Examples
    --------
    >>> hash64("visitor-1")
    -6390755231985056948
    """
    unsigned = xxhash.xxh3_64_intdigest(value.encode()) or 1
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def hash_column(column: pl.Series) -> NDArray[np.int64]:
    """Hash a string column; null becomes 0. Shape (n,)."""
    if len(column) <= SMALL:
        values_or_none = column.to_list()
        return np.array([0 if v is None else hash64(v) for v in values_or_none], np.int64)
    values = column.unique().drop_nulls()
    if values.is_empty():
        return np.zeros(len(column), np.int64)
    codes = pl.Series([hash64(value) for value in values.to_list()], dtype=pl.Int64)
    return column.replace_strict(values, codes, default=0, return_dtype=pl.Int64).to_numpy()


def encode(batch: EventBatch, columns: Iterable[str]) -> dict[str, NDArray[np.generic]]:
    """Turn columns of a batch into the arrays that kernels read, each of shape (n,).

    Strings become int64 hashes (0 where null), names int64 codes, times int64 microseconds, money
    and counts int64 (0 where null), reals float64 (NaN where null), flags int64 (-1 where null).
    Beside the columns of the schema there are ``key`` (the hash of ``(source, id)``),
    ``impressions`` and ``subjects`` (how many item lines of each role the event has). A money or
    count column whose name ends on ``?`` (``price?``) tells null from 0: null is :data:`UNKNOWN`.
    The arrays are shared by all who ask: read, do not write.

    Raises
    ------
    SchemaError
        If a column is neither of the schema nor derived.
    """
    return {name: batch.column(name) for name in columns}


SMALL: Final = 256
"""Rows up to which a loop is cheaper than a query of the frame library."""

UNKNOWN: Final = -(1 << 63)
"""Null in an int64 column that was asked for with a ``?``."""

DERIVED: Final = ("key", "impressions", "subjects")
"""Columns that :func:`encode` computes beside those of the schema."""


def _encode_column(batch: EventBatch, name: str) -> NDArray[np.generic]:
    if name in DERIVED:
        return _derive(batch, name)
    plain = name.removesuffix("?")
    if plain not in EVENT_SCHEMA or (plain != name and plain not in (*MONEY, *COUNTS)):
        raise SchemaError(
            f"Expected an event column, got `{name}`",
            hint=f"one of {', '.join([*EVENT_SCHEMA, *DERIVED])}",
        )
    column = batch.events[plain]
    if column.dtype == pl.String:
        return hash_column(column)
    if name in REALS:
        return _numbers(column, np.float64, float("nan"))
    absent = UNKNOWN if plain != name else -1 if name in FLAGS else 0
    whole = column.to_physical() if name == "event" else column
    return _numbers(whole.cast(pl.Int64), np.int64, absent)


def _numbers(column: pl.Series, dtype: type[np.generic], absent: float) -> NDArray[np.generic]:
    """Turn a numeric column into an array; short ones without the cost of a query."""
    if not column.null_count():
        return column.to_numpy()
    if len(column) <= SMALL:
        return np.array([absent if v is None else v for v in column.to_list()], dtype)
    return column.fill_null(absent).to_numpy()


def _derive(batch: EventBatch, name: str) -> NDArray[np.int64]:
    if name == "key":
        return event_keys(batch.events)
    rows = batch.items.filter(pl.col("role") == name.removesuffix("s"))["event"].to_numpy()
    return np.bincount(rows, minlength=len(batch)).astype(np.int64)


def event_keys(events: pl.DataFrame) -> NDArray[np.int64]:
    """Hash ``(source, id)`` of every event. Shape (n,)."""
    joined = events.select(pl.concat_str("source", pl.lit("\x1f"), "id")).to_series()
    return np.fromiter((hash64(text) for text in joined.to_list()), np.int64, len(joined))


def extra_field(texts: Iterable[str | None], name: str) -> list[str | None]:
    """Read one field of ``extra`` as text; only texts that mention it are decoded.

    Examples
    --------
    >>> extra_field(['{"staff": true}', None], "staff")
    ['true', None]
    """
    return [_inside(text, name) if text and name in text else None for text in texts]


def _inside(text: str, name: str) -> str | None:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, bool):
        return "true" if found else "false"
    return None if found is None else str(found)
