"""The payloads of a file: lines of JSON, an array of objects, or the rows of a table."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

import msgspec

from recoup.sources.csv_table import csv_blocks
from recoup.sources.files import LogFile
from recoup.sources.json_table import WORDS, parse, parse_value
from recoup.sources.lines import (
    MAX_LINE,
    BrokenStreamError,
    Line,
    read_lines,
    read_text_chunks,
)
from recoup.sources.tables import LINE_WORDS, Dialect, dead_letter, parquet_frames


class Document(msgspec.Struct, frozen=True):
    """One payload of a file, or why there is none.

    Parameters
    ----------
    number
        Of its line in a text file, of its row in a table, from 1.
    root
        Where it stands in that line: ``$``, or ``$[3]`` in an array.
    value
        The payload.
    dead
        A dead letter in its place, or None.
    """

    number: int
    root: str
    value: Any = None
    dead: dict[str, str] | None = None


def read_documents(file: LogFile) -> Iterator[Document]:
    """Give the payloads of a file in their order.

    Raises
    ------
    SourceError
        If the file cannot be read at all.
    """
    if file.kind == "parquet":
        return _rows(file)
    if file.kind == "csv":
        return _cells(file)
    lines = read_lines(file.path, file.packing)
    first = list(islice(lines, 2))
    if _written_over_lines(first):
        return _values(file)
    return _lines(file, chain(first, lines))


def _rows(file: LogFile) -> Iterator[Document]:
    number = 0
    for frame in parquet_frames(file):
        for row in frame.iter_rows(named=True):
            number += 1
            yield Document(number, "$", row)


def _cells(file: LogFile) -> Iterator[Document]:
    for block in csv_blocks(file.label, read_lines(file.path, file.packing), Dialect()):
        for dead in block.dead_letters.iter_rows(named=True):
            yield Document(0, "$", dead=dead)
        rows = block.frame.iter_rows(named=True)
        for number, row in zip(block.rows.to_list(), rows, strict=True):
            yield Document(number, "$", row)


def _written_over_lines(first: list[Line]) -> bool:
    """Say whether one value takes several lines, or a line longer than a line may be."""
    if not first:
        return False
    head = first[0].text.lstrip()
    if first[0].reason == "line_too_long":
        return head.startswith("[")
    if first[0].reason is not None or not head.startswith(("[", "{")):
        return False
    if not parse_value(first[0].text)[1]:
        return False
    return head.startswith("[") or len(first) == 1 or parse(first[1].text)[0] is None


def _lines(file: LogFile, lines: Iterator[Line]) -> Iterator[Document]:
    for line in lines:
        if line.reason is not None:
            yield _dead(file, line.number, line.reason, line.text)
            continue
        value, reason = parse_value(line.text)
        if reason:
            yield _dead(file, line.number, reason, line.text)
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                yield Document(line.number, f"$[{place}]", inner)
        else:
            yield Document(line.number, "$", value)


def _dead(file: LogFile, number: int, reason: str, raw: str) -> Document:
    detail = LINE_WORDS.get(reason) or WORDS[reason]
    return Document(number, "$", dead=dead_letter(f"{file.label}:{number}", reason, detail, raw))


def _values(file: LogFile) -> Iterator[Document]:
    """Read values one behind the other, or inside one array, whatever their line breaks."""
    text = _Text(read_text_chunks(file.path, file.packing))
    inside = text.skip() == "["
    text.at += inside
    place = 0
    while text.skip(",]" if inside else ""):
        root = f"$[{place}]" if inside else "$"
        number = text.number
        try:
            yield Document(number, root, text.value())
        except ValueError:
            reason = text.broken or "bad_json"
            detail = LINE_WORDS.get(reason, "the JSON breaks here; everything from here on is lost")
            raw = text.held[text.at : text.at + SHOWN]
            yield Document(
                number, root, dead=dead_letter(f"{file.label}:{number}", reason, detail, raw)
            )
            return
        place += 1
    if text.broken:
        yield _dead(file, text.number, text.broken, "")


SHOWN: Final = 2_000
SPACE: Final = " \t\r\n\ufeff"


class _Text:
    """A file's text as far as it is needed: the part before ``at`` is done."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self._decoder = json.JSONDecoder()
        self.held = ""
        self.at = 0
        self.number = 1
        self.broken: str | None = None

    def skip(self, marks: str = "") -> str:
        """Pass over space and marks; give the character behind them, or nothing at the end."""
        passed = SPACE + marks
        while True:
            while self.at < len(self.held) and self.held[self.at] in passed:
                self.number += self.held[self.at] == "\n"
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self._more():
                return ""

    def value(self) -> Any:  # noqa: ANN401
        """Read the value that begins here.

        Raises
        ------
        ValueError
            If there is none, or it does not end within the length of a line.
        """
        while True:
            try:
                found, end = self._decoder.raw_decode(self.held, self.at)
            except RecursionError:
                raise ValueError("too deep") from None
            except ValueError:
                if len(self.held) - self.at > MAX_LINE or not self._more():
                    raise
                continue
            if end == len(self.held) and self._more():
                continue
            self.number += self.held.count("\n", self.at, end)
            self.at = end
            return found

    def _more(self) -> bool:
        """Hold the next chunk as well; say whether there was one."""
        try:
            chunk = next(self._chunks, None)
        except BrokenStreamError as error:
            self.broken = error.reason
            return False
        if chunk is None:
            return False
        self.held = self.held[self.at :] + chunk
        self.at = 0
        return True
