"""The feature store as people use it: lineage, point-in-time joins, skew, drift, freshness."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recoup.cli import main
from recoup.errors import ConfigError, FeatureError, SchemaError
from recoup.events import EVENT_SCHEMA, TIMESTAMP, EventBatch
from recoup.features import (
    FeatureSet,
    FeatureStore,
    backfill,
    count,
    describe,
    feature_rows,
    features_at,
    join_features,
    measure_drift,
    measure_freshness,
    measure_skew,
    ratio,
    standard_features,
    with_keys,
)
from recoup.features.declared import MEASURES, STRINGS
from recoup.features.joining import STATUSES
from recoup.runners.feature_tables import features_of, load_feature_set, rows_of
from recoup.sources import open_source, write_native
from recoup.testing import random_batch

MINE = FeatureSet(
    "mine",
    3,
    (
        count("events_1h", window="1h"),
        count("views", events=("view_item",)),
        count("item_events_24h_tile_1h", by="item", window="24h", tile="1h"),
        ratio("views_per_event", count("", events=("view_item",)), count("")),
    ),
    "search team",
)


def _rows(events: pl.DataFrame, how: str) -> pl.DataFrame:
    batch = EventBatch(events, random_batch(1, seed=1).items.clear())
    rows = backfill(FeatureStore(MINE, lateness_s=7 * 86_400), [batch], how=how)  # type: ignore[arg-type]
    return with_keys(rows, events, MINE)


def _shuffled(n: int, seed: int) -> pl.DataFrame:
    """Events of which some arrive hours after younger ones."""
    rng = np.random.default_rng(seed)
    events = random_batch(n, seed=seed).events.sort("ts")
    arrival = np.arange(n) + np.where(rng.random(n) < 0.3, rng.integers(0, n // 4, n), 0)
    return events[np.argsort(arrival, kind="stable")]


def _requests(events: pl.DataFrame, n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    low, high = (int(events["ts"].to_physical().cast(int).quantile(q) or 0) for q in (0, 1))
    known = events["visitor"].unique().sort().to_list()
    moments = rng.integers(low - 10**9, high + 10**9, n)
    return pl.DataFrame(
        {"visitor": rng.choice([*known, "nobody"], n), "ts": pl.Series(moments).cast(TIMESTAMP)}
    )


@pytest.mark.parametrize("how", ["served", "settled"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_join_is_the_latest_row_until_then_and_nothing_later(how: str, seed: int) -> None:
    events = _shuffled(300, seed)
    rows, asked = _rows(events, how), _requests(events, 200, seed)
    joined = join_features(asked, rows, MINE, how=how)  # type: ignore[arg-type]
    moments = rows["ts"].to_list()
    arrived = rows["arrived_at"].to_list() if how == "served" else moments
    order = rows.select("ts", "seq").rows()
    for (visitor, at), found in zip(asked.rows(), joined.frame.iter_rows(named=True), strict=True):
        own = [i for i, who in enumerate(rows["visitor"]) if who == visitor]
        until = [i for i in own if arrived[i] <= at]
        if not until:
            assert found["by_visitor_status"] == ("not_yet" if own else "unknown")
            assert found["views"] is None
            continue
        best = max(order[i] for i in until)
        alike = {rows["views"][i] for i in until if order[i] == best}
        assert found["views"] in alike
        newer = any(moments[i] <= at and moments[i] > best[0] for i in own)
        assert found["by_visitor_status"] == ("late" if newer else "found")
        assert found["by_visitor_row_age_s"] == pytest.approx((at - best[0]).total_seconds())


def test_every_request_is_accounted_for() -> None:
    events = _shuffled(300, 4)
    asked = _requests(events, 100, 4).with_columns(item=pl.lit("no such item"))
    asked = asked.with_columns(pl.when(pl.col("visitor") != "nobody").then(pl.col("visitor")))
    joined = join_features(asked, _rows(events, "served"), MINE, max_age_s=600.0)
    for accounts in joined.accounts.values():
        assert set(accounts) == set(STATUSES)
        assert sum(accounts.values()) == 100
    assert joined.accounts["visitor"]["no_key"] == int(asked["visitor"].null_count()) > 0
    assert joined.accounts["visitor"]["stale"] > 0
    assert joined.accounts["item"]["unknown"] == 100
    assert joined.frame.filter(pl.col("by_visitor_status") == "stale")["views"].null_count() > 0


def test_late_rows_are_told_apart() -> None:
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    hour = dt.timedelta(hours=1)
    events = random_batch(3, seed=1).events.with_columns(
        pl.Series("ts", [noon, noon + 2 * hour, noon + hour], TIMESTAMP),
        pl.Series("visitor", ["ann", "bob", "ann"]),
        pl.lit("view_item").cast(EVENT_SCHEMA["event"]).alias("event"),
    )
    asked = pl.DataFrame({"visitor": "ann", "ts": [noon + 1.5 * hour, noon + 3 * hour]})
    served = join_features(asked, _rows(events, "served"), MINE)
    assert served.frame["by_visitor_status"].to_list() == ["late", "found"]
    assert served.frame["views"].to_list() == [1.0, 2.0]
    settled = join_features(asked, _rows(events, "settled"), MINE, how="settled")
    assert settled.frame["views"].to_list() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"who": ["ann"], "ts": [dt.datetime(2026, 1, 1)]}, "key column"),  # noqa: DTZ001
        ({"visitor": ["ann"]}, "column `ts`"),
        ({"visitor": ["ann"], "ts": [17]}, "as moments"),
        ({"visitor": ["a"], "views": [1], "ts": [dt.datetime(2026, 1, 1)]}, "named as"),  # noqa: DTZ001
    ],
)
def test_requests_that_cannot_be_joined_are_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        join_features(pl.DataFrame(asked), _rows(_shuffled(20, 1), "served"), MINE)


def test_lineage_reads_what_it_says_and_nothing_else() -> None:
    told = describe(MINE, "views_per_event")
    assert (told.owner, told.version, told.events) == ("search team", 3, ())
    for name in standard_features().names:
        columns = describe(standard_features(), name).columns
        assert set(columns) <= STRINGS | MEASURES | {"ts", "event"}
    with pytest.raises(FeatureError, match="viewz") as refused:
        describe(MINE, "viewz")
    assert "views" in (refused.value.hint or "")


def test_lineage_is_true_what_is_not_read_changes_nothing() -> None:
    events = _shuffled(200, 5)
    read = {column for name in MINE.names for column in describe(MINE, name).columns}
    free = [c for c in ("price", "page", "query", "country", "quantity") if c not in read]
    blanked = events.with_columns(pl.lit(None).cast(EVENT_SCHEMA[c]).alias(c) for c in free)
    assert free
    names = list(MINE.names)
    assert _rows(events, "served").select(names).equals(_rows(blanked, "served").select(names))


def test_the_owner_is_no_part_of_the_definition() -> None:
    assert FeatureSet("mine", 3, MINE.features).hash == MINE.hash
    assert FeatureSet("mine", 4, MINE.features).hash != MINE.hash


def test_the_standard_set_has_an_owner() -> None:
    assert describe(standard_features(), "session_adds").owner == "Recoup"


def test_skew_is_zero_where_rows_are_folded_again_and_seen_where_not() -> None:
    rows = _rows(_shuffled(200, 6), "served")
    same = measure_skew(rows, rows, MINE.names)
    assert (same.missing, same.extra, same.mismatch, same.by_feature) == (0.0, 0.0, 0.0, {})
    wrong = rows.with_columns(
        pl.when(pl.int_range(pl.len()) < 20).then(-1.0).otherwise("views").alias("views")
    )
    served = pl.concat([wrong[:150], wrong[:5].with_columns(id=pl.lit("x") + pl.col("id"))])
    found = measure_skew(served.drop("events_1h"), rows, MINE.names)
    assert found.missing == pytest.approx(50 / 200)
    assert found.extra == pytest.approx(5 / 155)
    assert found.by_feature == {"views": pytest.approx(20 / 150)}
    assert found.absent == ("events_1h",)
    with pytest.raises(SchemaError, match="one served row"):
        measure_skew(pl.concat([rows, rows]), rows, MINE.names)


def test_drift_is_small_by_chance_and_large_by_change() -> None:
    rng = np.random.default_rng(7)
    before = pl.DataFrame({"a": rng.normal(size=5000), "b": rng.normal(size=5000)})
    after = pl.DataFrame({"a": rng.normal(size=5000), "b": rng.normal(0.8, 1, size=5000)})
    after = after.with_columns(c=pl.lit(float("nan")))
    moved = measure_drift(before.with_columns(c=pl.lit(1.0)), after, ["a", "b", "c"])
    assert [each.feature for each in moved] == ["c", "b", "a"]
    psi = {each.feature: each.psi for each in moved}
    assert psi["a"] < 0.02
    assert psi["b"] > 0.25
    assert (moved[0].undefined_after, moved[0].mean_after) == (1.0, None)


def test_freshness_is_the_age_of_each_keys_newest_row() -> None:
    rows = _rows(_shuffled(200, 8), "served")
    now = int(rows["ts"].to_physical().cast(int).max() or 0) + 60_000_000  # type: ignore[arg-type]
    visitor = measure_freshness(rows, MINE, now)[0]
    ages = rows.group_by("visitor").agg(pl.col("ts").max())["ts"].to_physical().cast(int)
    assert visitor.keys == rows["visitor"].n_unique()
    assert visitor.newest_s == pytest.approx(60.0)
    assert visitor.median_s == pytest.approx((now - float(ages.median() or 0)) / 1e6)  # type: ignore[arg-type]


def test_one_keys_features_are_those_of_the_whole_log(tmp_path: Path) -> None:
    write_native([random_batch(400, seed=9)], tmp_path / "events.parquet")
    log = open_source(tmp_path / "events.parquet")
    whole = backfill(FeatureStore(MINE), [b.batch for b in log.batches()], how="served")
    visitor = whole["visitor"].mode()[0]
    newest = whole.filter(pl.col("visitor") == visitor).sort("ts")[-1]
    found = features_of(log, MINE, {"visitor": visitor})
    assert found.status == "found"
    assert found.as_of == newest["ts"][0]
    assert found.features["views"] == newest["views"][0]
    with pytest.raises(FeatureError, match="kind of key"):
        features_of(log, MINE, {"page": "/"})
    with pytest.raises(SchemaError, match="key of the log"):
        features_of(log, MINE, {"visitor": "nobody"})


def _plain(events: pl.DataFrame) -> pl.DataFrame:
    """Give events as a table of one's own: few columns, text names, moments without a zone."""
    kept = events.select("ts", "event", "visitor", "item", "price")
    return kept.with_columns(
        pl.col("event").cast(pl.String), pl.col("ts").dt.replace_time_zone(None)
    )


