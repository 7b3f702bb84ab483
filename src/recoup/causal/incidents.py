"""What an incident cost in all: orders and money against what untouched segments say was due.

A Poisson regression with shared time effects (difference in differences on the log scale) is fitted
to every session that the incident did not touch, and says what the touched ones would have bought.
Its assumption: without the incident, the touched segment's purchases, and what one is worth, would
have moved in proportion to the others'. ``placebo`` tries that on windows before it.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from recoup.causal.estimate import NOTHING, Estimate, normal_estimate, ratio_estimate
from recoup.causal.tables import number_column, require_columns
from recoup.errors import ConfigError, SchemaError
from recoup.events import MICROS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_ORDERS: Final = 20
"""Orders of the touched segment outside the incident, and of the others outside and while it
lasted, below which nothing is estimated."""

MOST_VALUES: Final = 12
DAY_US: Final = 86_400 * MICROS
BLOCK_HOURS: Final = 6
MOST_PLACEBOS: Final = 8
LEAST_CELLS: Final = 8
_RIDGE: Final = 1e-6
_STEPS: Final = 60
_TOLERANCE: Final = 1e-10
_FARTHEST: Final = 30.0


class Incident(msgspec.Struct, frozen=True):
    """Whom it touched, and when: half-open, int64 microseconds UTC; ``until`` None is to the end.

    Parameters
    ----------
    touched
        Name of the boolean column that says which sessions belong to the segment, at any time.
    """

    touched: str
    since: int
    until: int | None = None


class IncidentCost(msgspec.Struct, frozen=True, kw_only=True):
    """What an incident cost.

    Parameters
    ----------
    lost_orders, lost_value
        In all, in orders and in the unit of the value column, with intervals. The orders that were
        due are taken to be worth what the segment's orders outside the incident are on average,
        times how much more the others' were worth while it lasted than outside.
    sessions
        That it touched while it lasted.
    observed_orders, expected_orders
        Of those sessions: what they placed, and would have placed.
    observed_value, expected_value
        Likewise in money.
    dispersion
        How much more the segment's orders vary from day to day than a Poisson law says; at least 1.
    placebo
        The same estimate of orders on windows of the same length before the incident, where
        nothing is known to have happened: they should hold 0.
    refused
        Why nothing should be read off this, or None.
    """

    lost_orders: Estimate
    lost_value: Estimate
    sessions: int
    observed_orders: float
    expected_orders: float
    observed_value: float
    expected_value: float
    dispersion: float
    placebo: list[Estimate]
    refused: str | None


def incident_cost(
    sessions: pl.DataFrame,
    incident: Incident,
    *,
    orders: str = "orders",
    value: str = "value",
    adjust: Sequence[str] = (),
    level: float = 0.95,
) -> IncidentCost:
    """Estimate what an incident cost in all.

    What is bought later in another row counts as lost, and is taken for what the segment buys when
    nothing is wrong: where shoppers come back, rows are to be :func:`episodes
    <recoup.causal.session_table.episodes>` cut at the incident's start, long enough for that.

    Parameters
    ----------
    sessions
        One row a session or episode: ``ts`` (when it began, int64 microseconds or a time),
        ``visitor``, what it bought, and attributes.
    incident
        Whom it touched, and when.
    orders, value
        Columns: orders placed in the session, and their worth; at least 0.
    adjust
        Columns of attributes that buying depends on (device, channel, ...): the mix of who comes
        may then shift. The twelve largest values of each count, the others together.
    level
        Confidence of the intervals.

    Raises
    ------
    SchemaError
        If a column is missing or of another type, or no session was touched.
    ConfigError
        If the incident ends before it begins.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> n = 40_000
    >>> ts = np.sort(rng.integers(0, 10 * DAY_US, n))
    >>> safari = rng.random(n) < 0.3
    >>> broken = safari & (ts >= 6 * DAY_US) & (ts < 8 * DAY_US)
    >>> bought = rng.random(n) < 0.05 * np.where(broken, 0.4, 1.0)
    >>> log = pl.DataFrame(
    ...     {
    ...         "ts": ts,
    ...         "visitor": np.arange(n),
    ...         "safari": safari,
    ...         "orders": bought.astype(int),
    ...         "value": bought * 50.0,
    ...     }
    ... )
    >>> found = incident_cost(log, Incident("safari", 6 * DAY_US, 8 * DAY_US))
    >>> true = 0.6 * 0.05 * broken.sum()
    >>> bool(found.lost_orders.low < true < found.lost_orders.high), found.refused is None
    (True, True)
    """
    until = _end(sessions, incident)
    table = _read(sessions, incident, orders, value, adjust)
    since = incident.since
    inside = (table.ts >= since) & (table.ts < until)
    target = table.touched & inside
    if not target.any():
        raise SchemaError("Expected sessions that the incident touched, got none in that time")
    refused = _reason(table, inside)
    if refused is not None:
        return _refused(table, target, refused)
    blocks = _blocks(table.ts, (since, until))
    lost, dispersion = _lost(table, target, blocks, level)
    observed = float(table.value[target].sum())
    money = _worth(table, inside, lost, level)
    return IncidentCost(
        lost_orders=lost,
        lost_value=money,
        sessions=int(target.sum()),
        observed_orders=float(table.orders[target].sum()),
        expected_orders=float(table.orders[target].sum()) + lost.value,
        observed_value=observed,
        expected_value=observed + money.value,
        dispersion=dispersion,
        placebo=_placebos(table, since, until, level),
        refused=None,
    )


class _Table(msgspec.Struct, frozen=True):
    """Sessions as arrays, n of them; ``cell`` codes what buying is adjusted for."""

    ts: Ints
    visitor: Ints
    touched: Bools
    orders: Floats
    value: Floats
    attributes: Ints

    def where(self, keep: Bools) -> "_Table":
        return _Table(*(getattr(self, name)[keep] for name in self.__struct_fields__))


def _end(sessions: pl.DataFrame, incident: Incident) -> int:
    require_columns(sessions, ["ts", "visitor", incident.touched])
    last = int(_micros(sessions["ts"]).max()) + 1
    until = last if incident.until is None else incident.until
    if until <= incident.since:
        raise ConfigError(
            "Expected an incident that ends after it begins",
            hint="check its start against the last session of the log",
        )
    return until


def _read(
    sessions: pl.DataFrame, incident: Incident, orders: str, value: str, adjust: Sequence[str]
) -> _Table:
    require_columns(sessions, [orders, value, *adjust])
    largest = float(np.finfo(np.float64).max)
    attributes = [_codes(sessions[name]) for name in adjust]
    return _Table(
        ts=_micros(sessions["ts"]),
        visitor=sessions["visitor"].rank("dense").cast(pl.Int64).to_numpy() - 1,
        touched=sessions[incident.touched].cast(pl.Boolean).fill_null(value=False).to_numpy(),
        orders=number_column(sessions, orders, low=0.0, high=largest),
        value=number_column(sessions, value, low=0.0, high=largest),
        attributes=np.column_stack(attributes or [np.zeros(sessions.height, np.int64)]),
    )


def _micros(ts: pl.Series) -> Ints:
    """Give moments as int64 microseconds UTC; numbers are microseconds already."""
    if ts.dtype.is_integer():
        return ts.cast(pl.Int64).to_numpy()
    if not isinstance(ts.dtype, (pl.Datetime, pl.Date)):
        raise SchemaError(f"Expected times or microseconds in column 'ts', got {ts.dtype}")
    if isinstance(ts.dtype, pl.Datetime) and ts.dtype.time_zone is not None:
        ts = ts.dt.convert_time_zone("UTC")
    return ts.cast(pl.Datetime("us")).to_physical().to_numpy()


def _codes(column: pl.Series) -> Ints:
    """Give the largest values of an attribute numbers from 1; 0 is every other."""
    texts = column.cast(pl.String).fill_null("")
    counts = texts.value_counts().sort("count", column.name, descending=[True, False])
    largest = counts[column.name].head(MOST_VALUES)
    codes = pl.Series(range(1, len(largest) + 1), dtype=pl.Int64)
    return texts.replace_strict(largest, codes, default=0, return_dtype=pl.Int64).to_numpy()


def _blocks(ts: Ints, window: tuple[int, int]) -> Ints:
    """Give each session its time effect: days, cut where the incident begins and ends."""
    edges = np.unique(
        [*np.arange(ts.min() // DAY_US + 1, ts.max() // DAY_US + 1) * DAY_US, *window]
    )
    return np.searchsorted(edges, ts, side="right")


def _lost(table: _Table, target: Bools, blocks: Ints, level: float) -> tuple[Estimate, float]:
    """Estimate what was lost by the target rows, from a fit to all others."""
    outcome = table.orders
    design, cell = _design(table, blocks)
    mean_of_cell = _poisson(design, cell[~target], outcome[~target])
    mean = mean_of_cell[cell]
    expected = float(mean[target].sum())
    dispersion = _dispersion(table, target, outcome, mean, blocks)
    gradient = design.T @ np.bincount(cell[target], mean[target], len(design))
    variance = gradient @ _sandwich(design, cell, table.visitor, outcome, mean, ~target) @ gradient
    spread = math.sqrt(dispersion * float(variance) + dispersion * _noise(outcome, mean, target))
    lost = expected - float(outcome[target].sum())
    return normal_estimate(lost, spread, level=level), dispersion


def _worth(table: _Table, inside: Bools, lost: Estimate, level: float) -> Estimate:
    """Compare the money that was due with what came: due orders are worth what others are.

    What came is money, not orders times a mean: who was stopped and comes back has a fuller cart,
    so that the orders which are left lost are worth less than the mean. A regression of money
    itself would be led by a few large orders.
    """
    own, target = table.touched & ~inside, table.touched & inside
    each, moved = _per_order(table, own), _moved(table, inside)
    due = float(table.orders[target].sum()) + lost.value
    apart = table.value[own] - each.value * table.orders[own]
    chance = float(apart @ apart) / float(table.orders[own].sum()) * max(due, 0.0)
    spread = math.hypot(
        each.value * moved.value * lost.se,
        due * moved.value * each.se,
        due * each.value * moved.se,
        moved.value * math.sqrt(chance),
    )
    money = due * each.value * moved.value - float(table.value[target].sum())
    return normal_estimate(money, spread, level=level)


def _moved(table: _Table, inside: Bools) -> Estimate:
    """Say how many times as much others' orders are worth while it lasts as outside.

    Carts fill as days go by, and sales come and go: the segment's own orders outside do not tell.
    """
    outside, later = (_per_order(table, ~table.touched & when) for when in (~inside, inside))
    if outside.value == 0:
        return normal_estimate(1.0, 0.0)
    moved = later.value / outside.value
    return normal_estimate(moved, math.hypot(later.se, moved * outside.se) / outside.value)


def _per_order(table: _Table, rows: Bools) -> Estimate:
    visitors = np.unique(table.visitor[rows], return_inverse=True)[1]
    return ratio_estimate(table.value[rows], table.orders[rows], clusters=visitors)


def _design(table: _Table, blocks: Ints) -> tuple[Floats, Ints]:
    """Give the distinct rows of the regression, shape (cells, p), and each session's cell."""
    hours = (table.ts % DAY_US) // (BLOCK_HOURS * 3600 * MICROS)
    factors = [blocks, hours, *table.attributes.T, table.touched.astype(np.int64)]
    distinct, cell = np.unique(np.column_stack(factors), axis=0, return_inverse=True)
    columns = [np.ones(len(distinct))]
    for factor in distinct.T:
        values = np.unique(factor)[1:]
        columns.extend((factor == value).astype(np.float64) for value in values)
    return np.column_stack(columns), cell.ravel()


