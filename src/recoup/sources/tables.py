"""Files of events as blocks of raw columns, with the rows that hold no record at all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import polars as pl

from recoup.errors import SourceError
from recoup.events import DEAD_LETTER_SCHEMA
from recoup.sources.base import RAW_LIMIT, no_dead_letters
from recoup.sources.files import LogFile
from recoup.sources.lines import Line

BLOCK: Final = 8192
"""Raw rows in a block: fixed, so that what is decided block by block is always the same."""
MAX_COLUMNS: Final = 512
MAX_DEPTH: Final = 4


class Block(msgspec.Struct, frozen=True):
    """Consecutive records of one file.

    Parameters
    ----------
    label
        The file, as dead letters name it.
    frame
        Raw columns, one row per record; nested fields of JSON under dotted names.
    rows
        Number of each record in its file, from 1: of its line, or of its row in Parquet.
    dead_letters
        What held no record.

    Examples
    --------
    >>> Block("a.csv", pl.DataFrame({"x": ["1"]}), pl.Series([2]), no_dead_letters()).frame.height
    1
    """

    label: str
    frame: pl.DataFrame
    rows: pl.Series
    dead_letters: pl.DataFrame


class Dialect(msgspec.Struct, frozen=True):
    """How a text file is written.

    Parameters
    ----------
    delimiter
        Of a CSV file; None finds it in the header.
    header
        Whether a CSV file begins with the names of its columns; else they are c1, c2, ...
    encoding
        Of a text file without a byte-order mark.
    names
        Of the columns of a CSV file without a header, where they are known.

    Examples
    --------
    >>> Dialect(delimiter=";").header
    True
    """

    delimiter: str | None = None
    header: bool = True
    encoding: str = "utf-8"
    names: tuple[str, ...] = ()


def dead_letter(path: str, reason: str, detail: str, raw: str) -> dict[str, str]:
    """Make one row of ``DEAD_LETTER_SCHEMA``."""
    return {"path": path, "reason": reason, "detail": detail, "raw": raw[:RAW_LIMIT]}


LINE_WORDS: Final = {
    "line_too_long": "the line is longer than 4 MiB",
    "bad_encoding": "the line is not valid in the file's encoding",
    "truncated": "the packed file ends before its end; everything from here on is lost",
    "corrupt": "the packed file does not check; everything from here on is lost",
}


def bad_line(label: str, line: Line) -> dict[str, str]:
    """Make a dead letter of a line that could not be read."""
    reason = line.reason or "bad_line"
    return dead_letter(f"{label}:{line.number}", reason, LINE_WORDS[reason], line.text)


def dead_frame(rows: Sequence[Mapping[str, str]]) -> pl.DataFrame:
    """Make a frame of ``DEAD_LETTER_SCHEMA``."""
    return pl.DataFrame(rows, DEAD_LETTER_SCHEMA) if rows else no_dead_letters()


def parquet_blocks(file: LogFile) -> Iterator[Block]:
    """Read a Parquet file block by block.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    start = 1
    for frame in parquet_frames(file):
        rows = pl.int_range(start, start + frame.height, eager=True)
        yield Block(file.label, unnested(frame), rows, no_dead_letters())
        start += frame.height


def parquet_frames(file: LogFile) -> Iterator[pl.DataFrame]:
    """Read a Parquet file as it stands, in frames of ``BLOCK`` rows.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    if file.packing is not None:
        raise SourceError(
            f"Expected a Parquet file, got `{file.path}` packed once more ({file.packing})",
            hint="unpack it: Parquet is compressed inside",
        )
    try:
        yield from _even(
            pl.scan_parquet(file.path).collect_batches(chunk_size=BLOCK, maintain_order=True)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"Expected a Parquet file, got `{file.path}`: {error}",
            hint="the file is cut short or damaged; write or copy it anew",
        ) from error


def _even(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Cut frames anew, each of ``BLOCK`` rows but the last."""
    held: list[pl.DataFrame] = []
    count = 0
    for frame in frames:
        held.append(frame)
        count += frame.height
        if count < BLOCK:
            continue
        whole = pl.concat(held)
        for start in range(0, count - count % BLOCK, BLOCK):
            yield whole.slice(start, BLOCK)
        held, count = [whole.slice(count - count % BLOCK)], count % BLOCK
    if count:
        yield pl.concat(held)


def unnested(frame: pl.DataFrame) -> pl.DataFrame:
    """Give the fields of structs as columns of their own, under dotted names."""
    for _ in range(MAX_DEPTH):
        structs = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]
        if not structs:
            break
        frame = frame.unnest(structs, separator=".")
    return frame
