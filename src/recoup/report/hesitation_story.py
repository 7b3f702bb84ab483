"""Where and when shoppers hesitate, in words: sentences, tables and figures of the report."""

from collections import Counter
from typing import Final

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.axes import Axes

from recoup.report import palette, plots, words
from recoup.report.funnel import UNKNOWN
from recoup.report.hesitation import Behaved, Hesitation, Waits

LISTED: Final = 12
SHOWN_CURVES: Final = 6

KINDS: Final = {
    "page_view": "Other pages",
    "view_search_results": "Search results",
    "view_item_list": "Product lists",
    "view_item": "Product pages",
    "add_to_cart": "Just put into the cart",
    "view_cart": "Cart",
    "begin_checkout": "Start of checkout",
    "add_shipping_info": "Delivery step",
    "add_payment_info": "Payment step",
    "sign_up": "Registration",
}
"""What a shopper waits on, by the event that opened it."""

SO_FAR: Final = {
    "landed": "nothing yet",
    "listing": "saw a list",
    "item": "saw a product",
    "cart": "filled the cart",
    "checkout": "in checkout",
}
"""How far the visit had come, by funnel stage."""

BEHAVIOURS: Final = {
    "revisits": "Came back to one product three times or more",
    "oscillation": "Put a product in the cart, took it out, put it in again",
    "comparison_loop": "Went to and fro between products",
    "rage_click": "Clicked again and again where nothing happened",
    "dead_click": "Clicked, and nothing happened",
    "error_click": "Clicked, and an error followed",
}
"""What a shopper did, by signal of behaviour."""

VERDICTS: Final = {"longer": "waits longer", "shorter": "waits shorter"}


class WaitRow(msgspec.Struct, frozen=True):
    """Waits as a table shows them."""

    value: str
    rows: str
    median: str
    left: str
    turning: str
    long: str
    verdict: str


def kind_words(event: str) -> str:
    """Name what a shopper waits on.

    Examples
    --------
    >>> kind_words("view_cart"), kind_words("other_step")
    ('Cart', 'Other step')
    """
    return KINDS.get(event, event.replace("_", " ").capitalize())


def state_words(state: str) -> str:
    """Name a state of the journey: where the shopper waits, and how far the visit had come.

    Examples
    --------
    >>> state_words("cart/view_item")
    'Product pages (filled the cart)'
    """
    stage, _, event = state.partition("/")
    return f"{kind_words(event)} ({SO_FAR.get(stage, stage)})"


def sentences(told: Hesitation) -> list[str]:
    """Say where and when shoppers hesitate."""
    if told.total is None:
        return []
    return [_usual(told.total), *turning(told), *_unusual(told)]


def tables(told: Hesitation) -> list[tuple[str, list[WaitRow]]]:
    """Give the tables of waits: by kind of page, how far the visit had come, page and device."""
    every = [
        ("Kind of page", [_row(kind_words(w.value), w) for w in told.by_page_type]),
        ("The same, by how far the visit had come", _by_state(told.by_state)),
        ("Page", [_row(w.value, w) for w in told.by_page]),
        ("Device", [_row(w.value, w) for w in told.by_device]),
        ("Where visits come from", [_row(w.value, w) for w in told.by_channel]),
    ]
    named = [(title, rows[:LISTED]) for title, rows in every if rows]
    return [(title, rows) for title, rows in named if [row.value for row in rows] != [UNKNOWN]]


def _by_state(states: list[Waits]) -> list[WaitRow]:
    """Leave out the kinds of page that are met at one stage alone: their rows stand above."""
    kinds = Counter(waits.value.partition("/")[2] for waits in states)
    shown = [waits for waits in states if kinds[waits.value.partition("/")[2]] > 1]
    return [_row(state_words(waits.value), waits) for waits in shown]


def behaviours(told: Hesitation) -> list[tuple[str, str, str, str, str]]:
    """Give what shoppers did, how many visits did, and who bought: those that did, the others."""
    return [
        (
            BEHAVIOURS.get(each.name, each.name),
            words.count(each.sessions),
            words.share(each.bought, each.sessions),
            words.count(each.others),
            words.share(each.others_bought, each.others),
        )
        for each in told.behaviours
        if _could_show(each)
    ]


def figures(told: Hesitation) -> dict[str, str]:
    """Draw when waiting shoppers are lost, and in which hours visits end."""
    hours = len(told.by_hour) > 1
    return {
        "waiting": _waiting(told) if told.curves else "",
        "hours": _hours(told) if hours else "",
    }


def _could_show(each: Behaved) -> bool:
    return each.sessions > 0


def _usual(total: Waits) -> str:
    if total.median_wait_s is None:
        return "No page was followed by another one within half an hour."
    usual, left = words.span(total.median_wait_s), words.share(total.left)
    return (
        f"Half of the shoppers who go on from a page do so within {usual}. After {left} of the "
        "pages nothing follows within half an hour: there the visit ends."
    )


