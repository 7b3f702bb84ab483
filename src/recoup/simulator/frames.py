"""From the kernels' tables to frames: codes become strings, and rows stand in order of time."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import EVENT_NAMES, EVENT_SCHEMA, ITEM_SCHEMA, EventBatch, EventName, ItemRole
from recoup.simulator import catalogue
from recoup.simulator import layout as at
from recoup.simulator.names import NAMES
from recoup.simulator.world import World

SOURCE: Final = "simulator"
_PEOPLE: Final = ("device", "browser", "os", "channel", "country", "region")
_MEASURES: Final = (
    "value", "price", "shipping", "quantity", "position", "results", "step", "attempt",
    "visit_number",
)  # fmt: skip


def _words(values: tuple[str, ...]) -> pl.Expr:
    return pl.lit(pl.Series([None, *values], dtype=pl.String))


_VALUES: Final = {
    **NAMES,
    "list_name": catalogue.LISTS,
    "coupon": catalogue.COUPONS,
    "shipping_method": catalogue.SHIPPING_METHODS,
    "error_code": catalogue.ERRORS,
    "option": catalogue.OPTIONS,
    "element": catalogue.ELEMENTS,
}
_WORDS: Final = {name: _words(values) for name, values in _VALUES.items()}
_CODED: Final = (
    "item", "query", "page", "category", "list_name", "coupon", "payment_method",
    "shipping_method", "error_code", "option", "element", "build", *_PEOPLE,
)  # fmt: skip


def visitor_names(visitors: NDArray[np.int64]) -> pl.Series:
    """Give the visitors' ids: ``v0000001`` is the first."""
    return pl.select(pl.lit("v") + _padded(pl.lit(pl.Series(visitors)))).to_series()


def visitor_numbers(names: pl.Series) -> pl.Series:
    """Read :func:`visitor_names` back; null where a name is none of the shop's."""
    number = pl.when(names.str.contains(r"^v\d{7,}$")).then(names.str.slice(1))
    return pl.select(number.cast(pl.Int64) - 1).to_series()


def to_batch(events: NDArray[np.int64], lines: NDArray[np.int64], world: World) -> EventBatch:
    """Give rows of the kernels as a batch, ordered by time, then visitor.

    Parameters
    ----------
    events
        Shape (n, EVENT_WIDTH).
    lines
        Shape (m, LINE_WIDTH); their event is a row of ``events``.
    """
    order = np.lexsort((events[:, at.E_NUMBER], events[:, at.E_VISITOR], events[:, at.E_TS]))
    raw = _raw_events(events[order], world)
    return EventBatch(raw.select(_EVENTS), _to_lines(lines, order))


def _raw_events(events: NDArray[np.int64], world: World) -> pl.DataFrame:
    columns = np.ascontiguousarray(events.T)
    raw = {name: columns[index] for index, name in enumerate(at.EVENT_COLUMNS)}
    people = np.ascontiguousarray(world.people[columns[at.E_VISITOR], : at.CIRCUMSTANCES].T)
    return pl.DataFrame(raw | dict(zip(_PEOPLE, people, strict=True)))


def _padded(number: pl.Expr) -> pl.Expr:
    return (number + 1).cast(pl.String).str.zfill(7)


def _measure(name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.when(pl.col(name) >= 0).then(pl.col(name)).cast(dtype).alias(name)


def _event_columns() -> list[pl.Expr]:
    visitor = pl.lit("v") + _padded(pl.col("visitor"))
    numbered = {
        "ts": pl.col("ts").cast(EVENT_SCHEMA["ts"]),
        "source": pl.lit(SOURCE),
        "id": pl.concat_str(visitor, pl.lit("-"), pl.col("number").cast(pl.String)),
        "seq": pl.col("number"),
        "event": pl.lit(pl.Series(EVENT_NAMES, dtype=EventName)).gather(pl.col("event")),
        "visitor": visitor,
        "session": pl.concat_str(visitor, pl.lit("."), pl.col("visit").cast(pl.String)),
        "order": pl.when(pl.col("order") > 0).then(
            pl.concat_str(
                pl.lit("o"), visitor.str.slice(1), pl.lit("-"), pl.col("order").cast(pl.String)
            )
        ),
        "currency": pl.lit(catalogue.CURRENCY),
        "in_stock": pl.when(pl.col("in_stock") >= 0).then(pl.col("in_stock") == 1),
        "is_new_visitor": pl.col("is_new_visitor") == 1,
    }
    coded = {name: _WORDS[name].gather(pl.col(name)) for name in _CODED}
    measured = {
        name: _measure(name, EVENT_SCHEMA[name])
        for name in (*_MEASURES, "latency_ms", "promise_days")
    }
    stated = {**numbered, **coded, **measured}
    return [
        stated.get(name, pl.lit(None, dtype)).alias(name) for name, dtype in EVENT_SCHEMA.items()
    ]


_EVENTS: Final = _event_columns()


def _line_columns() -> list[pl.Expr]:
    goods = catalogue.goods()
    category = pl.lit(pl.Series(goods.items[:, catalogue.ITEM_CATEGORY].copy())).gather(
        pl.col("item")
    )
    brands = [catalogue.BRANDS[n % len(catalogue.BRANDS)] for n in range(len(NAMES["item"]))]
    item_names = [name.replace("-", " No. ").capitalize() for name in NAMES["item"]]
    price = pl.lit(pl.Series(goods.items[:, catalogue.ITEM_PRICE].copy())).gather(pl.col("item"))
    quantity = _measure("quantity", pl.Int64())
    stated = {
        "event": pl.col("event").cast(pl.UInt32),
        "role": pl.lit(pl.Series(["subject", "impression"], dtype=ItemRole)).gather(
            pl.col("role") - 1
        ),
        "item": _WORDS["item"].gather(pl.col("item")),
        "item_name": _words(tuple(item_names)).gather(pl.col("item")),
        "category": _WORDS["category"].gather(category),
        "brand": _words(tuple(brands)).gather(pl.col("item")),
        "list_name": _WORDS["list_name"].gather(pl.col("list_name")),
        "price": price,
        "quantity": quantity,
        "position": _measure("position", pl.Int64()),
        "value": quantity * price,
    }
    return [
        stated.get(name, pl.lit(None, dtype)).alias(name) for name, dtype in ITEM_SCHEMA.items()
    ]


_LINES: Final = _line_columns()


def _to_lines(lines: NDArray[np.int64], order: NDArray[np.int64]) -> pl.DataFrame:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    event = rank[lines[:, at.L_EVENT]]
    lines = lines[np.argsort(event, kind="stable")]
    columns = np.ascontiguousarray(lines.T)
    names = ("event", "role", "item", "quantity", "position", "list_name")
    raw = pl.DataFrame(dict(zip(names, columns, strict=True)))
    return raw.with_columns(event=pl.Series(np.sort(event))).select(_LINES)
