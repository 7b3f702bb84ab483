"""The best of a few interpretable rules, and what it is worth on journeys it was not chosen on."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Final

import msgspec
import numpy as np

from recoup.causal.delay import Policy, policy_matrix
from recoup.causal.delay_scores import Variant, starting_scores, waiting_scores
from recoup.causal.estimate import Estimate, Floats, Ints, mean, mean_estimate
from recoup.causal.journeys import Bools, Journeys, Known
from recoup.causal.nuisance import RegressorFactory, cross_fit
from recoup.errors import ConfigError

MOST_STATES: Final = 8


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen rule.

    Parameters
    ----------
    name
        Of the rule.
    advantage
        Over never acting, on the half it was not chosen on: honest.
    chosen_on
        The same on the half it was chosen on: too high, since it won there (the winner's curse).
    tried
        How many rules.

    Examples
    --------
    See `search_policies`.
    """

    name: str
    advantage: Estimate
    chosen_on: Estimate
    tried: int


def search_policies(
    journeys: Journeys,
    rules: Mapping[str, Policy] | None = None,
    *,
    regressor: RegressorFactory | None = None,
    variant: Variant = "adr",
    level: float = 0.95,
) -> Found:
    """Choose the rule of greatest advantage on one half of the folds, and judge it on the other.

    Nuisances are cross-fitted within each half, so that the halves share nothing.

    Parameters
    ----------
    journeys
        Their ``fold`` makes the halves (even and odd), so visitors stay whole.
    rules
        Name -> policy of shape (H, k). Where None: ``start_and_states``.

    Examples
    --------
    >>> from recoup.causal.known_truth import reference_problem
    >>> log = reference_problem().paths(folds=4).draw(100_000, seed=2)
    >>> found = search_policies(log)
    >>> found.name, found.advantage.low < 7.21 < found.advantage.high  # the truth of the best
    ('from 1 in 1, 2', True)

    References
    ----------
    Nie, Brunskill & Wager (2021), Learning when-to-treat policies, JASA 116.
    """
    rules = dict(start_and_states(journeys)) if rules is None else rules
    halves = [_Half(_take(journeys, side), regressor, variant) for side in (0, 1)]
    if not rules or min(len(half.log.outcome) for half in halves) == 0:
        raise ConfigError("Expected at least one rule and journeys in both halves, got none")
    name = max(rules, key=lambda each: halves[0].mean(rules[each]))
    return Found(
        name=name,
        advantage=halves[1].estimate(rules[name], level),
        chosen_on=halves[0].estimate(rules[name], level),
        tried=len(rules),
    )


def held_out(journeys: Journeys) -> Journeys:
    """Give the half that `search_policies` judges on: nothing was chosen on it."""
    return _take(journeys, 1)


def start_and_states(journeys: Journeys) -> Iterator[tuple[str, Bools]]:
    """List the rules "from this time on, act in these states", by name.

    Raises
    ------
    ConfigError
        If there are more than 8 states: 2^k rules a time would be too many to tell apart.
    """
    count = len(journeys.states)
    if count > MOST_STATES:
        raise ConfigError(
            f"Expected at most {MOST_STATES} states, got {count}",
            hint="pass the rules to compare, or coarsen the states",
        )
    yield "never", np.zeros((journeys.points, count), np.bool_)
    for start, chosen in product(range(journeys.points), product((False, True), repeat=count)):
        if not any(chosen):
            continue
        table = np.zeros((journeys.points, count), np.bool_)
        table[start:] = chosen
        named = [str(label) for label, acts in zip(journeys.states, chosen, strict=True) if acts]
        yield f"from {journeys.times[start]} in {', '.join(named)}", table


class _Half:
    """One half of the journeys, with its own nuisances."""

    def __init__(self, log: Journeys, regressor: RegressorFactory | None, variant: Variant) -> None:
        self.log = log
        fitted = cross_fit(self.log, self.log.is_open, regressor)
        self._psi = waiting_scores(self.log, fitted, variant)

    def scores(self, rule: Policy) -> Floats:
        """Give the advantage scores of a rule, shape (n,)."""
        return starting_scores(self.log, self._psi, policy_matrix(self.log, rule))

    def mean(self, rule: Policy) -> float:
        """Give the estimated advantage of a rule."""
        return mean(self.scores(rule), self.log.count)

    def estimate(self, rule: Policy, level: float) -> Estimate:
        """Give it with its interval."""
        log = self.log
        return mean_estimate(self.scores(rule), level=level, clusters=log.cluster, count=log.count)


def _take(whole: Journeys, side: int) -> Journeys:
    """Give one half of the journeys, with folds of its own."""
    rows = whole.fold % 2 == side
    kept = {
        name: getattr(whole, name)[rows]
        for name in ("state", "features", "is_open", "propensity", "act_at", "outcome")
    }
    cluster = (
        None if whole.cluster is None else np.unique(whole.cluster[rows], return_inverse=True)[1]
    )
    fold = np.unique(whole.fold[rows], return_inverse=True)[1]
    if fold.max(initial=0) == 0:
        raise ConfigError(
            "Expected at least four folds, to cross-fit within each half", hint="pass folds=4"
        )
    return msgspec.structs.replace(
        whole,
        fold=fold,
        cluster=cluster,
        count=None if whole.count is None else whole.count[rows],
        segment=None,
        known=[Known(each.name, each.labels, each.code[rows]) for each in whole.known],
        actions=None,
        **_others(whole, rows),
        **kept,
    )


def _others(whole: Journeys, rows: Bools) -> dict[str, Ints | Floats]:
    """Give what is known of acts of another kind, for some rows; see `Journeys.of_action`."""
    if whole.other_at is None or whole.other_propensity is None:
        return {}
    return {
        "other_at": whole.other_at[rows],
        "other_propensity": whole.other_propensity[rows],
    }
