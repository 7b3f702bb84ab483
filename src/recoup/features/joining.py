"""Point-in-time joins: for a table of (key, moment), the features as they stood at the moment."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import polars as pl

from recoup.errors import SchemaError
from recoup.events import MICROS
from recoup.features.backfill import As
from recoup.features.definitions import FeatureSet
from recoup.features.lineage import key_of

ARRIVED: Final = "arrived_at"
"""Column of feature rows: the latest event time seen when the row's event arrived."""

FOUND, LATE, STALE, NOT_YET, UNKNOWN, NO_KEY = (
    "found", "late", "stale", "not_yet", "unknown", "no_key",
)  # fmt: skip
STATUSES: Final = (FOUND, LATE, STALE, NOT_YET, UNKNOWN, NO_KEY)
"""What became of a request; see :func:`join_features`."""

_ROW, _AT, _SEEN, _FIRST = "__row", "__at", "__seen", "__first"


class Joined(msgspec.Struct, frozen=True):
    """Requests with their features.

    Parameters
    ----------
    frame
        The requests in their own order, then for each kind of key ``by_<key>_status`` and
        ``by_<key>_row_age_s`` (seconds from the event that the row is of to the request), then the
        features; null where there is no row.
    accounts
        Kind of key -> status -> how many requests.
    left_out
        Features whose key the requests do not name.
    """

    frame: pl.DataFrame
    accounts: dict[str, dict[str, int]]
    left_out: tuple[str, ...]


def join_features(
    requests: pl.DataFrame,
    rows: pl.DataFrame,
    feature_set: FeatureSet,
    *,
    ts: str = "ts",
    keys: Mapping[str, str] | None = None,
    how: As = "served",
    max_age_s: float | None = None,
) -> Joined:
    """Give each request the features of its key as they stood at its moment.

    A feature is a number as of an event: what a request gets is the row of its key's latest event
    at or before its moment, and ``by_<key>_row_age_s`` says how long before.

    Parameters
    ----------
    requests
        Any table with a moment and at least one key.
    rows
        Feature rows in the order of arrival, with ``ts``, ``seq``, ``arrived_at`` and the columns
        of the keys, as :func:`with_keys` makes them.
    feature_set
        Says which feature belongs to which key.
    ts
        Column of the requests' moments.
    keys
        Key column of the log -> column of the requests; the same name where not stated.
    how
        ``served``: only rows that had arrived by the request's moment; ``settled``: whatever has
        arrived since counts too.
    max_age_s
        Rows older than this, in seconds, are not given: their request is ``stale``.

    Returns
    -------
    Statuses: ``found``; ``late``: found, but a newer event at or before the moment arrived after
    it (``served`` alone); ``stale``; ``not_yet``: the key is known, but nothing of it had come;
    ``unknown``: the key never shows; ``no_key``: the request names none.

    Raises
    ------
    SchemaError
        If a column is missing or has a feature's name, moments are not of a time type, or the
        requests name no key.

    Examples
    --------
    >>> import datetime as dt
    >>> from recoup.features import FeatureSet, count
    >>> chosen = FeatureSet("mine", 1, (count("events"),))
    >>> noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone.utc)
    >>> minute = dt.timedelta(minutes=1)
    >>> rows = pl.DataFrame(
    ...     {
    ...         "ts": [noon, noon + minute],
    ...         "seq": 0,
    ...         "arrived_at": [noon, noon + minute],
    ...         "visitor": "ann",
    ...         "events": [1.0, 2.0],
    ...     }
    ... )
    >>> asked = pl.DataFrame({"visitor": ["ann", "bob"], "ts": [noon + minute / 2, noon]})
    >>> joined = join_features(asked, rows, chosen)
    >>> joined.frame["events"].to_list(), joined.frame["by_visitor_row_age_s"].to_list()
    ([1.0, None], [30.0, None])
    >>> joined.accounts["visitor"]["unknown"]
    1
    """
    named = dict(keys or {})
    groups = _groups(feature_set)
    _check_named(requests, named, groups)
    asked = _asked(requests, ts)
    parts, accounts, left_out = [], {}, []
    for key, names in groups.items():
        columns = {column: named.get(column, column) for column in key}
        if any(column not in requests.columns for column in columns.values()):
            left_out += names
            continue
        part = _join_key(asked, rows, columns, names, how, max_age_s)
        parts.append(part)
        accounts["_".join(key)] = _count(part[f"by_{'_'.join(key)}_status"])
    if not parts:
        raise SchemaError(
            f"Expected a key column in the requests, got {', '.join(requests.columns)}",
            hint=f"name one of {', '.join('+'.join(key) for key in groups)} with `keys`",
        )
    _check_free(requests, parts)
    frame = pl.concat([requests, *parts], how="horizontal")
    return Joined(frame, accounts, tuple(left_out))


def with_keys(
    rows: pl.DataFrame,
    events: pl.DataFrame,
    feature_set: FeatureSet,
    arrived: pl.Series | None = None,
) -> pl.DataFrame:
    """Put the key columns of events, and when each had arrived, beside their feature rows.

    Parameters
    ----------
    rows
        Feature rows, one per event in the order of arrival.
    events
        The events, likewise.
    arrived
        The latest event time seen when each arrived, where the events are not the whole log.
    """
    keys = {column for key in _groups(feature_set) for column in key} - {"visitor", "session"}
    seen = events["ts"].cum_max() if arrived is None else arrived
    beside = events.select("seq", *sorted(keys), seen.alias(ARRIVED))
    return pl.concat([rows, beside], how="horizontal")


