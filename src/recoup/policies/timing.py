"""Act, wait or never, by expected net value, with the exact propensity of what was drawn."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.decisions import DECISION_SCHEMA, NEVER, Action, Defect
from recoup.errors import SnapshotError
from recoup.events import ENTITY_LABELS, EVENT_SCHEMA, TIMESTAMP, encode, hash64, hash_column
from recoup.friction.memory import Memory
from recoup.friction.moment import Moment
from recoup.friction.waiting import Due
from recoup.interventions import HESITATES, INTERVENTIONS, UNEXPLAINED, Limits
from recoup.models.addresses import Located
from recoup.parts import gather, under
from recoup.policies.core import (
    EVENT,
    KEY,
    NUMBERS,
    SESSION,
    SESSION_WIDTH,
    STAGE,
    STATUS,
    TS,
    VISITOR,
    VISITOR_WIDTH,
    Constants,
    Outputs,
    Stores,
    decide_events,
    decide_located,
)  # fmt: skip
from recoup.policies.slices import SLICES, combine
from recoup.policies.value import OPTIONS, WAITS_S, Tables
from recoup.policies.version import REASONS, Beliefs, Settings
from recoup.state import Changes

COLUMNS: Final = ("ts", "key", "event", "visitor", "value", "price", "quantity")
"""Event columns that the policy reads, in the kernel's order; watched defects name others."""

LABELS: Final = (
    NEVER,
    *(Action("wait", wait_s=seconds).label for seconds in WAITS_S),
    *(Action("act", each.id).label for each in INTERVENTIONS),
)
_IDLE_US: Final = 2 * 86_400_000_000
_FORMAT: Final = b"recoup.policy/2"
_UNEXPLAINED: Final = REASONS.index(UNEXPLAINED)
_HESITATES: Final = REASONS.index(HESITATES)
_NO_EVENT: Final = -1


class Watched(msgspec.Struct, frozen=True):
    """A confirmed, open defect that opens decision points: where it applies, and what it costs."""

    where: tuple[tuple[str, str], ...]
    reason: int
    loss: float


class Drawn(msgspec.Struct, frozen=True):
    """Decisions of a batch as arrays: d decisions, each with up to OPTIONS options.

    Parameters
    ----------
    whole
        Event's row, number of options, chosen option, id, slice, reason: int64 (d, 6).
    codes, odds, values
        Each option's code, propensity and net value in micro-units, (d, OPTIONS).
    """

    whole: NDArray[np.int64]
    codes: NDArray[np.int64]
    odds: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        """Count the decisions."""
        return len(self.whole)


class _Faced(msgspec.Struct, frozen=True):
    """Whom the policy faces, row by row: events, and waits that ticks have told."""

    ts: pl.Series
    visitor: pl.Series
    session: NDArray[np.int64]
    event: NDArray[np.generic]
    intent: NDArray[np.float64]

    def at(self, rows: NDArray[np.int64]) -> "_Faced":
        """Pick rows, in any order."""
        series = (self.ts.gather(rows), self.visitor.gather(rows))
        return _Faced(*series, self.session[rows], self.event[rows], self.intent[rows])

    def with_waits(self, due: Due) -> "_Faced":
        """Put waits behind the events."""
        return _Faced(
            pl.concat([self.ts, pl.Series(due.ts).cast(TIMESTAMP)]),
            pl.concat([self.visitor, due.visitor]),
            np.append(self.session, due.session),
            np.append(self.event, due.event),
            np.append(self.intent, due.intent),
        )


