"""How well a score ranks by effect: uplift and Qini curves, their areas, uplift among the first k.

Defined once, for a binary treatment assigned at random. With n1, n0 treated and untreated rows and
y1, y0 their outcomes among the highest scores,

- uplift curve: (y1 / n1 - y0 / n0) (n1 + n0);
- Qini curve: y1 - y0 n1 / n0;

each a point per distinct score, 0 where an arm is absent. Areas are above the straight line to the
last point, as a share of that of the best possible order. These are the definitions of
scikit-uplift 0.5.1, which hold for one probability of treatment. Where it differs from row to row,
arms differ by more than the treatment: state it, and rows count 1 / P(their arm), scaled to add up
to the rows of each arm.
"""

import math
from typing import Literal

import msgspec
import numpy as np

from recoup.causal.estimate import Floats, Ints
from recoup.errors import SchemaError

CurveKind = Literal["uplift", "qini"]


class Curve(msgspec.Struct, frozen=True):
    """Gain over rows taken in order of the score.

    Parameters
    ----------
    rows
        Shape (m,): how many rows are taken, from 0.
    gain
        Shape (m,): additional outcomes among them.

    Examples
    --------
    >>> y, t, score = np.array([1.0, 0.0, 0.0, 0.0]), np.array([1, 0, 1, 0]), np.arange(4.0)[::-1]
    >>> curve(y, t, score, "qini").gain.tolist()
    [0.0, 1.0, 1.0, 1.0, 1.0]
    """

    rows: Ints
    gain: Floats

    @property
    def area(self) -> float:
        """Area under the curve, by trapezoids."""
        return float(np.trapezoid(self.gain, self.rows))

    @property
    def area_above_line(self) -> float:
        """Area between the curve and the line from 0 to its last point."""
        return self.area - float(self.rows[-1] * self.gain[-1]) / 2


def curve(
    outcome: Floats,
    treated: Ints,
    score: Floats,
    kind: CurveKind = "qini",
    *,
    propensity: Floats | None = None,
) -> Curve:
    """Draw an uplift or Qini curve.

    Parameters
    ----------
    outcome, treated, score
        Shape (n,); ``treated`` 0 or 1; the highest scores are taken first.
    propensity
        Shape (n,): P(treated), in (0, 1); the same for all rows where None.

    Raises
    ------
    SchemaError
        If an arm is absent, or lengths differ.
    """
    _check(outcome, treated, score)
    order = _descending(score)
    weight = _arm_weights(treated, propensity)[order]
    outcome, treated, score = outcome[order], treated[order], score[order]
    acted, left = treated * weight, (1 - treated) * weight
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    taken = ends + 1
    with_act, without = np.cumsum(acted)[ends], np.cumsum(left)[ends]
    gained, natural = np.cumsum(outcome * acted)[ends], np.cumsum(outcome * left)[ends]
    if kind == "uplift":
        gain = (_share(gained, with_act) - _share(natural, without)) * taken
    else:
        gain = gained - _share(natural, without) * with_act
    return Curve(np.append(0, taken), np.append(0.0, gain))


def uplift_area(outcome: Floats, treated: Ints, score: Floats, kind: CurveKind = "qini") -> float:
    """Give the area above random, as a share of the best order's: 1 is perfect, 0 random.

    ``qini`` is the Qini coefficient, ``uplift`` the normalised AUUC. Outcomes are 0 or 1, else
    there is no best order. NaN where all orders are equal, as when nobody buys.

    Raises
    ------
    SchemaError
        If an outcome is neither 0 nor 1.
    """
    if not ((outcome == 0) | (outcome == 1)).all():
        raise SchemaError(
            "Expected outcomes of 0 and 1 for a normalised area, got others",
            hint="use curve(...).area_above_line for amounts",
        )
    best = curve(outcome, treated, _best_order(outcome, treated, kind), kind)
    if best.area_above_line == 0:
        return math.nan
    return curve(outcome, treated, score, kind).area_above_line / best.area_above_line


def uplift_at(
    outcome: Floats,
    treated: Ints,
    score: Floats,
    share: float,
    *,
    by_group: bool = False,
    propensity: Floats | None = None,
) -> float:
    """Give the difference of mean outcomes among the ``share``, in (0, 1], with highest scores.

    Parameters
    ----------
    by_group
        Take the share of each arm apart, instead of both together.
    propensity
        Shape (n,): P(treated), in (0, 1); the same for all rows where None.

    Examples
    --------
    >>> y, t, score = np.array([1.0, 0.0, 0.0, 1.0]), np.array([1, 0, 1, 0]), np.arange(4.0)[::-1]
    >>> uplift_at(y, t, score, 0.5)
    1.0
    """
    _check(outcome, treated, score)
    weight, order = _arm_weights(treated, propensity), _descending(score)
    treated = treated[order]
    if by_group:
        sides = [order[treated == arm] for arm in (1, 0)]
        sides = [side[: int(len(side) * share)] for side in sides]
    else:
        first = int(len(outcome) * share)
        sides = [order[:first][treated[:first] == arm] for arm in (1, 0)]
    if min(map(len, sides)) == 0:
        raise SchemaError(
            f"Expected both arms among the first {share:.0%}, got one", hint="take a larger share"
        )
    acted, left = (np.average(outcome[side], weights=weight[side]) for side in sides)
    return float(acted - left)


def mean_uplift(outcome: Floats, treated: Ints, score: Floats, *, bins: int = 10) -> float:
    """Give the mean over equal bins of the score of the uplift in each, weighted by the treated."""
    _check(outcome, treated, score)
    total = weight = 0.0
    for rows in np.array_split(_descending(score), bins):
        acted = treated[rows] == 1
        if acted.all() or not acted.any():
            continue
        effect = float(outcome[rows][acted].mean() - outcome[rows][~acted].mean())
        total, weight = total + effect * acted.sum(), weight + acted.sum()
    return float(total / weight)


def _best_order(outcome: Floats, treated: Ints, kind: CurveKind) -> Floats:
    if kind == "qini":
        return np.asarray(outcome * treated - outcome * (1 - treated))
    natural = ((outcome == 1) & (treated == 0)).sum()
    in_vain = ((outcome == 0) & (treated == 1)).sum()
    return np.asarray(2.0 * (outcome == treated) + (outcome if natural > in_vain else treated))


def _descending(score: Floats) -> Ints:
    return np.argsort(score, kind="stable")[::-1]


def _share(total: Floats, count: Floats) -> Floats:
    return np.where(count > 0, total / np.where(count > 0, count, 1.0), 0.0)


def _arm_weights(treated: Ints, propensity: Floats | None) -> Floats:
    """Give 1 / P(a row's arm), shape (n,), with mean 1 in each arm; 1 where all are alike."""
    weight = np.ones(len(treated))
    if propensity is None or np.ptp(propensity) == 0:
        return weight
    for arm, chance in ((1, propensity), (0, 1 - propensity)):
        rows = treated == arm
        weight[rows] = 1 / chance[rows]
        weight[rows] /= weight[rows].mean()
    return weight


def _check(outcome: Floats, treated: Ints, score: Floats) -> None:
    if not len(outcome) == len(treated) == len(score):
        raise SchemaError("Expected outcome, treatment and score of one length")
    if set(np.unique(treated).tolist()) != {0, 1}:
        raise SchemaError("Expected a treatment of 0 and 1, both present", hint="name two arms")
