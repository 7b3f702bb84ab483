"""What the system should learn from its own journal: what was decided, its worth, what to change.

The timing part reads the journal as journeys with decision points: each due decision of a visitor's
window, numbered, up to the first act. *Acting* at one is any act that was drawn there, and then
whatever the policy went on to do; *not acting* is any wait or `never`, as they were drawn. Every
decision carries the probability of either, so that the scores of `recoup.causal.delay` apply.

A change of policy is searched for on half of the visitors and judged on the other half. It is
proposed with the lower bound of its gain over the present policy, which is what a rollout asks for.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Final

import msgspec
import numpy as np
import polars as pl

from recoup.causal.delay import Delay, evaluate_delay
from recoup.causal.estimate import Estimate
from recoup.causal.journeys import Bools, Journeys, journeys_from_table
from recoup.causal.lift import LiftReport, lift_of
from recoup.causal.policy_search import held_out, search_policies
from recoup.causal.windows import Windows, decision_windows
from recoup.errors import ConfigError

MOST_POINTS: Final = 4
"""Decisions of a window that are looked at; what follows is what the policy goes on to do."""

MOST_REMEDIES: Final = 3
LEAST_VISITORS: Final = 150
"""Visitors of a remedy, under which it shares a state with the other rare ones."""

MOST_REASONS: Final = 8
"""Types of reasons that are told apart; they have `LEAST_VISITORS` too."""

LEAST_JOURNEYS: Final = 400
"""Visitors that the policy could act on, under which no change is looked for."""

OTHER: Final = "other"
LEVELS: Final = ("likely", "unlikely")
"""Halves of the visitors by intent: whether they seem more likely to buy than the median one."""

LEAST_ACTS: Final = 30
"""Acts at a decision, under which no rule begins there."""

FOLDS: Final = 4


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Executed decisions of the period, counted.

    Parameters
    ----------
    by_action, by_reason, by_slice
        Name -> decisions, the most frequent first.
    policies, versions
        How many versions decided, and which.
    since, until
        When the first and the last of them were made; None without any.
    """

    decisions: int
    visitors: int
    by_action: dict[str, int]
    by_reason: dict[str, int]
    by_slice: dict[str, int]
    policies: int
    versions: list[str]
    since: dt.datetime | None
    until: dt.datetime | None


