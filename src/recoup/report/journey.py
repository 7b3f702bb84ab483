"""Who came, how far they got and what they bought: one compact row per session."""

import datetime as dt
import io
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.errors import SnapshotError
from recoup.events import CODE, MICROS, TIMESTAMP, event_keys, hash_column
from recoup.report.summary import (
    SEGMENTS,
    STAGES,
    Day,
    Funnel,
    IntentBin,
    Journeys,
    Period,
    Segment,
)

VERSION: Final = 1
MAGIC: Final = b"recoup.report.journeys"
SEGMENT_LIMIT: Final = 12
"""Values of an attribute that are shown by name; the rest is summed up as ``(other)``."""

PENDING_LIMIT: Final = 50_000
"""Events held before they are folded into the rows; bounds the work of a fold per event."""

INTENT_BINS: Final = 20
BOUGHT: Final = len(STAGES) - 1
UNKNOWN: Final = "(unknown)"
OTHER: Final = "(other)"

_KEYS: Final = ("session", "visitor", "source_session", *SEGMENTS)


class Steps(msgspec.Struct, frozen=True):
    """Events with the session and the furthest step of each, as :class:`SessionTally` takes them.

    Parameters
    ----------
    events
        Frame of EVENT_SCHEMA, n rows.
    session
        Shape (n,): the session's hash.
    stage
        Shape (n,): furthest funnel step of the session up to and including the event, 0 to 5.
    intent
        Shape (n,): P(purchase later in this session), in [0, 1]; NaN where not scored. None where
        there is no model.
    """

    events: pl.DataFrame
    session: NDArray[np.int64]
    stage: NDArray[np.int8]
    intent: NDArray[np.float64] | None = None


