"""The feature store on frames: rows of a table of events, and one key's features at a moment."""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Final

import msgspec
import polars as pl

from recoup.errors import FeatureError, SchemaError
from recoup.events import (
    COUNTS,
    EVENT_NAMES,
    EVENT_SCHEMA,
    ITEM_SCHEMA,
    MONEY,
    REQUIRED,
    TIMESTAMP,
    EventBatch,
    conform,
)
from recoup.features.backfill import As, backfill
from recoup.features.definitions import FeatureSet
from recoup.features.joining import ARRIVED, in_utc, join_features, with_keys
from recoup.features.lineage import key_of
from recoup.features.store import FeatureStore

NEEDED: Final = ("ts", "event", "visitor")


def feature_rows(
    events: pl.DataFrame,
    feature_set: FeatureSet,
    *,
    how: As = "served",
    lateness_s: float = 3600.0,
) -> pl.DataFrame:
    """Give one row of features for each event of a frame, with its keys beside it.

    Parameters
    ----------
    events
        In the order in which they arrived: ``ts`` (moments; without a zone UTC), ``event`` (names
        of :data:`recoup.events.EVENT_NAMES`), ``visitor``, and any other columns of
        :data:`recoup.events.EVENT_SCHEMA`; money in int64 micro-units. Where there is no ``id``,
        each row is an event of its own.
    how
        ``served`` or ``settled``; see :func:`recoup.features.backfill`.
    lateness_s
        An event that comes later than that behind the latest one is not folded.

    Returns
    -------
    Frame as :func:`recoup.features.join_features` takes it: who and when, ``arrived_at``, the
    columns of keys, and every feature.

    Raises
    ------
    SchemaError
        If a column is missing, unknown or of another type, or an event has no name of its own.

    Examples
    --------
    >>> from recoup.features import FeatureSet, count
    >>> chosen = FeatureSet("mine", 1, (count("views", events=("view_item",)),))
    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone.utc)
    >>> clicks = pl.DataFrame(
    ...     {
    ...         "ts": [noon, noon + dt.timedelta(minutes=1)],
    ...         "event": ["view_item", "view_item"],
    ...         "visitor": ["ann", "ann"],
    ...     }
    ... )
    >>> feature_rows(clicks, chosen)["views"].to_list()
    [1.0, 2.0]
    """
    batch = EventBatch(_conformed(events), pl.DataFrame(schema=ITEM_SCHEMA))
    rows = backfill(FeatureStore(feature_set, lateness_s=lateness_s), [batch], how=how)
    return with_keys(rows, batch.events, feature_set)


class KeyFeatures(msgspec.Struct, frozen=True):
    """A key's features at a moment.

    Parameters
    ----------
    key
        Column -> value.
    at
        The moment.
    as_of
        When the event was that the row is of; None where there is none.
    status
        As of :func:`recoup.features.join_features`.
    features
        Name -> value; None where undefined.
    """

    key: dict[str, str]
    at: dt.datetime
    as_of: dt.datetime | None
    status: str
    features: dict[str, float | None]


def features_at(
    rows: pl.DataFrame,
    feature_set: FeatureSet,
    key: Mapping[str, str],
    at: dt.datetime | None = None,
) -> KeyFeatures:
    """Give the features of one key as they stood at a moment, or once all its events had come.

    Parameters
    ----------
    rows
        Feature rows as of :func:`feature_rows`.
    key
        Column -> value, such as ``{"visitor": "ann"}``.

    Raises
    ------
    FeatureError
        If the set has no feature of such a key.
    SchemaError
        If the key does not show, and no moment was given.
    """
    chosen = features_of_key(feature_set, key)
    own = rows.filter(pl.all_horizontal(pl.col(name) == value for name, value in key.items()))
    if at is None and own.is_empty():
        told = ", ".join(f"{column}={value}" for column, value in key.items())
        raise SchemaError(f"Expected a key of the log, got {told}", hint="keys match exactly")
    moment = at or own[ARRIVED].max()
    asked = pl.DataFrame({**key, _ASKED: [moment]}, schema_overrides={_ASKED: TIMESTAMP})
    joined = join_features(asked, own, chosen, ts=_ASKED).frame
    label = "_".join(key_of(chosen.features[0]))
    row = joined.row(0, named=True)
    age = row[f"by_{label}_row_age_s"]
    as_of = None if age is None else row[_ASKED] - dt.timedelta(seconds=age)
    values = {name: _defined(row[name]) for name in chosen.names}
    return KeyFeatures(dict(key), row[_ASKED], as_of, row[f"by_{label}_status"], values)


def features_of_key(feature_set: FeatureSet, key: Mapping[str, str]) -> FeatureSet:
    """Keep the features of one kind of key.

    Raises
    ------
    FeatureError
        If the set has none.
    """
    own = [each for each in feature_set.features if set(key_of(each)) == set(key)]
    if not own:
        kinds = dict.fromkeys("+".join(key_of(each)) for each in feature_set.features)
        raise FeatureError(
            f"Expected a kind of key that `{feature_set.name}` has, got {'+'.join(key)}",
            hint=f"one of {', '.join(kinds)}",
        )
    return FeatureSet(feature_set.name, feature_set.version, tuple(own), feature_set.owner)


_ASKED: Final = "__ts"


def _conformed(events: pl.DataFrame) -> pl.DataFrame:
    """Give a frame the schema of events, or say what it lacks."""
    missing = [name for name in NEEDED if name not in events.columns]
    if missing:
        raise SchemaError(
            f"Expected events with {', '.join(NEEDED)}, {', '.join(missing)} missing",
            hint="rename your columns: `frame.rename({'user_id': 'visitor'})`",
        )
    _check_types(events)
    names = set(events["event"].cast(pl.String).unique()) - {None, *EVENT_NAMES}
    if names:
        raise SchemaError(
            f"Expected names of the vocabulary in `event`, got {', '.join(sorted(names)[:5])}",
            hint="see recoup.events.EVENT_NAMES; what has no name there is `custom`",
        )
    given = events.with_columns(in_utc(events["ts"]))
    absent = {
        "source": pl.lit("frame"),
        "id": pl.int_range(pl.len()).cast(pl.String),
        "seq": pl.lit(0),
    }
    made = [each.alias(name) for name, each in absent.items() if name not in events.columns]
    whole = conform(given.with_columns(made), EVENT_SCHEMA)
    for name in REQUIRED:
        if whole[name].null_count():
            raise SchemaError(f"Expected `{name}` in every event, got null")
    return whole


def _check_types(events: pl.DataFrame) -> None:
    if not isinstance(events["ts"].dtype, pl.Datetime):
        raise SchemaError(
            f"Expected `ts` as moments, got {events['ts'].dtype}",
            hint="`pl.col('ts').str.to_datetime()`, or `pl.from_epoch`",
        )
    for name in (*MONEY, *COUNTS):
        if name in events.columns and not events[name].dtype.is_integer():
            unit = "micro-units of the currency" if name in MONEY else "whole numbers"
            raise SchemaError(
                f"Expected `{name}` as int64 {unit}, got {events[name].dtype}",
                hint=f"`(pl.col('{name}') * 1e6).round().cast(pl.Int64)`"
                if name in MONEY
                else f"`pl.col('{name}').cast(pl.Int64)`",
            )


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
