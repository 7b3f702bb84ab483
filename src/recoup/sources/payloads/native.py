"""A native event as a payload: the vocabulary's own columns, as an envelope may hold them."""

from typing import Final

from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA
from recoup.sources.native import ITEMS, NAME, NEEDED
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.draft import Draft, Entry
from recoup.sources.payloads.scalars import Unreadable, moment, text

COLUMNS: Final = {
    name: name
    for name in EVENT_SCHEMA
    if name not in {"ts", "event", "visitor", "extra", "custom_name"}
}
LINE: Final = {name: name for name in ITEM_SCHEMA if name not in {"event", "role"}}
ROLES: Final = ("subject", "impression", "promotion")


def recognises(payload: object) -> bool:
    """Say whether this is a native event."""
    return isinstance(payload, dict) and set(NEEDED) - {"ts"} <= payload.keys()


def decode(draft: Draft, payload: object) -> None:
    """Read one native event; amounts are micro-units."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    node = dict(payload)
    raw, custom = text(node.pop("event", None)), text(node.pop("custom_name", None))
    entry = Entry(draft, "", payload, custom if raw == "custom" and custom else raw, unit="micros")
    entry.fields.update(source=NAME, seq=0)
    for name in ("source", "seq"):
        entry.put(name, node.pop(name, None), f".{name}")
    items = node.pop(ITEMS, None)
    entry.take(node, COLUMNS, "")
    for place, line in enumerate(items if isinstance(items, list) else ()):
        if not isinstance(line, dict):
            entry.add_lines([line], LINE, ROLES[0], f".items[{place}]", f"items[{place}]")
            continue
        role = next((known for known in ROLES if line.get("role") == known), None)
        rest = {name: value for name, value in line.items() if name != "role" or role is None}
        role = role or ROLES[0]
        entry.add_line(rest, LINE, role, f".items[{place}]", f"items[{place}]")
    if items is not None and not isinstance(items, list):
        draft.refuse(".items", "bad_items", items)
    visitor = text(node.pop("visitor", None))
    written = node.pop("ts", None)
    try:
        ts = moment(written)
    except Unreadable as refused:
        draft.refuse(".ts", refused.reason, written)
        ts = None
    entry.keep(node.pop("extra", None), "extra")
    entry.keep(node)
    entry.finish(ts=ts, user=visitor, client=None)


FORMAT: Final = PayloadFormat(NAME, "native events", recognises, decode)
