"""`recoup simulate`: a seeded shop with known defects."""

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("simulate", epilog=EXIT_CODES)(simulate)


def simulate(
    *,
    out: Annotated[Path, typer.Option(help="Directory for events.parquet and truth.json.")],
    visitors: Annotated[int, typer.Option(min=1, help="How many shoppers.")] = 20_000,
    days: Annotated[float, typer.Option(min=0.01, help="How many days.")] = 7.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    scenario: Annotated[
        str, typer.Option(help="`default`, `quiet` (no defect), or a TOML file.")
    ] = "default",
    json: JsonFlag = False,
) -> None:
    """Simulate a shop: its events, and the truth about its defects and what they cost.

    recoup simulate --visitors 20000 --days 7 --seed 1 --scenario default --out shop/

    recoup replay shop/events.parquet --out shop/replay
    """
    from recoup.simulator import load_scenario, write_simulation

    written = write_simulation(
        out, visitors=visitors, days=days, seed=seed, scenario=load_scenario(scenario)
    )
    if json:
        print_json(written)
        return
    stdout.print(f"Wrote {out / 'events.parquet'} and {out / 'truth.json'}", highlight=False)
