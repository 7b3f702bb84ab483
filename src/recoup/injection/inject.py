"""A log in, the same log with known defects out, and the truth about them beside it."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from recoup.errors import ConfigError, SourceError
from recoup.events import iso
from recoup.injection.plan import Plan, in_sessions, make_plan
from recoup.injection.shop import ShopLog
from recoup.injection.spec import InjectionSpec
from recoup.injection.tables import TableLog
from recoup.sources import open_as_is
from recoup.sources.files import TRUTH
from recoup.sources.google_merch_store import GoogleMerchStore
from recoup.sources.mapped import MappedSource


def inject_log(
    path: Path,
    spec: InjectionSpec,
    out: Path,
    *,
    format: str | None = None,  # noqa: A002
    mapping: Path | None = None,
    now: dt.datetime | None = None,
) -> dict[str, Any]:
    """Put the defects of a spec into a log, and write it in its own format.

    Parameters
    ----------
    path, format, mapping, now
        As :func:`recoup.sources.open_as_is` takes them.
    spec
        What to put in.
    out
        Directory for the log's files, under their own names, and ``truth.json``; it must be empty
        or new.

    Returns
    -------
    dict
        What ``truth.json`` holds.

    Raises
    ------
    SourceError
        If the log cannot be read, or is of a format that cannot be written.
    ConfigError
        If a slice is impossible, a field is none of the log's, or ``out`` is in use.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"Expected an empty directory for the log, got `{out}`", hint="name another --out"
        )
    log = _open(path, format, mapping, now)
    events = log.events()
    if events.is_empty():
        raise SourceError(f"Expected events in `{path}`, got none")
    ordered = in_sessions(events)
    plan = _in_order_of_the_log(make_plan(ordered, spec), ordered["place"])
    out.mkdir(parents=True, exist_ok=True)
    log.write(plan, out)
    moments = events["ts"].to_physical().to_numpy()
    truth = {
        "source": path.resolve().name,
        "seed": spec.seed,
        "from": iso(int(moments.min())),
        "to": iso(int(moments.max())),
        **plan.truth,
        "totals": {
            "events": events.height,
            "removed_events": int(plan.gone.sum()),
            "lost_orders": sum(defect["lost_orders"] for defect in plan.truth["defects"]),
            "lost_value": sum(defect["lost_value"] for defect in plan.truth["defects"]),
        },
    }
    (out / TRUTH).write_text(json.dumps(truth, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return truth


def _open(
    path: Path, log_format: str | None, mapping: Path | None, now: dt.datetime | None
) -> ShopLog | TableLog:
    moment = now or dt.datetime.now(dt.UTC)
    source = open_as_is(path, format=log_format, mapping=mapping, now=moment)
    if isinstance(source, GoogleMerchStore):
        return ShopLog(path, source)
    if isinstance(source, MappedSource):
        return TableLog(source, now=moment)
    raise SourceError(
        f"Expected a table or google_merch_store, got a log of the format {source.name}",
        hint="make it a native log first: `recoup convert LOG --out DIR`",
    )


def _in_order_of_the_log(plan: Plan, place: pl.Series) -> Plan:
    """Turn a plan over the ordered log into one over the events as they were read."""
    order = place.to_numpy()
    back = np.argsort(order)
    changes = [
        msgspec.structs.replace(change, rows=np.sort(order[change.rows]).astype(np.int64))
        for change in plan.changes
    ]
    return Plan(plan.gone[back], plan.delay_us[back], plan.copies[back], changes, plan.truth)
