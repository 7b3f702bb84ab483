"""The local runner: one process that folds a source through a host, and loses nothing.

Whatever follows from a batch (events, dead letters, decisions, outcomes, the source's position)
commits in one transaction. A snapshot follows every few batches, and holds only what changed. When
the process is killed, the next one restores the last snapshot, folds the journal's tail again and
reads on where the source stood: everything journalled and every final state is, bit for bit, that
of a run that was never killed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec
import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recoup.decisions import Finding
from recoup.engine import NO_TICKS
from recoup.errors import ConfigError, JournalError, SnapshotError
from recoup.events import (
    ITEM_SCHEMA,
    TIMESTAMP,
    EventBatch,
    empty_frames,
)
from recoup.intake import Admitted, Clock, Intake
from recoup.parts import prefixed, under
from recoup.runners.ticks import read_ticks, tick_frame, ticks_among
from recoup.sources.base import no_dead_letters
from recoup.state import Changes, Journal, Record, Transaction

STAGE: Final = "runner"
"""Under which the journal keeps the snapshot: parts ``totals``, ``intake/...`` and ``host/...``."""

RESERVED: Final = ("events", "items", "dead_letters", "findings", "ticks", "batches")
"""Kinds that the runner journals itself; a host's frames have other names."""

FINDING_SCHEMA: Final = pl.Schema(
    dict.fromkeys(("kind", "column", "from", "to", "detail"), pl.String())
)

BATCH_SCHEMA: Final = pl.Schema(
    {
        "source": pl.String(),
        "position": pl.String(),
        "events": pl.Int64(),
        "duplicates": pl.Int64(),
        "late": pl.Int64(),
        "dead_letters": pl.String(),
        "watermark": TIMESTAMP,
        "clock": pl.Binary(),
    }
)
"""One row closes each transaction: what came in, as of which watermark, up to which position.

``dead_letters`` is a JSON object, reason -> rows; ``clock`` the intake's, as MessagePack.
"""

_NO_EVENTS: Final = EventBatch(*empty_frames())


class Arrival(Protocol):
    """What a source gives at a time."""

    @property
    def batch(self) -> EventBatch:
        """The events that it understood, in the order they came."""
        ...

    @property
    def dead_letters(self) -> pl.DataFrame:
        """Frame of ``DEAD_LETTER_SCHEMA``: what it did not."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """What it noticed about the data since the batch before."""
        ...

    @property
    def position(self) -> str:
        """Where to read on, behind this batch."""
        ...


class Feed(Protocol):
    """A source as the runner reads it: the same position gives the same batches."""

    @property
    def name(self) -> str:
        """Under which the journal keeps its position."""
        ...

    def batches(self, position: str | None, /) -> Iterator[Arrival]:
        """Read on behind a position, or from the start."""
        ...


class Host(Protocol):
    """What the runner hosts: a deterministic fold over admitted events, as the engine is one."""

    def step(self, batch: EventBatch, /) -> Mapping[str, pl.DataFrame]:
        """Fold a batch, and give the frames to journal, by kind."""
        ...

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts; a part that did not change has the same bytes."""
        ...

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        """Take up the state that :meth:`snapshot` gave."""
        ...


@runtime_checkable
class TickingHost(Protocol):
    """A host that is told what time it is: ticks are journalled, and folded like events."""

    @property
    def ticking(self) -> bool:
        """Whether ticks among events tell it more than the events do; else none are derived."""
        ...

    def step(self, batch: EventBatch, /, ticks: NDArray[np.int64]) -> Mapping[str, pl.DataFrame]:
        """Fold a batch with ticks among its events: each before the first event later than it."""
        ...


@runtime_checkable
class IncrementalHost(Protocol):
    """A host that need not write its whole state to take a snapshot; the runner asks it instead.

    ``restore`` then takes the parts of all calls that were not dropped since.
    """

    def changes(self) -> Changes:
        """Give what changed since the last call, or since the restore."""
        ...


