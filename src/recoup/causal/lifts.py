"""What the policy earned, from the holdout and from its own propensities, side by side.

Both compare what happened to visitors whom the policy could act on with what they would have been
worth had no one been acted on, per visitor from the first decision that was due:

- the *holdout* estimate takes the second from the visitors who are never acted on;
- the *off-policy* estimate takes it from the first: those whom chance left alone throughout their
  window, weighed by one over the probability of that.

They share nothing but the first mean, so that their difference is a check of everything between
the draw and the report: slices, propensities, execution, the join with outcomes.

By intervention: visitors are sorted by what the reason of their first decision calls for first in
the catalogue. That is known of the holdout too, and the parts add up. It says what the policy was
worth where this intervention is the remedy, whatever else it did there.
"""

import datetime as dt
import math
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.causal.estimate import Estimate, Floats, normal_estimate, standard_error
from recoup.causal.journeys import Bools
from recoup.causal.lift import holdout_lift
from recoup.causal.nuisance import TreeMeans
from recoup.causal.off_policy import refusal
from recoup.causal.windows import Windows, decision_windows
from recoup.events import MICROS

FOLDS: Final = 5
LEAST_HOLDOUT: Final = 30
"""Visitors of either side, under which no comparison with the holdout is offered."""


class LiftRow(msgspec.Struct, frozen=True, kw_only=True):
    """Net value per visitor with the policy, less that without any act; in currency units.

    Parameters
    ----------
    intervention
        The remedy of these visitors' first reason; None for all of them.
    from_holdout, from_propensities
        The two estimates; NaN where refused.
    difference
        The first less the second, with its own interval.
    agree
        Whether that interval holds 0; None where one of them is refused.
    total
        ``from_holdout``, times the visitors the policy could act on.
    visitors, holdout, acted_on
        Visitors that the policy could act on, those of the holdout, and how many were acted on.
    effective_sample_size, largest_share
        Of the weights behind ``from_propensities``.
    refused
        Why one of them, or both, must not be used, or None.
    """

    intervention: str | None
    from_holdout: Estimate
    from_propensities: Estimate
    difference: Estimate
    agree: bool | None
    total: Estimate
    visitors: int
    holdout: int
    acted_on: int
    effective_sample_size: float
    largest_share: float
    refused: str | None


class LiftReport(msgspec.Struct, frozen=True, kw_only=True):
    """Lift in total and by intervention.

    Parameters
    ----------
    all_visitors
        In total.
    by_intervention
        The largest number of visitors first; they add up to the total.
    waiting
        Visitors whose window has not matured: not counted.
    horizon_s
        Length of the window in which a visitor's value is counted, in seconds.
    level
        Confidence of the intervals.
    """

    all_visitors: LiftRow
    by_intervention: list[LiftRow]
    waiting: int
    horizon_s: int
    level: float


def lift_report(
    decisions: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    level: float = 0.95,
) -> LiftReport:
    """Report what the policy earned, from a journal's decisions and outcomes.

    Parameters
    ----------
    decisions, outcomes, since, until
        See `recoup.causal.windows.decision_windows`.

    Examples
    --------
    See `docs/causal.md`: it takes a few hundred visitors to say anything.
    """
    return lift_of(decision_windows(decisions, outcomes, since=since, until=until), level=level)


def lift_of(windows: Windows, *, level: float = 0.95) -> LiftReport:
    """Report on windows that are made already."""
    visitors = windows.visitors
    alone = _value_alone(visitors)
    remedies = visitors["remedy"].value_counts().sort("count", "remedy", descending=[True, False])
    return LiftReport(
        all_visitors=_row(None, visitors, alone, level),
        by_intervention=[
            _row(remedy, visitors.filter(here), alone[here.to_numpy()], level)
            for remedy in remedies["remedy"]
            for here in [visitors["remedy"] == remedy]
        ],
        waiting=windows.waiting,
        horizon_s=windows.horizon_s,
        level=level,
    )


