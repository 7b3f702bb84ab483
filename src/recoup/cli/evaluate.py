"""`recoup evaluate`: measure a model, or what a policy was worth, on a log."""

import typer

from recoup.cli import (
    evaluate_causal,
    evaluate_experiment,
    evaluate_incident,
    evaluate_lift,
    evaluate_policy,
)
from recoup.cli.arguments import (
    Format,
    From,
    History,
    Log,
    Mapping,
    ModelVersion,
    Registry,
    RulesFile,
    Until,
    parse_moment,
)
from recoup.cli.metrics import print_metrics, print_repeat, print_waits
from recoup.cli.on_log import OnLog, tell
from recoup.cli.output import EXIT_CODES, JsonFlag

evaluate = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    evaluate_causal.register(evaluate)
    evaluate_experiment.register(evaluate)
    evaluate_policy.register(evaluate)
    evaluate_incident.register(evaluate)
    evaluate_lift.register(evaluate)
    app.add_typer(
        evaluate, name="evaluate", help="Measure a model on a log, or what a policy earned."
    )


@evaluate.callback()
def _group() -> None:
    """Measure a model on a log, or what a policy earned."""


@evaluate.command("intent", epilog=EXIT_CODES)
def evaluate_intent_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Registry,
    start: From = None,
    until: Until = None,
    history: History = None,
    version: ModelVersion = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    rules: RulesFile = None,
    json: JsonFlag = False,
) -> None:
    """Measure purchase intent at every event of sessions that have not bought yet.

    Events before `--from` are folded for features and not scored. `pr_auc` is average precision;
    `calibration_error` uses 15 bins of equal mass.

        recoup evaluate intent LOG --from 2016-09-19T07:00 --registry models/ --json
    """
    from recoup.runners.training import evaluate_intent_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(
        evaluate_intent_on, "scoring", start=parse_moment(start, "--from"), version=version
    )
    tell(metrics, print_metrics, json=json)


@evaluate.command("repeat", epilog=EXIT_CODES)
def evaluate_repeat_command(  # noqa: PLR0913
    source: Log,
    *,
    registry: Registry,
    start: From = None,
    until: Until = None,
    history: History = None,
    rules: RulesFile = None,
    version: ModelVersion = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Measure repeat purchase, beside BG/NBD: who bought in the horizon from `--from` on.

    Every customer who bought before that day is scored; without `--from` it is the day on which
    training ended. `gain` is the fall of the log loss below BG/NBD's, with its 95 % interval.

        recoup evaluate repeat ORDERS --from 2010-10-01 --registry models/ --json
    """
    from recoup.runners.repeat import evaluate_repeat_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(
        evaluate_repeat_on, "scoring", start=parse_moment(start, "--from"), version=version
    )
    tell(metrics, print_repeat, json=json)


@evaluate.command("hesitation", epilog=EXIT_CODES)
def evaluate_hesitation_command(  # noqa: PLR0913 - one argument an option
    source: Log,
    *,
    registry: Registry,
    start: From = None,
    until: Until = None,
    history: History = None,
    rules: RulesFile = None,
    version: ModelVersion = None,
    format: Format = None,  # noqa: A002
    mapping: Mapping = None,
    json: JsonFlag = False,
) -> None:
    """Measure hesitation on the pages of a log: the time to the next page or step forward.

    `pit_error` is the largest distance of the probability integral transform from uniform, and
    `pit_chance` what right predictions exceed one time in twenty;
    `log_score` the likelihood on a stated grid of times, in nats (above is better), beside a table
    by state and a Weibull regression with cure that were fitted to the same rows.

        recoup evaluate hesitation LOG --from 2016-09-19T07:00 --registry models/ --json
    """
    from recoup.runners.hesitation import evaluate_hesitation_on

    asked = OnLog(source, registry, until, history, format, mapping, rules)
    metrics = asked.run(
        evaluate_hesitation_on, "scoring", start=parse_moment(start, "--from"), version=version
    )
    tell(metrics, print_waits, json=json)
