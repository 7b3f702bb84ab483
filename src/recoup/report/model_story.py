"""Whether the models still hold, in words and figures of the report."""

import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

from recoup.models.card import SliceMetrics
from recoup.report import words
from recoup.report.model_health import ModelHealth
from recoup.report.summary import Summary

FORETOLD: Final = {
    "intent": "that a visit still ends in a purchase",
    "hesitation": "that a visit goes on within half an hour",
    "repeat": "that a customer buys again in time",
}
"""What each model foretells, as words behind "the chance"."""

KINDS: Final = {
    "device": "visits with device",
    "channel": "visits by way of",
    "country": "visits from",
    "visitor_type": "visitors who are",
    "customer_type": "customers who are",
}
"""Attributes of slices, as what is said of their values begins."""

SHOWN_INPUTS: Final = 3
NOTABLE: Final = 1.5
"""Times the error of the day it was judged from which a model is said to be further off."""

LEAST_MORE: Final = 0.01
"""Less than this share further off is never spoken of."""


class HealthRow(NamedTuple):
    """A model as the table shows it."""

    what: str
    version: str
    foretold: str
    came: str
    off: str
    off_when_judged: str
    inputs: str


def rows(models: Sequence[ModelHealth]) -> list[HealthRow]:
    """Give a row a model: what it foretold, and what came."""
    return [
        HealthRow(
            what=f"The chance {_what(each)}",
            version=str(each.version),
            foretold=words.share(each.predicted) if each.predicted is not None else "-",
            came=words.share(each.observed) if each.observed is not None else "-",
            off=_points(each.calibration_error),
            off_when_judged=_points(each.expected_calibration_error),
            inputs=_inputs(each),
        )
        for each in models
    ]


def sentences(summary: Summary) -> list[str]:
    """Say what of the models an owner should know: too far off, trained on this log, weak spots."""
    models = summary.models
    off = [f"the chance {_what(each)}" for each in models if not holds(each)]
    told = []
    if off:
        told.append(
            f"Further off than when it was judged: {', '.join(off)}. Train it again before its "
            "decisions are followed."
        )
    knew = [each for each in models if _knew(each, summary)]
    if knew:
        who = "All of these" if len(knew) == len(models) else ", ".join(each.name for each in knew)
        told.append(
            f"{who} learned from part of this log. How right they are on new visits, only what "
            "comes later can tell."
        )
    weak = [f"{_worst(each.worst)} (the chance {_what(each)})" for each in models if each.worst]
    if weak:
        told.append(f"Least is known about {', and '.join(weak)}.")
    return told


def holds(health: ModelHealth) -> bool:
    """Say whether a model is about as right as when it was judged."""
    here, then = health.calibration_error, health.expected_calibration_error
    return here is None or then is None or here <= max(then * NOTABLE, then + LEAST_MORE)


def _what(health: ModelHealth) -> str:
    return FORETOLD.get(health.name, f"of {health.name}")


def _worst(worst: SliceMetrics) -> str:
    kind = KINDS.get(worst.attribute, worst.attribute.replace("_", " "))
    return f"{kind} {worst.value}"


def _knew(health: ModelHealth, summary: Summary) -> bool:
    """Say whether the model was trained on events of the time that is told of."""
    if health.trained_to is None or summary.period.since is None:
        return False
    return dt.datetime.fromisoformat(health.trained_to) > summary.period.since


def _inputs(health: ModelHealth) -> str:
    if not health.rows:
        return "not watched"
    if not health.drifted:
        return "as when it was judged"
    names = ", ".join(each.feature for each in health.drifted[:SHOWN_INPUTS])
    more = ", ..." if len(health.drifted) > SHOWN_INPUTS else ""
    return f"{len(health.drifted)} of {health.inputs} look different ({names}{more})"


def _points(error: float | None) -> str:
    return "-" if error is None else f"{words.figure(100 * error)} points"
