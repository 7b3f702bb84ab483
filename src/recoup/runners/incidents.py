"""What an incident cost, asked of a log."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Final

from recoup.causal.incidents import Incident, IncidentCost, incident_cost
from recoup.causal.session_table import episodes, session_table
from recoup.errors import ConfigError
from recoup.events import CONTEXT, ENTITIES, ENTITY_LABELS, micros_of
from recoup.runners.backfill import admitted
from recoup.sources import Source

Progress = Callable[[int], None]

ADJUSTED: Final = ("device", "channel", "visitor_type")
"""Attributes that buying is adjusted for, unless the incident is about them."""

_COLUMNS: Final = {label: column for column, label in ENTITY_LABELS.items()}


def incident_in(
    source: Source,
    entity: Mapping[str, str],
    since: dt.datetime,
    until: dt.datetime | None = None,
    *,
    horizon_s: float = 0.0,
    level: float = 0.95,
    progress: Progress | None = None,
) -> IncidentCost:
    """Estimate what an incident in a log cost in all.

    Parameters
    ----------
    entity
        Attribute -> value: whom it touched.
    since, until
        When, half-open; None is to the log's end.
    horizon_s
        Orders that the same visitors place within this time of their first visit in the incident
        count as caught up; 0 joins no visits.

    Raises
    ------
    ConfigError
        If an attribute is none of an event's.
    SchemaError
        If no session was touched.
    """
    columns = {_COLUMNS.get(name, name): value for name, value in entity.items()}
    unknown = sorted(set(columns).difference(ENTITIES, CONTEXT))
    if unknown or not columns:
        raise ConfigError(
            f"Expected attributes of an event, got {', '.join(unknown) or 'none'}",
            hint=f"one or more of {', '.join(sorted((*ENTITIES, *CONTEXT)))}",
        )
    incident = Incident("touched", micros_of(since), None if until is None else micros_of(until))
    sessions = session_table(admitted(source, progress), columns)
    rows = episodes(sessions, horizon_s, cut=incident.since)
    adjust = [name for name in ADJUSTED if name not in columns]
    return incident_cost(rows, incident, adjust=adjust, level=level)
