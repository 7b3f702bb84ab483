"""Ship, stop or go on: what an experiment's numbers say should be done, and why."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from recoup.causal.arms import Comparison
from recoup.causal.estimate import Estimate
from recoup.causal.sample_ratio import SampleRatio

_SMALLEST: Final = 1e-12

Verdict = Literal["ship", "stop", "go on"]
Safety = Literal["safe", "harmed", "undecided"]


class Effect(Comparison, frozen=True, kw_only=True):
    """What an arm did to a metric, against the control.

    Parameters
    ----------
    metric, arm
        Their names.
    gain
        1 where a rise is a gain, -1 where a fall is.
    control, treated
        The metric's mean, adjusted by covariates where there are any.
    relative_effect
        The difference in units of the control's mean; None where that is within four errors of 0.
    adjusted_p_value, adjusted_low, adjusted_high
        For all metrics and arms together: the p-value by the stated correction, the interval at
        Bonferroni's level.
    detectable
        The effect that would be found with a chance of 80 %, at this size and horizon.

    Examples
    --------
    See `recoup.causal.experiment.evaluate_experiment`.
    """

    metric: str
    arm: str
    gain: float
    control: float
    treated: float
    relative_effect: Estimate | None
    adjusted_p_value: float
    adjusted_low: float
    adjusted_high: float
    detectable: float


class Guarded(Comparison, frozen=True, kw_only=True):
    """What an arm did to a metric that must not get worse, relative to the control.

    Parameters
    ----------
    metric, arm
        Their names.
    gain
        1 where a rise is a gain, -1 where a fall is.
    margin
        Relative harm that would be too much.
    state
        ``safe`` where the interval excludes such harm, ``harmed`` where it holds nothing else,
        else ``undecided``; so, with NaN, where the control's mean is not told apart from 0.

    Examples
    --------
    See `recoup.causal.experiment.evaluate_experiment`.
    """

    metric: str
    arm: str
    gain: float
    margin: float
    state: Safety


class Decision(msgspec.Struct, frozen=True):
    """What to do.

    Parameters
    ----------
    verdict
        ``ship`` the arm, ``stop`` the experiment without shipping, or ``go on``.
    arm
        The arm to ship.
    reason
        Why, in words.

    Examples
    --------
    >>> Decision("go on", None, "orders: not decided yet").verdict
    'go on'
    """

    verdict: Verdict
    arm: str | None
    reason: str


class Horizon(msgspec.Struct, frozen=True, kw_only=True):
    """How far the experiment has come, and what would be worth having.

    Parameters
    ----------
    units
        So far.
    planned
        Planned beforehand; None where the experiment has no end.
    anytime
        Whether the numbers hold at every look.
    alpha
        Error that is allowed.
    worthwhile
        The relative gain below which shipping is not worth it.

    Examples
    --------
    >>> Horizon(units=10, planned=20, anytime=False, alpha=0.05, worthwhile=0.0).over
    False
    """

    units: int
    planned: int | None
    anytime: bool
    alpha: float
    worthwhile: float

    @property
    def over(self) -> bool:
        """Whether all that was planned is in; a fixed test without a plan is taken as complete."""
        return not self.anytime if self.planned is None else self.units >= self.planned


def decide(
    ratio: SampleRatio, effects: Sequence[Effect], guards: Sequence[Guarded], horizon: Horizon
) -> Decision:
    """Decide by the first metric of each arm, and by every guardrail.

    In this order: arms of wrong sizes stop it, since nothing it says is to be believed; a fixed
    test goes on to its horizon; an arm that gains and is safe is shipped; an arm goes on for as
    long as it may still turn out so; where none may, it is stopped.

    Parameters
    ----------
    effects
        Of all arms and metrics; the first metric listed is the one that decides.
    """
    if ratio.mismatch:
        sizes = ", ".join(f"{arm} {units:,}" for arm, units in ratio.units.items())
        return Decision(
            "stop",
            None,
            f"the arms have sizes ({sizes}) that the intended shares do not give "
            f"({_chance(ratio.p_value)}): assignment or logging is broken, and no number is sound",
        )
    if not horizon.anytime and not horizon.over:
        return Decision(
            "go on",
            None,
            f"{horizon.units:,} of {horizon.planned:,} planned units: a fixed test is read once, "
            "at its end (a sequential one at any time)",
        )
    first = [effect for effect in effects if effect.metric == effects[0].metric]
    fates = [_fate(effect, [g for g in guards if g.arm == effect.arm], horizon) for effect in first]
    shippable = [pair for pair in zip(first, fates, strict=True) if pair[1].verdict == "ship"]
    if shippable:
        return max(shippable, key=lambda pair: pair[0].gain * pair[0].value)[1]
    open_ = [fate for fate in fates if fate.verdict == "go on"]
    chosen = open_ or fates
    verdict: Verdict = "go on" if open_ else "stop"
    return Decision(verdict, None, "; ".join(fate.reason for fate in chosen))


def _fate(effect: Effect, guards: Sequence[Guarded], horizon: Horizon) -> Decision:
    """Say what becomes of one arm."""
    told = f"{effect.arm}: {_told(effect)}"
    harmed = [guard.metric for guard in guards if guard.state == "harmed"]
    if harmed:
        return Decision("stop", None, f"{told}, but {', '.join(harmed)} harmed beyond the margin")
    decided = effect.adjusted_p_value <= horizon.alpha
    if decided and effect.gain * effect.value < 0:
        return Decision("stop", None, f"{told}, a loss ({_chance(effect.adjusted_p_value)})")
    if _hopeless(effect, horizon):
        return Decision("stop", None, f"{told}, less than what would be worthwhile")
    if not decided:
        verdict: Verdict = "stop" if horizon.over else "go on"
        ending = "at the planned end" if horizon.over else "so far"
        return Decision(verdict, None, f"{told}, no difference shown {ending}")
    undecided = [guard.metric for guard in guards if guard.state == "undecided"]
    if undecided:
        doubt = f"{told}, a gain, but {', '.join(undecided)} may be harmed beyond the margin"
        return Decision("stop" if horizon.over else "go on", None, doubt)
    safe = ", and every guardrail is safe" if guards else ""
    return Decision(
        "ship", effect.arm, f"{told}, a gain ({_chance(effect.adjusted_p_value)}){safe}"
    )


def _told(effect: Effect) -> str:
    ends = f"[{effect.adjusted_low:+.3g}, {effect.adjusted_high:+.3g}]"
    told = f"{effect.metric} {effect.value:+.3g} {ends}"
    if effect.relative_effect is None:
        return told
    return f"{told}, that is {effect.relative_effect.value:+.1%}"


def _chance(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value > _SMALLEST else f"p < {_SMALLEST:g}"


def _hopeless(effect: Effect, horizon: Horizon) -> bool:
    """Say whether even the interval's best end is not worth having."""
    if horizon.worthwhile <= 0 or effect.relative_effect is None:
        return False
    ends = (effect.relative_effect.low, effect.relative_effect.high)
    return max(effect.gain * end for end in ends) < horizon.worthwhile
