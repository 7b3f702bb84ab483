"""The slices that are searched: values of one attribute, and of pairs of attributes."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.defects.risks import Step
from recoup.defects.tables import CONTEXTS, TOUCHED

PAIRS: Final = (
    ("device", "browser"), ("device", "country"), ("browser", "country"), ("browser", "os"),
    ("device", "channel"), ("build", "device"), ("build", "browser"), ("channel", "country"),
    ("page", "browser"), ("page", "device"), ("page", "country"), ("item", "device"),
    ("payment_method", "device"), ("payment_method", "country"),
)  # fmt: skip
"""Attribute pairs that are searched beside single attributes."""

LEAST_EXPECTED: Final = 4.0
"""Slices with fewer expected to go on cannot show a loss, and are not searched."""
MAX_SLICES: Final = 4_000
"""Most slices a step is searched for: those with the most expected to go on."""


class Slice(msgspec.Struct, frozen=True):
    """Sessions at risk in a step that share an entity.

    Parameters
    ----------
    entity
        Attribute -> value; empty for the whole shop.
    rows
        Rows of the step, in order of time: shape (m,).
    at
        When each met the entity, or came to be at risk: int64 microseconds, shape (m,).
    """

    entity: dict[str, str]
    rows: NDArray[np.int64]
    at: NDArray[np.int64]


def slices_of(step: Step, sessions: pl.DataFrame, touches: pl.DataFrame) -> list[Slice]:
    """Give the slices of a step worth searching, at most ``MAX_SLICES``, the largest first."""
    frame = sessions[step.session].select("session", *CONTEXTS).with_row_index("row")
    frame = frame.with_columns(pl.Series("at", step.at), pl.Series("p", step.expected))
    frame = frame.sort("at", "row")
    met = _met(step, frame, touches)
    found = [_whole(frame)]
    for name in CONTEXTS:
        found.extend(_group(frame, [name]))
    for name in TOUCHED:
        found.extend(_group(met[name], [name]))
    for pair in PAIRS:
        touched = [name for name in pair if name in TOUCHED]
        found.extend(_group(met[touched[0]] if touched else frame, list(pair)))
    return _largest(found)


def slices_within(frame: pl.DataFrame) -> list[Slice]:
    """Give the slices of a frame of rows with ``row``, ``at``, ``p`` and its own attributes."""
    names: list[str] = [name for name in (*CONTEXTS, *TOUCHED) if name in frame.columns]
    pairs = [pair for pair in PAIRS if set(pair) <= set(names)]
    frame = frame.sort("at", "row")
    found = [_whole(frame)]
    for group in ([name] for name in names):
        found.extend(_group(frame, group))
    for pair in pairs:
        found.extend(_group(frame, list(pair)))
    return _largest(found)


def _largest(found: list[tuple[Slice, float]]) -> list[Slice]:
    found.sort(key=lambda each: -each[1])
    return [each for each, _ in found[:MAX_SLICES]]


def _met(step: Step, frame: pl.DataFrame, touches: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Give, per touched attribute, who met a value while at risk in this step."""
    ends = pl.Series("ends", step.leaves[frame["row"].to_numpy()])
    at_risk = frame.with_columns(ends).rename({"at": "from"})
    joined = touches.select("session", "attribute", "value", pl.col("ts").alias("at")).join(
        at_risk, on="session", how="inner"
    )
    inside = joined.filter((pl.col("at") >= pl.col("from")) & (pl.col("at") < pl.col("ends")))
    inside = inside.sort("at", "row")
    return {
        name: inside.filter(pl.col("attribute") == name).rename({"value": name}) for name in TOUCHED
    }


def _whole(frame: pl.DataFrame) -> tuple[Slice, float]:
    return Slice({}, frame["row"].to_numpy().astype(np.int64), frame["at"].to_numpy()), np.inf


def _group(frame: pl.DataFrame, names: list[str]) -> Iterator[tuple[Slice, float]]:
    """Give the slices of some attributes; rows keep the frame's order."""
    groups = (
        frame.drop_nulls(names)
        .group_by(names, maintain_order=True)
        .agg("row", "at", pl.col("p").sum())
    )
    large = groups.filter(pl.col("p") >= LEAST_EXPECTED)
    if large.is_empty() or (groups.height < 2 and len(names) == 1):  # noqa: PLR2004
        return
    ends = large["row"].list.len().cum_sum().to_numpy()[:-1]
    rows = np.split(large["row"].explode().to_numpy().astype(np.int64), ends)
    at = np.split(large["at"].explode().to_numpy(), ends)
    entities = large.select(names).to_dicts()
    for entity, own, met, expected in zip(entities, rows, at, large["p"], strict=True):
        yield Slice(entity, own, met), expected
