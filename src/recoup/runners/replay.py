"""Replay: a log in; tables, a summary and a report out, with everything through the journal."""

import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import DECISION_SCHEMA, Defect, Finding
from recoup.defects.ranking import Ranking
from recoup.engine import NO_TICKS, Engine, Intent, Settings, Step
from recoup.errors import ConfigError, SnapshotError
from recoup.events import DEAD_LETTER_SCHEMA, TIMESTAMP, EventBatch
from recoup.friction import IntentModel
from recoup.friction.hesitation import HesitationModel
from recoup.friction.repeat import RepeatModel
from recoup.friction.waiting import HESITATION_SCHEMA
from recoup.intake import Intake
from recoup.non_shoppers import Recognised, Rules
from recoup.parts import gather, prefixed, under
from recoup.report import (
    DecisionTally,
    Journeys,
    Reasons,
    SessionTally,
    Steps,
    Summary,
    summarise,
    to_json,
    write_report,
)
from recoup.runners.customers import CUSTOMERS, Customers, OrderBook, write_customers
from recoup.runners.explaining import ReasonWatch, write_reasons
from recoup.runners.hesitation_watch import HesitationWatch
from recoup.runners.lifecycle import Loaded
from recoup.runners.local import LocalRunner, Totals
from recoup.runners.model_watch import ModelWatch
from recoup.runners.repeat import REPEAT
from recoup.runners.ticks import TICK_S
from recoup.sources import Source, SourceBatch, merge_findings, removed_of
from recoup.state import Changes
from recoup.stores import SqliteJournal

ROWS: Final = 8192
"""Events per batch: enough for throughput, few enough to bound memory."""

SNAPSHOT_BATCHES: Final = 16
JOURNAL: Final = "journal.db"
ROW_FILES: Final = "features"
_IDENTITY: Final = "replay"

Progress = Callable[[int], None]


