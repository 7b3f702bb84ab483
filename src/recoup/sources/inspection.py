"""Look at an unknown log: what it is, what it can answer, and what it cannot."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.sources.answers import judge
from recoup.sources.base import Source, SourceBatch, merge_findings
from recoup.sources.beside import lines_beside, native_files
from recoup.sources.files import LogFile, find_files
from recoup.sources.google_merch_store import NAME as SHOP
from recoup.sources.google_merch_store import GoogleMerchStore, is_shop
from recoup.sources.guess import Guess, guess_mapping
from recoup.sources.mapped import MappedSource
from recoup.sources.mapping import parse_mapping
from recoup.sources.native import MAPPING, is_native
from recoup.sources.native import NAME as NATIVE
from recoup.sources.payloads import PayloadSource, recognise_files
from recoup.sources.readers import empty_log, read_blocks
from recoup.sources.shipped import open_shipped, recognise
from recoup.sources.synonyms import field_of
from recoup.sources.tables import Block, Dialect
from recoup.sources.toml import render

MAX_EVENTS: Final = 1_000_000
"""Events looked at; a longer log is judged by its beginning, and says so."""


class Inspection(msgspec.Struct, frozen=True):
    """What was found out about a log.

    Parameters
    ----------
    mapping
        TOML that ``open_source(mapping=...)`` accepts; for a log of a known format only its name.
    answers, cannot_answer
        Sentences: what the log can say, and what it cannot.
    drift
        What is wrong with its columns, and since when.

    Examples
    --------
    >>> Inspection("", ["Purchases: 3."], [], []).answers
    ['Purchases: 3.']
    """

    mapping: str
    answers: list[str]
    cannot_answer: list[str]
    drift: list[Finding]


def inspect_log(
    path: str | Path, *, now: dt.datetime | None = None, as_table: bool = False
) -> Inspection:
    """Look at a log: propose a mapping, and say what it can and cannot answer.

    Parameters
    ----------
    path
        A file, or a directory of them.
    now
        Events more than a day later are refused; the clock where it is not given.
    as_table
        Propose a mapping for a public log too, whose own ships with the project.

    Raises
    ------
    SourceError
        If there is nothing to read, or it is no log of events.
    """
    log = Path(path)
    moment = now or dt.datetime.now(dt.UTC)
    if not log.exists():
        raise SourceError(f"Expected a log, got nothing at `{log}`", hint="check the path")
    if log.is_dir() and is_shop(log):
        return _judged(GoogleMerchStore(log, now=moment), _named(SHOP), [])
    files = find_files(log)
    if (payloads := recognise_files(files)) is not None:
        found = _judged(PayloadSource(files, payloads, now=moment), _named(payloads.name), [])
        return _telling(found, f"{payloads.title} (`{payloads.name}`)")
    chosen, sample, dialect, left = _choose(files)
    if is_native(sample.frame.columns) and dialect == Dialect():
        beside = lines_beside(files)
        source = MappedSource(native_files(chosen), MAPPING, now=moment, beside=beside)
        known = {f"`{file.label}`" for file in beside}
        return _judged(source, _named(NATIVE), [e for e in left if e.split(" ")[0] not in known])
    if not as_table and (public := recognise(files)) is not None:
        return _telling(
            _judged(open_shipped(public, files, now=moment), _named(public), []), f"`{public}`"
        )
    guess = guess_mapping(sample, now=moment, source=_source_name(log))
    guess = _with_dialect(guess, dialect, chosen, files)
    text = render(guess.mapping, guess.notes, title=f"proposed for {log.name}: look it over")
    mapping = parse_mapping(text)
    return _judged(MappedSource(chosen, mapping, now=moment), text, left)


def _named(name: str) -> str:
    return f'# a log of a known format: it needs no mapping\nformat = "{name}"\n'


def _telling(found: Inspection, format_: str) -> Inspection:
    return msgspec.structs.replace(found, answers=[f"Format: {format_}.", *found.answers])


def _source_name(log: Path) -> str:
    return log.name.split(".")[0] or "log"


def _judged(source: Source, text: str, left: list[str]) -> Inspection:
    answers, cannot, findings = judge(_until(source, MAX_EVENTS))
    return Inspection(text, answers, [*cannot, *left], list(merge_findings(findings)))


def _until(source: Source, limit: int) -> Iterator[SourceBatch]:
    seen = 0
    for batch in source.batches():
        seen += len(batch.batch)
        yield batch
        if seen >= limit:
            return


def _choose(files: list[LogFile]) -> tuple[list[LogFile], Block, Dialect, list[str]]:
    """Take the files that share the columns of the largest part of the log.

    A directory may hold other tables beside its events: those are named, and left out.
    """
    parts: dict[frozenset[str], list[tuple[LogFile, Block, Dialect]]] = {}
    unreadable: list[str] = []
    for file in files:
        try:
            block, dialect = _sample(file)
        except SourceError as error:
            if len(files) == 1:
                raise
            unreadable.append(f"`{file.label}` cannot be read: {error.message}")
            continue
        if block is not None:
            key = _kin(parts, frozenset(block.frame.columns))
            parts.setdefault(key, []).append((file, block, dialect))
    if not parts:
        raise empty_log(files)
    best = max(parts.values(), key=_weight)
    left = [
        f"`{file.label}` has other columns and is left out; pass it by itself."
        for part in parts.values()
        if part is not best
        for file, _, _ in part
    ]
    return [file for file, _, _ in best], best[0][1], best[0][2], [*unreadable, *left]


def _weight(part: list[tuple[LogFile, Block, Dialect]]) -> tuple[bool, int]:
    fields = {guess[0] for name in part[0][1].frame.columns if (guess := field_of(name))}
    size = sum(file.path.stat().st_size for file, _, _ in part)
    return {"ts"} < fields and bool(fields & {"visitor", "session", "id"}), size


def _kin(parts: dict[frozenset[str], Any], columns: frozenset[str]) -> frozenset[str]:
    """Find the part whose columns are nearly these: a renamed column makes no other table."""
    for key in parts:
        if len(key & columns) >= KIN * len(key | columns):
            return key
    return columns


def _sample(file: LogFile) -> tuple[Block | None, Dialect]:
    """Read the beginning of a file, in whichever encoding, with or without a header."""
    dialect = Dialect()
    block = next(_with_rows(file, dialect), None)
    if file.kind != "csv" and block is not None:
        return block, dialect
    if _wrongly_encoded(file, dialect):
        dialect = Dialect(encoding="cp1252")
        block = next(_with_rows(file, dialect), None)
    if block is not None and file.kind == "csv" and not _has_header(block):
        dialect = msgspec.structs.replace(dialect, header=False)
        block = next(_with_rows(file, dialect), None)
    return block, dialect


def _with_rows(file: LogFile, dialect: Dialect) -> Iterator[Block]:
    return (block for block in read_blocks(file, dialect) if block.frame.height)


def _wrongly_encoded(file: LogFile, dialect: Dialect) -> bool:
    first = next(read_blocks(file, dialect), None)
    return first is not None and "bad_encoding" in first.dead_letters["reason"]


def _has_header(block: Block) -> bool:
    """Say whether the first line names columns: names are no numbers, and mostly words."""
    names = pl.Series(block.frame.columns)
    return not names.str.contains(r"^[\d\s:./+-]*$|^\d{4}-\d{2}-\d{2}").any()


def _with_dialect(
    guess: Guess, dialect: Dialect, chosen: list[LogFile], files: list[LogFile]
) -> Guess:
    mapping = msgspec.structs.replace(
        guess.mapping, header=dialect.header, encoding=dialect.encoding
    )
    if len(chosen) < len(files):
        mapping = msgspec.structs.replace(mapping, files=[file.label for file in chosen])
    return Guess(mapping, guess.notes)


KIN: Final = 0.6
"""Share of columns that two files of one log have in common, at least."""
