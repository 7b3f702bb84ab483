"""From counts of waits to what is told of them: by place and hour, against what was expected."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import MICROS
from recoup.friction.waits import LIMIT_S
from recoup.models.card import ReliabilityBin, wilson
from recoup.report.funnel import OTHER, SEGMENT_LIMIT
from recoup.report.hesitation import Behaved, Curve, Hesitation, Waits

BINS: Final = 64
"""Bins of a wait's length, even in its logarithm from SHORTEST_S to the session's limit."""

LEFT: Final = BINS
"""The bin of waits after which the visit did not go on."""

SHORTEST_S: Final = 0.1
HALF: Final = 0.5
STANDARD_ERRORS: Final = 3.0
DRIFT: Final = 0.03
"""By so much the model's shares may drift where nothing is wrong: less is never spoken of."""

FEWEST: Final = 100
"""Waits from which a curve is drawn, and a place compared."""

FORECASTS: Final = 20
"""Bins, of equal width, of P(the visit goes on) as it was expected."""

COMPARED: Final = ("state", "device", "page")
"""Dimensions whose values are places: compared with what was expected there."""

CHANNEL: Final = "channel"
BY_CHANNEL: Final = "_by_channel"
SEPARATOR: Final = "\x1f"
"""Dimensions of cells: the channel of visits, and places by it, as ``place SEPARATOR channel``."""

_SPAN: Final = math.log(LIMIT_S / SHORTEST_S)


def wait_bin(wait_s: pl.Expr) -> pl.Expr:
    """Give the bin of a wait's length."""
    share = (wait_s.clip(SHORTEST_S, LIMIT_S) / SHORTEST_S).log() / _SPAN
    return (share * BINS).floor().clip(0, BINS - 1).cast(pl.Int16)


def tell_waits(
    cells: pl.DataFrame, behaviours: Sequence[Behaved], level: float | None
) -> Hesitation:
    """Tell where and when shoppers wait.

    Parameters
    ----------
    cells
        By ``dimension`` (state, device, page, channel, hour, forecast, and the first three by
        channel), ``value`` and ``bin``: how many waits ``n``, how many of them a model ``judged``,
        how many were ``long``, and the sum of P(goes on) in ``micros``.
    level
        Hesitation from which a wait is long; None without a model.
    """
    states = cells.filter(pl.col("dimension") == "state")
    if states.is_empty():
        return Hesitation(level=level, behaviours=list(behaviours))
    kinds = states.with_columns(value=pl.col("value").str.split("/").list.last())
    total = _waits("", states, level, 0.0)
    drift = Drift(cells, level, _gap(total))
    told = {
        dimension: _split(
            cells.filter(pl.col("dimension") == dimension), level, drift.of(dimension)
        )
        for dimension in (*COMPARED, CHANNEL, "hour")
    }
    return Hesitation(
        level=level,
        total=total,
        by_state=told["state"],
        by_page_type=_split(kinds, level, drift.of("state", kinds=True)),
        by_device=told["device"],
        by_page=_shown(told["page"]),
        by_channel=_shown(told[CHANNEL]),
        by_hour=[_unjudged(waits) for waits in sorted(told["hour"], key=_hour)],
        curves=_curves(kinds),
        forecast=_forecast(cells.filter(pl.col("dimension") == "forecast")),
        behaviours=list(behaviours),
    )


def _forecast(cells: pl.DataFrame) -> list[ReliabilityBin]:
    """Compare P(goes on) as expected with what came, from unlikely to likely."""
    gone_on = pl.col("n").filter(pl.col("bin") != LEFT).sum()
    sums = cells.group_by(pl.col("value").cast(pl.Int16)).agg(
        pl.col("n", "micros").sum(), gone_on=gone_on
    )
    return [
        ReliabilityBin(micros / MICROS / n, gone_on / n, *wilson(gone_on, n), n)
        for n, micros, gone_on in sums.sort("value").select("n", "micros", "gone_on").iter_rows()
    ]


class Drift:
    """How far shares of long waits lie from what was expected, wherever shoppers are.

    A campaign brings shoppers that a model has seen few of; they leave sooner or later than it
    says, and a place that they come to is not at fault. So a place is compared with the drift of
    those who came there, by the channel of their visits, and a channel with the shop's. The drift
    of a channel with few waits is the shop's.

    Parameters
    ----------
    cells, level
        As :func:`tell_waits` takes them.
    shop
        The drift of all shoppers together.
    """

    def __init__(self, cells: pl.DataFrame, level: float | None, shop: float) -> None:
        self.shop = shop
        self._cells = cells
        channels = cells.filter(pl.col("dimension") == CHANNEL).group_by(channel="value")
        sums = channels.agg(pl.col("judged", "long", "micros").sum())
        expected = 1.0 - (level or 0.0) * pl.col("micros") / MICROS / pl.col("judged")
        self._own = sums.filter(pl.col("judged") >= FEWEST).select(
            "channel", drift=pl.col("long") / pl.col("judged") - expected
        )

    def of(self, dimension: str, *, kinds: bool = False) -> dict[str, float]:
        """Give the drift of those who came, by place; by kind of page where states are of one."""
        parts = pl.col("value").str.split(SEPARATOR)
        place = parts.list.first()
        if kinds:
            place = place.str.split("/").list.last()
        own = pl.col("dimension") == f"{dimension}{BY_CHANNEL}"
        rows = self._cells.filter(own, pl.col("value") != OTHER)
        drift = pl.col("drift").fill_null(self.shop)
        mean = (drift * pl.col("judged")).sum() / pl.col("judged").sum()
        told = (
            rows.select("judged", place=place, channel=parts.list.last())
            .join(self._own, on="channel", how="left")
            .group_by("place")
            .agg(drift=mean)
            .filter(pl.col("drift").is_finite())
        )
        return dict(told.iter_rows()) | {"": self.shop}


