"""`recoup train`: fit a model to a log, and keep it in a registry."""

from typing import Annotated

import typer

from recoup.cli.arguments import (
    Format,
    From,
    History,
    Log,
    Mapping,
    Registry,
    RulesFile,
    Until,
    parse_moment,
)
from recoup.cli.metrics import print_metrics, print_repeat, print_waits
from recoup.cli.on_log import OnLog, tell
from recoup.cli.output import EXIT_CODES, JsonFlag

MOST_ROWS = 1_000_000

MostRows = Annotated[
    int,
    typer.Option(
        "--most-rows",
        min=1000,
        help="Events held in memory, about 7 kB each; a longer log is sampled by visitor.",
    ),
]

train = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(train, name="train", help="Fit a model to a log, and keep it in a registry.")


@train.callback()
def _group() -> None:
    """Fit a model to a log, and keep it in a registry."""


@train.command("intent", epilog=EXIT_CODES)
def train_intent_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Registry,
    start: From = None,
    until: Until = None,
    history: History = None,
    most_rows: MostRows = MOST_ROWS,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    rules: RulesFile = None,
    json: JsonFlag = False,
) -> None:
    """Train purchase intent: P(purchase later in this session | journey so far), at every event.

    Choices are made on a time split inside the rows given; training is deterministic.

        recoup train intent LOG --until 2016-09-19T07:00 --registry models/
    """
    from recoup.runners.training import train_intent_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(
        train_intent_on, "training", start=parse_moment(start, "--from"), most_rows=most_rows
    )
    tell(metrics, print_metrics, json=json)


@train.command("repeat", epilog=EXIT_CODES)
def train_repeat_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Registry,
    until: Until = None,
    history: History = None,
    rules: RulesFile = None,
    horizon_days: Annotated[
        int | None,
        typer.Option(min=1, help="Days ahead; chosen by the length of the log if not given."),
    ] = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Train repeat purchase: P(a customer buys again within the horizon), and who is overdue.

    A row is a customer at one of several moments inside the log; orders at or after `--until` are
    not read. What is printed was measured on later days than the scoring model was fitted to.

        recoup train repeat ORDERS --until 2010-10-01 --registry models/
    """
    from recoup.runners.repeat import train_repeat_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(train_repeat_on, "training", horizon_days=horizon_days)
    tell(metrics, print_repeat, json=json)


@train.command("hesitation", epilog=EXIT_CODES)
def train_hesitation_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Registry,
    start: From = None,
    until: Until = None,
    history: History = None,
    rules: RulesFile = None,
    most_rows: MostRows = MOST_ROWS,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Train hesitation: how long shoppers wait before they go on, and whether they do at all.

    The measures printed are of a time split inside the rows given; training is deterministic.

        recoup train hesitation LOG --until 2016-09-19T07:00 --registry models/
    """
    from recoup.runners.hesitation import train_hesitation_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(
        train_hesitation_on, "training", start=parse_moment(start, "--from"), most_rows=most_rows
    )
    tell(metrics, print_waits, json=json)
