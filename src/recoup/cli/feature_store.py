"""`recoup features describe, get, join, skew, health`: the feature store as people use it."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict
from rich.table import Table

from recoup.cli.arguments import Format, Log, Mapping, open_log, parse_moment, read_pair, reading
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import read_table

if TYPE_CHECKING:
    from recoup.features.frames import KeyFeatures
    from recoup.features.health import Drift, Skew
    from recoup.runners.backfill import Counted
    from recoup.runners.feature_tables import Health

Set = Annotated[
    str | None,
    typer.Option("--set", help="Your own features: module:attribute. Else the standard set."),
]
MOST_SHOWN = 12


def register(features: typer.Typer) -> None:
    """Add the commands to `recoup features`."""
    for name, command in (
        ("describe", describe),
        ("get", get),
        ("join", join),
        ("skew", skew),
        ("health", health),
    ):
        features.command(name, epilog=EXIT_CODES)(command)


def describe(
    name: Annotated[str, typer.Argument(help="The feature's name.")],
    *,
    chosen: Set = None,
    json: JsonFlag = False,
) -> None:
    """Say what a feature is, and which events and columns it reads.

    Beside it stand the edition of its set, the set's hash, and who answers for it.

        recoup features describe session_adds
    """
    from recoup.features.lineage import describe as describe_feature
    from recoup.runners.feature_tables import load_feature_set

    told = describe_feature(load_feature_set(chosen), name)
    if json:
        print_json(told)
        return
    stdout.print(f"[bold]{told.name}[/]", highlight=False)
    stdout.print(told.meaning, highlight=False)
    for label, text in (
        ("by", " + ".join(told.by)),
        ("window", told.window),
        ("reads events", ", ".join(told.events) or "all"),
        ("reads columns", ", ".join(told.columns)),
        ("set", f"{told.set}, version {told.version}, {told.hash[:12]}"),
        ("owner", told.owner or "not stated"),
    ):
        stdout.print(f"  {label:14} {text}", highlight=False)


def get(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="`ann` is a visitor; else `item=sku-1`, or a pair `visitor=ann,item=sku-1`.",
        ),
    ],
    source: Log,
    *,
    at: Annotated[
        str | None,
        typer.Option("--at", help="As of this moment (ISO 8601, UTC); else of all that came."),
    ] = None,
    chosen: Set = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Give a key's features as they stood at a moment.

    They are those of its latest event until then.

        recoup features get ann shop/events.parquet --at 2026-03-02T12:00

        recoup features get item=chairs-01 shop/events.parquet --json
    """
    from recoup.runners.feature_tables import features_of, load_feature_set

    with reading("reading", source, open_log(source, format, mapping)) as (log, tick):
        found = features_of(
            log,
            load_feature_set(chosen),
            _read_key(key),
            at=parse_moment(at, "--at"),
            progress=tick,
        )
    if json:
        print_json(_with_left_out(found, log))
        return
    told = ", ".join(f"{column} {value}" for column, value in found.key.items())
    as_of = "no event until then" if found.as_of is None else f"its event of {_clock(found.as_of)}"
    stdout.print(f"[bold]{told}[/] at {_clock(found.at)}: {found.status}, {as_of}", highlight=False)
    for name, value in found.features.items():
        stdout.print(f"  {name:34} {'-' if value is None else f'{value:,.6g}'}", highlight=False)


