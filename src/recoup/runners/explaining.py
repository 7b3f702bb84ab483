"""Why intent is low: reasons beside a replay, and the moments of one shopper explained."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.engine import Engine, Step
from recoup.errors import ConfigError
from recoup.events import EPOCH, MICROS, EventBatch, encode, take
from recoup.features import FeatureRows, FeatureStore, standard_features
from recoup.friction import IntentModel
from recoup.friction.explained import JourneyDetector
from recoup.friction.hesitation import HesitationModel
from recoup.friction.moment import Kept, Moment
from recoup.friction.reasons import REASON_SCHEMA, Explainer, Explanation, Reason
from recoup.friction.signals import Detected
from recoup.friction.wait_reasons import WaitReasons
from recoup.friction.waiting import Due, Waiting
from recoup.report.reasons import Reasons, tell_reasons
from recoup.runners.backfill import Progress, admitted
from recoup.runners.ticks import ticks_among
from recoup.sources import Source
from recoup.state import Journal

REASONS: Final = "reasons"
STRANGERS: Final = "strangers"
"""Kinds of the journal: reasons of shoppers' events, and sessions found to be no shopper's."""


class ReasonWatch:
    """Explains what an engine has just folded: events that show signals, and waits too long.

    Parameters
    ----------
    engine
        Its intent is explained where it is a trained model.
    """

    name = "reasons"

    def __init__(self, engine: Engine) -> None:
        intent = engine.intent
        self._explainer = Explainer(intent) if isinstance(intent, IntentModel) else None
        self._waits = None if self._explainer is None else WaitReasons(self._explainer)

    def step(self, step: Step, /) -> dict[str, pl.DataFrame]:
        """Give the frames to journal, by kind."""
        if self._explainer is None or self._waits is None:
            return {}
        moment = step.moment
        own = ~step.recognised.mask
        reasons = self._explainer.reasons(moment.batch, moment.rows, step.seen, own)
        self._waits.leave_out(step.recognised.sessions)
        if step.waited is not None:
            now, before = step.seen.now[own], step.seen.before[own]
            waits = self._waits.step(step.shoppers, now, before, step.waited.due)
            reasons = pl.concat([reasons, waits])
        left_out = sorted(step.recognised.sessions)
        strangers = pl.DataFrame({"session": left_out}, {"session": pl.Int64})
        return {REASONS: reasons, STRANGERS: strangers}

    def snapshot(self) -> bytes:
        """Give what is remembered of the sessions, as versioned bytes."""
        return b"" if self._waits is None else self._waits.snapshot()

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave."""
        if self._waits is not None:
            self._waits.restore(state)


def write_reasons(journal: Journal, out: Path, model: str) -> Reasons:
    """Write the reasons of a journal as a table, without strangers', and sum them."""
    frames = [record.frame for record in journal.read(kind=REASONS)]
    strangers = [record.frame for record in journal.read(kind=STRANGERS)]
    table = pl.concat([pl.DataFrame(schema=REASON_SCHEMA), *frames])
    if strangers:
        table = table.join(pl.concat(strangers), on="session", how="anti", maintain_order="left")
    table.write_parquet(out)
    return tell_reasons(table, model)


class ExplainedEvent(msgspec.Struct, frozen=True):
    """A moment of a session, with its intent explained; see :class:`recoup.friction.reasons`.

    ``waited_s`` is None at an event. Where a wait has become too long it is for how many seconds it
    has lasted, and the rest is of the event that came before.
    """

    ts: dt.datetime
    event: str
    page: str | None
    item: str | None
    intent: float
    unspoilt: float
    log_odds: float
    unspoilt_log_odds: float
    reasons: tuple[Reason, ...]
    waited_s: float | None = None


class ExplainedSession(msgspec.Struct, frozen=True):
    """A session: its key, as in ``features.parquet``, the log's own id, and its moments."""

    session: int
    log_session: str | None
    visitor: str
    events: list[ExplainedEvent]


def explain_sessions(
    source: Source,
    model: IntentModel,
    *,
    hesitation: HesitationModel | None = None,
    visitor: str | None = None,
    session: str | None = None,
    progress: Progress | None = None,
) -> list[ExplainedSession]:
    """Explain every event of a visitor, or of one session, as a live shop would have seen it.

    The log is folded once; time grows with it.

    Parameters
    ----------
    hesitation
        With a model, ready for the standard features, waits that became too long are explained too.
    visitor
        As in the log.
    session
        The log's own id, or the key in ``features.parquet``.

    Raises
    ------
    ConfigError
        If neither is named, or the log has no such event.
    """
    if visitor is None and session is None:
        raise ConfigError("Expected a visitor or a session to explain, got neither")
    store, detector = FeatureStore(standard_features()), JourneyDetector()
    telling = _Telling(model, hesitation)
    for batch in admitted(source, progress):
        rows = store.step(encode(batch, store.columns))
        seen = detector.step(batch, rows.session)
        telling.step(batch, rows, seen, _wanted(batch, rows.session, visitor, session))
    if not telling.found:
        named = session if session is not None else visitor
        raise ConfigError(
            f"Expected events of `{named}` in the log, got none",
            hint="name a visitor as the log does, or a session of the log or of features.parquet",
        )
    return list(telling.found.values())


