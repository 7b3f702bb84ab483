"""The health of feature rows: freshness, training/serving skew, drift."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SchemaError
from recoup.events import MICROS
from recoup.features.definitions import FeatureSet
from recoup.features.lineage import key_of
from recoup.features.stability import bin_counts, bin_edges, stability_index

EVENT_KEY: Final = ("source", "id")
"""Columns that name the event a row is of."""


class Skew(msgspec.Struct, frozen=True):
    """How the rows that were served differ from the same rows folded again; all aim at zero.

    Parameters
    ----------
    rows
        Events with a row on both sides.
    missing, extra
        Share of the folded events that were served no row, and of the served rows whose event is
        not in the log.
    mismatch
        Share of the common rows in which some feature differs in any bit.
    by_feature
        Feature -> share of the common rows in which it differs; those that never do left out.
    absent
        Features that the served rows do not have at all.
    """

    rows: int
    missing: float
    extra: float
    mismatch: float
    by_feature: dict[str, float]
    absent: tuple[str, ...]


def measure_skew(served: pl.DataFrame, folded: pl.DataFrame, names: Sequence[str]) -> Skew:
    """Compare logged feature rows with those that the journal gives when folded again.

    Parameters
    ----------
    served
        Rows as they were logged when served, with ``source``, ``id`` and features.
    folded
        Rows of the same log, folded again (``backfill(..., how="served")``).
    names
        The features to compare.

    Raises
    ------
    SchemaError
        If a table does not name its events, or an event has two rows.

    Examples
    --------
    >>> folded = pl.DataFrame({"source": "web", "id": ["a", "b"], "carts": [1.0, 2.0]})
    >>> served = pl.DataFrame({"source": "web", "id": ["a", "b"], "carts": [1.0, 3.0]})
    >>> measure_skew(served, folded, ["carts"]).by_feature
    {'carts': 0.5}
    """
    for told, table in (("served", served), ("folded", folded)):
        _check_events(told, table)
    known = [name for name in names if name in served.columns]
    left, right = (
        table.select(
            *EVENT_KEY, *(pl.col(name).cast(pl.Float64).alias(mark + name) for name in known)
        )
        for mark, table in (("s ", served), ("f ", folded))
    )
    both = left.join(right, on=EVENT_KEY, how="inner")
    differs = {name: _differ(both["s " + name], both["f " + name]) for name in known}
    shares = {name: float(unlike.mean()) for name, unlike in differs.items() if unlike.any()}
    some = np.zeros(both.height, bool)
    for unlike in differs.values():
        some |= unlike
    return Skew(
        rows=both.height,
        missing=1.0 - both.height / max(folded.height, 1),
        extra=1.0 - both.height / max(served.height, 1),
        mismatch=float(some.mean()) if both.height else 0.0,
        by_feature=dict(sorted(shares.items(), key=lambda pair: -pair[1])),
        absent=tuple(name for name in names if name not in served.columns),
    )


class Drift(msgspec.Struct, frozen=True):
    """How a feature's values moved between two tables.

    Parameters
    ----------
    feature
        Its name.
    psi
        Population stability index over ten bins of equal mass of the first table, and one for
        "undefined"; see :func:`recoup.features.stability.stability_index`.
    mean_before, mean_after
        Over rows in which it is defined.
    undefined_before, undefined_after
        Share of rows in which it is not.
    """

    feature: str
    psi: float
    mean_before: float | None
    mean_after: float | None
    undefined_before: float
    undefined_after: float


def measure_drift(before: pl.DataFrame, after: pl.DataFrame, names: Sequence[str]) -> list[Drift]:
    """Compare the values of features in two tables, the most moved first.

    Raises
    ------
    SchemaError
        If a table has no row or lacks a feature.

    Examples
    --------
    >>> before = pl.DataFrame({"carts": [0.0, 1.0] * 50})
    >>> after = pl.DataFrame({"carts": [1.0] * 80 + [0.0] * 20})
    >>> round(measure_drift(before, after, ["carts"])[0].psi, 3)
    0.416
    """
    if before.is_empty() or after.is_empty():
        raise SchemaError(f"Expected rows on both sides, got {before.height} and {after.height}")
    lacking = [name for name in names if name not in before.columns or name not in after.columns]
    if lacking:
        raise SchemaError(f"Expected the features on both sides, {', '.join(lacking)} missing")
    moved = [_drift(name, _floats(before[name]), _floats(after[name])) for name in names]
    return sorted(moved, key=lambda each: -each.psi)


class Freshness(msgspec.Struct, frozen=True):
    """How fresh the rows of one kind of key are, at a moment.

    Parameters
    ----------
    key
        Columns of the key.
    keys
        How many different keys have a row.
    newest_s
        Seconds from the newest row of any key to the moment.
    median_s, p95_s
        The same for the newest row of each key: over the keys.
    """

    key: tuple[str, ...]
    keys: int
    newest_s: float
    median_s: float
    p95_s: float


def measure_freshness(rows: pl.DataFrame, feature_set: FeatureSet, now_us: int) -> list[Freshness]:
    """Say how old each key's newest row is, by kind of key.

    Parameters
    ----------
    rows
        Feature rows with ``ts`` and the key columns; see ``recoup.features.joining.with_keys``.
    now_us
        The moment, int64 microseconds UTC.
    """
    kinds = dict.fromkeys(key_of(feature) for feature in feature_set.features)
    found = []
    for key in kinds:
        newest = (
            rows.filter(pl.all_horizontal(pl.col(key).is_not_null()))
            .group_by(key)
            .agg(pl.col("ts").max())["ts"]
        )
        if newest.len():
            age = (now_us - newest.to_physical().to_numpy()) / MICROS
            low, middle, high = age.min(), np.median(age), np.quantile(age, 0.95)
            found.append(Freshness(key, len(age), float(low), float(middle), float(high)))
    return found


def _check_events(told: str, table: pl.DataFrame) -> None:
    missing = [name for name in EVENT_KEY if name not in table.columns]
    if missing:
        raise SchemaError(
            f"Expected the {told} rows to name their events, {', '.join(missing)} missing",
            hint="keep `source` and `id` beside the features",
        )
    repeated = table.height - table.select(EVENT_KEY).n_unique()
    if repeated:
        raise SchemaError(f"Expected one {told} row an event, got {repeated} more")


def _floats(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _differ(left: pl.Series, right: pl.Series) -> NDArray[np.bool_]:
    """Say where two columns differ; undefined equals undefined."""
    a, b = _floats(left), _floats(right)
    return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)))


def _drift(name: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> Drift:
    edges = bin_edges(before)
    return Drift(
        feature=name,
        psi=stability_index(bin_counts(before, edges), bin_counts(after, edges)),
        mean_before=_mean(before),
        mean_after=_mean(after),
        undefined_before=float(np.isnan(before).mean()),
        undefined_after=float(np.isnan(after).mean()),
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
