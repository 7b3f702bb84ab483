"""`recoup evaluate policy`: what a whole policy would have earned, on a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Level, Plot, Table, print_estimates, read_table, save_plot

if TYPE_CHECKING:
    from recoup.causal.estimate import Estimate
    from recoup.causal.policy_value import PolicyValue


def register(evaluate: typer.Typer) -> None:
    """Add the command to the group `recoup evaluate`."""
    evaluate.command("policy", epilog=EXIT_CODES)(policy_command)


def policy_command(  # noqa: PLR0913 - one argument an option
    table: Table,
    *,
    journey: Annotated[str, typer.Option(help="Column: key of the journey.")],
    time: Annotated[str, typer.Option(help="Column: decision point, in order.")],
    state: Annotated[
        list[str], typer.Option(help="Column of the state; repeat it for several columns.")
    ],
    action: Annotated[
        str, typer.Option(help="Column: what was done; doing nothing is an action too.")
    ],
    propensity: Annotated[
        str, typer.Option(help="Column: probability of what was done, in (0, 1].")
    ],
    outcome: Annotated[
        str, typer.Option(help="Column: net value over a fixed horizon from entry.")
    ],
    policy: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The policy: a table (.csv, .parquet) with the time, state and action columns.",
        ),
    ],
    probability: Annotated[
        str | None,
        typer.Option(help="Column of the policy's table: probability of the action; else 1."),
    ] = None,
    default: Annotated[
        str | None, typer.Option(help="The action wherever the policy's table has no row.")
    ] = None,
    availability: Annotated[
        str | None, typer.Option(help="Column: 1 where there was a choice; always where absent.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column: what is independent, such as the visitor.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Parts of the cross-fitting; journeys are dealt in turn.")
    ] = 2,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Estimate what a policy over several points and actions would have earned, and the regret.

    Acts may be repeated. The table has one row a journey and decision point. `refused` says why
    the log cannot answer: then use no number of it.

        recoup evaluate policy log.parquet --journey j --time t --state s --action a
        --propensity p --outcome y --policy policy.csv --default none
    """
    from recoup.causal.choices import choice_policy, choices_from_table
    from recoup.causal.policy_value import evaluate_policy

    choices = choices_from_table(
        read_table(table),
        journey=journey,
        time=time,
        state=state,
        action=action,
        propensity=propensity,
        outcome=outcome,
        availability=availability,
        cluster=cluster,
        folds=folds,
    )
    stated = choice_policy(
        choices,
        read_table(policy),
        time=time,
        state=state,
        action=action,
        probability=probability,
        default=_label(default, choices.actions),
    )
    found = evaluate_policy(choices, stated, level=level)
    save_plot(found, plot)
    if json:
        print_json(found)
    else:
        print_policy_value(found)


def print_policy_value(found: "PolicyValue") -> None:
    """Print the policy's value, the log's, and the regret by time."""
    estimates: dict[str, Estimate] = {
        "value of the policy": found.value,
        "value of the log": found.logged,
        "regret of the log": found.regret,
    }
    estimates |= {f"  at {each.time}": each for each in found.regret_by_time}
    print_estimates(f"policy, per journey ({found.journeys:,} journeys)", estimates)
    stdout.print(
        f"Worth {found.effective_sample_size:,.0f} journeys of the policy; largest weight "
        f"{found.largest_weight:,.1f}; {found.unsupported_mass:.1%} of it was never logged"
    )
    if found.refused is not None:
        stdout.print(f"[bold red]Refused:[/] {found.refused}. Use none of these numbers.")


def _label(text: str | None, actions: object) -> object | None:
    """Give the action that a text names; the column may hold numbers."""
    named = {str(action): action for action in actions} if isinstance(actions, list) else {}
    return None if text is None else named.get(text, text)
