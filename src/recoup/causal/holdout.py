"""The running comparison of everybody the policy may act on with the permanent holdout."""

import math
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.causal.rare_values import difference_of_rare_means
from recoup.decisions import Interval
from recoup.events import MICROS

HOLDOUT: Final = "holdout"


class Lift(msgspec.Struct, frozen=True):
    """Net value per visitor with the policy, less that of the permanent holdout.

    Parameters
    ----------
    per_visitor
        Difference of means, in currency units.
    total
        The same for all visitors the policy could act on: what it saved, in currency units.
    treated, holdout
        Visitors on either side.
    """

    per_visitor: Interval
    total: Interval
    treated: int
    holdout: int


def holdout_lift(
    net_value_micros: NDArray[np.int64], is_holdout: NDArray[np.bool_], *, level: float = 0.95
) -> Lift | None:
    """Compare visitors whom the policy could act on with the permanent holdout.

    The unit is the visitor from the first moment at which a decision was due: that moment is
    defined alike on both sides and before anything was done, so the two groups differ by chance
    and by the policy alone. The interval is that of `difference_of_rare_means`.

    Parameters
    ----------
    net_value_micros
        Shape (n,): one visitor's net value within the horizon after that moment.
    is_holdout
        Shape (n,): whether the visitor is in the permanent holdout.
    level
        Confidence level, in (0, 1).

    Returns
    -------
    Lift | None
        None where a side has fewer than two visitors, or no value varies: no interval exists.

    Examples
    --------
    >>> value = np.array([3, 5, 4, 1, 2, 1]) * 1_000_000
    >>> lift = holdout_lift(value, np.array([False] * 3 + [True] * 3))
    >>> round(lift.per_visitor.value, 3), round(lift.total.value, 3)
    (2.667, 8.0)
    """
    values = net_value_micros / MICROS
    treated, holdout = values[~is_holdout], values[is_holdout]
    found = difference_of_rare_means(treated, holdout, level=level)
    if math.isnan(found.value):
        return None
    per_visitor = Interval(found.value, found.low, found.high)
    return Lift(per_visitor, per_visitor.scaled(len(treated)), len(treated), len(holdout))


class HoldoutComparison:
    """A fold of decisions and outcomes into one net value per visitor, on either side.

    A visitor counts from the first decision that was due, by the outcome of that decision's
    window: the first one, because later decisions depend on what was done before. What later acts
    on them cost within the window is taken off, since what they brought is in it. Decisions that
    were not executed do not count. Memory is one entry per such visitor.

    Examples
    --------
    >>> compared = HoldoutComparison()
    >>> visitors = [str(n) for n in range(8)]
    >>> decisions = pl.DataFrame(
    ...     {
    ...         "id": list(range(8)),
    ...         "visitor": visitors,
    ...         "executed": True,
    ...         "slice": ["policy"] * 4 + ["holdout"] * 4,
    ...     }
    ... )
    >>> values = [9, 8, 9, 8, 3, 4, 3, 4]
    >>> outcomes = pl.DataFrame(
    ...     {
    ...         "decision": list(range(8)),
    ...         "net_value_micros": [v * 1_000_000 for v in values],
    ...         "later_cost_micros": [500_000] * 4 + [0] * 4,
    ...     }
    ... )
    >>> compared.step(decisions, outcomes)
    >>> compared.lift().per_visitor.value
    4.5
    """

    def __init__(self) -> None:
        self._visitors: dict[str, int] = {}
        self._is_holdout: dict[int, bool] = {}
        self._values: dict[int, int] = {}

    def step(self, decisions: pl.DataFrame, outcomes: pl.DataFrame) -> None:
        """Take up the decisions and the (first or revised) outcomes of a batch."""
        executed = decisions.filter(pl.col("executed")).select("id", "visitor", "slice")
        for decision, visitor, group in executed.iter_rows():
            if visitor not in self._visitors:
                self._visitors[visitor] = decision
                self._is_holdout[decision] = group == HOLDOUT
        net = pl.col("net_value_micros") - pl.col("later_cost_micros")
        for decision, value in outcomes.select("decision", net).iter_rows():
            if decision in self._is_holdout:
                self._values[decision] = value

    def leave_out(self, visitors: Iterable[str]) -> None:
        """Take out visitors who turned out to be no shoppers; they do not come in again."""
        for visitor in visitors:
            decision = self._visitors.get(visitor)
            self._visitors[visitor] = -1
            if decision is not None:
                self._is_holdout.pop(decision, None)
                self._values.pop(decision, None)

    def lift(self) -> Lift | None:
        """Compare the visitors whose window has matured; None while no interval exists."""
        values = np.fromiter(self._values.values(), np.int64, len(self._values))
        sides = (self._is_holdout[decision] for decision in self._values)
        return holdout_lift(values, np.fromiter(sides, np.bool_, len(self._values)))
