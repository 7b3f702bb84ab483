"""`recoup demo`: the whole loop on a simulated shop."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.errors import ConfigError

if TYPE_CHECKING:
    from recoup.runners.demo import DemoResult


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("demo", epilog=EXIT_CODES)(demo)


def demo(
    *,
    visitors: Annotated[int, typer.Option(min=2000, help="How many shoppers.")] = 24_000,
    days: Annotated[float, typer.Option(min=0.5, help="How many simulated days.")] = 1.5,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same shop and decisions.")] = 0,
    scenario: Annotated[
        str, typer.Option(help="`default`, `quiet` (no defect), or a TOML file.")
    ] = "default",
    out: Annotated[
        Path | None,
        typer.Option(help="Keep the journal there, with the report and the learning report of it."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run the whole loop on a simulated shop, live in the terminal, in under two minutes.

    A day without decisions trains purchase intent, and how long shoppers wait. Then the shop goes
    on with defects in it: they are found and ranked, decisions are made and executed, outcomes come
    back and are learned from, and what it saved is measured against visitors who are never helped.
    At the end, the truth, which only the simulator knows, stands beside what was found.
    """
    from recoup.report import DemoView
    from recoup.runners.demo import run_demo

    with (
        _folder(out) as folder,
        DemoView(None if json else stdout, title="Recoup on a simulated shop") as view,
    ):
        result = run_demo(folder, view, visitors=visitors, days=days, seed=seed, scenario=scenario)
    if json:
        print_json(result)
    else:
        _tell(result)
    if out is not None:
        _report(out, quiet=json)


def _report(out: Path, *, quiet: bool) -> None:
    """Put the learning report beside the journal and the report."""
    from recoup.runners.learning import PAGE, write_beside

    write_beside(out, source="A simulated shop")
    if not quiet:
        stdout.print(f"\nThe report: {out / 'report.html'}", highlight=False)
        stdout.print(f"What its decisions teach: {out / PAGE}", highlight=False)


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Give an empty directory for the journal: the one asked for, or one that is thrown away."""
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("*.db")):
        raise ConfigError(
            f"Expected a directory without a journal, got {out}", hint="name another --out"
        )
    yield out


def _tell(result: "DemoResult") -> None:
    from recoup.report import hesitation_story, reasons_story
    from recoup.report.terminal import ending

    stdout.print(ending(result.defects, result.saved, result.currency))
    for title, sentences in (
        ("Where and when shoppers hesitate", hesitation_story.sentences(result.hesitation)),
        ("Why shoppers leave", reasons_story.sentences(result.reasons)),
    ):
        stdout.print(f"\n[bold]{title}[/]")
        for sentence in sentences:
            stdout.print(sentence, highlight=False, markup=False)
    stdout.print(_truth(result))
    stdout.print(f"\nIn truth it saved {result.truly_saved:,.0f} {result.currency or ''} net.")


def _truth(result: "DemoResult") -> Table:
    table = Table(title="The truth beside it", title_justify="left", box=None)
    table.add_column("Defect that was switched on")
    table.add_column("Orders it really cost", justify="right")
    table.add_column("Named by Recoup")
    for true in result.truth:
        where = ", ".join(f"{key} {value}" for key, value in true["entity"].items())
        named = _named(true["id"], result)
        table.add_row(f"{true['type']}: {where}", f"{true['lost_orders']:,.0f}", named)
    return table


def _named(name: str, result: "DemoResult") -> str:
    if name in result.found:
        return "[green]yes[/]"
    return "[yellow]suspected[/]" if name in result.suspected else "[yellow]no[/]"
