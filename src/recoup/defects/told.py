"""Turn what was found into a defect that a shop's owner can read."""

import datetime as dt
from collections.abc import Mapping

import msgspec
import polars as pl

from recoup.decisions import Defect, Interval
from recoup.defects.recommend import recommend
from recoup.defects.risks import HOUR_US
from recoup.defects.scan import Found
from recoup.events import ENTITY_LABELS, MICROS


class Log(msgspec.Struct, frozen=True):
    """What all defects of a log share: its first hour, last event, and mean order value."""

    start: int
    end: int
    order_value: float

    def times(self, found: Found) -> tuple[dt.datetime, dt.datetime | None, int]:
        """Give when a change began and ended (None: still open), and its length in hours."""
        until = (self.start + found.stop) * HOUR_US
        still = until >= self.end - HOUR_US
        since = moment((self.start + found.start) * HOUR_US)
        return since, None if still else moment(until), max(found.stop - found.start, 1)


class Loss(msgspec.Struct, frozen=True):
    """What a defect took.

    Parameters
    ----------
    type, entity, level
        Defect type, attribute -> value, and the funnel level where shoppers are lost.
    exposed, observed, expected
        Sessions exposed, their orders, and the orders expected of them.
    lost
        Orders lost in all.
    confidence
        P(real).
    evidence
        One sentence.
    """

    type: str
    entity: dict[str, str]
    level: int
    exposed: int
    observed: float
    expected: float
    lost: Interval
    confidence: float
    evidence: str


def tell(log: Log, found: Found, loss: Loss) -> Defect:
    """Make the defect of a loss that was found."""
    since, until, hours = log.times(found)
    entity = labelled(loss.entity)
    orders = loss.lost.scaled(1.0 / hours)
    still_come = loss.observed / max(loss.lost.value, 1e-9)
    return Defect(
        id=f"{loss.type}:{words(entity)}:{since:%Y-%m-%dT%H}",
        type=loss.type,
        entity=entity,
        since=since,
        until=until,
        observed=loss.observed,
        expected=loss.expected,
        exposed=loss.exposed,
        lost_orders_per_hour=orders,
        lost_value_per_hour=orders.scaled(log.order_value / MICROS),
        confidence=loss.confidence,
        recommended=recommend(
            loss.type, loss.level, orders, log.order_value, anyway=min(still_come, 10.0)
        ),
        evidence=loss.evidence,
    )


def log_of(sessions: pl.DataFrame, orders: pl.DataFrame) -> Log:
    """Give what all defects of a log share; the value of an order is 0 where none is known."""
    valued = orders.filter(pl.col("value") > 0)["value"]
    first, last = sessions.select(pl.col("first").min(), pl.col("last").max()).row(0)
    return Log(first // HOUR_US, last, float(valued.mean() or 0.0))  # type: ignore[arg-type]


def moment(micros: int) -> dt.datetime:
    """Give int64 microseconds as a time."""
    return dt.datetime.fromtimestamp(micros / MICROS, dt.UTC)


def labelled(entity: Mapping[str, str]) -> dict[str, str]:
    """Give an entity under the attributes' public names."""
    return {ENTITY_LABELS.get(name, name): value for name, value in entity.items()}


def words(entity: Mapping[str, str]) -> str:
    """Give an entity in words."""
    return ", ".join(f"{name} {value}" for name, value in entity.items())
