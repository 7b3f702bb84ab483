"""Who of the customers is overdue, as one value: a part of the summary."""

import datetime as dt
from typing import Final

import msgspec

from recoup.models.card import ReliabilityBin


class OverdueBin(msgspec.Struct, frozen=True, kw_only=True):
    """Customers who are overdue by so many days.

    Parameters
    ----------
    over_days, until_days
        Half-open from the left: more than ``over_days``, at most ``until_days`` (None: no end).
    customers
        How many.
    expected_buyers
        Of them, how many the model expects to buy within the horizon.
    """

    over_days: float
    until_days: float | None
    customers: int
    expected_buyers: float


class LookedBack(msgspec.Struct, frozen=True, kw_only=True):
    """Who was expected to buy in the latest whole horizon, and who did.

    Parameters
    ----------
    origin
        The day it began: nothing of that day or later was known.
    customers
        Who had bought by then.
    expected_buyers, buyers
        How many of them the model expected, and how many came.
    bins
        The same by prediction.
    """

    origin: dt.date
    customers: int
    expected_buyers: float
    buyers: int
    bins: list[ReliabilityBin]


class CategoryOverdue(msgspec.Struct, frozen=True, kw_only=True):
    """Who is overdue in a category, against its own cycle.

    Parameters
    ----------
    category
        Its name in the log.
    customers
        Who has bought it.
    usual_days
        The gap after which half buy it again: the median over those who did; None where none did.
    overdue
        Whose gap is longer than nine in ten of the gaps to be expected of them.
    overdue_by_days
        Median of how far they are beyond that; None where nobody is.
    """

    category: str
    customers: int
    usual_days: float | None
    overdue: int
    overdue_by_days: float | None


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """Repeat purchase as of the end of a log.

    Parameters
    ----------
    as_of
        The start of the day behind the log's last.
    horizon_days
        How far the model looks ahead.
    customers, returned
        Who has bought, and who of them on more than one day.
    expected_buyers
        How many the model expects to buy within the horizon.
    overdue
        Whose gap is longer than nine in ten of the gaps to be expected of them.
    overdue_by_days
        Median of how far they are beyond that; None where nobody is.
    bins
        The overdue, by how much.
    model
        Hash of the model.
    looked_back
        What the model would have said one horizon ago, and what came; None in a shorter log.
    categories
        The twelve in which most are overdue; empty where the log names none.
    """

    as_of: dt.date
    horizon_days: int
    customers: int
    returned: int
    expected_buyers: float
    overdue: int
    overdue_by_days: float | None
    bins: list[OverdueBin]
    model: str
    looked_back: LookedBack | None = None
    categories: list[CategoryOverdue] = []


EDGES_DAYS: Final = (0.0, 7.0, 28.0, 91.0)
"""Beginnings of the bins of overdue customers, in days."""
