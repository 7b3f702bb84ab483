"""`recoup inspect`: look at an unknown log."""

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stderr


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("inspect", epilog=EXIT_CODES)(inspect)


def inspect(
    log: Annotated[Path, typer.Argument(help="A file (CSV, NDJSON, Parquet; .gz, .zst), or a "
                                        "directory of them, read in order of name.")],
    *,
    as_table: Annotated[bool, typer.Option(
        "--as-table", help="Propose a mapping even for a public log that is known by its columns."
    )] = False,
    json: JsonFlag = False,
) -> None:  # fmt: skip
    """Look at an unknown log: propose a mapping, and say what the log can and cannot answer.

    Stdout gets only the mapping (TOML), so that it can be kept, corrected and used:

        recoup inspect clicks.csv.gz > mapping.toml

        recoup replay clicks.csv.gz --mapping mapping.toml --out out/
    """
    from recoup.sources import inspect_log

    found = inspect_log(log, as_table=as_table)
    if json:
        print_json(
            {
                "mapping": found.mapping,
                "answers": found.answers,
                "cannot_answer": found.cannot_answer,
                "drift": found.drift,
            }
        )
        return
    for title, style, lines in (
        ("This log can answer", "green", found.answers),
        ("It cannot answer", "yellow", found.cannot_answer),
        ("Drift", "magenta", [finding.detail for finding in found.drift]),
    ):
        if lines:
            stderr.print(f"[bold {style}]{title}[/]")
            for line in lines:
                stderr.print(f"  - {line}", markup=False, highlight=False)
    typer.echo(found.mapping)