class Totals(msgspec.Struct, frozen=True):
    """What came in so far, over all runs of the journal.

    Parameters
    ----------
    batches, events, duplicates, late
        Batches folded, events admitted, repeats dropped, events admitted behind the watermark.
    dead_letters
        Reason -> rows.

    Examples
    --------
    >>> Totals(1, 5, 1).plus(Totals(1, 7, dead_letters={"too_late": 2}))
    Totals(batches=2, events=12, duplicates=1, late=0, dead_letters={'too_late': 2})
    """

    batches: int = 0
    events: int = 0
    duplicates: int = 0
    late: int = 0
    dead_letters: dict[str, int] = {}

    def plus(self, other: "Totals") -> "Totals":
        """Add what came in later."""
        return Totals(
            self.batches + other.batches,
            self.events + other.events,
            self.duplicates + other.duplicates,
            self.late + other.late,
            dict(sorted((Counter(self.dead_letters) + Counter(other.dead_letters)).items())),
        )


class Processed(msgspec.Struct, frozen=True):
    """A batch whose every consequence is in the journal.

    Parameters
    ----------
    admitted
        What the intake let in.
    frames
        What the host gave, by kind. To act on them is safe to repeat: after a crash, the last
        ones are given to nobody, so an actuator asks the journal, and knows a decision by its id.
    position
        Where the source stood behind it.
    """

    admitted: Admitted
    frames: Mapping[str, pl.DataFrame]
    position: str


