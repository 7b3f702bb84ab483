"""Why intent is as low as it is: what each signal of a journey takes, as shares of the whole.

The whole is the intent at a moment less what it would be had no signal shown, by the trained model:
in log-odds before calibration, and in probability. It is split into Shapley values: a signal's
share is its mean contribution over all orders in which the signals could be taken away, so shares
add up to the whole, signals that do the same get the same, and one without effect gets nothing.
Beside it stands the intent if that signal alone were repaired. A repaired signal is one that has
not shown; all else of the journey stays as it was. This is what the model sees, not proof of cause.

Source: Shapley, "A value for n-person games", 1953; as an explanation of predictions, Lundberg and
Lee, "A unified approach to interpreting model predictions", NeurIPS 2017.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from recoup.events import TIMESTAMP, EventBatch
from recoup.friction.effects import SignalEffects, spoilt
from recoup.friction.explained import EXPLAINED, LONG_WAIT
from recoup.friction.intent import IntentModel, IntentTables, intent_of, unspoilt_log_odds
from recoup.friction.moment import Rows
from recoup.friction.signals import Detected

MOST_APART: Final = 10
"""Signals told apart exactly, over all 2^10 subsets; of more, those whose repair would bring least
are one together, and share its part in proportion to what each would bring."""

SLICES: Final = (
    "page", "item", "category", "query", "payment_method", "device", "browser", "os", "channel",
    "country", "region", "build",
)  # fmt: skip
"""Columns of events that reasons are summed by."""

WHOSE: Final = ("source", "id", "visitor", "event", *SLICES)
"""Columns of events that say whose moment a reason is of."""

REASON_SCHEMA: Final = pl.Schema(
    {
        "ts": TIMESTAMP,
        "source": pl.String(),
        "id": pl.String(),
        "visitor": pl.String(),
        "session": pl.Int64(),
        "event": pl.String(),
        "signal": pl.String(),
        "shown": pl.Boolean(),
        "intent": pl.Float64(),
        "unspoilt": pl.Float64(),
        "log_odds_share": pl.Float64(),
        "share": pl.Float64(),
        "repaired": pl.Float64(),
        "lost": pl.Float64(),
        **dict.fromkeys(SLICES, pl.String()),
    }
)
"""One row for each signal of a journey, at each event that shows one.

