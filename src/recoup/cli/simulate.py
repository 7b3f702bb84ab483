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
    out: Annotated[Path, typer.Option(help="Directory for the files.")],
    visitors: Annotated[int, typer.Option(min=1, help="How many shoppers.")] = 20_000,
    days: Annotated[float, typer.Option(min=0.01, help="How many days.")] = 7.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    scenario: Annotated[
        str,
        typer.Option(help="Its name, such as `default` or `quiet` (no defect), or a TOML file."),
    ] = "default",
    draws: Annotated[
        int, typer.Option(min=0, help="Futures behind each expected outcome; 0: none are written.")
    ] = 16,
    json: JsonFlag = False,
) -> None:
    """Simulate a shop: its events, and the truth about its defects and what they cost.

    Beside them a log of random decisions, and what each journey would have been worth if acted on
    at each moment, or never.

    recoup simulate --visitors 20000 --days 7 --seed 1 --scenario default --out shop/

    recoup replay shop/events.parquet --out shop/replay
    """
    from recoup.simulator import load_scenario, write_simulation

    written = write_simulation(
        out,
        visitors=visitors,
        days=days,
        seed=seed,
        scenario=load_scenario(scenario),
        draws=draws,
    )
    if json:
        print_json(written)
        return
    files = ("events.parquet", "decisions.parquet", "potential_outcomes.parquet", "truth.json")
    stdout.print(f"Wrote {', '.join(files)} to {out}", highlight=False)
