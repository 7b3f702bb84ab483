"""Ticks derived from event time: time is data, also where nothing happens."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.engine import NO_TICKS
from recoup.errors import ConfigError
from recoup.events import MICROS, TIMESTAMP
from recoup.friction.waits import LIMIT_S
from recoup.state import Record

TICK_S: Final = 10.0
"""Event time between two ticks, in seconds: so much later at most is a long wait noticed."""

TICK_SCHEMA: Final = pl.Schema({"ts": TIMESTAMP})
"""Ticks as the journal holds them."""

_IDLE_US: Final = int(LIMIT_S * MICROS)


def ticks_among(
    ts: NDArray[np.int64], watermark: int | None, every_s: float = TICK_S
) -> NDArray[np.int64]:
    """Give the ticks that a batch of events brings, ascending: int64 microseconds UTC.

    They lie on multiples of ``every_s``. One is due once an event later than it has come, so that
    batches of any size bring the same ticks. Where nothing happens for longer than a session lasts,
    they pause: nobody is waiting any more.

    Parameters
    ----------
    ts
        Times of the events in the order they came, int64 microseconds UTC, shape (n,).
    watermark
        Latest time before them; None before the first event.
    every_s
        Seconds between two ticks.

    Raises
    ------
    ConfigError
        If ``every_s`` is not at least a millisecond.

    Examples
    --------
    >>> ticks_among(np.array([5, 31, 12, 60]) * MICROS, None).tolist()
    [10000000, 20000000, 30000000, 40000000, 50000000]
    """
    every = round(every_s * MICROS)
    if every < 1_000:  # noqa: PLR2004 - a millisecond
        raise ConfigError(f"Expected ticks at least a millisecond apart, got {every_s} s")
    if not len(ts):
        return NO_TICKS
    latest = np.maximum.accumulate(np.append(ts[0] if watermark is None else watermark, ts))
    first, until = -(-latest[:-1] // every), -(-latest[1:] // every)
    count = np.minimum(until - first, _IDLE_US // every + 1)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.asarray((np.repeat(first, count) + within) * every, np.int64)


def read_ticks(records: Mapping[str, Record]) -> NDArray[np.int64]:
    """Give the ticks of a transaction of the journal."""
    if "ticks" not in records:
        return NO_TICKS
    return records["ticks"].frame["ts"].to_physical().to_numpy()


def tick_frame(ticks: NDArray[np.int64]) -> pl.DataFrame:
    """Give ticks as a frame of :data:`TICK_SCHEMA`."""
    return pl.DataFrame({"ts": pl.Series(ticks, dtype=pl.Int64).cast(TIMESTAMP)})
