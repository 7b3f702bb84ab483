"""`recoup learn report|check`: what the shop's own decisions teach, and the gate for changes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.arguments import parse_moment
from recoup.cli.evaluate_lift import From, Journalled, Until
from recoup.cli.output import EXIT_CODES, EXIT_REFUSED, JsonFlag, print_json, stdout
from recoup.cli.tables import Level
from recoup.errors import ConfigError

if TYPE_CHECKING:
    from recoup.causal.learning import Learned

learn = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)

SUFFIXES = (".html", ".md")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(learn, name="learn", help="Learn from what was decided, and what came of it.")


@learn.callback()
def _group() -> None:
    """Learn from what was decided, and what came of it."""


@learn.command("report", epilog=EXIT_CODES)
def learn_report_command(
    journal: Journalled,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Write the report there: .html, self-contained, or .md.")
    ] = None,
    proposal: Annotated[
        Path | None,
        typer.Option(help="Write the proposed change there (JSON), for the rollout gates."),
    ] = None,
    start: From = None,
    until: Until = None,
    last: Annotated[
        str | None,
        typer.Option(help="First decisions of the last 7d, 12h, 2w, up to the latest one."),
    ] = None,
    level: Level = 0.95,
    json: JsonFlag = False,
) -> None:
    """Say what was decided, what it was worth, what came too late or not at all, what to change.

    Worth is measured against the holdout and from propensities. The change is the best of a few
    simple rules, chosen on half of the visitors and judged on the other half; it carries the lower
    bound of its gain, and says whether a rollout may count on it. Nothing is changed by itself.

        recoup demo --out DIR
        recoup learn report DIR --last 7d --out report.html --proposal proposal.json
    """
    from recoup.report.learning import write_learning
    from recoup.runners.learning import Period, learn_from, parse_length, write_proposal

    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"Expected --out to end in .html or .md, got {out.name!r}")
    period = Period(
        parse_moment(start, "--from"), parse_moment(until, "--until"), parse_length(last)
    )
    found = learn_from(journal, period, level=level)
    try:
        if out is not None:
            write_learning(found, out, source=journal.name)
        if proposal is not None:
            write_proposal(found, proposal, source=journal.name)
    except OSError as error:
        raise ConfigError(f"Expected a file that can be written, got: {error}") from error
    if json:
        print_json(found)
    else:
        _print(found, out)


@learn.command("check", epilog=f"{EXIT_CODES} {EXIT_REFUSED} the proposal does not pass.")
def learn_check_command(
    proposal: Annotated[
        Path, typer.Argument(metavar="PROPOSAL", help="A file of `recoup learn report --proposal`.")
    ],
    *,
    least_gain: Annotated[
        float,
        typer.Option(help="What the gain's lower bound must exceed, a visitor, in currency units."),
    ] = 0.0,
    max_age: Annotated[
        str, typer.Option(help="From the last decision of its log: 14d, 12h, 2w.")
    ] = "14d",
    policy: Annotated[
        str | None, typer.Option(help="The version that is live: the gain must be over this one.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="The moment of the check (ISO 8601, UTC); now where absent.")
    ] = None,
    level: Annotated[
        float, typer.Option(help="Least confidence of its intervals, in (0, 1).")
    ] = 0.95,
    json: JsonFlag = False,
) -> None:
    """Say whether a proposed change may go to a share of the visitors: the gate before a rollout.

    For a pipeline or a rollout tool: the exit code is 0 where it passes, 3 where it does not, and
    `reasons` say why. The gate reads the numbers, not the verdict in the file: the gain's lower
    bound, how far the log could answer, its age, and whether the file is as it was written.

        recoup learn check proposal.json --least-gain 0.05 --policy 3f2a --json
    """
    from recoup.causal.rollout_gate import MOST_AGE, Demands
    from recoup.runners.learning import check_file, parse_length

    demands = Demands(
        least_gain=least_gain,
        level=level,
        most_age=parse_length(max_age, "--max-age") or MOST_AGE,
        policy=policy,
    )
    found = check_file(proposal, demands, now=parse_moment(at, "--at"))
    if json:
        print_json(found)
    else:
        stdout.print("[green]Passes.[/]" if found.passes else "[bold red]Does not pass.[/]")
        for reason in found.reasons:
            stdout.print(f"  {reason}", highlight=False, markup=False)
    if not found.passes:
        raise typer.Exit(EXIT_REFUSED)


def _print(found: "Learned", out: Path | None) -> None:
    from recoup.report.learning import headline, rule_words

    for sentence in headline(found):
        stdout.print(sentence, highlight=False)
        stdout.print()
    if found.proposal is not None:
        for row in rule_words(found.proposal):
            stdout.print(
                f"  {row.remedy}: {row.likely}; if less likely to buy: {row.unlikely}",
                highlight=False,
            )
    if out is not None:
        stdout.print(f"\nThe report: {out}", highlight=False)
