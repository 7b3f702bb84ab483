"""`recoup design`: how long an experiment would take on the shop's own traffic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Plot, read_table, save_plot

if TYPE_CHECKING:
    from recoup.causal.experiment_plan import ExperimentPlan

Traffic = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="A Parquet or CSV file: a log of the shop's traffic."),
]
SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("design", epilog=EXIT_CODES)(design_command)


def design_command(  # noqa: PLR0913 - one argument an option
    table: Traffic,
    *,
    unit: Annotated[
        str,
        typer.Option(help="Column: what will be assigned (the visitor; the region that switches)."),
    ],
    time: Annotated[str, typer.Option(help="Column: date or time of a row.")],
    metric: Annotated[str, typer.Option(help="Column to be summed, or TOP/BOTTOM for a ratio.")],
    effect: Annotated[float, typer.Option(help="Relative effect to be found: 0.02 for 2 %.")],
    share: Annotated[float, typer.Option(help="Of the units in the arm, in (0, 1).")] = 0.5,
    traffic: Annotated[
        float, typer.Option(help="Share of all units that the experiment may have, in (0, 1].")
    ] = 1.0,
    power: Annotated[float, typer.Option(help="Chance to find that effect, in (0, 1).")] = 0.8,
    level: Annotated[
        float, typer.Option(help="One less the chance to find an effect where there is none.")
    ] = 0.95,
    sequential: Annotated[
        bool,
        typer.Option("--sequential", help="To be read at every look: it needs more, at the most."),
    ] = False,
    block_hours: Annotated[
        float | None,
        typer.Option(min=0, help="A switchback: regions act in one of every two blocks this long."),
    ] = None,
    leave_out_hours: Annotated[
        float, typer.Option(min=0, help="Of a switchback: left out at the start of each block.")
    ] = 0.0,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Say how many units an experiment needs, how many days, and what each length could find.

    The log is read as if the experiment had begun on its first day; beyond its end, new units are
    taken to arrive as in its last week.

        recoup design visits.parquet --unit visitor --time ts --metric orders --effect 0.03
    """
    from recoup.causal.experiment_metrics import Metric
    from recoup.causal.experiment_plan import plan_experiment
    from recoup.causal.power import Strictness
    from recoup.causal.switchback_design import plan_switchback

    log, measured, sure = (
        read_table(table),
        Metric.parse(metric),
        Strictness(level, power, sequential),
    )
    if block_hours is None:
        found = plan_experiment(
            log,
            unit=unit,
            time=time,
            metric=measured,
            effect=effect,
            share=share,
            traffic=traffic,
            strictness=sure,
        )
    else:
        found = plan_switchback(
            log,
            region=unit,
            time=time,
            metric=measured,
            effect=effect,
            block_hours=block_hours,
            leave_out_hours=leave_out_hours,
            strictness=sure,
        )
    save_plot(found, plot)
    if json:
        print_json(found)
    else:
        print_plan(found)


def print_plan(found: "ExperimentPlan") -> None:
    """Print what is needed, and what each length could find."""
    from rich.table import Table as Grid

    title = f"{found.metric}: {found.mean:.4g} a unit, deviation {found.deviation:.4g}"
    grid = Grid("days", "units", "smallest effect found", title=title)
    step = max(1, len(found.durations) // SHOWN)
    for each in found.durations[::-step][::-1]:
        mark = " (beyond the log)" if each.extrapolated else ""
        grid.add_row(f"{each.days}{mark}", f"{each.units:,.0f}", f"{each.relative:.2%}")
    stdout.print(grid)
    length = "more than a year" if found.days_needed is None else f"{found.days_needed} days"
    stdout.print(
        f"To find {found.effect:+.2%}: about {found.units_needed:,.0f} units at the log's spread, "
        f"{length}. Run whole weeks."
    )
