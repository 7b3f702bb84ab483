"""The native format: a row per event under the vocabulary's own names, item lines inside it."""

import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from recoup.errors import ConfigError
from recoup.events import (
    CONTEXT,
    COUNTS,
    ENTITIES,
    EVENT_SCHEMA,
    FLAGS,
    ITEM_SCHEMA,
    MONEY,
    REALS,
    REQUIRED,
    EventBatch,
    conform,
)
from recoup.sources.convert import Converted
from recoup.sources.mapping import Column, Items, Mapping, Names, Time
from recoup.sources.tables import Block
from recoup.sources.values import EARLIEST, SKEW

NAME: Final = "native"
ITEMS: Final = "items"
NEEDED: Final = ("ts", "event", "visitor")
LINE_FIELDS: Final = tuple(name for name in ITEM_SCHEMA if name != "event")
LINES: Final = pl.List(pl.Struct({name: ITEM_SCHEMA[name] for name in LINE_FIELDS}))

MAPPING: Final = Mapping(
    ts=Time("ts"),
    event=Names(column="event"),
    columns={
        name: Column(column=name, unit="micros")
        for name in ("source", "id", "seq", "custom_name", "extra", *ENTITIES, *CONTEXT, *MONEY,
                     *COUNTS, *REALS, *FLAGS)
    },
    items=Items(column=ITEMS, unit="micros"),
    source=NAME,
    nulls=("",),
)  # fmt: skip
"""The vocabulary mapped onto itself."""

_LINE_TABLE: Final = {
    "source": pl.String(),
    "id": pl.String(),
    **{name: ITEM_SCHEMA[name] for name in LINE_FIELDS},
}
"""A table of item lines beside their events."""


def is_native(columns: Iterable[str]) -> bool:
    """Say whether a table has the native columns that no event lacks."""
    return set(NEEDED) <= set(columns)


def take_whole(block: Block, now: dt.datetime) -> Converted | None:
    """Take a block as it stands, where it keeps the contract already; else None."""
    frame = block.frame
    if any(frame.schema.get(name) != dtype for name, dtype in EVENT_SCHEMA.items()):
        return None
    if frame.schema.get(ITEMS, LINES) != LINES or frame.width > len(EVENT_SCHEMA) + 1:
        return None
    events = frame.select(EVENT_SCHEMA.names())
    if not _sound(events, now):
        return None
    names = events["event"]
    lines = _lines(frame)
    return Converted(events, lines, block.dead_letters, block, events["ts"], names, 0, 0, {})


def _sound(events: pl.DataFrame, now: dt.datetime) -> bool:
    """Say whether nothing in the frame needs to be refused or made."""
    amounts = [*MONEY, *COUNTS]
    wrong = [
        *(pl.col(name).is_null() for name in REQUIRED),
        (pl.col("ts") < EARLIEST) | (pl.col("ts") > now + SKEW),
        *(pl.col(name) < 0 for name in amounts),
        *(~pl.col(name).is_finite() | (pl.col(name) < 0) for name in REALS),
        *(pl.col(name) == "" for name in ("id", "visitor", "source")),
    ]
    return not events.select(pl.any_horizontal(*wrong).any()).item()


def _lines(frame: pl.DataFrame) -> pl.DataFrame:
    if ITEMS not in frame.columns:
        return pl.DataFrame(schema=ITEM_SCHEMA)
    lists = frame.select(ITEMS).with_row_index("row").drop_nulls().explode(ITEMS).drop_nulls()
    lines = lists.unnest(ITEMS).rename({"row": "event"})
    return conform(lines.with_columns(role=pl.col("role").fill_null("subject")), ITEM_SCHEMA)


def nest(batch: EventBatch) -> pl.DataFrame:
    """Put the item lines of a batch into its events, as a column ``items`` of lists."""
    lines = batch.items.select("event", pl.struct(LINE_FIELDS).alias(ITEMS))
    lists = lines.group_by("event", maintain_order=True).agg(ITEMS)
    rows = batch.events.with_row_index("row_")
    joined = rows.join(lists, left_on="row_", right_on="event", how="left", maintain_order="left")
    return joined.drop("row_").with_columns(pl.col(ITEMS).cast(LINES))


def write_native(batches: Iterable[EventBatch], path: Path, *, beside: bool = False) -> Path:
    """Write events to a file that :func:`recoup.sources.open_source` reads back unchanged.

    Parameters
    ----------
    path
        A file ending in ``.parquet`` or ``.ndjson``, or a directory, which gets
        ``events.parquet``.
    beside
        Write the item lines of a directory to an ``items.parquet`` beside its events.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ConfigError
        If lines shall lie beside the events of a single file, or the ending is another.
    """
    if path.suffix not in ("", ".parquet", ".ndjson"):
        raise ConfigError(
            f"Expected a file ending in .parquet or .ndjson, or a directory, got `{path}`"
        )
    if beside and path.suffix:
        raise ConfigError(
            f"Expected a directory for events with item lines beside them, got `{path}`"
        )
    target = path if path.suffix else path / "events.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        whole = Path(folder) / target.name
        if beside:
            lines = Path(folder) / f"{ITEMS}.parquet"
            _write_parquet(_parted(batches, lines), whole)
            lines.replace(target.with_name(lines.name))
        elif target.suffix == ".parquet":
            _write_parquet(map(nest, batches), whole)
        else:
            _write_ndjson(batches, whole)
        whole.replace(target)
    return target


def _parted(batches: Iterable[EventBatch], target: Path) -> Iterator[pl.DataFrame]:
    """Give the events without their lines, and write those once all have been given."""
    lines = [pl.DataFrame(schema=_LINE_TABLE)]
    for batch in batches:
        own = batch.events.select("source", "id").with_row_index("event")
        lines.append(
            batch.items.join(own, on="event", how="left", maintain_order="left").select(
                _LINE_TABLE.keys()
            )
        )
        yield batch.events
    pl.concat(lines).write_parquet(target)


def _write_parquet(frames: Iterable[pl.DataFrame], target: Path) -> None:
    """Write by way of one part per batch, so that the whole is never in memory."""
    parts = []
    for number, frame in enumerate(frames):
        part = target.with_name(f"part-{number:08d}.arrow")
        frame.write_ipc(part, compression="zstd")
        parts.append(part)
    if not parts:
        empty = pl.DataFrame(schema={**EVENT_SCHEMA, ITEMS: LINES})
        empty.write_parquet(target)
        return
    pl.scan_ipc(parts).sink_parquet(target, compression="zstd")


def _write_ndjson(batches: Iterable[EventBatch], target: Path) -> None:
    with target.open("wb") as stream:
        for batch in batches:
            frame = nest(batch)
            kept = [column.name for column in frame if column.null_count() < frame.height]
            moments = pl.col("ts").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
            stream.write(frame.select(kept).with_columns(moments).write_ndjson().encode())
