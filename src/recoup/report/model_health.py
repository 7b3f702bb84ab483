"""Whether a trained model at work still holds, as one value: a part of the summary."""

from collections.abc import Iterable

import msgspec

from recoup.friction.watch import InputDrift
from recoup.models.card import ReliabilityBin, SliceMetrics


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A trained model at work: whether it still reads, and says, what it did when judged.

    Parameters
    ----------
    name, version, hash
        Which model.
    rows
        How often its inputs were watched: events, waits on pages, or customers.
    inputs
        How many inputs were watched.
    drifted
        Inputs whose population stability index is above 0.25, the furthest first.
    largest_psi
        That of the input that moved the furthest; None before the first row.
    predicted, observed
        Mean prediction, and the share of that which came; None where nothing was foretold.
    calibration_error, expected_calibration_error
        Mean distance of predicted from observed rates, here and when it was judged.
    bias
        Mean prediction over the observed rate; None where nothing of it came.
    trained_to
        Latest event that it was trained on, ISO 8601 UTC: where it lies within what is told of,
        the model knew part of it, and the figures flatter it.
    worst
        The slice in which it had the least skill when it was judged.
    """

    name: str
    version: int
    hash: str
    rows: int = 0
    inputs: int = 0
    drifted: list[InputDrift] = []
    largest_psi: float | None = None
    predicted: float | None = None
    observed: float | None = None
    calibration_error: float | None = None
    expected_calibration_error: float | None = None
    bias: float | None = None
    trained_to: str | None = None
    worst: SliceMetrics | None = None


class Forecast(msgspec.Struct, frozen=True):
    """What was foretold of some rows, and what came.

    Examples
    --------
    >>> Forecast(0.2, 0.25, 0.05).bias
    0.8
    """

    predicted: float
    observed: float
    error: float

    @property
    def bias(self) -> float | None:
        """Mean prediction over the observed rate; None where nothing came."""
        return self.predicted / self.observed if self.observed else None


def forecast_of(bins: Iterable[tuple[float, float, int]]) -> Forecast | None:
    """Sum bins of (mean prediction, observed share, rows) up; None of no row.

    Examples
    --------
    >>> forecast_of([(0.1, 0.2, 30), (0.5, 0.4, 10)])
    Forecast(predicted=0.2, observed=0.25, error=0.1)
    """
    told = list(bins)
    rows = sum(n for _, _, n in told)
    if not rows:
        return None
    return Forecast(
        sum(predicted * n for predicted, _, n in told) / rows,
        sum(observed * n for _, observed, n in told) / rows,
        sum(abs(predicted - observed) * n for predicted, observed, n in told) / rows,
    )


def parts_of(bins: Iterable[ReliabilityBin]) -> list[tuple[float, float, int]]:
    """Give reliability bins as :func:`forecast_of` takes them."""
    return [(each.predicted, each.observed, each.rows) for each in bins]
