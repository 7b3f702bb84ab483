"""The events that the feature benchmarks run on: a seeded two days of a shop's traffic."""

import numpy as np
from numpy.typing import NDArray

from recoup.events import CODE, UNKNOWN

Columns = dict[str, NDArray[np.generic]]

MINUTE = 60_000_000
KINDS = {
    "page_view": 0.35,
    "view_item": 0.35,
    "add_to_cart": 0.06,
    "remove_from_cart": 0.02,
    "view_search_results": 0.10,
    "begin_checkout": 0.02,
    "purchase": 0.01,
    "select_item": 0.09,
}


def workload(count: int, *, seed: int = 7) -> Columns:
    """Make ``count`` events in order of time: sessions of 9 on average, 21.5 events a visitor.

    The density is that of 2 M events of 93,000 visitors in 48 hours, whatever the count.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / 9, count // 6)
    sessions = len(lengths)
    visitors = rng.integers(-(1 << 62), 1 << 62, max(count * 93 // 2000, 1))
    span = 48 * 60 * MINUTE * count / 2e6
    begins = rng.uniform(0, span, sessions)
    session = np.repeat(np.arange(sessions), lengths)
    elapsed = np.cumsum(rng.exponential(45e6, len(session)))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ts = (begins[session] + elapsed - elapsed[first][session]).astype(np.int64)
    order = np.argsort(ts, kind="stable")[:count]
    owner = visitors[rng.integers(0, len(visitors), sessions)]
    return _fields(rng, ts[order], owner[session[order]])


def _fields(rng: np.random.Generator, ts: NDArray[np.int64], visitor: NDArray[np.int64]) -> Columns:
    count = len(ts)
    codes = np.array([CODE[name] for name in KINDS])
    event = rng.choice(codes, count, p=list(KINDS.values()))
    about_item = np.isin(event, [CODE[n] for n in ("view_item", "add_to_cart", "remove_from_cart")])
    items, pages = rng.integers(1, 1 << 62, 5000), rng.integers(1, 1 << 62, 300)
    item = np.where(about_item, items[np.minimum(rng.geometric(0.001, count), 4999)], 0)
    known = rng.random(count) < 0.7
    price = np.where(about_item, rng.integers(1, 20_000, count) * 10_000, UNKNOWN)
    zeros = np.zeros(count, np.int64)
    return {
        "ts": ts + 1_700_000_000_000_000,
        "seq": zeros,
        "key": rng.permutation(count) + 1,
        "event": event,
        "visitor": visitor,
        "session": zeros,
        "item": item,
        "page": pages[rng.integers(0, 300, count)],
        "latency_ms": np.where(known, rng.gamma(2.0, 120.0, count).round(3), np.nan),
        "price?": price,
    }


def delay(columns: Columns, share: float, *, seed: int = 11) -> Columns:
    """Give the events in an order of arrival in which a share comes up to 30 minutes late."""
    rng = np.random.default_rng(seed)
    ts = columns["ts"].astype(np.int64)
    late = (rng.random(len(ts)) < share) * rng.uniform(0, 30 * MINUTE, len(ts))
    order = np.argsort(ts + late, kind="stable")
    return {name: column[order] for name, column in columns.items()}


def cut(columns: Columns, size: int) -> list[Columns]:
    """Cut columns into batches."""
    count = len(columns["ts"])
    return [
        {name: column[at : at + size] for name, column in columns.items()}
        for at in range(0, count, size)
    ]
