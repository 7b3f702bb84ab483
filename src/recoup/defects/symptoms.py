"""Losses that a signal names: where it shows more than it should, and what it costs those who saw.

First where and when: among those who had the opportunity, a slice in which the signal shows more
often than elsewhere and before. Then what it costs: orders of those who saw it, against shoppers
like them who had the same opportunity and did not see it.
"""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import gamma

from recoup.decisions import Defect, Interval
from recoup.defects.baseline import design, fit_probability
from recoup.defects.catalogue import DEFECT_TYPES
from recoup.defects.risks import NEVER_US, PURCHASE, reach_times
from recoup.defects.search import Candidate, Search
from recoup.defects.slices import slices_within
from recoup.defects.tables import CONTEXTS, TOUCHED
from recoup.defects.told import Log, Loss, labelled, tell, words
from recoup.friction.signals import SIGNALS, Signal

EXPECTED_OUTBREAKS: Final = 0.3
"""Prior number of outbreaks of a signal that can be seen in a log."""
LEAST_CONFIDENCE: Final = 0.2
MOST_PER_SIGNAL: Final = 6
LEAST_SHOWN: Final = 5
_LEVEL_OF_FAMILY: Final = {
    "page": 0, "search": 1, "filter": 1, "item": 2, "add": 2, "cart": 3, "checkout": 4,
    "shipping": 5, "payment": 6,
}  # fmt: skip
_LOSSES: Final = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
_LOSS_PRIOR: Final = np.log(np.array([0.5, *[0.05] * 10]))
_SLACK: Final = 1.15
"""Likelihoods of counts are raised to the inverse: shoppers are noisier than coin flips."""


class Exposure(msgspec.Struct, frozen=True):
    """Who had a signal's opportunity: n rows of session and entity.

    Parameters
    ----------
    session
        Row in the sessions table.
    at, shown_at
        When the opportunity came, and when the signal showed (``NEVER_US``: it did not).
    anyway
        P(buys) of shoppers like them who did not see the signal.
    bought
        Whether they bought behind it.
    frame
        Attributes to slice by, with ``row``, ``at`` and ``p``.
    """

    session: NDArray[np.int64]
    at: NDArray[np.int64]
    shown_at: NDArray[np.int64]
    anyway: NDArray[np.float64]
    bought: NDArray[np.bool_]
    frame: pl.DataFrame


def symptomatic(
    sessions: pl.DataFrame, touches: pl.DataFrame, spoiled: NDArray[np.int64], log: Log
) -> Iterator[Defect]:
    """Find the defects that signals name, and mark in ``spoiled`` when sessions met them."""
    rows = sessions.select("session").with_row_index("of")
    met = touches.join(rows, on="session", how="inner")
    buys = reach_times(sessions)[:, PURCHASE]
    for index, signal in enumerate(SIGNALS):
        exposure = _exposure(signal, index, sessions, met, buys)
        if exposure is not None:
            yield from _outbreaks(signal, exposure, spoiled, log)


def _exposure(
    signal: Signal, index: int, sessions: pl.DataFrame, met: pl.DataFrame, buys: NDArray[np.int64]
) -> Exposure | None:
    bit = 1 << index
    family = met.filter((pl.col("attribute") == "family") & (pl.col("value") == signal.family))
    shown = int((family["mask"] & bit != 0).sum())
    if shown < LEAST_SHOWN:
        return None
    chosen = family.with_columns(pl.lit(None, pl.String).alias("value"))
    if signal.entity in TOUCHED:
        own = met.filter(pl.col("attribute") == signal.entity)
        own = own.join(family, on="of", how="semi")
        if 2 * own.filter(pl.col("mask") & bit != 0)["of"].n_unique() >= shown:
            chosen = own
    return _arrange(signal, bit, chosen.sort("of", "ts", "value"), family, sessions, buys)


def _arrange(
    signal: Signal,
    bit: int,
    chosen: pl.DataFrame,
    family: pl.DataFrame,
    sessions: pl.DataFrame,
    buys: NDArray[np.int64],
) -> Exposure:
    session = chosen["of"].to_numpy().astype(np.int64)
    at = chosen["ts"].to_numpy()
    has = (chosen["mask"] & bit != 0).to_numpy()
    shown_at = np.where(has, chosen["shown"].fill_null(NEVER_US).to_numpy(), NEVER_US)
    anyway = _anyway(bit, family, sessions, buys)
    frame = sessions[session].select(*CONTEXTS).with_columns(
        pl.Series("row", np.arange(len(session))), pl.Series("at", np.minimum(at, shown_at)),
        pl.Series("p", np.ones(len(session))), chosen["value"].alias(signal.entity or "value"),
    )  # fmt: skip
    after = (buys[session] < NEVER_US) & (buys[session] >= np.where(has, shown_at, at))
    return Exposure(session, at, shown_at, anyway[session], after, frame)


