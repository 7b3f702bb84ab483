"""Rank defects: what is wrong, where, since when, what it costs, and how sure we are."""

from collections.abc import Mapping

import msgspec
import numpy as np
import polars as pl

from recoup.decisions import Defect, Finding
from recoup.defects.risks import NEVER_US, settled
from recoup.defects.symptoms import symptomatic
from recoup.defects.told import log_of
from recoup.defects.tracking import tracking_breaks
from recoup.defects.unexplained import unexplained


class Ranking(msgspec.Struct, frozen=True):
    """Ranked defects, and tracking breaks among the data's faults."""

    defects: list[Defect]
    findings: list[Finding]


def rank(tables: Mapping[str, pl.DataFrame], now: int) -> Ranking:
    """Rank the defects that the tables of evidence show as of ``now``, int64 microseconds.

    Defects that a signal names come first; the sessions that met them no longer count when losses
    without a name are sought. The list is in order of confidence times money lost per hour.
    """
    sessions = settled(tables["sessions"], now)
    if sessions.is_empty():
        return Ranking([], [])
    touches = tables["touches"].join(sessions, on="session", how="semi")
    log = log_of(sessions, tables["orders"])
    spoiled = np.full(sessions.height, NEVER_US)
    defects = list(symptomatic(sessions, touches, spoiled, log))
    breaks = list(tracking_breaks(sessions, log))
    defects.extend(unexplained(sessions, touches, spoiled, breaks, log))
    defects.sort(key=_weight, reverse=True)
    return Ranking(defects, [each.finding for each in breaks])


def _weight(defect: Defect) -> tuple[float, float, str]:
    """Money lost per hour, or orders where no order has a value, times how sure we are."""
    sure = defect.confidence
    money, orders = defect.lost_value_per_hour.value, defect.lost_orders_per_hour.value
    return sure * money, sure * orders, defect.id