def _poisson(design: Floats, cell: Ints, outcome: Floats) -> Floats:
    """Fit by iteratively reweighted least squares, and give the mean of every cell."""
    rows = np.bincount(cell, minlength=len(design)).astype(np.float64)
    total = np.bincount(cell, outcome, len(design))
    beta = np.zeros(design.shape[1])
    beta[0] = math.log(max(total.sum(), 1e-9) / rows.sum())
    for _ in range(_STEPS):
        mean = np.exp(np.clip(design @ beta, -_FARTHEST, _FARTHEST))
        score = design.T @ (total - rows * mean)
        curvature = (design * (rows * mean)[:, None]).T @ design
        ridge = _RIDGE * max(float(np.trace(curvature)) / len(beta), 1e-12)
        step = np.linalg.solve(curvature + ridge * np.eye(len(beta)), score)
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return np.asarray(np.exp(np.clip(design @ beta, -_FARTHEST, _FARTHEST)))


def _sandwich(
    design: Floats, cell: Ints, visitor: Ints, outcome: Floats, mean: Floats, fitted: Bools
) -> Floats:
    """Give the covariance of the coefficients, visitors being independent."""
    residual = np.where(fitted, outcome - mean, 0.0)
    shape = (int(visitor.max()) + 1, len(design))
    by_visitor = sparse.csr_matrix((residual, (visitor, cell)), shape=shape)
    scores = by_visitor @ design
    weight = np.bincount(cell, np.where(fitted, mean, 0.0), len(design))
    curvature = (design * weight[:, None]).T @ design
    ridge = _RIDGE * max(float(np.trace(curvature)) / len(curvature), 1e-12)
    bread = np.linalg.inv(curvature + ridge * np.eye(len(curvature)))
    return np.asarray(bread @ (scores.T @ scores) @ bread)