class _Telling:
    """Explains chosen events, and the waits between them, in the order of time."""

    def __init__(self, model: IntentModel, hesitation: HesitationModel | None) -> None:
        self.found: dict[int, ExplainedSession] = {}
        self._model, self._explainer = model, Explainer(model)
        self._waiting = None if hesitation is None else Waiting(hesitation)
        self._watermark: int | None = None
        self._latest: dict[int, tuple[dict[str, Any], int, int]] = {}

    def step(
        self, batch: EventBatch, rows: FeatureRows, seen: Detected, wanted: NDArray[np.bool_]
    ) -> None:
        at = np.flatnonzero(wanted)
        bits = seen.now[at], seen.before[at]
        context = self._model.context_of(batch, seen)[at] if len(at) else np.zeros((0, 0), np.int64)
        told = [
            self._explainer.explain_one(rows.values[row], own, int(now), int(before))
            for row, own, now, before in zip(at, context, *bits, strict=True)
        ]
        intent = np.array([each.intent for each in told])
        kept = Kept(*(getattr(rows, name)[at] for name in Kept.__struct_fields__))
        shown = seen.signals[at], seen.stage[at]
        due = self._due(batch, Moment(take(batch, at), kept, _STANDARD, intent, *shown))
        waits = 0
        for k, event in enumerate(_named(batch, wanted)):
            waits = self._tell_waits(due, waits, k)
            key = int(rows.session[at[k]])
            self._latest[key] = event, int(bits[0][k]), int(bits[1][k])
            fresh = ExplainedSession(key, event["session"], event["visitor"], [])
            self.found.setdefault(key, fresh).events.append(_explained(event, told[k]))
        self._tell_waits(due, waits, len(at))

    def _due(self, batch: EventBatch, moment: Moment) -> Due | None:
        """Give the waits of chosen sessions that became too long while the batch came."""
        ts = batch.column("ts").astype(np.int64)
        ticks = ticks_among(ts, self._watermark)
        self._watermark = int(max(ts.max(initial=0), self._watermark or 0))
        if self._waiting is None:
            return None
        return self._waiting.step(moment, ticks).due

    def _tell_waits(self, due: Due | None, waits: int, row: int) -> int:
        """Tell those before a row, from a position on, and give the next position."""
        while due is not None and waits < len(due) and due.row[waits] <= row:
            key = int(due.session[waits])
            if due.look[waits] == 0 and key in self._latest:
                event, now, before = self._latest[key]
                told = self._explainer.explain_wait(
                    float(due.intent[waits]), now, before, float(due.loss[waits])
                )
                waited_us = int(due.ts[waits] - due.since[waits])
                when = EPOCH + dt.timedelta(microseconds=int(due.ts[waits]))
                moment = _explained(event | {"ts": when}, told, waited_us / MICROS)
                self.found[key].events.append(moment)
            waits += 1
        return waits


def _wanted(
    batch: EventBatch, keys: NDArray[Any], visitor: str | None, session: str | None
) -> NDArray[Any]:
    events = batch.events
    wanted = np.ones(len(batch), np.bool_)
    if visitor is not None:
        wanted &= (events["visitor"] == visitor).fill_null(value=False).to_numpy()
    if session is not None:
        own = (events["session"] == session).fill_null(value=False).to_numpy()
        key = int(session) if session.lstrip("-").isdigit() else None
        wanted &= own | (keys == key if key is not None else np.zeros(len(batch), np.bool_))
    return wanted


def _named(batch: EventBatch, wanted: NDArray[Any]) -> Iterator[dict[str, Any]]:
    columns = ("ts", "event", "page", "item", "session", "visitor")
    return batch.events.filter(pl.Series(wanted)).select(columns).iter_rows(named=True)


def _explained(
    event: dict[str, Any], told: Explanation, waited_s: float | None = None
) -> ExplainedEvent:
    named = {name: event[name] for name in ("ts", "event", "page", "item")}
    moment = named | msgspec.to_builtins(told) | {"waited_s": waited_s}
    return msgspec.convert(moment, ExplainedEvent)


_STANDARD: Final = standard_features().names
