"""Logs with a row per item line: the rows of one order become one event with item lines."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import polars as pl

from recoup.events import ITEM_SCHEMA, MICROS, ItemRole, conform
from recoup.sources.mapping import Items
from recoup.sources.tables import BLOCK, Block, dead_frame
from recoup.sources.values import as_text, read_count, read_money, read_text

MAX_HELD: Final = 8 * BLOCK
"""Rows of one event; a longer run is parted."""
EVENT: Final = "event"


class Grouped(msgspec.Struct, frozen=True):
    """A block of lines, parted.

    Parameters
    ----------
    events
        The first row of each event.
    lines
        Every row.
    number
        For each row of ``lines`` the row of ``events`` that it belongs to.

    Examples
    --------
    >>> rows = pl.DataFrame({"order": ["a", "a", "b"]})
    >>> grouped = group(Block("x", rows, pl.Series([1, 2, 3]), dead_frame([])), ["order"])
    >>> grouped.number.to_list()
    [0, 0, 1]
    """

    events: Block
    lines: pl.DataFrame
    number: pl.Series


def keys_of(block: Block, by: Sequence[str]) -> pl.Series:
    """Give the key of each row: null keys make every row an event of its own."""
    frame = block.frame
    parts = [
        read_text(frame[name]).alias(name)
        if name in frame.columns
        else pl.Series(name, [None], dtype=pl.String).new_from_index(0, frame.height)
        for name in by
    ]
    joined = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator="\x1f")).to_series()
    alone = "\x1e" + block.rows.cast(pl.String)
    return joined.fill_null(alone)


def whole_groups(blocks: Iterable[Block], by: Sequence[str]) -> Iterator[Block]:
    """Hold back the rows of the last event of a block until its end is known."""
    held: Block | None = None
    for block in blocks:
        if held is not None and held.label != block.label:
            yield held
            held = None
        joined = block if held is None else _join(held, block)
        keys = keys_of(joined, by)
        ends = (keys != keys.shift()).arg_true()
        last = int(ends[-1]) if len(ends) else 0
        if last == 0 and joined.frame.height < MAX_HELD:
            held = joined
            continue
        cut = last or joined.frame.height
        yield _slice(joined, 0, cut, dead=True)
        held = _slice(joined, cut, joined.frame.height, dead=False)
    if held is not None:
        yield held


def _slice(block: Block, start: int, stop: int, *, dead: bool) -> Block:
    return Block(
        block.label,
        block.frame.slice(start, stop - start),
        block.rows.slice(start, stop - start),
        block.dead_letters if dead else dead_frame([]),
    )


def _join(first: Block, second: Block) -> Block:
    try:
        frame = pl.concat([first.frame, second.frame], how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        texts = [
            pl.DataFrame([as_text(column) for column in block.frame]) for block in (first, second)
        ]
        frame = pl.concat(texts, how="diagonal")
    rows = first.rows.append(second.rows)
    return Block(second.label, frame, rows, pl.concat([first.dead_letters, second.dead_letters]))


def group(block: Block, by: Sequence[str]) -> Grouped:
    """Part a block into the first row of each event and the lines of all."""
    keys = keys_of(block, by)
    starts = (keys != keys.shift()).fill_null(value=True)
    number = (starts.cast(pl.UInt32).cum_sum() - 1).cast(pl.UInt32)
    events = Block(
        block.label, block.frame.filter(starts), block.rows.filter(starts), block.dead_letters
    )
    return Grouped(events, block.frame, number)


def line_frame(grouped: Grouped, rule: Items) -> tuple[pl.DataFrame, pl.Series]:
    """Give the item lines, numbered by event, and the events in which a number was refused.

    A line's value is its price times its quantity where no column says it. Lines that take goods
    back have a negative value and a positive quantity.
    """
    columns: dict[str, pl.Series] = {EVENT: grouped.number}
    refused = pl.repeat(False, grouped.lines.height, dtype=pl.Boolean, eager=True)  # noqa: FBT003
    for field, name in rule.fields.items():
        if name not in grouped.lines.columns:
            continue
        column = grouped.lines[name]
        if field in {"price", "value"}:
            reading = read_money(column, rule.unit)
        elif field in {"quantity", "position"}:
            reading = read_count(column)
        else:
            columns[field] = read_text(column)
            continue
        columns[field] = reading.values
        refused |= reading.reasons.is_not_null()
    if "price" in columns:
        negative = (columns["price"] < 0).fill_null(value=False)
        refused |= negative
        columns["price"] = columns["price"].set(negative, None)
    if "value" not in columns and {"price", "quantity"} <= columns.keys():
        columns["value"] = _product(columns["price"], columns["quantity"])
    if "quantity" in columns:
        columns["quantity"] = columns["quantity"].abs()
    if "role" not in columns:
        columns["role"] = pl.repeat(rule.role, len(grouped.number), dtype=ItemRole, eager=True)
    frame = conform(pl.DataFrame([c.alias(n) for n, c in columns.items()]), ITEM_SCHEMA)
    return frame, grouped.number.filter(refused).unique()


def _product(price: pl.Series, quantity: pl.Series) -> pl.Series:
    """Multiply micro-units by a count; what does not fit is null."""
    product = price.cast(pl.Float64) * quantity
    fits = (product.abs() < MICROS * 1e12).fill_null(value=False)
    return price.set(~fits, None) * quantity.set(~fits, None)


def totals(lines: pl.DataFrame, height: int) -> pl.Series:
    """Sum the values of each event's lines, in micro-units; null where none has a value."""
    sums = (
        lines.drop_nulls("value").group_by(EVENT).agg(pl.col("value").cast(pl.Float64).sum())
    ).filter(pl.col("value").abs() < MICROS * 1e12)
    every = pl.DataFrame({EVENT: pl.int_range(height, dtype=pl.UInt32, eager=True)})
    joined = every.join(sums, on=EVENT, how="left", maintain_order="left")
    return joined["value"].round().cast(pl.Int64)
