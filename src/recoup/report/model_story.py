"""Whether the models still hold, in words and figures of the report."""

import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

from recoup.report import words
from recoup.report.model_health import ModelHealth
from recoup.report.summary import Summary

FORETOLD: Final = {
    "intent": "that a visit still ends in a purchase",
    "hesitation": "that a visit goes on within half an hour",
    "repeat": "that a customer buys again in time",
}
"""What each model foretells, as words behind "the chance"."""

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
            what=f"The chance {FORETOLD.get(each.name, f'of {each.name}')}",
            version=str(each.version),
            foretold=_share(each.predicted),
            came=_share(each.observed),
            off=_points(each.calibration_error),
            off_when_judged=_points(each.expected_calibration_error),
            inputs=_inputs(each),
        )
        for each in models
    ]


def sentences(summary: Summary) -> list[str]:
    """Say what of the models an owner should know: too far off, changed inputs, weak spots."""
    return [sentence for each in summary.models for sentence in _told(each, summary)]


def holds(health: ModelHealth) -> bool:
    """Say whether a model is about as right as when it was judged."""
    here, then = health.calibration_error, health.expected_calibration_error
    return here is None or then is None or here <= max(then * NOTABLE, then + LEAST_MORE)


def _told(health: ModelHealth, summary: Summary) -> list[str]:
    name = f"The chance {FORETOLD.get(health.name, f'of {health.name}')}"
    told = []
    if not holds(health):
        told.append(f"{name} is further off than when it was judged: train that model again.")
    if _knew(health, summary):
        told.append(
            f"{name}: part of this log was trained on; how right it is on new visits, only what "
            "comes later can tell."
        )
    if health.worst is not None:
        kind, value = health.worst.attribute.replace("_", " "), health.worst.value
        told.append(f"{name} is known least where the {kind} is {value}.")
    return told


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


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _points(error: float | None) -> str:
    return "" if error is None else f"{words.figure(100 * error)} points"
