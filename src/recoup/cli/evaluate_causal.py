"""`recoup evaluate ope|delay`: what another policy, waiting or missing was worth, from a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.errors import ConfigError, SourceError

if TYPE_CHECKING:
    import polars as pl

    from recoup.causal.estimate import Estimate, IntervalKind

Table = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="A Parquet or CSV file: one row a decision."),
]
Level = Annotated[float, typer.Option(help="Confidence of the intervals, in (0, 1).")]


def register(evaluate: typer.Typer) -> None:
    """Add the commands to the group `recoup evaluate`."""
    evaluate.command("ope", epilog=EXIT_CODES)(ope_command)


def ope_command(  # noqa: PLR0913 - one argument an option
    table: Table,
    *,
    reward: Annotated[str, typer.Option(help="Column: what the decision earned.")],
    propensity: Annotated[
        str, typer.Option(help="Column: probability with which the action was logged, in (0, 1].")
    ],
    target: Annotated[
        str,
        typer.Option(help="Column: the evaluated policy's probability of the logged action."),
    ],
    action: Annotated[
        str | None, typer.Option(help="Column: the logged action, for diagnostics by action.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Column: a model's value of the logged action.")
    ] = None,
    model_value: Annotated[
        str | None, typer.Option(help="Column: the model's value of the evaluated policy.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Column: what is independent (the visitor); gives clustered intervals."),
    ] = None,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Percentile intervals over 1,000 resamples.")
    ] = False,
    clip: Annotated[
        float | None, typer.Option(help="Largest weight of clipped_ips and clipped_dr.")
    ] = None,
    switch: Annotated[
        float | None, typer.Option(help="Weight above which switch_dr trusts the model.")
    ] = None,
    optimistic: Annotated[float | None, typer.Option(help="Lambda of dr_os.")] = None,
    sub_gaussian: Annotated[
        float | None, typer.Option(help="Lambda of sg_dr and sg_ips, in [0, 1].")
    ] = None,
    level: Level = 0.95,
    json: JsonFlag = False,
) -> None:
    """Estimate what another policy would have earned, from decisions with their propensities.

    Limits on weights that are not given are tuned on the table by estimated mean squared error.
    `refused` says why the log cannot answer: then use no number of it.

        recoup evaluate ope decisions.parquet --action a --reward r --propensity p --target pi
    """
    from recoup.causal.off_policy import evaluate_off_policy

    if bootstrap and cluster is not None:
        raise ConfigError("Expected --bootstrap or --cluster, got both", hint="leave one out")
    kind: IntervalKind = "bootstrap" if bootstrap else "analytic"
    found = evaluate_off_policy(
        read_table(table),
        reward=reward,
        propensity=propensity,
        target=target,
        action=action,
        model=model,
        model_value=model_value,
        cluster=cluster,
        clip=clip,
        switch=switch,
        optimistic=optimistic,
        sub_gaussian=sub_gaussian,
        interval="cluster" if cluster is not None else kind,
        level=level,
    )
    if json:
        print_json(msgspec.to_builtins(found, str_keys=True))
        return
    print_estimates("off-policy value", found.estimates)
    stdout.print(
        f"{found.rows:,} rows, worth {found.effective_sample_size:,.0f}; largest weight "
        f"{found.largest_weight:,.1f}; mean weight {found.mean_weight:.3f}; "
        f"{found.interval} intervals"
    )
    if found.refused is not None:
        stdout.print(f"[bold red]Refused:[/] {found.refused}. Use none of these numbers.")


def read_table(path: Path) -> "pl.DataFrame":
    """Read a Parquet or CSV file whole.

    Raises
    ------
    SourceError
        If it is absent, of another format, or cannot be read.
    """
    import polars as pl

    if path.suffix.lower() not in (".parquet", ".csv"):
        raise SourceError(f"Expected a .parquet or .csv file, got {path}", hint="convert the table")
    if not path.is_file():
        raise SourceError(f"Expected a file, got {path}, which is absent", hint="check the path")
    try:
        if path.suffix.lower() == ".csv":
            return pl.read_csv(path, infer_schema_length=None)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"Expected a readable table in {path}, got: {error}") from error


def print_estimates(title: str, estimates: "dict[str, Estimate]") -> None:
    """Print named estimates with their intervals as a table."""
    from rich.table import Table as Grid

    grid = Grid("estimate", "value", "low", "high", "se", title=title)
    for name, found in estimates.items():
        cells = (found.value, found.low, found.high, found.se)
        grid.add_row(name, *(f"{cell:.6g}" for cell in cells))
    stdout.print(grid)
