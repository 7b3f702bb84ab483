import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recoup.causal.arms import ArmMean, Sums, compare_arms, optimal_slope
from recoup.errors import ConfigError, SchemaError


def _sums(given: dict[str, float]) -> Sums:
    return Sums(int(given["n"]), given["sum"], given["sum_squares"])


def _arm(given: dict[str, Any]) -> ArmMean:
    if "m_statistic" in given:
        top, bottom = _sums(given["m_statistic"]), _sums(given["d_statistic"])
        return ArmMean.ratio(top, bottom, given["m_d_sum_of_products"])
    if "post_statistic" in given:
        after, before = _sums(given["post_statistic"]), _sums(given["pre_statistic"])
        return ArmMean.adjusted(after, before, given["post_pre_sum_of_products"], given["theta"])
    if "sum_squares" in given:
        return ArmMean.from_sums(_sums(given))
    return ArmMean.proportion(int(given["n"]), given["sum"])


def test_comparisons_equal_the_reference(reference_dir: Path) -> None:
    cases = json.loads((reference_dir / "gbstats" / "expected.json").read_text())
    checked = 0
    for case in cases:
        want = case["result"]
        if "p_value" not in want:  # Bayesian tests, which are not offered
            continue
        checked += 1
        found = compare_arms(
            _arm(case["stat_a"]),
            _arm(case["stat_b"]),
            relative="difference_type='relative'" in case["config"],
            test="anytime" if case["test"].startswith("Sequential") else "t",
            tuned_at=1_000 if "parameter=1000" in case["config"] else 5_000,
        )
        assert found.value == pytest.approx(want["expected"], abs=1e-12), case["case"]
        assert found.se == pytest.approx(want["uplift"]["stddev"], rel=1e-12), case["case"]
        assert (found.low, found.high) == pytest.approx(want["ci"], abs=1e-11), case["case"]
        assert found.p_value == pytest.approx(want["p_value"], rel=1e-9), case["case"]
    assert checked == 9


def test_z_tests_equal_the_reference(reference_dir: Path) -> None:
    cases = json.loads((reference_dir / "spotify" / "expected.json").read_text())
    control = ArmMean.from_sums(Sums(22, 8, 12))
    pairs = {
        "ztest_control_vs_test": (control, ArmMean.from_sums(Sums(1010, 500, 2500))),
        "ztest_control_vs_test2": (control, ArmMean.from_sums(Sums(150, 100, 150))),
        "binary_100/1000_vs_140/1010": (
            ArmMean.proportion(1000, 100),
            ArmMean.proportion(1010, 140),
        ),
    }
    assert pairs.keys() == cases.keys()
    for name, (one, other) in pairs.items():
        found, want = compare_arms(one, other, test="z"), cases[name]
        got = (found.value, found.low, found.high, found.p_value)
        wanted = (want["difference"], want["ci_lower"], want["ci_upper"], want["p-value"])
        assert got == pytest.approx(wanted, abs=1e-12), name


def test_rows_and_sums_agree() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    by_rows = ArmMean.from_influence(
        values.mean(), values - values.mean(), None, plain=values.mean()
    )
    by_sums = ArmMean.from_sums(Sums(50, values.sum(), (values**2).sum()))
    assert by_rows.variance == pytest.approx(by_sums.variance)
    # One row a cluster is the same; two equal rows a cluster are worth one.
    clusters = np.repeat(np.arange(25), 2)
    twice = np.repeat(rng.normal(size=25), 2)
    paired = ArmMean.from_influence(twice.mean(), twice - twice.mean(), clusters, plain=0.0)
    assert paired.units == 25
    assert paired.mean_variance == pytest.approx(twice[::2].var(ddof=1) / 25)


def test_the_optimal_slope_leaves_the_least_variance() -> None:
    # Arms of 100 and 900: with slope s the variance is sum over arms of (v - 2 s c + s^2 w) / n.
    covariances = np.array([2.0 / 100 + 1.0 / 900])
    spreads = np.array([[1.0 / 100 + 1.0 / 900]])
    slope = optimal_slope(covariances, spreads)[0]

    def left(at: float) -> float:
        return (3 - 4 * at + at**2) / 100 + (3 - 2 * at + at**2) / 900

    assert left(slope) < min(left(slope - 0.01), left(slope + 0.01), left(0.0))


def test_misuse_is_refused() -> None:
    arm = ArmMean.proportion(10, 5)
    with pytest.raises(ConfigError, match="other than 0"):
        compare_arms(ArmMean.proportion(10, 0), arm, relative=True)
    with pytest.raises(ConfigError, match="anytime"):
        compare_arms(arm, arm, test="w")
    with pytest.raises(SchemaError, match="two units"):
        compare_arms(ArmMean.proportion(1, 1), arm)
    nothing = compare_arms(ArmMean.proportion(10, 0), ArmMean.proportion(10, 0))
    assert (nothing.value, nothing.se, nothing.p_value) == (0.0, 0.0, 1.0)
