"""What can be declared, and what is refused with a hint."""

import msgspec
import pytest

from recoup.errors import FeatureError
from recoup.events import DERIVED, EVENT_SCHEMA
from recoup.features import (
    Feature,
    FeatureSet,
    FeatureStore,
    Field,
    age,
    count,
    decayed,
    distinct,
    last,
    max_,
    mean,
    rate,
    ratio,
    standard_features,
    sum_,
    time_since,
)
from recoup.features.declared import micros
from recoup.features.standard import benchmark_12, benchmark_40


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: count("x", events=("veiw_item",)), "canonical event names"),
        (lambda: count("x", by="price"), "entity columns"),
        (lambda: count("x", by=("visitor", "item", "page")), "one or two"),
        (lambda: count("x", window="5 minutes"), "length of time"),
        (lambda: count("x", window="0m"), "length of time"),
        (lambda: count("x", by="item", window="session"), "session window by visitor"),
        (lambda: sum_("x", "item"), "column that `sum` takes"),
        (lambda: mean("x", "gap_s", by="item"), "by visitor"),
        (lambda: distinct("x", "price", window="1h"), "column that `distinct` takes"),
        (lambda: distinct("x", "item"), "bounded window"),
        (lambda: rate("x", window="session"), "length of time"),
        (lambda: rate("x", window="1h", per="hour"), "length of time"),
        (lambda: age("x", window="5m"), "`session` or `lifetime`"),
        (lambda: decayed("x", half_life=""), "length of time"),
        (lambda: decayed("x", "item", half_life="1h"), "column that `decayed` takes"),
        (lambda: count("x", window="1h", tile="10m"), "other key than the visitor"),
        (lambda: count("x_tile_7m", by="item", window="1h", tile="7m"), "whole tiles"),
        (lambda: count("x", by="item", window="1h", tile="10m"), "tells the tile"),
        (lambda: count("x", where=(Field("device") > 1,)), "equal to, or different"),
        (lambda: count("x", where=(Field("price") == "a",)), "field and a value"),
        (lambda: count("x", where=(Field("id") == 3,)), "field and a value"),
        (lambda: Field("price") == None, "number or a string"),  # noqa: E711
        (lambda: FeatureSet("s", 1, ()), "at least one"),
        (lambda: FeatureSet("s", 1, (count(""),)), "name for every"),
        (lambda: FeatureSet("s", 1, (count("a"), count("a", window="1h"))), "a more than once"),
    ],
)
def test_what_cannot_be_compiled_is_refused(declare: object, says: str) -> None:
    assert callable(declare)
    with pytest.raises(FeatureError, match=says):
        declare()


def test_more_filters_than_bits_are_refused() -> None:
    many = tuple(count(f"f{i}", where=(Field("price") > i,)) for i in range(57))
    FeatureStore(FeatureSet("fits", 1, many[:56]))
    with pytest.raises(FeatureError, match="at most 56"):
        FeatureStore(FeatureSet("many", 1, many))


def test_the_hash_follows_the_content_alone() -> None:
    one = FeatureSet("s", 1, (count("a", window="1h"), time_since("b")))
    assert one.hash == FeatureSet("s", 1, (count("a", window="1h"), time_since("b"))).hash
    others = [
        FeatureSet("t", 1, one.features),
        FeatureSet("s", 2, one.features),
        FeatureSet("s", 1, one.features[::-1]),
        FeatureSet("s", 1, (count("a", window="2h"), one.features[1])),
    ]
    assert len({one.hash, *(other.hash for other in others)}) == 5


def test_definitions_survive_json() -> None:
    features = standard_features().features
    again = msgspec.json.decode(msgspec.json.encode(features), type=tuple[Feature, ...])
    assert again == features


def test_session_scope_is_a_window_of_the_visitor() -> None:
    assert count("x", by="session") == count("x", by="visitor", window="session")


def test_a_ratio_shares_a_feature_of_the_set() -> None:
    adds = count("adds", events=("add_to_cart",))
    store = FeatureStore(FeatureSet("s", 1, (adds, ratio("r", adds, max_("", "price")))))
    assert store.names == ("adds", "r")
    assert store.row.shape == (2,)


@pytest.mark.parametrize("features", [standard_features(), benchmark_12(), benchmark_40()])
def test_sets_ask_for_columns_that_events_have(features: FeatureSet) -> None:
    wanted = {name.removesuffix("?") for name in FeatureStore(features).columns}
    assert wanted <= {*EVENT_SCHEMA, *DERIVED}


def test_sizes_of_the_sets() -> None:
    assert len(benchmark_12().names) == 12
    assert len(benchmark_40().names) == 40
    assert len(standard_features().names) >= 40


def test_lengths_of_time() -> None:
    lengths = [micros(text) / 1e6 for text in ("90s", "5m", "24h", "7d")]
    assert lengths == [90, 300, 86_400, 604_800]


def test_last_takes_flags_and_counts() -> None:
    assert last("x", "in_stock").column == "in_stock"