def _check_free(requests: pl.DataFrame, parts: list[pl.DataFrame]) -> None:
    added = {name for part in parts for name in part.columns}
    taken = [name for name in requests.columns if name in added]
    if taken:
        raise SchemaError(
            f"Expected requests without columns named as features, got {', '.join(taken)}",
            hint="rename or drop them before the join",
        )


def _check_named(
    requests: pl.DataFrame, named: Mapping[str, str], groups: Iterable[tuple[str, ...]]
) -> None:
    """Refuse a key that no feature has, and a column that is not there, though it is named."""
    known = sorted({column for key in groups for column in key})
    for key, column in named.items():
        if key not in known:
            raise SchemaError(
                f"Expected a key of the features, got `{key}`", hint=f"one of {', '.join(known)}"
            )
        if column not in requests.columns:
            raise SchemaError(
                f"Expected a column `{column}` for the key `{key}` in the requests, got "
                f"{', '.join(requests.columns)}"
            )


def _groups(feature_set: FeatureSet) -> dict[tuple[str, ...], list[str]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for feature in feature_set.features:
        groups.setdefault(key_of(feature), []).append(feature.name)
    return groups


def _asked(requests: pl.DataFrame, ts: str) -> pl.DataFrame:
    if ts not in requests.columns:
        raise SchemaError(
            f"Expected a column `{ts}` of moments in the requests, got "
            f"{', '.join(requests.columns)}",
            hint="name the column of the moments: `ts`, on the command line --ts",
        )
    moments = requests[ts]
    if not isinstance(moments.dtype, pl.Datetime):
        raise SchemaError(f"Expected `{ts}` as moments, got {moments.dtype}")
    if moments.null_count():
        row = moments.is_null().arg_true()[0]
        raise SchemaError(
            f"Expected a moment in each row, got {moments.null_count()} without, first `{ts}` of "
            f"row {row + 1}",
            hint="leave such rows out: nothing was known at no moment",
        )
    return requests.with_row_index(_ROW).with_columns(in_utc(moments).alias(_AT))


def in_utc(moments: pl.Series) -> pl.Series:
    """Give moments in UTC, in microseconds; those without a zone are UTC already."""
    zone = moments.dtype.time_zone  # type: ignore[attr-defined]
    utc = (
        moments.dt.replace_time_zone("UTC") if zone is None else moments.dt.convert_time_zone("UTC")
    )
    return utc.dt.cast_time_unit("us")


def _join_key(
    asked: pl.DataFrame,
    rows: pl.DataFrame,
    columns: dict[str, str],
    names: list[str],
    how: As,
    max_age_s: float | None,
) -> pl.DataFrame:
    key, label = list(columns), "_".join(columns)
    known = rows.filter(pl.all_horizontal(pl.col(key).is_not_null()))
    wanted = asked.select(
        _ROW, _AT, *(pl.col(there).alias(here) for here, there in columns.items())
    )
    wanted = wanted.with_columns(pl.col(key).cast(known.select(key).schema[key[0]])).sort(_AT)
    settled = known.sort("ts", "seq").with_columns(pl.col("ts").alias(_SEEN))
    newest = settled.select(*key, "ts", _SEEN)
    if how == "served":
        current = known.filter(pl.col("ts") == pl.col("ts").cum_max().over(key))
        table, on = current.with_columns(pl.col("ts").alias(_SEEN)).sort(ARRIVED), ARRIVED
    else:
        table, on = settled, "ts"
    got = wanted.join_asof(
        table.select(*key, on, *({_SEEN}), *names), left_on=_AT, right_on=on, by=key,
        check_sortedness=False,
    )  # fmt: skip
    latest = wanted.join_asof(
        newest.rename({_SEEN: "__newest"}), left_on=_AT, right_on="ts", by=key,
        check_sortedness=False,
    )  # fmt: skip
    first = known.group_by(key).agg(pl.col("ts").min().alias(_FIRST))
    told = got.with_columns(latest["__newest"]).join(first, on=key, how="left").sort(_ROW)
    return _tell(told, key, label, names, max_age_s)


def _tell(
    told: pl.DataFrame, key: list[str], label: str, names: list[str], max_age_s: float | None
) -> pl.DataFrame:
    age = (pl.col(_AT) - pl.col(_SEEN)).dt.total_microseconds() / MICROS
    stale = age > max_age_s if max_age_s is not None else pl.lit(value=False)
    status = (
        pl.when(pl.any_horizontal(pl.col(key).is_null())).then(pl.lit(NO_KEY))
        .when(pl.col(_FIRST).is_null()).then(pl.lit(UNKNOWN))
        .when(pl.col(_SEEN).is_null()).then(pl.lit(NOT_YET))
        .when(stale).then(pl.lit(STALE))
        .when(pl.col("__newest") > pl.col(_SEEN)).then(pl.lit(LATE))
        .otherwise(pl.lit(FOUND))
    )  # fmt: skip
    given = status.is_in([FOUND, LATE])
    return told.select(
        status.alias(f"by_{label}_status"),
        pl.when(given).then(age).alias(f"by_{label}_row_age_s"),
        *(pl.when(given).then(pl.col(name)).alias(name) for name in names),
    )


def _count(statuses: pl.Series) -> dict[str, int]:
    found = dict(statuses.value_counts().iter_rows())
    return {status: found.get(status, 0) for status in STATUSES}
