"""The feature store on logs: a key's features at a moment, joins, skew and health."""

import datetime as dt
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec
import polars as pl

from recoup.errors import ConfigError, SchemaError
from recoup.events import EventBatch
from recoup.features import FeatureSet, FeatureStore, standard_features
from recoup.features.backfill import As, backfill
from recoup.features.frames import KeyFeatures, features_at, features_of_key
from recoup.features.health import (
    Drift,
    Freshness,
    Skew,
    measure_drift,
    measure_freshness,
    measure_skew,
)
from recoup.features.joining import ARRIVED, Joined, join_features, with_keys
from recoup.runners.backfill import admitted
from recoup.sources import Source
from recoup.sources.values import read_time

Progress = Callable[[int], None]


def load_feature_set(place: str | None) -> FeatureSet:
    """Give the feature set at ``module:attribute``, or the standard one where none is named.

    The working directory is looked in first. An attribute may be a set, or a function that makes
    one.

    Raises
    ------
    ConfigError
        If there is no such module or attribute, or it is no feature set.
    """
    if place is None:
        return standard_features()
    module, _, attribute = place.partition(":")
    try:
        sys.path.insert(0, "")
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"Expected a feature set at `{place}`, got: {error}",
            hint="write it as module:attribute, such as `shop_features:chosen`",
        ) from error
    finally:
        sys.path.remove("")
    chosen = found() if callable(found) else found
    if not isinstance(chosen, FeatureSet):
        raise ConfigError(f"Expected a FeatureSet at `{place}`, got {type(chosen).__name__}")
    return chosen


def rows_of(
    source: Source,
    feature_set: FeatureSet,
    *,
    how: As = "served",
    where: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Give the feature rows of a log, with the keys of their events beside them.

    Parameters
    ----------
    how
        See :func:`recoup.features.backfill.backfill`.
    where
        Column -> value: only events that have them are folded.
    """
    kept = [_only(batch, where or {}) for batch in _with_arrival(admitted(source, progress))]
    events = pl.concat([batch.events for batch in kept])
    batches = [EventBatch(batch.events.drop(ARRIVED), batch.items) for batch in kept]
    rows = backfill(FeatureStore(feature_set), batches, how=how)
    return with_keys(rows, events, feature_set, events[ARRIVED])


def _with_arrival(batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
    """Put beside each event the latest event time that the whole log had shown by then."""
    latest = None
    for batch in batches:
        seen = batch.events["ts"].cum_max()
        if latest is not None:
            seen = pl.select(pl.max_horizontal(seen, pl.lit(latest, seen.dtype))).to_series()
        latest = seen[-1] if len(seen) else latest
        yield EventBatch(batch.events.with_columns(seen.alias(ARRIVED)), batch.items)


def _only(batch: EventBatch, where: Mapping[str, str]) -> EventBatch:
    if not where:
        return batch
    tests = [pl.col(column) == value for column, value in where.items()]
    return EventBatch(batch.events.filter(pl.all_horizontal(tests)), batch.items.clear())


def features_of(
    source: Source,
    feature_set: FeatureSet,
    key: Mapping[str, str],
    *,
    at: dt.datetime | None = None,
    progress: Progress | None = None,
) -> KeyFeatures:
    """Give the features of one key as they stood at a moment, or once all its events had come.

    Raises
    ------
    FeatureError
        If the set has no feature of such a key.
    SchemaError
        If the key does not show in the log, and no moment was given.
    """
    chosen = features_of_key(feature_set, key)
    rows = rows_of(source, chosen, where=key, progress=progress)
    return features_at(rows, chosen, key, at)


def join_table(
    table: pl.DataFrame,
    source: Source,
    feature_set: FeatureSet,
    *,
    ts: str = "ts",
    keys: Mapping[str, str] | None = None,
    how: As = "served",
    max_age_s: float | None = None,
    progress: Progress | None = None,
) -> Joined:
    """Join a log's features to a table of keys and moments; see :func:`join_features`.

    Moments may be dates, text (ISO 8601) or epoch numbers; without a zone they are UTC.
    """
    if ts in table.columns and not isinstance(table.schema[ts], pl.Datetime):
        table = table.with_columns(_moments(table[ts]))
    rows = rows_of(source, feature_set, how=how, progress=progress)
    return join_features(table, rows, feature_set, ts=ts, keys=keys, how=how, max_age_s=max_age_s)


def _moments(column: pl.Series) -> pl.Series:
    moments = read_time(column, ("auto",), zone="UTC", now=NEVER)
    bad = moments.reasons == "bad_timestamp"
    if bad.any():
        row = int(bad.arg_true()[0])
        raise SchemaError(
            f"Expected moments in `{column.name}`, got {column[row]!r} in row {row + 1}",
            hint="write 2026-01-31T12:00:00Z, or a date",
        )
    return moments.values.alias(column.name)


NEVER: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
"""A request may ask for a moment that has not come: there is no clock it could be ahead of."""


def skew_of(
    served: pl.DataFrame,
    source: Source,
    feature_set: FeatureSet,
    progress: Progress | None = None,
) -> Skew:
    """Fold a log again, and compare its rows with those that were served."""
    folded = backfill(FeatureStore(feature_set), admitted(source, progress), how="served")
    return measure_skew(served, folded, feature_set.names)


class Health(msgspec.Struct, frozen=True):
    """How fresh a log's features are at its end, and how they moved within it."""

    rows: int
    split: dt.datetime
    freshness: list[Freshness]
    drift: list[Drift]


def health_of(
    source: Source,
    feature_set: FeatureSet,
    *,
    split: dt.datetime | None = None,
    progress: Progress | None = None,
) -> Health:
    """Measure freshness at the log's end, and drift across a moment: the middle if not stated.

    Raises
    ------
    SchemaError
        If the log has no event, or one side of the split has none.
    """
    rows = rows_of(source, feature_set, progress=progress)
    if rows.is_empty():
        raise SchemaError("Expected events in the log, got none")
    first, last = rows["ts"].min(), rows["ts"].max()
    assert isinstance(first, dt.datetime)  # noqa: S101
    assert isinstance(last, dt.datetime)  # noqa: S101
    middle = split or first + (last - first) / 2
    before, after = rows.filter(pl.col("ts") < middle), rows.filter(pl.col("ts") >= middle)
    return Health(
        rows=rows.height,
        split=middle,
        freshness=measure_freshness(rows, feature_set, int(rows["ts"].to_physical().max())),  # type: ignore[arg-type]
        drift=measure_drift(before, after, feature_set.names),
    )
