"""Files of payloads, read as one log."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.events import EventBatch, iso, micros_of
from recoup.sources.base import ROWS, SourceBatch
from recoup.sources.convert import Converted
from recoup.sources.emit import Stretch, emit, in_order
from recoup.sources.files import LogFile
from recoup.sources.native import MAPPING
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.documents import Document, read_documents
from recoup.sources.payloads.draft import Draft, Warned
from recoup.sources.payloads.identity import Links
from recoup.sources.readers import empty_log
from recoup.sources.tables import BLOCK, Block, dead_frame, dead_letter
from recoup.sources.tally import Tally

DAY_US: Final = 86_400_000_000
SHOWN: Final = 12


class PayloadSource:
    """A file of payloads, or a directory of them in the order of their names.

    Reading on behind a position reads what lies before it once more, without giving it: who a
    client is, and what is noticed, rests on earlier events.

    Parameters
    ----------
    files
        The files, in order.
    payload_format
        What their payloads are.
    now
        What lies more than a day behind it is refused as ``future_timestamp``.
    """

    def __init__(
        self, files: list[LogFile], payload_format: PayloadFormat, *, now: dt.datetime
    ) -> None:
        self.name = payload_format.name
        self._files = files
        self._format = payload_format
        self._now = micros_of(now)

    def size_hint(self) -> int | None:
        """Give None: how many events payloads hold is known only when they are read."""
        return None

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Read on behind a position, or from the start."""
        arrived = self._arrived()
        ordered = in_order(arrived) if self._format.order == "time" else arrived
        yield from emit(ordered, after, rows)

    def _arrived(self) -> Iterator[Stretch]:
        links = Links()
        mapping = msgspec.structs.replace(MAPPING, order=self._format.order)
        tally, notes = Tally(mapping), Notes()
        draft = self._draft()
        seen = False
        for file in self._files:
            for document in self._documents(file):
                seen = seen or document.dead is None
                self._read(draft, file, document)
                if max(len(draft.events), len(draft.dead)) >= BLOCK:
                    yield _stretch(draft, links, tally, notes)
                    draft = self._draft()
        if not seen and not draft.dead:
            raise empty_log(self._files)
        last = _stretch(draft, links, tally, notes)
        yield Stretch(last.batch, last.dead_letters, (*tally.findings(), *notes.findings()))

    def _draft(self) -> Draft:
        return Draft(self._now, self._format.ignored)

    def _documents(self, file: LogFile) -> Iterator[Document]:
        documents = _readable(file, alone=len(self._files) == 1)
        return documents if self._format.merge is None else self._format.merge(documents)

    def _read(self, draft: Draft, file: LogFile, document: Document) -> None:
        if document.dead is not None:
            draft.dead.append(document.dead)
            return
        draft.place = f"{file.label}:{document.number} {document.root}"
        self._format.decode(draft, document.value)


def _readable(file: LogFile, *, alone: bool) -> Iterator[Document]:
    """Give the payloads of a file; one that cannot be read among others is a dead letter."""
    try:
        documents = read_documents(file)
        yield from chain(documents)
    except SourceError as error:
        if alone:
            raise
        dead = dead_letter(file.label, "unreadable_file", error.message, "")
        yield Document(0, "$", dead=dead)


def _stretch(draft: Draft, links: Links, tally: Tally, notes: "Notes") -> Stretch:
    for event, (user, client) in zip(draft.events, draft.identities, strict=True):
        event["visitor"] = links.visitor(user, client)
    batch = draft.batch()
    notes.add(draft)
    tally.add(_converted(batch), ())
    return Stretch(batch, dead_frame(draft.dead))


def _converted(batch: EventBatch) -> Converted:
    """Show events to the tally as the columns of a native log."""
    events = batch.events
    rows = pl.int_range(1, events.height + 1, eager=True)
    block = Block("", events.drop("custom_name"), rows, dead_frame([]))
    custom = events["custom_name"].drop_nulls().value_counts()
    unknown = dict(custom.iter_rows())
    return Converted(
        events, batch.items, block.dead_letters, block, events["ts"], events["event"], 0, 0, unknown
    )


class Notes:
    """What is noticed about payloads beside their events, counted over the log."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], _Rule] = {}
        self._ignored: Counter[str] = Counter()
        self._made = self._events = 0
        self._last: int | None = None

    def add(self, draft: Draft) -> None:
        """Count what a draft notes."""
        for warned in draft.warnings:
            self._rules.setdefault((warned.kind, warned.path), _Rule()).add(warned)
        self._ignored.update(draft.ignored)
        self._made += draft.made_ids
        self._events += len(draft.events)
        latest = max((event["ts"] for event in draft.events), default=None)
        if latest is not None:
            self._last = latest if self._last is None else max(self._last, latest)

    def findings(self) -> tuple[Finding, ...]:
        """Give what can be said once the log has ended."""
        found = [rule.finding(kind, path, self._last) for (kind, path), rule in self._rules.items()]
        if self._made:
            detail = (
                f"{self._made:,} of {self._events:,} events had no id of their own; ids were made "
                "from who, when and what, so that a payload sent twice counts once."
            )
            found.append(Finding("ids_made", "id", None, None, detail))
        if self._ignored:
            names = ", ".join(f"`{name}` {n:,}" for name, n in self._ignored.most_common(SHOWN))
            more = len(self._ignored) - SHOWN
            tail = f" and {more:,} more" if more > 0 else ""
            detail = f"Fields left out on purpose: {names}{tail}."
            found.append(Finding("fields_ignored", "*", None, None, detail))
        return tuple(found)


class _Rule:
    """How often a rule was broken, between when and when."""

    def __init__(self) -> None:
        self.count = 0
        self.words: Counter[str] = Counter()
        self.first: int | None = None
        self.last: int | None = None

    def add(self, warned: Warned) -> None:
        self.count += 1
        if warned.detail in self.words or len(self.words) < SHOWN:
            self.words[warned.detail] += 1
        if warned.ts is not None:
            self.first = warned.ts if self.first is None else min(self.first, warned.ts)
            self.last = warned.ts if self.last is None else max(self.last, warned.ts)

    def finding(self, kind: str, path: str, end: int | None) -> Finding:
        """Say what was broken, and whether it still is at the end of the log."""
        over = end is not None and self.last is not None and end - self.last > DAY_US
        said = "; ".join(f"{words} ({n:,})" for words, n in self.words.most_common(3))
        more = len(self.words) - 3
        tail = f"; and {more} more" if more > 0 else ""
        return Finding(
            kind,
            path,
            None if self.first is None else iso(self.first),
            iso(self.last) if over and self.last is not None else None,
            f"A rule of the format is broken: {said}{tail}. Nothing is lost by it.",
        )
