"""What figures of causal estimates are made of: panels, rows of intervals, a doubt below."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recoup.causal.estimate import Estimate
from recoup.report import palette

SIZE: Final = (8.2, 4.4)
TALL: Final = (8.2, 7.4)
COLOURS: Final = (palette.BLUE, palette.ORANGE, palette.GREEN, palette.RED, palette.GREY)


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many panels; ``size`` in inches."""
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.ravel())


def intervals(axes: Axes, names: Sequence[str], estimates: Sequence[Estimate], colour: str) -> None:
    """Draw estimates with their intervals, one a row, the first on top."""
    rows = list(range(len(names)))
    values = [each.value for each in estimates]
    errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    axes.errorbar(values, rows, xerr=errors, color=colour, marker="o", linestyle="none", capsize=3)
    axes.set_yticks(rows, list(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def doubt(figure: Figure, reason: str | None, *, refused: bool = True) -> None:
    """Say below the figure what must be known to read it."""
    if reason is None:
        return
    said = f"Refused: {reason}" if refused and not reason.startswith("Stop") else reason
    colour = palette.RED if refused else palette.INK
    figure.supxlabel(said, fontsize=8.5, color=colour, wrap=True, x=0.01, ha="left")
