"""Why shoppers leave, in words: sentences, table and figure of the report."""

from typing import Final

import msgspec
import numpy as np
from matplotlib.axes import Axes

from recoup.report import hesitation_story, palette, plots, words
from recoup.report.reasons import LostSignal, Reasons

SHOWN: Final = 12
"""Signals told by name."""

MOSTLY: Final = 0.6
"""Share of a signal's losses from which a value of an attribute is named."""

LEAST_VISITS: Final = 20
"""Visits below which no place is named: where a handful met it says nothing."""

PLACES: Final = 3
"""Places named for a signal."""

NEGLIGIBLE: Final = 0.05
"""Purchases below which a signal counts as harmless."""


NOTHING: Final = (
    "The events tell of nothing whose harm could be weighed: no error, no declined payment, no "
    "empty search, no slow page, no late delivery. A shop that sends such events learns here what "
    "each of them costs."
)


class ReasonRow(msgspec.Struct, frozen=True):
    """A signal as the table shows it."""

    name: str
    sessions: str
    lost: str
    leave: str
    where: str


def sentences(told: Reasons) -> list[str]:
    """Say what signals took, which took nothing, and how shoppers wavered."""
    return [*_met(told), *_wavered(told)]


def _wavered(told: Reasons) -> list[str]:
    """Name behaviours; not waits, with which nearly every visit ends: they have a section."""
    lowered = [
        f"{name} ({_number(each.lost)}, visits: {words.count(each.sessions)})"
        for each in told.wavering
        if each.lost >= NEGLIGIBLE and (name := _behaviour(each.signal))
    ]
    if not lowered:
        return []
    doubt = f"How shoppers wavered put purchases in doubt as well: {', '.join(lowered[:3])}."
    return [f"{doubt} That is how they decide: no cause, and not counted above."]


def _met(told: Reasons) -> list[str]:
    harmful = [each for each in told.signals if each.lost >= NEGLIGIBLE]
    if not told.signals:
        return [NOTHING]
    met = f"{words.count(told.sessions)} visits met something that could put shoppers off."
    if not harmful:
        return [f"{met} The model sees no purchase lost to it."]
    named = ", ".join(f"{_name(each)} ({_number(each.lost)})" for each in harmful[:3])
    seen = f"By what the model sees, {_number(told.lost)} purchases were lost to it"
    lost = f"{seen}; most to {named}."
    harmless = [_name(each) for each in told.signals if each.lost < NEGLIGIBLE]
    if not harmless:
        return [f"{met} {lost}"]
    nothing = f"Met as well, without a loss that the model could tell: {', '.join(harmless)}."
    return [f"{met} {lost}", nothing]


def rows(told: Reasons) -> list[ReasonRow]:
    """Give the table: what shoppers met, what it took, and where most."""
    return [
        ReasonRow(
            name=_name(each),
            sessions=words.count(each.sessions),
            lost=_number(each.lost),
            leave=words.share(each.lost, each.unspoilt),
            where=_where(each),
        )
        for each in told.signals[:SHOWN]
        if each.lost >= NEGLIGIBLE
    ]


def figure(told: Reasons) -> str:
    """Draw what each signal took."""
    shown = [each for each in told.signals if each.lost >= NEGLIGIBLE][:SHOWN]
    if not shown:
        return ""
    lost = np.array([each.lost for each in shown])

    def draw(axes: Axes) -> None:
        places = np.arange(len(shown))
        axes.barh(places, lost, color=palette.RED, height=0.62)
        axes.set_yticks(places, [_name(each) for each in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, lost.max() * 1.2)
        axes.set_xlabel("purchases lost, by what the model sees")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for place, value in zip(places, lost, strict=True):
            axes.text(value + lost.max() * 0.012, float(place), _number(float(value)), va="center")

    return plots.figure("reasons", "Purchases lost to what shoppers met", draw,
                        height_in=0.8 + 0.36 * len(shown))  # fmt: skip


def _name(each: LostSignal) -> str:
    return words.defect_words(each.signal).name


def _behaviour(signal: str) -> str:
    """Give a behaviour in words, "" for a wait."""
    name = hesitation_story.BEHAVIOURS.get(signal.partition(":")[2], "")
    return name[:1].lower() + name[1:]


def _number(lost: float) -> str:
    return words.count(lost) if lost >= 10 else f"{lost:.1f}"  # noqa: PLR2004 - two digits


def _where(each: LostSignal) -> str:
    """Name where most of a signal's losses lie."""
    if each.sessions < LEAST_VISITS:
        return ""
    found = [
        f"{words.ATTRIBUTES.get(part.attribute, part.attribute.replace('_', ' '))} {part.value} "
        f"({words.share(part.lost, each.lost)})"
        for part in sorted(each.slices, key=lambda part: -part.lost)
        if part.lost >= MOSTLY * each.lost
    ]
    return ", ".join(found[:PLACES])
