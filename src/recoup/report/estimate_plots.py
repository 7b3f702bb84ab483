"""Figures of the smaller causal estimates: coefficients, arms, plans, incidents, chosen rules."""

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recoup.causal.adaptive import AdaptiveValues
from recoup.causal.delay_by_action import ActionDelay
from recoup.causal.estimate import Estimate
from recoup.causal.excursion import Excursion
from recoup.causal.experiment_plan import ExperimentPlan
from recoup.causal.incidents import IncidentCost
from recoup.causal.policy_search import Found
from recoup.causal.switchback_design import SwitchbackResult
from recoup.causal.uplift import Targeting
from recoup.errors import ConfigError
from recoup.report import palette
from recoup.report.figure_parts import COLOURS, SIZE, doubt, intervals, panels

ROW: Final = 0.34
"""Height of a row of intervals, in inches; a figure's rest is 1.5."""

Plotted = (
    Excursion
    | AdaptiveValues
    | ExperimentPlan
    | IncidentCost
    | Targeting
    | Found
    | SwitchbackResult
    | list[ActionDelay]
)


@singledispatch
def draw(found: object) -> Figure:
    """Draw an estimate as a figure of matplotlib.

    Raises
    ------
    ConfigError
        If there is no figure of such an object.
    """
    raise ConfigError(
        f"Expected an estimate, got {type(found).__name__}",
        hint="give what an estimator of recoup.causal returned",
    )


@draw.register
def _excursion(found: Excursion) -> Figure:
    figure, (axes,) = panels(1, 1, _rows(len(found.effects)))
    intervals(axes, [each.term for each in found.effects], found.effects, palette.BLUE)
    axes.axvline(0, color=palette.MUTED, linewidth=1)
    axes.set_xlabel("effect of the act, by term")
    return figure


@draw.register
def _adaptive(found: AdaptiveValues) -> Figure:
    figure, (left, right) = panels(1, 2, _rows(3 * len(found.contrast)))
    arms = [f"arm {arm}" for arm in range(len(found.arms))]
    intervals(left, arms, found.arms, palette.BLUE)
    left.set_xlabel("value of an arm")
    kinds = (
        ("weighted", found.contrast, palette.BLUE),
        ("batched", found.batched, palette.GREEN),
        ("naive", found.naive, palette.RED),
    )
    names = [f"{arm}, {kind}" for arm in arms[1:] for kind, _, _ in kinds]
    for place, (_, estimates, colour) in enumerate(kinds):
        rows = range(place, len(names), len(kinds))
        errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        right.errorbar(
            [each.value for each in estimates], rows, xerr=errors, color=colour, marker="o",
            linestyle="none", capsize=3,
        )  # fmt: skip
    right.set_yticks(range(len(names)), names)
    right.set_ylim(len(names) - 0.5, -0.5)
    right.grid(visible=False, axis="y")
    right.axvline(0, color=palette.MUTED, linewidth=1)
    right.set_xlabel("difference from arm 0")
    doubt(figure, f"Naive: {found.warning}", refused=False)
    return figure


