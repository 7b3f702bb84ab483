"""The decision log: a buffer that a decision enters in a microsecond.

The thread that decides encodes the record, appends it to a queue and goes on; a writer thread
commits what has gathered as one group, one transaction. Little of the writer's work needs the
interpreter's lock, so that the other thread hardly waits for it. A record is durable once
:attr:`DecisionLog.durable` has reached its ticket, and is then never lost. What has not been
committed when the process is killed is lost, and was never reported as durable.
"""

import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Final, Literal, Self

import msgspec
import polars as pl

from recoup.decisions import DECISION_SCHEMA, Decision
from recoup.errors import ConfigError, JournalError
from recoup.events import TIMESTAMP
from recoup.state import Journal

KIND: Final = "decision_groups"
"""Under which the journal keeps groups of records."""

WhenFull = Literal["wait", "refuse", "drop"]

_encode: Final = msgspec.msgpack.Encoder().encode
_ARRAY: Final = 0xDD
"""MessagePack's mark of an array whose length follows in four bytes."""


def pack(records: Sequence[bytes]) -> pl.DataFrame:
    r"""Give a group of encoded records as one row: their number, and one MessagePack array.

    Examples
    --------
    >>> msgspec.msgpack.decode(pack([b"\x01", b"\x02"])["packed"][0])
    [1, 2]
    """
    packed = struct.pack(">BI", _ARRAY, len(records)) + b"".join(records)
    return pl.DataFrame({"records": [len(records)], "packed": [packed]})


def unpack(frame: pl.DataFrame) -> list[Decision]:
    """Give the decisions that :func:`pack` made a frame of.

    Raises
    ------
    JournalError
        If the records are no decisions.
    """
    try:
        groups = [msgspec.msgpack.decode(row, type=list[Decision]) for row in frame["packed"]]
    except msgspec.MsgspecError as error:
        raise JournalError(f"Expected packed decisions, got {error}") from error
    return [decision for group in groups for decision in group]


def logged_decisions(journal: Journal, after: int = 0) -> Iterator[pl.DataFrame]:
    """Give the decisions of a journal's groups, as frames of ``DECISION_SCHEMA``."""
    for record in journal.read(after, kind=KIND):
        yield decisions_frame(unpack(record.frame))


def decisions_frame(decisions: Sequence[Decision]) -> pl.DataFrame:
    """Give decisions as a frame of ``DECISION_SCHEMA``."""
    columns: dict[str, list[object]] = {
        name: [getattr(decision, name) for decision in decisions]
        for name in DECISION_SCHEMA
        if name in Decision.__struct_fields__ and name != "options"
    }
    columns["action"] = [decision.action.label for decision in decisions]
    columns["propensity"] = [decision.propensity for decision in decisions]
    columns["options"] = [[o.action.label for o in decision.options] for decision in decisions]
    columns["propensities"] = [[o.propensity for o in decision.options] for decision in decisions]
    columns["values_micros"] = [
        [o.value_micros for o in decision.options] for decision in decisions
    ]
    physical = {**DECISION_SCHEMA, "ts": pl.Int64()}
    frame = pl.DataFrame([pl.Series(name, columns[name], physical[name]) for name in physical])
    return frame.with_columns(pl.col("ts").cast(TIMESTAMP))


