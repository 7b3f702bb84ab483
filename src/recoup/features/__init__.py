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
from recoup.features.frames import KeyFeatures, feature_rows, features_at
from recoup.features.health import measure_drift, measure_freshness, measure_skew
from recoup.features.joining import Joined, join_features, with_keys
from recoup.features.lineage import describe
from recoup.features.standard import standard_features
from recoup.features.store import FeatureRows, FeatureStore

__all__ = [
    "Feature",
    "FeatureRows",
    "FeatureSet",
    "FeatureStore",
    "Field",
    "Joined",
    "KeyFeatures",
    "age",
    "backfill",
    "count",
    "decayed",
    "describe",
    "distinct",
    "feature_rows",
    "features_at",
    "join_features",
    "last",
    "max_",
    "mean",
    "measure_drift",
    "measure_freshness",
    "measure_skew",
    "min_",
    "rate",
    "ratio",
    "sessions",
    "standard_features",
    "sum_",
    "time_since",
    "with_keys",
]
