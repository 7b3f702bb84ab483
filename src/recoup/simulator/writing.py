"""A simulation on disk: events in the native form, decisions with all outcomes, the truth."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from recoup.events import EVENT_SCHEMA, ITEM_SCHEMA, EventBatch
from recoup.simulator.decision_frames import decision_frame, logged_acts, outcome_frame
from recoup.simulator.oracle import oracles
from recoup.simulator.potential import Potential
from recoup.simulator.scenario import Scenario
from recoup.simulator.shop import Shop, Simulation
from recoup.simulator.truth import Truth

ITEMS: Final = "items"
_FIELDS: Final = tuple(name for name in ITEM_SCHEMA if name != "event")
_LISTS: Final = pl.List(pl.Struct({name: ITEM_SCHEMA[name] for name in _FIELDS}))
_ROWS: Final = 1 << 16
DRAWS: Final = 16
"""Futures behind an expected outcome where nothing else is asked for."""


def write_simulation(
    out: Path, *, visitors: int, days: float, seed: int, scenario: Scenario, draws: int = DRAWS
) -> Truth:
    """Write a shop's events, decisions and truth into a directory, and give the truth.

    Parameters
    ----------
    out
        Gets ``events.parquet``, one row per event with its item lines in a column ``items``;
        ``decisions.parquet`` and ``potential_outcomes.parquet``, see
        :mod:`recoup.simulator.decision_frames`; and ``truth.json``.
    visitors, days, seed, scenario
        See :class:`recoup.simulator.Shop`.
    draws
        Futures behind each expected outcome; 0: there are none.

    Raises
    ------
    ConfigError
        If a number is out of its range, or the scenario states something impossible.
    """
    shop = Shop(visitors, days, seed, scenario)
    potential = shop.potential(draws)
    out.mkdir(parents=True, exist_ok=True)
    _write_frame(decision_frame(potential), out / "decisions.parquet")
    _write_frame(outcome_frame(potential), out / "potential_outcomes.parquet")
    simulation = Simulation(shop, logged_acts(potential) if scenario.logging.executes else None)
    _write_events(simulation.batches, out / "events.parquet")
    truth = {
        "visitors": visitors,
        "days": days,
        "seed": seed,
        **simulation.truth,
        "decisions": {
            "journeys": len(potential.visitor),
            "draws": draws,
            "logging": msgspec.json.decode(msgspec.json.encode(scenario.logging)),
            "value_a_journey": _value(potential),
        },
    }
    (out / "truth.json").write_bytes(msgspec.json.format(msgspec.json.encode(truth)) + b"\n")
    return truth


def _value(potential: Potential) -> dict[str, float | None] | None:
    """Give what oracles earn a journey; None where no journey was entered in time."""
    if not len(potential.visitor):
        return None
    told: dict[str, float | None] = msgspec.to_builtins(oracles(potential))
    return told


def _write_frame(frame: pl.DataFrame, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    frame.write_parquet(part, compression="zstd", row_group_size=_ROWS)
    part.replace(target)


def _write_events(batches: Iterable[EventBatch], target: Path) -> None:
    """Write by way of one part per batch, so that the whole is never in memory."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        parts = []
        for number, batch in enumerate(batches):
            part = Path(folder) / f"{number:08d}.arrow"
            _nested(batch).write_ipc(part)
            parts.append(part)
        whole = Path(folder) / target.name
        rows = pl.scan_ipc(parts).select(*EVENT_SCHEMA.names(), ITEMS)
        rows.sink_parquet(whole, compression="zstd", row_group_size=_ROWS, maintain_order=True)
        whole.replace(target)


def _nested(batch: EventBatch) -> pl.DataFrame:
    lines = batch.items.select("event", pl.struct(_FIELDS).alias(ITEMS))
    lists = lines.group_by("event", maintain_order=True).agg(ITEMS)
    rows = batch.events.with_row_index("row_")
    joined = rows.join(lists, left_on="row_", right_on="event", how="left", maintain_order="left")
    return joined.drop("row_").with_columns(pl.col(ITEMS).cast(_LISTS))
