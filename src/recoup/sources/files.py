"""The files of a log: which there are, of what kind, how compressed."""

import fnmatch
from pathlib import Path
from typing import Final, Literal

import msgspec

from recoup.errors import SourceError
from recoup.sources.lines import BrokenStreamError, gzip_chunks, zstd_lines

Kind = Literal["csv", "ndjson", "parquet"]
Packing = Literal["gzip", "zstd"]

KINDS: Final[dict[str, Kind]] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv",
    ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
PACKINGS: Final[dict[str, Packing]] = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
}

TRUTH: Final = "truth.json"
"""The labels beside a log with known defects: never a part of the log."""

MAGIC_GZIP: Final = b"\x1f\x8b"
MAGIC_ZSTD: Final = b"\x28\xb5\x2f\xfd"
MAGIC_PARQUET: Final = b"PAR1"


class LogFile(msgspec.Struct, frozen=True):
    """One file of a log.

    Parameters
    ----------
    path
        Where it is.
    label
        How dead letters name it: its path within the log.
    kind
        What it holds.
    packing
        How it is compressed, or None.

    Examples
    --------
    >>> LogFile(Path("clicks.csv.gz"), "clicks.csv.gz", "csv", "gzip").kind
    'csv'
    """

    path: Path
    label: str
    kind: Kind
    packing: Packing | None


def find_files(path: Path) -> list[LogFile]:
    """List the files of a log, in the order of their names; a file is a log of one.

    Raises
    ------
    SourceError
        If there is nothing, or nothing that can be a log.
    """
    if not path.exists():
        raise SourceError(f"Expected a log, got nothing at `{path}`", hint="check the path")
    if path.is_file():
        return [_describe(path, path.name)]
    candidates = sorted(
        (
            found
            for found in path.rglob("*")
            if found.is_file() and found.name != TRUTH and not _hidden(found, path)
        ),
        key=lambda found: str(found.relative_to(path)),
    )
    files = [
        _describe(found, str(found.relative_to(path)))
        for found in candidates
        if _suffixes(found)[0] in KINDS
    ]
    if not files:
        got = f"{len(candidates)} of another kind" if candidates else "no file at all"
        raise SourceError(
            f"Expected files of events in `{path}`, got {got}",
            hint=f"their names should end in {', '.join(KINDS)}, with .gz or .zst where packed",
        )
    return files


def pick_files(files: list[LogFile], patterns: list[str]) -> list[LogFile]:
    """Keep the files whose name fits one of the patterns, or all where there is none.

    Raises
    ------
    SourceError
        If none fits.
    """
    if not patterns or len(files) == 1:
        return files
    picked = [f for f in files if any(fnmatch.fnmatch(f.label, pattern) for pattern in patterns)]
    if not picked:
        raise SourceError(
            f"Expected files named {', '.join(patterns)}, got "
            f"{', '.join(file.label for file in files[:10])}",
            hint="correct `files` in the mapping",
        )
    return picked


def _hidden(found: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in found.relative_to(root).parts)


def _suffixes(path: Path) -> tuple[str, str]:
    """Give the suffix that tells the kind, and the one that tells the packing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-1] if suffixes else ""
    if last in PACKINGS:
        return (suffixes[-2] if len(suffixes) > 1 else ""), last
    return last, ""


def _describe(path: Path, label: str) -> LogFile:
    head = _head(path)
    packing = _packing(head)
    inner = head if packing is None else _unpacked_head(path, packing)
    return LogFile(path, label, _kind(path, inner), packing)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise SourceError(f"Expected a readable file, got `{path}`: {error.strerror}") from error


def _packing(head: bytes) -> Packing | None:
    if head.startswith(MAGIC_GZIP):
        return "gzip"
    return "zstd" if head.startswith(MAGIC_ZSTD) else None


def _unpacked_head(path: Path, packing: Packing) -> bytes:
    if packing == "zstd":
        return next((line.text[:64].encode() for line in zstd_lines(path)), b"")
    try:
        return next(gzip_chunks(path), b"")[:64]
    except BrokenStreamError:
        return b""


def _kind(path: Path, head: bytes) -> Kind:
    if head.startswith(MAGIC_PARQUET):
        return "parquet"
    named = KINDS.get(_suffixes(path)[0])
    if named in {"ndjson", "csv"}:
        return named
    return "ndjson" if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")) else "csv"
