"""Point-in-time training tables: the rows that were served, or those of the settled history."""

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
import polars as pl

from recoup.errors import ConfigError
from recoup.events import EventBatch, concat_batches, encode
from recoup.features.store import FeatureRows, FeatureStore

As = Literal["served", "settled"]


def backfill(store: FeatureStore, batches: Iterable[EventBatch], *, how: As) -> pl.DataFrame:
    """Compute one row for each event of a log.

    Parameters
    ----------
    store
        Says which features and bounds; its own state is neither read nor changed.
    batches
        The journal's events, in its order.
    how
        ``served``: as a store that folds the log in its order serves them, so that no event knows
        of one that arrived later. ``settled``: as if every event had arrived in time; where none
        was late, both are equal.

    Returns
    -------
    pl.DataFrame
        One row per event in the log's order: ``ts``, ``source``, ``id``, ``visitor``, ``event``,
        ``session`` and ``session_start`` (as the store gives them), ``status``, and each feature.

    Raises
    ------
    ConfigError
        If ``how`` is neither.

    Examples
    --------
    >>> from recoup.events import EventBatch, empty_frames
    >>> from recoup.features import standard_features
    >>> table = backfill(
    ...     FeatureStore(standard_features()), [EventBatch(*empty_frames())], how="served"
    ... )
    >>> table.height, table.width == 8 + len(standard_features().names)
    (0, True)
    """
    if how not in get_args(As):
        raise ConfigError(f"Expected `served` or `settled`, got {how!r}")
    batch = concat_batches(batches)
    columns = encode(batch, store.columns)
    if how == "served":
        return _table(store, batch, store.rows_of_log(columns))
    order = np.lexsort((columns["key"], columns["seq"], columns["ts"]))
    rows = store.rows_of_log({name: column[order] for name, column in columns.items()})
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    settled = FeatureRows(
        rows.values[back], rows.session[back], rows.session_start[back], rows.status[back]
    )
    return _table(store, batch, settled)


def _table(store: FeatureStore, batch: EventBatch, rows: FeatureRows) -> pl.DataFrame:
    features = pl.DataFrame(rows.values, schema=list(store.names), orient="row")
    return pl.concat(
        [
            batch.events.select("ts", "source", "id", "visitor", "event"),
            pl.DataFrame({"session": rows.session}),
            pl.DataFrame({"session_start": rows.session_start}),
            pl.DataFrame({"status": rows.status}),
            features,
        ],
        how="horizontal",
    )