class SessionTally:
    """Fold events into sessions, orders and days; exact for every order of arrival.

    All that is kept are minima, maxima and sums, by session and attribute values: batches of any
    size, in any order, give the same. Sessions that a late event joins (a visitor's, less than
    ``session_gap_s`` apart, without differing session ids of the source) are joined when the
    result is asked for. Memory is one row of about 200 bytes per session.

    Parameters
    ----------
    session_gap_s
        Silence that ends a session, in seconds.

    Examples
    --------
    >>> from recoup.events import EVENT_SCHEMA, conform
    >>> events = pl.DataFrame(
    ...     {
    ...         "ts": [dt.datetime(2016, 9, 1, 7, tzinfo=dt.timezone.utc)] * 2,
    ...         "source": ["shop"] * 2,
    ...         "id": ["a", "b"],
    ...         "seq": [0, 1],
    ...         "event": ["view_item", "add_to_cart"],
    ...         "visitor": ["v1"] * 2,
    ...     }
    ... )
    >>> tally = SessionTally()
    >>> tally.step(Steps(conform(events, EVENT_SCHEMA), np.array([7, 7]), np.array([2, 3])))
    >>> tally.result().funnel.counts
    (1, 1, 1, 1, 0, 0)
    """

    name = "report.journeys"

    def __init__(self, *, session_gap_s: float = 1800) -> None:
        self._gap_us = round(session_gap_s * MICROS)
        self._pending: list[Steps] = []
        self._waiting = 0
        self._rows = _Runs(_merge_rows, _no_rows())
        self._orders = _Runs(_merge_orders, _no_orders())
        self._scored = _Runs(_merge_scored, _no_scored())

    def step(self, batch: Steps, /) -> None:
        """Take a batch; it is folded in once enough have come."""
        self._pending.append(batch)
        self._waiting += batch.events.height
        if self._waiting >= PENDING_LIMIT:
            self._fold()

    def result(self, *, segment_limit: int = SEGMENT_LIMIT) -> Journeys:
        """Give what the events so far say; more may follow."""
        self._fold()
        joined = _join_late(self._rows.whole(), self._gap_us)
        sessions = _sessions(joined)
        if sessions.is_empty():
            return Journeys()
        orders = self._orders.whole().join(joined.select("session", "of").unique(), on="session")
        currency = _main_currency(orders)
        priced = orders.with_columns(
            revenue=pl.when(pl.col("currency").eq_missing(currency)).then("value").otherwise(0)
        )
        return Journeys(
            visitors=sessions["visitor"].n_unique(),
            sessions=sessions.height,
            period=_period(sessions),
            orders=orders.height,
            revenue=int(priced["revenue"].sum()) / MICROS,
            currency=currency,
            other_currency_orders=orders.height
            - priced.filter(pl.col("currency").eq_missing(currency)).height,
            funnel=_funnel(np.bincount(sessions["stage"].to_numpy(), minlength=len(STAGES))),
            segments={name: _split(sessions, priced, name, segment_limit) for name in SEGMENTS},
            daily=_daily(sessions, priced),
            intent=_reliability(self._scored.whole(), joined, sessions),
        )

    def snapshot(self) -> bytes:
        """Give the whole state as versioned bytes."""
        self._fold()
        frames = [_to_bytes(runs.whole()) for runs in self._state()]
        return msgspec.msgpack.encode((MAGIC, VERSION, self._gap_us, frames))

    def restore(self, state: bytes, /) -> None:
        """Take up the state that :meth:`snapshot` gave.

        Raises
        ------
        SnapshotError
            If the bytes are of another version, or of another session gap.
        """
        try:
            magic, version, gap_us, frames = msgspec.msgpack.decode(
                state, type=tuple[bytes, int, int, list[bytes]]
            )
        except msgspec.DecodeError as error:
            raise SnapshotError(f"Expected the state of {self.name}, got {error}") from error
        if (magic, version, gap_us) != (MAGIC, VERSION, self._gap_us):
            raise SnapshotError(
                f"Expected {self.name} version {VERSION} with a gap of {self._gap_us} us, "
                f"got version {version} with {gap_us} us",
                hint="replay the journal from its start",
            )
        for runs, frame in zip(self._state(), frames, strict=True):
            runs.replace(pl.read_ipc(io.BytesIO(frame)))
        self._pending, self._waiting = [], 0

    def _fold(self) -> None:
        if not self._waiting:
            return
        self._rows.add(pl.concat([_partial_rows(steps) for steps in self._pending]))
        self._orders.add(pl.concat([_partial_orders(steps) for steps in self._pending]))
        self._scored.add(pl.concat([_partial_scored(steps) for steps in self._pending]))
        self._pending, self._waiting = [], 0

    def _state(self) -> tuple["_Runs", "_Runs", "_Runs"]:
        return self._rows, self._orders, self._scored


class _Runs:
    """Rows in runs of falling size: each row is merged a logarithmic number of times."""

    def __init__(self, merge: Callable[[pl.DataFrame], pl.DataFrame], empty: pl.DataFrame) -> None:
        self._merge = merge
        self._runs = [empty]

    def add(self, rows: pl.DataFrame) -> None:
        run = self._merge(rows)
        while self._runs and run.height * 2 >= self._runs[-1].height:
            run = self._merge(pl.concat([self._runs.pop(), run]))
        self._runs.append(run)

    def whole(self) -> pl.DataFrame:
        if len(self._runs) > 1:
            self._runs = [self._merge(pl.concat(self._runs))]
        return self._runs[0]

    def replace(self, rows: pl.DataFrame) -> None:
        self._runs = [rows]


def _partial_rows(steps: Steps) -> pl.DataFrame:
    at = pl.col("ts").to_physical()
    return steps.events.select(
        session=pl.Series(steps.session, dtype=pl.Int64),
        visitor=pl.Series(hash_column(steps.events["visitor"]), dtype=pl.Int64),
        source_session=pl.Series(hash_column(steps.events["session"]), dtype=pl.Int64),
        device="device",
        channel="channel",
        country="country",
        visitor_type=pl.when("is_new_visitor").then(pl.lit("new")).otherwise(
            pl.when(pl.col("is_new_visitor").not_()).then(pl.lit("returning"))
        ),
        browser="browser",
        start=at,
        end=at,
        stage=pl.Series(steps.stage, dtype=pl.Int8),
    )  # fmt: skip


