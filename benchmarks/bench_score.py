"""`score_single`: one row through 300 trees of 31 leaves, ours against LightGBM's own ways."""

import ctypes
import statistics
import time
from collections.abc import Callable
from typing import Final

import lightgbm as lgb
import numpy as np
from lightgbm.libpath import _LIB
from numpy.typing import NDArray

from benchmarks.harness import RUNS, report
from recoup.models import TreeEnsemble

FEATURES: Final = 40
TREES: Final = 300
ROWS: Final = 2_000
_FLOAT64, _NORMAL = 1, 0


def main() -> None:
    """Assert equal outputs, then time single rows in turn."""
    booster, rows = _train()
    ours = TreeEnsemble.from_lightgbm(booster).predict_one
    fast = _fast_predictor(booster)
    expected = np.asarray(booster.predict(rows, num_threads=1))
    for peer in (ours, fast):
        found = [peer(row) for row in rows]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    _compare(ours, fast, rows, "LightGBM fast C API")
    _compare(ours, lambda row: booster.predict(row[None], num_threads=1), rows, "LightGBM predict")


def _train() -> tuple[lgb.Booster, list[NDArray[np.float64]]]:
    rng = np.random.default_rng(7)
    table = rng.normal(size=(20_000, FEATURES))
    table[rng.random(table.shape) < 0.1] = np.nan
    known = np.nan_to_num(table)
    target = known[:, 0] + known[:, 1] * known[:, 2] + rng.normal(size=len(table)) > 1.0
    settings = {"objective": "binary", "num_leaves": 31, "num_threads": 1, "verbose": -1}
    booster = lgb.train(settings, lgb.Dataset(table, target), TREES)
    return booster, [np.ascontiguousarray(row) for row in table[:ROWS]]


def _fast_predictor(booster: lgb.Booster) -> Callable[[NDArray[np.float64]], float]:
    """Make a call of LightGBM's C API that was set up once for single rows."""
    config = ctypes.c_void_p()
    status = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle,  # noqa: SLF001
        ctypes.c_int(_NORMAL),
        ctypes.c_int(0),
        ctypes.c_int(TREES),
        ctypes.c_int(_FLOAT64),
        ctypes.c_int32(FEATURES),
        ctypes.c_char_p(b"num_threads=1"),
        ctypes.byref(config),
    )
    assert status == 0
    length, result = ctypes.c_int64(), np.empty(1)
    call = _LIB.LGBM_BoosterPredictForMatSingleRowFast
    out = ctypes.c_void_p(result.ctypes.data)

    def predict(row: NDArray[np.float64]) -> float:
        call(config, ctypes.c_void_p(row.ctypes.data), ctypes.byref(length), out)
        return float(result[0])

    return predict


def _compare(
    ours: Callable[[NDArray[np.float64]], object],
    peer: Callable[[NDArray[np.float64]], object],
    rows: list[NDArray[np.float64]],
    peer_name: str,
) -> None:
    pairs = [(_micros(ours, rows), _micros(peer, rows)) for _ in range(RUNS)]
    report(
        "score_single",
        ours=statistics.median(a for a, _ in pairs),
        peer=statistics.median(b for _, b in pairs),
        peer_name=peer_name,
        ratio=statistics.median(b / a for a, b in pairs),
        unit="us/row",
    )


def _micros(
    score: Callable[[NDArray[np.float64]], object], rows: list[NDArray[np.float64]]
) -> float:
    start = time.process_time()
    for row in rows:
        score(row)
    return (time.process_time() - start) / len(rows) * 1e6


if __name__ == "__main__":
    main()
