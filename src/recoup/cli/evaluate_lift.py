"""`recoup evaluate lift`: what the policy earned, from the holdout and from propensities."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.arguments import parse_moment
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Level, Plot, save_plot

if TYPE_CHECKING:
    from recoup.causal.estimate import Estimate
    from recoup.causal.lift import LiftReport, LiftRow

Journalled = Annotated[
    Path,
    typer.Argument(
        metavar="JOURNAL",
        help="A journal (.db), or a directory with one, or with decisions.parquet and "
        "outcomes.parquet.",
    ),
]
From = Annotated[
    str | None, typer.Option("--from", help="First decisions from then on (ISO 8601, UTC).")
]
Until = Annotated[
    str | None, typer.Option("--until", help="First decisions before then (ISO 8601, UTC).")
]


def register(evaluate: typer.Typer) -> None:
    """Add the command to `recoup evaluate`."""
    evaluate.command("lift", epilog=EXIT_CODES)(lift_command)


def lift_command(
    journal: Journalled,
    *,
    start: From = None,
    until: Until = None,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Say what the policy earned, in total and by intervention, in two ways that must agree.

    Once against the visitors who are never acted on, once from the propensities of the others'
    decisions alone. `agree` says whether the difference of the two holds 0.

        recoup demo --out DIR
        recoup evaluate lift DIR
    """
    from recoup.causal.lift import lift_report
    from recoup.runners.decided import read_decided

    decided = read_decided(journal)
    found = lift_report(
        decided.decisions,
        decided.outcomes,
        since=parse_moment(start, "--from"),
        until=parse_moment(until, "--until"),
        level=level,
    )
    save_plot(found, plot)
    if json:
        print_json(found)
    else:
        _print(found)


def _print(found: "LiftReport") -> None:
    from rich.table import Table

    grid = Table(
        "where the remedy is", "visitors", "holdout", "against holdout", "from propensities",
        "agree",
        title=f"Net value per visitor, policy less nobody acted on ({found.level:.0%} intervals)",
    )  # fmt: skip
    for row in (found.all_visitors, *found.by_intervention):
        grid.add_row(*_cells(row))
    stdout.print(grid)
    if found.waiting:
        stdout.print(f"{found.waiting:,} visitors are left out: their window is not over.")
    for row in (found.all_visitors, *found.by_intervention):
        if row.refused is not None:
            stdout.print(f"[bold red]Refused[/] for {_named(row)}: {row.refused}.", highlight=False)


def _named(row: "LiftRow") -> str:
    return (row.intervention or "all visitors").replace("_", " ")


def _cells(row: "LiftRow") -> tuple[str, ...]:
    agree = "" if row.agree is None else "yes" if row.agree else "NO"
    return (
        _named(row),
        f"{row.visitors:,}",
        f"{row.holdout:,}",
        _between(row.from_holdout),
        _between(row.from_propensities),
        agree,
    )


def _between(found: "Estimate") -> str:
    if found.value != found.value:
        return "refused"
    return f"{found.value:,.2f}\n({found.low:,.2f} to {found.high:,.2f})"
