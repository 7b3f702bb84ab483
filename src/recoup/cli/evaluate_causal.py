"""`recoup evaluate ope|delay|uplift`: what policies, waiting and acting were worth, on a table."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from recoup.cli.arguments import read_pair
from recoup.cli.output import EXIT_CODES, JsonFlag, print_json, stdout
from recoup.cli.tables import Level, Plot, Table, print_estimates, read_table, save_plot
from recoup.errors import ConfigError, SchemaError, SourceError

if TYPE_CHECKING:
    import polars as pl

    from recoup.causal.delay import Delay, Policy
    from recoup.causal.delay_by_action import ActionDelay
    from recoup.causal.delay_scores import Variant
    from recoup.causal.estimate import Estimate, Floats, IntervalKind
    from recoup.causal.journeys import Journeys
    from recoup.causal.uplift import Experiment

UNDECIDED_WARNING = 0.05
UPLIFT_SHARES = (0.1, 0.2, 0.3, 0.5)


class Nuisances(StrEnum):
    """What predicts outcomes inside the scores."""

    CELLS = "cells"
    TREES = "trees"


class Learners(StrEnum):
    """How effects by row are learned."""

    DR = "dr"
    T = "t"
    R = "r"


class Scores(StrEnum):
    """Which of the two scores of waiting."""

    ADR = "adr"
    ADR2 = "adr2"


def register(evaluate: typer.Typer) -> None:
    """Add the commands to the group `recoup evaluate`."""
    evaluate.command("ope", epilog=EXIT_CODES)(ope_command)
    evaluate.command("delay", epilog=EXIT_CODES)(delay_command)
    evaluate.command("uplift", epilog=EXIT_CODES)(uplift_command)


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
    plot: Plot = None,
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
    save_plot(found, plot)
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


def delay_command(  # noqa: PLR0913 - one argument an option
    table: Table,
    *,
    journey: Annotated[str, typer.Option(help="Column: key of the journey.")],
    time: Annotated[str, typer.Option(help="Column: decision point, in order.")],
    state: Annotated[
        list[str], typer.Option(help="Column of the state; repeat it for several columns.")
    ],
    act: Annotated[str, typer.Option(help="Column: 1 where acted, else 0; one act a journey.")],
    propensity: Annotated[str, typer.Option(help="Column: P(act) at that point, in (0, 1).")],
    outcome: Annotated[
        str, typer.Option(help="Column: net value over a fixed horizon from entry.")
    ],
    availability: Annotated[
        str | None, typer.Option(help="Column: 1 where an act was possible; always where absent.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The policy to compare with: a table (.csv, .parquet) with the time, state and act"
            " columns, or JSON: a row of acts (0, 1) by state for each time. Without it: act at the"
            " first open point.",
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Column: what is independent, such as the visitor.")
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Column: a segment known from the journey's start.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Column known at each point, such as the defect type: costs by it too; repeat it."
        ),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Column: which action an act was; gives `by_action`.")
    ] = None,
    chance: Annotated[
        list[str] | None,
        typer.Option(
            help="ACTION=COLUMN of its probability (0: not possible), for --action; repeat it."
        ),
    ] = None,
    fold: Annotated[str | None, typer.Option(help="Column: part of the cross-fitting.")] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Parts; journeys are dealt in turn, in order of their keys.")
    ] = 2,
    model: Annotated[
        Nuisances, typer.Option(help="`cells`: means by time and state; `trees`: boosted trees.")
    ] = Nuisances.CELLS,
    variant: Annotated[
        Scores, typer.Option(help="`adr2` leans more on the model of acting.")
    ] = Scores.ADR,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Estimate what waiting and missing cost, and the log's regret against a policy.

    The table has one row a journey and decision point, up to the first act or the journey's end.

        recoup evaluate delay log.parquet --journey j --time t --state s --act a
        --propensity p --outcome y --policy policy.csv
    """
    from recoup.causal.delay import evaluate_delay
    from recoup.causal.delay_by_action import evaluate_delay_by_action
    from recoup.causal.journeys import journeys_from_table
    from recoup.causal.nuisance import TreeMeans

    if (action is None) != (not chance):
        raise ConfigError(
            "Expected --action and a --chance for each action, got one of them",
            hint="for example --action what --chance chat=p_chat --chance coupon=p_coupon",
        )
    journeys = journeys_from_table(
        read_table(table),
        journey=journey,
        time=time,
        state=state,
        act=act,
        propensity=propensity,
        outcome=outcome,
        availability=availability,
        cluster=cluster,
        segment=segment,
        fold=fold,
        folds=folds,
        known=by or [],
        action=action,
        action_propensities=dict(read_pair(text, "--chance") for text in chance or []),
    )
    regressor = TreeMeans if model is Nuisances.TREES else None
    score: Variant = "adr2" if variant is Scores.ADR2 else "adr"
    found = evaluate_delay(
        journeys,
        None if policy is None else read_policy(policy, journeys, time, state, act),
        regressor=regressor,
        variant=score,
        level=level,
    )
    by_action = evaluate_delay_by_action(journeys, regressor=regressor, variant=score, level=level)
    if plot is not None:
        from recoup.report.causal_plots import DelayFigure

        save_plot(DelayFigure(found, by_action), plot)
    if json:
        print_json(msgspec.structs.asdict(found) | {"by_action": by_action})
    else:
        print_delay(found)
        print_by_action(by_action)


