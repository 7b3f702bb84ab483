"""Snowplow: enriched events, trackers' own requests, and self-describing JSON, with entities."""

import base64
import binascii
from collections.abc import Iterator
from typing import Any, Final

from recoup.sources.json_table import parse_value
from recoup.sources.payloads.base import PayloadFormat
from recoup.sources.payloads.draft import Draft, Entry, Node
from recoup.sources.payloads.scalars import Unreadable, moment, path_of, text
from recoup.sources.payloads.snowplow_entities import (
    ECOMMERCE,
    column_name,
    name_of,
    read_entity,
    read_event,
    schema_name,
)
from recoup.sources.payloads.user_agent import describe

NAME: Final = "snowplow"
IGNORED: Final = (
    "event", "event_name", "event_vendor", "event_format", "event_version", "etl_tstamp",
    "v_tracker", "v_collector", "v_etl", "name_tracker", "etl_tags", "collector_tstamp",
    "dvce_created_tstamp", "dvce_sent_tstamp", "derived_tstamp", "true_tstamp", "load_tstamp",
    "event_fingerprint", "txn_id", "user_fingerprint", "refr_dvce_tstamp", "performance_timing",
    "br_features_pdf", "br_features_flash", "br_features_java", "br_features_director",
    "br_features_quicktime", "br_features_realplayer", "br_features_windowsmedia",
    "br_features_gears", "br_features_silverlight", "br_cookies", "br_colordepth",
    "br_viewwidth", "br_viewheight", "dvce_screenwidth", "dvce_screenheight", "doc_charset",
    "doc_width", "doc_height", "tv", "tna", "res", "vp", "ds", "cd", "cookie", "cs", "stm",
)  # fmt: skip

TRACKER: Final = {
    "e": "event", "eid": "event_id", "uid": "user_id", "duid": "domain_userid",
    "nuid": "network_userid", "tnuid": "network_userid", "sid": "domain_sessionid",
    "vid": "domain_sessionidx", "aid": "app_id", "p": "platform", "url": "page_url",
    "page": "page_title", "refr": "page_referrer", "lang": "br_lang", "ua": "useragent",
    "ip": "user_ipaddress", "dtm": "dvce_created_tstamp", "ttm": "true_tstamp",
    "stm": "dvce_sent_tstamp", "se_ca": "se_category", "se_ac": "se_action", "se_la": "se_label",
    "se_pr": "se_property", "se_va": "se_value", "tr_id": "tr_orderid", "tr_tt": "tr_total",
    "tr_tx": "tr_tax", "tr_sh": "tr_shipping", "tr_cu": "tr_currency", "tr_ci": "tr_city",
    "tr_st": "tr_state", "tr_co": "tr_country", "ti_id": "ti_orderid", "ti_sk": "ti_sku",
    "ti_nm": "ti_name", "ti_ca": "ti_category", "ti_pr": "ti_price", "ti_qu": "ti_quantity",
    "ti_cu": "ti_currency",
}  # fmt: skip
"""Parameter of a tracker's request -> column of an enriched event."""
KINDS: Final = {
    "pv": "page_view", "pp": "page_ping", "tr": "transaction", "ti": "transaction_item",
    "se": "struct", "ue": "unstruct",
}  # fmt: skip

COLUMNS: Final = {
    "event_id": "id",
    "domain_sessionid": "session",
    "domain_sessionidx": "visit_number",
    "page_urlpath": "page",
    "tr_orderid": "order",
    "ti_orderid": "order",
    "tr_total": "value",
    "tr_tax": "tax",
    "tr_shipping": "shipping",
    "tr_currency": "currency",
    "ti_currency": "currency",
    "geo_country": "country",
    "geo_region_name": "region",
    "geo_region": "region",
    "geo_city": "city",
    "mkt_source": "traffic_source",
    "mkt_medium": "medium",
    "mkt_campaign": "campaign",
    "refr_medium": "channel",
    "refr_source": "traffic_source",
    "br_family": "browser",
    "br_name": "browser",
    "os_family": "os",
    "os_name": "os",
    "br_lang": "language",
}
"""Column of an enriched event -> column; of two for one column the first that has a value."""
ITEM: Final = {
    "ti_sku": "item",
    "ti_name": "item_name",
    "ti_category": "category",
    "ti_price": "price",
    "ti_quantity": "quantity",
}
DEVICES: Final = {"computer": "desktop", "mobile": "mobile", "tablet": "tablet"}
PLAIN: Final = {"transaction": "purchase"}
USERS: Final = ("domain_userid", "network_userid")

