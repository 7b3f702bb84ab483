"""Journeys with decision points, as arrays: what the cost of delay is estimated from."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.causal.estimate import Floats, Ints
from recoup.causal.tables import (
    cluster_codes,
    flags,
    key_codes,
    named_codes,
    numbers,
    reals,
    require_columns,
)
from recoup.errors import SchemaError

Bools = NDArray[np.bool_]

_LEAST_PROPENSITY: Final = 1e-9
_SLACK: Final = 1e-6
_Number = TypeVar("_Number", np.bool_, np.int64, np.float64)


class Known(msgspec.Struct, frozen=True):
    """Something known at each point beside the state: its labels, and codes of shape (n, H).

    Examples
    --------
    >>> Known("reason", ["K5", "S1"], np.array([[0, 1]])).name
    'reason'
    """

    name: str
    labels: Sequence[object]
    code: Ints


class Actions(msgspec.Struct, frozen=True):
    """Which of several actions each act was.

    Parameters
    ----------
    names
        The actions, length m.
    taken
        Shape (n,): code of the action of a journey's act, -1 where there was none.
    propensity
        Shape (n, H, m): P(action), adding up to P(act).

    Examples
    --------
    >>> Actions(["chat"], np.array([0]), np.full((1, 1, 1), 0.5)).names
    ['chat']
    """

    names: Sequence[str]
    taken: Ints
    propensity: Floats


class Journeys(msgspec.Struct, frozen=True, kw_only=True):
    """n journeys over H decision points, up to the first act or the end.

    Parameters
    ----------
    times, states
        Labels of the decision points, length H, and of the states that codes stand for.
    state
        Shape (n, H): code of the state, -1 where the journey did not come.
    features
        Shape (n, H, k): the state as numbers, for regressors.
    is_open
        Shape (n, H): reached, available, and not after the act.
    propensity
        Shape (n, H): P(act), in (0, 1) where open, else 0.
    act_at
        Shape (n,): index of the point acted at, H = never.
    outcome
        Shape (n,): net value over a fixed horizon from entry.
    fold
        Shape (n,): the part of the cross-fitting split that a journey belongs to.
    cluster
        Shape (n,): codes 0..k-1 of what is independent (the visitor); each journey where None.
    count
        Shape (n,): how many equal journeys a row stands for; 1 where None.
    segment, segments
        Shape (n,): code of the segment that a journey belongs to from its start; their labels.
    known
        What else was known at each point.
    actions
        Which act it was; None where there is one action.
    other_at, other_propensity
        Where the question is about one action of several, see `of_action`: shape (n,), index of the
        point where another was taken, H = never; shape (n, H), P(another), also where this one is
        not possible. None else.

    Examples
    --------
    >>> log = pl.DataFrame({"j": [0, 0, 1], "t": [1, 2, 1], "s": ["a", "b", "a"]})
    >>> log = log.with_columns(act=pl.Series([0, 1, 0]), p=0.5, y=pl.Series([4.0, 4.0, 0.0]))
    >>> made = journeys_from_table(
    ...     log, journey="j", time="t", state=["s"], act="act", propensity="p", outcome="y"
    ... )
    >>> made.act_at.tolist(), made.states
    ([1, 2], ['a', 'b'])
    """

    times: Sequence[object]
    states: Sequence[object]
    state: Ints
    features: Floats
    is_open: Bools
    propensity: Floats
    act_at: Ints
    outcome: Floats
    fold: Ints
    cluster: Ints | None = None
    count: Floats | None = None
    segment: Ints | None = None
    segments: Sequence[object] = ()
    known: Sequence[Known] = ()
    actions: Actions | None = None
    other_at: Ints | None = None
    other_propensity: Floats | None = None

    @property
    def points(self) -> int:
        """H, the number of decision points."""
        return len(self.times)

    @property
    def untreated(self) -> Floats:
        """Shape (n, H + 1): probability of no act before each point, G, and of none at all."""
        stays = np.cumprod(self.idle, axis=1)
        return np.hstack([np.ones((len(stays), 1)), stays])

    @property
    def idle(self) -> Floats:
        """Shape (n, H): probability of no act at a point, 1 where it is closed."""
        chance = 1 - self.propensity
        return chance if self.other_propensity is None else chance - self.other_propensity

    @property
    def decides(self) -> Bools:
        """Shape (n, H): whether an act of any kind was possible."""
        if self.other_propensity is None:
            return self.is_open
        return np.asarray(self.is_open | (self.other_propensity > 0))

    def left(self, point: int) -> Bools:
        """Mark the journeys in which an action other than the one asked about was taken there."""
        if self.other_at is None:
            return np.zeros(len(self.outcome), np.bool_)
        return np.asarray(self.other_at == point)

    @property
    def never_left(self) -> Bools:
        """Shape (n,): whether no action other than the one asked about was taken at all."""
        if self.other_at is None:
            return np.ones(len(self.outcome), np.bool_)
        return np.asarray(self.other_at == self.points)

    def of_action(self, code: int) -> "Journeys":
        """Give the same log as seen by the question about one action: the others end a journey.

        For the costs of waiting and missing, and the value of rules that take that action. Regret
        has no meaning here: what another action was worth is not asked.

        Raises
        ------
        SchemaError
            If it was not told which action each act was.
        """
        if self.actions is None:
            raise SchemaError("Expected journeys with actions, got acts of one kind")
        mine = self.actions.taken == code
        chance = self.actions.propensity[:, :, code]
        return msgspec.structs.replace(
            self,
            is_open=chance > 0,
            act_at=np.where(mine, self.act_at, self.points),
            propensity=chance,
            other_at=np.where(mine, self.points, self.act_at),
            other_propensity=self.propensity - chance,
            actions=None,
        )

    @property
    def next_open(self) -> Ints:
        """Shape (n, H): index of the first open point after each, H = none."""
        return _first_after(self.is_open)

    @property
    def next_decision(self) -> Ints:
        """Shape (n, H): index of the first point after each at which any act was possible."""
        return _first_after(self.decides)


def _first_after(marked: Bools) -> Ints:
    points = marked.shape[1]
    following = np.full(marked.shape, points, np.int64)
    for point in range(points - 2, -1, -1):
        nearest = np.where(marked[:, point + 1], point + 1, following[:, point + 1])
        following[:, point] = nearest
    return following


def journeys_from_table(  # noqa: PLR0913 - the columns of a table, by keyword
    table: pl.DataFrame,
    *,
    journey: str,
    time: str,
    state: Sequence[str],
    act: str,
    propensity: str,
    outcome: str,
    availability: str | None = None,
    cluster: str | None = None,
    fold: str | None = None,
    folds: int = 2,
    segment: str | None = None,
    known: Sequence[str] = (),
    action: str | None = None,
    action_propensities: Mapping[str, str] | None = None,
) -> Journeys:
    """Read journeys from a table of one row a journey and decision point.

    Parameters
    ----------
    time
        Any sortable column; its distinct values are the decision points.
    state
        One or more columns; each distinct combination is a state.
    act
        0 or 1. Rows after a journey's first act are left out.
    propensity
        P(act) at that point; not read where the point is closed.
    outcome
        Net value, the same in every row of a journey.
    availability
        0 or 1; 1 where None.
    cluster, fold
        Columns constant within a journey. Without ``fold``, clusters (or journeys) are dealt in
        turn, in order of their keys, to ``folds`` parts.
    segment
        Column known at the start of a journey and constant within it.
    known
        Columns known at each point, by which the costs are told too, such as the defect type.
    action, action_propensities
        Column: which action an act was; and action -> column of its probability, 0 where it was not
        possible. Without them there is one action.

    Raises
    ------
    SchemaError
        If the table breaks this contract, with the place; also if a journey has two acts.
    """
    named = (journey, time, *state, act, propensity, outcome, availability, cluster, fold, segment)
    chances = dict(action_propensities or {})
    require_columns(table, (*named, *known, action, *chances.values()))
    rows = _Rows(
        journey=named_codes(table, journey),
        point=named_codes(table, time),
        acts=flags(table, act),
        available=availability_of(table, availability),
    )
    keep = rows.until_first_act()
    kept = table.filter(keep)
    shape = (int(rows.journey.max()) + 1, int(rows.point.max()) + 1)
    cells = (rows.journey[keep], rows.point[keep])
    is_open = spread_cells(shape, cells, rows.available[keep], fill=False)
    per_journey = PerJourney(kept, cells[0], shape[0])
    clusters = None if cluster is None else per_journey.clusters(cluster)
    found = Journeys(
        times=table.get_column(time).unique().sort().to_list(),
        states=state_labels(kept, state),
        state=spread_cells(shape, cells, key_codes(kept, state), fill=-1),
        features=state_features(kept, state, shape, cells),
        is_open=is_open,
        propensity=_propensities(kept, propensity, is_open, cells),
        act_at=_first_acts(shape, cells, rows.acts[keep]),
        outcome=per_journey.values(outcome),
        fold=deal_folds(per_journey, clusters, fold, folds, shape[0]),
        cluster=clusters,
        segment=None if segment is None else per_journey.codes(segment),
        segments=[] if segment is None else table.get_column(segment).unique().sort().to_list(),
        known=[
            Known(
                name,
                state_labels(kept, [name]),
                spread_cells(shape, cells, key_codes(kept, [name]), fill=-1),
            )
            for name in known
        ],
    )
    if action is None:
        return found
    return msgspec.structs.replace(found, actions=_actions(kept, action, chances, found, cells))


class _Rows(msgspec.Struct, frozen=True):
    journey: Ints
    point: Ints
    acts: Bools
    available: Bools

    def until_first_act(self) -> Bools:
        """Mark rows up to and including each journey's first act; check that it is the only one."""
        closed = self.acts & ~self.available
        if closed.any():
            row = int(np.argmax(closed))
            raise SchemaError(f"Expected no act at a closed point, got one - at row {row}")
        first = np.full(int(self.journey.max()) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, self.journey[self.acts], self.point[self.acts])
        keep = np.asarray(self.point <= first[self.journey])
        again = self.acts & ~keep
        if again.any():
            raise SchemaError(
                f"Expected at most one act a journey, got a second - at row {int(again.argmax())}",
                hint="cut journeys at their first act, or use the distal excursion effect (dcee)",
            )
        cell = self.journey * (int(self.point.max()) + 1) + self.point
        if len(np.unique(cell)) < len(cell):
            raise SchemaError("Expected one row a journey and time, got several")
        return keep


