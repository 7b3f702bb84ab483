"""Figures of causal estimates, as SVG or PNG: the estimate, its interval, and the doubt."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from recoup.causal.delay import Delay
from recoup.causal.delay_by_action import ActionDelay
from recoup.causal.experiment import ExperimentResult, Look
from recoup.causal.lift import LiftReport, LiftRow
from recoup.causal.off_policy import OffPolicy
from recoup.causal.policy_value import PolicyValue
from recoup.causal.uplift import Uplift
from recoup.causal.uplift_curves import Curve
from recoup.errors import ConfigError
from recoup.report import estimate_plots, palette
from recoup.report.figure_parts import COLOURS, SIZE, TALL, doubt, intervals, panels
from recoup.report.plots import STYLE, inlined

DOTS_PER_INCH: Final = 150
REGRET_PARTS: Final = ("early", "late", "missed", "unnecessary")
_FILE_STYLE: Final[dict[RcKeyType, Any]] = {
    **STYLE,
    "figure.facecolor": palette.PAPER,
    "savefig.facecolor": palette.PAPER,
    "svg.fonttype": "path",
}


class UpliftFigure(msgspec.Struct, frozen=True):
    """What the figure of an uplift shows.

    Parameters
    ----------
    curve
        Of the predicted effect.
    uplift
        Its groups and calibration.

    Examples
    --------
    See `plot`.
    """

    curve: Curve
    uplift: Uplift


class DelayFigure(msgspec.Struct, frozen=True):
    """What the figure of a cost of delay shows where actions are named.

    Parameters
    ----------
    delay
        Of acting, whichever action it is.
    by_action
        Of each action.

    Examples
    --------
    See `plot`.
    """

    delay: Delay
    by_action: list[ActionDelay]


Plotted = (
    OffPolicy
    | Delay
    | DelayFigure
    | ExperimentResult
    | PolicyValue
    | UpliftFigure
    | LiftReport
    | estimate_plots.Plotted
)


def plot(found: Plotted, path: Path | str) -> None:
    """Draw an estimate to a file; its suffix, ``.svg`` or ``.png``, is the format.

    Raises
    ------
    ConfigError
        If the suffix is another, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import polars as pl
    >>> from recoup.causal import evaluate_off_policy
    >>> log = pl.DataFrame({"r": np.arange(100) % 2, "p": 0.5, "pi": np.arange(100) % 3 / 4})
    >>> found = evaluate_off_policy(log, reward="r", propensity="p", target="pi")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot(found, Path(folder) / "overlap.svg")
    ...     (Path(folder) / "overlap.svg").read_text()[:5]
    '<?xml'
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in (".svg", ".png"):
        raise ConfigError(
            f"Expected a figure's file to end in .svg or .png, got {file.name!r}",
            hint="for example --plot curve.png",
        )
    try:
        _write(found, file, suffix)
    except OSError as error:
        raise ConfigError(f"Expected a figure's file that can be written, got: {error}") from error


def _write(found: Plotted, file: Path, suffix: str) -> None:
    with mpl.rc_context(_FILE_STYLE):
        figure = draw(found)
        # What the file would say of its making is left out: same numbers, same bytes.
        if suffix == ".svg":
            FigureCanvasSVG(figure)
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        else:
            FigureCanvasAgg(figure)
            figure.savefig(file, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})


def inline(found: Plotted, name: str, title: str) -> str:
    """Draw an estimate as SVG within a page; ``name`` keeps its ids apart from other figures'."""
    sink = io.StringIO()
    with mpl.rc_context(STYLE):
        figure = draw(found)
        FigureCanvasSVG(figure)
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return inlined(sink.getvalue(), name, title)


def draw(found: Plotted) -> Figure:
    """Draw an estimate as a figure of matplotlib, to go on with."""
    return estimate_plots.draw(found)


@estimate_plots.draw.register
def _overlap(found: OffPolicy) -> Figure:
    figure, (left, right) = panels(1, 2, SIZE)
    powers = sorted(found.overlap)
    left.bar(powers, [found.overlap[power] for power in powers], color=palette.BLUE, width=0.85)
    left.set_yscale("log")
    left.set_ylim(0.8, None)  # one row is seen, and none is not
    left.yaxis.set_major_locator(mpl.ticker.LogLocator(base=10))
    left.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    left.set_xlabel("weight: target over logged probability")
    left.set_ylabel("rows")
    left.xaxis.set_major_locator(mpl.ticker.MaxNLocator(nbins=7, integer=True))
    left.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: _power(value)))
    worth = f"{found.rows:,} rows, worth {found.effective_sample_size:,.0f} of the target's own"
    left.set_title(worth, fontsize=9.5, loc="left")
    names = list(found.estimates)
    intervals(right, names, [found.estimates[name] for name in names], palette.BLUE)
    right.axvline(found.logged_mean, color=palette.GREY, linewidth=1.2, linestyle="--")
    right.set_title("estimates; dashed: the log's mean", fontsize=9.5, loc="left")
    doubt(figure, found.refused)
    return figure