class LocalRunner:
    """Folds a source through a host, with everything in the journal.

    Parameters
    ----------
    host
        The engine, in its first state; the runner restores it from the journal.
    journal
        Holds what was folded before, if anything.
    feed
        The source.
    intake
        In its first state; restored likewise.
    snapshot_batches
        Batches between snapshots: a restart folds at most so many again.
    tick_s
        Seconds of event time between ticks, as a log of the past has no clock but its events; None
        derives none: call :meth:`tick` with the wall clock's time. Only for a host that is ticking.

    Raises
    ------
    ConfigError
        If ``snapshot_batches`` is not positive.
    SnapshotError
        If the journal's snapshot is of another version or definition.
    JournalError
        If the journal is damaged, or its tail, folded again, gives something else than it did.
    """

    def __init__(
        self,
        host: Host,
        journal: Journal,
        feed: Feed,
        *,
        intake: Intake | None = None,
        snapshot_batches: int = 64,
        tick_s: float | None = None,
    ) -> None:
        if snapshot_batches < 1:
            raise ConfigError(f"Expected snapshot_batches of at least 1, got {snapshot_batches}")
        self._host = host
        self._journal = journal
        self._feed = feed
        self._intake = intake or Intake()
        self._every = snapshot_batches
        self._tick_s = tick_s
        self._pending = 0
        self._saved: dict[str, bytes] = {}
        self._failed = False
        self.totals = Totals()
        self._recover()

    def run(self) -> Totals:
        """Process all that the source has, and give the totals."""
        for _ in self.stream():
            pass
        return self.totals

    def stream(self) -> Iterator[Processed]:
        """Process all that the source has, giving each batch once it is durable."""
        for arrival in self._feed.batches(self._journal.position(self._feed.name)):
            yield self.process(arrival)
        self.save()

    def process(self, arrival: Arrival) -> Processed:
        """Fold one batch and journal what follows from it, in one transaction.

        Raises
        ------
        JournalError
            If it cannot be written. Nothing of it is then kept, and this runner is of no further
            use: a new one over the same journal goes on where it stood.
        """
        self._begin()
        watermark = self._intake.watermark
        admitted = self._intake.step(arrival.batch)
        ticks = self._ticks(admitted.batch, watermark)
        frames = self._host_step(admitted.batch, ticks)
        dead_letters = pl.concat([arrival.dead_letters, admitted.dead_letters])
        self._count(_totals(admitted, dead_letters))
        with self._journal.transaction() as transaction:
            _append_arrival(transaction, admitted.batch, dead_letters, arrival.findings)
            _append_frames(transaction, ticks, frames)
            row = self._closing_row(arrival.position, admitted, dead_letters)
            transaction.append("batches", row)
            transaction.save_position(self._feed.name, arrival.position)
            if self._pending >= self._every:
                self._save(transaction)
        self._failed = False
        return Processed(admitted, frames, arrival.position)

    def tick(self, now_us: int) -> Mapping[str, pl.DataFrame]:
        """Tell the host what time it is, and journal what follows, in one transaction.

        Parameters
        ----------
        now_us
            The wall clock's time, int64 microseconds UTC; not before an earlier tick's.

        Returns
        -------
        What the host gave, by kind; nothing, and nothing is journalled, if it takes no ticks.

        Raises
        ------
        JournalError
            As :meth:`process`.
        """
        if not isinstance(self._host, TickingHost):
            return {}
        self._begin()
        ticks = np.array([now_us], np.int64)
        nothing = Admitted(_NO_EVENTS, 0, 0, no_dead_letters(), self._intake.watermark)
        frames = self._host_step(nothing.batch, ticks)
        self._pending += 1
        with self._journal.transaction() as transaction:
            _append_frames(transaction, ticks, frames)
            transaction.append("batches", self._closing_row("", nothing, nothing.dead_letters))
            if self._pending >= self._every:
                self._save(transaction)
        self._failed = False
        return frames

    def _begin(self) -> None:
        """Take no further batch after one that could not be journalled."""
        if self._failed:
            raise JournalError(
                "Expected a runner whose last batch was journalled, got one whose was not",
                hint="make a new runner over the same journal; it goes on where this one stood",
            )
        self._failed = True

    def _ticks(self, batch: EventBatch, watermark: int | None) -> NDArray[np.int64]:
        """Derive the ticks among a batch's events."""
        host = self._host
        if self._tick_s is None or not isinstance(host, TickingHost) or not host.ticking:
            return NO_TICKS
        return ticks_among(batch.column("ts").astype(np.int64), watermark, self._tick_s)

    def _host_step(self, batch: EventBatch, ticks: NDArray[np.int64]) -> dict[str, pl.DataFrame]:
        if len(ticks) and isinstance(self._host, TickingHost):
            return _checked(self._host.step(batch, ticks))
        return _checked(self._host.step(batch))

    def save(self) -> None:
        """Take a snapshot, unless nothing came in since the last one."""
        if self._pending:
            self._failed = True
            with self._journal.transaction() as transaction:
                self._save(transaction)
            self._failed = False

    def _save(self, transaction: Transaction) -> None:
        """Write the parts of the snapshot that changed since the last one."""
        parts, gone = self._changes()
        for part, state in parts.items():
            digest = xxhash.xxh3_128_digest(state)
            if self._saved.get(part) != digest:
                transaction.save_state(STAGE, part, state)
                self._saved[part] = digest
        for part in sorted(gone):
            transaction.drop_state(STAGE, part)
            del self._saved[part]
        self._pending = 0

    def _changes(self) -> tuple[dict[str, bytes], set[str]]:
        """Give the parts that may have changed, and the names of those that are gone."""
        parts = prefixed("intake", self._intake.parts())
        parts["totals"] = msgspec.msgpack.encode(self.totals)
        known = set(self._saved)
        if isinstance(self._host, IncrementalHost):
            changes = self._host.changes()
            dropped = {f"host/{name}" for name in changes.dropped}
            known = {part for part in known if not part.startswith("host/") or part in dropped}
            return parts | prefixed("host", changes.saved), known - parts.keys()
        parts |= prefixed("host", self._host.snapshot())
        return parts, known - parts.keys()

    def _recover(self) -> None:
        """Restore the last snapshot, and fold the journal's tail again."""
        offset, parts = self._journal.load_state(STAGE)
        if parts:
            self._restore(parts)
        for records in _transactions(self._journal.read(offset)):
            self._fold_again(records)

    def _restore(self, parts: dict[str, bytes]) -> None:
        self._saved = {part: xxhash.xxh3_128_digest(state) for part, state in parts.items()}
        try:
            self.totals = msgspec.msgpack.decode(parts["totals"], type=Totals)
        except (KeyError, msgspec.MsgspecError) as error:
            raise SnapshotError(f"Expected a runner's snapshot, got no totals: {error}") from error
        self._intake.restore_parts(under("intake", parts))
        self._host.restore(under("host", parts))

    def _fold_again(self, records: Mapping[str, Record]) -> None:
        """Take up a transaction of the tail, and make sure that it gives what it gave."""
        batch, ticks = _batch_of(records), read_ticks(records)
        row = records["batches"].frame.row(0, named=True)
        self._intake.learn(batch, msgspec.msgpack.decode(row["clock"], type=Clock))
        for kind, frame in self._host_step(batch, ticks).items():
            if kind not in records or not frame.equals(records[kind].frame):
                raise JournalError(
                    f"Expected `{kind}` before batch {records['batches'].offset}, folded again, "
                    "to be what the journal holds, got something else",
                    hint="restart with the release and settings that wrote it, or replay anew",
                )
        reasons = msgspec.json.decode(row["dead_letters"], type=dict[str, int])
        batches = int("events" in records)
        self._count(Totals(batches, row["events"], row["duplicates"], row["late"], reasons))

    def _count(self, more: Totals) -> None:
        self.totals = self.totals.plus(more)
        self._pending += 1

    def _closing_row(
        self, position: str, admitted: Admitted, dead_letters: pl.DataFrame
    ) -> pl.DataFrame:
        row = (
            self._feed.name,
            position,
            len(admitted.batch),
            admitted.duplicates,
            admitted.late,
            msgspec.json.encode(_reasons(dead_letters), order="sorted").decode(),
            admitted.watermark,
            msgspec.msgpack.encode(self._intake.clock),
        )
        columns = zip(BATCH_SCHEMA.items(), row, strict=True)
        return pl.DataFrame([pl.Series(name, [value], dtype) for (name, dtype), value in columns])