class PerJourney(msgspec.Struct, frozen=True):
    """Columns that are constant within a journey; ``journey`` has the rows' codes, ``size`` is n.

    Examples
    --------
    >>> table = pl.DataFrame({"y": [4.0, 4.0, 1.0]})
    >>> PerJourney(table, np.array([0, 0, 1]), 2).values("y").tolist()
    [4.0, 1.0]
    """

    table: pl.DataFrame
    journey: Ints
    size: int

    def values(self, name: str) -> Floats:
        """Give one number a journey, shape (n,)."""
        return self._constant(name, reals(self.table, name))

    def codes(self, name: str) -> Ints:
        """Give one code a journey, shape (n,)."""
        return self._constant(name, key_codes(self.table, [name]).astype(float)).astype(np.int64)

    def clusters(self, name: str) -> Ints:
        """Give one code a journey, shape (n,), of what is independent; at least two of them."""
        return self._constant(name, cluster_codes(self.table, name).astype(float)).astype(np.int64)

    def _constant(self, name: str, column: Floats) -> Floats:
        found = np.zeros(self.size)
        found[self.journey] = column
        differs = found[self.journey] != column
        if differs.any():
            raise SchemaError(
                f"Expected one value of {name!r} a journey, got several - at row "
                f"{int(differs.argmax())}"
            )
        return found


