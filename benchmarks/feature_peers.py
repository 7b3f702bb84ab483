"""What the feature benchmarks compare with: dicts and deques, Polars, River."""

import math
from collections import Counter, deque
from typing import Any

import polars as pl
from river import stats, utils

from benchmarks.feature_workload import Columns
from recoup.events import CODE, UNKNOWN

MINUTE = 60_000_000
LENGTHS = {"5m": 5 * MINUTE, "30m": 30 * MINUTE, "24h": 24 * 60 * MINUTE}
VIEW, ADD, PAGE = CODE["view_item"], CODE["add_to_cart"], CODE["page_view"]
SEARCH = CODE["view_search_results"]
COUNTED = (("5m", VIEW), ("30m", VIEW), ("24h", VIEW), ("5m", ADD), ("30m", ADD), ("24h", ADD),
           ("5m", PAGE), ("30m", PAGE))  # fmt: skip


class DictDeque:
    """The small set in pure Python, as one would write it by hand; integers keep it exact."""

    def __init__(self) -> None:
        self.visitors: dict[int, dict[str, Any]] = {}

    def fold(self, events: list[tuple[Any, ...]]) -> list[tuple[float, ...]]:
        """Give a row for each (ts, visitor, event, item, latency, price)."""
        return [self.fold_one(*event) for event in events]

    def fold_one(
        self, ts: int, visitor: int, event: int, item: int, latency: float, price: int
    ) -> tuple[float, ...]:
        """Fold one event."""
        state = self.visitors.get(visitor)
        if state is None:
            state = {name: (deque(), [0] * 64) for name in LENGTHS}
            state |= {"last": None, "sum": 0, "n": 0, "items": Counter(), "price": 0}
            self.visitors[visitor] = state
        entry = (ts, event, item, UNKNOWN if math.isnan(latency) else round(latency * 1e6), price)
        for name, length in LENGTHS.items():
            self._slide(state, name, entry, ts - length)
        last, state["last"] = state["last"], ts
        fresh = last is None or last <= ts - LENGTHS["24h"]
        return (
            *(state[window][1][kind] for window, kind in COUNTED),
            math.nan if fresh else (ts - last) / 1e6,
            state["sum"] / state["n"] / 1e6 if state["n"] else math.nan,
            len(state["items"]),
            state["price"] / 1e6,
        )

    def _slide(self, state: dict[str, Any], name: str, entry: tuple[int, ...], edge: int) -> None:
        window, counts = state[name]
        while window and window[0][0] <= edge:
            old = window.popleft()
            counts[old[1]] -= 1
            self._change(state, name, old, -1)
        window.append(entry)
        counts[entry[1]] += 1
        self._change(state, name, entry, 1)

    def _change(self, state: dict[str, Any], name: str, entry: tuple[int, ...], by: int) -> None:
        _, event, item, latency, price = entry
        if name == "30m" and latency != UNKNOWN:
            state["sum"] += by * latency
            state["n"] += by
        elif name == "24h":
            if item:
                state["items"][item] += by
                if not state["items"][item]:
                    del state["items"][item]
            if event == ADD and price != UNKNOWN:
                state["price"] += by * price


def tuples(columns: Columns) -> list[tuple[Any, ...]]:
    """Give the events as the pure-Python peers take them."""
    names = ("ts", "visitor", "event", "item", "latency_ms", "price?")
    return list(zip(*(columns[name].tolist() for name in names), strict=True))


class RiverRolling:
    """The small set with River's time-rolling aggregates; its distinct count has no such form."""

    def __init__(self) -> None:
        self.visitors: dict[int, list[Any]] = {}

    def fold(self, events: list[tuple[Any, ...]]) -> list[tuple[float, ...]]:
        """Give a row for each event, without distinct items."""
        import datetime as dt  # noqa: PLC0415

        start = dt.datetime(2023, 1, 1)  # noqa: DTZ001 - River takes no time zone
        lengths = [dt.timedelta(microseconds=LENGTHS[window]) for window, _ in COUNTED]
        rows = []
        for ts, visitor, event, _, latency, price in events:
            now = start + dt.timedelta(microseconds=ts - 1_700_000_000_000_000)
            state = self.visitors.get(visitor)
            if state is None:
                state = [utils.TimeRolling(stats.Sum(), period=length) for length in lengths]
                state.append(utils.TimeRolling(stats.Mean(), period=dt.timedelta(minutes=30)))
                state.append(utils.TimeRolling(stats.Sum(), period=dt.timedelta(hours=24)))
                state.append(None)
                self.visitors[visitor] = state
            for (_, kind), rolling in zip(COUNTED, state, strict=False):
                rolling.update(float(event == kind), t=now)
            if not math.isnan(latency):
                state[8].update(latency, t=now)
            state[9].update(price / 1e6 if event == ADD and price != UNKNOWN else 0.0, t=now)
            last, state[10] = state[10], ts
            since = math.nan if last is None else (ts - last) / 1e6
            rows.append((*(r.get() for r in state[:8]), since, state[8].get(), state[9].get()))
        return rows