def uplift_command(  # noqa: PLR0913 - one argument an option
    table: Table,
    *,
    treatment: Annotated[str, typer.Option(help="Column: 1 where acted on, else 0.")],
    outcome: Annotated[str, typer.Option(help="Column: what came of it.")],
    feature: Annotated[
        list[str], typer.Option(help="Column known before the decision; repeat for several.")
    ],
    propensity: Annotated[
        str | None,
        typer.Option(help="Column: P(treated), in (0, 1); the treated share where absent."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Column: what is independent (the visitor), where it has several rows."),
    ] = None,
    cost: Annotated[float, typer.Option(help="Of one act, in units of the outcome.")] = 0.0,
    learner: Annotated[
        Learners, typer.Option(help="`dr` doubly robust, `t` two models, `r` residuals.")
    ] = Learners.DR,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the cross-fitting.")] = 2,
    level: Level = 0.95,
    plot: Plot = None,
    json: JsonFlag = False,
) -> None:
    """Learn whom an act helps from randomised decisions, and what acting on those alone is worth.

    `groups` are fifths of the predicted effect; `targeting` is learned on every other row (or
    cluster) and judged on the rest. Rows should be in no order that has to do with the outcome.

        recoup evaluate uplift trial.parquet --treatment t --outcome y --feature x --feature z
    """
    from recoup.causal.uplift import judge_targeting, learn_uplift
    from recoup.causal.uplift_curves import curve, uplift_area

    data = read_experiment(read_table(table), treatment, outcome, feature, propensity, cluster)
    found = learn_uplift(data, learner=learner.value, folds=folds, level=level)
    alike = bool((data.propensity == data.propensity[0]).all())  # there is a best order only then
    ranked = alike and bool(((data.outcome == 0) | (data.outcome == 1)).all())
    targeting = judge_targeting(data, cost=cost, learner=learner.value, level=level)
    qini = curve(data.outcome, data.treated, found.effect, "qini", propensity=data.propensity)
    payload = {
        "rows": len(data.outcome),
        "clusters": None if data.cluster is None else int(data.cluster.max()) + 1,
        "average": found.average,
        "groups": found.groups,
        "calibration": found.calibration,
        "qini_area": qini.area_above_line,
        "qini": uplift_area(data.outcome, data.treated, found.effect) if ranked else None,
        "auuc": uplift_area(data.outcome, data.treated, found.effect, "uplift") if ranked else None,
        "uplift_at": uplift_at_shares(data, found.effect),
        "targeting": targeting,
        "learner": learner.value,
        "level": level,
    }
    if plot is not None:
        from recoup.report.causal_plots import UpliftFigure

        save_plot(UpliftFigure(qini, found), plot)
    if json:
        print_json(payload)
        return
    estimates: dict[str, Estimate] = {"average effect": found.average}
    estimates |= {f"fifth {place}": group for place, group in enumerate(found.groups, 1)}
    estimates |= {
        "calibration": found.calibration,
        f"value, acting on {targeting.share:.0%}": targeting.value,
        "  over acting on no one": targeting.over_none,
        "  over acting on all": targeting.over_all,
    }
    print_estimates(f"effect of {treatment} on {outcome}", estimates)


def uplift_at_shares(data: "Experiment", effect: "Floats") -> dict[str, float | None]:
    """Give the uplift among the shares of highest effect; None where one holds a single arm."""
    from recoup.causal.uplift_curves import uplift_at

    found: dict[str, float | None] = {}
    for share in UPLIFT_SHARES:
        try:
            found[str(share)] = uplift_at(
                data.outcome, data.treated, effect, share, propensity=data.propensity
            )
        except SchemaError:
            found[str(share)] = None
    return found


def read_experiment(
    frame: "pl.DataFrame",
    treatment: str,
    outcome: str,
    features: list[str],
    propensity: str | None,
    cluster: str | None = None,
) -> "Experiment":
    """Read randomised decisions from a table; words among the features become codes."""
    import numpy as np

    from recoup.causal.tables import (
        cluster_codes,
        flags,
        key_codes,
        number_column,
        reals,
        require_columns,
    )
    from recoup.causal.uplift import Experiment

    require_columns(frame, (treatment, outcome, *features, propensity, cluster))
    later = sorted({treatment, outcome} & set(features))
    if later:
        raise ConfigError(
            f"Expected features known before the decision, got {later}",
            hint="leave out the treatment and the outcome",
        )
    treated = flags(frame, treatment)
    columns = [
        reals(frame, name) if frame.schema[name].is_numeric() else key_codes(frame, [name])
        for name in features
    ]
    if propensity is None:
        chance = np.full(frame.height, treated.mean())
    else:
        chance = number_column(frame, propensity, low=1e-6, high=1 - 1e-6)
    return Experiment(
        features=np.column_stack(columns).astype(np.float64),
        treated=treated.astype(np.int64),
        outcome=reals(frame, outcome),
        propensity=chance,
        cluster=None if cluster is None else cluster_codes(frame, cluster),
    )


def read_policy(
    path: Path, journeys: "Journeys", time: str, state: list[str], act: str
) -> "Policy":
    """Read a policy, shape (times, states), from JSON or from a table.

    Raises
    ------
    SourceError
        If it cannot be read.
    ConfigError
        If it names a time or state that the log lacks, or has another shape.
    """
    from recoup.causal.delay import policy_from_rows
    from recoup.causal.tables import flags, require_columns

    if path.suffix.lower() == ".json":
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[list[float]])
        except (msgspec.DecodeError, OSError) as error:
            raise SourceError(
                f"Expected a list of acts by state for each time in {path}, got: {error}",
                hint="for two times and three states: [[0, 1, 1], [0, 0, 1]]",
            ) from error
    table = read_table(path)
    require_columns(table, (time, *state, act))
    places = [
        (key[0], key[1] if len(state) == 1 else " | ".join(map(str, key[1:])))
        for key in table.select(time, *state).rows()
    ]
    acts = dict(zip(places, flags(table, act).tolist(), strict=True))
    if len(acts) < len(places):
        raise ConfigError(
            f"Expected one row a time and state in {path}, got several",
            hint="leave out all but one of them",
        )
    return policy_from_rows(journeys, acts)