def availability_of(table: pl.DataFrame, availability: str | None) -> Bools:
    """Give whether each row's point is available, shape (rows,); all of them without a column."""
    if availability is None:
        return np.ones(table.height, np.bool_)
    return flags(table, availability)


def _propensities(
    kept: pl.DataFrame, propensity: str, is_open: Bools, cells: tuple[Ints, Ints]
) -> Floats:
    column = spread_cells(is_open.shape, cells, numbers(kept, propensity), fill=0.0)
    spread = np.where(is_open, column, 0.0)
    high = 1 - _LEAST_PROPENSITY
    bad = is_open & ~((spread >= _LEAST_PROPENSITY) & (spread <= high))
    if bad.any():
        journey, point = np.argwhere(bad)[0].tolist()
        raise SchemaError(
            f"Expected a propensity in (0, 1) at every open point, got {spread[journey, point]} - "
            f"at journey {journey}, point {point}",
            hint="log the probability, or mark the point as not available",
        )
    return spread


def _actions(
    kept: pl.DataFrame,
    action: str,
    chances: Mapping[str, str],
    found: Journeys,
    cells: tuple[Ints, Ints],
) -> Actions:
    """Read which action each act was, and their probabilities; they must add up to P(act)."""
    acted = found.act_at[cells[0]] == cells[1]
    named = kept.get_column(action).cast(pl.String)
    taken = np.full(len(found.act_at), -1, np.int64)
    for code, name in enumerate(chances):
        taken[cells[0][acted & (named == name).fill_null(value=False).to_numpy()]] = code
    unnamed = acted & (taken[cells[0]] < 0)
    if unnamed.any():
        row = int(np.argmax(unnamed))
        raise SchemaError(
            f"Expected every act to be one of {list(chances)}, got {named[row]!r} - at journey "
            f"{cells[0][row]}, point {cells[1][row]}",
            hint="give the column of each action's probability",
        )
    parts = [spread_cells(found.is_open.shape, cells, numbers(kept, c), fill=0.0)
             for c in chances.values()]  # fmt: skip
    propensity = np.where(found.is_open[:, :, None], np.stack(parts, axis=2), 0.0)
    added = np.abs(propensity.sum(axis=2) - found.propensity) <= _SLACK
    possible = ((propensity == 0) | (propensity >= _LEAST_PROPENSITY)).all(axis=2)
    rows = np.flatnonzero(taken >= 0)
    drawn = np.ones_like(added)
    drawn[rows, found.act_at[rows]] = propensity[rows, found.act_at[rows], taken[rows]] > 0
    if not (added & possible & drawn).all():
        journey, point = np.argwhere(~(added & possible & drawn))[0].tolist()
        raise SchemaError(
            f"Expected probabilities of actions that add up to that of an act, "
            f"{found.propensity[journey, point]:g}, and above 0 for the one taken, got "
            f"{propensity[journey, point].tolist()} - at journey {journey}, point {point}",
            hint="0 says that an action was not possible there",
        )
    return Actions(list(chances), taken, propensity)


