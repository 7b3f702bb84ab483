"""GA4's export to BigQuery: a row per event, nested as it is written or flattened afterwards."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from recoup.sources.json_table import parse_value
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.documents import Document
from recoup.sources.payloads.draft import Draft, Entry, Node, made_id
from recoup.sources.payloads.ga4_params import ITEM_PARAMS, PARAMS, event_name, read_params
from recoup.sources.payloads.scalars import Unreadable, moment, text

NAME: Final = "ga4_bigquery"
IGNORED: Final = (
    "event_date", "event_previous_timestamp", "event_bundle_sequence_id",
    "event_server_timestamp_offset", "event_value_in_usd", "user_first_touch_timestamp",
    "is_active_user", "event_dimensions.hostname", "ecommerce.total_item_quantity",
    "ecommerce.unique_items", "ecommerce.purchase_revenue_in_usd", "ecommerce.refund_value_in_usd",
    "ecommerce.shipping_value_in_usd", "ecommerce.tax_value_in_usd", "device.vendor_id",
    "device.advertising_id", "device.is_limited_ad_tracking",
)  # fmt: skip
ITEM_IGNORED: Final = ("price_in_usd", "item_revenue_in_usd", "item_refund_in_usd")

_SESSION: Final = "session_traffic_source_last_click."
COLUMNS: Final = {
    "ecommerce.transaction_id": "order",
    "ecommerce.purchase_revenue": "value",
    "ecommerce.refund_value": "value",
    "ecommerce.shipping_value": "shipping",
    "ecommerce.tax_value": "tax",
    "device.category": "device",
    "device.operating_system": "os",
    "device.web_info.browser": "browser",
    "device.browser": "browser",
    "device.language": "language",
    "geo.country": "country",
    "geo.region": "region",
    "geo.city": "city",
    "app_info.version": "build",
    "collected_traffic_source.manual_source": "traffic_source",
    "collected_traffic_source.manual_medium": "medium",
    "collected_traffic_source.manual_campaign_name": "campaign",
    f"{_SESSION}cross_channel_campaign.source": "traffic_source",
    f"{_SESSION}cross_channel_campaign.medium": "medium",
    f"{_SESSION}cross_channel_campaign.campaign_name": "campaign",
    f"{_SESSION}cross_channel_campaign.primary_channel_group": "channel",
    f"{_SESSION}cross_channel_campaign.default_channel_group": "channel",
    f"{_SESSION}manual_campaign.source": "traffic_source",
    f"{_SESSION}manual_campaign.medium": "medium",
    f"{_SESSION}manual_campaign.campaign_name": "campaign",
    "traffic_source.source": "traffic_source",
    "traffic_source.medium": "medium",
    "traffic_source.name": "campaign",
}
"""Column under its dotted path -> column of the event; the visit's own origin before the first."""

_NESTED: Final = ("event_params", "user_properties", "items")
_FLAT: Final = {
    path.replace(".", mark): path
    for path in (*COLUMNS, *IGNORED)
    if "." in path
    for mark in ("_", "__")
}
_KEY: Final = ("event_timestamp", "event_name", "user_pseudo_id")
_BATCH: Final = ("batch_page_id", "batch_ordering_id", "batch_event_index")
_WHO: Final = (*_KEY, "user_id", "stream_id", "event_bundle_sequence_id", *_BATCH)
_VALUES: Final = ("string_value", "int_value", "double_value", "float_value")
_PREFIXES: Final = ("event_params.", "event_params_", "event_params__", "ep_", "param_", "params.")
_ITEM_MARKS: Final = ("items.", "items__", "items_")
_BARE: Final = ("price", "quantity", "index")
"""Item columns that a query may leave without a prefix, beside `item_id`."""
_PARAMS: Final = {*PARAMS, "ga_session_id", "session_id", "page_location"}
MAX_PARTS: Final = 10_000
"""Rows that can be parts of one event."""


def recognises(payload: object) -> bool:
    """Say whether this is a row of an export."""
    return isinstance(payload, dict) and set(_KEY) <= payload.keys()