``shown`` says whether the event itself shows the signal, or an earlier one of the session.
``intent`` is as served, ``unspoilt`` what it would be without any signal; the ``share`` of all
signals, at most 0 each, add up to the difference, ``log_odds_share`` to that of log-odds before
calibration. ``repaired`` is the intent if this signal alone had not shown. ``lost`` is what this
showing took from intent, at least 0: purchases, when summed; 0 where the event does not show it.
"""


class Reason(msgspec.Struct, frozen=True):
    """What one signal takes from the intent of a moment.

    Parameters
    ----------
    signal, name
        Its row of the defect catalogue, and what a shopper would call it.
    shown
        Whether the event itself shows it, or an earlier one of the session.
    log_odds_share, share
        Its Shapley share of what all signals take: at most 0.
    repaired
        Intent if this signal alone had not shown.
    lost
        What this very showing took, at least 0.
    """

    signal: str
    name: str
    shown: bool
    log_odds_share: float
    share: float
    repaired: float
    lost: float


class Explanation(msgspec.Struct, frozen=True):
    """The intent of a moment, and what lowers it: the most first.

    Parameters
    ----------
    intent, unspoilt
        P(purchase later in this session), and the same had no signal shown.
    log_odds, unspoilt_log_odds
        The same before calibration.
    reasons
        One for each signal of the session so far.

    Examples
    --------
    >>> told = Explanation(0.2, 0.3, -1.4, -0.8, (Reason("D8", "", True, -0.6, -0.1, 0.3, 0.1),))
    >>> round(told.unspoilt + sum(each.share for each in told.reasons), 12)
    0.2
    """

    intent: float
    unspoilt: float
    log_odds: float
    unspoilt_log_odds: float
    reasons: tuple[Reason, ...]


class Desk(NamedTuple):
    """Where a moment is explained: scratch space and results.

    ``out`` has a row a signal and the first six columns of :data:`NUMBERS`; ``ends`` the log-odds
    and the intent of the moment, and of the unspoilt one; ``part`` the player that each signal is;
    ``value`` both scales of each subset of the players; ``weights`` Shapley's.
    """

    out: NDArray[np.float64]
    ends: NDArray[np.float64]
    part: NDArray[np.int64]
    value: NDArray[np.float64]
    weights: NDArray[np.float64]


class Explainer:
    """Explains moments with a trained model.

    Holds scratch space: not to be used from several threads at once.

    Parameters
    ----------
    model
        Bound to the features of the rows to come.

    Examples
    --------
    >>> import lightgbm as lgb
    >>> from recoup.friction.effects import no_effects
    >>> from recoup.friction.intent import Learned
    >>> from recoup.friction.intent_context import Labelled, learn_vocabulary
    >>> from recoup.models.calibration import Calibration
    >>> from recoup.models.linear import no_linear
    >>> from recoup.models.trees import TreeEnsemble
    >>> kind, buys = np.arange(400)[:, None] % 2, np.arange(400) % 4 == 0
    >>> vocabulary = learn_vocabulary(Labelled(kind, buys, np.arange(400)))
    >>> data = lgb.Dataset(np.column_stack([np.zeros(400), kind]), buys)
    >>> trees = TreeEnsemble.from_lightgbm(lgb.train({"objective": "binary", "verbose": -1}, data))
    >>> effects = no_effects()
    >>> effects.leaves[0] = 0.5  # half of those who would have bought leave an empty search
    >>> learned = Learned(vocabulary, trees, no_linear(2), 0.0, Calibration(), effects)
    >>> model = IntentModel("set", ("carts",), (("carts", ""),), ("event",), learned)
    >>> told = Explainer(model).explain_one(np.zeros(1), np.zeros(1, np.int64), 0b1, 0)
    >>> told.reasons[0].name, round(told.intent / told.unspoilt, 3)
    ('no search results', 0.5)
    """

    def __init__(self, model: IntentModel) -> None:
        self.model = model
        effects = SignalEffects(*(part.copy() for part in model.tables.effects))
        self._waits = model.tables._replace(effects=effects)
        count = len(EXPLAINED)
        self._desk = Desk(
            out=np.zeros((count, _COLUMNS)),
            ends=np.zeros((2, 2)),
            part=np.zeros(count, np.int64),
            value=np.zeros((2, 1 << MOST_APART)),
            weights=_weights(),
        )

    def explain_one(
        self, values: NDArray[np.float64], context: NDArray[np.int64], now: int, before: int
    ) -> Explanation:
        """Explain one event: its feature row, shape (d,), context, shape (k,), and signals.

        Parameters
        ----------
        now, before
            Signals that the event, and its session before it, showed: a bit each.
        """
        bits = np.array((now, before, now), np.int64)
        return self._told(_explain_event(values, context, bits, self.model.tables, self._desk))

    def explain_wait(self, intent: float, now: int, before: int, loss: float) -> Explanation:
        """Explain a moment at which a shopper has waited too long.

        The wait is a signal beside those of the session. By how much it lowers intent is not
        learned here but known of this very wait: of those who were to buy, ``loss`` are gone.

        Parameters
        ----------
        intent
            As served at the session's latest event.
        now, before
            Signals that this event, and its session before it, showed: a bit each.
        loss
            In [0, 1): see :attr:`recoup.friction.waiting.Due.loss`.
        """
        return self._told(self._wait(intent, now, before, loss))

    def _wait(self, intent: float, now: int, before: int, loss: float) -> int:
        wait = 1 << LONG_WAIT
        self._waits.effects.leaves[LONG_WAIT] = min(loss, _MOST_GONE)
        bits = np.array((now | wait, before, wait), np.int64)
        base = unspoilt_of(intent, now, before, self._waits)
        return int(_explain(base, bits, self._waits, self._desk))

    def _told(self, count: int) -> Explanation:
        told = self._desk.out[:count].tolist()
        told.sort(key=lambda row: (row[_LOG_ODDS], row[_SIGNAL]))
        (log_odds, intent), (bare, unspoilt) = self._desk.ends.tolist()
        return Explanation(intent, unspoilt, log_odds, bare, tuple(_reason(row) for row in told))

    def explain_rows(
        self,
        values: NDArray[np.float64],
        context: NDArray[np.int64],
        now: NDArray[np.int64],
        before: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Explain events, shapes (n, d), (n, k), (n,), (n,); time grows with their number.

        Returns
        -------
        For each reason the row that it belongs to, shape (m,), and its numbers, shape (m, 8), in
        the order of :data:`NUMBERS`.
        """
        bits, tables = np.column_stack([now, before, now]), self.model.tables
        return self._rows(
            _explain_event(values[row], context[row], bits[row], tables, self._desk)
            for row in range(len(bits))
        )

    def explain_waits(
        self,
        intent: NDArray[np.float64],
        now: NDArray[np.int64],
        before: NDArray[np.int64],
        loss: NDArray[np.float64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Explain waits as :meth:`explain_wait` does, shape (n,) each; give what rows give."""
        waits = (each.tolist() for each in (intent, now, before, loss))
        return self._rows(self._wait(*wait) for wait in zip(*waits, strict=True))

    def _rows(self, counts: Iterable[int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Take the desk's content after each moment; a count of reasons comes with each."""
        parts, of = [np.zeros((0, len(NUMBERS)))], [np.zeros(0, np.int64)]
        for row, count in enumerate(counts):
            ends = np.broadcast_to(self._desk.ends[:, 1], (count, 2))
            parts.append(np.column_stack([self._desk.out[:count], ends]))
            of.append(np.full(count, row))
        return np.concatenate(of), np.concatenate(parts)

    def reasons(
        self,
        batch: EventBatch,
        rows: Rows,
        seen: Detected,
        own: NDArray[np.bool_] | None = None,
    ) -> pl.DataFrame:
        """Give the reasons of the events that show a signal: frame of ``REASON_SCHEMA``.

        Parameters
        ----------
        own
            Which events to explain, shape (n,); None: all.
        """
        at = np.flatnonzero((seen.now != 0) & (True if own is None else own))
        context = self.model.context_of(batch, seen)[at]
        of, told = self.explain_rows(rows.values[at], context, seen.now[at], seen.before[at])
        picked = at[of]
        events = batch.events[picked].select("ts", *WHOSE)
        return reason_frame(events.with_columns(session=pl.Series(rows.session[picked])), told)


def reason_frame(whose: pl.DataFrame, told: NDArray[np.float64]) -> pl.DataFrame:
    """Put numbers of reasons, shape (m, 8), beside whose they are: frame of ``REASON_SCHEMA``.

    Parameters
    ----------
    whose
        ``ts``, ``session`` and :data:`WHOSE`, m rows.
    """
    numbers = dict(zip(NUMBERS, told.T, strict=True))
    signal = pl.Series([EXPLAINED[int(k)].id for k in numbers.pop("signal")], dtype=pl.String)
    shown = pl.Series(numbers.pop("shown") > 0)
    columns = {name: pl.Series(column) for name, column in numbers.items()}
    return whose.with_columns(
        pl.col("event").cast(pl.String), signal=signal, shown=shown, **columns
    ).select(pl.col(name).cast(dtype) for name, dtype in REASON_SCHEMA.items())


NUMBERS: Final = (
    "signal", "shown", "log_odds_share", "share", "repaired", "lost", "intent", "unspoilt",
)  # fmt: skip
_MOST_GONE: Final = 0.999
_FARTHEST: Final = 40.0
_HALVINGS: Final = 50
"""Log-odds are found to 1e-13."""
_SIGNAL, _SHOWN, _LOG_ODDS, _SHARE, _REPAIRED, _LOST, _COLUMNS = range(7)


def lost_by(reasons: pl.DataFrame, *slices: str) -> pl.DataFrame:
    """Sum what showings took, by signal and slice: what costs most first.

    Parameters
    ----------
    reasons
        Frame of ``REASON_SCHEMA``.
    slices
        Columns to split by as well; rows in which one is unknown are left out.

    Returns
    -------
    ``signal``, the slices, ``showings``, ``sessions``, and ``lost``: purchases that the model says
    the showings took. One pass over the rows.
    """
    known = reasons.filter(pl.col("shown"), *(pl.col(name).is_not_null() for name in slices))
    return (
        known.group_by("signal", *slices)
        .agg(
            showings=pl.len().cast(pl.Int64),
            sessions=pl.col("session").n_unique().cast(pl.Int64),
            lost=pl.col("lost").sum(),
        )
        .sort("lost", "signal", *slices, descending=[True, *[False] * (1 + len(slices))])
    )


def _reason(row: list[float]) -> Reason:
    signal = EXPLAINED[int(row[_SIGNAL])]
    return Reason(signal.id, signal.name, row[_SHOWN] > 0.0, *row[_LOG_ODDS:_COLUMNS])


def _weights() -> NDArray[np.float64]:
    """Give n! (k - n - 1)! / k! for n of the k - 1 other players, at [k, n]."""
    found = np.zeros((MOST_APART + 1, MOST_APART + 1))
    for k in range(1, MOST_APART + 1):
        found[k, 0] = 1.0 / k
        for n in range(1, k):
            found[k, n] = found[k, n - 1] * n / (k - n)
    return found


@njit(cache=True, nogil=True)
def unspoilt_of(intent: float, now: int, before: int, tables: IntentTables) -> float:
    """Give the log-odds that an intent would have without its signals: the law turned around."""
    low, high = -_FARTHEST, _FARTHEST
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if intent_of(spoilt(middle, now, before, tables.effects), tables) < intent:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@njit(cache=True, nogil=True)
def _explain_event(
    values: NDArray[np.float64],
    context: NDArray[np.int64],
    bits: NDArray[np.int64],
    tables: IntentTables,
    desk: Desk,
) -> int:
    return _explain(unspoilt_log_odds(values, context, tables), bits, tables, desk)


@njit(cache=True, nogil=True)
def _explain(base: float, bits: NDArray[np.int64], tables: IntentTables, desk: Desk) -> int:
    """Fill the desk with one row a signal, and give how many.

    ``bits`` are the signals of the moment, those before it, and those of the moment that are told
    for the first time: these are charged with what they took.
    """
    now, before, fresh = bits[0], bits[1], bits[2]
    _end(spoilt(base, now, before, tables.effects), tables, desk.ends[0])
    _end(base, tables, desk.ends[1])
    count = 0
    for signal in range(desk.out.shape[0]):
        bit = 1 << signal
        if (now | before) & bit:
            row = desk.out[count]
            row[:] = 0.0
            row[_SIGNAL], row[_SHOWN] = signal, (fresh >> signal) & 1
            alone = spoilt(base, now & ~bit, before & ~bit, tables.effects)
            row[_REPAIRED] = intent_of(alone, tables)
            count += 1
    players = _number(count, False, desk)  # noqa: FBT003
    for subset in range(1 << players):
        keep = _kept(subset, count, desk)
        raw = spoilt(base, now & keep, before & keep, tables.effects)
        desk.value[0, subset], desk.value[1, subset] = raw, intent_of(raw, tables)
    _share_out(desk.value[0], players, count, desk, _LOG_ODDS)
    _share_out(desk.value[1], players, count, desk, _SHARE)
    players = _number(count, True, desk)  # noqa: FBT003
    for subset in range(1 << players):
        keep = (now & ~fresh) | _kept(subset, count, desk)
        raw = spoilt(base, keep, before, tables.effects)
        desk.value[1, subset] = -intent_of(raw, tables)
    _share_out(desk.value[1], players, count, desk, _LOST)
    return count


@njit(cache=True, nogil=True)
def _end(log_odds: float, tables: IntentTables, end: NDArray[np.float64]) -> None:
    end[0], end[1] = log_odds, intent_of(log_odds, tables)


@njit(cache=True, nogil=True)
def _number(count: int, showing: bool, desk: Desk) -> int:  # noqa: FBT001
    """Let signals, or those of the event itself, be players, and give how many; -1: none."""
    desk.part[:count] = -1
    players = 0
    for row in np.argsort(-desk.out[:count, _REPAIRED]):
        if showing and desk.out[row, _SHOWN] == 0.0:
            continue
        desk.part[row] = min(players, MOST_APART - 1)
        players = min(players + 1, MOST_APART)
    return players


@njit(cache=True, nogil=True)
def _kept(subset: int, count: int, desk: Desk) -> int:
    """Give the signals of a subset of the players, a bit each."""
    keep = 0
    for row in range(count):
        if desk.part[row] >= 0 and (subset >> desk.part[row]) & 1:
            keep |= 1 << int(desk.out[row, _SIGNAL])
    return keep


@njit(cache=True, nogil=True)
def _share_out(
    value: NDArray[np.float64], players: int, count: int, desk: Desk, column: int
) -> None:
    """Give each player's share to its signal, or to several by what their repair would bring."""
    intent = desk.ends[0, 1]
    for player in range(players):
        share = _share(player, players, value, desk.weights)
        together, gain = 0, 0.0
        for row in range(count):
            if desk.part[row] == player:
                together += 1
                gain += desk.out[row, _REPAIRED] - intent
        for row in range(count):
            if desk.part[row] == player:
                own = 1.0 / together
                if gain > 0.0:
                    own = (desk.out[row, _REPAIRED] - intent) / gain
                desk.out[row, column] = share * own


@njit(cache=True, nogil=True)
def _share(
    player: int, players: int, value: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """Give a player's Shapley value."""
    bit = 1 << player
    total = 0.0
    for subset in range(1 << players):
        if not subset & bit:
            others = 0
            for other in range(players):
                others += (subset >> other) & 1
            total += weights[players, others] * (value[subset | bit] - value[subset])
    return total
