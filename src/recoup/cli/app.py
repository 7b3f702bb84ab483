"""The `recoup` command: its sub-commands, and how it ends."""

import os
import re
import sys
from typing import Annotated, Final

import typer

import recoup
from recoup.cli import (
    convert,
    demo,
    design,
    evaluate,
    explain,
    features,
    inject,
    inspect,
    learn,
    models,
    replay,
    simulate,
    train,
)
from recoup.cli.output import EXIT_CODES, EXIT_INPUT, EXIT_INTERRUPTED, tell_error
from recoup.errors import ConfigError, RecoupError

app = typer.Typer(
    name="recoup",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=(
        "Find what spoils a shop's visits, and act while the sale can still be saved.\n\n"
        "Start with **recoup demo**, or with a log of your own: **recoup inspect LOG > "
        "mapping.toml**, then **recoup replay LOG --mapping mapping.toml --out DIR**, then open "
        "DIR/report.html."
    ),
    epilog=EXIT_CODES,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"recoup {recoup.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _show: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=lambda wanted: _version(wanted=wanted),
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """Find what spoils a shop's visits, and act while the sale can still be saved."""


for _command in (
    demo,
    inspect,
    models,
    replay,
    explain,
    simulate,
    inject,
    convert,
    features,
    train,
    evaluate,
    learn,
    design,
):
    _command.register(app)


def main() -> None:
    """Run the command line; a user's mistake ends in words and a code, never in a traceback."""
    try:
        app()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_INPUT)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        said = _in_words(error)
        if said is None:
            raise
        _tell(said)
        sys.exit(EXIT_INPUT)


def _tell(error: RecoupError) -> None:
    """Say what went wrong; on stderr where stdout takes nothing any more."""
    try:
        tell_error(error, as_json="--json" in sys.argv)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        tell_error(error, as_json=False)


def _in_words(error: Exception) -> RecoupError | None:
    """Say what the machine lacks, or would not do, as one of our own errors; None if neither."""
    if isinstance(error, RecoupError):
        return error
    if isinstance(error, MemoryError):
        return ConfigError(
            f"Expected more memory than there is: {error or 'none left'}",
            hint="shorten the log, or for training hold fewer events with --most-rows",
        )
    if isinstance(error, OSError):
        named = f"`{error.filename}`" if error.filename else "a file"
        return _unwritten(named, error.strerror or str(error))
    if type(error).__module__.startswith("polars") and DISK.search(str(error)):
        return _unwritten("a file", str(error))
    return None


DISK: Final = re.compile(r"os error|transport error")
"""How the library that writes Parquet words what the operating system would not do."""


def _unwritten(named: str, got: str) -> RecoupError:
    return ConfigError(
        f"Expected to read or write {named}, got: {got}",
        hint="check that the path is right, that it may be written to, and that the disk has room",
    )