class RuleRow(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a proposed rule acts: at which decision of a window, for which remedy and intent."""

    decision: int
    remedy: str
    intent: str
    act: bool


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a change may go to a share of the visitors, and why (not)."""

    passes: bool
    reasons: list[str]


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change of policy, with what the log says of it; per visitor, in currency units.

    Parameters
    ----------
    rule
        When to act; elsewhere the rule waits.
    intent_split
        Intent from which a visitor is likely to buy.
    value, present_value
        Of the rule, and of the policy as it was.
    gain
        The first less the second, on the half that the rule was not chosen on.
    lower_bound
        Lower end of the gain's interval: what a rollout may count on.
    chosen_on
        Gain over never acting on the half it was chosen on, which is too high, since it won there.
    tried
        Rules compared.
    effective_sample_size
        How many visitors of the rule's own log this one is worth.
    refused
        Why the log cannot answer, or None.
    gate
        Whether it may be rolled out.
    """

    rule: list[RuleRow]
    intent_split: float
    value: Estimate
    present_value: Estimate
    gain: Estimate
    lower_bound: float
    chosen_on: Estimate
    tried: int
    visitors: int
    effective_sample_size: float
    refused: str | None
    gate: Gate


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """A learning report.

    Parameters
    ----------
    made
        What was decided.
    lift
        What it was worth, against the holdout and from propensities.
    delay
        What waiting and missing cost, and the regret against the proposed rule; None if ``silent``.
    elapsed_s
        Median seconds from the first due decision to each of those looked at.
    proposal
        What should change; None if ``silent``.
    silent
        Why nothing can be said about timing, or None.
    """

    made: Made
    lift: LiftReport
    delay: Delay | None
    elapsed_s: list[float]
    proposal: Proposal | None
    silent: str | None
    level: float


def learning_report(
    decisions: pl.DataFrame,
    outcomes: pl.DataFrame,
    *,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    level: float = 0.95,
) -> Learned:
    """Report on the windows that begin in a half-open period.

    Parameters
    ----------
    decisions, outcomes
        A journal's, see `recoup.causal.windows.decision_windows`.
    level
        Confidence of all intervals.

    Raises
    ------
    SchemaError
        If a column is missing, or no decision was executed.

    References
    ----------
    Nie, Brunskill & Wager (2021), Learning when-to-treat policies, JASA 116.
    """
    windows = decision_windows(decisions, outcomes, since=since, until=until)
    lift = lift_of(windows, level=level)
    timed, silent = _timed(windows)
    delay, proposal = (None, None) if timed is None else _change(timed, lift, level)
    return Learned(
        made=_made(decisions, since, until),
        lift=lift,
        delay=delay,
        elapsed_s=[] if timed is None else timed.elapsed_s,
        proposal=proposal,
        silent=silent,
        level=level,
    )


class Timed(msgspec.Struct, frozen=True):
    """Journeys over numbered decisions, and the intent that parts likely from unlikely."""

    journeys: Journeys
    intent_split: float
    elapsed_s: list[float]


def timed_journeys(windows: Windows) -> Timed:
    """Read windows as journeys with decision points; visitors of the holdout are left out."""
    treated = windows.of(~pl.col("holdout"))
    split = float(treated.visitors["intent"].median() or 0.0)  # type: ignore[arg-type]
    frequent = treated.visitors["remedy"].value_counts().sort("count", "remedy", descending=True)
    named = frequent.filter(pl.col("count") >= LEAST_VISITORS)["remedy"].head(MOST_REMEDIES)
    types = treated.visitors["reason"].str.split(":").list.first().rename("reason").value_counts()
    types = types.sort("count", "reason", descending=True).filter(pl.col("count") >= LEAST_VISITORS)
    earlier = pl.col("act").cast(pl.Int64).cum_sum().over("visitor") - pl.col("act")
    rows = (
        treated.decisions.filter((pl.col("number") <= MOST_POINTS) & (earlier == 0))
        .join(treated.visitors.select("visitor", "value"), on="visitor", maintain_order="left")
        .with_columns(
            remedy=pl.when(pl.col("remedy").is_in(named.implode()))
            .then("remedy")
            .otherwise(pl.lit(OTHER)),
            reason=_told_apart(types["reason"].head(MOST_REASONS)),
            likely=pl.when(pl.col("intent") >= split)
            .then(pl.lit(LEVELS[0]))
            .otherwise(pl.lit(LEVELS[1])),
            act=pl.col("act").cast(pl.Int64),
            available=pl.col("act_chance").is_between(0, 1, closed="none"),
        )
    )
    journeys = journeys_from_table(
        rows, journey="visitor", time="number", state=["remedy", "likely"], act="act",
        propensity="act_chance", outcome="value", availability="available", folds=FOLDS,
        known=["reason"],
    )  # fmt: skip
    elapsed = rows.group_by("number").agg(pl.col("elapsed_s").median()).sort("number")
    return Timed(journeys, split, elapsed["elapsed_s"].to_list())


def _told_apart(types: pl.Series) -> pl.Expr:
    """Give the type of a reason (the defect's, without its place), or `OTHER`."""
    kind = pl.col("reason").str.split(":").list.first()
    return pl.when(kind.is_in(types.implode())).then(kind).otherwise(pl.lit(OTHER))


def _timed(windows: Windows) -> tuple[Timed | None, str | None]:
    treated = windows.visitors.filter(~pl.col("holdout"))
    if treated.height < LEAST_JOURNEYS:
        return None, (
            f"{treated.height} visitors could be acted on, {LEAST_JOURNEYS} are needed to look for "
            "a better moment"
        )
    if not (treated["acts"] > 0).any() or (treated["acts"] > 0).all():
        return None, "all of them, or none, were acted on: nothing says what the other would bring"
    return timed_journeys(windows), None


def _change(timed: Timed, lift: LiftReport, level: float) -> tuple[Delay, Proposal]:
    """Search on one half, judge on the other."""
    log = timed.journeys
    rules = candidate_rules(log)
    found = search_policies(log, rules, level=level)
    rule = rules[found.name]
    judged = held_out(log)
    delay = evaluate_delay(judged, rule, level=level)
    gain = Estimate(delay.regret.value, delay.regret.low, delay.regret.high, delay.regret.se)
    return delay, Proposal(
        rule=_rule_rows(log, np.asarray(rule, np.bool_)),
        intent_split=timed.intent_split,
        value=delay.policy_value,
        present_value=delay.logged_value,
        gain=gain,
        lower_bound=gain.low,
        chosen_on=found.chosen_on,
        tried=found.tried,
        visitors=len(judged.outcome),
        effective_sample_size=delay.policy_effective_sample_size,
        refused=delay.refused,
        gate=gate(gain, delay.refused, lift),
    )


def candidate_rules(log: Journeys) -> dict[str, Bools]:
    """Give the rules that are compared: from a decision on, for some remedies, for a half or all.

    At most 181, each of them said in a sentence. A rule may begin with any decision at
    which enough was acted on to judge it.
    """
    labels = [str(label).split(" | ") for label in log.states]
    remedies = sorted({remedy for remedy, _ in labels})
    acted = np.bincount(log.act_at, minlength=log.points + 1)[: log.points]
    starts = [point for point in range(log.points) if acted[point] >= LEAST_ACTS or point == 0]
    rules = {"never": np.zeros((log.points, len(labels)), np.bool_)}
    for start, chosen, halves in product(starts, _subsets(remedies), _subsets(LEVELS)):
        table = np.zeros((log.points, len(labels)), np.bool_)
        table[start:] = [remedy in chosen and half in halves for remedy, half in labels]
        rules[f"from {log.times[start]}: {', '.join(chosen)} ({', '.join(halves)})"] = table
    return rules


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Give every subset but the empty one, the smaller first."""
    for size in range(1, len(names) + 1):
        yield from combinations(names, size)


def gate(gain: Estimate, refused: str | None, lift: LiftReport) -> Gate:
    """Say whether a change of policy may be rolled out to a share of the visitors.

    It passes where the log can answer, the gain's lower bound is above 0, and nothing speaks
    against the log itself: the holdout and the propensities agree, or one of them is silent.
    """
    against = []
    if refused is not None:
        against.append(f"the log cannot answer: {refused}")
    if not gain.low > 0:
        against.append(
            f"the lower bound of the gain is {gain.low:.2f} a visitor: it may be none, or a loss"
        )
    if lift.all_visitors.agree is False:
        against.append("the holdout and the propensities disagree: the log itself is in doubt")
    if against:
        return Gate(passes=False, reasons=against)
    return Gate(
        passes=True,
        reasons=[f"the lower bound of the gain is {gain.low:.2f} a visitor, above 0"],
    )


def _rule_rows(log: Journeys, rule: Bools) -> list[RuleRow]:
    rows = []
    for point, time in enumerate(log.times):
        for code, label in enumerate(log.states):
            remedy, intent = str(label).split(" | ")
            act = bool(rule[point, code])
            rows.append(RuleRow(decision=_whole(time), remedy=remedy, intent=intent, act=act))
    return rows


def _whole(time: object) -> int:
    if not isinstance(time, int):
        raise ConfigError(f"Expected decisions to be numbered, got {time!r}")
    return time


def _made(decisions: pl.DataFrame, since: dt.datetime | None, until: dt.datetime | None) -> Made:
    own = decisions.filter("executed").with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    if since is not None:
        own = own.filter(pl.col("ts") >= since)
    if until is not None:
        own = own.filter(pl.col("ts") < until)
    first, last = own["ts"].min(), own["ts"].max()
    named = own["policy"] if "policy" in own.columns else pl.Series([], dtype=pl.String)
    versions = named.cast(pl.String).drop_nulls().unique().sort().to_list()
    return Made(
        decisions=own.height,
        visitors=own["visitor"].n_unique(),
        by_action=_counts(own["action"]),
        by_reason=_counts(own["reason"]),
        by_slice=_counts(own["slice"]),
        policies=len(versions) or 1,
        versions=versions,
        since=first if isinstance(first, dt.datetime) else None,
        until=last if isinstance(last, dt.datetime) else None,
    )


def _counts(column: pl.Series) -> dict[str, int]:
    counted = column.value_counts().sort("count", column.name, descending=[True, False])
    return dict(counted.iter_rows())
