"""The HTML report: one file that needs nothing else, for a shop's owner."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Final

import jinja2
import msgspec
from markupsafe import Markup

from recoup.decisions import Defect, Finding
from recoup.report import (
    hesitation_story,
    model_story,
    palette,
    plots,
    reasons_story,
    repeat_story,
    story,
    words,
)
from recoup.report.repeat import Repeat
from recoup.report.summary import Segment, Summary

DETAILED: Final = 25
"""Defects shown in full; the rest is in `defects.parquet`."""

OPEN: Final = 0.1
"""Share of carts not known yet beyond which no share of those left is told."""

LISTED: Final = 12
"""Reasons and actions shown by name."""


class DefectRow(msgspec.Struct, frozen=True):
    """A defect as the table shows it: everything in words."""

    rank: int
    name: str
    meaning: str
    where: str
    since: str
    is_open: bool
    likely: bool
    orders: str
    orders_between: str
    value: str
    value_between: str
    so_far: str
    sure: str
    todo: str
    todo_sure: str
    recoverable: str
    deadline: str
    counted: str
    evidence: str


class SegmentRow(msgspec.Struct, frozen=True):
    """A segment's funnel as the table shows it: counts, shares of the visits, shades."""

    value: str
    visits: str
    steps: list[tuple[str, float]]
    revenue: str
    verdict: str