def join(  # noqa: PLR0913 - one argument an option
    table: Annotated[Path, typer.Argument(help="Keys and moments: a .parquet or .csv file.")],
    source: Log,
    *,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    ts: Annotated[str, typer.Option("--ts", help="Column of the moments.")] = "ts",
    key: Annotated[
        list[str] | None,
        typer.Option("--key", help="`visitor=customer_id`: the log's key, the table's column."),
    ] = None,
    settled: Annotated[
        bool,
        typer.Option(
            "--settled", help="Let events count that arrived after a moment; else as served then."
        ),
    ] = False,
    max_age_s: Annotated[
        float | None, typer.Option("--max-age-s", help="Give no row older than this, in seconds.")
    ] = None,
    chosen: Set = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Join features to any table of keys and moments, as they stood at each moment.

    Each kind of key adds its `by_..._status` (found, late, stale, not_yet, unknown, no_key),
    `by_..._row_age_s`, and its features. Nothing from after a moment is joined to it.

        recoup features join labels.csv LOG --key visitor=customer --ts asked_at --out rows.parquet
    """
    from recoup.runners.feature_tables import join_table, load_feature_set
    from recoup.tables import write_table

    with reading("joining", source, open_log(source, format, mapping)) as (log, tick):
        joined = join_table(
            read_table(table),
            log,
            load_feature_set(chosen),
            ts=ts,
            keys=dict(read_pair(text, "--key") for text in key or ()),
            how="settled" if settled else "served",
            max_age_s=max_age_s,
            progress=tick,
        )
    write_table(joined.frame, out)
    if json:
        print_json(
            {
                "rows": joined.frame.height,
                "accounts": joined.accounts,
                "left_out": joined.left_out,
                **asdict(log.left_out),
            }
        )
        return
    for kind, counts in joined.accounts.items():
        told = ", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
        stdout.print(f"  by {kind}: {told}", highlight=False)
    if joined.left_out:
        stdout.print(f"  {len(joined.left_out)} features left out: the table lacks their key")
    stdout.print(f"Wrote {joined.frame.height:,} rows to {out}", highlight=False)


def skew(
    served: Annotated[
        Path, typer.Argument(help="Rows as logged, such as features.parquet of a replay.")
    ],
    source: Log,
    *,
    chosen: Set = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Fold a log again and compare with the rows that were served.

    Rows that were never served, rows without an event, and rows that differ: all aim at zero.

        recoup features skew out/features.parquet shop/events.parquet
    """
    from recoup.runners.feature_tables import load_feature_set, skew_of

    with reading("folding", source, open_log(source, format, mapping)) as (log, tick):
        found = skew_of(read_table(served), log, load_feature_set(chosen), progress=tick)
    if json:
        print_json(_with_left_out(found, log))
    else:
        _print_skew(found)


def health(
    source: Log,
    *,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Compare before with after this moment; the log's middle."),
    ] = None,
    chosen: Set = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Say how fresh each kind of key is at the log's end, and which features drifted within it.

    Drift is the population stability index: below 0.1 is small, above 0.25 large.

        recoup features health shop/events.parquet
    """
    from recoup.runners.feature_tables import health_of, load_feature_set

    with reading("folding", source, open_log(source, format, mapping)) as (log, tick):
        found = health_of(
            log, load_feature_set(chosen), split=parse_moment(split, "--split"), progress=tick
        )
    if json:
        print_json(_with_left_out(found, log))
        return
    table = Table(title="Freshness at the log's end", show_edge=False)
    for column in ("key", "keys", "newest", "median", "95 %"):
        table.add_column(column, justify="left" if column == "key" else "right")
    for each in found.freshness:
        ages = (each.newest_s, each.median_s, each.p95_s)
        table.add_row(" + ".join(each.key), f"{each.keys:,}", *(_span(age) for age in ages))
    stdout.print(table)
    _print_drift(found.drift, found.split)


def _with_left_out(found: "KeyFeatures | Skew | Health", log: "Counted") -> dict[str, object]:
    return {**asdict(found), **asdict(log.left_out)}


def _print_skew(found: "Skew") -> None:
    stdout.print(f"{found.rows:,} rows on both sides", highlight=False)
    for told, share in (
        ("served no row", found.missing),
        ("not in the log", found.extra),
        ("differ", found.mismatch),
    ):
        stdout.print(f"  {told:16} {share:.4%}", highlight=False)
    for name, share in list(found.by_feature.items())[:MOST_SHOWN]:
        stdout.print(f"    {name:32} {share:.4%}", highlight=False)
    if found.absent:
        stdout.print(f"  never served: {', '.join(found.absent)}", highlight=False)


def _print_drift(drift: "list[Drift]", split: dt.datetime) -> None:
    table = Table(title=f"Drift across {_clock(split)}", show_edge=False)
    for column in ("feature", "psi", "mean before", "after", "undefined before", "after"):
        left = column == "feature"
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for each in drift[:MOST_SHOWN]:
        means = ("-" if m is None else f"{m:,.4g}" for m in (each.mean_before, each.mean_after))
        undefined = (f"{share:.1%}" for share in (each.undefined_before, each.undefined_after))
        table.add_row(each.feature, f"{each.psi:.3f}", *means, *undefined)
    stdout.print(table)


def _read_key(text: str) -> dict[str, str]:
    if "=" not in text:
        return {"visitor": text}
    return dict(read_pair(part, "KEY") for part in text.split(","))


def _span(seconds: float) -> str:
    return str(dt.timedelta(seconds=round(seconds)))


def _clock(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