def _value_alone(visitors: pl.DataFrame) -> Floats:
    """Predict, out of fold, what a visitor is worth who is not acted on. Shape (n,).

    Fitted to those whom chance left alone; the holdout is not looked at. Any prediction will do: a
    poor one costs precision alone.
    """
    features = np.column_stack(
        [visitors["intent"].to_numpy(), visitors["remedy"].rank("dense").to_numpy()]
    ).astype(np.float64)
    weight, value = visitors["never_weight"].to_numpy(), visitors["value"].to_numpy()
    fold = np.arange(len(value)) % FOLDS
    learn = ~visitors["holdout"].to_numpy() & (weight > 0)
    found = np.zeros(len(value))
    for each in range(FOLDS):
        rows, held = learn & (fold != each), fold == each
        if rows.any():
            model = TreeMeans(trees=60, leaves=4)
            model.fit(features[rows], value[rows], sample_weight=weight[rows])
            found[held] = model.predict(features[held])
    return found


def _row(intervention: str | None, own: pl.DataFrame, alone: Floats, level: float) -> LiftRow:
    value, holdout = own["value"].to_numpy(), own["holdout"].to_numpy()
    weight = _balanced(own.filter(~pl.col("holdout")))
    treated, kept = value[~holdout], value[holdout]
    effective, share = _effective(weight)
    measured = _from_holdout(value, holdout, level)
    scores = alone[~holdout] + weight * (treated - alone[~holdout])
    offline = _from_scores(treated, scores, level)
    few = _too_few(len(treated), len(kept))
    thin = refusal(effective, share)
    difference = _difference(scores, kept, level)
    return LiftRow(
        intervention=intervention,
        from_holdout=_NOTHING if few else measured,
        from_propensities=_NOTHING if thin else offline,
        difference=_NOTHING if few or thin else difference,
        agree=None if few or thin else difference.low <= 0 <= difference.high,
        total=_NOTHING if few else _scaled(measured, len(treated)),
        visitors=len(treated),
        holdout=len(kept),
        acted_on=int((own["acts"].to_numpy()[~holdout] > 0).sum()),
        effective_sample_size=effective,
        largest_share=share,
        refused="; ".join(filter(None, (few, thin and f"from propensities: {thin}"))) or None,
    )


_NOTHING: Final = Estimate(math.nan, math.nan, math.nan, math.nan)


def _balanced(own: pl.DataFrame) -> Floats:
    """Weigh the visitors whom chance left alone, each slice by how even its weights are.

    The slice of permanent randomisation acts less, so that its visitors say more of being left
    alone. Slices are drawn at random: any shares c of them whose mean is 1 keep the estimate
    right, and c is taken from the weights alone.
    """
    weight = own["never_weight"].to_numpy()
    slices = own["slice"].to_numpy()
    precision = np.zeros(len(weight))
    for each in np.unique(slices):
        here = slices == each
        square = float((weight[here] ** 2).mean())
        precision[here] = 1.0 / square if square > 0 else 0.0
    mean = float(precision.mean()) if len(weight) else 0.0
    return weight * precision / mean if mean > 0 else weight


def _effective(weight: Floats) -> tuple[float, float]:
    total = float(weight.sum())
    if total == 0:
        return 0.0, 1.0
    return total**2 / float(weight @ weight), float(weight.max()) / total


def _from_holdout(value: Floats, holdout: Bools, level: float) -> Estimate:
    lift = holdout_lift(np.round(value * MICROS).astype(np.int64), holdout, level=level)
    if lift is None:
        return _NOTHING
    sides = (value[~holdout], value[holdout])
    se = math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in sides))
    found = lift.per_visitor
    return Estimate(found.value, found.low, found.high, se)


def _from_scores(treated: Floats, scores: Floats, level: float) -> Estimate:
    gain = treated - scores
    if len(gain) == 0:
        return _NOTHING
    value = float(gain.mean())
    return normal_estimate(value, standard_error(gain - value), level=level)


def _difference(scores: Floats, kept: Floats, level: float) -> Estimate:
    """Compare the two values of being left alone: of other visitors, so independent."""
    if min(len(scores), len(kept)) == 0:
        return _NOTHING
    value = float(scores.mean() - kept.mean())
    errors = [standard_error(side - side.mean()) for side in (scores, kept)]
    return normal_estimate(value, math.hypot(*errors), level=level)


def _scaled(found: Estimate, factor: float) -> Estimate:
    ends = (found.value, found.low, found.high, found.se)
    return Estimate(*(end * factor for end in ends))


def _too_few(treated: int, holdout: int) -> str | None:
    if min(treated, holdout) >= LEAST_HOLDOUT:
        return None
    return (
        f"from the holdout: {treated} visitors and {holdout} of the holdout, "
        f"{LEAST_HOLDOUT} of each are needed"
    )
