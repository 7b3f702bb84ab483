"""Arguments that several commands take, with one wording."""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.output import Ticker, progress_bar, tell_left_out
from recoup.errors import ConfigError
from recoup.settings import moment

if TYPE_CHECKING:
    from recoup.non_shoppers import Rules
    from recoup.runners.backfill import Counted
    from recoup.sources import Privacy, Source

Log = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="A log: a file (CSV, NDJSON, Parquet; .gz, .zst) or a directory of them.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        help="`native`, `google_merch_store`; payloads: `ga4_mp`, `ga4_bigquery`, `segment`, "
        "`snowplow`, `cloudevents`; or a public log: `online_retail`, `cdnow`, "
        "`completejourney`, `retailrocket`, `yoochoose`, `taobao`; found out where it is not given."
    ),
]
Mapping = Annotated[
    Path | None,
    typer.Option(help="A mapping file (TOML), such as `recoup inspect` proposes."),
]
RulesFile = Annotated[
    Path | None,
    typer.Option(
        "--rules", help="Rules (TOML) for bots, monitors, staff and test orders, who are left out."
    ),
]
PRIVACY_VARIABLE = "RECOUP_PRIVACY"
KEY_VARIABLE = "RECOUP_SECRET"
KEY_FILE_VARIABLE = "RECOUP_SECRET_FILE"


PrivacyFile = Annotated[
    Path | None,
    typer.Option(
        "--privacy",
        envvar=PRIVACY_VARIABLE,
        help="Privacy settings (TOML): allowed fields, hashed visitors, consent.",
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        envvar=KEY_FILE_VARIABLE,
        help="File with the secret for hashing visitors; or set RECOUP_SECRET.",
    ),
]
Registry = Annotated[Path, typer.Option(help="Directory of the model registry.")]
ModelVersion = Annotated[
    int | None, typer.Option("--version", help="Version of the model; the newest if not named.")
]
From = Annotated[
    str | None, typer.Option("--from", help="Only rows at or after this moment (ISO 8601, UTC).")
]
Until = Annotated[str | None, typer.Option(help="Only rows before this moment (ISO 8601, UTC).")]
History = Annotated[
    Path | None,
    typer.Option(metavar="SOURCE", help="An earlier log: folded for features, not scored."),
]


def open_log(
    log: Path,
    log_format: str | None,
    mapping: Path | None,
    *,
    privacy: Path | None = None,
    secret_file: Path | None = None,
) -> "Source":
    """Open a log as the command line, or else the environment, names it."""
    from recoup.sources import open_source

    refuse_both(log_format, mapping)
    settings = read_privacy(privacy)
    secret = read_secret(secret_file) if settings is not None and settings.hash_visitors else None
    return open_source(log, format=log_format, mapping=mapping, privacy=settings, secret=secret)


@contextmanager
def accounted(path: Path, log: "Source") -> Iterator["Counted"]:
    """Read a log; then say, also where a command fails, what was left out of it."""
    from recoup.runners.backfill import Counted

    counted = Counted(log)
    try:
        yield counted
    finally:
        tell_left_out(path, counted.left_out)


@contextmanager
def reading(label: str, path: Path, log: "Source") -> Iterator[tuple["Counted", Ticker]]:
    """Read a log under a progress bar; then say what was left out of it."""
    with accounted(path, log) as counted, progress_bar(label, log.size_hint()) as tick:
        yield counted, tick


def read_privacy(path: Path | None) -> "Privacy | None":
    """Read the privacy settings, those that RECOUP_PRIVACY names if there is no path.

    Raises
    ------
    ConfigError
        If the file cannot be read, or does not keep the format.
    """
    from recoup.sources.privacy import parse_privacy

    named = path or _variable(PRIVACY_VARIABLE)
    return None if named is None else parse_privacy(_text(named), where=str(named))


def read_secret(path: Path | None) -> bytes | None:
    """Give the secret for hashing visitors: from a file, or as RECOUP_SECRET itself."""
    named = path or _variable(KEY_FILE_VARIABLE)
    if named is not None:
        return _text(named).strip().encode()
    return os.environ[KEY_VARIABLE].encode() if KEY_VARIABLE in os.environ else None


def _variable(name: str) -> Path | None:
    return Path(os.environ[name]) if os.environ.get(name) else None


def read_rules(
    path: Path | None, *, privacy: Path | None = None, secret_file: Path | None = None
) -> "Rules | None":
    """Read rules for non-shoppers; files that a rule names stand beside it.

    Where visitors are hashed, so are those that the rules name.

    Raises
    ------
    ConfigError
        If a file cannot be read, or does not keep the format.
    """
    from recoup.non_shoppers import parse_rules
    from recoup.sources.privacy import Pseudonyms

    if path is None:
        return None

    def lines(name: str) -> list[str]:
        return [line.strip() for line in _text(path.parent / name).splitlines() if line.strip()]

    rules = parse_rules(_text(path), where=str(path), read_list=lines)
    settings, secret = read_privacy(privacy), read_secret(secret_file)
    if settings is None or not settings.hash_visitors or secret is None:
        return rules
    return rules.renamed("visitor", Pseudonyms(secret).of)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Expected a file of text, got `{path}`: {error}", hint="check the path"
        ) from error


def refuse_both(log_format: str | None, mapping: Path | None) -> None:
    """Refuse a format and a mapping together.

    Raises
    ------
    ConfigError
        If both are given.
    """
    if log_format is not None and mapping is not None:
        raise ConfigError("Expected --format or --mapping, got both", hint="leave one out")


def parse_moment(text: str | None, option: str) -> dt.datetime | None:
    """Read an ISO 8601 moment; one without a zone is UTC.

    Raises
    ------
    ConfigError
        If it is no moment.
    """
    return None if text is None else moment(text, where=option)


def read_pair(text: str, place: str) -> tuple[str, str]:
    """Read ``name=value``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise ConfigError(f"Expected name=value in {place}, got {text!r}")
    return name, value
