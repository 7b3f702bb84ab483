"""Training and judging repeat purchase on logs of orders, with a registry for the models."""

import datetime as dt
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recoup.events import EPOCH, EventBatch, hash_column
from recoup.friction.cycles import fit_cycles
from recoup.friction.orders import DAY, Orders, collect_orders, collect_purchases, orders_of
from recoup.friction.repeat import NAMES, RepeatModel
from recoup.friction.repeat_training import Held, RepeatSettings, evaluate_repeat, fit_repeat
from recoup.friction.watch import reference_of
from recoup.models.card import ModelCard, SliceMetrics, reliability_of, slices_of
from recoup.non_shoppers import Rules
from recoup.runners.backfill import Progress, admitted
from recoup.runners.lifecycle import NAMED, Loaded, Witness, keep_model, load_model
from recoup.sources import Source

REPEAT: Final = "repeat"
"""Under which the registry keeps repeat purchase."""

PURPOSE: Final = "P(a customer buys again within {days} days), and who is overdue."
LIMITS: Final = (
    "A log of a year or less knows no season: before a high season the level is too low.",
    "An order that was returned in full counts as a purchase.",
    "A prediction is no effect: who is unlikely to buy need not be whom a reminder helps.",
)


def train_repeat_on(
    source: Source,
    registry: Path,
    *,
    until: dt.datetime | None = None,
    history: Source | None = None,
    horizon_days: int | None = None,
    rules: Rules | None = None,
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
    rules
        By which bots, monitors, staff and test orders are recognised: they are no customers.
    progress
        Told the number of events read so far.

    Raises
    ------
    ModelError
        If there are too few orders.
    """
    witness, judged, places = Witness(source.name, _micros(until)), _Judged(), Places()
    settings = RepeatSettings(horizon_days=horizon_days)
    batches = places.watch(_batches(source, history, progress, witness))
    purchases = collect_purchases(batches, rules)
    orders = orders_of(purchases)
    end = day_of(until) if until is not None else _last(orders)
    cycles = fit_cycles(purchases, end)
    model, metrics = fit_repeat(orders, end, settings, judged=judged, cycles=cycles)
    card = ModelCard(
        name=REPEAT,
        hash=model.hash,
        purpose=PURPOSE.format(days=model.laws.horizon_days),
        inputs=f"days of orders by customer: {', '.join(NAMES)}",
        fingerprint=witness.fingerprint(),
        settings=msgspec.to_builtins(settings),
        metrics=metrics,
        reliability=reliability_of(judged.held.positive, judged.probability),
        slices=judged.slices(places),
        limits=LIMITS,
    )
    version = keep_model(registry, model.to_bytes(), card, reference_of(judged.held.inputs, NAMES))
    told = {**metrics, "worst_slice": card.worst, "model": version.hash}
    return {**told, "version": version.number}


class _Judged:
    """Keeps the customers that a model was judged on, and what it said of them."""

    def __call__(self, held: Held, probability: NDArray[np.float64]) -> None:
        self.held, self.probability = held, probability

    def slices(self, places: "Places") -> tuple[SliceMetrics, ...]:
        held = self.held
        told = {name: places.of(name, held.customer) for name in NAMED}
        told["customer_type"] = np.where(held.repeats > 0.0, "returning", "new").tolist()
        return slices_of(held.positive, self.probability, told)


class Places:
    """Remembers of each customer the device, channel and country of the first purchase.

    Examples
    --------
    >>> from recoup.testing import random_batch
    >>> drawn = random_batch(200, seed=1)
    >>> batch = EventBatch(drawn.events.with_columns(device=pl.lit("mobile")), drawn.items)
    >>> places = Places()
    >>> [len(each) for each in places.watch([batch])]
    [200]
    >>> buyers = hash_column(batch.events.filter(event="purchase")["visitor"])
    >>> places.of("device", buyers[:1]), places.of("country", buyers[:1])
    (['mobile'], [''])
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[int, str]] = {name: {} for name in NAMED}

    def watch(self, batches: Iterable[EventBatch]) -> Iterator[EventBatch]:
        """Let batches pass, in order of time."""
        for batch in batches:
            bought = batch.events.filter(pl.col("event") == "purchase")
            for name, known in self._known.items():
                told = bought.filter(pl.col(name).is_not_null())
                who = hash_column(told["visitor"]).tolist()
                for customer, value in zip(who, told[name].to_list(), strict=True):
                    known.setdefault(customer, value)
            yield batch

    def of(self, name: str, customers: NDArray[np.int64]) -> list[str]:
        """Give an attribute of customers, "" where unknown: n of them."""
        known = self._known[name]
        return [known.get(customer, "") for customer in customers.tolist()]


def evaluate_repeat_on(
    source: Source,
    registry: Path,
    *,
    start: dt.datetime | None = None,
    until: dt.datetime | None = None,
    history: Source | None = None,
    rules: Rules | None = None,
    progress: Progress | None = None,
    version: int | None = None,
) -> dict[str, object]:
    """Judge a registered model on a log; see :func:`train_repeat_on`.

    Parameters
    ----------
    start
        The origin: the start of its day (UTC). Where None, the day that training ended, or one
        horizon before the log ends if nothing lies behind that.
    until
        Where what is known ends.
    version
        Which version; the newest where none is named.

    Returns
    -------
    The measures, with ``origin`` and ``forward``: whether all that was predicted lies behind what
    the model was trained on.

    Raises
    ------
    ModelError
        If the registry holds no such model, or nobody can be judged.
    """
    model, _ = load_repeat(registry, version)
    witness = Witness(source.name)
    orders = collect_orders(_batches(source, history, progress, witness), rules)
    end = min(_last(orders), day_of(until)) if until is not None else _last(orders)
    at = day_of(start) if start is not None else _origin(model, end)
    return {
        **evaluate_repeat(model, orders, at, end),
        "origin": (EPOCH + dt.timedelta(days=at)).isoformat(),
        "forward": at >= model.trained_until,
        "model": model.hash,
    }


def load_repeat(
    registry: Path, version: int | None = None, *, serving: bool = False
) -> tuple[RepeatModel, Loaded]:
    """Give a model of repeat purchase, and its card.

    Parameters
    ----------
    version
        Which version; where none is named, the newest.
    serving
        Where no version is named, the promoted one before the newest.

    Raises
    ------
    ModelError
        If there is no registry, or it holds no such model.
    """
    loaded = load_model(registry, REPEAT, version, serving=serving)
    return RepeatModel.from_bytes(loaded.artefact), loaded


def _batches(
    source: Source, history: Source | None, progress: Progress | None, witness: Witness
) -> Iterator[EventBatch]:
    earlier: Iterator[EventBatch] = iter(()) if history is None else admitted(history)
    return witness.watch(chain(earlier, admitted(source, progress)))


def _origin(model: RepeatModel, end: int) -> int:
    return model.trained_until if model.trained_until < end else end - model.laws.horizon_days


def _last(orders: Orders) -> int:
    return int(orders.day.max()) + 1


def day_of(moment: dt.datetime) -> int:
    """Give a moment's day, counted from 1970-01-01 (UTC)."""
    return (moment - EPOCH) // dt.timedelta(days=1)


def _micros(moment: dt.datetime | None) -> int | None:
    """Give the start of a moment's day, int64 microseconds."""
    return None if moment is None else day_of(moment) * DAY
