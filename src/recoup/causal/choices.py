"""Journeys in which any of several actions may be taken, at any of several points, as arrays."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.causal.estimate import Floats, Ints
from recoup.causal.journeys import (
    Bools,
    PerJourney,
    availability_of,
    deal_folds,
    spread_cells,
    state_features,
    state_labels,
)
from recoup.causal.tables import key_codes, named_codes, number_column, require_columns
from recoup.errors import ConfigError, SchemaError

_LEAST_PROPENSITY: Final = 1e-9
_SLACK: Final = 1e-6


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """n journeys over H decision points, at each of which one of m actions was taken.

    Doing nothing is an action, and should be taken from the table like the others.

    Parameters
    ----------
    times, states, actions
        Labels of the decision points, and of what codes stand for.
    state, action
        Shape (n, H): codes; -1 where the journey did not come.
    features
        Shape (n, H, k): the state as numbers, for regressors.
    is_open
        Shape (n, H): reached, and with a choice.
    propensity
        Shape (n, H): probability of the action taken, in (0, 1]; 1 where not open.
    outcome
        Shape (n,): net value over a fixed horizon from entry.
    fold, cluster
        Shape (n,): part of the cross-fitting split; code of what is independent, or None.

    Examples
    --------
    >>> log = pl.DataFrame(
    ...     {"j": [0, 0, 1], "t": [1, 2, 1], "s": ["a", "b", "a"], "do": ["none", "chat", "none"]}
    ... )
    >>> log = log.with_columns(p=0.5, y=pl.Series([4.0, 4.0, 0.0]))
    >>> made = choices_from_table(
    ...     log, journey="j", time="t", state=["s"], action="do", propensity="p", outcome="y"
    ... )
    >>> made.actions, made.action.tolist()
    (['chat', 'none'], [[1, 0], [1, -1]])
    """

    times: Sequence[object]
    states: Sequence[object]
    actions: Sequence[object]
    state: Ints
    action: Ints
    features: Floats
    is_open: Bools
    propensity: Floats
    outcome: Floats
    fold: Ints
    cluster: Ints | None = None

    @property
    def points(self) -> int:
        """H, the number of decision points."""
        return len(self.times)


def choices_from_table(  # noqa: PLR0913 - the columns of a table, by keyword
    table: pl.DataFrame,
    *,
    journey: str,
    time: str,
    state: Sequence[str],
    action: str,
    propensity: str,
    outcome: str,
    availability: str | None = None,
    cluster: str | None = None,
    folds: int = 2,
) -> Choices:
    """Read journeys from a table of one row a journey and decision point.

    Parameters
    ----------
    time
        Any sortable column; its distinct values are the decision points.
    state
        One or more columns; each distinct combination is a state.
    action, propensity
        What was done, and the probability with which; not read where there was no choice.
    outcome
        Net value, the same in every row of a journey.
    availability
        1 where there was a choice, else 0; 1 where None.
    cluster
        Column of what is independent (the visitor), constant within a journey.

    Raises
    ------
    SchemaError
        If the table breaks this contract, with the place.
    """
    named = (journey, time, *state, action, propensity, outcome, availability, cluster)
    require_columns(table, named)
    cells = (named_codes(table, journey), named_codes(table, time))
    shape = (int(cells[0].max()) + 1, int(cells[1].max()) + 1)
    if len(np.unique(cells[0] * shape[1] + cells[1])) < table.height:
        raise SchemaError("Expected one row a journey and time, got several")
    available = availability_of(table, availability)
    chances = table.with_columns(
        pl.when(pl.Series(available)).then(pl.col(propensity)).otherwise(1.0).alias(propensity)
    )
    chance = number_column(chances, propensity, low=_LEAST_PROPENSITY, high=1)
    per_journey = PerJourney(table, cells[0], shape[0])
    clusters = None if cluster is None else per_journey.clusters(cluster)
    return Choices(
        times=table.get_column(time).unique().sort().to_list(),
        states=state_labels(table, state),
        actions=table.get_column(action).unique().sort().to_list(),
        state=spread_cells(shape, cells, key_codes(table, state), fill=-1),
        action=spread_cells(shape, cells, named_codes(table, action), fill=-1),
        features=state_features(table, state, shape, cells),
        is_open=spread_cells(shape, cells, available, fill=False),
        propensity=spread_cells(shape, cells, chance, fill=1.0),
        outcome=per_journey.values(outcome),
        fold=deal_folds(per_journey, clusters, None, folds, shape[0]),
        cluster=clusters,
    )


def choice_policy(
    choices: Choices,
    table: pl.DataFrame,
    *,
    time: str,
    state: Sequence[str],
    action: str,
    probability: str | None = None,
    default: object | None = None,
) -> Floats:
    """Make a policy, shape (H, states, actions), from a table of what to do when and where.

    Parameters
    ----------
    probability
        Column: of the action, where a policy draws; 1 where None.
    default
        The action wherever the table has no row; None where every time and state has one.

    Raises
    ------
    ConfigError
        If a time, state or action is not one of the log's, or probabilities do not add up to 1.

    Examples
    --------
    See `recoup.causal.policy_value.evaluate_policy`.
    """
    require_columns(table, (time, *state, action, probability))
    codes = [
        {label: code for code, label in enumerate(labels)}
        for labels in (choices.times, choices.states, choices.actions)
    ]
    policy = np.zeros((len(choices.times), len(choices.states), len(choices.actions)))
    chances = np.ones(table.height)
    if probability is not None:
        chances = number_column(table, probability, low=0, high=1 + _SLACK)
    rows = table.select([time, *state, action]).rows()
    for row, chance in zip(rows, chances.tolist(), strict=True):
        label = row[1] if len(state) == 1 else " | ".join(map(str, row[1 : 1 + len(state)]))
        place = (row[0], label, row[1 + len(state)])
        for known, given in zip(codes, place, strict=True):
            if given not in known:
                raise ConfigError(
                    f"Expected a time, state and action of the log, got {place}",
                    hint=f"for example {list(known)[:10]}",
                )
        at = tuple(known[given] for known, given in zip(codes, place, strict=True))
        policy[at] += chance
    return _completed(choices, policy, default)


def _completed(choices: Choices, policy: Floats, default: object | None) -> Floats:
    total = policy.sum(axis=2)
    absent = total == 0
    if absent.any() and default is not None:
        if default not in choices.actions:
            raise ConfigError(f"Expected a default among {choices.actions}, got {default!r}")
        policy[absent, list(choices.actions).index(default)] = 1.0
    needed = np.zeros(total.shape, np.bool_)
    rows, points = np.nonzero(choices.is_open)
    needed[points, choices.state[rows, points]] = True
    wrong = needed & (np.abs(policy.sum(axis=2) - 1) > _SLACK)
    if wrong.any():
        point, code = np.argwhere(wrong)[0].tolist()
        raise ConfigError(
            f"Expected probabilities that add up to 1, got {policy[point, code].sum():g} - at time "
            f"{choices.times[point]}, state {choices.states[code]}",
            hint="add the row, or name a default action",
        )
    return policy
