"""Reasons against the truth of simulated shops: the top reason, and what each defect cost.

Run it by hand: ``python -m benchmarks.reasons_study [SEEDS] [VISITORS]``. Prints a line of JSON for
each seed, and one over all. A seed draws which five of fourteen kinds of symptom do harm, and how
much; the other nine show as often and do none. The model is trained on another seed's shoppers.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from scipy.stats import spearmanr

from recoup.events import EventBatch, encode
from recoup.features import FeatureStore, standard_features
from recoup.friction.explained import EXPLAINED_INDEX, JourneyDetector
from recoup.friction.intent import IntentModel
from recoup.friction.reasons import REASON_SCHEMA, Explainer
from recoup.friction.signals import SIGNAL_INDEX
from recoup.friction.training import IntentSettings, train_intent
from recoup.simulator import SCENARIOS, DefectSpec, Scenario, simulate

DAYS: Final = 2.0
VISITORS: Final = 25_000
HARMFUL: Final = 5


def decoys(seed: int) -> Scenario:
    """Draw which symptoms of the scenario ``decoys`` do harm, and how much."""
    rng = np.random.default_rng(seed)
    known = SCENARIOS["decoys"]
    order = rng.permutation(len(known.defects))
    drawn = [_harmless(defect) for defect in known.defects]
    for rank, row in enumerate(order[:HARMFUL].tolist()):
        drawn[row] = msgspec.structs.replace(drawn[row], effect=0.1, lasting=0.6 + 0.35 * rank)
    return msgspec.structs.replace(known, defects=tuple(drawn))


def _harmless(defect: DefectSpec) -> DefectSpec:
    return msgspec.structs.replace(defect, effect=0.0, lasting=0.0)


def train(scenario: Scenario, seed: int, visitors: int, settings: IntentSettings) -> IntentModel:
    """Train on a shop left alone."""
    features = standard_features()
    batches = simulate(visitors, DAYS, seed, scenario).batches
    return train_intent(batches, FeatureStore(features), features.hash, settings=settings)[0]


def explained(model: IntentModel, batches: Iterator[EventBatch]) -> pl.DataFrame:
    """Give the reasons at every event that shows a signal, as a replay does."""
    store, detector, explainer = (
        FeatureStore(standard_features()),
        JourneyDetector(),
        Explainer(model),
    )
    frames = [pl.DataFrame(schema=REASON_SCHEMA)]
    for batch in batches:
        rows = store.step(encode(batch, store.columns))
        frames.append(explainer.reasons(batch, rows, detector.step(batch, rows.session)))
    return pl.concat(frames)


def top_reasons(reasons: pl.DataFrame, scenario: Scenario) -> dict[str, dict[str, float]]:
    """Judge who is blamed, in journeys with one harmful symptom and at least two harmless ones.

    Judged at the event that completes the set, and at the last event that shows a symptom. Signals
    of behaviour are further ones that may be blamed; what is never a symptom completes no set.
    """
    harm = [each.type for each in scenario.defects if each.effect or each.lasting]
    none = [each.type for each in scenario.defects if each.type not in harm]
    depth = pl.col("signal").replace_strict(EXPLAINED_INDEX, return_dtype=pl.Int64)
    signal, symptom = pl.col("signal"), pl.col("signal").is_in(list(SIGNAL_INDEX))
    met = pl.col("shown") & symptom
    shown = signal.filter(met).sort_by(depth.filter(met))
    moments = (
        reasons.group_by("session", "ts", "id")
        .agg(
            harmful=signal.filter(signal.is_in(harm)).first(),
            harms=signal.is_in(harm).sum(),
            decoys=signal.is_in(none).sum(),
            signals=symptom.sum(),
            shows=met.any(),
            reason=signal.sort_by("share", depth).first(),
            least=pl.col("share").min(),
            last=shown.last(),
            severe=signal.filter(symptom).sort_by(depth.filter(symptom)).last(),
        )
        .filter("shows")
        .filter(pl.col("harms") == 1, pl.col("decoys") >= 2, pl.col("signals") < 9)
        .filter(pl.col("signals") == pl.col("harms") + pl.col("decoys"))
        .sort("ts", "id")
    )
    picked = {
        "complete": moments.unique("session", keep="first", maintain_order=True),
        "latest": moments.unique("session", keep="last", maintain_order=True),
    }
    return {name: _hits(each) for name, each in picked.items()}


def _hits(moments: pl.DataFrame) -> dict[str, float]:
    found = (pl.col("harmful") == pl.col("reason")) & (pl.col("least") < 0)
    kinds = moments.group_by("harmful").agg(found.mean().alias("found"))
    told = moments.select(
        journeys=pl.len(),
        top_reason=found.mean(),
        mean_over_kinds=pl.lit(kinds["found"].mean()),
        last_signal=(pl.col("harmful") == pl.col("last")).mean(),
        fixed_severity=(pl.col("harmful") == pl.col("severe")).mean(),
        by_chance=(1 / pl.col("signals")).mean(),
    )
    return {name: float(value) for name, value in told.row(0, named=True).items()}


def losses(reasons: pl.DataFrame, truth: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set what the model says each defect took beside the truth."""
    told = []
    for defect in truth:
        own = reasons.filter(
            pl.col("shown"),
            pl.col("signal") == defect["type"],
            pl.col("ts") >= pl.lit(defect["from"]).str.to_datetime(time_zone="UTC"),
            *(
                # Some symptoms do not say what they are about: then all showings are the defect's.
                pl.col(name).is_null() | (pl.col(name) == value)
                for name, value in defect["entity"].items()
            ),
        )
        if defect["to"] is not None:
            own = own.filter(pl.col("ts") < pl.lit(defect["to"]).str.to_datetime(time_zone="UTC"))
        lost = float(own["lost"].sum())
        told.append({"id": defect["id"], "model": round(lost, 1), "true": defect["lost_orders"]})
    return told


