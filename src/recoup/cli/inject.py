"""`recoup inject`: known defects put into a real log."""

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.arguments import Format, Log, Mapping, refuse_both
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("inject", epilog=EXIT_CODES)(inject)


def inject(
    source: Log,
    *,
    spec: Annotated[Path, typer.Option(help="What to inject: a TOML file (docs/inject.md).")],
    out: Annotated[Path, typer.Option(help="Empty directory for the log and truth.json.")],
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Put known defects into a real log: a log of the same format, and the truth beside it.

    recoup inject shop/ --spec defects.toml --out broken/

    recoup replay broken/ --out broken-replay/
    """
    from recoup.injection import inject_log, load_spec

    refuse_both(format, mapping)
    truth = inject_log(source, load_spec(spec), out, format=format, mapping=mapping)
    if json:
        print_json(truth)
        return
    for defect in truth["defects"]:
        stdout.print(
            f"{defect['id']}: met by {defect['sessions']:,} sessions, "
            f"{defect['lost_orders']:,} orders lost",
            highlight=False,
        )
    for nuisance in truth["nuisances"]:
        gone = f"{nuisance['removed_events']:,} events no longer recorded"
        stdout.print(f"{nuisance['id']}: {gone}", highlight=False)
    stdout.print(f"Wrote {out}", highlight=False)