@estimate_plots.draw.register
def _delay(found: Delay) -> Figure:
    figure, (upper, lower) = panels(2, 1, TALL)
    _waiting(upper, found)
    _regret(lower, found)
    doubt(figure, found.refused)
    return figure


@estimate_plots.draw.register
def _delay_by_action(found: DelayFigure) -> Figure:
    if not found.by_action:
        return _delay(found.delay)
    figure, (upper, middle, lower) = panels(3, 1, (TALL[0], 1.5 * TALL[1]))
    _waiting(upper, found.delay)
    estimate_plots.curves_by_action(middle, found.by_action)
    _regret(lower, found.delay)
    doubt(figure, found.delay.refused)
    return figure


def _waiting(axes: Axes, found: Delay) -> None:
    points = found.value_against_delay
    places, labels = list(range(len(points))), [str(point.time) for point in points]
    axes.fill_between(
        places,
        [point.band_low for point in points],
        [point.band_high for point in points],
        color=palette.BLUE,
        alpha=0.16,
        linewidth=0,
        label=f"{found.level:.0%} band, whole curve",
    )
    errors = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
    axes.errorbar(
        places, [point.value for point in points], errors, color=palette.BLUE, marker="o",
        markersize=4, capsize=3, label=f"{found.level:.0%} interval, each point",
    )  # fmt: skip
    thin = [(place, p.value) for place, p in enumerate(points) if p.refused is not None]
    if thin:
        axes.plot(
            *zip(*thin, strict=True), color=palette.RED, marker="o", linestyle="none",
            markerfacecolor="white", zorder=3, label="too few acts",
        )  # fmt: skip
    axes.axhline(found.logged_value.value, color=palette.GREY, linestyle="--", label="the log")
    axes.set_xticks(places, labels)
    axes.set_xlabel("act at the first open point from here on")
    axes.set_ylabel("value per journey")
    axes.legend(fontsize=8.5, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))


def _regret(axes: Axes, found: Delay) -> None:
    regret = found.regret
    parts = [getattr(regret, part) for part in REGRET_PARTS]
    intervals(axes, ["regret of the log", *REGRET_PARTS], [regret, *parts], palette.RED)
    axes.axvline(0, color=palette.MUTED, linewidth=1)
    axes.set_xlabel(f"lost per journey, against the policy ({found.policy})")


@estimate_plots.draw.register
def _experiment(found: ExperimentResult) -> Figure:
    if not found.sequence:
        figure, (axes,) = panels(1, 1, (SIZE[0], 1.6 + 0.4 * len(found.effects)))
        names = [f"{effect.metric}, {effect.arm}" for effect in found.effects]
        relative = [e.relative_effect for e in found.effects if e.relative_effect is not None]
        whole = len(relative) == len(names)
        intervals(axes, names, relative if whole else found.effects, palette.BLUE)
        axes.axvline(0, color=palette.MUTED, linewidth=1)
        if whole:
            axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        axes.set_xlabel("difference from the control")
    else:
        figure, (axes,) = panels(1, 1, SIZE)
        arms = dict.fromkeys(look.arm for look in found.sequence)
        for colour, arm in zip(COLOURS, arms, strict=False):
            looks = [look for look in found.sequence if look.arm == arm]
            _sequence(axes, looks, arm, colour, mark=found.test == "anytime")
        _fit_to_settled(axes, found.sequence)
        axes.axhline(0, color=palette.MUTED, linewidth=1)
        axes.set_xlabel("units so far")
        axes.set_ylabel(f"effect on {found.effects[0].metric}")
        kind = "at every look" if found.test == "anytime" else "at one look only"
        axes.set_title(f"{found.level:.0%} intervals, valid {kind}", fontsize=9.5, loc="left")
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend(fontsize=8.5, ncols=5, loc="lower right", bbox_to_anchor=(1, 1.0))
    verdict = f"{found.decision.verdict.capitalize()}. {found.decision.reason}"
    doubt(figure, verdict, refused=found.refused is not None)
    return figure