def replay_source(  # noqa: PLR0913
    source: Source,
    out: Path,
    *,
    title: str,
    identity: str,
    intent: Intent | None = None,
    hesitation: HesitationModel | None = None,
    served: Mapping[str, Loaded] = MappingProxyType({}),
    repeat: RepeatModel | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Replay a log of the past, and write what was found.

    Parameters
    ----------
    source
        The log.
    out
        Directory for ``defects``, ``decisions``, ``features`` and ``dead_letters`` (Parquet),
        ``summary.json``, ``report.html`` and the journal; with a trained model of intent
        ``reasons`` as well. A run that was cut goes on there.
    title
        What the report calls the log.
    identity
        What the journal is of: the log, its mapping and its model. A directory keeps to one.
    intent
        A trained model; without one, intent is the rate of each funnel stage.
    hesitation
        A trained model; with one, shoppers who wait too long at a tick are decided on.
    served
        Name -> what a registry keeps of these models: inputs and calibration are then watched.
    repeat
        A trained model of repeat purchase; with one, ``customers`` says who is overdue.
    rules
        By which bots, monitors, staff and test orders are recognised; the built-in ones if None.
    progress
        Told the number of events processed so far.

    Raises
    ------
    ConfigError
        If ``out`` holds the replay of something else.
    SourceError, JournalError
        If the log cannot be read, or the journal not be written.
    """
    begun = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with SqliteJournal(out / JOURNAL) as journal:
        _claim(journal, identity, out)
        settings = Settings(executes=False, rules=rules or Rules())
        engine = Engine(settings, intent=intent, hesitation=hesitation)
        book = None if repeat is None else OrderBook()
        host = ReplayHost(engine, out / ROW_FILES, served=served, book=book, explains=True)
        runner = LocalRunner(
            host,
            journal,
            _Feed(source),
            intake=Intake(lateness_s=host.engine.settings.lateness_s),
            snapshot_batches=SNAPSHOT_BATCHES,
            tick_s=TICK_S,
        )
        for _ in runner.stream():
            if progress is not None:
                progress(runner.totals.events)
        totals, journeys = runner.totals, host.sessions.result()
        ranking = engine.ranking()
        findings = [*_journalled_findings(journal), *ranking.findings]
        _write_tables(out, journal, ranking.defects)
        customers = _customers(book, repeat, served.get(REPEAT), journeys, out / CUSTOMERS)
        summary = summary_of(
            host,
            totals,
            ranking,
            source=title,
            data_quality=findings,
            warnings=_warnings(totals.dead_letters, findings),
            privacy=removed_of(source),
            models=[*host.models.health(journeys, host.hesitating.result()), *customers.health],
            repeat=customers.repeat,
            reasons=_reasons(journal, out, intent),
            seconds=time.perf_counter() - begun,
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
    write_summary(summary, out)
    return summary


class ReplayHost:
    """The engine with what a replay counts beside it, as a runner hosts it.

    Parameters
    ----------
    engine
        In its first state.
    features
        Directory for the served feature rows, one file per batch; None writes none.
    served
        Name -> what a registry keeps of the engine's models: what they read is counted.
    book
        Keeps purchases; None keeps none.
    explains
        Whether reasons are journalled, where intent is a trained model.

    Attributes
    ----------
    recognised
        Who of the newest batch is no shopper.
    """

    def __init__(
        self,
        engine: Engine,
        features: Path | None,
        *,
        served: Mapping[str, Loaded] = MappingProxyType({}),
        book: OrderBook | None = None,
        explains: bool = False,
    ) -> None:
        self.engine = engine
        self.models = ModelWatch(served, engine.features.names)
        self.book = book
        self.features = features
        self.sessions = SessionTally(session_gap_s=engine.settings.session_gap_s)
        self.decisions = DecisionTally()
        self.hesitating = HesitationWatch(engine)
        self._explaining = ReasonWatch(engine) if explains else None
        self.recognised = Recognised(np.zeros(0, np.bool_))
        self._batches = 0
        if features is not None:
            _reopen(features)

    @property
    def ticking(self) -> bool:
        """Whether the engine reads ticks."""
        return self.engine.ticking

    def step(
        self, batch: EventBatch, /, ticks: NDArray[np.int64] = NO_TICKS
    ) -> Mapping[str, pl.DataFrame]:
        """Fold a batch; its feature rows are on disk before the journal has it: none is missing."""
        step = self.engine.step(batch, ticks)
        self.recognised = step.recognised
        self.decisions.step(step.decisions)
        seen = step.shoppers
        self.models.step(step)
        self.sessions.step(Steps(seen.batch.events, seen.rows.session, seen.stage, seen.intent))
        self.sessions.leave_out(step.recognised.sessions)
        self.hesitating.step(step)
        if self.book is not None:
            self.book.step(step)
        if self.features is not None:
            feature_frame(step).write_parquet(self.features / f"{self._batches:08}.parquet")
        self._batches += 1
        return {
            "decisions": step.decisions,
            "outcomes": step.outcomes,
            "hesitations": step.hesitations,
            **({} if self._explaining is None else self._explaining.step(step)),
        }

    def snapshot(self) -> dict[str, bytes]:
        """Give the whole state, in parts."""
        return {
            **self.engine.snapshot(),
            self.models.name: self.models.snapshot(),
            **({} if self.book is None else prefixed(self.book.name, self.book.snapshot())),
            self.sessions.name: self.sessions.snapshot(),
            **prefixed(self.hesitating.name, self.hesitating.snapshot()),
            **self._explained(),
            self.decisions.name: self.decisions.snapshot(),
            "replay": msgspec.msgpack.encode(self._batches),
        }

    def changes(self) -> Changes:
        """Give what changed since the last call, in parts."""
        own: dict[str, bytes | Changes] = {
            self.sessions.name: self.sessions.changes(),
            self.hesitating.name: self.hesitating.changes(),
            self.decisions.name: self.decisions.snapshot(),
            self.models.name: self.models.snapshot(),
            "replay": msgspec.msgpack.encode(self._batches),
        }
        if self.book is not None:
            own[self.book.name] = self.book.changes()
        own |= self._explained()
        engine, beside = self.engine.changes(), gather(own)
        return Changes(engine.saved | beside.saved, engine.dropped + beside.dropped)

    def _explained(self) -> dict[str, bytes]:
        explaining = self._explaining
        return {} if explaining is None else {explaining.name: explaining.snapshot()}

    def restore(self, parts: Mapping[str, bytes], /) -> None:
        """Take up the state that :meth:`snapshot` gave, or all calls of :meth:`changes`."""
        self.engine.restore(parts)
        try:
            if self.sessions.name in parts:
                self.sessions.restore(parts[self.sessions.name])
            else:
                self.sessions.restore_parts(under(self.sessions.name, parts))
            self.hesitating.restore_parts(under(self.hesitating.name, parts))
            self.decisions.restore(parts[self.decisions.name])
            self.models.restore(parts[self.models.name])
            if self.book is not None:
                self.book.restore_parts(under(self.book.name, parts))
            if self._explaining is not None:
                self._explaining.restore(parts[self._explaining.name])
            self._batches = msgspec.msgpack.decode(parts["replay"], type=int)
        except (KeyError, msgspec.MsgspecError) as error:
            raise SnapshotError(
                f"Expected the snapshot of a replay, got one without {error}"
            ) from error


def _customers(
    book: OrderBook | None,
    model: RepeatModel | None,
    served: Loaded | None,
    journeys: Journeys,
    path: Path,
) -> Customers:
    if book is None or model is None or journeys.period.until is None:
        return Customers()
    return write_customers(book.purchases(), model, journeys.period.until, path, served)


def _reasons(journal: SqliteJournal, out: Path, intent: Intent | None) -> Reasons | None:
    if not isinstance(intent, IntentModel):
        return None
    return write_reasons(journal, out / "reasons.parquet", intent.hash)


def summary_of(host: ReplayHost, totals: Totals, ranking: Ranking, **more: Any) -> Summary:  # noqa: ANN401
    """Put together what a host counted; ``more`` goes to :func:`recoup.report.summarise`."""
    carts = host.engine.carts()
    return summarise(
        events=totals.events,
        journeys=host.sessions.result(),
        decided=host.decisions.result(),
        defects=ranking.defects,
        duplicates=totals.duplicates,
        late_events=totals.late,
        dead_letters=totals.dead_letters,
        carts=carts.opened,
        abandoned_carts=carts.abandoned,
        waiting_carts=carts.waiting,
        abandonment_horizon_s=round(host.engine.settings.abandonment_s),
        non_shoppers=host.engine.non_shoppers.counts,
        hesitation=host.hesitating.result(),
        **more,
    )


def write_summary(summary: Summary, folder: Path) -> None:
    """Write ``summary.json`` and ``report.html``."""
    (folder / "summary.json").write_text(to_json(summary) + "\n", encoding="utf-8")
    write_report(summary, folder / "report.html")


def _reopen(features: Path) -> None:
    """Make the directory of row files; what an earlier run put together becomes its first one."""
    features.mkdir(parents=True, exist_ok=True)
    together = features.with_suffix(".parquet")
    if together.exists():
        together.rename(features / "0.parquet")


def feature_frame(step: Step) -> pl.DataFrame:
    """Give the served rows of a batch: who and when, intent, stage, and every feature."""
    moment = step.moment
    known = moment.batch.events.select("ts", "source", "id", "event", "visitor").with_columns(
        session=pl.Series(moment.rows.session),
        intent=pl.Series(moment.intent),
        stage=pl.Series(moment.stage),
    )
    values = pl.DataFrame(moment.rows.values, schema=list(moment.names), orient="row")
    return pl.concat([known, values], how="horizontal")


class _Feed:
    """A source as the runner reads it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name

    def batches(self, position: str | None, /) -> Iterator[SourceBatch]:
        return self._source.batches(position, rows=ROWS)


def _claim(journal: SqliteJournal, identity: str, out: Path) -> None:
    """Keep a directory to one log, mapping and model, so that no two runs mix."""
    held = journal.position(_IDENTITY)
    if held is None:
        with journal.transaction() as transaction:
            transaction.save_position(_IDENTITY, identity)
    elif held != identity:
        raise ConfigError(
            f"Expected `{out}` to hold a replay of {identity}, got one of {held}",
            hint="name another --out, or remove that directory",
        )


_TABLES: Final = {
    "decisions": DECISION_SCHEMA,
    "dead_letters": DEAD_LETTER_SCHEMA,
    "hesitations": HESITATION_SCHEMA,
}
"""Kinds of the journal that a replay also writes as tables."""


def _write_tables(out: Path, journal: SqliteJournal, defects: Sequence[Defect]) -> None:
    defect_frame(defects).write_parquet(out / "defects.parquet")
    for kind, schema in _TABLES.items():
        frames = [record.frame for record in journal.read(kind=kind)]
        table = pl.concat([pl.DataFrame(schema=schema), *frames])
        table.write_parquet(out / f"{kind}.parquet")
    features = out / ROW_FILES
    if any(features.iterdir()):
        pl.scan_parquet(features / "*.parquet").sink_parquet(out / "features.parquet")
    shutil.rmtree(features)


def defect_frame(defects: Sequence[Defect]) -> pl.DataFrame:
    """Give ranked defects as a table: one row each, intervals as three columns."""
    rows = [_defect_row(rank, defect) for rank, defect in enumerate(defects, start=1)]
    return pl.DataFrame(rows, schema=DEFECT_TABLE, orient="row")


DEFECT_TABLE: Final = pl.Schema(
    {
        "rank": pl.Int64(),
        "id": pl.String(),
        "type": pl.String(),
        "entity": pl.String(),
        "from": TIMESTAMP,
        "to": TIMESTAMP,
        "observed": pl.Float64(),
        "expected": pl.Float64(),
        "exposed": pl.Int64(),
        **{
            f"{measure}{end}": pl.Float64()
            for measure in ("lost_orders_per_hour", "lost_value_per_hour")
            for end in ("", "_low", "_high")
        },
        "confidence": pl.Float64(),
        "intervention": pl.String(),
        "intervention_confidence": pl.Float64(),
        "evidence": pl.String(),
    }
)
"""Columns of ``defects.parquet``; ``entity`` is a JSON object, attribute -> value."""


def _defect_row(rank: int, defect: Defect) -> tuple[object, ...]:
    orders, value, advice = (
        defect.lost_orders_per_hour,
        defect.lost_value_per_hour,
        defect.recommended,
    )
    return (
        rank,
        defect.id,
        defect.type,
        msgspec.json.encode(defect.entity, order="sorted").decode(),
        defect.since,
        defect.until,
        defect.observed,
        defect.expected,
        defect.exposed,
        *(orders.value, orders.low, orders.high),
        *(value.value, value.low, value.high),
        defect.confidence,
        None if advice is None else advice.intervention,
        None if advice is None else advice.confidence,
        defect.evidence,
    )


def _journalled_findings(journal: SqliteJournal) -> tuple[Finding, ...]:
    rows = (row for record in journal.read(kind="findings") for row in record.frame.iter_rows())
    return merge_findings(Finding(*row) for row in rows)


def _warnings(dead_letters: Mapping[str, int], findings: Sequence[Finding]) -> list[str]:
    lost = [f"Dead letters, {why}: {count:,}." for why, count in dead_letters.items()]
    return [*lost, *(finding.detail for finding in findings)]
