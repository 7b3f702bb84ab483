"""What was decided and what came of it, read from a journal or from tables beside it."""

from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA
from recoup.errors import SourceError
from recoup.stores import SqliteJournal
from recoup.stores.decision_log import logged_decisions

TABLES: Final = ("decisions.parquet", "outcomes.parquet")


class Decided(msgspec.Struct, frozen=True):
    """Frames of ``DECISION_SCHEMA`` and ``OUTCOME_SCHEMA``, and where they were found."""

    decisions: pl.DataFrame
    outcomes: pl.DataFrame
    found_in: Path


def read_decided(path: Path) -> Decided:
    """Read decisions and outcomes: from a journal, or from a directory.

    Parameters
    ----------
    path
        A journal (``.db``); or a directory that holds ``decisions.parquet`` and
        ``outcomes.parquet``, or else one journal.

    Raises
    ------
    SourceError
        If there is neither.
    JournalError
        If the journal is damaged.
    """
    if path.is_file():
        return _from_journal(path)
    if not path.is_dir():
        raise SourceError(f"Expected a journal or a directory, got {path}, which is absent")
    if all((path / name).is_file() for name in TABLES):
        return _from_tables(path)
    journals = sorted(path.glob("*.db"))
    if len(journals) != 1:
        raise SourceError(
            f"Expected {' and '.join(TABLES)}, or one journal (.db), in {path}, got "
            f"{len(journals)} journals",
            hint="name the journal itself, or the --out directory of `recoup demo`",
        )
    return _from_journal(journals[0])


def write_decided(decided: Decided, folder: Path) -> None:
    """Write both frames into a directory, where :func:`read_decided` finds them."""
    for frame, name in zip((decided.decisions, decided.outcomes), TABLES, strict=True):
        frame.write_parquet(folder / name)


def _from_journal(path: Path) -> Decided:
    with SqliteJournal(path, read_only=True) as journal:
        whole = [record.frame for record in journal.read(kind="decisions")]
        decisions = [pl.DataFrame(schema=DECISION_SCHEMA), *whole, *logged_decisions(journal)]
        outcomes = [record.frame for record in journal.read(kind="outcomes")]
    return Decided(
        pl.concat(decisions), pl.concat([pl.DataFrame(schema=OUTCOME_SCHEMA), *outcomes]), path
    )


def _from_tables(folder: Path) -> Decided:
    try:
        decisions, outcomes = (pl.read_parquet(folder / name) for name in TABLES)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"Expected readable tables in {folder}, got: {error}") from error
    return Decided(decisions, outcomes, folder)
