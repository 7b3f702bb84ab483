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
from recoup.events import EventBatch, encode
from recoup.features import FeatureStore, standard_features
from recoup.friction import IntentModel
from recoup.friction.reasons import REASON_SCHEMA, Explainer, Explanation, Reason
from recoup.friction.signals import SignalDetector
from recoup.report.reasons import Reasons, tell_reasons
from recoup.runners.backfill import Progress, admitted
from recoup.sources import Source
from recoup.state import Journal

REASONS: Final = "reasons"
STRANGERS: Final = "strangers"
"""Kinds of the journal: reasons of shoppers' events, and sessions found to be no shopper's."""


class ReasonWatch:
    """Explains what an engine has just folded; it keeps nothing.

    Parameters
    ----------
    engine
        Its intent is explained where it is a trained model.
    """

    def __init__(self, engine: Engine) -> None:
        intent = engine.intent
        self._explainer = Explainer(intent) if isinstance(intent, IntentModel) else None

    def step(self, step: Step, /) -> dict[str, pl.DataFrame]:
        """Give the frames to journal, by kind."""
        if self._explainer is None:
            return {}
        moment = step.moment
        own = ~step.recognised.mask
        reasons = self._explainer.reasons(moment.batch, moment.rows, step.seen, own)
        left_out = sorted(step.recognised.sessions)
        strangers = pl.DataFrame({"session": left_out}, {"session": pl.Int64})
        return {REASONS: reasons, STRANGERS: strangers}


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
    """An event of a session, with its intent explained; see :class:`recoup.friction.reasons`."""

    ts: dt.datetime
    event: str
    page: str | None
    item: str | None
    intent: float
    unspoilt: float
    log_odds: float
    unspoilt_log_odds: float
    reasons: tuple[Reason, ...]


class ExplainedSession(msgspec.Struct, frozen=True):
    """A session: its key, as in ``features.parquet``, the log's own id, and its events."""

    session: int
    log_session: str | None
    visitor: str
    events: list[ExplainedEvent]


def explain_sessions(
    source: Source,
    model: IntentModel,
    *,
    visitor: str | None = None,
    session: str | None = None,
    progress: Progress | None = None,
) -> list[ExplainedSession]:
    """Explain every event of a visitor, or of one session, as a live shop would have seen it.

    The log is folded once; time grows with it.

    Parameters
    ----------
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
    store, detector, explainer = (
        FeatureStore(standard_features()), SignalDetector(), Explainer(model),
    )  # fmt: skip
    found: dict[int, ExplainedSession] = {}
    for batch in admitted(source, progress):
        rows = store.step(encode(batch, store.columns))
        seen = detector.step(batch, rows.session)
        wanted = _wanted(batch, rows.session, visitor, session)
        if not wanted.any():
            continue
        context, now = model.context_of(batch, seen), seen.now
        for at, event in zip(np.flatnonzero(wanted), _named(batch, wanted), strict=True):
            told = explainer.explain_one(
                rows.values[at], context[at], int(now[at]), int(seen.before[at])
            )
            key = int(rows.session[at])
            own = found.setdefault(
                key, ExplainedSession(key, event["session"], event["visitor"], [])
            )
            own.events.append(_explained(event, told))
    if not found:
        named = session if session is not None else visitor
        raise ConfigError(
            f"Expected events of `{named}` in the log, got none",
            hint="name a visitor as the log does, or a session of the log or of features.parquet",
        )
    return list(found.values())


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


def _explained(event: dict[str, Any], told: Explanation) -> ExplainedEvent:
    return msgspec.convert(
        {name: event[name] for name in ("ts", "event", "page", "item")} | msgspec.to_builtins(told),
        ExplainedEvent,
    )
