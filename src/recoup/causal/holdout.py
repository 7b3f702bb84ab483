"""The running comparison of everybody the policy may act on with the permanent holdout."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from recoup.causal.lift import Lift, holdout_lift

HOLDOUT = "holdout"


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
