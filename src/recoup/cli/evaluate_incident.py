"""`recoup evaluate incident`: what a defect with a beginning and an end cost in all."""

from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.arguments import Format, Log, Mapping, open_log, parse_moment, read_pair, reading
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Level

if TYPE_CHECKING:
    from recoup.causal.incidents import IncidentCost


def register(evaluate: typer.Typer) -> None:
    """Add the command to `recoup evaluate`."""
    evaluate.command("incident", epilog=EXIT_CODES)(incident_command)


def incident_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    entity: Annotated[
        list[str],
        typer.Option("--entity", help="Whom it touched: `browser=Safari`; repeat to narrow down."),
    ],
    start: Annotated[str, typer.Option("--from", help="When it began (ISO 8601, UTC).")],
    until: Annotated[
        str | None, typer.Option("--until", help="When it ended; the log's end if not given.")
    ] = None,
    horizon_h: Annotated[
        float,
        typer.Option(
            "--horizon-h",
            min=0.0,
            help="Hours within which the same visitor's later orders count as caught up; 0 counts "
            "what was lost in the visits themselves.",
        ),
    ] = 72.0,
    level: Level = 0.95,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Say what an incident cost in all, against what untouched visits say was due.

    Without it, the touched segment's orders would have moved in proportion to the others': the same
    estimate on windows before the incident (`placebo`) shows whether they do.

        recoup evaluate incident LOG --entity browser=Safari --from 2026-03-05 --until 2026-03-06
    """
    from recoup.runners.incidents import incident_in

    since = parse_moment(start, "--from")
    assert since is not None  # noqa: S101
    with reading("reading", source, open_log(source, format, mapping)) as (log, tick):
        found = incident_in(
            log,
            dict(read_pair(text, "--entity") for text in entity),
            since,
            parse_moment(until, "--until"),
            horizon_s=horizon_h * 3600,
            level=level,
            progress=tick,
        )
    if json:
        print_json(found)
    else:
        _print(found)


def _print(found: "IncidentCost") -> None:
    if found.refused is not None:
        stdout.print(f"[bold red]Refused:[/] {found.refused}.", highlight=False)
        return
    orders, value = found.lost_orders, found.lost_value
    stdout.print(
        f"[bold]{orders.value:,.1f} orders lost[/] ({orders.low:,.1f} to {orders.high:,.1f}), "
        f"worth [bold]{value.value:,.0f}[/] ({value.low:,.0f} to {value.high:,.0f})",
        highlight=False,
    )
    stdout.print(
        f"{found.sessions:,} visits touched: {found.observed_orders:,.0f} orders, where "
        f"{found.expected_orders:,.1f} were due",
        highlight=False,
    )
    held = sum(each.low <= 0 <= each.high for each in found.placebo)
    if found.placebo:
        told = f"{held} of {len(found.placebo)} windows before it show no loss, as they should"
        stdout.print(told, highlight=False)
