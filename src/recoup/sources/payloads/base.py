"""What a payload format is: one pure function from a payload to events."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from recoup.sources.payloads.documents import Document
from recoup.sources.payloads.draft import Draft


class PayloadFormat(msgspec.Struct, frozen=True):
    """A format in which shops send or keep events as JSON.

    Parameters
    ----------
    name
        As ``--format`` names it; also the ``source`` of its events.
    title
        What it is, in words.
    recognises
        Says whether a payload is of this format.
    decode
        Reads a payload into a draft. Pure: no clock, no I/O; it raises nothing for any JSON value.
    order
        ``time`` where the format's files do not stand in the order of time, else ``arrival``.
    ignored
        Paths left out on purpose; what lies under them too.
    merge
        Puts rows that are parts of one event together, where a format is kept so.
    """

    name: str
    title: str
    recognises: Callable[[object], bool]
    decode: Callable[[Draft, object], None]
    order: Literal["arrival", "time"] = "arrival"
    ignored: tuple[str, ...] = ()
    merge: Callable[[Iterator[Document]], Iterator[Document]] | None = None
