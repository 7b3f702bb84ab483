"""What an event's circumstances say about intent: each value's rate of buying, learned at training.

A column's values (hashes, as ``encode`` gives them) are replaced by the log of their shrunken
purchase rate over sessions. Values too rare to learn from, and values never seen, get the log of
the overall rate.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from recoup.errors import ModelError

CONTEXT_COLUMNS: Final = (
    "event", "country", "region", "city", "channel", "traffic_source", "medium", "device",
    "browser", "os",
)  # fmt: skip
"""Columns that purchase intent encodes by itself, beside the features."""

PRIOR_SESSIONS: Final = 20.0
MIN_SESSIONS: Final = 3
MAX_VALUES: Final = 4_096


class Vocabulary(NamedTuple):
    """Learned values of the context columns: those of column j at ``first[j]:first[j + 1]``.

    ``keys`` ascend within a column; ``codes`` are what they are replaced by; ``absent`` is what
    any other value of a column is replaced by.
    """

    first: NDArray[np.int64]
    keys: NDArray[np.int64]
    codes: NDArray[np.float64]
    absent: NDArray[np.float64]


class Labelled(msgspec.Struct, frozen=True):
    """What a vocabulary is learned from: context (n, k), labels and sessions (n,)."""

    context: NDArray[np.int64]
    positive: NDArray[np.bool_]
    session: NDArray[np.int64]

    def where(self, keep: NDArray[np.bool_]) -> "Labelled":
        """Keep some of the rows."""
        return Labelled(self.context[keep], self.positive[keep], self.session[keep])


def learn_vocabulary(rows: Labelled) -> Vocabulary:
    """Learn each value's log rate of buying sessions, shrunken towards the overall one.

    A session counts once for each value that it shows, however many events show it.

    Raises
    ------
    ModelError
        If there is no row, or no session buys.
    """
    sessions, firsts = np.unique(rows.session, return_index=True)
    buys = int(rows.positive[firsts].sum()) if len(sessions) else 0
    if buys == 0:
        raise ModelError("Expected sessions that buy to learn from, got none")
    overall = buys / len(sessions)
    columns = [
        _learn_column(rows.context[:, j], rows, overall) for j in range(rows.context.shape[1])
    ]
    return Vocabulary(
        first=np.cumsum([0, *(len(keys) for keys, _ in columns)]).astype(np.int64),
        keys=np.concatenate([keys for keys, _ in columns]),
        codes=np.concatenate([codes for _, codes in columns]),
        absent=np.full(len(columns), np.log(overall)),
    )


def encode_context(context: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Replace values by what the vocabulary learned of them: shape (n, k) both."""
    out = np.empty(context.shape)
    _encode_rows(np.ascontiguousarray(context), vocabulary, out)
    return out


def encode_out_of_fold(rows: Labelled, fold: NDArray[np.int64]) -> NDArray[np.float64]:
    """Encode each row with what the rows of other folds teach, so that no label meets itself.

    Parameters
    ----------
    fold
        Fold of each row, shape (n,); rows of one session belong to one fold.
    """
    out = np.empty(rows.context.shape)
    for k in np.unique(fold):
        own = fold == k
        out[own] = encode_context(rows.context[own], learn_vocabulary(rows.where(~own)))
    return out


@njit(cache=True, nogil=True)
def encode_one(
    context: NDArray[np.int64], vocabulary: Vocabulary, out: NDArray[np.float64], start: int
) -> None:
    """Encode one row of shape (k,) into ``out[start:start + k]``."""
    keys = vocabulary.keys
    for j in range(vocabulary.absent.shape[0]):
        low, end = vocabulary.first[j], vocabulary.first[j + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if keys[middle] < context[j]:
                low = middle + 1
            else:
                high = middle
        found = low < end and keys[low] == context[j]
        out[start + j] = vocabulary.codes[low] if found else vocabulary.absent[j]


@njit(cache=True, nogil=True)
def _encode_rows(
    context: NDArray[np.int64], vocabulary: Vocabulary, out: NDArray[np.float64]
) -> None:
    for i in range(context.shape[0]):
        encode_one(context[i], vocabulary, out[i], 0)


def _learn_column(
    values: NDArray[np.int64], rows: Labelled, overall: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    order = np.lexsort((values, rows.session))
    session, value = rows.session[order], values[order]
    first = np.r_[True, (session[1:] != session[:-1]) | (value[1:] != value[:-1])]
    keys, member = np.unique(value[first], return_inverse=True)
    shown = np.bincount(member, minlength=len(keys))
    bought = np.bincount(member, weights=rows.positive[order][first], minlength=len(keys))
    rate = (bought + PRIOR_SESSIONS * overall) / (shown + PRIOR_SESSIONS)
    kept = shown >= MIN_SESSIONS
    if kept.sum() > MAX_VALUES:
        kept &= shown >= np.sort(shown)[-MAX_VALUES]
    return keys[kept], np.log(rate[kept])