def rank_agreement(told: list[dict[str, Any]]) -> float:
    """Give Spearman's correlation of model-based and true losses over defects."""
    found = spearmanr([each["model"] for each in told], [each["true"] for each in told])
    return float(found.statistic)


def study(scenario: Scenario, seed: int, visitors: int, settings: IntentSettings) -> dict[str, Any]:
    """Train on one seed's shoppers, explain another's, and hold it against the truth."""
    model = train(scenario, 1_000 + seed, visitors, settings)
    shop = simulate(visitors, DAYS, 2_000 + seed, scenario)
    reasons = explained(model, shop.batches)
    told = losses(reasons, shop.truth["defects"])
    judged = {} if scenario.name == "many" else top_reasons(reasons, scenario)
    return {**judged, "spearman": rank_agreement(told), "losses": told}


def main(seeds: int, visitors: int) -> None:
    """Run the study, and the ranking of defects that strike at once in the scenario ``many``."""
    runs = []
    for seed in range(1, seeds + 1):
        runs.append(study(decoys(seed), seed, visitors, IntentSettings()))
        print(json.dumps({"seed": seed, **runs[-1]}), flush=True)
        many = study(SCENARIOS["many"], 100 + seed, visitors, IntentSettings())
        print(json.dumps({"seed": seed, "scenario": "many", **many}), flush=True)
        runs[-1]["many"] = many
    for moment in ("complete", "latest"):
        means = {
            name: float(np.mean([run[moment][name] for run in runs])) for name in runs[0][moment]
        }
        print(json.dumps({"moment": moment, **means}))
    print(json.dumps({"spearman": [run["spearman"] for run in runs],
                      "spearman_many": [run["many"]["spearman"] for run in runs]}))  # fmt: skip


if __name__ == "__main__":
    sizes = [int(each) for each in sys.argv[1:]]
    main(*(sizes + [3, VISITORS][len(sizes) :]))
