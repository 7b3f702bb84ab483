"""Which of several formats a column of moments is written in."""

import datetime as dt
from collections.abc import Sequence

import polars as pl

from recoup.sources.values import read_time


def settle_format(column: pl.Series, formats: Sequence[str], *, now: dt.datetime) -> str | None:
    """Choose the format that reads every value; of several, that under which the log is shortest.

    03/04/2010 is in April to some shops and in March to others. Read wrongly, the days of one week
    become the same day of several months; so the reading with the smaller span is the right one.

    Parameters
    ----------
    column
        Consecutive rows of a log that is in order of time, or nearly so.
    formats
        As in a mapping.

    Returns
    -------
    str or None
        None where no format reads every value.

    Examples
    --------
    >>> days = pl.Series(["12/1/2010 8:26", "12/1/2010 9:02", "12/2/2010 8:30"])
    >>> both = ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M")
    >>> settle_format(days, both, now=dt.datetime(2012, 1, 1, tzinfo=dt.UTC))
    '%m/%d/%Y %H:%M'
    """
    fits: list[tuple[float, int, str]] = []
    for place, form in enumerate(formats):
        reading = read_time(column, (form,), zone="UTC", now=now)
        known = reading.values.drop_nulls().to_physical()
        missing = int((reading.reasons == "missing_timestamp").sum())
        if len(known) and len(known) == len(column) - missing:
            fits.append((float(known.max() - known.min()), place, form))  # type: ignore[operator, arg-type]
    return min(fits)[2] if fits else None
