"""The lines of a text file, plain or packed, whatever is wrong with it."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

CHUNK: Final = 1 << 20
MAX_LINE: Final = 4 << 20
"""Bytes in a line; a longer one is a dead letter, and never held in memory."""
SHOWN: Final = 2_000

MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
REPLACED: Final = "\ufffd"
ZSTD_SEPARATOR: Final = "\x01"


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line of a text file: its number from 1, and its text, or why there is none.

    Where ``reason`` is set, ``text`` is the beginning of the line; ``truncated`` and ``corrupt``
    stand for everything from that line on.

    Examples
    --------
    >>> Line(7, "a,b,c").number
    7
    """

    number: int
    text: str
    reason: str | None = None


class BrokenStreamError(Exception):
    """A packed stream ends before its end (``truncated``), or does not check (``corrupt``)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_lines(path: Path, packing: str | None, encoding: str = "utf-8") -> Iterator[Line]:
    """Give the lines of a file that are not blank. A byte-order mark decides over ``encoding``."""
    if packing == "zstd":
        yield from zstd_lines(path)
        return
    chunks = gzip_chunks(path) if packing == "gzip" else _plain_chunks(path)
    yield from _split(_recode(chunks), encoding)


def read_text_chunks(path: Path, packing: str | None) -> Iterator[str]:
    """Give a file as text in pieces, for what is not written line by line.

    Raises
    ------
    BrokenStreamError
        Behind the last text that could be read.
    """
    if packing == "zstd":
        for line in zstd_lines(path):
            if line.reason in {"truncated", "corrupt"}:
                raise BrokenStreamError(line.reason)
            yield f"{line.text}\n"
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for chunk in _recode(gzip_chunks(path) if packing == "gzip" else _plain_chunks(path)):
        yield decoder.decode(chunk)


def _plain_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def gzip_chunks(path: Path) -> Iterator[bytes]:
    """Unpack a gzip file, as far as it can be read.

    Raises
    ------
    BrokenStreamError
        Behind the last bytes that could be read.
    """
    with gzip.open(path, "rb") as stream:
        while True:
            try:
                chunk = stream.read1(CHUNK)
            except EOFError as error:
                raise BrokenStreamError("truncated") from error
            except (OSError, zlib.error) as error:
                raise BrokenStreamError("corrupt") from error
            if not chunk:
                return
            yield chunk


def _recode(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Turn UTF-16 into UTF-8, and leave out a byte-order mark."""
    first = next(chunks, b"")
    for mark, name in MARKS:
        if first.startswith(mark):
            if name == "utf-8-sig":
                yield first[len(mark) :]
                yield from chunks
                return
            decoder = codecs.getincrementaldecoder(name)(errors="replace")
            yield decoder.decode(first).encode("utf-8", "replace")
            for chunk in chunks:
                yield decoder.decode(chunk).encode("utf-8", "replace")
            return
    yield first
    yield from chunks


def _split(chunks: Iterator[bytes], encoding: str) -> Iterator[Line]:
    """Cut chunks at line breaks; what is left of a line that is too long is passed over."""
    number, held, skipping = 1, b"", False
    reason = None
    while reason is None:
        chunk, reason = _next(chunks)
        *whole, held = (held + chunk).split(b"\n")
        for raw in whole:
            if not skipping and raw.strip():
                yield _line(number, raw, encoding)
            skipping = False
            number += 1
        if skipping or len(held) > MAX_LINE:
            if not skipping:
                yield _too_long(number, held, encoding)
            held, skipping = b"", True
    if reason != END:
        yield Line(number, held[:SHOWN].decode(encoding, "replace"), reason)
    elif held.strip():
        yield _line(number, held, encoding)


def _next(chunks: Iterator[bytes]) -> tuple[bytes, str | None]:
    """Give the next chunk, or why there is none."""
    try:
        chunk = next(chunks, None)
    except BrokenStreamError as error:
        return b"", error.reason
    return (b"", END) if chunk is None else (chunk, None)


END: Final = "end"


def _line(number: int, raw: bytes, encoding: str) -> Line:
    if len(raw) > MAX_LINE:
        return _too_long(number, raw, encoding)
    try:
        return Line(number, raw.decode(encoding).rstrip("\r"))
    except UnicodeDecodeError:
        return Line(number, raw[:SHOWN].decode(encoding, "replace"), "bad_encoding")


def _too_long(number: int, raw: bytes, encoding: str) -> Line:
    return Line(number, raw[:SHOWN].decode(encoding, "replace"), "line_too_long")


def zstd_lines(path: Path) -> Iterator[Line]:
    """Give the lines of a zstd file, as far as it can be read; bytes that are no UTF-8 are marked.

    Python 3.13 cannot unpack zstd, but the frame library's reader of text can, as a stream.
    """
    number = 0
    scan = pl.scan_csv(
        path,
        has_header=False,
        separator=ZSTD_SEPARATOR,
        quote_char=None,
        encoding="utf8-lossy",
        schema={"line": pl.String, "rest": pl.String},
        truncate_ragged_lines=True,
        missing_columns="insert",
    )
    try:
        for batch in scan.collect_batches(maintain_order=True):
            for line, rest in batch.iter_rows():
                number += 1
                text = (line or "") if rest is None else f"{line or ''}{ZSTD_SEPARATOR}{rest}"
                text = text.removeprefix("\ufeff")
                if text.strip():
                    yield _checked(number, text.rstrip("\r"))
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = "truncated" if "incomplete" in str(error) else "corrupt"
        yield Line(number + 1, str(error)[:SHOWN], reason)


def _checked(number: int, text: str) -> Line:
    if len(text) > MAX_LINE:
        return Line(number, text[:SHOWN], "line_too_long")
    return Line(number, text, "bad_encoding" if REPLACED in text else None)
