"""`replay`: a log through the whole flow, against River's rolling aggregates and its regression.

Both read the same simulated log. Ours does all that `recoup replay` does: intake, journal, the
standard features, intent, signals, evidence, decisions, tables and report. The peer does a part of
it, event by event: nine rolling aggregates a visitor, and an online logistic regression on them.
"""

import datetime as dt
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from river import linear_model, preprocessing, stats, utils

from benchmarks.harness import report
from recoup.runners.replay import replay_source
from recoup.simulator import load_scenario, write_simulation
from recoup.sources import open_source

VISITORS, DAYS, SEED = 40_000, 4.0, 5
PEER_EVENTS = 4_000
RUNS = 3
PERIODS = tuple(dt.timedelta(minutes=minutes) for minutes in (5, 30, 1440))
KINDS = ("view_item", "add_to_cart", "page_view")


def ours(log: Path, out: Path) -> tuple[float, int, float]:
    """Give CPU seconds, events and wall seconds of one replay."""
    cpu, wall = time.process_time(), time.perf_counter()
    summary = replay_source(open_source(log), out, title="shop", identity="shop")
    return time.process_time() - cpu, summary.events, time.perf_counter() - wall


class RiverShop:
    """The peer: rolling counts by visitor, and a regression that learns from each event."""

    def __init__(self) -> None:
        self.visitors: dict[str, dict[str, Any]] = {}
        self.model = preprocessing.StandardScaler() | linear_model.LogisticRegression()

    def fold(self, rows: list[tuple[dt.datetime, str, str]]) -> int:
        """Fold events and give how many were scored."""
        for ts, visitor, event in rows:
            row = self._row(ts, visitor, event)
            self.model.predict_proba_one(row)
            self.model.learn_one(row, event == "purchase")
        return len(rows)

    def _row(self, ts: dt.datetime, visitor: str, event: str) -> dict[str, float]:
        own = self.visitors.setdefault(visitor, {})
        for kind in KINDS:
            for period in PERIODS:
                name = f"{kind}_{period}"
                if name not in own:
                    own[name] = utils.TimeRolling(stats.Sum, period=period)
                own[name].update(float(event == kind), t=ts)
        return {name: rolling.get() for name, rolling in own.items()}


def main() -> None:
    """Run both in turn, and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder)
        write_simulation(
            shop, visitors=VISITORS, days=DAYS, seed=SEED, scenario=load_scenario("default")
        )
        log = shop / "events.parquet"
        head = pl.read_parquet(log, columns=["ts", "visitor", "event"]).head(PEER_EVENTS)
        rows = [(ts.replace(tzinfo=None), v, e) for ts, v, e in head.iter_rows()]
        ours(log, shop / "warm")
        rates, walls = [], []
        for run in range(RUNS):
            cpu, events, wall = ours(log, shop / f"out{run}")
            start = time.process_time()
            scored = RiverShop().fold(rows)
            rates.append((events / cpu, scored / (time.process_time() - start)))
            walls.append(events / wall)
        summary = json.loads((shop / "out0" / "summary.json").read_text(encoding="utf-8"))
        assert summary["events"] == pl.scan_parquet(log).select(pl.len()).collect().item()
    report(
        "replay",
        ours=statistics.median(a for a, _ in rates),
        peer=statistics.median(b for _, b in rates),
        peer_name="river_rolling_and_logistic_regression",
        ratio=statistics.median(a / b for a, b in rates),
        unit="events/cpu_s",
        runs=RUNS,
        events_per_wall_second=statistics.median(walls),
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


if __name__ == "__main__":
    main()