def render_html(summary: Summary) -> str:
    """Write the report as one self-contained page; the same summary gives the same bytes.

    Every string of the log is escaped: it is a stranger's.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("recoup.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        count=words.count, figure=words.figure, moment=words.moment, step=words.step_words,
        action=words.action_words, reason=words.reason_words,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        s=summary,
        css=palette.CSS,
        sentences=_lead(summary),
        tiles=_tiles(summary),
        rate=story.loss_rate(summary),
        defects=[_defect_row(k, d, summary) for k, d in enumerate(summary.defects[:DETAILED], 1)],
        hidden_defects=max(len(summary.defects) - DETAILED, 0),
        visible=_visible(summary),
        cost=_cost(summary),
        segments={
            words.SEGMENT_NAMES.get(name, name): [_segment_row(row, summary) for row in rows]
            for name, rows in summary.segments.items()
            if rows
        },
        thousand=story.of_thousand(summary),
        intake=story.intake(summary),
        models=model_story.rows(summary.models),
        model_sentences=model_story.sentences(summary),
        hesitate=_hesitate(summary),
        repeat=None if summary.repeat is None else _repeat(summary.repeat),
        why=_why(summary),
        any_likely=bool(story.likely_defects(summary)),
        plots=_plots(summary),
        actions=_shares(summary.decided.by_action, words.action_words),
        reasons=_shares(summary.decided.by_reason, words.reason_words),
        slices=_shares(summary.decided.by_slice, lambda name: SLICES.get(name, name)),
        findings=[(finding, _finding_span(finding)) for finding in summary.data_quality],
        dead=[
            (reason, words.DEAD_LETTERS.get(reason, reason.replace("_", " ")), words.count(n))
            for reason, n in summary.dead_letters.items()
        ],
        removed=[
            (words.REMOVED.get(kind, kind.replace("_", " ")), words.count(n))
            for kind, n in summary.privacy.items()
        ],
        strangers=[
            (
                words.NON_SHOPPERS[kind],
                words.count(n.visitors),
                words.count(n.sessions),
                words.count(n.events),
            )
            for kind, n in summary.non_shoppers.items()
        ],
        warnings=_other_warnings(summary),
        decided=story.decided_words(summary.decided),
        saved=story.saved_words(summary) if summary.saved else None,
        carts=story.carts(summary),
        horizon=words.span(summary.abandonment_horizon_s) if summary.abandonment_horizon_s else "",
    )


def _lead(summary: Summary) -> list[str]:
    """Say first what an owner should know: what is wrong, why shoppers leave, when they are lost.

    What was decided comes last.
    """
    told = story.headline(summary)
    if not summary.events:
        return told
    why = summary.reasons
    met = reasons_story.sentences(why)[:1] if why is not None and why.signals else []
    between = [*met, *hesitation_story.turning(summary.hesitation)]
    last = len(told) - bool(summary.decided.total)
    return [*told[:last], *between, *told[last:]]


def _hesitate(summary: Summary) -> dict[str, object]:
    told = summary.hesitation
    return {
        "sentences": hesitation_story.sentences(told),
        "tables": hesitation_story.tables(told),
        "behaviours": hesitation_story.behaviours(told),
        "figures": {
            name: Markup(drawn)  # noqa: S704 - our own SVG
            for name, drawn in hesitation_story.figures(told).items()
        },
    }


def _repeat(told: Repeat) -> dict[str, object]:
    drawn = repeat_story.figure(told) if told.overdue else ""
    return {
        "sentences": repeat_story.sentences(told),
        "figure": Markup(drawn),  # noqa: S704 - our own SVG
        "categories": repeat_story.categories(told),
    }


def _why(summary: Summary) -> dict[str, object] | None:
    told = summary.reasons
    if told is None:
        return None
    return {
        "sentences": reasons_story.sentences(told),
        "rows": reasons_story.rows(told),
        "figure": Markup(reasons_story.figure(told)),  # noqa: S704 - our own SVG
    }


def write_report(summary: Summary, path: Path) -> None:
    """Write the report to a file."""
    path.write_text(render_html(summary), encoding="utf-8")


SLICES: Final = {
    "policy": "the policy",
    "random": "chance, so that effects can be measured",
    "holdout": "nobody: left alone, so that what acting earns can be measured",
}


def _tiles(summary: Summary) -> list[tuple[str, str, str]]:
    """Give the key figures: label, figure, remark."""
    tiles = [
        ("Visits", words.count(summary.sessions), f"{words.count(summary.visitors)} visitors"),
        ("Orders", words.count(summary.orders), _per_order(summary)),
        ("Revenue", words.money(summary.revenue, summary.currency), _currency(summary)),
        (
            "Buying visits",
            words.share(summary.funnel.purchase, summary.funnel.sessions),
            f"{words.count(summary.funnel.purchase)} of {words.count(summary.funnel.sessions)}",
        ),
        ("Carts left", *_carts_left(summary)),
    ]
    likely = len(story.likely_defects(summary))
    tiles.append(("Likely defects", words.count(likely), f"of {len(summary.defects)} ranked"))
    return tiles


def _carts_left(summary: Summary) -> tuple[str, str]:
    """Give the share of carts left for good; their number where too many are not known yet."""
    left = sum(summary.abandoned_carts.values())
    if summary.waiting_carts > summary.carts * OPEN:
        return words.count(left), f"{words.count(summary.waiting_carts)} not known yet"
    known = summary.carts - summary.waiting_carts
    return words.share(left, known), f"{words.count(left)} of {words.count(known)}"


def _currency(summary: Summary) -> str:
    return "" if summary.currency or not summary.revenue else "currency not named"


def _per_order(summary: Summary) -> str:
    if not summary.orders:
        return ""
    return f"{words.money(summary.revenue / summary.orders, summary.currency)} each"


def _visible(summary: Summary) -> str:
    visible = story.smallest_visible_loss(summary)
    rate = story.loss_rate(summary)
    return "" if visible is None else f"{words.figure(visible * rate.hours)} orders {rate.each}"


def _cost(summary: Summary) -> dict[str, str]:
    """Write what likely defects cost: still, of that recoverable, and before they were over."""
    cost = story.total_cost(summary)
    hours = story.loss_rate(summary).hours
    amounts = {
        "still": cost.lost_per_hour * hours,
        "costliest": cost.costliest_per_hour * hours,
        "recoverable": cost.recoverable_per_hour * hours,
        "before": cost.lost_before,
    }
    return {
        name: words.money(amount, summary.currency) if amount else ""
        for name, amount in amounts.items()
    }


def _defect_row(rank: int, defect: Defect, summary: Summary) -> DefectRow:
    rate = story.loss_rate(summary)
    orders = rate.of(defect.lost_orders_per_hour)
    value = rate.of(defect.lost_value_per_hour)
    named = words.defect_words(defect.type)
    best = defect.recommended
    recoverable = rate.of(best.recoverable_value_per_hour) if best else None
    return DefectRow(
        rank=rank,
        name=named.name,
        meaning=named.meaning,
        where=words.entity_words(defect.entity),
        since=story.since_words(defect),
        is_open=defect.until is None,
        likely=defect.confidence >= story.LIKELY,
        orders=words.figure(orders.value),
        orders_between=words.between(orders),
        value=words.money(value.value, summary.currency),
        value_between=words.between_money(value, summary.currency),
        so_far=words.money(story.lost_so_far(defect, summary).value, summary.currency),
        sure=words.sure(defect.confidence),
        todo=story.todo(defect),
        todo_sure=words.sure(best.confidence) if best else "",
        recoverable=words.between_money(recoverable, summary.currency) if recoverable else "",
        deadline=words.span(best.deadline) if best else "",
        counted=(
            f"{words.tally(defect.observed)} orders where {words.tally(defect.expected)} were to "
            f"be expected, in {words.count(defect.exposed)} visits"
        ),
        evidence=words.evidence_words(defect.evidence),
    )


def _segment_row(segment: Segment, summary: Summary) -> SegmentRow:
    visits, *later = segment.funnel.counts
    tops = [_top_share(summary, step) for step in range(1, len(segment.funnel.counts))]
    steps = [
        (words.share(n, visits), (n / visits / top if visits and top else 0.0))
        for n, top in zip(later, tops, strict=True)
    ]
    return SegmentRow(
        value=segment.value,
        visits=words.count(visits),
        steps=[(text, round(min(shade, 1.0), 2)) for text, shade in steps],
        revenue=words.money(segment.revenue, summary.currency),
        verdict=_verdict(segment, summary),
    )


def _top_share(summary: Summary, step: int) -> float:
    """Give twice the shop's own share at a step: the darkest shade."""
    counts = summary.funnel.counts
    return 2 * counts[step] / counts[0] if counts[0] else 0.0