def _append_arrival(
    transaction: Transaction,
    batch: EventBatch,
    dead_letters: pl.DataFrame,
    findings: Sequence[Finding],
) -> None:
    transaction.append("events", batch.events)
    if batch.items.height:
        transaction.append("items", batch.items)
    if dead_letters.height:
        transaction.append("dead_letters", dead_letters)
    if findings:
        rows = [(f.kind, f.column, f.since, f.until, f.detail) for f in findings]
        transaction.append("findings", pl.DataFrame(rows, FINDING_SCHEMA, orient="row"))


def _append_frames(
    transaction: Transaction, ticks: NDArray[np.int64], frames: Mapping[str, pl.DataFrame]
) -> None:
    if len(ticks):
        transaction.append("ticks", tick_frame(ticks))
    for kind, frame in frames.items():
        transaction.append(kind, frame)


def _batch_of(records: Mapping[str, Record]) -> EventBatch:
    """Give the events of a transaction; a tick's has none."""
    if "events" not in records:
        return _NO_EVENTS
    items = records.get("items")
    return EventBatch(
        records["events"].frame, items.frame if items else pl.DataFrame(schema=ITEM_SCHEMA)
    )


def _checked(frames: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Leave out empty frames; the host's kinds must be its own."""
    assert not frames.keys() & set(RESERVED), f"a host may not journal {RESERVED}"  # noqa: S101
    return {kind: frame for kind, frame in frames.items() if frame.height}


def _totals(admitted: Admitted, dead_letters: pl.DataFrame) -> Totals:
    reasons = _reasons(dead_letters)
    return Totals(1, len(admitted.batch), admitted.duplicates, admitted.late, reasons)


def _reasons(dead_letters: pl.DataFrame) -> dict[str, int]:
    counts = dead_letters["reason"].value_counts(sort=True)
    return dict(sorted(counts.iter_rows()))


def _transactions(records: Iterator[Record]) -> Iterator[dict[str, Record]]:
    """Group records by transaction: each of the runner's ends with its row of ``batches``."""
    group: dict[str, Record] = {}
    for record in records:
        group[record.kind] = record
        if record.kind == "batches":
            yield group
            group = {}