def turning(told: Hesitation) -> list[str]:
    """Say after how long a shopper in the cart, and on a product, is more likely lost than not."""
    places = {waits.value: waits for waits in told.by_page_type}
    parts = [
        f"{words.span(places[kind].turning_s or 0.0)} {where}"
        for kind, where in (("view_item", "on a product page"), ("view_cart", "in the cart"))
        if kind in places and places[kind].turning_s
    ]
    if not parts:
        return []
    opening = f"Once a shopper has done nothing for {' or '.join(parts)}, fewer than half go on by"
    return [f"{opening} themselves: help that comes later reaches fewer."]


def _unusual(told: Hesitation) -> list[str]:
    total = told.total
    if total is None or total.long is None or total.expected_long is None:
        return []
    longer = [
        *(kind_words(waits.value) for waits in told.by_page_type if waits.verdict == "longer"),
        *(waits.value for waits in told.by_page if waits.verdict == "longer"),
        *(f"device {waits.value}" for waits in told.by_device if waits.verdict == "longer"),
    ]
    said = (
        f"{words.share(total.long)} of all waits were unusually long, or never ended; "
        f"{words.share(total.expected_long)} were to be expected of these shoppers."
    )
    if not longer:
        return [f"{said} No page and no device stands out.", *_others(told)]
    return [f"{said} More than to be expected: {', '.join(longer)}.", *_others(told)]


def _others(told: Hesitation) -> list[str]:
    """Say which channels bring shoppers who are not as expected, wherever they are."""
    longer = [waits.value for waits in told.by_channel if waits.verdict == "longer"]
    others = [channel for channel in longer if channel != UNKNOWN]
    if not others:
        return []
    said = (
        f"Visits from {', '.join(others)} come to a halt more often than expected, wherever they "
        "are: a campaign of low interest, or a fault of all that they come to. No page is blamed."
    )
    return [said]


def _row(value: str, waits: Waits) -> WaitRow:
    long = ""
    if waits.long is not None and waits.expected_long is not None:
        long = f"{words.share(waits.long)} ({words.share(waits.expected_long)})"
    return WaitRow(
        value=value,
        rows=words.count(waits.rows),
        median="-" if waits.median_wait_s is None else words.span(waits.median_wait_s),
        left=words.share(waits.left),
        turning=_turning_words(waits.turning_s),
        long=long,
        verdict=VERDICTS.get(waits.verdict, ""),
    )


def _turning_words(turning_s: float | None) -> str:
    if turning_s is None:
        return "never"
    return words.span(turning_s) if turning_s else "at once"


def _waiting(told: Hesitation) -> str:
    """Draw the chance that a visit goes on, by how long nothing has happened."""
    curves = [curve for curve in told.curves if len(curve.wait_s) > 1][:SHOWN_CURVES]
    styles = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
    colours = (palette.BLUE, palette.RED, palette.GREEN, palette.ORANGE, palette.INK, palette.GREY)

    def draw(axes: Axes) -> None:
        for curve, style, colour in zip(curves, styles, colours, strict=False):
            axes.plot(curve.wait_s, curve.goes_on, color=colour, linestyle=style, linewidth=1.8,
                      label=kind_words(curve.value))  # fmt: skip
        axes.axhline(0.5, color=palette.MUTED, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlim(1.0, 1800.0)
        ticks = (1, 3, 10, 30, 60, 180, 600, 1800)
        axes.set_xticks(ticks, [words.span(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_ylim(0.0, 1.0)
        axes.set_xlabel("nothing has happened for")
        axes.set_ylabel("visits that still go on (%)")
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda y, _: f"{100 * y:.0f}"))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)

    return plots.figure("waiting", "Visits that still go on, by how long nothing has happened",
                        draw, height_in=3.4)  # fmt: skip


def _hours(told: Hesitation) -> str:
    """Draw the share of waits that end the visit, by hour of the day."""
    hours = np.array([int(waits.value) for waits in told.by_hour])
    left = np.array([100.0 * waits.left for waits in told.by_hour])

    def draw(upper: Axes, lower: Axes) -> None:
        upper.plot(hours, left, "-o", color=palette.BLUE, markersize=3.5, linewidth=1.6)
        upper.set_ylim(0.0, 1.1 * max(left.max(), 1.0))
        upper.set_ylabel("waits that end\nthe visit (%)")
        lower.bar(hours, [waits.rows for waits in told.by_hour], color=palette.SKY, width=0.8)
        lower.set_ylabel("waits")
        lower.set_xlabel("hour of the day, UTC")
        lower.set_xticks(range(0, 24, 3))
        lower.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda y, _: words.count(y)))
        for each in (upper, lower):
            each.grid(visible=False, axis="x")

    return plots.figure("hours", "Waits that end the visit, by hour of the day", draw,
                        height_in=3.2, rows=(1.6, 1.0))  # fmt: skip
