"""Public logs that open without a mapping of the user's own: their mapping files ship beside this.

docs/sources.md says for each what maps to what, and what is lost.
"""

import datetime as dt
import fnmatch
import functools
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.decisions import Finding
from recoup.errors import SourceError
from recoup.sources.files import LogFile
from recoup.sources.mapped import MappedSource
from recoup.sources.mapping import Mapping, parse_mapping
from recoup.sources.moments import settle_format
from recoup.sources.naming import FILE, Naming, headless_names
from recoup.sources.readers import read_blocks
from recoup.sources.tables import Block

NAMES: Final = ("online_retail", "cdnow", "completejourney", "retailrocket", "yoochoose", "taobao")
"""Formats whose mapping ships with the project."""
MAX_LOOKED_AT: Final = 64
"""Files of a directory that are looked into to recognise it."""


@functools.cache
def shipped_mapping(name: str) -> Mapping:
    """Read the mapping of a public log.

    Examples
    --------
    >>> shipped_mapping("taobao").event.names["fav"]
    'add_to_wishlist'
    """
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return parse_mapping(text, where=f"the mapping of {name}")


def recognise(files: list[LogFile]) -> str | None:
    """Name the public log that these files are, by the names of their columns."""
    found = (name for name in NAMES if _fits(shipped_mapping(name), files))
    return next(found, None)


def open_shipped(name: str, files: list[LogFile], *, now: dt.datetime) -> MappedSource:
    """Open a public log.

    Raises
    ------
    SourceError
        If its tables lack what the format needs.
    """
    mapping = shipped_mapping(name)
    chosen = _chosen(mapping, files)
    if _missing(mapping, chosen[0]):
        mapping = _told_headless(mapping, chosen)
    missing = _missing(mapping, chosen[0])
    if missing:
        raise SourceError(
            f"Expected a log of the format {name}, got `{chosen[0].path}` without "
            f"{', '.join(missing)}",
            hint="leave --format out to have the format found, or pass a mapping file",
        )
    mapping = _settled(mapping, chosen[:MAX_LOOKED_AT], now)
    left = [file.label for file in files if file not in chosen and not _joined(mapping, file)]
    return MappedSource(chosen, mapping, now=now, noticed=_left_out(left, name))


def _chosen(mapping: Mapping, files: list[LogFile]) -> list[LogFile]:
    """Take the files whose names the format knows, or all where it knows none of them."""
    named = [file for file in files if _named(file, mapping.files)]
    return named or files


def _named(file: LogFile, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(Path(file.label).name, pattern) for pattern in patterns)


def _joined(mapping: Mapping, file: LogFile) -> bool:
    return _named(file, [join.file for join in mapping.join])


def _fits(mapping: Mapping, files: list[LogFile]) -> bool:
    """Say whether every file has the columns of the format, and no others."""
    chosen = _chosen(mapping, files)[:MAX_LOOKED_AT]
    known = {*mapping.spellings, *(name for join in mapping.join for name in join.columns), FILE}
    return all(not _missing(mapping, file) and _columns(mapping, file) <= known for file in chosen)


def _missing(mapping: Mapping, file: LogFile) -> list[str]:
    return sorted(_needed(mapping) - _columns(mapping, file))


def _needed(mapping: Mapping) -> set[str]:
    """Give the columns that a format cannot do without: moment, event, person, and its lines'."""
    items = mapping.items
    lines = set() if items is None or items.needs else {*items.group_by, *items.fields.values()}
    money = {name for f in ("value", "item") if (rule := mapping.columns.get(f)) is not None
             for name in rule.sources}  # fmt: skip
    named = {*mapping.ts.sources, *mapping.event.sources, *mapping.columns["visitor"].sources}
    added = {name for join in mapping.join for name in join.columns}
    return (named | lines | money) - added - {FILE}


def _columns(mapping: Mapping, file: LogFile) -> set[str]:
    block = _first(mapping, file)
    return set() if block is None else set(block.frame.columns)


def _first(mapping: Mapping, file: LogFile) -> Block | None:
    naming = Naming(msgspec.structs.replace(mapping, join=[]), [file])
    try:
        blocks = read_blocks(file, naming.dialect(file))
        found = next((block for block in blocks if block.frame.height), None)
    except SourceError:
        return None
    return None if found is None else naming.named(found, file)


def _told_headless(mapping: Mapping, files: list[LogFile]) -> Mapping:
    """Take files for headerless that have as many columns as the format's own."""
    told: dict[str, list[str]] = {}
    for file in files:
        block = _first(mapping, file)
        width = -1 if block is None else block.frame.width
        fitting = [names for names in mapping.headerless.values() if len(names) == width]
        if fitting and headless_names(mapping, file) is None:
            told[Path(file.label).name] = fitting[0]
    return msgspec.structs.replace(mapping, headerless={**told, **mapping.headerless})


def _settled(mapping: Mapping, files: list[LogFile], now: dt.datetime) -> Mapping:
    """Settle in which order day and month stand, by the beginning of each file."""
    if len(mapping.ts.formats) == 1 or len(mapping.ts.sources) != 1:
        return mapping
    blocks = filter(None, (_first(mapping, file) for file in files))
    columns = [block.frame[mapping.ts.sources[0]] for block in blocks]
    texts = [column for column in columns if column.dtype == pl.String]
    forms = [settle_format(column, mapping.ts.formats, now=now) for column in texts]
    settled = list(dict.fromkeys(filter(None, forms)))
    if not settled or None in forms:
        return mapping
    return msgspec.structs.replace(mapping, ts=msgspec.structs.replace(mapping.ts, format=settled))


def _left_out(labels: list[str], name: str) -> tuple[Finding, ...]:
    if not labels:
        return ()
    detail = f"{', '.join(labels)}: not read, as `{name}` has no use for them."
    return (Finding("files_left_out", "*", None, None, detail),)