@draw.register
def _plan(found: ExperimentPlan) -> Figure:
    figure, (axes,) = panels(1, 1, SIZE)
    known = [each for each in found.durations if not each.extrapolated]
    beyond = [each for each in found.durations if each.extrapolated]
    axes.plot([e.days for e in known], [e.relative for e in known], color=palette.BLUE,
              label="by the log")  # fmt: skip
    if beyond:
        later = [*known[-1:], *beyond]
        axes.plot([e.days for e in later], [e.relative for e in later], color=palette.BLUE,
                  linestyle="--", label="beyond the log")  # fmt: skip
    wanted = abs(found.effect)
    axes.axhline(wanted, color=palette.ORANGE, linewidth=1.2, label=f"looked for: {wanted:.1%}")
    if found.days_needed is not None:
        axes.axvline(found.days_needed, color=palette.MUTED, linewidth=1, linestyle=":")
        axes.annotate(f"{found.days_needed} days ", (found.days_needed, wanted), fontsize=8.5,
                      va="top", ha="right")  # fmt: skip
    # The first days find next to nothing; the figure is about the rest.
    typical = sorted(each.relative for each in found.durations)[len(found.durations) // 2]
    axes.set_ylim(0, 3 * max(wanted, typical))
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axes.set_xlabel("days")
    axes.set_ylabel(f"effect on {found.metric} that would be found")
    axes.legend(fontsize=8.5)
    return figure


@draw.register
def _incident(found: IncidentCost) -> Figure:
    figure, (left, right) = panels(1, 2, _rows(2 + len(found.placebo)))
    names = ["the incident", *(f"window {n} before" for n in range(1, len(found.placebo) + 1))]
    intervals(left, names, [found.lost_orders, *found.placebo], palette.RED)
    left.axvline(0, color=palette.MUTED, linewidth=1)
    left.set_xlabel("orders lost; windows before should hold 0")
    intervals(right, ["the incident"], [found.lost_value], palette.RED)
    right.axvline(0, color=palette.MUTED, linewidth=1)
    right.set_xlabel("value lost")
    doubt(figure, found.refused)
    return figure


@draw.register
def _switchback(found: SwitchbackResult) -> Figure:
    figure, (axes,) = panels(1, 1, _rows(len(found.effects)))
    relative = [e.relative_effect for e in found.effects if e.relative_effect is not None]
    whole = len(relative) == len(found.effects)
    intervals(
        axes,
        [each.metric for each in found.effects],
        relative if whole else found.effects,
        palette.BLUE,
    )
    if whole:
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    axes.axvline(0, color=palette.MUTED, linewidth=1)
    axes.set_xlabel(f"difference from the other block; {found.pairs:,} pairs")
    doubt(figure, "; ".join(found.warnings) or None, refused=False)
    return figure


@draw.register
def _targeting(found: Targeting) -> Figure:
    gains = {"over acting on no one": found.over_none, "over acting on all": found.over_all}
    return _gains(
        gains, f"gain per row, costs paid; acts on {found.share:.0%}, judged on other rows"
    )


@draw.register
def _search(found: Found) -> Figure:
    gains = {
        "on the other half": found.advantage,
        "on the half that chose it": found.chosen_on,
    }
    return _gains(gains, f"advantage over never acting of: {found.name}")


def _gains(gains: Mapping[str, Estimate], label: str) -> Figure:
    figure, (axes,) = panels(1, 1, _rows(len(gains)))
    intervals(axes, list(gains), list(gains.values()), palette.BLUE)
    axes.axvline(0, color=palette.MUTED, linewidth=1)
    axes.set_xlabel(label)
    return figure


@draw.register(list)
def _by_action(found: Sequence[ActionDelay]) -> Figure:
    figure, (axes,) = panels(1, 1, SIZE)
    curves_by_action(axes, found)
    return figure


def curves_by_action(axes: Axes, found: Sequence[ActionDelay]) -> None:
    """Draw what taking each action from a time on is worth, with intervals."""
    for place, each in enumerate(found):
        points, colour = each.value_against_delay, COLOURS[place % len(COLOURS)]
        errors = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
        shift = 0.08 * (place - (len(found) - 1) / 2)
        axes.errorbar(
            [at + shift for at in range(len(points))], [p.value for p in points], errors,
            color=colour, marker="o", markersize=4, capsize=3, label=each.action,
        )  # fmt: skip
    if found:
        times = [str(point.time) for point in found[0].value_against_delay]
        axes.set_xticks(range(len(times)), times)
        axes.legend(fontsize=8.5, ncols=5, loc="lower left", bbox_to_anchor=(0, 1.0))
    axes.set_xlabel("take the action at the first open point from here on")
    axes.set_ylabel("value per journey")


def _rows(rows: int) -> tuple[float, float]:
    return SIZE[0], 1.5 + ROW * rows
