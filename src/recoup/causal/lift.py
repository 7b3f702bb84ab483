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

from recoup.causal.estimate import (
    NOTHING,
    Estimate,
    Floats,
    Ints,
    freedom,
    standard_error,
    student_estimate,
)
from recoup.causal.journeys import Bools
from recoup.causal.nuisance import TreeMeans
from recoup.causal.off_policy import refusal
from recoup.causal.rare_values import difference, difference_of_rare_means, rare_mean
from recoup.causal.windows import Windows, decision_windows

FOLDS: Final = 5
LEAST_CHANCE: Final = 1e-6
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
    visitors = windows.visitors.with_row_index("row")
    alone = _value_alone(visitors, windows.decisions)
    remedies = visitors["remedy"].value_counts().sort("count", "remedy", descending=[True, False])
    return LiftReport(
        all_visitors=_row(None, visitors, alone, level),
        by_intervention=[
            _row(remedy, visitors.filter(here), alone.of(here.to_numpy()), level)
            for remedy in remedies["remedy"]
            for here in [visitors["remedy"] == remedy]
        ],
        waiting=windows.waiting,
        horizon_s=windows.horizon_s,
        level=level,
    )


class _Alone(msgspec.Struct, frozen=True):
    """What a visitor is worth who is not acted on: predicted out of fold, shape (n,).

    ``variance`` is what is expected of the squared error; ``noise`` that of the weighted error,
    summed over the decisions of the window, which is known before they are drawn.
    """

    mean: Floats
    variance: Floats
    noise: Floats

    def of(self, rows: Bools) -> "_Alone":
        return _Alone(self.mean[rows], self.variance[rows], self.noise[rows])


def _value_alone(visitors: pl.DataFrame, decisions: pl.DataFrame) -> _Alone:
    """Predict what a visitor is worth who is not acted on, out of fold.

    Fitted to those whom chance left alone; the holdout is not looked at. Any prediction will do: a
    poor one costs precision alone. The error is predicted at every decision: who is still there
    after several is worth something else than who was at the first.
    """
    weight, value = visitors["never_weight"].to_numpy(), visitors["value"].to_numpy()
    fold = np.arange(len(value)) % FOLDS
    learn = ~visitors["holdout"].to_numpy() & (weight > 0)
    mean = _out_of_fold(_features(visitors), value, weight, learn, fold)
    own = decisions.join(visitors.select("visitor", "row"), on="visitor", maintain_order="left")
    rows, number = own["row"].to_numpy().astype(np.int64), own["number"].to_numpy()
    features = np.column_stack([_features(own), number])
    square = (value - mean)[rows] ** 2
    error = _out_of_fold(features, square, weight[rows], learn[rows], fold[rows])
    error = np.maximum(error, 0.0)
    chance = np.minimum(own["act_chance"].to_numpy(), 1.0 - LEAST_CHANCE)
    noise = own["weight_before"].to_numpy() ** 2 * chance / (1.0 - chance) * error
    first, size = number == 1, len(value)
    return _Alone(
        mean=mean,
        variance=np.bincount(rows[first], error[first], size).astype(np.float64),
        noise=np.bincount(rows, noise, size).astype(np.float64),
    )


def _features(table: pl.DataFrame) -> Floats:
    remedies = table["remedy"].rank("dense")
    return np.column_stack([table["intent"], remedies]).astype(np.float64)


def _out_of_fold(
    features: Floats, target: Floats, weight: Floats, learn: Bools, fold: Ints
) -> Floats:
    found = np.zeros(len(target))
    for each in range(FOLDS):
        rows, held = learn & (fold != each), fold == each
        if rows.any() and held.any():
            model = TreeMeans(trees=60, leaves=4)
            model.fit(features[rows], target[rows], sample_weight=weight[rows])
            found[held] = model.predict(features[held])
    return found


