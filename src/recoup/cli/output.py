"""What every command shares: `--json`, progress on stderr, errors in words, exit codes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from recoup.errors import RecoupError

if TYPE_CHECKING:
    from recoup.runners.backfill import LeftOut

EXIT_OK: Final = 0
EXIT_INPUT: Final = 1
"""What was asked cannot be done with this input; the message says why and what to do."""
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3
"""What was checked does not pass; the reasons are told."""
EXIT_INTERRUPTED: Final = 130

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 the input cannot be used, 2 wrong usage, 130 interrupted."
)

JsonFlag = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object on stdout and nothing else there; progress: stderr."
    ),
]

stderr = Console(stderr=True)
stdout = Console()


def print_json(payload: object) -> None:
    """Write one JSON object, and a newline, to stdout."""
    sys.stdout.write(msgspec.json.encode(payload).decode() + "\n")
    sys.stdout.flush()


def tell_error(error: RecoupError, *, as_json: bool) -> None:
    """Say on stderr what went wrong and what to do; under ``--json`` on stdout, as an object."""
    if as_json:
        print_json({"error": error.message, "hint": error.hint, "kind": type(error).__name__})
        return
    stderr.print(f"[bold red]Error:[/] {_plain(error.message)}", highlight=False, soft_wrap=True)
    if error.hint is not None:
        stderr.print(f"[bold]Hint:[/] {_plain(error.hint)}", highlight=False, soft_wrap=True)


def tell_left_out(path: Path, left_out: "LeftOut") -> None:
    """Say on stderr what a log held that was not folded; nothing where all of it was."""
    told = [f"{count:,} {reason}" for reason, count in left_out.dead_letters.items()]
    if told:
        line = f"Dead letters of `{path}`: {', '.join(told)}; `recoup replay` writes each of them."
        stderr.print(_plain(line), highlight=False, soft_wrap=True)
    if "too_late" in left_out.dead_letters:
        line = 'Hint: events out of order; `order = "time"` in a mapping sorts a log first'
        stderr.print(line, highlight=False, soft_wrap=True)
    if left_out.duplicates:
        line = f"Repeats in `{path}`: {left_out.duplicates:,}, by source and id; each counts once."
        stderr.print(_plain(line), highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(label: str, total: int | None) -> Iterator["Ticker"]:
    """Show a bar on stderr while the block runs; a terminal sees it move, a file sees nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        yield Ticker(bar, bar.add_task(label, total=total))


class Ticker:
    """A progress bar that is told how far the work has come."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, done: int) -> None:
        """Set the bar to ``done`` of its total."""
        self._bar.update(self._task, completed=done)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
