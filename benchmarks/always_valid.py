"""Experiments stopped early: the 99 arms of ASOS, and A/A splits of the Hillstrom controls.

Run it by hand: ``python -m benchmarks.always_valid DATA``. A line of JSON for each study.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recoup.causal.arms import ArmMean, Sums, compare_arms

SPLITS = 2_000
LOOKS = 20


def asos(folder: Path) -> dict[str, Any]:
    """Say when a confidence sequence would have stopped each arm and metric, against its end."""
    table = pl.read_parquet(folder / "asos" / "*.parquet").drop_nulls()
    table = table.filter((pl.col("variance_c") > 0) & (pl.col("variance_t") > 0))
    keys = ["experiment_id", "variant_id", "metric_id"]
    stops: dict[str, list[float]] = {}
    counts = dict.fromkeys(("series", "fixed", "anytime", "both", "anytime_only"), 0)
    for _, series in table.sort("time_since_start").group_by(keys, maintain_order=True):
        arms = [_arms(row) for row in series.iter_rows(named=True)]
        final = compare_arms(*arms[-1], test="t").p_value <= 0.05
        looks = [compare_arms(*pair, test="anytime").p_value <= 0.05 for pair in arms]
        stopped = any(looks)
        counts["series"] += 1
        counts["fixed"] += final
        counts["anytime"] += stopped
        counts["both"] += stopped and final
        counts["anytime_only"] += stopped and not final
        if stopped:
            units = [pair[0].units + pair[1].units for pair in arms]
            first = looks.index(True)
            days = series["time_since_start"].to_numpy()
            stops.setdefault("units", []).append(units[first] / units[-1])
            stops.setdefault("time", []).append(float(days[first] / days[-1]))
    return {
        "study": "asos",
        **counts,
        "arms": table.n_unique(keys[:2]),
        "share_of_units_at_stop": _quartiles(stops["units"]),
        "share_of_time_at_stop": _quartiles(stops["time"]),
    }


def _arms(row: dict[str, float]) -> tuple[ArmMean, ArmMean]:
    control = ArmMean(row["count_c"], row["mean_c"], row["variance_c"], row["mean_c"])
    return control, ArmMean(row["count_t"], row["mean_t"], row["variance_t"], row["mean_t"])


def _quartiles(values: list[float]) -> list[float]:
    return [round(float(each), 3) for each in np.quantile(values, [0.25, 0.5, 0.75])]


def hillstrom(folder: Path, metric: str, splits: int = SPLITS) -> dict[str, Any]:
    """Split those who got no e-mail at random, look 20 times, and count splits that "found" any."""
    table = pl.read_parquet(folder / "hillstrom" / "*.parquet")
    values = table.filter(pl.col("segment") == "No E-Mail")[metric].to_numpy().astype(float)
    rng = np.random.default_rng(0)
    ends = np.linspace(0, len(values), LOOKS + 1).astype(int)[1:]
    wrong = {"fixed, read once": 0, "fixed, read at every look": 0, "anytime": 0}
    for _ in range(splits):
        order = rng.permutation(values)
        treated = rng.random(len(values)) < 0.5
        looks = [_sums(order[:end], treated[:end]) for end in ends]
        peeks = [compare_arms(*pair, test="t").p_value <= 0.05 for pair in looks]
        sequence = [compare_arms(*pair, test="anytime").p_value <= 0.05 for pair in looks]
        wrong["fixed, read once"] += peeks[-1]
        wrong["fixed, read at every look"] += any(peeks)
        wrong["anytime"] += any(sequence)
    error = {name: round(count / splits, 4) for name, count in wrong.items()}
    return {"study": "hillstrom A/A", "metric": metric, "splits": splits, "error": error}


def _sums(values: np.ndarray, treated: np.ndarray) -> tuple[ArmMean, ArmMean]:
    sides = (values[~treated], values[treated])
    one, other = (
        ArmMean.from_sums(Sums(len(side), float(side.sum()), float(side @ side))) for side in sides
    )
    return one, other


if __name__ == "__main__":
    data = Path(sys.argv[1])
    for study in (asos(data), *(hillstrom(data, m) for m in ("visit", "conversion", "spend"))):
        print(json.dumps(study))
