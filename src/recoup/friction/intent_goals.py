"""What the network learns beside purchases: steps towards one, which far more sessions take."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from recoup.events import CODE
from recoup.friction.intent_context import CONTEXT_COLUMNS
from recoup.friction.intent_rows import IntentRows

_STEPS: Final = ("add_to_cart", "view_cart")


def goals_of(rows: IntentRows) -> NDArray[np.bool_]:
    """Say of each row what its shopper goes on to do: labels for training alone, shape (n, 4).

    Parameters
    ----------
    rows
        In order of (session, time); what lies after their period is not known.

    Returns
    -------
    Whether the session later begins a checkout or buys, adds to its cart, views its cart; and
    whether its visitor buys in any session of these rows.
    """
    event = rows.context[:, CONTEXT_COLUMNS.index("event")]
    checkout = _later(event == CODE["begin_checkout"], rows.session) | rows.positive
    steps = [_later(event == CODE[name], rows.session) for name in _STEPS]
    buyers = np.unique(rows.visitor[rows.positive])
    return np.column_stack([checkout, *steps, np.isin(rows.visitor, buyers)])


def _later(hit: NDArray[np.bool_], session: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say whether a hit follows later in the row's session."""
    ends = np.r_[np.flatnonzero(session[1:] != session[:-1]), len(session) - 1]
    seen = np.cumsum(hit)
    sizes = np.diff(np.r_[-1, ends])
    return np.asarray(np.repeat(seen[ends], sizes) > seen)
