"""The records of one file, edited by their numbers; whatever is not touched stays as it is."""

import csv
import gzip
import io
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.sources.csv_table import WHITESPACE, sniff_delimiter
from recoup.sources.files import LogFile
from recoup.sources.lines import read_lines
from recoup.sources.naming import Naming

Raw: TypeAlias = str | int | float | bool | None
Rows = NDArray[np.int64]


class Records(Protocol):
    """Records by number, from 1: of their line in text, of their row in Parquet."""

    columns: list[str]

    def get(self, name: str, rows: Rows) -> pl.Series:
        """Give a field of some records."""
        ...

    def put(self, name: str, rows: Rows, values: list[Raw]) -> None:
        """Write a field of some records."""
        ...

    def repeat(self, rows: Rows, times: Rows, own: str | None) -> None:
        """Let each record be there ``times`` times: 0 takes it, copies get ids of their own."""
        ...

    def save(self, target: Path) -> None:
        """Write the file."""
        ...


def open_records(file: LogFile, naming: Naming, encoding: str) -> Records:
    """Read a file to edit it."""
    if file.kind == "parquet":
        return ParquetRecords(file.path)
    if file.kind == "csv":
        return CsvRecords(file, naming, encoding)
    return JsonRecords(file, encoding)


class ParquetRecords:
    """Rows of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._frame = pl.read_parquet(path)
        self.columns = self._frame.columns

    def get(self, name: str, rows: Rows) -> pl.Series:
        """Give a field of some records."""
        return self._frame[name].gather(rows - 1)

    def put(self, name: str, rows: Rows, values: list[Raw]) -> None:
        """Write a field of some records."""
        column = self._frame[name]
        new = pl.Series(values, strict=False).cast(column.dtype, strict=False)
        self._frame = self._frame.with_columns(column.scatter(rows - 1, new).alias(name))

    def repeat(self, rows: Rows, times: Rows, own: str | None) -> None:
        """Let each record be there ``times`` times; only ids that are texts can be new."""
        counts = np.ones(self._frame.height, np.int64)
        counts[rows - 1] = times
        taken = np.repeat(np.arange(len(counts)), counts)
        number = pl.Series(np.arange(len(taken)) - np.repeat(np.cumsum(counts) - counts, counts))
        self._frame = self._frame[taken]
        if own is not None and self._frame.schema[own] == pl.String:
            again = pl.when(number > 0).then(pl.format("{}-again-{}", own, number)).otherwise(own)
            self._frame = self._frame.with_columns(again.alias(own))

    def save(self, target: Path) -> None:
        """Write the file."""
        self._frame.write_parquet(target, compression="zstd")


class TextRecords:
    """Lines of text, each of which becomes none, itself, or several."""

    def __init__(self, file: LogFile, encoding: str) -> None:
        self.columns: list[str] = []
        self._lines = [line.text for line in read_lines(file.path, file.packing, encoding)]
        self._packing, self._encoding = file.packing, encoding
        self._after: dict[int, list[str]] = {}
        self._gone: set[int] = set()

    def put(self, name: str, rows: Rows, values: list[Raw]) -> None:
        """Write a field of some records."""
        for row, value in zip(rows.tolist(), values, strict=True):
            length = self._length(row)
            self._lines[row - 1] = self._with(row, name, value)
            self._gone.update(range(row + 1, row + length))

    def repeat(self, rows: Rows, times: Rows, own: str | None) -> None:
        """Let each record be there ``times`` times."""
        for row, count in zip(rows.tolist(), times.tolist(), strict=True):
            length = self._length(row)
            if not count:
                self._gone.update(range(row, row + length))
            copies = [self._copy(row, number, own) for number in range(1, count)]
            if copies:
                self._after[row + length - 1] = copies

    def save(self, target: Path) -> None:
        """Write the file, packed as it was."""
        kept: list[str] = []
        for number, line in enumerate(self._lines, 1):
            if number not in self._gone:
                kept.append(line)
            kept += self._after.get(number, [])
        data = "".join(line + "\n" for line in kept).encode(self._encoding)
        if self._packing == "gzip":
            with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
                stream.write(data)
        else:
            target.write_bytes(data)

    def _copy(self, row: int, number: int, own: str | None) -> str:
        old = None if own is None else self._value(row, own)
        if own is None or not isinstance(old, str):
            return "\n".join(self._lines[row - 1 : row - 1 + self._length(row)])
        return self._with(row, own, f"{old}-again-{number}")

    def _length(self, row: int) -> int:
        del row
        return 1

    def _value(self, row: int, name: str) -> Raw:
        raise NotImplementedError

    def _with(self, row: int, name: str, value: Raw) -> str:
        raise NotImplementedError


class JsonRecords(TextRecords):
    """Lines of NDJSON; fields inside objects go by dotted names."""

    def get(self, name: str, rows: Rows) -> pl.Series:
        """Give a field of some records."""
        return pl.Series([self._value(row, name) for row in rows.tolist()], strict=False)

    def _value(self, row: int, name: str) -> Raw:
        inner, last = self._inside(msgspec.json.decode(self._lines[row - 1]), name)
        found: Raw = inner.get(last)  # type: ignore[assignment]
        return found

    def _with(self, row: int, name: str, value: Raw) -> str:
        whole = msgspec.json.decode(self._lines[row - 1])
        inner, last = self._inside(whole, name)
        inner[last] = value
        return msgspec.json.encode(whole).decode()

    def _inside(self, whole: dict[str, object], name: str) -> tuple[dict[str, object], str]:
        inner = whole
        *path, last = [name] if name in whole else name.split(".")
        for part in path:
            following = inner.setdefault(part, {})
            if not isinstance(following, dict):
                return {}, last
            inner = following
        return inner, last


class CsvRecords(TextRecords):
    """Records of CSV; only those that change are written anew."""

    def __init__(self, file: LogFile, naming: Naming, encoding: str) -> None:
        super().__init__(file, encoding)
        dialect = naming.dialect(file)
        first = self._lines[0] if self._lines else ""
        self._delimiter = dialect.delimiter or sniff_delimiter(first, header=dialect.header)
        fields = self._fields(1) if self._lines else []
        self.columns = [name.strip() for name in fields]
        if not dialect.header:
            numbered = tuple(f"c{number}" for number in range(1, len(fields) + 1))
            self.columns = list(dialect.names or numbered)
        self._place = {name: place for place, name in enumerate(self.columns)}

    def get(self, name: str, rows: Rows) -> pl.Series:
        """Give a field of some records as text; null where it is empty."""
        return pl.Series([self._value(row, name) for row in rows.tolist()], dtype=pl.String)

    def _value(self, row: int, name: str) -> str | None:
        return self._fields(row)[self._place[name]] or None

    def _with(self, row: int, name: str, value: Raw) -> str:
        fields = self._fields(row)
        fields[self._place[name]] = _plain(value)
        if self._delimiter == WHITESPACE:
            return "  ".join(fields)
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="").writerow(fields)
        return text.getvalue()

    def _length(self, row: int) -> int:
        """Count the lines of a record: a quoted field may hold line breaks."""
        quotes = 0
        for length, line in enumerate(self._lines[row - 1 :], 1):
            quotes += line.count('"')
            if quotes % 2 == 0:
                return length
        return 1

    def _fields(self, row: int) -> list[str]:
        text = "\n".join(self._lines[row - 1 : row - 1 + self._length(row)])
        if self._delimiter == WHITESPACE:
            return text.split()
        return next(csv.reader(io.StringIO(text), delimiter=self._delimiter), [])


def _plain(value: Raw) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
