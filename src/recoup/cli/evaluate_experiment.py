"""`recoup evaluate experiment`: what an experiment's arms did, and what to do about it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Level, Plot, print_estimates, read_table, save_plot
from recoup.errors import ConfigError

if TYPE_CHECKING:
    from recoup.causal.estimate import Estimate
    from recoup.causal.experiment import ExperimentResult

Units = Annotated[
    Path, typer.Argument(metavar="TABLE", help="A Parquet or CSV file: one row a unit.")
]
COLOURS = {"ship": "green", "stop": "red", "go on": "yellow"}


class Corrections(StrEnum):
    """How the error over metrics and arms is held."""

    HOLM = "holm"
    BENJAMINI_HOCHBERG = "benjamini_hochberg"
    NONE = "none"


def register(evaluate: typer.Typer) -> None:
    """Add the commands to the group `recoup evaluate`."""
    evaluate.command("experiment", epilog=EXIT_CODES)(experiment_command)
    evaluate.command("switchback", epilog=EXIT_CODES)(switchback_command)


def experiment_command(  # noqa: PLR0913 - one argument an option
    table: Units,
    *,
    arm: Annotated[str, typer.Option(help="Column: the arm that a unit was in.")],
    control: Annotated[str, typer.Option(help="The arm that the others are compared with.")],
    metric: Annotated[
        list[str],
        typer.Option(
            help="Column, or TOP/BOTTOM for a ratio of sums; repeat it. The first one decides."
        ),
    ],
    less_is_better: Annotated[
        list[str] | None,
        typer.Option(help="A metric or guardrail of which a fall is a gain; repeat it."),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(
            help="METRIC=MARGIN: must not get worse by more than this share (0.01 if left out)."
        ),
    ] = None,
    covariate: Annotated[
        list[str] | None,
        typer.Option(help="Column known before assignment, to adjust by (CUPED); repeat it."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Column: what was assigned, where it has several rows."),
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Column: a segment known before assignment.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column: when a row became known; gives `sequence`.")
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(help="ARM=SHARE that was intended; repeat it. Equal shares where absent."),
    ] = None,
    sequential: Annotated[
        bool,
        typer.Option("--sequential", help="Intervals and p-values that hold at every look."),
    ] = False,
    planned: Annotated[
        int | None, typer.Option(min=1, help="Units, of all arms, that were planned for.")
    ] = None,
    correction: Annotated[
        Corrections, typer.Option(help="Of the error over all metrics and arms.")
    ] = Corrections.HOLM,
    worthwhile: Annotated[
        float, typer.Option(min=0, help="Relative gain below which shipping is not worth it.")
    ] = 0.0,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Compare the arms of an experiment, and say whether to ship, to stop or to go on.

    Arms of other sizes than intended refuse everything. A fixed test is read once, at the planned
    size; with --sequential it may be read, and stopped, at any time.

        recoup evaluate experiment trial.parquet --arm arm --control old --metric revenue/sessions
        --metric orders --guardrail returns=0.02 --less-is-better returns --sequential
    """
    from recoup.causal.experiment import Rules, evaluate_experiment
    from recoup.causal.experiment_metrics import Metric

    falls = set(less_is_better or [])
    metrics = [Metric.parse(text, less_is_better=text in falls) for text in metric]
    guards = [
        Metric.parse(text, guardrail=True, less_is_better=text.partition("=")[0] in falls)
        for text in guardrail or []
    ]
    unknown = falls - {each.name for each in (*metrics, *guards)}
    if unknown:
        raise ConfigError(f"Expected --less-is-better to name a metric, got {sorted(unknown)}")
    found = evaluate_experiment(
        read_table(table),
        arm=arm,
        control=control,
        metrics=metrics,
        guardrails=guards,
        covariates=covariate or [],
        cluster=cluster,
        segment=segment,
        time=time,
        shares=read_shares(share),
        rules=Rules(
            test="anytime" if sequential else "t",
            planned=planned,
            correction=correction.value,
            worthwhile=worthwhile,
            level=level,
        ),
    )
    save_plot(found, plot)
    if json:
        print_json(found)
    else:
        print_experiment(found)


def switchback_command(  # noqa: PLR0913 - one argument an option
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="A Parquet or CSV file: one row a visit or hour."),
    ],
    *,
    region: Annotated[str, typer.Option(help="Column: what switches as a whole.")],
    time: Annotated[str, typer.Option(help="Column: date or time of a row.")],
    arm: Annotated[str, typer.Option(help="Column: what the region did then.")],
    control: Annotated[str, typer.Option(help="Its value for not acting.")],
    metric: Annotated[
        list[str],
        typer.Option(help="Column to be summed by block, or TOP/BOTTOM for a ratio; repeat it."),
    ],
    block_hours: Annotated[float, typer.Option(min=0, help="Length of a block.")],
    leave_out_hours: Annotated[
        float, typer.Option(min=0, help="Left out at the start of each block.")
    ] = 0.0,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Compare acted blocks of a switchback with the other block of their pair.

    For what shoppers share, such as stock or delivery slots: a split by visitor would count twice
    what one arm takes from the other.

        recoup evaluate switchback hours.parquet --region city --time ts --arm arm --control old
        --metric orders --block-hours 4 --leave-out-hours 1
    """
    from recoup.causal.experiment_metrics import Metric
    from recoup.causal.switchback_design import evaluate_switchback

    found = evaluate_switchback(
        read_table(table),
        region=region,
        time=time,
        arm=arm,
        control=control,
        metrics=[Metric.parse(text) for text in metric],
        block_hours=block_hours,
        leave_out_hours=leave_out_hours,
        level=level,
    )
    save_plot(found, plot)
    if json:
        print_json(found)
        return
    print_estimates(
        f"{found.pairs} pairs of blocks in {found.regions} regions",
        {each.metric: each for each in found.effects},
    )
    for warning in found.warnings:
        stdout.print(f"[yellow]{warning}[/]")


def read_shares(texts: list[str] | None) -> dict[str, float] | None:
    """Read ``ARM=SHARE`` texts.

    Raises
    ------
    ConfigError
        If one is not of that form.
    """
    if not texts:
        return None
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"Expected ARM=SHARE, got {text!r}", hint="for example --share new=0.5"
            ) from error
    return found


def print_experiment(found: "ExperimentResult") -> None:
    """Print the effects, the guardrails, the segments and the decision."""
    estimates: dict[str, Estimate] = {}
    for effect in found.effects:
        name = f"{effect.metric}, {effect.arm}"
        estimates[f"{name} (p = {effect.adjusted_p_value:.2g})"] = effect
        if effect.relative_effect is not None:
            estimates[f"  relative, {name}"] = effect.relative_effect
    for guard in found.guardrails:
        estimates[f"guardrail {guard.metric}, {guard.arm}: {guard.state}"] = guard
    for part in found.segments:
        estimates[f"  {part.segment}, {part.arm}"] = part
    print_estimates(f"effects over the control, {found.units:,} units", estimates)
    for each in found.heterogeneity:
        stdout.print(f"One effect in all segments, {each.arm}: p = {each.p_value:.2g}")
    for warning in found.warnings:
        stdout.print(f"[yellow]Mind:[/] {warning}.", soft_wrap=True)
    verdict = found.decision.verdict
    colour = COLOURS[verdict]
    stdout.print(f"[bold {colour}]{verdict.capitalize()}.[/] ", end="")
    stdout.print(f"{found.decision.reason}.", markup=False, soft_wrap=True)
