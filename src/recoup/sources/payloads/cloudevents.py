"""CloudEvents 1.0 in its JSON format: an envelope whose ``data`` is a payload of another format.

``(source, id)`` names an event, and is what repeats are told by. An envelope whose data holds
several events gives them its id with their number behind it.
"""

import base64
import binascii
from typing import Any, Final

from recoup.sources.json_table import parse_value
from recoup.sources.payloads import ga4_bigquery, ga4_mp, native, segment, snowplow
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.draft import Draft, Entry, Node
from recoup.sources.payloads.scalars import Unreadable, moment, text

NAME: Final = "cloudevents"
REQUIRED: Final = ("id", "source", "specversion", "type")
IGNORED: Final = ("specversion", "dataschema", "datacontenttype")
INNER: Final = (
    ga4_mp.FORMAT,
    ga4_bigquery.FORMAT,
    segment.FORMAT,
    snowplow.FORMAT,
    native.FORMAT,
)
"""What an envelope may hold."""


def recognises(payload: object) -> bool:
    """Say whether this is an envelope."""
    return isinstance(payload, dict) and {"specversion", "type", "source"} <= payload.keys()


def decode(draft: Draft, payload: object) -> None:
    """Read one envelope."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    _check(draft, payload)
    node = dict(payload)
    data, inner = _data(draft, node)
    if inner is None:
        return
    written = node.pop("time", None)
    ts = _time(draft, written)
    seal = _Seal(draft, node, ts, written)
    held = Draft(draft.now, inner.ignored, seal=seal.close)
    held.received = draft.received if ts is None else ts
    held.place = f"{draft.place}.data"
    inner.decode(held, data)
    seal.number(held)
    draft.absorb(held, "data.")


def _check(draft: Draft, payload: Node) -> None:
    for name in REQUIRED:
        if text(payload.get(name)) is None:
            draft.warn("value_required", name, f"an event has `{name}`")
    if payload.get("specversion") not in (None, "1.0"):
        draft.warn("value_invalid", "specversion", "`specversion` is 1.0")


def _data(draft: Draft, node: Node) -> tuple[Any, PayloadFormat | None]:
    """Give what an envelope holds, and which format it is of."""
    data = node.pop("data", None)
    packed = node.pop("data_base64", None)
    if data is None and packed is not None:
        data = _unpack(packed)
    if isinstance(data, str):
        data = _read(draft, data, text(node.get("datacontenttype")) or JSON)
    if isinstance(data, dict) and "event" not in data and "visitor" in data:
        data = {**data, "event": (text(node.get("type")) or "").rpartition(".")[2]}
    inner = next((one for one in INNER if one.recognises(data)), None)
    if inner is None:
        reason = "no_data" if data is None else "unknown_data"
        draft.refuse(".data", reason, node if data is None else data)
    return data, inner


JSON: Final = "application/json"


def _read(draft: Draft, data: str, kind: str) -> object:
    """Give the JSON that a text holds; of a type that is JSON the value itself should stand."""
    found, reason = parse_value(data)
    if reason:
        return data
    if _is_json(kind):
        draft.warn("value_invalid", "data", "`data` of a JSON type is the value, not its text")
    return found


def _is_json(kind: str) -> bool:
    subtype = kind.partition(";")[0].strip().lower().rpartition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def _unpack(packed: object) -> object:
    """Give what base64 holds, as JSON where it is some."""
    try:
        unpacked = base64.b64decode(str(packed), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return packed
    found, reason = parse_value(unpacked)
    return unpacked if reason else found


def _time(draft: Draft, written: object) -> int | None:
    try:
        return moment(written)
    except Unreadable as refused:
        draft.refuse(".time", refused.reason, written)
        return None


_FORMATS: Final = frozenset(each.name for each in INNER)
"""What events of a format that has no sources of its own are said to come from."""


class _Seal:
    """Gives events their envelope's name, and keeps its other attributes."""

    def __init__(self, draft: Draft, node: Node, ts: int | None, written: object) -> None:
        self._source, self._id = text(node.get("source")), text(node.get("id"))
        self._ts, self._written = ts, written
        if self._source is not None and self._id is not None:
            del node["source"], node["id"]
        self._around = draft.flat(node, "", {})

    def close(self, entry: Entry) -> None:
        """Name an event, keeping under ``data.`` what it was called inside, and a time that is not
        the event's own.
        """  # noqa: D205
        for name, value in self._around.items():
            entry.extra.setdefault(name, value)
        if self._ts not in (None, entry.fields["ts"]):
            entry.extra.setdefault("time", self._written)
        if self._source is None or self._id is None:
            return
        if "id" in entry.fields:
            entry.extra["data.id"] = entry.fields["id"]
        if entry.fields["source"] not in _FORMATS:
            entry.extra["data.source"] = entry.fields["source"]
        entry.fields.update(id=self._id, source=self._source)

    def number(self, held: Draft) -> None:
        """Tell the events of one envelope apart."""
        if self._source is None or self._id is None or len(held.events) == 1:
            return
        for place, event in enumerate(held.events):
            event["id"] = f"{self._id}/{place}"


FORMAT: Final = PayloadFormat(NAME, "CloudEvents 1.0", recognises, decode, ignored=IGNORED)