class DecisionLog:
    """Takes decisions from one thread, and commits them in groups from another.

    Parameters
    ----------
    journal
        Where groups go; nobody else needs to leave it alone, transactions take turns.
    kind
        Of the batches.
    interval_s
        Longest time a record waits for company, in seconds: the bound on what a kill can lose.
    capacity
        Records that may wait to become durable.
    when_full
        What :meth:`append` does when so many wait, as they do when the disk stalls: ``wait`` for
        room, ``refuse`` with an error, or ``drop`` the record and count it in :attr:`dropped`.

    Raises
    ------
    ConfigError
        If ``interval_s`` is negative or ``capacity`` not positive.

    Examples
    --------
    >>> from recoup.stores.memory import MemoryJournal
    >>> journal = MemoryJournal()
    >>> with DecisionLog(journal) as log:
    ...     tickets = [log.append(number) for number in range(3)]
    >>> tickets, log.durable
    ([1, 2, 3], 3)
    """

    def __init__(
        self,
        journal: Journal,
        *,
        kind: str = KIND,
        interval_s: float = 0.01,
        capacity: int = 65_536,
        when_full: WhenFull = "wait",
    ) -> None:
        if interval_s < 0 or capacity < 1:
            raise ConfigError(
                "Expected an interval_s of at least 0 and a positive capacity, got "
                f"{interval_s} and {capacity}"
            )
        self._journal = journal
        self._kind = kind
        self._interval_s = interval_s
        self._capacity = capacity
        self._when_full = when_full
        self._queue: list[bytes] = []
        self._put = self._queue.append
        self._appended = 0
        self._durable = 0
        self.dropped = 0
        self._error: BaseException | None = None
        self._closing = False
        self._wake = threading.Event()
        self._committed = threading.Condition()
        self._writer = threading.Thread(target=self._write, name="decision-log", daemon=True)
        self._writer.start()

    @property
    def durable(self) -> int:
        """The last ticket whose record, and all before it, are committed."""
        return self._durable

    @property
    def waiting(self) -> int:
        """Records appended and not yet durable."""
        return self._appended - self._durable

    def append(self, record: object) -> int:
        """Take a record, and give its ticket (0 if it was dropped). One thread may call this.

        Raises
        ------
        JournalError
            If the writer has failed, if the log is closed, or if it is full and refuses.
        """
        ticket = self._appended + 1
        if ticket - self._durable > self._capacity or self._error is not None:
            return self._append_slowly(record)
        self._put(_encode(record))
        self._appended = ticket
        return ticket

    def wait(self, ticket: int, *, timeout_s: float | None = None) -> bool:
        """Have a record committed without further delay, and say whether it is durable.

        Raises
        ------
        JournalError
            If the writer has failed.
        """
        with self._committed:
            if self._durable < ticket:
                self._wake.set()
            self._committed.wait_for(
                lambda: self._durable >= ticket or self._error is not None, timeout_s
            )
        if self._durable < ticket:
            self._raise_failure()
        return self._durable >= ticket

    def flush(self, *, timeout_s: float | None = None) -> bool:
        """Wait until everything appended so far is durable; say whether it is."""
        return self.wait(self._appended, timeout_s=timeout_s)

    def close(self) -> None:
        """Commit what waits, and stop the writer; closing again does nothing.

        Raises
        ------
        JournalError
            If what waits could not be committed.
        """
        self._closing = True
        self._wake.set()
        self._writer.join()
        if self._durable < self._appended:
            self._raise_failure()
        self._error = self._error or JournalError("Expected an open decision log, got a closed one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append_slowly(self, record: object) -> int:
        self._raise_failure()
        if self._when_full == "drop":
            self.dropped += 1
            return 0
        if self._when_full == "refuse":
            raise JournalError(
                f"Expected at most {self._capacity} records to wait for the disk, got one more",
                hint="the disk has stalled; decide later, or raise `capacity`",
            )
        self.wait(self._appended + 1 - self._capacity)
        return self.append(record)

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise JournalError(
                f"Expected a working decision log, got: {self._error}"
            ) from self._error

    def _write(self) -> None:
        """Commit groups until the log is closed; the writer thread's whole life."""
        try:
            while not self._closing:
                self._wake.wait(self._interval_s)
                self._wake.clear()
                self._commit()
            self._commit()
        except BaseException as error:  # noqa: BLE001
            with self._committed:
                self._error = error
                self._committed.notify_all()

    def _commit(self) -> None:
        """Commit all that waits as one group."""
        group = self._queue[:]
        if not group:
            return
        del self._queue[: len(group)]
        frame = pack(group)
        with self._journal.transaction() as transaction:
            transaction.append(self._kind, frame)
        with self._committed:
            self._durable += len(group)
            self._committed.notify_all()
