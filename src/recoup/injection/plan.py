"""Which events of a log a defect takes, slows, alters or repeats, and what that costs.

The log is a frame of events in which every session's events follow each other in order. Each
defect is put into what the ones before it have left.
"""

import datetime as dt
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.events import CONTEXT, MICROS, iso, micros_of
from recoup.injection.spec import DefectSpec, InjectionSpec

GAP: Final = dt.timedelta(minutes=30)
"""Without a session's key, a longer pause ends a session."""
FUNNEL: Final = (
    "view_item", "add_to_cart", "view_cart", "begin_checkout", "add_shipping_info",
    "add_payment_info", "purchase",
)  # fmt: skip
OF_ORDERS: Final = ("purchase", "refund", "return", "delivery", "page_view")
"""Events that tell of an order: they go with it."""
Flags = NDArray[np.bool_]


class Change(msgspec.Struct, frozen=True):
    """Fields of some events that get another value.

    Parameters
    ----------
    rows
        Row numbers of the log, shape (n,).
    set, scale
        Field -> value, or factor; money in units of the currency.

    Examples
    --------
    >>> Change(np.array([3]), {"in_stock": False}, {}).set
    {'in_stock': False}
    """

    rows: NDArray[np.int64]
    set: dict[str, str | int | float | bool]
    scale: dict[str, float]
    add: dict[str, int] = {}


class Plan(msgspec.Struct):
    """What becomes of each event of a log of n events.

    Parameters
    ----------
    gone
        Whether it vanishes, shape (n,).
    delay_us
        By how much it comes later, shape (n,).
    copies
        How often it is sent again, shape (n,).
    changes
        Fields that get another value.
    truth
        The labels, as ``truth.json`` has them.

    Examples
    --------
    >>> empty_plan(3).gone.sum()
    np.int64(0)
    """

    gone: Flags
    delay_us: NDArray[np.int64]
    copies: NDArray[np.int64]
    changes: list[Change]
    truth: dict[str, Any]


def empty_plan(height: int) -> Plan:
    """Make a plan that leaves a log of ``height`` events as it is."""
    zeros = np.zeros(height, np.int64)
    return Plan(zeros.astype(np.bool_), zeros, zeros.copy(), [], {"defects": [], "nuisances": []})


def in_sessions(events: pl.DataFrame) -> pl.DataFrame:
    """Order a log by session and time, and add what defects are chosen by.

    Returns
    -------
    DataFrame
        The events, with ``own`` (number of the session), ``place`` (row in ``events``) and, for
        each column of the context, ``of_NAME``: the session's first value.
    """
    who = pl.col("session").fill_null(pl.col("visitor"))
    ordered = (
        events.with_row_index("place")
        .with_columns(who=who)
        .sort("who", "ts", "seq", "id", maintain_order=True)
    )
    pause = pl.col("session").is_null() & (pl.col("ts").diff() > GAP)
    starts = (pl.col("who") != pl.col("who").shift()).fill_null(value=True) | pause
    numbered = ordered.with_columns(own=starts.fill_null(value=True).cast(pl.UInt32).cum_sum())
    first = (pl.col(name).drop_nulls().first().over("own").alias(f"of_{name}") for name in CONTEXT)
    return numbered.with_columns(first)


def make_plan(log: pl.DataFrame, spec: InjectionSpec) -> Plan:
    """Put the defects of a spec into a log, as :func:`in_sessions` gives it.

    Raises
    ------
    ConfigError
        If a slice is impossible: a value the log does not have, a window beside it, nobody in it.
    """
    plan = empty_plan(log.height)
    for defect in spec.defects:
        _put(log, plan, defect, spec.seed)
    return plan


