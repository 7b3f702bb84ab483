"""`recoup features`: the standard features, and point-in-time training tables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict
from rich.table import Table

from recoup.cli import feature_store
from recoup.cli.arguments import Format, Log, Mapping, open_log, reading
from recoup.cli.feature_store import Set
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout

features = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)


class As(StrEnum):
    """Which rows a training table holds."""

    served = "served"
    settled = "settled"


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    feature_store.register(features)
    app.add_typer(features, name="features", help="The feature store: look up, join, compare.")


@features.callback()
def _group() -> None:
    """Look features up, join them to tables, compare what was served with what is folded."""


@features.command("list", epilog=EXIT_CODES)
def list_features(*, chosen: Set = None, json: JsonFlag = False) -> None:
    """List features: what each counts, of whom, and how far back.

    recoup features list

    recoup features list --set shop_features:chosen --json
    """
    from recoup.runners.feature_tables import load_feature_set

    found = load_feature_set(chosen)
    if json:
        told = {name: getattr(found, name) for name in ("name", "version", "owner", "hash")}
        print_json({**told, "features": found.features})
        return
    table = Table(title=f"{found.name}, {len(found.features)} features", show_edge=False)
    table.add_column("name", no_wrap=True)
    for column in ("operation", "of", "events", "by", "window"):
        table.add_column(column)
    for each in found.features:
        of, events = each.column or "-", ", ".join(each.events) or "all"
        table.add_row(each.name, each.operation, of, events, "+".join(each.by), each.window)
    stdout.print(table)


@features.command("backfill", epilog=EXIT_CODES)
def backfill(
    source: Log,
    *,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    rows: Annotated[
        As,
        typer.Option(
            "--as",
            help="`served`: each row as it was when its event arrived. `settled`: as it is once "
            "all events within the allowed lateness are in.",
        ),
    ] = As.served,
    chosen: Set = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Write one row of features per event, as of that event.

    Train on served rows: they are what a live decision saw, late events and all.

        recoup features backfill LOG --as served --out rows.parquet
    """
    from recoup.runners.backfill import backfill_to
    from recoup.runners.feature_tables import load_feature_set

    with reading("backfilling", source, open_log(source, format, mapping)) as (log, tick):
        told = backfill_to(
            log, out, how=rows.value, feature_set=load_feature_set(chosen), progress=tick
        )
    if json:
        print_json({**told, **asdict(log.left_out)})
    else:
        stdout.print(f"Wrote {told['rows']:,} rows to {out}", highlight=False)