def test_rows_of_a_frame_are_those_of_the_log(tmp_path: Path) -> None:
    batch = random_batch(400, seed=9)
    write_native([batch], tmp_path / "events.parquet")
    log = open_source(tmp_path / "events.parquet")
    events = next(iter(log.batches())).batch.events
    rows, want = feature_rows(_plain(events), MINE), rows_of(log, MINE)
    names = ["ts", "arrived_at", "visitor", "item", *MINE.names]
    assert rows.select(names).equals(want.select(names))
    assert rows["id"].n_unique() == 400
    asked = pl.DataFrame({"visitor": [events["visitor"][0], "nobody"], "ts": events["ts"].max()})
    joined, again = join_features(asked, rows, MINE), join_features(asked, want, MINE)
    assert joined.frame.equals(again.frame)
    key = {"visitor": events["visitor"].mode()[0]}
    assert features_at(rows, MINE, key) == features_of(log, MINE, key)
    statuses = set()
    for moment in events["ts"].sort()[::40].to_list():
        found = features_at(rows, MINE, key, moment)
        assert found == features_of(log, MINE, key, at=moment)
        statuses.add(found.status)
    assert len(statuses) > 1
    assert measure_skew(rows, feature_rows(_plain(events), MINE), MINE.names).mismatch == 0.0


