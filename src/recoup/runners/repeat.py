"""Training and judging repeat purchase on logs of orders, with a registry for the models."""

import datetime as dt
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from recoup.events import EventBatch
from recoup.friction.orders import Orders, collect_orders
from recoup.friction.repeat import RepeatModel
from recoup.friction.repeat_training import RepeatSettings, evaluate_repeat, fit_repeat
from recoup.runners.backfill import Progress, admitted
from recoup.sources import Source
from recoup.stores import Registry

REPEAT: Final = "repeat"
"""Under which the registry keeps repeat purchase."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def train_repeat_on(
    source: Source,
    registry: Path,
    *,
    until: dt.datetime | None = None,
    history: Source | None = None,
    horizon_days: int | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Train on the orders of a log, register the model, and give its measures on later times.

    Parameters
    ----------
    source, history
        The log, and an earlier one of the same customers.
    registry
        Directory of the model registry; made if it is absent.
    until
        Orders of this moment's day (UTC) and later are not read; the end of the log where None.
    horizon_days
        Chosen by the length of the log where None.
    progress
        Told the number of events read so far.

    Raises
    ------
    ModelError
        If there are too few orders.
    """
    orders = _orders(source, history, progress)
    end = _day(until) if until is not None else _last(orders)
    model, metrics = fit_repeat(orders, end, RepeatSettings(horizon_days=horizon_days))
    with Registry(registry) as models:
        version = models.save(REPEAT, model.to_bytes(), {"source": source.name, "metrics": metrics})
    return {**metrics, "model": version.hash, "version": version.number}


def evaluate_repeat_on(
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Judge the newest registered model on a log; see :func:`train_repeat_on`.

    Parameters
    ----------
    start
        The origin: the start of its day (UTC). Where None, the day that training ended, or one
        horizon before the log ends if nothing lies behind that.
    until
        Where what is known ends.

    Returns
    -------
    The measures, with ``origin`` and ``forward``: whether all that was predicted lies behind what
    the model was trained on.

    Raises
    ------
    ModelError
        If the registry holds no such model, or nobody can be judged.
    """
    with Registry(registry, read_only=True) as models:
        artefact, _ = models.load(REPEAT)
    model = RepeatModel.from_bytes(artefact)
    orders = _orders(source, history, progress)
    end = min(_last(orders), _day(until)) if until is not None else _last(orders)
    at = _day(start) if start is not None else _origin(model, end)
    return {
        **evaluate_repeat(model, orders, at, end),
        "origin": (_EPOCH + dt.timedelta(days=at)).isoformat(),
        "forward": at >= model.trained_until,
        "model": model.hash,
    }


def _orders(source: Source, history: Source | None, progress: Progress | None) -> Orders:
    earlier: Iterator[EventBatch] = iter(()) if history is None else admitted(history)
    return collect_orders(chain(earlier, admitted(source, progress)))


def _origin(model: RepeatModel, end: int) -> int:
    return model.trained_until if model.trained_until < end else end - model.laws.horizon_days


def _last(orders: Orders) -> int:
    return int(orders.day.max()) + 1


def _day(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // dt.timedelta(days=1)
