"""Logs with a row per item line: the rows of one order become one event with item lines."""

import itertools
from collections.abc import Iterable, Iterator
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
    >>> block = Block("x", rows, pl.Series([1, 2, 3]), dead_frame([]))
    >>> grouped = group(block, Items(group_by=["order"]))
    >>> grouped.number.to_list()
    [0, 0, 1]
    """

    events: Block
    lines: pl.DataFrame
    number: pl.Series


def keys_of(block: Block, rule: Items) -> pl.Series:
    """Give the key of each row: null keys make every row an event of its own."""
    frame = block.frame
    parts = [
        read_text(frame[name]).alias(name)
        if name in frame.columns
        else pl.Series(name, [None], dtype=pl.String).new_from_index(0, frame.height)
        for name in dict.fromkeys([*rule.group_by, *rule.needs])
    ]
    key = pl.concat_str(rule.group_by, separator="\x1f")
    whole = pl.all_horizontal(pl.all().is_not_null())
    joined = pl.DataFrame(parts).select(key=pl.when(whole).then(key)).to_series()
    alone = "\x1e" + block.rows.cast(pl.String)
    return joined.fill_null(alone)


def whole_groups(blocks: Iterable[Block], rule: Items) -> Iterator[Block]:
    """Bring the rows of each event together, and cut no event at the end of a block."""
    if rule.within == "file":
        return _adjacent(_gathered_files(blocks, rule), rule)
    if rule.within:
        return _gathered(blocks, rule, rule.within)
    return _adjacent(blocks, rule)


def _gathered(blocks: Iterable[Block], rule: Items, within: int) -> Iterator[Block]:
    """Hold back an event, and what began after it, until no row of it can follow."""
    held: Block | None = None
    for block in blocks:
        if held is not None and held.label != block.label:
            yield _together(held, rule)
            held = None
        joined = block if held is None else _join(held, block)
        frame = pl.DataFrame({"key": keys_of(joined, rule)}).with_row_index("row")
        spans = frame.select(
            first=pl.col("row").min().over("key"), last=pl.col("row").max().over("key")
        )
        height = joined.frame.height
        open_ = spans.filter(pl.col("last") + within >= height)["first"].min()
        cut = height if height >= MAX_HELD + within else open_
        ripe = spans["first"] < (height if cut is None else cut)
        yield _together(_pick(joined, ripe.arg_true(), dead=True), rule)
        held = _pick(joined, (~ripe).arg_true(), dead=False)
    if held is not None:
        yield _together(held, rule)


def _gathered_files(blocks: Iterable[Block], rule: Items) -> Iterator[Block]:
    for _, of_file in itertools.groupby(blocks, key=lambda block: block.label):
        whole = _together(_join(*of_file), rule)
        yield from (
            _slice(whole, start, start + BLOCK, dead=start == 0)
            for start in range(0, max(1, whole.frame.height), BLOCK)
        )


def _together(block: Block, rule: Items) -> Block:
    """Put the rows of each event behind its first."""
    keys = pl.DataFrame({"key": keys_of(block, rule)}).with_row_index("row")
    first = keys.select(pl.col("row").min().over("key")).to_series()
    if first.is_sorted():
        return block
    return _pick(block, keys["row"].gather(_stable(first)), dead=True)


def _stable(values: pl.Series) -> pl.Series:
    order = pl.DataFrame({"value": values}).with_row_index("row")
    return order.sort("value", maintain_order=True)["row"]


def _adjacent(blocks: Iterable[Block], rule: Items) -> Iterator[Block]:
    """Hold back the rows of the last event of a block until its end is known."""
    held: Block | None = None
    for block in blocks:
        if held is not None and held.label != block.label:
            yield held
            held = None
        joined = block if held is None else _join(held, block)
        keys = keys_of(joined, rule)
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


def _pick(block: Block, rows: pl.Series, *, dead: bool) -> Block:
    return Block(
        block.label,
        block.frame[rows],
        block.rows.gather(rows),
        block.dead_letters if dead else dead_frame([]),
    )


def _join(*blocks: Block) -> Block:
    frames = [block.frame for block in blocks]
    try:
        frame = pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        texts = [pl.DataFrame([as_text(column) for column in frame]) for frame in frames]
        frame = pl.concat(texts, how="diagonal")
    rows = pl.concat([block.rows for block in blocks], rechunk=True)
    return Block(blocks[-1].label, frame, rows, pl.concat([b.dead_letters for b in blocks]))


def group(block: Block, rule: Items) -> Grouped:
    """Part a block into the first row of each event and the lines of all."""
    keys = keys_of(block, rule)
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
