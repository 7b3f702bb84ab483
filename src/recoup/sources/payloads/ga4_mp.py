"""GA4 Measurement Protocol: the body of a request to ``/mp/collect``, with its events."""

from typing import Final

from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.draft import Draft, Entry, Node
from recoup.sources.payloads.ga4_params import event_name, read_params
from recoup.sources.payloads.ga4_rules import check_event, check_payload
from recoup.sources.payloads.scalars import Unreadable, moment, text
from recoup.sources.payloads.user_agent import describe

NAME: Final = "ga4_mp"
IGNORED: Final = ("validation_behavior",)

DEVICE: Final = {
    "category": "device",
    "operating_system": "os",
    "browser": "browser",
    "language": "language",
}
LOCATION: Final = {"country_id": "country", "region_id": "region", "city": "city"}
SHARED_LIMIT: Final = 4096
"""Leaves beside the events, times events: beyond it only the first event keeps them."""


def recognises(payload: object) -> bool:
    """Say whether this is the body of a request."""
    if not isinstance(payload, dict) or not isinstance(payload.get("events"), list):
        return False
    named = [event for event in payload["events"] if isinstance(event, dict) and "name" in event]
    return bool(named) or "client_id" in payload or "app_instance_id" in payload


def decode(draft: Draft, payload: object) -> None:
    """Read one request body."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    events = payload.get("events")
    if not isinstance(events, list) or not events:
        draft.refuse(".events", "no_events", payload)
        return
    shared = _Shared(draft, payload)
    check_payload(draft, payload, events, shared.ts)
    user, client = text(payload.get("user_id")), text(_client(payload))
    for place, event in enumerate(events):
        at = f".events[{place}]"
        if isinstance(event, dict):
            _event(draft, event, at, shared, (user, client, place))
        else:
            draft.refuse(at, "not_an_object", event)


def _client(payload: Node) -> object:
    return payload.get("client_id") or payload.get("app_instance_id")


class _Shared:
    """What a payload says beside its events: read once, then given to each of them."""

    def __init__(self, draft: Draft, payload: Node) -> None:
        known = {"events", "client_id", "app_instance_id", "user_id", "timestamp_micros"}
        rest = {name: value for name, value in payload.items() if name not in known}
        self.ts = _time(draft, payload, "", draft.received)
        self.written = payload.get("timestamp_micros")
        head = Entry(draft, "", rest, None)
        for name, table in (("device", DEVICE), ("user_location", LOCATION)):
            if isinstance(rest.get(name), dict):
                rest[name] = dict(rest[name])
                head.take(rest[name], table, f".{name}")
        agent = text(rest.get("user_agent"))
        for column, value in describe(agent) if agent else ():
            head.fields.setdefault(column, value)
        head.keep(rest)
        self.fields = head.fields
        self.extra = head.extra

    def give(self, entry: Entry, place: int) -> None:
        """Give an event what stands beside it; a great deal of it only to the first."""
        for column, value in self.fields.items():
            entry.fields.setdefault(column, value)
        if place == 0 or len(self.extra) * (place + 1) <= SHARED_LIMIT:
            for name, value in self.extra.items():
                entry.extra.setdefault(name, value)


def _event(
    draft: Draft, event: Node, at: str, shared: _Shared, who: tuple[str | None, str | None, int]
) -> None:
    user, client, place = who
    entry = Entry(draft, at, event, event_name(event.get("name")))
    entry.fields.update(source=NAME, seq=place)
    params = event.get("params")
    if params is not None and not isinstance(params, dict):
        draft.refuse(f"{at}.params", "not_an_object", params)
        params = None
    ts = _time(draft, event, at, shared.ts)
    check_event(draft, event, params or {}, ts)
    read_params(entry, dict(params or {}), f"{at}.params".removeprefix(at), client)
    entry.keep({k: v for k, v in event.items() if k not in {"name", "params", "timestamp_micros"}})
    if event.get("name") != entry.name and entry.name is not None:
        entry.extra.setdefault("name", event["name"])
    if ts != shared.ts and shared.written is not None:
        entry.extra.setdefault("timestamp_micros", shared.written)
    shared.give(entry, place)
    entry.finish(ts=ts, user=user, client=client)


def _time(draft: Draft, node: Node, at: str, otherwise: int | None) -> int | None:
    """Give the time that an event or its payload names, or what stands for it."""
    value = node.get("timestamp_micros")
    try:
        found = moment(value, "us")
    except Unreadable as refused:
        draft.refuse(f"{at}.timestamp_micros", refused.reason, value)
        return otherwise
    return otherwise if found is None else found


FORMAT: Final = PayloadFormat(NAME, "GA4 Measurement Protocol", recognises, decode, ignored=IGNORED)
