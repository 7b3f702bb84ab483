"""Why shoppers leave, as one value: what the trained model says that signals took."""

from typing import Final

import msgspec
import polars as pl

from recoup.friction.reasons import lost_by
from recoup.friction.signals import SIGNAL_INDEX

SPLIT_BY: Final = (
    "page", "item", "query", "payment_method", "device", "browser", "channel", "country",
)  # fmt: skip
"""Attributes that losses are split by."""

SLICE_LIMIT: Final = 12
"""Values of an attribute that are listed for a signal: those that lost most."""


class LostSlice(msgspec.Struct, frozen=True):
    """What a signal took where an attribute has a value.

    Parameters
    ----------
    attribute, value
        Such as ``page`` and ``/checkout``, as the event says that showed the signal.
    showings, sessions
        Events that showed it, and sessions that met it there.
    lost
        Purchases that these showings took, by the model.
    """

    attribute: str
    value: str
    showings: int
    sessions: int
    lost: float


class LostSignal(msgspec.Struct, frozen=True):
    """What a signal took in all, and where.

    Parameters
    ----------
    signal
        Its row of the defect catalogue.
    showings, sessions, lost
        As of :class:`LostSlice`.
    unspoilt
        Purchases that would have followed its showings without any signal in their journeys.
    slices
        By attribute in the order of :data:`SPLIT_BY`, then the most lost first.
    """

    signal: str
    showings: int
    sessions: int
    lost: float
    unspoilt: float
    slices: list[LostSlice] = []


class Reasons(msgspec.Struct, frozen=True, kw_only=True):
    """What signals took, by a trained model of intent: what it sees, not proof of cause.

    Parameters
    ----------
    model
        Hash of the model.
    lost
        Purchases in all.
    sessions
        Sessions that met a signal.
    signals
        What shoppers met: the most lost first.
    wavering
        How they wavered, likewise: behaviours, and waits that were too long. Not among ``lost`` and
        ``sessions``: most who leave wait first, so what a wait takes is leaving itself, seen early.

    Examples
    --------
    >>> Reasons(model="x").lost
    0.0
    """

    model: str
    lost: float = 0.0
    sessions: int = 0
    signals: list[LostSignal] = []
    wavering: list[LostSignal] = []


def tell_reasons(reasons: pl.DataFrame, model: str) -> Reasons:
    """Sum a frame of ``REASON_SCHEMA`` by signal and slice: one pass an attribute."""
    shown = reasons.filter(pl.col("shown"))
    met = shown.filter(pl.col("signal").is_in(list(SIGNAL_INDEX)))
    signals = _summed(met)
    return Reasons(
        model=model,
        lost=sum(each.lost for each in signals),
        sessions=met["session"].n_unique(),
        signals=signals,
        wavering=_summed(shown.filter(~pl.col("signal").is_in(list(SIGNAL_INDEX)))),
    )


def _summed(shown: pl.DataFrame) -> list[LostSignal]:
    unspoilt = dict(shown.group_by("signal").agg(pl.col("unspoilt").sum()).iter_rows())
    slices: dict[str, list[LostSlice]] = {}
    for attribute in SPLIT_BY:
        counted: dict[str, int] = {}
        for signal, value, showings, sessions, lost in lost_by(shown, attribute).iter_rows():
            counted[signal] = counted.get(signal, 0) + 1
            if counted[signal] <= SLICE_LIMIT:
                told = LostSlice(attribute, value, showings, sessions, lost)
                slices.setdefault(signal, []).append(told)
    return [
        LostSignal(signal, showings, sessions, lost, unspoilt[signal], slices.get(signal, []))
        for signal, showings, sessions, lost in lost_by(shown).iter_rows()
    ]
