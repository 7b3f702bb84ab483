"""`recoup models`: which models there are, what they are worth, and which of them serve."""

from typing import Annotated

import typer
from rich.table import Table

from recoup.cli.arguments import ModelVersion, Registry
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout

models = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)

Name = Annotated[str, typer.Argument(help="The model's name: `intent`, ...")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(models, name="models", help="Which models there are, and which of them serve.")


@models.callback()
def _group() -> None:
    """Look registered models over; let a version serve, or the one before it again."""


@models.command("list", epilog=EXIT_CODES)
def list_models(*, registry: Registry, json: JsonFlag = False) -> None:
    """List all versions; `replay --registry` takes the one that serves.

    Where no version was promoted, the newest serves.

        recoup models list --registry models/
    """
    from recoup.runners.lifecycle import standings

    found = standings(registry)
    if json:
        print_json({"models": found})
        return
    table = Table(show_edge=False)
    for column in ("name", "version", "serves", "hash", "log loss"):
        table.add_column(column)
    for each in found:
        loss = each.metrics.get("log_loss")
        told = f"{loss:.4f}" if isinstance(loss, float) else "-"
        serves = "yes" if each.serves else ""
        table.add_row(each.name, str(each.version), serves, each.hash[:12], told)
    stdout.print(table)


@models.command("show", epilog=EXIT_CODES)
def show(
    name: Name, *, registry: Registry, version: ModelVersion = None, json: JsonFlag = False
) -> None:
    """Print a version's card: what it was fitted to, how well it predicts, and for whom not.

    The same stands in the registry's folder `cards`, with a reliability plot.

        recoup models show intent --registry models/
    """
    from recoup.report.model_card import card_in_words
    from recoup.runners.lifecycle import load_model

    loaded = load_model(registry, name, version)
    if json:
        print_json(loaded.kept.card)
    else:
        typer.echo(card_in_words(loaded.kept.card, loaded.number, None))


@models.command("promote", epilog=EXIT_CODES)
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="The version that is to serve.")],
    *,
    registry: Registry,
    json: JsonFlag = False,
) -> None:
    """Let a version serve.

    What served before is remembered, so that `rollback` can return to it.

        recoup models promote intent 3 --registry models/
    """
    from recoup.runners import lifecycle

    _tell(name, lifecycle.promote(registry, name, version), json=json)


@models.command("rollback", epilog=EXIT_CODES)
def rollback(name: Name, *, registry: Registry, json: JsonFlag = False) -> None:
    """Let the version serve again that served before.

    Done twice, it returns to where it was.

        recoup models rollback intent --registry models/
    """
    from recoup.runners import lifecycle

    _tell(name, lifecycle.roll_back(registry, name), json=json)


def _tell(name: str, number: int, *, json: bool) -> None:
    if json:
        print_json({"name": name, "serves": number})
    else:
        stdout.print(f"{name}: version {number} serves", highlight=False)