def print_by_action(found: "list[ActionDelay]") -> None:
    """Print what waiting with each action cost."""
    if not found:
        return
    estimates: dict[str, Estimate] = {
        f"{each.action} at {point.time}": point for each in found for point in each.delta_by_time
    }
    print_estimates("cost of waiting by action, per journey", estimates)


def print_delay(found: "Delay") -> None:
    """Print the costs by time, the policy's worth and the regret's parts."""
    estimates: dict[str, Estimate] = {
        f"cost of waiting at {each.time}": each for each in found.delta_by_time
    }
    estimates |= {f"value, acting from {each.time} on": each for each in found.value_against_delay}
    regret = found.regret
    estimates |= {
        "value of the log": found.logged_value,
        f"value of the policy ({found.policy})": found.policy_value,
        "advantage over never": found.advantage,
        "regret of the log": regret,
        "  acted early": regret.early,
        "  acted late": regret.late,
        "  missed": regret.missed,
        "  unnecessary": regret.unnecessary,
    }
    print_estimates(f"delay, per journey ({found.journeys:,.0f} journeys)", estimates)
    for point in found.diagnostics:
        if point.refused is not None:
            stdout.print(f"[yellow]Time {point.time}:[/] {point.refused}; read nothing off it.")
    if found.undecided_share > UNDECIDED_WARNING:
        stdout.print(
            f"[yellow]Early or unnecessary?[/] The log cannot tell for {found.undecided_share:.0%} "
            "of the acts concerned; their sum is sound."
        )
    if found.refused is not None:
        stdout.print(f"[bold red]Refused for this policy:[/] {found.refused}.")
