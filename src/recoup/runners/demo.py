"""The demo: the whole loop, closed, on a simulated shop whose truth is known."""

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from recoup.causal import Lift
from recoup.causal.holdout import HoldoutComparison
from recoup.decisions import DECISION_SCHEMA, OUTCOME_SCHEMA, Defect
from recoup.engine import Engine, Settings
from recoup.events import MICROS, EventBatch, moment_of
from recoup.friction.hesitation_training import HesitationSettings
from recoup.friction.training import IntentSettings
from recoup.policies.version import Settings as PolicySettings
from recoup.report import (
    DemoState,
    DemoView,
    Hesitation,
    Made,
    Reasons,
)
from recoup.runners.explaining import write_reasons
from recoup.runners.hesitation import train_hesitation_on
from recoup.runners.local import LocalRunner, Processed
from recoup.runners.replay import ReplayHost, summary_of, write_summary
from recoup.runners.serving import Serving, load_serving
from recoup.runners.ticks import TICK_S
from recoup.runners.training import train_intent_on
from recoup.simulator import Shop, load_scenario
from recoup.sources.base import ROWS, SourceBatch, no_dead_letters
from recoup.stores import SqliteJournal

BATCH_S: Final = 60
"""Simulated seconds between two batches: how soon a decision reaches its shopper."""

MODELS: Final = "models"
"""Folder of the registry, with a card a model."""

HORIZON_S: Final = 4 * 3600.0
"""How long after a decision its outcome is counted, in simulated seconds."""

SHOWN_EVERY: Final = 10
"""Batches between two looks at the shop's totals."""

NEWEST: Final = 5
POLICY: Final = PolicySettings(holdout_share=0.2, random_share=0.1)
"""A larger holdout than a shop would keep, so that a short demo can measure against it."""

QUICK: Final = IntentSettings(
    rounds=(40, 80),
    origins=(0.7,),
    seeds=(1,),
    leaves=15,
    min_rows_in_leaf=100,
    linear_share=0.0,
    network_share=0.0,
)
"""Training in seconds: the demo's intent is good, not the best."""

