"""`tick_million`: what a tick costs with a million shoppers waiting, of whom some are due.

The peer asks at a tick how far each open wait has come, as one must where it is not known as a wait
begins when it will be too long. Ours also looks at each place of its table, and compares a number.
"""

import statistics
from collections.abc import Callable
from typing import Final

import numpy as np
import polars as pl

from benchmarks.harness import RUNS, cpu_seconds, report
from recoup.events import EVENT_SCHEMA, MICROS, EventBatch, conform, empty_frames
from recoup.friction.hesitation import Expected, HesitationModel, hesitation
from recoup.friction.hesitation_training import HesitationSettings, fit_hesitation
from recoup.friction.moment import Kept, Moment
from recoup.friction.signals import SIGNALS
from recoup.friction.waiting import Due, Waiting
from recoup.friction.waits import CONTEXT, LIMIT_S, WaitRows

SESSIONS: Final = 1_000_000
BATCH: Final = 50_000
START: Final = 1_700_000_000 * MICROS
TICK_S: Final = 10.0
LASTS_S: Final = 60.0
"""How long the million take to arrive."""
FLOOR_MS: Final = 100.0
"""A tick that nothing is due at takes at most this."""


def _model() -> HesitationModel:
    rng = np.random.default_rng(1)
    size = 2_000
    gone_on = rng.random(size) < 0.8
    wait = np.minimum(rng.lognormal(3.0, 0.6, size), LIMIT_S - 1)
    zeros = np.zeros(size, np.int64)
    rows = WaitRows(
        names=("x",),
        values=rng.integers(1, 4, (size, 1)).astype(np.float64),
        context=np.zeros((size, len(CONTEXT)), np.int64),
        wait_s=np.where(gone_on, wait, LIMIT_S),
        gone_on=gone_on,
        state=zeros,
        page=np.ones(size, bool),
        session=zeros,
        visitor=np.arange(size),
        ts=zeros,
        key=zeros,
    )
    return fit_hesitation(rows, "bench", HesitationSettings(rounds=5, spread_rounds=3, leaves=4))


def _arrivals(first: int, count: int) -> Moment:
    """Make sessions that open a page each, one after the other."""
    session = np.arange(first + 1, first + 1 + count)
    ts = START + (session * (LASTS_S * MICROS / SESSIONS)).astype(np.int64)
    texts = pl.Series(session).cast(pl.String)
    frame = pl.DataFrame({"ts": ts, "id": texts, "visitor": texts}).with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        source=pl.lit("bench"),
        event=pl.lit("page_view"),
    )
    batch = EventBatch(conform(frame, EVENT_SCHEMA), empty_frames()[1])
    none = np.zeros(count, np.int8)
    rows = Kept(np.full((count, 1), 2.0), session, ts, none)
    signals = np.zeros((count, len(SIGNALS)), np.bool_)
    return Moment(batch, rows, ("x",), np.full(count, 0.1), signals, none)


def main() -> None:
    """Let a million arrive, then tick while nothing is due, and while some are."""
    model = _model()
    waiting = Waiting(model)
    nobody = _arrivals(0, 0)
    none = np.zeros(0, np.int64)
    for first in range(0, SESSIONS, BATCH):
        waiting.step(_arrivals(first, BATCH), none)
    arrived = START + round(LASTS_S * MICROS)

    def tick(second: float) -> Due:
        return waiting.step(nobody, np.array([arrived + round(second * MICROS)])).due

    tick(0.0)
    told = len(tick(0.0))
    assert told == 0
    table = np.full(SESSIONS, 0.8), np.full(SESSIONS, 3.0), np.full(SESSIONS, 0.6)
    waits = Expected(*table, np.zeros(SESSIONS, np.int64))
    elapsed = np.linspace(1.0, LASTS_S, SESSIONS)

    def peer() -> None:
        assert 0.0 < hesitation(model.shapes, waits, elapsed).max() < 1.0

    idle = [(cpu_seconds(lambda: tick(0.0)), cpu_seconds(peer)) for _ in range(RUNS)]
    ours = statistics.median(a for a, _ in idle) * 1e3
    report(
        "tick_million",
        ours=ours,
        peer=statistics.median(b for _, b in idle) * 1e3,
        peer_name="hesitation of every open wait, numpy",
        ratio=statistics.median(b / a for a, b in idle),
        unit="ms/tick",
        floor=FLOOR_MS,
        reached=ours <= FLOOR_MS,
        sessions=SESSIONS,
        us_for_each_due=_each_due(tick, ours),
    )


def _each_due(tick: Callable[[float], Due], idle_ms: float) -> float:
    """Give what a wait that is due costs beyond the tick itself, in microseconds."""
    costs = []
    for k in range(1, 4):
        found: list[Due] = []

        def due(k: int = k, found: list[Due] = found) -> None:
            found.append(tick(TICK_S * k))

        seconds = cpu_seconds(due)
        if len(found[0]):
            costs.append((seconds * 1e6 - idle_ms * 1e3) / len(found[0]))
    return statistics.median(costs)


if __name__ == "__main__":
    main()
