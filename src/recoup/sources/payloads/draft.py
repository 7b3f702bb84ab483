"""Events in the making: what a decoder writes to, so that no leaf of a payload is lost unseen.

A decoder takes what it knows out of a payload; what is left goes to ``extra`` under its path. A
value that cannot be read becomes a dead letter, a broken rule a warning, and what is left out on
purpose is counted by name.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import polars as pl
import xxhash

from recoup.events import (
    CODE,
    EVENT_SCHEMA,
    ITEM_SCHEMA,
    EventBatch,
    conform,
)
from recoup.sources.convert import DETAILS, NEGATIVE
from recoup.sources.payloads.scalars import Unreadable, as_json, count, placed, read
from recoup.sources.tables import dead_frame, dead_letter

Node = dict[str, Any]

MAX_EXTRA: Final = 512
"""Leaves that ``extra`` keeps of one event."""
MAX_DEPTH: Final = 12
"""Deeper values are kept as JSON text."""
MAX_LINES: Final = 10_000
"""Item lines of one event."""
SUBJECT_FIELDS: Final = ("item", "category", "brand", "price", "quantity", "position", "list_name")
"""What an event says of its item, where it has exactly one subject."""
TAKEN_BACK: Final = frozenset({"remove_from_cart", "refund", "return"})
"""Events whose quantity some shops write as negative."""
CONTACT: Final = frozenset(
    {
        "ip", "ip_address", "ipaddress", "ip_override", "user_ipaddress", "email", "email_address",
        "sha256_email_address", "phone", "phone_number", "sha256_phone_number", "user_data",
        "address", "shipping_full_address", "billing_full_address", "recipient", "first_name",
        "last_name", "firstname", "lastname",
    }
)  # fmt: skip
"""Names of contact data, which no format keeps."""


class Warned(msgspec.Struct, frozen=True):
    """A rule of the format that a payload breaks; nothing is lost by it.

    Parameters
    ----------
    kind
        The rule, a short fixed code such as ``value_required``.
    path
        Where, with indices left out: ``events[].params.items[].price``.
    detail
        The rule in words.
    ts
        Moment of the event, int64 microseconds, or None where it has none.
    """

    kind: str
    path: str
    detail: str
    ts: int | None = None


class Decoded(msgspec.Struct, frozen=True):
    """What a payload became.

    Parameters
    ----------
    batch
        Events and item lines.
    warnings
        Rules that it breaks.
    dead_letters
        Frame of ``DEAD_LETTER_SCHEMA``: what could not be read, with path and reason.
    ignored
        Fields left out on purpose, and how often each came.
    """

    batch: EventBatch
    warnings: tuple[Warned, ...]
    dead_letters: pl.DataFrame
    ignored: Mapping[str, int]


class Draft:
    """Events of one or many payloads in the making.

    Parameters
    ----------
    now
        What lies more than a day behind it is ``future_timestamp``; int64 microseconds.
    ignored
        Paths that the format leaves out on purpose; what lies under them too.
    seal
        Has the last word on every event: an envelope's.
    """

    def __init__(
        self,
        now: int,
        ignored: Iterable[str] = (),
        *,
        seal: "Callable[[Entry], None] | None" = None,
    ) -> None:
        self.now = now
        self.omit = frozenset(ignored)
        self.seal = seal
        self.received: int | None = None
        self.place = ""
        self.events: list[Node] = []
        self.lines: list[list[Node]] = []
        self.identities: list[tuple[str | None, str | None]] = []
        self.dead: list[dict[str, str]] = []
        self.warnings: list[Warned] = []
        self.ignored: Counter[str] = Counter()
        self.made_ids = 0

    def refuse(self, path: str, reason: str, raw: object, detail: str | None = None) -> None:
        """Note what could not be understood."""
        said = detail or WORDS.get(reason) or DETAILS.get(reason, NEGATIVE)
        self.dead.append(dead_letter(f"{self.place}{path}", reason, said, as_json(raw)))

    def warn(self, kind: str, path: str, detail: str, ts: int | None = None) -> None:
        """Note a rule that a payload breaks."""
        self.warnings.append(Warned(kind, path, detail, ts))

    def flat(self, value: object, key: str, found: Node, depth: int = 0) -> Node:
        """Add the leaves of a value to ``found`` under their paths, without what is left out."""
        if value is None:
            return found
        if (name := self._left_out(key)) is not None:
            self.ignored[name] += 1
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            for inner, below in value.items():
                self.flat(below, f"{key}.{inner}" if key else str(inner), found, depth + 1)
        elif isinstance(value, list | tuple) and depth < MAX_DEPTH:
            for place, below in enumerate(value):
                self.flat(below, f"{key}[{place}]", found, depth + 1)
        elif isinstance(value, dict | list | tuple):
            found[key] = as_json(value)
        else:
            found[key] = value
        return found

    def _left_out(self, key: str) -> str | None:
        """Give the declared name under which a path is left out, or None."""
        last = key.rpartition(".")[2].partition("[")[0]
        if last.lower() in CONTACT:
            return last
        return key if key in self.omit else None

    def absorb(self, held: "Draft", prefix: str) -> None:
        """Take over what another draft holds; ``prefix`` goes before the paths of its warnings."""
        self.events += held.events
        self.lines += held.lines
        self.identities += held.identities
        self.dead += held.dead
        self.warnings += [
            msgspec.structs.replace(warned, path=f"{prefix}{warned.path}")
            for warned in held.warnings
        ]
        self.ignored.update(held.ignored)
        self.made_ids += held.made_ids

    def batch(self) -> EventBatch:
        """Give the events so far as frames."""
        return EventBatch(_event_frame(self.events), _line_frame(self.lines))


class Entry:
    """One event in the making.

    Parameters
    ----------
    draft
        Where it will stand.
    path
        Of the event within its payload, ``.events[3]``.
    raw
        The event as it came: what a dead letter shows, and an id is made from.
    name
        Of the vocabulary, or any other, which becomes ``custom``.
    unit
        Of amounts of money: ``currency`` or ``micros``.
    """

    __slots__ = ("draft", "extra", "fields", "lines", "name", "path", "raw", "unit")

    def __init__(
        self, draft: Draft, path: str, raw: object, name: str | None, *, unit: str = "currency"
    ) -> None:
        self.draft = draft
        self.path = path
        self.raw = raw
        self.name = name
        self.unit = unit
        self.fields: Node = {}
        self.lines: list[Node] = []
        self.extra: Node = {}

    def put(self, field: str, value: object, at: str) -> None:
        """Set a column, unless the value is none; one that cannot be read is a dead letter."""
        found = self._read(field, value, at)
        if found is not None:
            self.fields[field] = found

    def _read(self, field: str, value: object, at: str) -> object:
        if value is None:
            return None
        try:
            if field == "quantity" and self.name in TAKEN_BACK:
                taken = count(value)
                return None if taken is None else abs(taken)
            return read(field, value, unit=self.unit)
        except Unreadable as refused:
            self.draft.refuse(f"{self.path}{at}", refused.reason, value)
            return None

    def take(self, node: Node, table: Mapping[str, str], at: str) -> None:
        """Move fields out of an object into columns; of two names the first that has a value."""
        for name, field in table.items():
            if name in node and field not in self.fields:
                self.put(field, node.pop(name), f"{at}.{name}")

    def keep(self, node: object, key: str = "") -> None:
        """Keep what is left of an object in ``extra``."""
        found = self.draft.flat(node, key, {})
        for name, value in found.items():
            free = name if name not in self.extra else f"{self.path}.{name}"
            self.extra[free] = value

    def add_lines(
        self, lines: object, table: Mapping[str, str], role: str, at: str, key: str = "items"
    ) -> None:
        """Make item lines of a list of objects; a lone id stands for an item."""
        if lines is None:
            return
        if not isinstance(lines, list | tuple):
            self.draft.refuse(f"{self.path}{at}", "bad_items", lines)
            return
        if len(lines) > MAX_LINES:
            detail = f"{len(lines):,} items; those behind the first {MAX_LINES:,} are left out"
            self.draft.refuse(f"{self.path}{at}", "too_many_items", lines[MAX_LINES], detail)
        for place, line in enumerate(lines[:MAX_LINES]):
            if isinstance(line, dict):
                self.add_line(dict(line), table, role, f"{at}[{place}]", f"{key}[{place}]")
            elif isinstance(line, str | int) and not isinstance(line, bool):
                self.add_line({ITEM: line}, LONE, role, f"{at}[{place}]", f"{key}[{place}]")
            elif line is not None:
                self.draft.refuse(f"{self.path}{at}[{place}]", "bad_items", line)

    def add_line(self, node: Node, table: Mapping[str, str], role: str, at: str, key: str) -> None:
        """Make one item line of an object, and keep what it does not take."""
        line: Node = {"role": role}
        for name, field in table.items():
            if name not in node or field in line:
                continue
            found = self._read(field, node.pop(name), f"{at}.{name}")
            if found is not None:
                line[field] = found
        self.lines.append(line)
        self.keep(node, key)

    def finish(self, *, ts: int | None, user: str | None, client: str | None) -> None:
        """Close the event; where time, name or visitor is missing it is a dead letter.

        Parameters
        ----------
        ts
            Moment, int64 microseconds; when it was received, where None.
        user, client
            The user once known, and the browser or device.
        """
        draft, fields, name = self.draft, self.fields, self.name
        fields["visitor"] = user or client
        detail = None
        try:
            fields["ts"] = placed(draft.received if ts is None else ts, draft.now)
            reason = None if fields["visitor"] else "missing_visitor"
        except Unreadable as refused:
            reason = refused.reason
            detail = None if ts is None else f"{DETAILS[reason]} ({ts} us after 1970)"
        if reason is not None or name is None:
            draft.refuse(self.path, reason or "missing_event", self.raw, detail)
            return
        known = name in CODE
        fields["event"] = name if known else "custom"
        fields.setdefault("seq", 0)
        if not known:
            fields["custom_name"] = name
        self._subject()
        self._close(client if user else None)
        draft.identities.append((user, client))
        draft.events.append(fields)
        draft.lines.append(self.lines)

    def _subject(self) -> None:
        """Say of an event with exactly one subject what its line says."""
        subjects = [line for line in self.lines if line["role"] == "subject"]
        if len(subjects) == 1:
            for field in SUBJECT_FIELDS:
                if field in subjects[0]:
                    self.fields.setdefault(field, subjects[0][field])

    def _close(self, client: str | None) -> None:
        draft, fields = self.draft, self.fields
        if client is not None:
            self.extra.setdefault("client_id", client)
        if draft.seal is not None:
            draft.seal(self)
        if "currency" in fields:
            fields["currency"] = fields["currency"].upper()
        if "id" not in fields:
            fields["id"] = made_id(self.raw, self.path, fields)
            draft.made_ids += 1
        if len(self.extra) > MAX_EXTRA:
            lost = list(self.extra)[MAX_EXTRA:]
            detail = f"{len(self.extra)} unknown fields; those behind {MAX_EXTRA} are left out"
            draft.refuse(self.path, "too_many_fields", lost, detail)
            self.extra = {key: self.extra[key] for key in list(self.extra)[:MAX_EXTRA]}
        if self.extra:
            fields["extra"] = _json_object(self.extra)


ITEM: Final = "item"
LONE: Final = {ITEM: "item"}
WORDS: Final = {
    "bad_timestamp": "the time could not be read, or lies before 1990",
    "missing_timestamp": "the event has no time, and nothing says when it was received",
    "missing_visitor": "the event names neither a user nor a client",
    "missing_event": "the event has no name",
    "not_an_object": "expected an object",
    "bad_items": "expected a list of items; the event is kept without them",
    "bad_params": "expected parameters with `key` and `value`; the event is kept without this one",
    "bad_schema": "expected an object with `schema` and `data`",
    "unknown_call": "expected a call: track, page, screen, identify, group or alias",
    "no_data": "the envelope holds no `data`",
    "unknown_data": "the `data` is of no known format",
    "no_events": "the payload holds no event",
}


def made_id(raw: object, path: str, fields: Mapping[str, Any]) -> str:
    """Make an id from who, when, what and where in the payload: the same when it is sent again."""
    who = f"{fields['visitor']}\x1f{fields['ts']}\x1f{path}\x1f"
    return xxhash.xxh3_64_hexdigest((who + as_json(raw)).encode("utf-8", "replace"))


def _json_object(extra: Node) -> str:
    try:
        return msgspec.json.encode(extra).decode()
    except (msgspec.MsgspecError, OverflowError, TypeError, ValueError):
        return msgspec.json.encode({_clean(k): _plain(v) for k, v in extra.items()}).decode()


def _plain(value: object) -> object:
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float | bool):
        return value
    return _clean(str(value))


def _clean(written: str) -> str:
    """Replace halves of surrogate pairs, which are no text."""
    return written.encode("utf-8", "replace").decode()


def _event_frame(events: Sequence[Node]) -> pl.DataFrame:
    if not events:
        return pl.DataFrame(schema=EVENT_SCHEMA)
    used = dict.fromkeys(name for event in events for name in event)
    columns = [_series(name, events, EVENT_SCHEMA[name]) for name in used]
    return conform(pl.DataFrame(columns), EVENT_SCHEMA)


def _line_frame(lines: Sequence[Sequence[Node]]) -> pl.DataFrame:
    numbers = [number for number, of in enumerate(lines) for _ in of]
    flat = [line for of in lines for line in of]
    used = dict.fromkeys(name for line in flat for name in line)
    columns = [_series(name, flat, ITEM_SCHEMA[name]) for name in used]
    rows = pl.Series("event", numbers, dtype=pl.UInt32)
    return conform(pl.DataFrame([rows, *columns]), ITEM_SCHEMA)


def _series(name: str, rows: Sequence[Node], dtype: pl.DataType) -> pl.Series:
    values = [row.get(name) for row in rows]
    if isinstance(dtype, pl.Datetime):
        return pl.Series(name, values, dtype=pl.Int64).cast(dtype)
    try:
        return pl.Series(name, values, dtype=dtype)
    except UnicodeEncodeError:
        cleaned = [None if value is None else _clean(value) for value in values]
        return pl.Series(name, cleaned, dtype=dtype)


def decoded(draft: Draft) -> Decoded:
    """Close a draft."""
    return Decoded(draft.batch(), tuple(draft.warnings), dead_frame(draft.dead), draft.ignored)
