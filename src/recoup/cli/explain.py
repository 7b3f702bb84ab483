"""`recoup explain`: why a shopper's intent is as low as it is, moment by moment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from recoup.cli.arguments import Format, Log, Mapping, PrivacyFile, SecretFile, open_log, reading
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout

if TYPE_CHECKING:
    from recoup.friction.reasons import Reason
    from recoup.runners.explaining import ExplainedSession


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("explain", epilog=EXIT_CODES)(explain)


def explain(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Annotated[
        Path,
        typer.Option(
            help="Model registry: the promoted model of intent, else the newest; of hesitation too."
        ),
    ],
    visitor: Annotated[
        str | None, typer.Option(help="Explain the sessions of this visitor, as the log names it.")
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="Explain this session: the log's id, or the key in features.parquet."),
    ] = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    privacy: PrivacyFile = None,
    secret_file: SecretFile = None,
    json: JsonFlag = False,
) -> None:
    """Explain what lowered a shopper's purchase intent, at each event of a session.

    For every event: the intent, what it would be had no signal shown, what each signal of the
    session takes (shares that add up to the difference), and the intent if that signal alone were
    repaired. By the trained model: what it sees, not proof of cause. `recoup train intent` trains
    one. If the registry has a model of hesitation too, waits that became too long are told beside.

        recoup explain shop/events.parquet --registry models/ --visitor v0000875

        recoup explain clicks.csv --mapping mapping.toml --registry models/ --session s17 --json
    """
    from recoup.runners.explaining import explain_sessions
    from recoup.runners.serving import load_serving
    from recoup.runners.training import load_intent

    model, loaded = load_intent(registry, serving=True)
    hesitation = load_serving(registry).hesitation
    opened = open_log(source, format, mapping, privacy=privacy, secret_file=secret_file)
    with reading("reading", source, opened) as (log, tick):
        found = explain_sessions(
            log, model, hesitation=hesitation, visitor=visitor, session=session, progress=tick
        )
    if json:
        print_json({"model": model.hash, "version": loaded.number, "sessions": found})
        return
    for each in found:
        stdout.print(_table(each))
    stdout.print(
        "Lowered by: points of per cent that a signal takes, of this event or from before; in "
        "brackets the intent if it alone were repaired.\n"
        "What the trained model sees, not proof of cause.",
        highlight=False,
    )


def _table(session: "ExplainedSession") -> Table:
    named = session.log_session or session.session
    begin = session.events[0].ts
    table = Table(title=f"{session.visitor}, session {named}, {begin:%d %b %Y}", show_edge=False)
    for name in ("time", "event"):
        table.add_column(name, no_wrap=True)
    for name in ("intent", "unspoilt"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("lowered by")
    for event in session.events:
        lowering = [each for each in event.reasons if each.share < 0]
        table.add_row(
            f"{event.ts:%H:%M:%S}",
            event.event if event.waited_s is None else f"(waiting for {event.waited_s:.0f} s)",
            f"{event.intent:.1%}",
            f"{event.unspoilt:.1%}",
            "\n".join(_words(each) for each in lowering),
        )
    return table


def _words(reason: "Reason") -> str:
    since = "" if reason.shown else " before"
    return f"{reason.name}{since} {100 * reason.share:+.1f} ({reason.repaired:.1%})"