class ExpectedNetValue:
    """A policy that takes the option of highest expected net value, and explores a little.

    A decision point is an event that shows a signal, or that lies on a watched defect's entity, or
    the first one after a wait has passed, or a tick at which a shopper has waited too long; in a
    session that has not bought, and only where some intervention is eligible. What it believes is
    frozen until :meth:`adopt` is called.

    Parameters
    ----------
    settings
        Margin, floor of exploration, shares of the slices, seed.
    executes
        Whether its decisions reach shoppers; False on a foreign log.
    model
        Hash of the intent model's artefact.

    Examples
    --------
    >>> policy = ExpectedNetValue(executes=False)
    >>> round(float(policy.beliefs.recovered[0, REASONS.index("K5")]), 2)
    0.35
    """

    name = "policy"

    def __init__(
        self, settings: Settings | None = None, *, executes: bool = True, model: str = ""
    ) -> None:
        self.settings = settings or Settings()
        self.executes = executes
        self.model = model
        self.beliefs = Beliefs.prior(self.settings.order_value)
        self.watched: tuple[Watched, ...] = ()
        self._limits = Limits()
        self._located: Located | None = None
        self._freeze()
        self._sessions = Memory(SESSION_WIDTH)
        self._visitors = Memory(VISITOR_WIDTH)

    def adopt(self, beliefs: Beliefs) -> None:
        """Take up what was learned; from the next batch on."""
        self.beliefs = beliefs
        self._freeze()

    def watch(self, defects: Sequence[Defect]) -> None:
        """Open decision points on the entities of confirmed, open defects."""
        sure = [each for each in defects if self._is_worth_watching(each)]
        self.watched = tuple(_watched(each) for each in sure[: self.settings.max_watched])

    def _is_worth_watching(self, defect: Defect) -> bool:
        return (
            defect.until is None
            and defect.confidence >= self.settings.watch_confidence
            and defect.recommended is not None
        )

    def _freeze(self) -> None:
        limits = self._limits
        self._tables = Tables(
            limits.answers, limits.rules, limits.unexplained_at, limits.costs,
            self.beliefs.recovered, self.settings.array(),
        )  # fmt: skip
        shares = np.array((self.settings.random_share, self.settings.holdout_share))
        version = hash64(self.beliefs.version)
        self._constants = Constants(self.settings.seed, version, self.beliefs.order_value, shares)
        self._located = None

    def step(self, moment: Moment, due: Due | None = None) -> pl.DataFrame:
        """Decide at every decision point of a batch: a frame of ``DECISION_SCHEMA``.

        Parameters
        ----------
        due
            Waits of the batch's sessions that are too long at ticks; each is decided on in its
            place among the events.
        """
        reason, loss = self.reasons(moment)
        columns = encode(moment.batch, COLUMNS)
        rows = (moment.rows.session, moment.stage, moment.rows.status, reason)
        numbers = np.stack([*columns.values(), *rows], axis=1).astype(np.int64)
        reals = np.stack([moment.intent, loss], axis=1)
        events = moment.batch.events
        faced = _Faced(
            events["ts"], events["visitor"], moment.rows.session, columns["key"], moment.intent
        )
        if due is None or not len(due):
            drawn = self.decide(numbers, reals)
            return self._frame(faced.at(drawn.whole[:, 0]), drawn)
        count = len(moment)
        order = np.insert(np.arange(count), due.row, np.arange(count, count + len(due)))
        numbers, reals = np.vstack([numbers, _numbers(due)]), np.vstack([reals, _reals(due)])
        drawn = self.decide(numbers[order], reals[order])
        return self._frame(faced.with_waits(due).at(order[drawn.whole[:, 0]]), drawn)

    def reasons(self, moment: Moment) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Give each event's reason (-1: none) and the share of buyers that it takes; both (n,)."""
        weights = np.where(moment.signals, self.beliefs.loss[:_UNEXPLAINED], -1.0)
        reason = np.where(moment.signals.any(axis=1), weights.argmax(axis=1), -1)
        loss = np.where(reason >= 0, self.beliefs.loss[reason], 0.0)
        for each in self.watched:
            here = _matches(each, moment) & (reason < 0)
            reason = np.where(here, each.reason, reason)
            loss = np.where(here, each.loss, loss)
        return reason.astype(np.int64), loss

    def decide(self, numbers: NDArray[np.int64], reals: NDArray[np.float64]) -> Drawn:
        """Decide on encoded events, one or many: the one path of batches and single events.

        Parameters
        ----------
        numbers
            :data:`COLUMNS`, session, stage, status and the reason's code or -1: int64 (n, 11).
        reals
            Intent, and the share of buyers that the reason takes: float64 (n, 2).
        """
        count = len(numbers)
        whole, codes = np.zeros((count, 6), np.int64), np.zeros((count, OPTIONS), np.int64)
        outputs = Outputs(whole, codes, np.zeros((count, OPTIONS)), np.zeros((count, OPTIONS)))
        self._make_room(count)
        made = decide_events(self._tables, self._constants, self._stores(), numbers, reals, outputs)
        odds, values = outputs.odds[:made], outputs.values[:made]
        return Drawn(whole[:made], codes[:made], odds, values)

    def decide_one(self, own: NDArray[np.int64]) -> bool:
        """Decide on one event as :meth:`decide` does; say whether there is a decision.

        Parameters
        ----------
        own
            Places of numbers, reals and :class:`Outputs`, of one row each.
        """
        located = self._located or self._locate()
        made = decide_located(located.places, own)
        if made < 0:
            self._make_room(1)
            made = decide_located(self._locate().places, own)
        return made > 0

    def _make_room(self, count: int) -> None:
        for memory in (self._sessions, self._visitors):
            if 2 * (memory.used.item() + count) > len(memory.keys):
                memory.reserve(count, _IDLE_US, self.settings.max_sessions)
                self._located = None

    def _stores(self) -> Stores:
        sessions, visitors = self._sessions, self._visitors
        return Stores(
            sessions.keys, sessions.rows, sessions.used,
            visitors.keys, visitors.rows, visitors.used,
        )  # fmt: skip

    def _locate(self) -> Located:
        *words, shares = self._constants
        constants = np.array(words, np.int64), shares
        self._located = Located(*self._tables, *constants, *self._stores())
        return self._located

    def _frame(self, faced: _Faced, drawn: Drawn) -> pl.DataFrame:
        """Write decisions down, each with whom it faced."""
        _, count, chosen, key, group, reason = drawn.whole.T
        shares = np.array(self.settings.slice_probabilities())
        picked = (np.arange(len(chosen)), chosen)
        columns = {
            "id": key,
            "ts": faced.ts,
            "visitor": faced.visitor,
            "session": faced.session,
            "event": faced.event,
            "slice": np.array(SLICES)[group],
            "slice_probability": shares[group],
            "action": np.array(LABELS)[drawn.codes[picked]],
            "propensity": drawn.odds[picked],
            "options": _ragged(np.array(LABELS)[drawn.codes], count),
            "propensities": _ragged(drawn.odds, count),
            "values_micros": _ragged(drawn.values, count),
            "intent": faced.intent,
            "reason": np.array(REASONS)[reason],
        }
        told = {"policy": self.beliefs.version, "model": self.model, "executed": self.executes}
        frame = pl.DataFrame(columns).with_columns(pl.lit(v).alias(k) for k, v in told.items())
        return frame.select(pl.col(name).cast(kind) for name, kind in DECISION_SCHEMA.items())

    def snapshot(self) -> bytes:
        """Give beliefs, watched defects and memory as versioned bytes."""
        memories = (self._sessions.dump(), self._visitors.dump())
        return _FORMAT + msgspec.msgpack.encode((*self._believed(), *memories))

    def changes(self) -> Changes:
        """Give beliefs and watched defects, and the memory that changed, as parts to save."""
        believed = _FORMAT + msgspec.msgpack.encode(self._believed())
        memories = {"sessions": self._sessions.changes(), "visitors": self._visitors.changes()}
        return gather({"beliefs": believed, **memories})

    def _believed(self) -> tuple[bytes, bytes, int, tuple[Watched, ...]]:
        beliefs = self.beliefs
        shares = beliefs.recovered.tobytes(), beliefs.loss.tobytes()
        return (*shares, beliefs.order_value, self.watched)

    def restore(self, state: bytes) -> None:
        """Take up what :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version.
        """
        kind = tuple[bytes, bytes, int, tuple[Watched, ...], bytes, bytes]
        *believed, sessions, visitors = _decode(state, kind)
        self._sessions.load(sessions)
        self._visitors.load(visitors)
        self._believe(*believed)

    def restore_parts(self, parts: Mapping[str, bytes]) -> None:
        """Take up the state that the parts of all calls of :meth:`changes` hold together.

        Raises
        ------
        SnapshotError
            If a part is missing, or of another version.
        """
        self._sessions.restore_parts(under("sessions", parts))
        self._visitors.restore_parts(under("visitors", parts))
        kind = tuple[bytes, bytes, int, tuple[Watched, ...]]
        self._believe(*_decode(parts.get("beliefs", b""), kind))

    def _believe(
        self, recovered: bytes, loss: bytes, value: int, watched: tuple[Watched, ...]
    ) -> None:
        shares = np.frombuffer(recovered).reshape(-1, len(REASONS)).copy()
        self.adopt(Beliefs(shares, np.frombuffer(loss).copy(), value))
        self.watched = watched