def _sequence(axes: Axes, looks: Sequence[Look], arm: str, colour: str, *, mark: bool) -> None:
    """Draw one arm; ``mark`` where it first differs, which looks must be allowed for."""
    units = [look.units for look in looks]
    low, high = [look.low for look in looks], [look.high for look in looks]
    axes.fill_between(units, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(units, [look.value for look in looks], color=colour, linewidth=1.6, label=arm)
    decided = next((look for look in looks if look.low > 0 or look.high < 0), None)
    if mark and decided is not None:
        axes.axvline(decided.units, color=colour, linewidth=1, linestyle=":")
        axes.annotate(
            f" {arm} differs from {decided.units:,} units on",
            (decided.units, 0.0),
            xycoords=("data", "axes fraction"),
            color=colour,
            fontsize=8.5,
            va="bottom",
        )


def _fit_to_settled(axes: Axes, looks: Sequence[Look]) -> None:
    """Leave room for every arm; the first looks are as wide as they like, the rest is the point."""
    settled = looks[len(looks) // 5 :] if len(looks) > 5 else looks  # noqa: PLR2004 - few: all
    reach = 1.15 * max(max(abs(look.low), abs(look.high)) for look in settled)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, -reach), min(top, reach))


@estimate_plots.draw.register
def _policy(found: PolicyValue) -> Figure:
    figure, (left, right) = panels(1, 2, (SIZE[0], 2.0 + 0.3 * len(found.regret_by_time)))
    intervals(left, ["the policy", "the log"], [found.value, found.logged], palette.BLUE)
    left.set_xlabel("value per journey")
    times = [f"at {each.time}" for each in found.regret_by_time]
    intervals(
        right, ["regret of the log", *times], [found.regret, *found.regret_by_time], palette.RED
    )
    right.axvline(0, color=palette.MUTED, linewidth=1)
    right.set_xlabel("lost per journey")
    doubt(figure, found.refused)
    return figure


@estimate_plots.draw.register
def _lift(found: LiftReport) -> Figure:
    told_of = [row for row in found.by_intervention if _answered(row)]
    rows = [found.all_visitors, *told_of]
    figure, (axes,) = panels(1, 1, (SIZE[0], 1.8 + 0.42 * len(rows)))
    told = (
        ("against the holdout", [row.from_holdout for row in rows], palette.BLUE, -0.14),
        ("from propensities", [row.from_propensities for row in rows], palette.ORANGE, 0.14),
    )
    for label, estimates, colour, shift in told:
        places = [place + shift for place in range(len(rows))]
        errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        axes.errorbar(
            [each.value for each in estimates], places, xerr=errors, color=colour, marker="o",
            markersize=4, linestyle="none", capsize=3, label=label,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [_lift_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=palette.MUTED, linewidth=1)
    axes.set_xlabel("net value per visitor, policy less nobody acted on")
    axes.legend(fontsize=8.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0))
    doubt(figure, found.all_visitors.refused)
    return figure


def _answered(row: LiftRow) -> bool:
    return row.from_holdout.se > 0 or row.from_propensities.se > 0


def _lift_name(row: LiftRow) -> str:
    name = "all visitors" if row.intervention is None else row.intervention.replace("_", " ")
    return f"{name} ({row.visitors:,} : {row.holdout:,})"


@estimate_plots.draw.register
def _uplift(found: UpliftFigure) -> Figure:
    figure, (left, right) = panels(1, 2, SIZE)
    rows, gain = found.curve.rows, found.curve.gain
    left.plot(rows, gain, color=palette.BLUE, linewidth=1.6, label="by predicted effect")
    left.plot([0, rows[-1]], [0, gain[-1]], color=palette.GREY, linestyle="--", label="at random")
    left.set_xlabel("rows acted on, most promising first")
    left.set_ylabel("additional outcomes (Qini)")
    left.legend(fontsize=8.5)
    groups = found.uplift.groups
    predicted, seen = [g.predicted for g in groups], [g.value for g in groups]
    errors = [[g.value - g.low for g in groups], [g.high - g.value for g in groups]]
    right.errorbar(
        predicted, seen, errors, color=palette.BLUE, marker="o", linestyle="none", capsize=3
    )
    ends = [min(predicted + seen), max(predicted + seen)]
    right.plot(ends, ends, color=palette.GREY, linestyle="--", label="predicted = found")
    right.axhline(0, color=palette.MUTED, linewidth=1)
    right.set_xlabel("predicted effect, mean of each fifth")
    right.locator_params(axis="x", nbins=5)
    right.set_ylabel("effect found")
    right.legend(fontsize=8.5, loc="upper left")
    return figure


def _power(exponent: float) -> str:
    return f"{2.0**exponent:g}" if exponent >= 0 else f"1/{2.0**-exponent:g}"