LOADED: Final = ("contexts_com_snowplow", "unstruct_event_com_snowplow")
"""How loaders name the columns of entities and events."""

Found = tuple[str, Node, str]
"""Name of a schema, its data, and where that stood."""


def recognises(payload: object) -> bool:
    """Say whether this is an enriched event, a tracker's request, or self-describing."""
    if not isinstance(payload, dict):
        return False
    schema = payload.get("schema")
    if isinstance(schema, str) and "data" in payload:
        return "snowplow" in schema
    if "event_id" in payload and ("collector_tstamp" in payload or "event" in payload):
        return True
    if text(payload.get("e")) in KINDS and bool({"eid", "dtm", "tv", "duid"} & payload.keys()):
        return True
    return any(str(name).startswith(LOADED) for name in payload)


def decode(draft: Draft, payload: object) -> None:
    """Read an enriched event, or the events of a tracker's request."""
    if not isinstance(payload, dict):
        draft.refuse("", "not_an_object", payload)
        return
    if "payload_data" not in str(payload.get("schema")):
        _event(draft, payload, "")
        return
    data = payload.get("data")
    if not isinstance(data, list) or not data:
        draft.refuse(".data", "no_events", payload)
        return
    for place, event in enumerate(data):
        if isinstance(event, dict):
            _event(draft, event, f".data[{place}]", place)
        else:
            draft.refuse(f".data[{place}]", "not_an_object", event)


def _event(draft: Draft, event: Node, at: str, place: int = 0) -> None:
    node = dict(event)
    if "e" in node:
        node = {TRACKER.get(name, name): value for name, value in node.items()}
        node["event"] = KINDS.get(str(node["event"]), node["event"])
    said = _self_described(draft, node, at)
    entities = list(_entities(draft, node, at))
    by_schema: dict[str, list[Node]] = {}
    for schema, data, _ in entities:
        by_schema.setdefault(schema, []).append(data)
    name = name_of(said[0], said[1], by_schema) if said else _plain_name(node)
    entry = Entry(draft, at, event, name)
    entry.fields.update(source=NAME, seq=place)
    user, client = _who(node, by_schema)
    if said:
        read_event(entry, said[0], dict(said[1]), said[2])
    counts: dict[str, int] = {}
    for schema, data, where in entities:
        counts[schema] = counts.get(schema, -1) + 1
        read_entity(entry, schema, dict(data), where, counts[schema])
    if entry.name == "custom" or "ti_sku" in node:
        line = {item: node.pop(item) for item in ITEM if item in node}
        entry.add_line(line, ITEM, "subject", "", "items[0]") if line else None
    _columns(entry, node)
    ts = _time(draft, node, at)
    entry.keep(node)
    if entry.fields.get("visit_number") is not None:
        entry.fields.setdefault("is_new_visitor", entry.fields["visit_number"] == 1)
    if len(entry.lines) > 1:
        entry.fields.pop("in_stock", None)
    entry.finish(ts=ts, user=user, client=client)


def _plain_name(node: Node) -> str | None:
    """Give the name of an event that describes nothing itself."""
    kind = text(node.get("event_name")) or text(node.get("event"))
    if kind in {"struct", "event"} and text(node.get("se_action")):
        return text(node.pop("se_action"))
    return PLAIN.get(kind, kind) if kind else None


def _who(node: Node, entities: dict[str, list[Node]]) -> tuple[str | None, str | None]:
    """Give the user, named by the tracker or by an entity, and the browser's own id."""
    user = text(node.pop("user_id", None))
    for data in entities.get(f"{ECOMMERCE}user", ()):
        user = user or text(data.get("id"))
    client = next((found for name in USERS if (found := text(node.get(name)))), None)
    for name in USERS:
        if text(node.get(name)) == client:
            node.pop(name, None)
    return user, client


