"""Who buys again, and who stays away, in words and a figure of the report."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from recoup.report import palette, plots, words
from recoup.report.repeat import LookedBack, OverdueBin, Repeat


def sentences(told: Repeat) -> list[str]:
    """Say who buys again, and who stays away."""
    had = words.share(told.returned, told.customers)
    first = (
        f"By {words.day(told.as_of)}, {words.count(told.customers)} customers had bought, {had} of "
        f"them on more than one day. Within {told.horizon_days} days, about "
        f"{words.count(told.expected_buyers)} are expected to buy again."
    )
    if told.looked_back is not None:
        first += f" {_looked_back(told.looked_back, told.horizon_days)}"
    if not told.overdue or told.overdue_by_days is None:
        return [first, "Nobody is overdue."]
    back = sum(each.expected_buyers for each in told.bins)
    late = (
        f"{words.count(told.overdue)} ({words.share(told.overdue, told.customers)}) are overdue: "
        "nine in ten of such customers would have bought again by now. Half of them have been so "
        f"for more than {words.count(told.overdue_by_days)} days; about {words.count(back)} are "
        "still expected to come back by themselves."
    )
    return [first, late]


def categories(told: Repeat) -> list[tuple[str, str, str, str, str]]:
    """Give rows by category: its buyers, when half buy it again, who is overdue, by how much."""
    return [
        (
            each.category,
            words.count(each.customers),
            "-" if each.usual_days is None else words.count(each.usual_days),
            words.count(each.overdue),
            "-" if each.overdue_by_days is None else words.count(each.overdue_by_days),
        )
        for each in told.categories
    ]


def _looked_back(back: LookedBack, horizon_days: int) -> str:
    return (
        f"{horizon_days} days earlier the same would have been said of "
        f"{words.count(back.expected_buyers)}, and {words.count(back.buyers)} of the "
        f"{words.count(back.customers)} customers of that day came."
    )


def figure(told: Repeat) -> str:
    """Draw the overdue by how much, and how many of them are still expected."""
    labels = [_span_words(each) for each in told.bins]
    counts = np.array([each.customers for each in told.bins])
    expected = [each.expected_buyers for each in told.bins]

    def draw(axes: Axes) -> None:
        rows = np.arange(len(labels))
        axes.barh(rows, counts, color=palette.SKY, height=0.62, label="customers overdue")
        axes.barh(rows, expected, color=palette.BLUE, height=0.3,
                  label=f"of them expected to buy within {told.horizon_days} days")  # fmt: skip
        axes.set_yticks(rows, labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(0, max(int(counts.max()), 1) * 1.15)
        axes.set_xlabel("customers")
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: words.count(x)))
        axes.grid(visible=False, axis="y")
        for row, count in enumerate(counts):
            axes.text(count, row, f" {words.count(count)}", va="center")
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)

    return plots.figure("repeat", "Customers overdue, by how much", draw, height_in=2.8)


def _span_words(each: OverdueBin) -> str:
    if each.until_days is None:
        return f"by more than {each.over_days:.0f} days"
    if not each.over_days:
        return f"by up to {each.until_days:.0f} days"
    return f"by {each.over_days:.0f} to {each.until_days:.0f} days"