def _merge_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by(_KEYS).agg(
        pl.col("start").min(), pl.col("end").max(), pl.col("stage").max()
    )


def _partial_orders(steps: Steps) -> pl.DataFrame:
    bought = (steps.events["event"].to_physical() == CODE["purchase"]).to_numpy()
    if not bought.any():
        return _no_orders()
    events = steps.events.filter(bought)
    keys = pl.Series(event_keys(events), dtype=pl.Int64).cast(pl.String)
    return events.select(
        order=pl.coalesce(pl.concat_str(pl.lit("order "), "order"), pl.lit("event ") + keys),
        ts=pl.col("ts").to_physical(),
        session=pl.Series(steps.session[bought], dtype=pl.Int64),
        value=pl.col("value").fill_null(0),
        currency="currency",
    )


def _merge_orders(orders: pl.DataFrame) -> pl.DataFrame:
    """Keep each order once: its earliest purchase event, since a receipt is looked at again."""
    return orders.sort("order", "ts", "value", "session", "currency").unique(
        "order", keep="first", maintain_order=True
    )


def _partial_scored(steps: Steps) -> pl.DataFrame:
    if steps.intent is None:
        return _no_scored()
    known = np.isfinite(steps.intent) & (steps.stage < BOUGHT)
    intent = np.clip(steps.intent[known], 0.0, 1.0)
    return pl.DataFrame(
        {
            "session": steps.session[known],
            "bin": _intent_bin(intent),
            "events": np.ones(len(intent), np.int64),
            "micros": np.rint(intent * MICROS).astype(np.int64),
        },
        schema=_no_scored().schema,
    )


