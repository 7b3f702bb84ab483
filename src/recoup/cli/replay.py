"""`recoup replay`: a log in; what is wrong, what we would have done, and a report out."""

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.arguments import Format, Log, Mapping, open_log
from recoup.cli.output import EXIT_CODES, JsonFlag, progress_bar, stdout


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("replay", epilog=EXIT_CODES)(replay)


def replay(
    source: Log,
    *,
    out: Annotated[Path, typer.Option(help="Directory for the results; a cut run resumes there.")],
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    registry: Annotated[
        Path | None,
        typer.Option(help="Model registry; without one, intent is the rate of each funnel stage."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Replay a log through the whole flow: find defects, and decide as if it were live.

    DIR gets `defects`, `decisions`, `features` and `dead_letters` as Parquet, `summary.json`,
    `report.html` (open it), and `journal.db`, from which an interrupted run goes on. Nothing is
    executed: decisions on a log of the past are marked so, and no money is counted as saved.

        recoup replay shop/events.parquet --out out/

        recoup replay clicks.csv.gz --mapping mapping.toml --out out/ --json
    """
    from recoup.report.summary import to_json
    from recoup.report.terminal import summary_panel
    from recoup.runners.replay import replay_source

    log = open_log(source, format, mapping)
    with progress_bar("replaying", log.size_hint()) as tick:
        summary = replay_source(log, out, registry=registry, progress=tick)
    if json:
        typer.echo(to_json(summary))
    else:
        stdout.print(summary_panel(summary))
        stdout.print(f"Report: {out / 'report.html'}", highlight=False)
