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
from recoup.defects.scan import Found
from recoup.defects.search import Search
from recoup.defects.slices import slices_within
from recoup.defects.tables import CONTEXTS, TOUCHED
from recoup.defects.told import Log, Loss, labelled, tell, words
from recoup.friction.signals import SIGNALS

EXPECTED_OUTBREAKS: Final = 0.3
"""Prior number of outbreaks of a signal that can be seen in a log."""
LEAST_CONFIDENCE: Final = 0.2
MOST_PER_SIGNAL: Final = 6
REPEATED: Final = 0.4
"""An outbreak of which less than this is new has been told already."""
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
    signal
        Position among ``SIGNALS``.
    family
        The sessions' first opportunities, with what they showed.
    session
        Row in the sessions table.
    shown_at
        When the signal showed, int64 microseconds (``NEVER_US``: it did not).
    bought
        Whether they bought behind it.
    frame
        Attributes to slice by, with ``row``, ``at`` and ``p``.
    """

    signal: int
    family: pl.DataFrame
    session: NDArray[np.int64]
    shown_at: NDArray[np.int64]
    bought: NDArray[np.bool_]
    frame: pl.DataFrame


class Outbreak(msgspec.Struct, frozen=True):
    """A slice and hours in which a signal shows more than it should.

    ``saw`` are the rows of the exposure in which it showed there, ``of`` the number of rows there,
    and ``chance`` is P(it is no accident).
    """

    entity: dict[str, str]
    found: Found
    saw: NDArray[np.int64]
    of: int
    chance: float


def symptomatic(
    sessions: pl.DataFrame, touches: pl.DataFrame, spoiled: NDArray[np.int64], log: Log
) -> Iterator[Defect]:
    """Find the defects that signals name, and mark in ``spoiled`` when sessions met them.

    All outbreaks are found before any is weighed: who met one is no measure of what shoppers do
    without defects.
    """
    rows = sessions.select("session").with_row_index("of")
    met = touches.join(rows, on="session", how="inner")
    buys = reach_times(sessions)[:, PURCHASE]
    cases: list[tuple[Exposure, Outbreak]] = []
    for index in range(len(SIGNALS)):
        exposure = _exposure(index, sessions, met, buys)
        if exposure is not None:
            cases.extend((exposure, each) for each in _outbreaks(exposure, log))
    tainted = np.zeros(sessions.height, np.bool_)
    for exposure, each in cases:
        tainted[exposure.session[each.saw]] = True
    wants = met.select("of", "ts", "intent").sort("ts")
    for exposure, each in cases:
        anyway = _anyway(exposure, sessions, wants, buys, tainted)
        found = _judge(exposure, each, anyway, log)
        if found is not None:
            sees = exposure.session[each.saw]
            np.minimum.at(spoiled, sees, exposure.shown_at[each.saw])
            yield found


def _exposure(
    index: int, sessions: pl.DataFrame, met: pl.DataFrame, buys: NDArray[np.int64]
) -> Exposure | None:
    signal, bit = SIGNALS[index], 1 << index
    family = met.filter((pl.col("attribute") == "family") & (pl.col("value") == signal.family))
    shown = int((family["mask"] & bit != 0).sum())
    if shown < LEAST_SHOWN:
        return None
    chosen, named = family, "value"
    if signal.entity in TOUCHED:
        own = met.filter(pl.col("attribute") == signal.entity)
        own = own.join(family, on="of", how="semi")
        if 2 * own.filter(pl.col("mask") & bit != 0)["of"].n_unique() >= shown:
            chosen, named = own, signal.entity
    chosen = chosen.sort("of", "ts", "value")
    session = chosen["of"].to_numpy().astype(np.int64)
    has = (chosen["mask"] & bit != 0).to_numpy()
    shown_at = np.where(has, chosen["shown"].fill_null(NEVER_US).to_numpy(), NEVER_US)
    at = np.minimum(chosen["ts"].to_numpy(), shown_at)
    frame = sessions[session].select(*CONTEXTS).with_columns(
        pl.Series("row", np.arange(len(session))), pl.Series("at", at),
        pl.Series("p", has.astype(np.float64)), chosen["value"].alias(named),
    )  # fmt: skip
    after = (buys[session] < NEVER_US) & (buys[session] >= np.where(has, shown_at, at))
    return Exposure(index, family, session, shown_at, after, frame)


def _outbreaks(exposure: Exposure, log: Log) -> Iterator[Outbreak]:
    spared = exposure.shown_at == NEVER_US
    usual = (spared.sum() + 1.0) / (len(spared) + 2.0)
    slices = slices_within(exposure.frame)
    expected = np.full(len(spared), min(usual, 0.99))
    search = Search(slices, expected, spared, start=log.start, noise=1.5, recentre=False)
    prior = np.log(EXPECTED_OUTBREAKS / max(len(slices), 1))
    known = np.zeros(len(spared), np.bool_)
    for _ in range(MOST_PER_SIGNAL):
        best = search.best()
        if best is None or best.found.log_factor + prior < np.log(LEAST_CONFIDENCE):
            return
        inside = search.inside(best)
        saw = inside[~spared[inside]]
        if (~known[saw]).sum() > REPEATED * len(saw):
            entity = search.with_aliases(best) or {"step": SIGNALS[exposure.signal].family}
            chance = float(1.0 / (1.0 + np.exp(-(best.found.log_factor + prior))))
            yield Outbreak(entity, best.found, saw, len(inside), chance)
        known[saw] = True
        search.explain_away(best)


class _Stood(msgspec.Struct, frozen=True):
    """Where sessions stood in the funnel when they met something, or could have: n rows."""

    session: NDArray[np.int64]
    at: NDArray[np.int64]
    level: NDArray[np.int64]

    def wanted(self, known: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give how much they wanted to buy just before: log-odds (0: unknown), and if it is known.

        That of the moment itself would not do: it knows what was met.

        Parameters
        ----------
        known
            ``of``, ``ts`` and ``intent`` of all that was touched, in order of time.
        """
        asked = pl.DataFrame({"of": self.session, "ts": self.at}).with_row_index("place")
        asked = asked.cast({"of": known.schema["of"], "ts": known.schema["ts"]}).sort("ts")
        before = asked.join_asof(
            known, on="ts", by="of", allow_exact_matches=False, check_sortedness=False
        )
        intent = before.sort("place")["intent"]
        clipped = np.clip(intent.fill_null(0.5).to_numpy(), 1e-4, 1 - 1e-4)
        return np.log(clipped / (1 - clipped)), intent.is_not_null().to_numpy().astype(np.float64)