def _put(log: pl.DataFrame, plan: Plan, defect: DefectSpec, seed: int) -> None:
    met = _met(log, plan, defect)
    sessions = log["own"].to_numpy()
    if not met.any():
        raise ConfigError(
            f"Expected sessions that meet defect `{defect.id}`, got none",
            hint="loosen `where`, `hours`, `from` or `to`, or take another `step`",
        )
    drawn = _drawn(log, met, f"{seed}:{defect.id}", defect.share)
    hit = met & np.isin(sessions, drawn)
    before = plan.gone.copy()
    counts = _apply(log, plan, defect, hit, seed)
    label = _label(log, defect, len(np.unique(sessions[met])), len(drawn))
    lost = _lost(log, plan.gone & ~before)
    removed = int((plan.gone & ~before).sum())
    if defect.kind == "lose":
        nuisance = {"kind": "tracking_break", **label, "removed_events": removed}
        nuisance["orders_unseen"] = lost["lost_orders"]
        plan.truth["nuisances"].append(nuisance)
    else:
        plan.truth["defects"].append({**label, **lost, "removed_events": removed, **counts})


def _apply(
    log: pl.DataFrame, plan: Plan, defect: DefectSpec, hit: Flags, seed: int
) -> dict[str, int]:
    sessions = log["own"].to_numpy()
    if defect.kind == "lose":
        plan.gone |= hit
    elif defect.kind == "drop":
        _leave(log, plan, defect, hit)
    elif defect.kind == "duplicate":
        plan.copies += hit * defect.times
        return {"duplicated": int(hit.sum()) * defect.times}
    else:
        return _harm(log, plan, defect, hit, seed, sessions)
    return {}


def _harm(
    log: pl.DataFrame, plan: Plan, defect: DefectSpec, hit: Flags, seed: int,
    sessions: NDArray[np.uint32],
) -> dict[str, int]:  # fmt: skip
    """Slow or alter the steps hit; a share of those who met it leaves behind the step."""
    rows = np.flatnonzero(hit)
    if defect.kind == "slow":
        plan.changes.append(Change(rows, {}, {}, {"latency_ms": defect.by_ms}))
        plan.delay_us += _since_in_session(hit, sessions) * (defect.by_ms * 1000)
    else:
        plan.changes.append(Change(rows, dict(defect.set), dict(defect.scale)))
    if defect.leave:
        leavers = _drawn(log, hit, f"{seed}:{defect.id}:leave", defect.leave)
        _leave(log, plan, defect, hit & np.isin(sessions, leavers), seen=True)
    return {"slowed" if defect.kind == "slow" else "altered": len(rows)}


