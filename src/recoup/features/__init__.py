"""Features: declared in Python, computed as of each event by one compiled kernel."""

from recoup.features.backfill import backfill
from recoup.features.definitions import (
    Feature,
    FeatureSet,
    Field,
    age,
    count,
    decayed,
    distinct,
    last,
    max_,
    mean,
    min_,
    rate,
    ratio,
    sessions,
    sum_,
    time_since,
)
from recoup.features.standard import standard_features
from recoup.features.store import FeatureRows, FeatureStore

__all__ = [
    "Feature",
    "FeatureRows",
    "FeatureSet",
    "FeatureStore",
    "Field",
    "age",
    "backfill",
    "count",
    "decayed",
    "distinct",
    "last",
    "max_",
    "mean",
    "min_",
    "rate",
    "ratio",
    "sessions",
    "standard_features",
    "sum_",
    "time_since",
]
