"""Payload formats: events as shops send them, one pure function for each format.

:func:`decode` reads one payload, such as the body of a request; :class:`PayloadSource` reads files
of them.
"""

import datetime as dt
from collections.abc import Iterable
from itertools import islice
from typing import Final

from recoup.errors import ConfigError, SourceError
from recoup.events import micros_of
from recoup.sources.files import LogFile
from recoup.sources.payloads import cloudevents, ga4_bigquery, ga4_mp, segment, snowplow
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.documents import read_documents
from recoup.sources.payloads.draft import Decoded, Draft, Warned, decoded
from recoup.sources.payloads.identity import Links
from recoup.sources.payloads.source import PayloadSource

__all__ = [
    "PAYLOAD_FORMATS",
    "Decoded",
    "Links",
    "PayloadFormat",
    "PayloadSource",
    "Warned",
    "decode",
    "recognise",
    "recognise_files",
]

_FORMATS: Final = (
    cloudevents.FORMAT,
    ga4_mp.FORMAT,
    ga4_bigquery.FORMAT,
    segment.FORMAT,
    snowplow.FORMAT,
)

PAYLOAD_FORMATS: Final = {one.name: one for one in _FORMATS}
"""Name -> format; a payload is of the first one that recognises it."""

LOOKED_AT: Final = 20
"""Payloads of a file looked at to tell its format."""
MAX_FILES: Final = 16
"""Files of a directory looked at to tell their format."""


def decode(payload: object, received_at: dt.datetime, *, format: str) -> Decoded:  # noqa: A002
    """Read one payload, as JSON gives it: a request's body, or a row of a table.

    Pure: the same payload and moment give the same events. An array is a batch of payloads.

    Parameters
    ----------
    payload
        Any JSON value.
    received_at
        When it came: the time of events that name none; what lies more than a day ahead of it is
        refused.
    format
        One of :data:`PAYLOAD_FORMATS`.

    Raises
    ------
    ConfigError
        If there is no such format. What cannot be understood raises nothing: it is a dead letter.

    Examples
    --------
    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    >>> body = {"client_id": "c1", "events": [{"name": "search", "params": {"search_term": "tea"}}]}
    >>> found = decode(body, noon, format="ga4_mp")
    >>> found.batch.events.select("ts", "event", "visitor", "query").row(0)[1:]
    ('search', 'c1', 'tea')
    """
    if format not in PAYLOAD_FORMATS:
        raise ConfigError(
            f"Expected a payload format out of {', '.join(PAYLOAD_FORMATS)}, got `{format}`"
        )
    rules = PAYLOAD_FORMATS[format]
    draft = Draft(micros_of(received_at), rules.ignored)
    draft.received = draft.now
    whole = isinstance(payload, list)
    for place, one in enumerate(payload if isinstance(payload, list) else [payload]):
        draft.place = f"$[{place}]" if whole else "$"
        rules.decode(draft, one)
    return decoded(draft)


def recognise(payloads: Iterable[object]) -> PayloadFormat | None:
    """Give the format of the first payload that is of any."""
    for payload in payloads:
        for one in _FORMATS:
            if one.recognises(payload):
                return one
    return None


def recognise_files(files: list[LogFile]) -> PayloadFormat | None:
    """Give the format of the first file whose beginning is of any."""
    for file in files[:MAX_FILES]:
        try:
            first = [document.value for document in islice(read_documents(file), LOOKED_AT)]
        except SourceError:
            continue
        if (found := recognise(first)) is not None:
            return found
    return None
