"""What the commands on plain tables share: reading one, printing estimates."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.output import stdout
from recoup.errors import SourceError

if TYPE_CHECKING:
    import polars as pl

    from recoup.causal.estimate import Estimate
    from recoup.report.causal_plots import Plotted

Table = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="A Parquet or CSV file: one row a decision."),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw the estimates to FILE, .svg or .png."),
]
Level = Annotated[float, typer.Option(help="Confidence of the intervals, in (0, 1).")]


def read_table(path: Path) -> "pl.DataFrame":
    """Read a Parquet or CSV file whole.

    Raises
    ------
    SourceError
        If it is absent, of another format, or cannot be read.
    """
    import polars as pl

    if path.suffix.lower() not in (".parquet", ".csv"):
        raise SourceError(f"Expected a .parquet or .csv file, got {path}", hint="convert the table")
    if not path.is_file():
        raise SourceError(f"Expected a file, got {path}, which is absent", hint="check the path")
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema_length=None)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"Expected a readable table in {path}, got: {error}") from error


def print_estimates(title: str, estimates: "dict[str, Estimate]") -> None:
    """Print named estimates with their intervals as a table."""
    from rich.table import Table as Grid

    grid = Grid("estimate", "value", "low", "high", "se", title=title)
    for name, found in estimates.items():
        cells = (found.value, found.low, found.high, found.se)
        grid.add_row(name, *("-" if math.isnan(cell) else f"{cell:.6g}" for cell in cells))
    stdout.print(grid)


def save_plot(found: "Plotted", path: Path | None) -> None:
    """Draw an estimate to the file asked for, if any."""
    if path is None:
        return
    from recoup.report.causal_plots import plot

    plot(found, path)
