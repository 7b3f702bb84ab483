"""The learning report in words, as one HTML page that needs nothing else."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from markupsafe import Markup

from recoup.causal.delay import Delay
from recoup.causal.estimate import Estimate
from recoup.causal.learning import LEVELS, OTHER, Learned, Proposal
from recoup.causal.lift import LiftRow
from recoup.causal.windows import SEVERAL
from recoup.report import causal_plots, palette, words

PARTS: Final = {
    "early": "acted too early",
    "late": "acted too late",
    "missed": "not acted, though it would have helped",
    "unnecessary": "acted without need",
}
AGREEMENT: Final = {
    True: " The two agree.",
    False: " The two disagree: the journal is in doubt.",
    None: "",
}
SLICES: Final = {
    "policy": "decided by the policy",
    "random": "decided at random, to learn",
    "holdout": "never acted on, to compare",
}
SHOWN: Final = 12


class LiftWords(msgspec.Struct, frozen=True):
    """A row of the lift table."""

    name: str
    visitors: str
    holdout: str
    acted_on: str
    from_holdout: str
    from_propensities: str
    agree: str
    refused: str


class RuleWords(msgspec.Struct, frozen=True):
    """What a proposed rule does for one remedy."""

    remedy: str
    likely: str
    unlikely: str


def write_learning(found: Learned, path: Path, *, source: str) -> None:
    """Write the page, or Markdown where the file ends in ``.md``."""
    written = learning_markdown if path.suffix.lower() == ".md" else learning_html
    path.write_text(written(found, source=source), encoding="utf-8")


def learning_html(found: Learned, *, source: str) -> str:
    """Write a learning report as a self-contained page; the same numbers give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recoup.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("learning.html.j2").render(
        css=palette.CSS,
        source=source,
        found=found,
        sentences=headline(found),
        made=_made(found),
        lift=[lift_words(row) for row in (found.lift.all_visitors, *found.lift.by_intervention)],
        waiting=words.count(found.lift.waiting),
        horizon=words.span(found.lift.horizon_s),
        parts=[] if found.delay is None else _parts(found.delay),
        points=_points(found),
        reasons=[] if found.delay is None else _reasons(found.delay),
        rule=[] if found.proposal is None else rule_words(found.proposal),
        change=None if found.proposal is None else _change(found.proposal),
        figures=_figures(found),
    )