def _first_acts(shape: tuple[int, int], cells: tuple[Ints, Ints], acts: Bools) -> Ints:
    found = np.full(shape[0], shape[1], np.int64)
    found[cells[0][acts]] = cells[1][acts]
    return found


def deal_folds(
    per_journey: PerJourney, clusters: Ints | None, fold: str | None, folds: int, size: int
) -> Ints:
    """Give each journey's part of the cross-fitting split: as stated, or dealt in turn."""
    if fold is not None:
        return per_journey.codes(fold)
    if folds < 2:  # noqa: PLR2004 - cross-fitting needs another part to learn from
        raise SchemaError(f"Expected at least two folds, got {folds}")
    return (np.arange(size) if clusters is None else clusters) % folds


def spread_cells(
    shape: tuple[int, ...], cells: tuple[Ints, Ints], column: NDArray[_Number], *, fill: float
) -> NDArray[_Number]:
    """Put rows into cells (journey, point) of a dense array; ``fill`` where there is none."""
    dense = np.full(shape, fill, column.dtype)
    dense[cells] = column
    return dense


def state_labels(kept: pl.DataFrame, state: Sequence[str]) -> list[object]:
    """Give what each state's code stands for."""
    labels = kept.select(state).unique().sort(pl.struct(list(state)).rank("dense"))
    if len(state) == 1:
        return labels.to_series().to_list()
    return [" | ".join(map(str, row)) for row in labels.rows()]


def state_features(
    kept: pl.DataFrame, state: Sequence[str], shape: tuple[int, int], cells: tuple[Ints, Ints]
) -> Floats:
    """Give the state as numbers, shape (n, H, k); words become codes."""
    dense = np.full((*shape, len(state)), np.nan)
    for column, name in enumerate(state):
        values = kept.get_column(name)
        numeric = values.dtype.is_numeric() or values.dtype == pl.Boolean
        numbers = values.cast(pl.Float64).to_numpy() if numeric else key_codes(kept, [name])
        dense[(*cells, np.full(len(numbers), column))] = numbers
    return dense