QUICK_WAITS: Final = HesitationSettings(rounds=40, spread_rounds=20, leaves=15, folds=2)
"""Training in seconds, of how long shoppers wait."""


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo did and found.

    Parameters
    ----------
    seed, visitors, days
        What was simulated.
    events, sessions, orders, revenue, currency
        What happened; revenue in currency units.
    intent
        Measures of the model that was trained on a day a week before.
    decisions
        Action -> how many.
    hesitation
        Where and when shoppers hesitated.
    reasons
        Why they left, by what the model of intent sees.
    defects
        As ranked at the end.
    truth
        The defects that were switched on, with what they really cost.
    found, suspected
        Ids of the true defects that a ranked one names, by type and entity: those it holds for
        likelier than not, and the others.
    saved
        Net value against the permanent holdout, as measured.
    truly_saved
        The same in truth, for the whole run: only a simulator knows what would have been.
    seconds, events_per_second
        What the live part took.
    """

    seed: int
    visitors: int
    days: float
    events: int
    sessions: int
    orders: int
    revenue: float
    currency: str | None
    intent: dict[str, object]
    decisions: dict[str, int]
    hesitation: Hesitation
    reasons: Reasons
    defects: list[Defect]
    truth: list[dict[str, Any]]
    found: list[str]
    suspected: list[str]
    saved: Lift | None
    truly_saved: float
    seconds: float
    events_per_second: float


def run_demo(
    folder: Path,
    view: DemoView,
    *,
    visitors: int,
    days: float,
    seed: int,
    scenario: str = "default",
) -> DemoResult:
    """Train on a day without decisions, then run the shop with them, and compare with the truth.

    Parameters
    ----------
    folder
        Where the journal, ``reasons.parquet``, ``summary.json``, ``report.html`` and the registry
        of the models go.
    view
        Told what happens.
    visitors, days, seed, scenario
        The shop; see :class:`recoup.simulator.Shop`.

    Raises
    ------
    ConfigError
        If the shop is too small to learn from.
    """
    serving, measures = _warm_up(folder / MODELS, visitors, seed, scenario)
    shop = Shop(visitors=visitors, days=days, seed=seed, scenario=load_scenario(scenario))
    settings = Settings(executes=True, horizon_s=HORIZON_S, review_s=1800.0, policy=POLICY)
    engine = Engine(settings, intent=serving.intent, hesitation=serving.hesitation)
    host = ReplayHost(engine, None, served=serving.served, explains=True)
    begun = time.perf_counter()
    with SqliteJournal(folder / "demo.db") as journal:
        runner = LocalRunner(host, journal, _NoFeed(), snapshot_batches=240, tick_s=TICK_S)
        saved = _live(shop, runner, host, view, begun)
        reasons = write_reasons(journal, folder / "reasons.parquet", str(measures["model"]))
    seconds = time.perf_counter() - begun
    journeys, truth = host.sessions.result(), shop.truth()
    ranking = host.engine.ranking()
    defects = ranking.defects
    found = found_defects(truth["defects"], defects)
    named = found_defects(truth["defects"], defects, 0.0)
    summary = summary_of(
        host,
        runner.totals,
        ranking,
        source="A simulated shop",
        data_quality=ranking.findings,
        saved=saved,
        reasons=reasons,
        models=host.models.health(journeys, host.hesitating.result()),
        seconds=seconds,
    )
    write_summary(summary, folder)
    return DemoResult(
        seed=seed,
        visitors=visitors,
        days=days,
        events=runner.totals.events,
        sessions=journeys.sessions,
        orders=journeys.orders,
        revenue=journeys.revenue,
        currency=journeys.currency,
        intent=measures,
        decisions=host.decisions.result().by_action,
        hesitation=summary.hesitation,
        reasons=reasons,
        defects=defects,
        truth=truth["defects"],
        found=found,
        suspected=[name for name in named if name not in found],
        saved=saved,
        truly_saved=_truly_saved(truth["totals"]),
        seconds=seconds,
        events_per_second=runner.totals.events / seconds,
    )


def _truly_saved(totals: dict[str, float]) -> float:
    return totals["value"] - totals["value_without_acts"] - totals["cost_of_acts"]


def found_defects(
    truth: Sequence[dict[str, Any]], ranked: Sequence[Defect], above: float = 0.5
) -> list[str]:
    """Give the ids of the true defects that a ranked one of P(real) above a level names.

    It names one if it is of its type, or unexplained, and every attribute that the truth states
    and the ranked one has agrees, at least one of them.
    """
    sure = [defect for defect in ranked if defect.confidence > above]
    return [true["id"] for true in truth if any(_names(defect, true) for defect in sure)]


def _names(defect: Defect, true: dict[str, Any]) -> bool:
    if defect.type not in {true["type"], "unexplained_drop"}:
        return False
    shared = defect.entity.keys() & true["entity"].keys()
    return bool(shared) and all(defect.entity[key] == true["entity"][key] for key in shared)


def _warm_up(
    registry: Path, visitors: int, seed: int, scenario: str
) -> tuple[Serving, dict[str, object]]:
    """Train on a shop of the same kind, a day a week before in which nothing is decided."""
    found = load_scenario(scenario)
    begin = dt.datetime.fromisoformat(found.start) - dt.timedelta(days=7)
    before = msgspec.structs.replace(found, start=begin.isoformat())
    shop = Shop(visitors=visitors, days=1.0, seed=seed + 1, scenario=before)
    day = _Day([shop.step(until, None) for until in _moments(shop, 3600)])
    measures = train_intent_on(day, registry, settings=QUICK)
    train_hesitation_on(day, registry, settings=QUICK_WAITS)
    return load_serving(registry), measures


def _moments(shop: Shop, every_s: int) -> Iterator[int]:
    until = shop.now
    while not shop.done:
        until += every_s * MICROS
        yield until


def _live(
    shop: Shop, runner: LocalRunner, host: ReplayHost, view: DemoView, begun: float
) -> Lift | None:
    """Let decisions and events answer each other, batch by batch."""
    compared, decisions = HoldoutComparison(), None
    newest: list[Made] = []
    for number, until in enumerate(_moments(shop, BATCH_S)):
        batch = shop.step(until, decisions)
        arrival = SourceBatch(batch, no_dead_letters(), (), str(until))
        processed = runner.process(arrival)
        decisions = processed.frames.get("decisions")
        compared.step(*_consequences(processed))
        compared.leave_out(host.recognised.visitors)
        newest = [*newest, *_made(decisions)][-NEWEST:]
        if number % SHOWN_EVERY == 0:
            rate = runner.totals.events / max(time.perf_counter() - begun, 1e-9)
            view.update(_state(shop, runner, host, tuple(newest), compared.lift(), rate))
    return compared.lift()


def _consequences(processed: Processed) -> tuple[pl.DataFrame, pl.DataFrame]:
    frames = processed.frames
    return (
        frames.get("decisions", pl.DataFrame(schema=DECISION_SCHEMA)),
        frames.get("outcomes", pl.DataFrame(schema=OUTCOME_SCHEMA)),
    )


def _made(decisions: pl.DataFrame | None) -> list[Made]:
    if decisions is None:
        return []
    fields = ("ts", "visitor", "reason", "action", "intent", "propensity", "slice")
    return [Made(*row) for row in decisions.tail(NEWEST).select(fields).iter_rows()]


def _state(
    shop: Shop,
    runner: LocalRunner,
    host: ReplayHost,
    newest: tuple[Made, ...],
    saved: Lift | None,
    rate: float,
) -> DemoState:
    journeys, carts = host.sessions.totals(), host.engine.carts()
    return DemoState(
        begin=moment_of(shop.begin),
        end=moment_of(shop.end),
        now=moment_of(shop.now),
        events=runner.totals.events,
        events_per_second=rate,
        sessions=journeys.sessions,
        orders=journeys.orders,
        revenue=journeys.revenue,
        currency=journeys.currency,
        decisions=host.decisions.result().total,
        last=newest,
        defects=host.engine.reviewed,
        saved=saved,
        carts=carts.opened,
        abandoned=sum(carts.abandoned.values()),
    )


class _Day:
    """Events of a day as a log that models are trained on."""

    name = "a simulated day"

    def __init__(self, parts: Sequence[EventBatch]) -> None:
        self._parts = parts

    def batches(self, after: str | None = None, *, rows: int = ROWS) -> Iterator[SourceBatch]:
        """Give the day's events from its beginning, in its own parts."""
        del after, rows
        for number, part in enumerate(self._parts):
            yield SourceBatch(part, no_dead_letters(), (), str(number))

    def size_hint(self) -> int:
        """Count the events."""
        return sum(len(part) for part in self._parts)


class _NoFeed:
    """The demo's batches come from a shop that answers decisions, so nothing is read ahead."""

    name = "demo"

    def batches(self, _position: str | None, /) -> Iterator[SourceBatch]:
        return iter(())