def learning_markdown(found: Learned, *, source: str) -> str:
    """Write a learning report as Markdown."""
    lift = [lift_words(row) for row in (found.lift.all_visitors, *found.lift.by_intervention)]
    parts = [] if found.delay is None else _parts(found.delay)
    rule = [] if found.proposal is None else rule_words(found.proposal)
    blocks = [
        f"# What the shop's decisions teach: {source}",
        *headline(found),
        "## What it was worth",
        _table(
            ("remedy", "visitors", "holdout", "against the holdout", "from propensities", "agree"),
            [
                (r.name, r.visitors, r.holdout, r.from_holdout, r.from_propensities, r.agree)
                for r in lift
            ],
        ),
        "## Too early, too late, not at all",
        found.silent or _table(("what", "lost per visitor"), parts),
        *(
            []
            if found.delay is None
            else [_table(("reason", "missing costs", "waiting costs"), _reasons(found.delay))]
        ),
        "## What should change",
        found.silent
        or _table(("remedy", *LEVELS), [(r.remedy, r.likely, r.unlikely) for r in rule]),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def headline(found: Learned) -> list[str]:
    """Say the whole report in four sentences or so."""
    return [_decided(found), *_worth(found.lift.all_visitors), *_lessons(found)]


def _decided(found: Learned) -> str:
    made = found.made
    acts = sum(n for action, n in made.by_action.items() if action.startswith("act:"))
    period = "" if made.since is None or made.until is None else (
        f"From {words.moment(made.since)} to {words.moment(made.until)} UTC, "
    )  # fmt: skip
    return (
        f"{period}{words.count(made.decisions)} decisions were made for "
        f"{words.count(made.visitors)} visitors; "
        f"{words.share(acts, made.decisions)} of them were acts."
    )


def _worth(row: LiftRow) -> list[str]:
    told = []
    if _known(row.from_holdout):
        each, whole = row.from_holdout, row.total
        told.append(
            f"Against visitors who are never acted on, acting was worth {amount(each)} a visitor, "
            f"{amount(whole)} in all. {_sureness(each)}"
        )
    else:
        told.append(f"What acting was worth cannot be told against the holdout: {row.refused}.")
    if _known(row.from_propensities):
        told.append(
            f"Reckoned from the chances of the decisions themselves it was "
            f"{amount(row.from_propensities)} a visitor.{AGREEMENT[row.agree]}"
        )
    return told


def _sureness(found: Estimate) -> str:
    if found.low > 0:
        return "That is a gain beyond chance."
    if found.high < 0:
        return "That is a loss beyond chance."
    return "It may be chance: the range holds nothing at all."


def _lessons(found: Learned) -> list[str]:
    if found.delay is None or found.proposal is None:
        return [f"When to act better cannot be told yet: {found.silent}."]
    regret = found.delay.regret
    sure = {part: getattr(regret, part) for part in PARTS if getattr(regret, part).low > 0}
    if sure:
        worst = max(sure, key=lambda part: sure[part].value)
        first = (
            f"Most is lost where the policy {PARTS[worst]}: {amount(sure[worst])} a visitor, "
            "against the best simple rule that was found."
        )
    else:
        first = (
            "No kind of mistake stands out: acting early, late, not at all or without need each "
            "cost an amount that may be nothing."
        )
    gate, gain = found.proposal.gate, found.proposal.gain
    verdict = "It may go to a share of them" if gate.passes else "The present policy stays"
    second = (
        f"The best rule of {found.proposal.tried} that were tried would change the value of a "
        f"visitor by {amount(gain)}, judged on visitors it was not chosen on. {verdict}: "
        f"{'; '.join(gate.reasons)}."
    )
    return [first, second]


def amount(found: Estimate) -> str:
    """Write an estimate with its range.

    Examples
    --------
    >>> amount(Estimate(1.234, -0.5, 3.0, 0.9))
    '1.23 (-0.50 to 3.00)'
    """
    digits = 0 if max(abs(found.low), abs(found.high)) >= 1_000 else 2  # noqa: PLR2004
    value, low, high = (f"{end:,.{digits}f}" for end in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def _known(found: Estimate) -> bool:
    return not math.isnan(found.value)


def lift_words(row: LiftRow) -> LiftWords:
    """Write a row of the lift table."""
    return LiftWords(
        name="all visitors" if row.intervention is None else remedy_words(row.intervention),
        visitors=words.count(row.visitors),
        holdout=words.count(row.holdout),
        acted_on=words.count(row.acted_on),
        from_holdout=amount(row.from_holdout) if _known(row.from_holdout) else "too few",
        from_propensities=amount(row.from_propensities)
        if _known(row.from_propensities)
        else "too few",
        agree={None: "", True: "yes", False: "no"}[row.agree],
        refused=row.refused or "",
    )


def remedy_words(remedy: str) -> str:
    """Say what a remedy does."""
    own = {SEVERAL: "a loss without a known reason", OTHER: "anything else"}
    return own.get(remedy) or words.intervention_words(remedy)


def rule_words(proposal: Proposal) -> list[RuleWords]:
    """Write a rule as a table: from which decision on it acts, by remedy and intent."""
    remedies = dict.fromkeys(row.remedy for row in proposal.rule)
    return [
        RuleWords(remedy_words(remedy), *(_from(proposal, remedy, level) for level in LEVELS))
        for remedy in remedies
    ]


def _from(proposal: Proposal, remedy: str, level: str) -> str:
    cells = [row for row in proposal.rule if (row.remedy, row.intent) == (remedy, level)]
    acting = [row.decision for row in cells if row.act]
    if not cells:
        return "not seen"
    if not acting:
        return "leave alone"
    return "act at once" if min(acting) == 1 else f"act from decision {min(acting)} on"


def _parts(delay: Delay) -> list[tuple[str, str]]:
    told = [(name, amount(getattr(delay.regret, part))) for part, name in PARTS.items()]
    return [*told, ("all four, against the rule below", amount(delay.regret))]


def _points(found: Learned) -> list[tuple[str, str, str, str, str]]:
    if found.delay is None:
        return []
    rows = zip(found.delay.value_against_delay, found.delay.diagnostics, strict=True)
    return [
        (
            f"decision {each.time}",
            words.span(seconds),
            words.count(support.open),
            words.count(support.acted),
            "too few to say" if support.refused else amount(each),
        )
        for (each, support), seconds in zip(rows, found.elapsed_s, strict=False)
    ]


def _reasons(delay: Delay) -> list[tuple[str, str, str]]:
    """Say what a miss and waiting for the next decision cost at the first one, by type of reason.

    The reasons on which most can be lost come first.
    """
    first = delay.delta_by_time[0].time
    waits = {each.label: each for each in delay.delay_cost_by_label["reason"] if each.time == first}
    misses = [
        each
        for each in delay.miss_cost_by_label["reason"]
        if each.time == first and each.refused is None
    ]
    return [
        (_reason(str(each.label)), amount(each), amount(waits[each.label]))
        for each in sorted(misses, key=lambda each: -each.value)
    ]


def _reason(label: str) -> str:
    return "any other reason" if label == OTHER else words.reason_words(label)


def _change(proposal: Proposal) -> Mapping[str, object]:
    return {
        "passes": proposal.gate.passes,
        "reasons": proposal.gate.reasons,
        "value": amount(proposal.value),
        "present": amount(proposal.present_value),
        "gain": amount(proposal.gain),
        "lower": f"{proposal.lower_bound:,.2f}",
        "chosen_on": amount(proposal.chosen_on),
        "tried": words.count(proposal.tried),
        "visitors": words.count(proposal.visitors),
        "worth": words.count(round(proposal.effective_sample_size)),
        "split": words.share(proposal.intent_split),
    }


def _made(found: Learned) -> Mapping[str, list[tuple[str, str, str]]]:
    made = found.made
    return {
        "actions": _shares({words.action_words(k): n for k, n in made.by_action.items()}),
        "reasons": _shares({words.reason_words(k): n for k, n in made.by_reason.items()}),
        "slices": _shares({SLICES.get(k, k): n for k, n in made.by_slice.items()}),
    }


def _shares(counts: Mapping[str, int]) -> list[tuple[str, str, str]]:
    whole = sum(counts.values())
    return [(k, words.count(n), words.share(n, whole)) for k, n in list(counts.items())[:SHOWN]]


def supported(delay: Delay) -> Delay:
    """Leave out the decisions at which too few were acted on to say anything."""
    pairs = zip(delay.value_against_delay, delay.diagnostics, strict=True)
    shown = [each for each, support in pairs if support.refused is None]
    return msgspec.structs.replace(delay, value_against_delay=shown)


def _figures(found: Learned) -> Mapping[str, Markup]:
    drawn = {"lift": ""}
    if _known(found.lift.all_visitors.from_holdout):
        drawn["lift"] = causal_plots.inline(found.lift, "lift", "What acting was worth")
    drawn["delay"] = (
        ""
        if found.delay is None
        else causal_plots.inline(supported(found.delay), "delay", "What waiting and missing cost")
    )
    return {name: Markup(svg) for name, svg in drawn.items()}  # noqa: S704 - our own SVG
