"""Hold the simulated shop against a real one: the figures of docs/simulator_vs_real.md.

    python examples/simulated_vs_real.py DATA/google_merch_store docs/simulator_vs_real.svg

prints the table and draws the plots. The simulated shop is the scenario `merch`, 50,000 visitors
over 25 days; it reads nothing of the real log, its rates were set by hand from these figures.
"""

import sys
from pathlib import Path
from typing import Final

import matplotlib as mpl
import msgspec
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from recoup.events import concat_batches
from recoup.report import palette
from recoup.simulator import Shop, load_scenario
from recoup.sources import open_source

FUNNEL: Final = (
    ("view_item_list", "list"), ("view_item", "item"), ("add_to_cart", "add"),
    ("view_cart", "cart"), ("begin_checkout", "checkout"), ("add_payment_info", "payment"),
    ("purchase", "purchase"),
)  # fmt: skip
DEVICES: Final = ("desktop", "mobile", "tablet")
COLOURS: Final = {"real": palette.BLUE, "simulated": palette.ORANGE}
QUANTILES: Final = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class Figures(msgspec.Struct, frozen=True):
    """What is compared of a shop.

    Parameters
    ----------
    funnel
        Share of sessions with each event of the funnel.
    gaps_s
        Seconds between two events of a session.
    events, lasted_s
        Events of each session; seconds from its first to its last, of those with two or more.
    device_share, conversion
        Share of sessions, and of these the share that buys, by device.
    """

    funnel: NDArray[np.float64]
    gaps_s: NDArray[np.float64]
    events: NDArray[np.float64]
    lasted_s: NDArray[np.float64]
    device_share: NDArray[np.float64]
    conversion: NDArray[np.float64]


def measure(events: pl.DataFrame) -> Figures:
    """Take the figures of a log."""
    ordered = events.sort("session", "ts", "seq")
    gaps = ordered.select(
        (pl.col("ts").diff().over("session").dt.total_microseconds() / 1e6).alias("gap")
    ).drop_nulls()["gap"]
    sessions = events.group_by("session").agg(
        pl.first("device"),
        pl.len().alias("events"),
        ((pl.max("ts") - pl.min("ts")).dt.total_microseconds() / 1e6).alias("lasted"),
        *[(pl.col("event") == name).any().alias(name) for name, _ in FUNNEL],
    )
    by_device = [sessions.filter(pl.col("device") == device) for device in DEVICES]
    return Figures(
        np.array([share(sessions, name) for name, _ in FUNNEL]),
        gaps.to_numpy(),
        sessions["events"].cast(pl.Float64).to_numpy(),
        sessions.filter(pl.col("events") > 1)["lasted"].to_numpy(),
        np.array([each.height / sessions.height for each in by_device]),
        np.array([share(each, "purchase") for each in by_device]),
    )


def share(sessions: pl.DataFrame, event: str) -> float:
    """Give the share of sessions that have an event."""
    return sessions.filter(pl.col(event)).height / max(sessions.height, 1)


def table(real: Figures, simulated: Figures) -> str:
    """Give the figures as a Markdown table."""
    rows: list[tuple[str, ...]] = [
        (f"sessions with `{name}`", f"{a:.1%}", f"{b:.1%}")
        for (name, _), a, b in zip(FUNNEL, real.funnel, simulated.funnel, strict=True)
    ]
    rows.append(
        ("sessions of one event", *(f"{np.mean(f.events == 1):.1%}" for f in (real, simulated)))
    )
    rows.append(("events a session", *(f"{f.events.mean():.2f}" for f in (real, simulated))))
    for label, name in (("events a session", "events"), ("seconds between events", "gaps_s"),
                        ("seconds a session lasts (two events or more)", "lasted_s")):  # fmt: skip
        found = [quantiles(getattr(each, name)) for each in (real, simulated)]
        rows.append((f"{label}: 25, 50, 75, 90, 95, 99 %", *found))
    for row, device in enumerate(DEVICES):
        cells = [f"{f.device_share[row]:.0%}, {f.conversion[row]:.2%}" for f in (real, simulated)]
        rows.append((f"{device}: share of sessions, and of these that buy", *cells))
    lines = ["| | real | simulated |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def quantiles(values: NDArray[np.float64]) -> str:
    """Give the quantiles of a column, as words."""
    return ", ".join(f"{each:,.0f}" for each in np.quantile(values, QUANTILES))


def draw(real: Figures, simulated: Figures) -> Figure:
    """Draw both shops in four panels."""
    mpl.rcParams.update({"svg.hashsalt": "recoup", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots(2, 3)
    both = {"real": real, "simulated": simulated}
    bars(axes[0, 0], [label for _, label in FUNNEL], {k: each.funnel for k, each in both.items()})
    axes[0, 0].set(title="Sessions with each step (log scale)", yscale="log", ylim=(0.005, 1))
    axes[0, 0].tick_params(axis="x", labelrotation=30)
    curves(axes[0, 1], {key: np.maximum(each.gaps_s, 0.1) for key, each in both.items()})
    axes[0, 1].set(title="Seconds between events: share longer", xlim=(0.1, 1_800))
    curves(axes[0, 2], {key: np.maximum(each.lasted_s, 1.0) for key, each in both.items()})
    axes[0, 2].set(title="Seconds a session lasts: share longer", xlim=(1, 10_000))
    curves(axes[1, 0], {key: each.events for key, each in both.items()})
    axes[1, 0].set(title="Events a session: share with more", xlim=(1, 300))
    bars(axes[1, 1], list(DEVICES), {key: each.device_share for key, each in both.items()})
    axes[1, 1].set(title="Sessions by device")
    bars(axes[1, 2], list(DEVICES), {key: each.conversion for key, each in both.items()})
    axes[1, 2].set(title="Sessions that buy, by device")
    for axis in axes.flat:
        axis.yaxis.set_major_formatter(lambda each, _: f"{100 * each:g} %")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    return figure


def bars(axis: Axes, names: list[str], values: dict[str, NDArray[np.float64]]) -> None:
    """Draw bars side by side, with their values in per cent."""
    place = np.arange(len(names))
    for shift, (key, heights) in zip((-0.2, 0.2), values.items(), strict=True):
        drawn = axis.bar(place + shift, heights, 0.38, color=COLOURS[key], label=key)
        axis.bar_label(drawn, [f"{100 * each:.2g}" for each in heights], fontsize=7, padding=1)
    axis.set_xticks(place, names)


def curves(axis: Axes, values: dict[str, NDArray[np.float64]]) -> None:
    """Draw the share above each value, both on logarithmic scales."""
    for key, each in values.items():
        grid = np.geomspace(max(each.min(), 0.1), each.max(), 90)
        above = 1.0 - np.searchsorted(np.sort(each), grid, side="right") / len(each)
        axis.plot(grid, above, color=COLOURS[key], label=key, linewidth=1.8)
    axis.set(xscale="log", yscale="log", ylim=(0.001, 1.2))
    axis.grid(alpha=0.25)


def main(data: Path, target: Path) -> None:
    """Compare, print the table, and draw."""
    real = concat_batches(each.batch for each in open_source(data).batches(None))
    shop = Shop(50_000, 25.0, 1, load_scenario("merch"))
    simulated = shop.step(shop.end)
    figures = measure(real.events), measure(simulated.events)
    print(table(*figures))
    draw(*figures).savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