def frame(columns: Columns) -> pl.DataFrame:
    """Give the columns as Polars takes them, in order of arrival."""
    data = pl.DataFrame({name: column for name, column in columns.items() if name != "session"})
    return data.with_columns(
        pl.col("ts").cast(pl.Datetime("us")),
        pl.when(pl.col("item") != 0).then("item").alias("item"),
        pl.when(pl.col("price?") != UNKNOWN).then("price?").alias("price"),
        pl.col("latency_ms").fill_nan(None).mul(1e6).round().cast(pl.Int64).alias("latency"),
    )


def _count(kind: int, name: str) -> pl.Expr:
    return (pl.col("event") == kind).sum().alias(name)


def _since(name: str, kind: int | None = None) -> pl.Expr:
    """Seconds since the event before (of a kind), within 24 hours, by visitor."""
    when = pl.col("ts") if kind is None else pl.when(pl.col("event") == kind).then("ts")
    before = when.forward_fill().shift(1) if kind is not None else when.shift(1)
    gap = (pl.col("ts") - before).over("visitor").dt.total_microseconds()
    return pl.when(gap < LENGTHS["24h"]).then(gap / 1e6).alias(name)


def polars_12(data: pl.DataFrame) -> pl.DataFrame:
    """Compute the small set, sorted by time, in the order of arrival's rows."""
    ordered = data.with_row_index("row").sort("ts", "key")
    parts: dict[str, list[pl.Expr]] = {window: [] for window in LENGTHS}
    for window, kind in COUNTED:
        parts[window].append(_count(kind, f"{kind}_{window}"))
    parts["30m"].append((pl.col("latency").sum() / pl.col("latency").count() / 1e6).alias("lat"))
    parts["24h"] += [
        pl.col("item").drop_nulls().n_unique().alias("items"),
        pl.col("price").filter(pl.col("event") == ADD).sum().truediv(1e6).alias("spent"),
    ]
    names = [f"{kind}_{w}" for w, kind in COUNTED]
    return _roll(ordered, parts, [_since("since")], [*names, "since", "lat", "items", "spent"])


def polars_40(data: pl.DataFrame) -> pl.DataFrame:
    """Compute the large set."""
    ordered = data.with_row_index("row").sort("ts", "key")
    kinds = [PAGE, VIEW, ADD, CODE["remove_from_cart"], SEARCH, CODE["begin_checkout"]]
    parts: dict[str, list[pl.Expr]] = {}
    for window in LENGTHS:
        parts[window] = [
            *(_count(kind, f"{kind}_{window}") for kind in kinds),
            pl.col("price").filter(pl.col("event") == ADD).sum().truediv(1e6).alias(f"p_{window}"),
            (pl.col("latency").sum() / pl.col("latency").count() / 1e6).alias(f"l_{window}"),
            pl.col("item").drop_nulls().n_unique().alias(f"items_{window}"),
        ]
    mean_price = pl.col("price").sum() / pl.col("price").count() / 1e6
    parts["30m"] += [
        pl.col("page").n_unique().alias("pages_30m"),
        mean_price.alias("mean_30m"),
        pl.len().truediv(0.5).alias("rate"),
    ]
    parts["24h"] += [
        pl.col("page").n_unique().alias("pages_24h"),
        pl.col("price").max().truediv(1e6).alias("max"),
        pl.col("price").min().truediv(1e6).alias("min"),
        mean_price.alias("mean_24h"),
        pl.col("latency").drop_nulls().last().truediv(1e6).alias("last"),
    ]
    since = [_since("since"), *(_since(f"since_{kind}", kind) for kind in (VIEW, ADD, SEARCH))]
    names = [
        *(f"{kind}_{w}" for kind in kinds for w in LENGTHS),
        *(f"{what}_{w}" for what in ("p", "l", "items") for w in LENGTHS),
        "pages_30m", "pages_24h", "max", "min", "mean_30m", "mean_24h",
        "since", f"since_{VIEW}", f"since_{ADD}", f"since_{SEARCH}", "last", "rate",
    ]  # fmt: skip
    ratio = (pl.col(f"{ADD}_24h") / pl.col(f"{VIEW}_24h")).alias("ratio")
    rows = _roll(ordered, parts, since, names)
    return rows.with_columns(pl.when(pl.col(f"{VIEW}_24h") > 0).then(ratio).alias("ratio"))


def _roll(
    ordered: pl.DataFrame,
    parts: dict[str, list[pl.Expr]],
    since: list[pl.Expr],
    names: list[str],
) -> pl.DataFrame:
    """Roll each window by visitor; rows come out grouped by visitor, in order of time."""
    grouped = ordered.sort("visitor", maintain_order=True)
    rolled = [grouped.select("row", *since)]
    for window, expressions in parts.items():
        result = grouped.rolling("ts", period=window, group_by="visitor").agg(expressions)
        rolled.append(result.drop("visitor", "ts"))
    return pl.concat(rolled, how="horizontal").sort("row").select(names)
