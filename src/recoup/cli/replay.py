"""`recoup replay`: a log in; what is wrong, what we would have done, and a report out."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.arguments import (
    Format,
    Log,
    Mapping,
    PrivacyFile,
    RulesFile,
    SecretFile,
    open_log,
    read_rules,
)
from recoup.cli.output import EXIT_CODES, JsonFlag, progress_bar, stdout


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("replay", epilog=EXIT_CODES)(replay)


def replay(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    out: Annotated[Path, typer.Option(help="Directory for the results; a cut run resumes there.")],
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    registry: Annotated[
        Path | None,
        typer.Option(
            help="Model registry: of intent, hesitation and repeat purchase the promoted model, "
            "else the newest; without one of intent, it is the rate of each funnel stage."
        ),
    ] = None,
    rules: RulesFile = None,
    privacy: PrivacyFile = None,
    secret_file: SecretFile = None,
    json: JsonFlag = False,
) -> None:
    """Replay a log through the whole flow: find defects, and decide as if it were live.

    DIR gets `defects`, `decisions`, `hesitations`, `features` and `dead_letters` as Parquet,
    `summary.json`, `report.html` (open it), and `journal.db`, from which an interrupted run goes
    on; with a trained model of intent also `reasons`: what each signal took from it. Nothing is
    executed: decisions on a log of the past are marked so, and no money is counted as saved.

        recoup replay shop/events.parquet --out out/

        recoup replay clicks.csv.gz --mapping mapping.toml --out out/ --json
    """
    from recoup.report import summary_panel, to_json
    from recoup.runners.replay import replay_source
    from recoup.runners.serving import Serving, load_serving
    from recoup.sources import mark_of

    log = open_log(source, format, mapping, privacy=privacy, secret_file=secret_file)
    models = Serving() if registry is None else load_serving(registry)
    with progress_bar("replaying", log.size_hint()) as tick:
        summary = replay_source(
            log,
            out,
            title=source.resolve().name,
            identity=_identity(
                source,
                format,
                {"mapping": mapping, "rules": rules, "privacy": privacy},
                {**models.names, "under secret": mark_of(log)},
            ),
            intent=models.intent,
            hesitation=models.hesitation,
            served=models.served,
            repeat=models.repeat,
            rules=read_rules(rules, privacy=privacy, secret_file=secret_file),
            progress=tick,
        )
    if json:
        typer.echo(to_json(summary))
    else:
        stdout.print(summary_panel(summary))
        stdout.print(f"Report: {out / 'report.html'}", highlight=False)


def _identity(
    source: Path,
    log_format: str | None,
    files: dict[str, Path | None],
    names: dict[str, str | None],
) -> str:
    """Say in one line what is replayed: another line needs another directory."""
    parts = [str(source.resolve())]
    if log_format is not None:
        parts.append(f"as {log_format}")
    for name, file in files.items():
        if file is not None:
            parts.append(f"by {name} {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}")
    parts += [f"{word} {name}" for word, name in names.items() if name is not None]
    return " ".join(parts)