def _decode(state: bytes, kind: Any) -> Any:  # noqa: ANN401
    body = state.removeprefix(_FORMAT)
    if len(body) == len(state):
        raise SnapshotError("Expected the state of a policy of version 1, got other bytes")
    return msgspec.msgpack.decode(body, type=kind)


def _ragged(table: NDArray[np.generic], count: NDArray[np.int64]) -> pl.Series:
    return pl.Series([row[:size].tolist() for row, size in zip(table, count, strict=True)])


def _numbers(due: Due) -> NDArray[np.int64]:
    """Encode waits as the kernel reads events: of no kind, and opened by no signal when it ends."""
    numbers = np.zeros((len(due), NUMBERS), np.int64)
    pairs = zip(due.event.tolist(), due.ts.tolist(), strict=True)
    numbers[:, TS], numbers[:, KEY] = due.ts, [combine(event, ts) for event, ts in pairs]
    numbers[:, EVENT], numbers[:, VISITOR] = _NO_EVENT, hash_column(due.visitor)
    numbers[:, SESSION], numbers[:, STAGE] = due.session, due.stage
    numbers[:, STATUS + 1] = np.where(due.look == 0, _HESITATES, -1)
    return numbers


def _reals(due: Due) -> NDArray[np.float64]:
    return np.stack([due.intent, due.loss], axis=1)


def _watched(defect: Defect) -> Watched:
    loss = 1.0 - defect.observed / defect.expected if defect.expected > 0 else 0.0
    columns = {label: column for column, label in ENTITY_LABELS.items()}
    where = tuple((columns.get(key, key), value) for key, value in sorted(defect.entity.items()))
    code = REASONS.index(defect.type) if defect.type in REASONS else _UNEXPLAINED
    return Watched(where, code, min(max(loss, 0.0), 1.0))


def _matches(watched: Watched, moment: Moment) -> NDArray[np.bool_]:
    """Say which events lie on a watched defect's entity; shape (n,)."""
    known = [(column, value) for column, value in watched.where if column in EVENT_SCHEMA]
    if len(known) < len(watched.where) or not known:
        return np.zeros(len(moment), np.bool_)
    tests = [pl.col(column).cast(pl.String).eq_missing(pl.lit(value)) for column, value in known]
    return moment.batch.events.select(pl.all_horizontal(tests)).to_series().to_numpy()