def _split(cells: pl.DataFrame, level: float | None, drift: dict[str, float]) -> list[Waits]:
    parts = cells.partition_by("value", as_dict=True).items()
    told = [
        _waits(str(value), part, level, drift.get(str(value), drift[""]))
        for (value,), part in parts
    ]
    return sorted(told, key=lambda waits: (-waits.rows, waits.value))


def _hour(waits: Waits) -> int:
    return int(waits.value)


def _unjudged(waits: Waits) -> Waits:
    """Take the verdict off: an hour is no place, and a surge of visits may fill one."""
    return msgspec.structs.replace(waits, verdict="")


def _shown(values: list[Waits]) -> list[Waits]:
    return [waits for waits in values if waits.value != OTHER][:SEGMENT_LIMIT]


def _waits(value: str, cells: pl.DataFrame, level: float | None, drift: float) -> Waits:
    counts = _counts(cells)
    rows, left = int(counts.sum()), int(counts[LEFT])
    judged = int(cells["judged"].sum())
    told = Waits(
        value=value,
        rows=rows,
        median_wait_s=_median(counts[:LEFT]),
        left=left / rows,
        turning_s=_turning(counts),
    )
    if level is None or not judged:
        return told
    told = msgspec.structs.replace(
        told,
        long=int(cells["long"].sum()) / judged,
        expected_long=1.0 - level * int(cells["micros"].sum()) / MICROS / judged,
    )
    return msgspec.structs.replace(told, verdict=_verdict(told, judged, drift))


def _gap(waits: Waits) -> float:
    return 0.0 if waits.long is None else waits.long - (waits.expected_long or 0.0)


def _verdict(waits: Waits, judged: int, drift: float) -> str:
    """Compare with what was expected of just these shoppers, less the shop's own drift."""
    expected = waits.expected_long or 0.0
    error = math.sqrt(max(expected * (1.0 - expected), 0.0) / judged)
    gap = _gap(waits) - drift
    if judged < FEWEST or abs(gap) <= max(STANDARD_ERRORS * error, DRIFT):
        return ""
    return "longer" if gap > 0 else "shorter"


def _counts(cells: pl.DataFrame) -> NDArray[np.int64]:
    return np.bincount(
        cells["bin"].to_numpy(), cells["n"].to_numpy(), minlength=BINS + 1
    ).astype(np.int64)  # fmt: skip


def _edge(position: float) -> float:
    return SHORTEST_S * math.exp(_SPAN * position / BINS)


def _median(counts: NDArray[np.int64]) -> float | None:
    """Give the median wait of those that went on, between the edges of its bin."""
    half = counts.sum() / 2
    if not half:
        return None
    below = np.cumsum(counts)
    at = int(np.searchsorted(below, half))
    within = (half - (below[at] - counts[at])) / counts[at]
    return _edge(at + float(within))


def _still(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give P(goes on | has waited to the beginning of a bin), shape (BINS,)."""
    ahead = counts[:LEFT][::-1].cumsum()[::-1]
    return np.asarray(ahead / np.maximum(ahead + counts[LEFT], 1))


def _turning(counts: NDArray[np.int64]) -> float | None:
    fewer = np.flatnonzero(_still(counts) < HALF)
    if not len(fewer):
        return None
    return 0.0 if fewer[0] == 0 else _edge(float(fewer[0]))


def _curves(kinds: pl.DataFrame) -> list[Curve]:
    sizes = (
        kinds.group_by("value").agg(pl.col("n").sum()).sort("n", "value", descending=[True, False])
    )
    shown = sizes.filter(pl.col("n") >= FEWEST)["value"].to_list()
    return [_curve(value, kinds.filter(pl.col("value") == value)) for value in shown]


def _curve(value: str, cells: pl.DataFrame) -> Curve:
    """Keep the part of the curve that rests on waits enough."""
    counts = _counts(cells)
    waiting = counts[:LEFT][::-1].cumsum()[::-1] + counts[LEFT]
    enough = np.flatnonzero(waiting >= FEWEST)
    still = _still(counts)
    return Curve(value, [_edge(float(at)) for at in enough], [float(still[at]) for at in enough])