def _merge_scored(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.group_by("session", "bin").agg(pl.col("events").sum(), pl.col("micros").sum())


def _intent_bin(intent: NDArray[np.float64]) -> NDArray[np.int8]:
    """Bin on the square root: most events have a small intent, and those differ most."""
    bins: NDArray[np.float64] = np.sqrt(intent) * INTENT_BINS
    return np.minimum(bins, INTENT_BINS - 1).astype(np.int8)


def _join_late(rows: pl.DataFrame, gap_us: int) -> pl.DataFrame:
    """Add ``of``: the session that each row belongs to, once late events have closed gaps."""
    whole = rows.group_by("session").agg(
        pl.col("visitor").min(), pl.col("source_session").max(),
        pl.col("start").min(), pl.col("end").max(),
    ).sort("visitor", "start", "end", "session")  # fmt: skip
    before = pl.col("source_session").shift(1, fill_value=0)
    parts = (
        (pl.col("start") - pl.col("end").cum_max().shift(1).over("visitor") > gap_us)
        | ((pl.col("source_session") != 0) & (before != 0))
    ).fill_null(value=True)  # fmt: skip
    group = whole.select("session", run=parts.cum_sum())
    of = group.with_columns(of=pl.col("session").first().over("run")).select("session", "of")
    return rows.join(of, on="session")


def _sessions(joined: pl.DataFrame) -> pl.DataFrame:
    """One row per session; an attribute is the earliest that the session's events name."""
    first = [pl.col(name).drop_nulls().first().fill_null(UNKNOWN) for name in SEGMENTS]
    return (
        joined.sort("of", "start", *SEGMENTS, nulls_last=True)
        .group_by("of", maintain_order=True)
        .agg(
            pl.col("visitor").first(), pl.col("start").min(), pl.col("end").max(),
            pl.col("stage").max(), *first,
        )
    )  # fmt: skip


def _period(sessions: pl.DataFrame) -> Period:
    ends = sessions.select(pl.col("start").min(), pl.col("end").max()).cast(TIMESTAMP).row(0)
    return Period(*(end.replace(tzinfo=dt.UTC) for end in ends))


def _funnel(reached: NDArray[np.integer]) -> Funnel:
    return Funnel(*(int(n) for n in reached[::-1].cumsum()[::-1]))


def _main_currency(orders: pl.DataFrame) -> str | None:
    counts = orders.group_by("currency").len().sort("len", "currency", descending=[True, False])
    named = counts.filter(pl.col("currency").is_not_null())
    return named["currency"][0] if named.height else None


def _split(
    sessions: pl.DataFrame, orders: pl.DataFrame, attribute: str, limit: int
) -> list[Segment]:
    sizes = sessions.group_by(attribute).len().sort("len", attribute, descending=[True, False])
    if sizes[attribute].to_list() == [UNKNOWN]:
        return []
    shown = sizes[attribute].head(limit).to_list()
    named = sessions.select(
        "of", "stage", value=pl.when(pl.col(attribute).is_in(shown)).then(attribute)
        .otherwise(pl.lit(OTHER)),
    )  # fmt: skip
    bought = orders.join(named.select("of", "value").rename({"value": "segment"}), on="of")
    sums = {
        value: (count, revenue)
        for value, count, revenue in bought.group_by("segment")
        .agg(pl.len(), pl.col("revenue").sum())
        .iter_rows()
    }
    parts = named.partition_by("value", as_dict=True)
    order = [value for value in [*shown, OTHER] if (value,) in parts]
    return [_segment(value, parts[(value,)], sums.get(value, (0, 0))) for value in order]


def _segment(value: str, sessions: pl.DataFrame, bought: tuple[int, int]) -> Segment:
    reached = np.bincount(sessions["stage"].to_numpy(), minlength=len(STAGES))
    return Segment(value, _funnel(reached), bought[0], bought[1] / MICROS)


def _daily(sessions: pl.DataFrame, orders: pl.DataFrame) -> list[Day]:
    visits = sessions.group_by(date=_date("start")).agg(
        sessions=pl.len(), buyers=(pl.col("stage") == BOUGHT).sum()
    )
    bought = orders.group_by(date=_date("ts")).agg(orders=pl.len(), revenue=pl.col("revenue").sum())
    days = visits.join(bought, on="date", how="full", coalesce=True).sort("date")
    whole = pl.DataFrame({"date": pl.date_range(days["date"][0], days["date"][-1], eager=True)})
    rows = whole.join(days, on="date", how="left").fill_null(0).sort("date").iter_rows()
    return [Day(date, s, b, o, revenue / MICROS) for date, s, b, o, revenue in rows]


def _date(column: str) -> pl.Expr:
    return pl.col(column).cast(TIMESTAMP).dt.date()


def _reliability(
    scored: pl.DataFrame, joined: pl.DataFrame, sessions: pl.DataFrame
) -> list[IntentBin]:
    """Compare what was predicted with what followed, bin by bin; exact, since all is counted."""
    bought = joined.select("session", "of").unique().join(
        sessions.select("of", bought=pl.col("stage") == BOUGHT), on="of"
    )  # fmt: skip
    bins = (
        scored.join(bought, on="session")
        .group_by("bin")
        .agg(
            pl.col("events").sum(),
            pl.col("micros").sum(),
            followed=pl.col("events").filter(pl.col("bought")).sum(),
        )
        .sort("bin")
    )
    return [
        IntentBin(micros / MICROS / events, followed / events, events)
        for _, events, micros, followed in bins.iter_rows()
    ]


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "session": pl.Int64(), "visitor": pl.Int64(), "source_session": pl.Int64(),
            **dict.fromkeys(SEGMENTS, pl.String()),
            "start": pl.Int64(), "end": pl.Int64(), "stage": pl.Int8(),
        }
    )  # fmt: skip


def _no_orders() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "order": pl.String(), "ts": pl.Int64(), "session": pl.Int64(),
            "value": pl.Int64(), "currency": pl.String(),
        }
    )  # fmt: skip


def _no_scored() -> pl.DataFrame:
    return pl.DataFrame(
        schema={"session": pl.Int64(), "bin": pl.Int8(), "events": pl.Int64(), "micros": pl.Int64()}
    )


def _to_bytes(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.sort(frame.columns).write_ipc(sink, compression="zstd")
    return sink.getvalue()
