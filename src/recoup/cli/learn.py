"""`recoup learn report`: what the shop's own decisions teach."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.arguments import parse_moment
from recoup.cli.evaluate_lift import From, Journalled, Until
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
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