def decode(draft: Draft, payload: object) -> None:
    """Read one row, nested or flattened."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    part = _part(payload)
    if part is not None:
        payload = _joined(payload, [part])
    row = _Row(draft, payload)
    entry = Entry(draft, "", payload, event_name(row.flat.pop("event_name", None)))
    entry.fields["source"] = NAME
    user, client = text(row.flat.pop("user_id", None)), text(row.flat.pop("user_pseudo_id", None))
    ts = _time(entry, row.flat.pop("event_timestamp", None))
    entry.put("seq", row.flat.get("batch_event_index"), ".batch_event_index")
    read_params(entry, row.params, ".event_params", client)
    entry.take(row.flat, COLUMNS, "")
    for name in (f"items[].{item}" for item in ITEM_IGNORED):
        draft.ignored.update({name: row.dropped.count(name)} if name in row.dropped else {})
    entry.keep(row.flat)
    entry.keep(row.properties, "user_properties")
    if entry.name != payload.get("event_name") and entry.name is not None:
        entry.extra.setdefault("event_name", payload.get("event_name"))
    _identify(entry, payload, user or client, ts)
    entry.finish(ts=ts, user=user, client=client)


def _time(entry: Entry, value: object) -> int | None:
    try:
        return moment(value, "us" if isinstance(value, int | str) else "auto")
    except Unreadable as refused:
        entry.draft.refuse(".event_timestamp", refused.reason, value)
        return None


def _identify(entry: Entry, row: Node, visitor: str | None, ts: int | None) -> None:
    """Give the id: of its place in its batch, so that it is the same in the table of the day and
    in the one that is written during the day; without such a place, of all that the row says.
    """  # noqa: D205
    if visitor is None or ts is None or row.get("batch_event_index") is None:
        return
    who = {name: text(row.get(name)) for name in _WHO if name not in {"user_id", "stream_id"}}
    entry.fields["id"] = made_id(who, "", {"visitor": who["user_pseudo_id"], "ts": ts})


class _Row:
    """A row taken apart: its parameters, its user properties, and its other columns, dotted."""

    def __init__(self, draft: Draft, row: Node) -> None:
        self.flat: Node = {}
        self.params: Node = {}
        self.properties: Node = {}
        self.dropped: list[str] = []
        for name, value in row.items():
            self._add(draft, str(name), value)

    def _add(self, draft: Draft, name: str, value: object) -> None:
        if value is None:
            return
        if name in _NESTED:
            self._nested(draft, name, value)
        elif isinstance(value, dict):
            self.flat.update(_scalars(value, name))
        else:
            self._column(_FLAT.get(name, name), value)

    def _column(self, path: str, value: object) -> None:
        param = next((path[len(p) :] for p in _PREFIXES if path.startswith(p)), path)
        known = path in COLUMNS or path in IGNORED or path in _WHO
        if known or (param == path and path not in _PARAMS):
            self.flat[path] = value
        else:
            self.params.setdefault(param, value)

    def _nested(self, draft: Draft, name: str, value: object) -> None:
        found = parse_value(value)[0] if isinstance(value, str) else value
        if name == "items":
            self.params["items"] = self._items(found) if isinstance(found, list | tuple) else value
            return
        pairs = self.params if name == "event_params" else self.properties
        if isinstance(found, dict):
            found = [{"key": key, "value": inner} for key, inner in found.items()]
        if not isinstance(found, list | tuple):
            draft.refuse(f".{name}", "bad_params", value)
            return
        for place, pair in enumerate(found):
            if isinstance(pair, dict) and isinstance(pair.get("key"), str):
                _settle(pairs, pair["key"], _value(pair.get("value")), place)
            elif pair is not None:
                draft.refuse(f".{name}[{place}]", "bad_params", pair)

    def _items(self, found: Iterable[Any]) -> list[Any]:
        """Take items with their own parameters beside the others, without copies in dollars."""
        items: list[Any] = []
        for item in found:
            if not isinstance(item, dict):
                items.append(item)
                continue
            self.dropped += [f"items[].{n}" for n in ITEM_IGNORED if item.get(n) is not None]
            plain = {n: v for n, v in item.items() if n not in (*ITEM_IGNORED, "item_params")}
            held = item.get("item_params")
            for place, pair in enumerate(held if isinstance(held, list | tuple) else [held]):
                if isinstance(pair, dict) and isinstance(pair.get("key"), str):
                    _settle(plain, pair["key"], _value(pair.get("value")), place)
                elif pair is not None:
                    plain[f"item_params[{place}]"] = pair
            items.append(plain)
        return items


def _settle(node: Node, key: str, value: object, place: int) -> None:
    """Set a parameter; a second one of the same key stands beside the first."""
    node[key if key not in node else f"{key}[{place}]"] = value


def _value(held: object) -> object:
    """Give the one value of a parameter, whichever of its four fields holds it."""
    if not isinstance(held, dict):
        return held
    rest = {n: v for n, v in held.items() if v is not None and n != "set_timestamp_micros"}
    if len(rest) == 1 and (name := next(iter(rest))) in _VALUES:
        return rest[name]
    return rest or None


def _scalars(node: Node, path: str) -> Node:
    """Give what lies in a record under dotted paths; lists stay as they are."""
    found: Node = {}
    stack: list[tuple[str, Any]] = [(path, node)]
    while stack:
        at, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{at}.{name}", inner) for name, inner in reversed(value.items())]
        elif value is not None:
            found[at] = value
    return found


def merge(documents: Iterator[Document]) -> Iterator[Document]:
    """Put rows together that a query has unnested: one row per parameter, or per item."""
    held: Document | None = None
    parts: list[Node] = []
    for document in documents:
        part = None if document.dead is not None else _part(document.value)
        same = held is not None and part is not None and len(parts) < MAX_PARTS
        if same and held is not None and _event_key(document.value) == _event_key(held.value):
            parts.append(part or {})
            continue
        if held is not None:
            yield _whole(held, parts)
        held, parts = (document, [part]) if part is not None else (None, [])
        if part is None:
            yield document
    if held is not None:
        yield _whole(held, parts)


def _event_key(row: Node) -> tuple[object, ...]:
    return tuple(row.get(name) for name in _WHO)


def _part(row: object) -> Node | None:
    """Give the parameter or item that a row holds as columns, or None where it is a whole event."""
    if not isinstance(row, dict) or "items" in row or "event_params" in row:
        return None
    part: Node = {}
    for name, value in row.items():
        tidy = _tidy(str(name))
        if tidy is not None and value is not None:
            part[tidy] = (name, value)
    if any(tidy.startswith("item.") for tidy in part):
        bare = (name for name in _BARE if row.get(name) is not None)
        part.update({f"item.{name}": (name, row[name]) for name in bare})
    return part or None


def _tidy(name: str) -> str | None:
    """Give the name of an unnested column within its parameter or item, or None."""
    for mark in (".", "__", "_"):
        if name == f"event_params{mark}key":
            return "key"
        if name.startswith(f"event_params{mark}value{mark}"):
            return f"value.{name.rpartition(mark)[2] if mark == '.' else _value_name(name)}"
    for mark in _ITEM_MARKS:
        if name.startswith(mark):
            return f"item.{name[len(mark) :]}"
    if not name.startswith("item_"):
        return None
    bare = name.removeprefix("item_")
    return f"item.{bare}" if bare in _BARE else f"item.{name}" if name in ITEM_PARAMS else None


def _value_name(name: str) -> str:
    return next((value for value in _VALUES if name.endswith(value)), name)


def _whole(first: Document, parts: list[Node]) -> Document:
    return msgspec.structs.replace(first, value=_joined(first.value, parts))


def _joined(first: Node, parts: list[Node]) -> Node:
    """Make one nested row of the rows of an event."""
    taken = {name for part in parts for name, _ in part.values()}
    row = {name: value for name, value in first.items() if name not in taken}
    params, items = [], []
    for part in parts:
        values = {tidy: value for tidy, (_, value) in part.items()}
        if "key" in values:
            held = {
                n.removeprefix("value."): v for n, v in values.items() if n.startswith("value.")
            }
            params.append({"key": values["key"], "value": held})
        if item := {n[len("item.") :]: v for n, v in values.items() if n.startswith("item.")}:
            items.append(item)
    if params:
        row["event_params"] = params
    if items:
        row["items"] = items
    return row


FORMAT: Final = PayloadFormat(
    NAME, "GA4's BigQuery export", recognises, decode, ignored=IGNORED, order="time", merge=merge
)