def _verdict(segment: Segment, summary: Summary) -> str:
    """Say whether a segment buys less or more than the others, beyond chance."""
    n, k = segment.funnel.sessions, segment.funnel.purchase
    rest_n, rest_k = summary.funnel.sessions - n, summary.funnel.purchase - k
    if not n or not rest_n or not summary.funnel.purchase:
        return ""
    pooled = summary.funnel.purchase / summary.funnel.sessions
    spread = (pooled * (1 - pooled) * (1 / n + 1 / rest_n)) ** 0.5
    gap = k / n - rest_k / rest_n
    if abs(gap) <= 3 * spread:
        return ""
    return "buys less" if gap < 0 else "buys more"


def _shares(counts: dict[str, int], name: Callable[[str], str]) -> list[tuple[str, str, str]]:
    total = sum(counts.values())
    rows = [(name(key), words.count(n), words.share(n, total)) for key, n in counts.items()]
    rest = sum(list(counts.values())[LISTED:])
    if rest:
        return [*rows[:LISTED], ("all others", words.count(rest), words.share(rest, total))]
    return rows


def _other_warnings(summary: Summary) -> list[str]:
    """Leave out what the tables of findings and dead letters say already."""
    told = {finding.detail for finding in summary.data_quality}
    reasons = tuple(f": {reason}" for reason in summary.dead_letters)
    return [text for text in summary.warnings if text not in told and not text.endswith(reasons)]


def _finding_span(finding: Finding) -> str:
    exact = any(_exact(end) for end in (finding.since, finding.until))
    since, until = (_finding_moment(end, exact=exact) for end in (finding.since, finding.until))
    if since and until:
        return f"{since} to {until}"
    return f"since {since}" if since else f"until {until}" if until else "throughout"


def _finding_moment(text: str | None, *, exact: bool) -> str:
    """Write an ISO 8601 date or moment for people; what is none, as it is."""
    when = _read(text)
    if when is None:
        return text or ""
    if not exact:
        return words.day(when)
    return words.moment(when if when.tzinfo else when.replace(tzinfo=dt.UTC))


def _exact(text: str | None) -> bool:
    """Say whether a moment is more than a date."""
    when = _read(text)
    return when is not None and when.time() != dt.time()


def _read(text: str | None) -> dt.datetime | None:
    try:
        return None if text is None else dt.datetime.fromisoformat(text)
    except ValueError:
        return None


def _plots(summary: Summary) -> dict[str, Markup]:
    """Draw what there is something to draw of; matplotlib escapes the strings it is given."""
    wanted: dict[str, tuple[bool, Callable[[Summary], str]]] = {
        "funnel": (summary.sessions > 0, plots.funnel),
        "daily": (len([day for day in summary.daily if day.sessions]) > 1, plots.daily),
        "severity": (bool(summary.defects), plots.severity),
        "abandonment": (bool(sum(summary.abandoned_carts.values())), plots.abandonment),
        "decisions": (len(summary.decided.daily) > 1, plots.decisions),
        "intent": (len(summary.intent) > 1, plots.intent),
    }
    return {
        name: Markup(draw(summary) if some else "")  # noqa: S704 - our own SVG
        for name, (some, draw) in wanted.items()
    }