def _columns(entry: Entry, node: Node) -> None:
    entry.take(node, COLUMNS, "")
    place = path_of(node.get("page_url"))
    if place is not None:
        entry.fields.setdefault("page", place)
    kind = text(node.pop("dvce_type", None))
    if kind is not None:
        entry.fields.setdefault("device", DEVICES.get(kind.lower(), kind.lower()))
    agent = text(node.pop("useragent", None))
    for column, value in describe(agent) if agent else ():
        entry.fields.setdefault(column, value)
    entry.keep(agent, "user_agent")


def _self_described(draft: Draft, node: Node, at: str) -> Found | None:
    """Take out the event's own schema and data, wherever they stand."""
    for name in ("unstruct_event", "ue_pr", "ue_px"):
        if node.get(name) is not None:
            found = _opened(node.pop(name), packed=name == "ue_px")
            held = found.get("data") if isinstance(found, dict) else None
            if isinstance(held, dict) and isinstance(held.get("schema"), str):
                return _described(held, f".{name}.data")
            draft.refuse(f"{at}.{name}", "bad_schema", found)
            return None
    for name in tuple(node):
        if str(name).startswith("unstruct_event_") and isinstance(node[name], dict):
            return column_name(name.removeprefix("unstruct_event_")), node.pop(name), f".{name}"
    if isinstance(node.get("schema"), str) and isinstance(node.get("data"), dict):
        held = {"schema": node.pop("schema"), "data": node.pop("data")}
        return _described(held, "")
    return None


def _described(held: Node, at: str) -> Found:
    data = held.get("data")
    node = data if isinstance(data, dict) else {"data": data}
    return schema_name(held["schema"]), node, f"{at}.data"


def _entities(draft: Draft, node: Node, at: str) -> Iterator[Found]:
    """Take out the entities that stand beside an event."""
    for name in ("contexts", "derived_contexts", "co", "cx", "context", "entities"):
        if node.get(name) is None:
            continue
        found = _opened(node.pop(name), packed=name == "cx")
        listed = found.get("data") if isinstance(found, dict) else found
        for place, held in enumerate(listed if isinstance(listed, list) else [found]):
            if isinstance(held, dict) and isinstance(held.get("schema"), str):
                yield _described(held, f".{name}.data[{place}]")
            else:
                draft.refuse(f"{at}.{name}", "bad_schema", held)
    for name in tuple(node):
        if not str(name).startswith("contexts_"):
            continue
        value = node.pop(name)
        listed = parse_value(value)[0] if isinstance(value, str) else value
        for place, held in enumerate(listed if isinstance(listed, list) else [listed]):
            if isinstance(held, dict):
                yield column_name(name.removeprefix("contexts_")), held, f".{name}[{place}]"
            elif held is not None:
                draft.refuse(f"{at}.{name}[{place}]", "bad_schema", held)


def _opened(value: object, *, packed: bool) -> Any:  # noqa: ANN401
    """Give JSON that stands as an object, as text, or as text in base64."""
    if not isinstance(value, str):
        return value
    written = value
    if packed:
        try:
            written = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return value
    found, reason = parse_value(written)
    return value if reason else found


def _time(draft: Draft, node: Node, at: str) -> int | None:
    """Give when an event happened: the pipeline's own reckoning, or the same made here."""
    found: dict[str, int | None] = {}
    for name in ("true_tstamp", "derived_tstamp", "collector_tstamp", "dvce_created_tstamp",
                 "dvce_sent_tstamp"):  # fmt: skip
        try:
            found[name] = moment(node.get(name))
        except Unreadable as refused:
            found[name] = None
            draft.refuse(f"{at}.{name}", refused.reason, node[name])
    known = found["true_tstamp"] or found["derived_tstamp"]
    made, sent = found["dvce_created_tstamp"], found["dvce_sent_tstamp"]
    arrived = found["collector_tstamp"] or draft.received
    if known is not None or made is None:
        return known or arrived
    return made if sent is None or arrived is None else arrived - (sent - made)


FORMAT: Final = PayloadFormat(NAME, "Snowplow", recognises, decode, ignored=IGNORED)
