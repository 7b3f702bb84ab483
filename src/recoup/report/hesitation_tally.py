"""How long shoppers wait, counted: waits by place and time, signals of behaviour by session."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, EVENT_NAMES, MICROS, EventBatch, encode
from recoup.friction.behaviour import BEHAVIOURS
from recoup.friction.moment import PURCHASED, STAGE_OF_CODE, STAGES
from recoup.friction.steps import is_click, is_step
from recoup.friction.waits import LIMIT_S
from recoup.parts import Runs, frame_bytes, gather, read_frame, under
from recoup.report.funnel import OTHER, UNKNOWN
from recoup.report.hesitation import Behaved, Hesitation
from recoup.report.hesitation_measures import (
    BY_CHANNEL,
    CHANNEL,
    COMPARED,
    FORECASTS,
    LEFT,
    SEPARATOR,
    tell_waits,
    wait_bin,
)
from recoup.state import Changes

VERSION: Final = 4
MAGIC: Final = b"recoup.report.waits"
PENDING_LIMIT: Final = 50_000
"""Rows held beside those of open sessions before closed ones are counted."""

MOST_VALUES: Final = 1_000
"""Devices, pages and channels counted by name; of more, the rarest are summed as ``(other)``."""

MOST_BY_CHANNEL: Final = 10_000
"""Places by channel, in one cell each where a place alone has one for every bin."""

_VIEW, _ADD = CODE["view_item"], CODE["add_to_cart"]
_CHANCES: Final = {
    "revisits": 0, "comparison_loop": 0, "oscillation": 1,
    "rage_click": 2, "dead_click": 2, "error_click": 2,
}  # fmt: skip
"""What a session must have done to show a behaviour: seen an item, filled a cart, clicked."""

_LIMIT_US: Final = round(LIMIT_S * MICROS)
_CELL: Final = ("dimension", "value", "bin")
_SUMS: Final = ("n", "judged", "long", "micros")
_BEHAVED: Final = ("events", "sessions", "bought", "others", "others_bought")


class Judged(msgspec.Struct, frozen=True):
    """What a model expects of the waits that n events begin; NaN where they begin none.

    Parameters
    ----------
    goes_on
        P(another step within the session's limit), shape (n,).
    patience_s
        Seconds after which the wait is unusually long, shape (n,).
    """

    goes_on: NDArray[np.float64]
    patience_s: NDArray[np.float64]


class Behaving(msgspec.Struct, frozen=True):
    """A batch of shoppers' events as :class:`HesitationTally` takes it.

    Parameters
    ----------
    batch
        The events, n of them.
    session
        Session keys, shape (n,).
    shown
        Signals of behaviour, bool, shape (n, len(BEHAVIOURS)).
    judged
        What a model of hesitation expects; None without one.
    """

    batch: EventBatch
    session: NDArray[np.int64]
    shown: NDArray[np.bool_]
    judged: Judged | None = None


class HesitationTally:
    """Fold events into waits by state, device, page, channel and hour, and signals of behaviour.

    Sessions are counted once nothing can join them any more: silent for the session's limit and
    the allowed lateness. Until then their steps are held, at some 80 bytes each; sums alone stay.
    Equal for batches of any size and any order of arrival, as long as devices, pages and channels
    are fewer than ``MOST_VALUES`` each, and places by channel than ``MOST_BY_CHANNEL``. A visit's
    channel is the first that it names, else its traffic source. A wait after the purchase is no
    hesitation, and not counted.

    Parameters
    ----------
    lateness_s
        Allowed lateness of events, in seconds.
    level
        Hesitation from which a wait is unusually long; None without a model.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> batch, tally = random_batch(50, seed=1), HesitationTally()
    >>> for part, session in ((batch, 1), (random_batch(1, seed=2, start_s=9_000), 2)):
    ...     nothing = np.zeros((len(part), 6), np.bool_)
    ...     tally.step(Behaving(part, np.full(len(part), session), nothing))
    >>> tally.result().total.rows
    30
    """

    name = "report.waits"

    def __init__(self, *, lateness_s: float = 3600.0, level: float | None = None) -> None:
        self.level = level
        self._silence_us = _LIMIT_US + round(lateness_s * MICROS)
        self._pending = [_no_rows()]
        self._fresh = 0
        self._now_us = 0
        self._cells = Runs(_merge_cells, _no_cells())
        self._behaved = np.zeros((len(BEHAVIOURS), len(_BEHAVED)), np.int64)

    def step(self, batch: Behaving, /) -> None:
        """Take a batch; closed sessions are counted once enough has come."""
        if not len(batch.batch):
            return
        rows = _rows(batch)
        self._now_us = max(self._now_us, int(batch.batch.column("ts").max()))
        self._pending.append(rows)
        self._fresh += rows.height
        if self._fresh >= PENDING_LIMIT:
            self._fold()

    def leave_out(self, sessions: Iterable[int]) -> None:
        """Take out open sessions that turned out to be no shopper's."""
        left = list(sessions)
        if left:
            self._pending = [self._held().filter(~pl.col("session").is_in(left))]

    def result(self) -> Hesitation:
        """Give what the events so far say, but of waits begun in the last half hour.

        Of those the short ones alone would be known.
        """
        held, behaved = self._held(), self._behaved.copy()
        cells = pl.concat([self._cells.whole(), _cells(held, self._now_us)])
        behaved += _behaved(held)
        told = [
            Behaved(name=name, **dict(zip(_BEHAVED, counts, strict=True)))
            for name, counts in zip(BEHAVIOURS, behaved.tolist(), strict=True)
        ]
        return tell_waits(_merge_cells(cells), told, self.level)

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        self._fold()
        cells = self._cells.whole().sort(_CELL)
        return msgspec.msgpack.encode((self._head(), frame_bytes(cells)))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version or settings.
        """
        try:
            head, cells = msgspec.msgpack.decode(state, type=tuple[bytes, bytes])
        except msgspec.DecodeError as error:
            raise SnapshotError(f"Expected the state of {self.name}, got {error}") from error
        self._take_up(head)
        self._cells.replace(read_frame(cells))

    def changes(self) -> Changes:
        """Give what changed since the last call, as parts to save."""
        self._fold()
        return gather({"head": self._head(), "cells": self._cells.changes()})

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version or settings.
        """
        self._take_up(parts.get("head", b""))
        self._cells.restore_parts(under("cells", parts))

    def _head(self) -> bytes:
        held = frame_bytes(self._held().sort("session", "ts", "seq", "key"))
        settings = (MAGIC, VERSION, self._silence_us, self.level)
        return msgspec.msgpack.encode((settings, self._now_us, self._behaved.tobytes(), held))

    def _take_up(self, head: bytes) -> None:
        kind = tuple[tuple[bytes, int, int, float | None], int, bytes, bytes]
        try:
            settings, now_us, behaved, held = msgspec.msgpack.decode(head, type=kind)
        except msgspec.DecodeError as error:
            raise SnapshotError(f"Expected the state of {self.name}, got {error}") from error
        if settings != (MAGIC, VERSION, self._silence_us, self.level):
            raise SnapshotError(
                f"Expected {self.name} of version {VERSION} and these settings, got {settings}",
                hint="replay the journal from its start",
            )
        self._now_us, self._fresh = now_us, 0
        self._behaved = np.frombuffer(behaved, np.int64).reshape(self._behaved.shape).copy()
        self._pending = [read_frame(held)]

    def _held(self) -> pl.DataFrame:
        if len(self._pending) > 1:
            self._pending = [pl.concat(self._pending)]
        return self._pending[0]

    def _fold(self) -> None:
        """Count the sessions that nothing can join any more."""
        held = self._held().with_columns(last=pl.col("ts").max().over("session"))
        closed = pl.col("last") < self._now_us - self._silence_us
        over, still = held.filter(closed).drop("last"), held.filter(~closed).drop("last")
        self._pending, self._fresh = [still], 0
        if over.height:
            self._cells.add(_cells(over, self._now_us))
            self._behaved += _behaved(over)


def _rows(seen: Behaving) -> pl.DataFrame:
    """Keep what begins or ends a wait, takes the visit further, or could show a behaviour."""
    told = encode(seen.batch, ("ts", "seq", "key", "event", "element"))
    event, element = told["event"], told["element"]
    step = is_step(event, element)
    chances = np.stack([event == _VIEW, event == _ADD, is_click(event, element)], axis=1)
    stage = STAGE_OF_CODE[event.astype(np.int64)]
    kept = step | (stage > 0) | seen.shown.any(axis=1) | chances.any(axis=1)
    at = np.flatnonzero(kept)
    none = np.full(len(at), np.nan)
    judged = seen.judged
    events = seen.batch.events[at]
    return pl.DataFrame(
        {
            "session": seen.session[at],
            **{name: told[name][at] for name in ("ts", "seq", "key", "event")},
            "stage": stage[at],
            "step": step[at],
            "device": events["device"].cast(pl.String).fill_null(UNKNOWN),
            "page": events["page"].cast(pl.String).fill_null(UNKNOWN),
            "channel": events.select(
                pl.coalesce(pl.col("channel", "traffic_source").cast(pl.String))
            ).to_series(),
            "goes_on": none if judged is None else judged.goes_on[at],
            "patience_s": none if judged is None else judged.patience_s[at],
            "shown": np.packbits(seen.shown[at], axis=1, bitorder="little")[:, 0],
            "chances": np.packbits(chances[at], axis=1, bitorder="little")[:, 0],
        },
        schema=_no_rows().schema,
    )


def _cells(held: pl.DataFrame, now_us: int) -> pl.DataFrame:
    """Count the waits of sessions by every dimension, but of those begun in the last half hour."""
    waits = _waits(held, now_us)
    parts = [
        waits.filter(value.is_not_null()).group_by(value=value, bin=_bin_of(dimension)).agg(
            n=pl.len().cast(pl.Int64),
            judged=pl.col("goes_on").is_not_nan().sum().cast(pl.Int64),
            long=(pl.col("wait_s") > pl.col("patience_s")).sum().cast(pl.Int64),
            micros=(pl.col("goes_on").fill_nan(0.0) * MICROS).round().cast(pl.Int64).sum(),
        ).select(pl.lit(dimension).alias("dimension"), *_CELL[1:], *_SUMS)
        for dimension, value in _COUNTED.items()
    ]  # fmt: skip
    return pl.concat([_no_cells(), *parts])


def _bin_of(dimension: str) -> pl.Expr:
    """Give the bin of a wait; where it is not asked how long they are, all are in one."""
    return pl.lit(0, pl.Int16) if dimension.endswith(BY_CHANNEL) else pl.col("bin")


def _waits(held: pl.DataFrame, now_us: int) -> pl.DataFrame:
    """Measure from each step to the next one of its session; of one moment the last counts."""
    channel = pl.col("channel").drop_nulls().first().over("session")
    ordered = held.sort("session", "ts", "seq", "key").with_columns(
        stage=pl.col("stage").cum_max().over("session"), channel=channel.fill_null(UNKNOWN)
    )
    follows = (pl.col("ts").shift(-1).over("session") - pl.col("ts")).fill_null(_LIMIT_US)
    return (
        ordered.filter("step")
        .with_columns(wait_us=follows)
        .filter(
            pl.col("wait_us") > 0,
            pl.col("stage") < PURCHASED,
            pl.col("ts") + _LIMIT_US <= now_us,
        )
        .with_columns(wait_s=pl.min_horizontal("wait_us", _LIMIT_US) / MICROS)
        .with_columns(
            bin=pl.when(pl.col("wait_us") >= _LIMIT_US)
            .then(pl.lit(LEFT, pl.Int16))
            .otherwise(wait_bin(pl.col("wait_s")))
        )
    )


_DIMENSIONS: Final = {
    "state": pl.concat_str(
        pl.col("stage").replace_strict(dict(enumerate(STAGES)), return_dtype=pl.String),
        pl.lit("/"),
        pl.col("event").replace_strict(dict(enumerate(EVENT_NAMES)), return_dtype=pl.String),
    ),
    "device": pl.col("device"),
    "page": pl.col("page"),
    CHANNEL: pl.col("channel"),
    "hour": (pl.col("ts") // (3600 * MICROS) % 24).cast(pl.String),
    "forecast": (pl.col("goes_on").fill_nan(None) * FORECASTS)
    .floor()
    .clip(0, FORECASTS - 1)
    .cast(pl.Int16)
    .cast(pl.String),
}

_COUNTED: Final = _DIMENSIONS | {
    f"{name}{BY_CHANNEL}": pl.concat_str(_DIMENSIONS[name], pl.lit(SEPARATOR), "channel")
    for name in COMPARED
}


def _behaved(held: pl.DataFrame) -> NDArray[np.int64]:
    """Count each behaviour's events and sessions, and who bought: shape (behaviours, 5)."""
    before = pl.col("ts") <= pl.col("paid").fill_null(np.iinfo(np.int64).max)
    paid = pl.col("ts").filter(pl.col("event") == CODE["purchase"]).min().over("session")
    early = held.with_columns(paid=paid).filter(before)
    counts = []
    for number, name in enumerate(BEHAVIOURS):
        shown = pl.col("shown") & (1 << number) != 0
        could = pl.col("chances") & (1 << _CHANCES[name]) != 0
        bought = pl.col("paid").is_not_null()
        sessions = early.group_by("session").agg(shown.any(), could=could.any(), paid=bought.any())
        did, others = pl.col("shown"), pl.col("could") & ~pl.col("shown")
        counts.append(
            (
                held.select(shown.sum()).item(),
                *sessions.select(
                    did.sum().alias("sessions"),
                    (did & pl.col("paid")).sum().alias("bought"),
                    others.sum().alias("others"),
                    (others & pl.col("paid")).sum().alias("others_bought"),
                ).row(0),
            )
        )
    return np.array(counts, np.int64)


def _merge_cells(cells: pl.DataFrame) -> pl.DataFrame:
    merged = cells.group_by(_CELL).agg(pl.col(_SUMS).sum())
    sizes = merged.group_by("dimension").agg(pl.col("value").n_unique())
    for dimension, size in sizes.iter_rows():
        most = MOST_BY_CHANNEL if dimension.endswith(BY_CHANNEL) else MOST_VALUES
        if size > most:
            merged = _bounded(merged, dimension, most)
    return merged


def _bounded(cells: pl.DataFrame, dimension: str, most: int) -> pl.DataFrame:
    """Sum up the rarest values of a dimension as ``(other)``."""
    own = pl.col("dimension") == dimension
    sizes = cells.filter(own).group_by("value").agg(pl.col("n").sum())
    kept = sizes.sort("n", "value", descending=[True, False]).head(most - 1)["value"]
    rare = own & ~pl.col("value").is_in(kept.to_list())
    named = cells.with_columns(value=pl.when(rare).then(pl.lit(OTHER)).otherwise("value"))
    return named.group_by(_CELL).agg(pl.col(_SUMS).sum())


def _no_cells() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "dimension": pl.String, "value": pl.String, "bin": pl.Int16,
            **dict.fromkeys(_SUMS, pl.Int64),
        }
    )  # fmt: skip


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            **dict.fromkeys(("session", "ts", "seq", "key"), pl.Int64),
            "event": pl.Int16, "stage": pl.Int8, "step": pl.Boolean,
            "device": pl.String, "page": pl.String, "channel": pl.String,
            "goes_on": pl.Float64, "patience_s": pl.Float64,
            "shown": pl.UInt8, "chances": pl.UInt8,
        }
    )  # fmt: skip
