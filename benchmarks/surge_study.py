"""A surge is no hesitation: where the report says that shoppers wait too long, in a shop with one.

Run it by hand: ``python -m benchmarks.surge_study [VISITORS] [DAYS] [SEEDS]``. Prints a line of
JSON for each shop: the simulated `quiet`, and `surge` (three times the visits from one channel, of
low intent, for a tenth of the time). The model is trained on another seed's shoppers of `quiet`.
"""

import json
import sys
from typing import Any, Final

from recoup.engine import Engine, Settings
from recoup.features import FeatureStore, standard_features
from recoup.friction.hesitation import HesitationModel
from recoup.friction.hesitation_training import HesitationSettings, train_hesitation
from recoup.report import Hesitation
from recoup.runners.hesitation_watch import HesitationWatch
from recoup.simulator import SCENARIOS, simulate

VISITORS: Final = 20_000
DAYS: Final = 2.0
SEEDS: Final = 1


def train(
    visitors: int, days: float, seed: int, settings: HesitationSettings | None = None
) -> HesitationModel:
    """Train on a shop in which nothing is wrong."""
    features = standard_features()
    batches = simulate(visitors, days, seed, SCENARIOS["quiet"]).batches
    trained = train_hesitation(batches, FeatureStore(features), features.hash, settings=settings)
    trained.model.bind(features.names)
    return trained.model


def watched(
    model: HesitationModel, scenario: str, visitors: int, days: float, seed: int
) -> Hesitation:
    """Fold a shop through the engine, and give what the report would tell of its waits."""
    engine = Engine(Settings(executes=False), hesitation=model)
    watch = HesitationWatch(engine)
    for batch in simulate(visitors, days, seed, SCENARIOS[scenario]).batches:
        watch.step(engine.step(batch))
    return watch.result()


def named(told: Hesitation) -> list[str]:
    """Give the places, kinds of page, devices and states that have a verdict."""
    every = (told.by_page_type, told.by_device, told.by_page, told.by_state)
    return [f"{each.value}: {each.verdict}" for group in every for each in group if each.verdict]


def summed(told: Hesitation) -> dict[str, Any]:
    """Give the share of waits that were too long, and what the model expected of these shoppers."""
    total = told.total
    assert total is not None
    return {
        "waits": total.rows,
        "left": total.left,
        "long": total.long,
        "expected": total.expected_long,
        "named": named(told),
        "channels": [each.value for each in told.by_channel if each.verdict == "longer"],
    }


def main(visitors: int, days: float, seeds: int) -> None:
    """Compare the two shops for each seed."""
    for seed in range(1, seeds + 1):
        model = train(visitors, days, 1_000 + seed)
        for scenario in ("quiet", "surge"):
            told = summed(watched(model, scenario, visitors, days, 2_000 + seed))
            print(json.dumps({"seed": seed, "scenario": scenario, **told}), flush=True)


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[1:]]
    chosen = given + [VISITORS, DAYS, SEEDS][len(given) :]
    main(int(chosen[0]), chosen[1], int(chosen[2]))