def _row(intervention: str | None, own: pl.DataFrame, alone: _Alone, level: float) -> LiftRow:
    value, holdout = own["value"].to_numpy(), own["holdout"].to_numpy()
    treated, kept = value[~holdout], value[holdout]
    rest = own.filter(~pl.col("holdout"))
    scored = _scored(rest, treated, alone.of(~holdout))
    effective, share = _effective(scored.weight)
    measured = difference_of_rare_means(treated, kept, level=level)
    few = _too_few(treated, kept)
    thin = refusal(effective, share)
    apart = NOTHING if few or thin else _apart(treated, kept, scored, level)
    return LiftRow(
        intervention=intervention,
        from_holdout=NOTHING if few else measured,
        from_propensities=NOTHING if thin else _from_scores(treated, scored, level),
        difference=apart,
        agree=None if few or thin else apart.low <= 0 <= apart.high,
        total=NOTHING if few else _scaled(measured, len(treated)),
        visitors=len(treated),
        holdout=len(kept),
        acted_on=int((rest["acts"] > 0).sum()),
        effective_sample_size=effective,
        largest_share=share,
        refused="; ".join(filter(None, (few, thin and f"from propensities: {thin}"))) or None,
    )


class _Scored(msgspec.Struct, frozen=True):
    """Scores, of shape (n,), whose mean is the value without acts; the weights behind them.

    ``least_se`` is the error that the weights were to bring, reckoned from the chances of all
    decisions. The scores' own spread knows only of weights that came up: where an act is nearly
    sure, the few who escape it carry much of the value, and most logs of this size hold none.
    """

    alone: Floats
    weight: Floats
    least_se: float


def _scored(own: pl.DataFrame, value: Floats, alone: _Alone) -> _Scored:
    factor = _shares(own, alone.variance)
    weight = own["never_weight"].to_numpy() * factor
    least = math.sqrt(float((factor**2 * alone.noise).sum())) / max(len(value), 1)
    return _Scored(alone.mean + weight * (value - alone.mean), weight, least)


def _shares(own: pl.DataFrame, variance: Floats) -> Floats:
    """Give each visitor the share that the slice has in the estimate. Shape (n,), mean 1.

    The slice of permanent randomisation acts less, so that its visitors say more of being left
    alone. Slices are drawn at random: any shares whose mean is 1 keep the estimate right, as long
    as they know nothing of the draws. So they are taken from the chances at the first decision:
    taken from the weights that came up, they would fall when a rare one does, which biases.
    """
    noise = variance / np.maximum(own["first_none_chance"].to_numpy(), LEAST_CHANCE)
    slices = own["slice"].to_numpy()
    shares = np.ones(len(noise))
    for each in np.unique(slices):
        here = slices == each
        shares[here] = 1.0 / max(float(noise[here].mean()), 1e-12)
    return shares / shares.mean() if len(shares) else shares


def _effective(weight: Floats) -> tuple[float, float]:
    total = float(weight.sum())
    if total == 0:
        return 0.0, 1.0
    return total**2 / float(weight @ weight), float(weight.max()) / total


def _from_scores(treated: Floats, scored: _Scored, level: float) -> Estimate:
    gain = treated - scored.alone
    return NOTHING if len(gain) == 0 else _mean_score(gain, scored.least_se, level)


def _apart(treated: Floats, kept: Floats, scored: _Scored, level: float) -> Estimate:
    """Take what the holdout is worth from what propensities say: lift less lift."""
    alone = _mean_score(scored.alone, scored.least_se, level)
    return difference(alone, rare_mean(kept, treated, level=level))


def _mean_score(scores: Floats, least_se: float, level: float) -> Estimate:
    influence = scores - scores.mean()
    se = max(standard_error(influence), least_se)
    return student_estimate(float(scores.mean()), se, freedom(influence), level=level)


def _scaled(found: Estimate, factor: float) -> Estimate:
    ends = (found.value, found.low, found.high, found.se)
    return Estimate(*(end * factor for end in ends))


def _too_few(treated: Floats, holdout: Floats) -> str | None:
    """Refuse by how many there are, never by what they bought: that would pick the lucky ones."""
    if min(len(treated), len(holdout)) >= LEAST_HOLDOUT:
        return None
    return (
        f"from the holdout: {len(treated)} visitors and {len(holdout)} of the holdout, "
        f"{LEAST_HOLDOUT} on each side are needed"
    )