def _anyway(
    exposure: Exposure,
    sessions: pl.DataFrame,
    wants: pl.DataFrame,
    buys: NDArray[np.int64],
    tainted: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Give P(buys) of each session that the signal showed to, had it not (NaN: the others).

    They are held against who came as far and did not see it, from when these came so far: who sees
    a late step has by then outlasted many who began.
    """
    family, bit = exposure.family, 1 << exposure.signal
    rows, at = family["of"].to_numpy().astype(np.int64), family["ts"].to_numpy()
    has = (family["mask"] & bit != 0).to_numpy()
    reached = reach_times(sessions[rows])[:, :PURCHASE]
    shown = family["shown"].fill_null(NEVER_US).to_numpy()
    level = (reached <= shown[:, None]).sum(axis=1) - 1
    saw = _Stood(rows[has], shown[has], level[has])
    spared = np.flatnonzero(~has & ~tainted[rows])
    parts = []
    for each in np.unique(saw.level):
        came = spared[reached[spared, each] < NEVER_US]
        since = np.maximum(reached[came, each], at[came])
        parts.append((rows[came], since, np.full(len(came), each)))
    alike = _Stood(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    both = _Stood(*(np.r_[getattr(alike, k), getattr(saw, k)] for k in _Stood.__struct_fields__))
    who = design(sessions[both.session], CONTEXTS, both.at)
    for number in (*both.wanted(wants), *(both.level == each for each in np.unique(saw.level)[1:])):
        who = who.beside(np.asarray(number, np.float64))
    known = np.arange(len(both.at)) < len(alike.at)
    bought = (buys[alike.session] < NEVER_US) & (buys[alike.session] >= alike.at)
    chances = np.full(sessions.height, np.nan)
    chances[saw.session] = fit_probability(who[known], bought, who[~known])
    return chances


def _judge(
    exposure: Exposure, outbreak: Outbreak, anyway: NDArray[np.float64], log: Log
) -> Defect | None:
    signal = SIGNALS[exposure.signal]
    _, first = np.unique(exposure.session[outbreak.saw], return_index=True)
    saw = outbreak.saw[first]
    expected = float(anyway[exposure.session[saw]].sum())
    seen = float(exposure.bought[saw].sum())
    confidence = float(np.clip(outbreak.chance * _costs(seen, expected), 0.0, 1.0))
    if confidence < LEAST_CONFIDENCE:
        return None
    entity = labelled(outbreak.entity)
    evidence = (
        f"{DEFECT_TYPES[signal.id].name}: {len(saw)} of {outbreak.of} sessions with "
        f"{words(entity)} met it; {seen:.0f} of them ordered where {expected:.1f} of "
        f"shoppers like them would have."
    )
    level = _LEVEL_OF_FAMILY[signal.family]
    chances = anyway[exposure.session[saw]]
    lost = lost_orders(seen, expected, float((chances * (1 - chances)).sum()))
    loss = Loss(
        signal.id, outbreak.entity, level, len(saw), seen, expected, lost, confidence, evidence
    )
    return tell(log, outbreak.found, loss)


def _costs(seen: float, expected: float) -> float:
    """Give P(those who saw it ordered less than they would have): even odds, Poisson counts."""
    gains = _LOSS_PRIOR + (seen * np.log1p(-_LOSSES) + _LOSSES * expected) / _SLACK
    whole = np.exp(gains - gains.max())
    return float(1.0 - whole[0] / whole.sum())


def lost_orders(seen: float, expected: float, variance: float = 0.0) -> Interval:
    """Give the orders lost in all with the 95 % interval: Gamma posterior of what was ordered.

    ``variance`` is that of the orders that would have come: coin flips of known chances.

    Examples
    --------
    >>> lost = lost_orders(5.0, 30.0)
    >>> round(lost.value), round(lost.low), round(lost.high)
    (25, 19, 28)
    """
    ordered = gamma(seen + 0.5)
    low, middle, high = (expected - float(ordered.ppf(at)) for at in (0.975, 0.5, 0.025))
    chance = 1.96 * np.sqrt(variance)
    ends = (
        middle,
        middle - np.hypot(middle - low, chance),
        middle + np.hypot(high - middle, chance),
    )
    return Interval(*(float(max(each, 0.0)) for each in ends))
