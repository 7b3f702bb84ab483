"""`explain_single`: why intent is low at one moment, against LightGBM's SHAP values of the row.

Ours is the whole answer: feature row to intent, shares on two scales, single repairs and losses, as
objects in words. The peer is ``pred_contrib=True`` of a joint model of as many trees, which gives a
number a column. Measured with four signals in the journey, and with all of them, the worst case.
"""

import statistics
import time
from collections.abc import Callable
from typing import Final

import lightgbm as lgb
import numpy as np

from benchmarks.harness import RUNS, report
from recoup.events import concat_batches
from recoup.features import FeatureStore, standard_features
from recoup.friction.explained import EXPLAINED
from recoup.friction.intent_rows import IntentRows, Period, collect_rows
from recoup.friction.reasons import Explainer
from recoup.friction.training import IntentSettings, fit_intent
from recoup.simulator import SCENARIOS, simulate

SETTINGS: Final = IntentSettings(rounds=(80,), origins=(0.5,), min_rows_in_leaf=100)
ROWS: Final = 200
TYPICAL: Final = 0b1100000000000011
FLOOR_US: Final = 1_000.0
"""An explanation takes at most this."""


def main() -> None:
    """Assert that shares add up, then time single explanations and the peer's in turn."""
    batch = concat_batches(list(simulate(6_000, 1.0, 7, SCENARIOS["decoys"]).batches))
    rows = collect_rows([batch], FeatureStore(standard_features()), Period())
    model = fit_intent(rows, "bench", SETTINGS)[0]
    explainer, booster, table = Explainer(model), *_peer(rows, model.learned.trees.n_trees)
    for name, before in (("explain_single", TYPICAL), ("explain_worst", (1 << len(EXPLAINED)) - 1)):

        def ours(k: int, before: int = before) -> None:
            told = explainer.explain_one(rows.values[k], rows.context[k], 1, before)
            whole = told.intent - told.unspoilt
            assert abs(sum(each.share for each in told.reasons) - whole) < 1e-9

        def theirs(k: int) -> None:
            booster.predict(table[k : k + 1], pred_contrib=True, num_threads=1)

        _compare(name, ours, theirs)


def _peer(rows: IntentRows, trees: int) -> tuple[lgb.Booster, np.ndarray]:
    bits = [(each[:, None] >> np.arange(len(EXPLAINED))) & 1 for each in (rows.now, rows.before)]
    table = np.column_stack([rows.values, rows.context, *bits]).astype(np.float64)
    settings = {"objective": "binary", "num_leaves": 15, "num_threads": 1, "verbose": -1}
    return lgb.train(settings, lgb.Dataset(table, rows.positive), trees), table


def _compare(name: str, ours: Callable[[int], None], theirs: Callable[[int], None]) -> None:
    pairs = [(_micros(ours), _micros(theirs)) for _ in range(RUNS)]
    mine = statistics.median(a for a, _ in pairs)
    report(
        name,
        ours=mine,
        peer=statistics.median(b for _, b in pairs),
        peer_name="LightGBM pred_contrib",
        ratio=statistics.median(b / a for a, b in pairs),
        unit="us/moment",
        floor=FLOOR_US,
        reached=mine <= FLOOR_US,
    )


def _micros(explain: Callable[[int], None]) -> float:
    start = time.process_time()
    for k in range(ROWS):
        explain(k)
    return (time.process_time() - start) / ROWS * 1e6


if __name__ == "__main__":
    main()