def _since_in_session(hit: Flags, sessions: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Count, for each event, the hits before it in its session."""
    total: NDArray[np.int64] = np.cumsum(hit) - hit
    starts = np.flatnonzero(np.diff(sessions, prepend=0))
    lengths = np.diff(np.append(starts, len(sessions)))
    counts: NDArray[np.int64] = total - np.repeat(total[starts], lengths)
    return counts


def _met(log: pl.DataFrame, plan: Plan, defect: DefectSpec) -> Flags:
    steps = [defect.step]
    if defect.kind == "drop" and defect.step in FUNNEL:
        steps = list(FUNNEL[FUNNEL.index(defect.step) :])
    chosen = pl.col("event").cast(pl.String).is_in(steps)
    for field, wanted in defect.where.items():
        chosen &= _equals(log, field, wanted, defect.id)
    chosen &= _within(log, defect)
    met: Flags = log.select(chosen.fill_null(value=False)).to_series().to_numpy() & ~plan.gone
    return met


def _equals(log: pl.DataFrame, field: str, wanted: object, name: str) -> pl.Expr:
    column = f"of_{field}" if field in CONTEXT else field
    values = [str(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
    known = log[column].unique().drop_nulls()
    strange = [value for value in values if value not in known]
    if strange:
        common = log[column].drop_nulls().value_counts(sort=True)[column].head(8).to_list()
        raise ConfigError(
            f"Expected values of `{field}` that the log has in defect `{name}`, got "
            f"{', '.join(strange)}",
            hint=f"the most common are {', '.join(map(str, common))}"
            if common
            else "it is never known here",
        )
    return pl.col(column).is_in(values)


def _within(log: pl.DataFrame, defect: DefectSpec) -> pl.Expr:
    since, until = defect.window
    first, last = log["ts"].min(), log["ts"].max()
    if (since is not None and since > last) or (until is not None and until <= first):  # type: ignore[operator]
        raise ConfigError(
            f"Expected a window within the log in defect `{defect.id}`, got one beside it",
            hint=f"the log reaches from {first!s} to {last!s}",
        )
    inside = pl.lit(value=True)
    if since is not None:
        inside &= pl.col("ts") >= since
    if until is not None:
        inside &= pl.col("ts") < until
    if defect.hours is not None:
        begin, end = defect.hours
        hour = pl.col("ts").dt.hour()
        late, early = hour >= begin, hour < end
        inside &= late & early if begin < end else late | early
    return inside


def _drawn(log: pl.DataFrame, met: Flags, key: str, share: float) -> NDArray[np.uint32]:
    """Draw sessions by a hash of their key, whatever else is in the log."""
    first = log.filter(met).unique("own", keep="first", maintain_order=True)
    if share == 1.0:
        return first["own"].to_numpy()
    names = first.select(
        pl.concat_str("who", pl.col("ts").cast(pl.Int64), separator=":").alias("name")
    )
    draws = [
        xxhash.xxh3_64_intdigest(f"{key}:{name}".encode()) / 2**64
        for name in names["name"].cast(pl.String).to_list()
    ]
    return first["own"].to_numpy()[np.array(draws) < share]


def _leave(
    log: pl.DataFrame, plan: Plan, defect: DefectSpec, hit: Flags, *, seen: bool = False
) -> None:
    """End each session at its first hit; the orders that go take along what tells of them."""
    sessions, rows = log["own"].to_numpy(), np.arange(log.height)
    cut = np.full(int(sessions.max()) + 1, log.height, np.int64)
    np.minimum.at(cut, sessions[hit], rows[hit])
    begin = cut + (seen or (defect.seen and defect.kind == "drop"))
    gone = rows >= begin[sessions]
    if defect.then == "browse" and defect.kind == "drop":
        forward = FUNNEL[FUNNEL.index(defect.step) :] if defect.step in FUNNEL else [defect.step]
        gone &= log["event"].cast(pl.String).is_in(list(forward)).to_numpy()
    gone &= ~plan.gone
    orders = log.filter(gone & _buys(log))["order"].drop_nulls().unique()
    told = log["order"].is_in(orders.implode()).fill_null(value=False)
    told &= log["event"].cast(pl.String).is_in(list(OF_ORDERS))
    plan.gone |= gone | told.to_numpy()


def _buys(log: pl.DataFrame) -> Flags:
    buys: Flags = (log["event"] == "purchase").to_numpy()
    return buys


def _lost(log: pl.DataFrame, gone: Flags) -> dict[str, int | float]:
    """Count the orders among the events that went, each once, and their value."""
    orders = (
        log.filter(gone & _buys(log))
        .with_columns(name=pl.col("order").fill_null(pl.col("id")))
        .unique("name", keep="first", maintain_order=True)
    )
    return {"lost_orders": orders.height, "lost_value": int(orders["value"].sum()) / MICROS}


def _label(log: pl.DataFrame, defect: DefectSpec, met: int, hit: int) -> dict[str, Any]:
    since, until = defect.window
    first, last = log["ts"].min(), log["ts"].max()
    return {
        "id": defect.id,
        "type": defect.type or defect.kind,
        "kind_of_change": defect.kind,
        "step": defect.step,
        "entity": dict(defect.where),
        "from": _iso(since or first),  # type: ignore[arg-type]
        "to": None if until is None or until > last else _iso(until),  # type: ignore[operator]
        "hours": None if defect.hours is None else list(defect.hours),
        "share": defect.share,
        "met_by": met,
        "sessions": hit,
    }


def _iso(moment: dt.datetime) -> str:
    return iso(micros_of(moment))