def _noise(outcome: Floats, mean: Floats, target: Bools) -> float:
    """Give the variance of what the target rows would have bought: scaled from all others."""
    scale = float(((outcome - mean)[~target] ** 2).sum() / mean[~target].sum())
    return scale * float(mean[target].sum())


def _dispersion(table: _Table, target: Bools, outcome: Floats, mean: Floats, blocks: Ints) -> float:
    """Say how much more the segment varies from day to day than its sessions' variance says."""
    own = table.touched & ~target
    total = np.bincount(blocks[own], (outcome - mean)[own])
    expected = np.bincount(blocks[own], ((outcome - mean) ** 2)[own])
    seen = expected > 0
    if seen.sum() < LEAST_CELLS:
        return 1.0
    return max(float((total[seen] ** 2 / expected[seen]).mean()), 1.0)


def _placebos(table: _Table, since: int, until: int, level: float) -> list[Estimate]:
    """Estimate losses on windows of the same length before the incident, without what is later."""
    past = table.where(table.ts < since)
    found: list[Estimate] = []
    length = until - since
    for number in range(1, MOST_PLACEBOS + 1):
        begin = since - number * length
        inside = (past.ts >= begin) & (past.ts < begin + length)
        target = past.touched & inside
        outside = past.orders[past.touched & ~inside].sum()
        if begin < past.ts.min(initial=since) or outside < LEAST_ORDERS or not target.any():
            break
        blocks = _blocks(past.ts, (begin, begin + length))
        found.append(_lost(past, target, blocks, level)[0])
    return found


def _reason(table: _Table, inside: Bools) -> str | None:
    if (table.touched | ~inside).all():
        return "there is no untouched session while it lasted: nothing says what was due"
    for whom, rows in {
        "the segment has {} orders outside the incident": table.touched & ~inside,
        "the others have {} orders outside the incident": ~table.touched & ~inside,
        "the others have {} orders while it lasted": ~table.touched & inside,
    }.items():
        orders = float(table.orders[rows].sum())
        if orders < LEAST_ORDERS:
            return f"{whom.format(f'{orders:g}')}, {LEAST_ORDERS} are needed"
    return None


def _refused(table: _Table, target: Bools, reason: str) -> IncidentCost:
    return IncidentCost(
        lost_orders=NOTHING,
        lost_value=NOTHING,
        sessions=int(target.sum()),
        observed_orders=float(table.orders[target].sum()),
        expected_orders=math.nan,
        observed_value=float(table.value[target].sum()),
        expected_value=math.nan,
        dispersion=math.nan,
        placebo=[],
        refused=reason,
    )
