"""`recoup convert`: a log of any format as a native one."""

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.arguments import Format, Log, Mapping, PrivacyFile, SecretFile, open_log
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, progress_bar, stdout
from recoup.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("convert", epilog=EXIT_CODES)(convert)


def convert(
    source: Log,
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="A file ending in .parquet or .ndjson, or a directory for events.parquet."
        ),
    ],
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    privacy: PrivacyFile = None,
    secret_file: SecretFile = None,
    json: JsonFlag = False,
) -> None:
    """Write a log of any format as a native one, event for event.

    It opens without a mapping, and `recoup inject` takes it. Repeats and latecomers stay; what
    cannot be read is counted, and `recoup replay` keeps it as dead letters.

        recoup convert ga4_payloads/ --out shop/
    """
    from recoup.runners.converting import convert_log

    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(
            f"Expected a place outside the log, got {out}",
            hint="a file in it would be read as a part of it the next time",
        )
    log = open_log(source, format, mapping, privacy=privacy, secret_file=secret_file)
    with progress_bar("converting", log.size_hint()) as tick:
        told = convert_log(log, out, tick)
    if json:
        print_json(told)
        return
    stdout.print(f"Wrote {told.events:,} events to {told.out}", highlight=False)
    for reason, count in told.dead_letters.items():
        stdout.print(f"Could not be read: {count:,} ({reason})", highlight=False)
