"""The report's figures: inline SVG with live text, the same bytes for the same numbers."""

import datetime as dt
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Final, TypeVar

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from numpy.typing import NDArray
from scipy import stats

from recoup.decisions import Defect
from recoup.events import EPOCH
from recoup.report import palette, story, words
from recoup.report.summary import Day, DayDecisions, IntentBin, Summary

STYLE: Final[dict[RcKeyType, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": palette.INK,
    "text.parse_math": False,
    "axes.edgecolor": palette.LINE,
    "axes.labelcolor": palette.INK,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": palette.LINE,
    "grid.linewidth": 0.6,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "xtick.labelcolor": palette.INK,
    "ytick.labelcolor": palette.INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "recoup",
}
WIDTH_IN: Final = 7.9
FONTS: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
LABEL_LENGTH: Final = 42
SHOWN_DEFECTS: Final = 10
SHOWN_SPANS: Final = 5
SHOWN_DATES: Final = 8
SHOWN_BARS: Final = 120
Dated = TypeVar("Dated", Day, DayDecisions)


def funnel(summary: Summary) -> str:
    """Draw the sessions that reached each step, and how many went on from one to the next."""
    counts = np.array(summary.funnel.counts)
    labels = list(words.STEP_NAMES)

    def draw(axes: Axes) -> None:
        rows = np.arange(len(counts))
        axes.barh(rows, counts, color=palette.BLUE, height=0.66)
        axes.set_yticks(rows, labels)
        axes.invert_yaxis()
        axes.set_xlim(0, max(counts[0], 1) * 1.32)
        axes.set_xlabel("visits")
        _whole_ticks(axes, "x")
        _bare(axes)
        for row, text in enumerate(_funnel_notes(counts)):
            axes.text(counts[row] + max(counts[0], 1) * 0.012, row, text, va="center")

    return figure("funnel", "Visits by the furthest step reached", draw, height_in=3.0)


def daily(summary: Summary) -> str:
    """Draw conversion by day with its 95 % interval, over the visits, with defect spans shaded."""
    days, width = _pooled(summary.daily)

    spans = _spans(summary)

    def draw(*axes: Axes) -> None:
        upper, lower = axes[-2:]
        _conversion(upper, days, width)
        visits = [day.sessions for day in days]
        lower.bar(_dates(days, width), visits, color=palette.SKY, width=0.8 * width)
        lower.set_ylabel(f"visits {_per(width)}")
        _whole_ticks(lower, "y", parts=3)
        _date_ticks(lower, days, width)
        if spans:
            _strip(axes[0], upper, spans)
        for each in axes:
            each.grid(visible=False, axis="x")

    rows = (0.17 * len(spans), 2.0, 1.0) if spans else (2.0, 1.0)
    return figure("daily", "Share of visits that bought, and visits, by day", draw,
                   height_in=3.9 + 0.18 * len(spans), rows=rows)  # fmt: skip


def severity(summary: Summary) -> str:
    """Draw what each defect costs, with its 95 % interval; filled where the defect is likely."""
    defects = summary.defects[:SHOWN_DEFECTS]
    rate = story.loss_rate(summary)
    losses = [rate.of(defect.lost_value_per_hour) for defect in defects]

    def draw(axes: Axes) -> None:
        rows = np.arange(len(defects))
        for row, defect, loss in zip(rows, defects, losses, strict=True):
            likely = defect.confidence >= story.LIKELY
            colour = palette.RED if likely else palette.GREY
            axes.plot([loss.low, loss.high], [row, row], color=colour, linewidth=2.4,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(loss.value, row, "o", color=colour, markersize=8,
                      markerfacecolor=colour if likely else palette.PAPER)  # fmt: skip
        axes.axvline(0, color=palette.MUTED, linewidth=1)
        axes.set_yticks(rows, [f"{r + 1}  {_defect_label(d)}" for r, d in enumerate(defects)])
        axes.set_ylim(len(defects) - 0.4, -0.6)
        unit = f" ({summary.currency})" if summary.currency else ""
        axes.set_xlabel(f"value lost {rate.each}{unit}, with 95 % interval")
        _bare(axes)

    return figure("severity", "What each defect costs", draw, height_in=1.1 + 0.42 * len(defects))


def abandonment(summary: Summary) -> str:
    """Draw the carts left for good, by the last step reached."""
    steps = list(summary.abandoned_carts.items())
    total = sum(count for _, count in steps)
    return _bars(
        "abandonment",
        "Carts left for good, by the last step reached",
        [(words.step_words(step), count) for step, count in steps],
        note=lambda count: f"{words.count(count)}  ({words.share(count, total)})",
        unit="carts",
    )


def decisions(summary: Summary) -> str:
    """Draw the decisions by day: acting, waiting, leaving alone."""
    days, width = _pooled(summary.decided.daily)

    def draw(axes: Axes) -> None:
        when = _dates(days, width)
        base = np.zeros(len(days))
        for kind, label in (("act", "act"), ("wait", "wait"), ("never", "leave alone")):
            heights = np.array([getattr(day, kind) for day in days])
            axes.bar(when, heights, bottom=base, width=0.8, color=palette.ACTIONS[kind],
                     label=label)  # fmt: skip
            base = base + heights
        axes.set_ylabel(f"decisions {_per(width)}")
        axes.grid(visible=False, axis="x")
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
        _whole_ticks(axes, "y")
        _date_ticks(axes, days, width)

    return figure("decisions", "Decisions by day", draw, height_in=2.9)


def intent(summary: Summary) -> str:
    """Draw how often a purchase followed, against what purchase intent had said."""
    bins = [b for b in summary.intent if b.events]

    def draw(axes: Axes) -> None:
        top = max([b.predicted for b in bins] + [_wilson(b)[1] for b in bins]) * 1.06 or 1.0
        axes.plot([0, top], [0, top], color=palette.MUTED, linewidth=1, linestyle="--")
        axes.text(top * 0.97, top * 0.99, "exactly as predicted ", ha="right", color=palette.MUTED)
        for b in bins:
            axes.plot([b.predicted] * 2, _wilson(b), color=palette.BLUE, linewidth=2)
        axes.plot([b.predicted for b in bins], [b.observed for b in bins], "o",
                  color=palette.BLUE, markersize=6)  # fmt: skip
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("predicted chance of a purchase later in the visit (%)")
        axes.set_ylabel("purchase followed (%)")
        _percent_ticks(axes, "x")
        _percent_ticks(axes, "y")

    return figure("intent", "Purchase intent: predicted and observed", draw, height_in=3.4)


def standalone(title: str, draw: Callable[..., None], *, height_in: float) -> str:
    """Draw on fresh axes and give an SVG file of its own, on white."""
    svg = _svg(draw, height_in=height_in, rows=(1.0,))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" style="background:#fff" ', 1)


def figure(
    name: str,
    title: str,
    draw: Callable[..., None],
    *,
    height_in: float,
    rows: tuple[float, ...] = (1.0,),
) -> str:
    """Draw on fresh axes and give inline SVG, its ids prefixed so that figures do not clash."""
    return inlined(_svg(draw, height_in=height_in, rows=rows), name, title)


def _svg(draw: Callable[..., None], *, height_in: float, rows: tuple[float, ...]) -> str:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A stranger's letters may be missing in the font that measures; browsers have their own.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        grid = figure.subplots(len(rows), 1, sharex=len(rows) > 1, squeeze=False,
                               height_ratios=rows)  # fmt: skip
        draw(*grid[:, 0])
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return sink.getvalue()


def inlined(svg: str, name: str, title: str) -> str:
    """Make an SVG file part of a page, its ids prefixed by ``name``."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = body.replace("'DejaVu Sans', sans-serif", FONTS.replace("'", "&#39;"))
    body = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{title}">',
        body,
        count=1,
    )
    return "\n".join(line for line in body.splitlines() if line.strip())


def _bars(
    name: str,
    title: str,
    bars: Sequence[tuple[str, int]],
    *,
    note: Callable[[int], str],
    unit: str,
) -> str:
    counts = [count for _, count in bars]

    def draw(axes: Axes) -> None:
        rows = np.arange(len(bars))
        axes.barh(rows, counts, color=palette.BLUE, height=0.62)
        axes.set_yticks(rows, [_clean(label) for label, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        longest = max([*counts, 1])
        axes.set_xlim(0, longest * 1.22)
        axes.set_xlabel(unit)
        _whole_ticks(axes, "x")
        _bare(axes)
        for row, count in enumerate(counts):
            axes.text(count + longest * 0.012, row, note(count), va="center")

    return figure(name, title, draw, height_in=0.8 + 0.4 * max(len(bars), 1))


def _funnel_notes(counts: NDArray[np.int64]) -> list[str]:
    notes = [words.count(counts[0])]
    for before, here in pairwise(counts):
        notes.append(f"{words.count(here)}  ({words.share(here, before)} went on)")
    return notes


def _conversion(axes: Axes, days: Sequence[Day], width: int) -> None:
    some = [day for day in days if day.sessions]
    when = _dates(some, width)
    low, high = _jeffreys([day.buyers for day in some], [day.sessions for day in some])
    axes.fill_between(when, low, high, color=palette.BLUE, alpha=0.16, linewidth=0,
                      label="95 % interval")  # fmt: skip
    axes.plot(when, [day.buyers / day.sessions for day in some], "-o", color=palette.BLUE,
              markersize=3.5, linewidth=1.6, label="share of visits that bought")  # fmt: skip
    axes.set_ylim(0, None)
    axes.set_ylabel("visits that bought (%)")
    _percent_ticks(axes, "y")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def _spans(summary: Summary) -> list[tuple[int, float, float]]:
    """Give rank, beginning and end of the likely defects, costliest first."""
    last = summary.period.until
    return [
        (rank, _day_number(defect.since), _day_number(defect.until or last or defect.since))
        for rank, defect in enumerate(summary.defects, start=1)
        if defect.confidence >= story.LIKELY
    ][:SHOWN_SPANS]


def _strip(strip: Axes, below: Axes, spans: Sequence[tuple[int, float, float]]) -> None:
    """Draw when each defect was there, over the days; dotted where it began."""
    for row, (_, begin, end) in enumerate(spans):
        strip.barh(row, end - begin, left=begin, height=0.5, color=palette.RED)
        below.axvline(begin, color=palette.RED, linewidth=1, linestyle=":")
    strip.set_yticks(range(len(spans)), [f"defect {rank}" for rank, _, _ in spans])
    strip.set_ylim(len(spans) - 0.4, -0.6)
    strip.tick_params(axis="both", length=0, labelbottom=False)
    strip.grid(visible=False)
    for side in ("left", "bottom"):
        strip.spines[side].set_visible(False)


def _defect_label(defect: Defect) -> str:
    where = ", ".join(defect.entity.values())
    name = words.defect_words(defect.type).name
    over = " (over)" if defect.until is not None else ""
    return _clean(f"{name}: {where}" if where else name) + over


def _clean(text: str) -> str:
    """Keep a stranger's string on one short line of printable letters."""
    printable = "".join(c if c.isprintable() else "?" for c in text)
    if len(printable) <= LABEL_LENGTH:
        return printable
    return printable[: LABEL_LENGTH - 1] + "\u2026"


def _pooled(days: Sequence[Dated]) -> tuple[list[Dated], int]:
    """Pool days so that no more than can be told apart are drawn; give how many make one."""
    span = (days[-1].date - days[0].date).days + 1
    width = -(-span // SHOWN_BARS)
    if width == 1:
        return list(days), 1
    pools: dict[dt.date, Counter[str]] = {}
    for day in days:
        begin = day.date - dt.timedelta(days=(day.date - days[0].date).days % width)
        fields = msgspec.structs.asdict(day)
        del fields["date"]
        pools.setdefault(begin, Counter()).update(fields)
    return [type(days[0])(begin, **sums) for begin, sums in pools.items()], width


def _per(width: int) -> str:
    return "a day" if width == 1 else f"in {width} days"


def _dates(days: Sequence[Day | DayDecisions], width: int) -> NDArray[np.float64]:
    """Place days on the axis: the middle of each, in days since 1970."""
    return np.array([(day.date - EPOCH.date()).days + width / 2 for day in days])


def _day_number(moment: dt.datetime) -> float:
    return (moment - EPOCH).total_seconds() / 86_400


def _date_ticks(axes: Axes, days: Sequence[Day | DayDecisions], width: int) -> None:
    shown = days[:: max(-(-len(days) // SHOWN_DATES), 1)]
    form = "%b" if days[0].date.year == days[-1].date.year else "%b %Y"
    when = _dates(days, width)
    axes.set_xticks(_dates(shown, width), [f"{day.date.day} {day.date:{form}}" for day in shown])
    axes.set_xlim(when[0] - 0.6 * width, when[-1] + 0.6 * width)


def _jeffreys(
    hits: Sequence[int], trials: Sequence[int], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the ends of Jeffreys' interval of each share; see Brown, Cai and DasGupta (2001)."""
    k, n = np.asarray(hits, float), np.asarray(trials, float)
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, k + 0.5, n - k + 0.5)
    high = stats.beta.ppf(1 - tail, k + 0.5, n - k + 0.5)
    return np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)


def _wilson(b: IntentBin) -> tuple[float, float]:
    low, high = _jeffreys([round(b.observed * b.events)], [b.events])
    return float(low[0]), float(high[0])


def _bare(axes: Axes) -> None:
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _whole_ticks(axes: Axes, which: str, *, parts: int = 5) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(mpl.ticker.MaxNLocator(nbins=parts, integer=True))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: words.count(value)))


def _percent_ticks(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(mpl.ticker.MaxNLocator(nbins=6))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
