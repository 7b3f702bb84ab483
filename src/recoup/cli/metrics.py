"""How the measures of a model are told in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table

from recoup.cli.output import stdout
from recoup.models.card import SliceMetrics

REPEAT: Final = ("auc", "log_loss", "calibration_error")
MEASURES: Final = ("rows", "base_rate", "auc", "pr_auc", "log_loss", "calibration_error")


WAITS: Final = ("rows", "censored", "pit_error", "pit_chance", "concordance", "log_score")


def print_waits(metrics: Mapping[str, object]) -> None:
    """Print the measures of hesitation: overall, by state, and beside its peers."""
    table = Table(title="Hesitation", show_edge=False)
    table.add_column("waits on", overflow="fold")
    for measure in WAITS:
        table.add_column(measure.replace("_", " "), justify="right")
    table.add_row("all pages", *_cells(metrics, WAITS))
    for group in ("states", "baselines"):
        parts = metrics.get(group)
        if isinstance(parts, Mapping):
            for name, part in parts.items():
                label = name if group == "states" else name.replace("_", " ")
                table.add_row(label, *_cells(part, WAITS))
    stdout.print(table)
    if "model" in metrics:
        stdout.print(f"model {metrics['model']}", highlight=False)


def print_metrics(metrics: Mapping[str, object]) -> None:
    """Print a model's measures: overall, after so many events, and at the first add to cart."""
    table = Table(title="Purchase intent", show_edge=False)
    table.add_column("rows scored")
    for measure in MEASURES:
        table.add_column(measure.replace("_", " "), justify="right")
    table.add_row("all", *_cells(metrics))
    after = metrics.get("after_event")
    if isinstance(after, Mapping):
        for count, part in after.items():
            table.add_row(f"at event {count}", *_cells(part))
    first = metrics.get("first_add_to_cart")
    if isinstance(first, Mapping):
        table.add_row("at the first add to cart", *_cells(first))
    stdout.print(table)
    worst = metrics.get("worst_slice")
    if isinstance(worst, SliceMetrics):
        stdout.print(
            f"least skill: {worst.attribute} = {worst.value} ({worst.skill:.1%} of its uncertainty "
            f"taken away, {worst.rows:,} rows)",
            highlight=False,
        )
    if "model" in metrics:
        stdout.print(f"model {metrics['model']}", highlight=False)


def print_repeat(metrics: Mapping[str, object]) -> None:
    """Print the measures of repeat purchase, with those of BG/NBD beside them."""
    title = f"Repeat purchase within {metrics['horizon_days']} days"
    table = Table(title=title, show_edge=False)
    table.add_column("")
    for measure in REPEAT:
        table.add_column(measure.replace("_", " "), justify="right")
    theirs = metrics["bg_nbd"]
    table.add_row("ours", *(_cell(metrics[measure]) for measure in REPEAT))
    if isinstance(theirs, Mapping):
        table.add_row("BG/NBD", *(_cell(theirs[measure]) for measure in REPEAT))
    stdout.print(table)
    stdout.print(f"{metrics['customers']:,} customers", highlight=False)
    if "calibration_by_chance" in metrics:
        chance = _cell(metrics["calibration_by_chance"])
        stdout.print(f"a calibration error of up to {chance} is chance", highlight=False)
    if "overdue" in metrics:
        stdout.print(f"{metrics['overdue']:,} of them overdue", highlight=False)
    if metrics.get("forward") is False:
        stdout.print("Part of these days was trained on: no test forward in time.")
    stdout.print(f"model {metrics['model']}", highlight=False)


def _cells(part: Mapping[str, object], measures: Sequence[str] = MEASURES) -> list[str]:
    return [_cell(part.get(measure)) for measure in measures]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
