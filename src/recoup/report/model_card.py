"""A model's card, in words and with its reliability plot."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes

from recoup.models.card import ModelCard, ReliabilityBin, SliceMetrics
from recoup.report import palette, plots

TOLD: Final = (
    ("rows", "rows"),
    ("base_rate", "share of positives"),
    ("auc", "AUC"),
    ("pr_auc", "PR-AUC (average precision)"),
    ("log_loss", "log loss, nats"),
    ("calibration_error", "calibration error, 15 bins of equal mass"),
    ("censored", "censored"),
    ("concordance", "concordance of waits"),
    ("log_score", "log score of waits, nats"),
    ("pit_error", "distance of waits from their forecast (probability integral transform)"),
    ("pit_chance", "the same that right forecasts exceed one time in twenty"),
)
"""Metrics shown by name, in this order; others are in the card's JSON."""


def card_in_words(card: ModelCard, number: int, figure: str | None) -> str:
    """Write a card as Markdown.

    Parameters
    ----------
    number
        Its version.
    figure
        Name of the reliability plot's file beside it; None without one.
    """
    data = card.fingerprint
    span = f"{data.first} to {data.last}" if data.first else "no event"
    parts = [
        f"# {card.name}, version {number}\n\n{card.purpose}\n",
        _table(
            ("", ""),
            [
                ("hash", f"`{card.hash}`"),
                ("reads", f"`{card.inputs}`"),
                ("fitted to", f"{data.source}: {data.events:,} events, {span}"),
                ("fingerprint of the data", f"`{data.sha256}`"),
            ],
        ),
        "## How well it predicts\n\nOn rows that it was not fitted to.\n",
        _metrics(card.metrics),
    ]
    if figure is not None:
        parts.append(f"![Predicted and observed]({figure})\n")
    if card.slices:
        parts.append(_slices(card.slices, card.worst))
    if card.limits:
        parts.append("## Limits\n\n" + "".join(f"- {limit}\n" for limit in card.limits))
    if card.settings:
        parts.append(f"## Settings\n\n```json\n{json.dumps(card.settings, indent=1)}\n```\n")
    return "\n".join(parts)


def reliability_figure(bins: Sequence[ReliabilityBin]) -> str:
    """Draw predictions against what came, with intervals, as an SVG file."""

    def draw(axes: Axes) -> None:
        top = max(max(b.predicted, b.high) for b in bins) * 1.04
        axes.plot([0, top], [0, top], color=palette.MUTED, linewidth=1, linestyle="--")
        for b in bins:
            axes.plot([b.predicted] * 2, [b.low, b.high], color=palette.BLUE, linewidth=2)
        observed = [b.observed for b in bins]
        axes.plot([b.predicted for b in bins], observed, "o", color=palette.BLUE, markersize=5)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("predicted")
        axes.set_ylabel("observed")

    return plots.standalone("Predicted and observed", draw, height_in=4.2)


def _metrics(metrics: Mapping[str, object]) -> str:
    rows = [(label, _number(metrics[key])) for key, label in TOLD if metrics.get(key) is not None]
    return _table(("measure", "value"), rows)


def _slices(slices: Sequence[SliceMetrics], worst: SliceMetrics | None) -> str:
    head = ("attribute", "value", "rows", "positives", "log loss", "skill", "predicted / observed")
    rows = [
        (
            each.attribute, each.value, f"{each.rows:,}", f"{each.base_rate:.2%}",
            f"{each.log_loss:.4f}", f"{each.skill:.1%}", f"{each.bias:.2f}",
        )
        for each in slices
    ]  # fmt: skip
    told = "Skill is the share of the uncertainty about a row that the model takes away."
    if worst is not None:
        named = _escaped(f"{worst.attribute} = {worst.value}")
        told += f" It has the least in **{named}**: {worst.skill:.1%}."
    return f"## For whom\n\n{told}\n\n{_table(head, rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def _escaped(cell: str) -> str:
    """Keep a stranger's string from breaking the table, or becoming markup."""
    plain = cell.replace("|", "\\|").replace("\n", " ")
    return plain.replace("<", "&lt;").replace("[", "\\[")


def _number(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