def test_late_events_of_a_frame_are_put_in_their_place() -> None:
    events = _plain(_shuffled(300, 4)).with_columns(id=pl.int_range(300).cast(pl.String))
    by_time = events.sort("ts", "id")
    bound = 7 * 86_400.0
    late = feature_rows(events, MINE, how="settled", lateness_s=bound).sort("ts", "id")
    order = feature_rows(by_time, MINE, lateness_s=bound)
    assert late.select("views", "events_1h").equals(order.select("views", "events_1h"))
    served = feature_rows(events, MINE, lateness_s=bound).sort("ts", "id")
    assert not served.select("views").equals(order.select("views"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"visitor": None}, "in every event, got null"),
        ({"event": pl.lit("looked")}, "names of the vocabulary"),
        ({"ts": pl.lit("2026-01-01")}, "as moments"),
        ({"price": pl.lit(1.5)}, "micro-units"),
        ({"who": pl.lit("x")}, "columns of the schema"),
    ],
)
def test_frames_that_are_no_events_are_refused(change: dict[str, pl.Expr], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        feature_rows(_plain(random_batch(20, seed=1).events).with_columns(**change), MINE)
    with pytest.raises(SchemaError, match="visitor missing"):
        feature_rows(_plain(random_batch(20, seed=1).events).drop("visitor"), MINE)


def test_an_event_that_came_late_was_not_known_before_it_came(tmp_path: Path) -> None:
    """Whatever else the log holds: when an event came is told by the whole log."""
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    half = dt.timedelta(minutes=30)
    drawn = random_batch(2, seed=1)
    events = drawn.events.with_columns(
        pl.Series("ts", [noon + 2 * half, noon + half], TIMESTAMP),
        pl.Series("visitor", ["bob", "ann"]),
    )
    write_native([EventBatch(events, drawn.items.clear())], tmp_path / "events.parquet")
    log = open_source(tmp_path / "events.parquet")
    assert features_of(log, MINE, {"visitor": "ann"}, at=noon + 1.5 * half).status == "not_yet"
    assert features_of(log, MINE, {"visitor": "ann"}, at=noon + 2 * half).status == "found"
    found = features_of(log, MINE, {"visitor": "ann"})
    assert (found.at, found.as_of) == (noon + 2 * half, noon + half)


def test_sets_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_features.py").write_text(
        "from recoup.features import FeatureSet, count\n"
        "chosen = FeatureSet('own', 2, (count('views', events=('view_item',)),), 'me')\n"
        "def make(): return chosen\n"
        "other = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_feature_set("shop_features:chosen").name == "own"
    assert load_feature_set("shop_features:make").owner == "me"
    for wrong in ("shop_features", "shop_features:absent", "shop_features:other", "absent:x"):
        with pytest.raises(ConfigError):
            load_feature_set(wrong)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "events.parquet"
    write_native([random_batch(300, seed=10)], log)
    events = next(iter(open_source(log).batches())).batch.events
    moments = events["ts"].dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    asked = pl.DataFrame({"customer": events["visitor"], "asked": moments})
    asked.write_csv(tmp_path / "asked.csv")

    def told(*arguments: str) -> dict[str, object]:
        monkeypatch.setattr("sys.argv", ["recoup", "features", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    assert told("list")["version"] == 1
    assert told("describe", "session_adds")["events"] == ["add_to_cart"]
    found = told("get", events["visitor"][0], str(log))
    assert found["status"] == "found"
    rows = tmp_path / "rows.parquet"
    told("backfill", str(log), "--out", str(rows))
    assert told("skew", str(rows), str(log))["mismatch"] == 0.0
    (tmp_path / "own_features.py").write_text(
        "from recoup.features import FeatureSet, count\n"
        "chosen = FeatureSet('own', 2, (count('n'),))\n"
    )
    monkeypatch.chdir(tmp_path)
    mine = ("--set", "own_features:chosen")
    assert (
        told("backfill", str(log), "--out", str(tmp_path / "own.parquet"), *mine)["features"] == 1
    )
    assert told("skew", str(tmp_path / "own.parquet"), str(log), *mine)["mismatch"] == 0.0
    assert len(told("health", str(log))["drift"]) == len(standard_features().names)  # type: ignore[arg-type]
    out = tmp_path / "joined.parquet"
    options = ("--key", "visitor=customer", "--ts", "asked", "--out", str(out))
    joined = told("join", str(tmp_path / "asked.csv"), str(log), *options)
    assert joined["rows"] == pl.read_parquet(out).height == 300
