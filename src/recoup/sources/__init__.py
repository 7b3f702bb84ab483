"""Sources: any log, read as batches of events."""

import datetime as dt
from pathlib import Path
from typing import Final

from recoup.errors import SourceError
from recoup.sources.base import ROWS, Source, SourceBatch, merge_findings
from recoup.sources.beside import lines_beside, native_files
from recoup.sources.files import find_files, pick_files
from recoup.sources.google_merch_store import NAME as SHOP
from recoup.sources.google_merch_store import GoogleMerchStore, is_shop
from recoup.sources.guard import Guarded, mark_of, removed_of
from recoup.sources.inspection import Inspection, inspect_log
from recoup.sources.mapped import MappedSource
from recoup.sources.mapping import load_mapping
from recoup.sources.native import MAPPING, is_native, write_native
from recoup.sources.native import NAME as NATIVE
from recoup.sources.payloads import PAYLOAD_FORMATS, PayloadSource, recognise_files
from recoup.sources.privacy import Privacy, Pseudonyms
from recoup.sources.readers import first_block
from recoup.sources.shipped import NAMES as SHIPPED
from recoup.sources.shipped import open_shipped, recognise
from recoup.sources.tables import Dialect

__all__ = [
    "FORMATS",
    "ROWS",
    "Guarded",
    "Inspection",
    "Privacy",
    "Source",
    "SourceBatch",
    "inspect_log",
    "mark_of",
    "merge_findings",
    "open_as_is",
    "open_source",
    "removed_of",
    "write_native",
]

FORMATS: Final = (NATIVE, SHOP, *PAYLOAD_FORMATS, *SHIPPED)
"""The formats that need no mapping file."""


def open_source(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    mapping: Path | None = None,
    now: dt.datetime | None = None,
    privacy: Privacy | None = None,
    secret: bytes | None = None,
) -> Source:
    """Open a log, with what privacy does not let in taken off.

    Parameters
    ----------
    path, format, mapping, now
        As :func:`open_as_is` takes them.
    privacy
        What may come in; internet and e-mail addresses go where it is not given.
    secret
        Makes the keyed hashes by which visitors are called, if they are.

    Raises
    ------
    SourceError
        If there is no log, or none of a known format.
    MappingError
        If the mapping file does not fit.
    ConfigError
        If a secret is missing, or too short.
    """
    pseudonyms = None if secret is None else Pseudonyms(secret)
    return Guarded(open_as_is(path, format=format, mapping=mapping, now=now), privacy, pseudonyms)


def open_as_is(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    mapping: Path | None = None,
    now: dt.datetime | None = None,
) -> Source:
    """Open a log as it stands, addresses and all.

    Parameters
    ----------
    path
        A file (CSV, NDJSON, Parquet; the first two also as gzip or zstd), or a directory of them,
        which is one log in the order of the files' names, unless a format knows it as its own.
    format
        One of :data:`FORMATS`; found out where neither it nor ``mapping`` is given.
    mapping
        A mapping file, such as ``recoup inspect`` proposes.
    now
        Events more than a day later are refused; the clock where it is not given.

    Raises
    ------
    SourceError
        If there is no log, or none of a known format.
    MappingError
        If the mapping file does not fit.
    """
    log = Path(path)
    moment = now or dt.datetime.now(dt.UTC)
    if not log.exists():
        raise SourceError(f"Expected a log, got nothing at `{log}`", hint="check the path")
    if mapping is not None:
        rules = load_mapping(mapping)
        if not isinstance(rules, str):
            return MappedSource(pick_files(find_files(log), rules.files), rules, now=moment)
        format = rules  # noqa: A001
    if format == SHOP or (format is None and log.is_dir() and is_shop(log)):
        return GoogleMerchStore(log, now=moment)
    if format in SHIPPED:
        return open_shipped(format, find_files(log), now=moment)
    if format is not None and format not in FORMATS:
        raise SourceError(
            f"Expected a format out of {', '.join(FORMATS)}, got `{format}`",
            hint="any other table is read through a mapping file",
        )
    everything = find_files(log)
    files = native_files(everything)
    payloads = recognise_files(files) if format is None else PAYLOAD_FORMATS.get(format)
    if payloads is not None:
        return PayloadSource(files, payloads, now=moment)
    if format == NATIVE or is_native(columns := first_block(files, Dialect()).frame.columns):
        return MappedSource(files, MAPPING, now=moment, beside=lines_beside(everything))
    if (known := recognise(find_files(log))) is not None:
        return open_shipped(known, find_files(log), now=moment)
    raise SourceError(
        f"Expected a log of a known format, got `{log}` with columns {', '.join(columns)}",
        hint=f"propose a mapping with `recoup inspect {log} > mapping.toml`, look it over, "
        "and pass it with --mapping mapping.toml",
    )