def _anyway(
    bit: int, family: pl.DataFrame, sessions: pl.DataFrame, buys: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give P(buys) at a session's opportunity had the signal not shown, per session (NaN: none)."""
    rows = family["of"].to_numpy().astype(np.int64)
    at = family["ts"].to_numpy()
    spared = (family["mask"] & bit == 0).to_numpy()
    intent = np.clip(family["intent"].to_numpy(), 1e-4, 1 - 1e-4)
    who = design(sessions[rows], CONTEXTS, at)
    who = who.beside(np.log(intent / (1 - intent)))
    bought = (buys[rows] < NEVER_US) & (buys[rows] >= at)
    chances = np.full(sessions.height, np.nan)
    chances[rows] = fit_probability(who[spared], bought[spared], who)
    return chances


def _outbreaks(
    signal: Signal, exposure: Exposure, spoiled: NDArray[np.int64], log: Log
) -> Iterator[Defect]:
    spared = exposure.shown_at == NEVER_US
    usual = (spared.sum() + 1.0) / (len(spared) + 2.0)
    expected = np.full(len(spared), min(usual, 0.99))
    slices = slices_within(exposure.frame)
    search = Search(slices, expected, spared, start=log.start, noise=1.5, recentre=False)
    prior = np.log(EXPECTED_OUTBREAKS / max(len(slices), 1))
    effect = _effect(exposure)
    for _ in range(MOST_PER_SIGNAL):
        best = search.best()
        if best is None or best.found.log_factor + prior < np.log(LEAST_CONFIDENCE):
            return
        told = _judge(signal, exposure, search, best, (effect, prior), log)
        if told is not None:
            _spoil(exposure, search.inside(best), spoiled)
            yield told
        search.explain_away(best)


def _effect(exposure: Exposure) -> NDArray[np.float64]:
    """Give the log prior of the share lost, from all who saw the signal; shape of ``_LOSSES``."""
    shown = exposure.shown_at < NEVER_US
    gains = _gains(exposure.bought[shown].sum(), exposure.anyway[shown].sum())
    return _normal(_LOSS_PRIOR + 0.5 * gains)


def _gains(seen: float, expected: float) -> NDArray[np.float64]:
    return np.asarray((seen * np.log1p(-_LOSSES) + _LOSSES * expected) / _SLACK)


def _normal(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = logs - logs.max()
    return np.asarray(whole - np.log(np.exp(whole).sum()))


def _judge(
    signal: Signal,
    exposure: Exposure,
    search: Search,
    best: Candidate,
    beliefs: tuple[NDArray[np.float64], float],
    log: Log,
) -> Defect | None:
    effect, prior = beliefs
    inside = search.inside(best)
    saw = inside[exposure.shown_at[inside] < NEVER_US]
    _, first = np.unique(exposure.session[saw], return_index=True)
    saw = saw[first]
    expected, seen = float(exposure.anyway[saw].sum()), float(exposure.bought[saw].sum())
    outbreak = 1.0 / (1.0 + np.exp(-(best.found.log_factor + prior)))
    costs = 1.0 - np.exp(_normal(effect + _gains(seen, expected))[0])
    confidence = float(np.clip(outbreak * costs, 0.0, 1.0))
    if confidence < LEAST_CONFIDENCE:
        return None
    entity = best.slice.entity or {"step": signal.family}
    lost = lost_orders(seen, expected)
    evidence = (
        f"{DEFECT_TYPES[signal.id].name}: {len(saw)} of {len(inside)} sessions with "
        f"{words(labelled(entity))} met it; {seen:.0f} of them ordered where {expected:.1f} of "
        f"shoppers like them would have."
    )
    level = _LEVEL_OF_FAMILY[signal.family]
    loss = Loss(signal.id, entity, level, len(saw), seen, expected, lost, confidence, evidence)
    return tell(log, best.found, loss)


def lost_orders(seen: float, expected: float) -> Interval:
    """Give the orders lost in all with the 95 % interval: Gamma posterior of what was ordered.

    Examples
    --------
    >>> lost = lost_orders(5.0, 30.0)
    >>> round(lost.value), round(lost.low), round(lost.high)
    (25, 19, 28)
    """
    ordered = gamma(seen + 0.5)
    low, middle, high = (expected - float(ordered.ppf(at)) for at in (0.975, 0.5, 0.025))
    return Interval(*(max(each, 0.0) for each in (middle, low, high)))


def _spoil(exposure: Exposure, inside: NDArray[np.int64], spoiled: NDArray[np.int64]) -> None:
    np.minimum.at(spoiled, exposure.session[inside], exposure.shown_at[inside])
