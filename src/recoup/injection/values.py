"""Values of a log's own columns, changed in place."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import COUNTS, FLAGS, MICROS, MONEY, REALS
from recoup.injection.plan import Change
from recoup.injection.records import Raw
from recoup.sources.mapping import Column, Mapping
from recoup.sources.values import MAX_MS, MAX_S, MAX_US, read_time

UNITS = {"currency": 1.0, "cents": 100.0, "micros": float(MICROS)}
STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"


def raw_column(mapping: Mapping, field: str, *, needed: bool = True) -> tuple[str, Column] | None:
    """Find the one raw column that a field is read from.

    Raises
    ------
    ConfigError
        If there is none, and it is needed.
    """
    rule = mapping.columns.get(field)
    if rule is not None and isinstance(rule.column, str):
        return rule.column, rule
    items = mapping.items
    if items is not None and items.group_by and field in items.fields:
        return items.fields[field], Column(column=items.fields[field], unit=items.unit)
    if needed:
        raise ConfigError(
            f"Expected a field with a column of its own in this log, got `{field}`",
            hint=f"the log has {', '.join(sorted(mapping.columns))}",
        )
    return None


def changed(old: Sequence[Raw], field: str, rule: Column, change: Change) -> list[Raw]:
    """Give raw values with a field set, scaled or added to.

    Numbers keep their kind: whole ones stay whole, texts stay texts.
    """
    if field in change.set:
        return [_raw(change.set[field], field, rule)] * len(old)
    factor = change.scale.get(field, 1.0)
    plus = change.add.get(field, 0) / rule.scale
    return [_number(value, factor, plus) for value in old]


def _raw(value: Raw, field: str, rule: Column) -> Raw:
    back = {mapped: raw for raw, mapped in rule.values.items()}
    if field in MONEY:
        scaled = _amount(value, field) * UNITS[rule.unit]
        return round(scaled) if rule.unit != "currency" else scaled
    if field in REALS or field in COUNTS:
        return _amount(value, field) / rule.scale if rule.scale != 1.0 else value
    return value if field in FLAGS else back.get(str(value), value)


def _amount(value: Raw, field: str) -> float:
    if value is None or isinstance(value, str):
        raise ConfigError(f"Expected a number for `{field}` under `set`, got {value!r}")
    return float(value)


def _number(value: Raw, factor: float, plus: float) -> Raw:
    if value is None or value == "":
        return plus if plus and factor == 1.0 else value
    try:
        number = float(value) * factor + plus
    except ValueError:
        return value
    whole = isinstance(value, int) or (isinstance(value, str) and value.lstrip("-").isdigit())
    new = round(number) if whole else round(number, 6)
    return str(new) if isinstance(value, str) else new


def later(
    column: pl.Series, delay_us: NDArray[np.int64], mapping: Mapping, now: dt.datetime
) -> pl.Series:
    """Move moments by microseconds, each in the way its column writes them."""
    delay = pl.Series(delay_us)
    if isinstance(column.dtype, pl.Datetime):
        return (column + delay.cast(pl.Duration("us"))).cast(column.dtype)
    if column.dtype.is_numeric():
        units = column.abs().cast(pl.Float64)
        parts = pl.DataFrame({"value": column, "size": units, "delay": delay}).select(
            pl.col("value")
            + pl.when(pl.col("size") < MAX_S)
            .then(pl.col("delay") / 1e6)
            .when(pl.col("size") < MAX_MS)
            .then(pl.col("delay") / 1e3)
            .when(pl.col("size") < MAX_US)
            .then(pl.col("delay"))
            .otherwise(pl.col("delay") * 1e3)
            .cast(column.dtype, strict=False)
        )
        return parts.to_series()
    moments = read_time(column, mapping.ts.formats, zone=mapping.ts.timezone, now=now).values
    moved = moments + delay.cast(pl.Duration("us"))
    form = next((form for form in mapping.ts.formats if "%" in form), None)
    zone = "UTC" if form is None else mapping.ts.timezone
    text = moved.dt.convert_time_zone(zone).dt.strftime(form or STAMP)
    return text.zip_with((delay != 0) & text.is_not_null(), column.cast(pl.String))
