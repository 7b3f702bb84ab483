import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import adaptive_coverage
from benchmarks.adaptive_coverage import thompson
from scipy import stats
from scipy.special import ndtr

from recoup.causal.adaptive import (
    AdaptiveLog,
    _row_weights,
    adaptive_values,
    aipw_scores,
    anytime_value,
)
from recoup.causal.sequences import (
    bernoulli_interval,
    beta_binomial_bound,
    betting_sequence,
    conjugate_bernstein_sequence,
    empirical_bernstein_sequence,
    gamma_exponential_bound,
    hoeffding_sequence,
    normal_log_mixture,
    normal_mixture_bound,
    poly_stitching_bound,
)
from recoup.errors import ConfigError, SchemaError


@pytest.fixture(scope="module")
def expected(reference_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((reference_dir / "confseq" / "expected.json").read_text())
    return found


@pytest.fixture(scope="module")
def draws(reference_dir: Path) -> np.ndarray:
    found: np.ndarray = np.loadtxt(reference_dir / "confseq" / "x_bernoulli012.csv", skiprows=1)
    return found


def test_boundaries_equal_the_reference(expected: dict[str, Any]) -> None:
    checked = 0
    for case in expected["boundaries"]:
        given = case["args"]
        match case["fn"]:
            case "normal_mixture_bound":
                ours = normal_mixture_bound(*given[:3], sides=1 if len(given) == 3 else 2)
            case "gamma_exponential_mixture_bound":
                ours = gamma_exponential_bound(*given)
            case "poly_stitching_bound":
                ours = poly_stitching_bound(*given)
            case "beta_binomial_mixture_bound":
                ours = beta_binomial_bound(*given[:5])
            case "normal_log_mixture":
                ours = normal_log_mixture(*given[:3])
            case other:
                pytest.fail(f"no counterpart of {other}")
        checked += 1
        assert ours == pytest.approx(case["value"], rel=1e-10), (case["fn"], given)
    assert checked == 31


def test_sequences_equal_the_reference(expected: dict[str, Any], draws: np.ndarray) -> None:
    named = {
        "predmix_empbern_twosided_cs": empirical_bernstein_sequence(draws),
        "predmix_hoeffding_cs": hoeffding_sequence(draws),
        # The package halves alpha twice.
        "conjmix_empbern_twosided_cs(v_opt=12.5)": conjugate_bernstein_sequence(
            draws, optimal=12.5, alpha=0.025
        ),
        "betting_cs_first500(breaks=1000)": betting_sequence(draws[:500]),
    }
    for name, (low, high) in named.items():
        for point in expected[name]:
            found = (low[point["t"] - 1], high[point["t"] - 1])
            assert found == pytest.approx((point["lo"], point["hi"]), abs=1e-10), name
    bernoulli = expected["bernoulli_confidence_interval"]
    assert bernoulli_interval(227, 2000) == pytest.approx(bernoulli["value"], abs=1e-9)


def test_bernoulli_ends_meet_the_edges() -> None:
    assert bernoulli_interval(0, 50)[0] == 0.0
    assert bernoulli_interval(50, 50)[1] == 1.0
    low, high = bernoulli_interval(50, 50)
    assert (1 - high, 1 - low) == pytest.approx(bernoulli_interval(0, 50), abs=1e-6)


@pytest.mark.parametrize("sequence", [hoeffding_sequence, empirical_bernstein_sequence])
def test_sequences_hold_at_every_look(
    sequence: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    # A fixed-time 95 % interval looked at 1,000 times would miss in about half of the runs.
    rng = np.random.default_rng(20_240_613)
    missed = 0
    for _ in range(400):
        low, high = sequence((rng.random(1_000) < 0.2).astype(float))
        missed += bool(((low > 0.2) | (high < 0.2)).any())
    assert missed <= stats.binom.ppf(0.999, 400, 0.05)
    assert not ((low <= 0) & (high >= 1)).all()


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="in \\[0, 1\\]"):
        hoeffding_sequence(np.array([0.5, 1.5]))


@pytest.mark.slow
@pytest.mark.parametrize("difference", [0.0, 0.2])
def test_coverage_under_thompson_sampling(difference: float, reference_dir: Path) -> None:
    text = (reference_dir / "adaptive" / "expected.json").read_text()
    want = json.loads(text)["results"][f"true_diff_{difference}"]
    reps = 3_000
    found = adaptive_coverage.run(difference, reps)
    published = {
        "contrast, stabilised": "aw_aipw_contrast_w=1/sqrt(1/e+1/(1-e))",
        "batched, stabilised": "bols",
        "naive": "naive_diff_in_means",
    }
    for line in adaptive_coverage.judge(found, difference):
        name = line["estimate"]
        if name in published:
            reference = want[published[name]]
            error = found[name][:, 0].std(ddof=1) / np.sqrt(reps)
            # Another run of the same simulation: both carry Monte-Carlo error.
            assert abs(line["bias"] - reference["bias"]) < 3 * np.sqrt(2) * error
            root = np.sqrt(2 * 0.95 * 0.05 / reps)
            assert abs(line["coverage"] - reference["coverage95"]) < 3 * root
        else:
            assert abs(line["bias_in_errors"]) <= 3, line
        if name != "naive":
            assert line["covers"], line
            assert "stabilised" not in name or abs(line["studentised_in_errors"]) <= 3, line
        elif difference:
            assert line["bias_in_errors"] > 3, line
            assert line["studentised_in_errors"] > 3, line
    if difference == 0:
        naive = found["naive"][:, 2]
        assert stats.binomtest(int(naive.sum()), reps).proportion_ci(0.99).high < 0.95


def steered_by_arms(seed: int) -> AdaptiveLog:
    """Three arms of mean 0, 0 and 1, an epsilon-greedy policy, batches of different sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation([20, 40, 60, 80, 100])
    best, rows = int(rng.integers(3)), []
    for batch, size in enumerate(sizes):
        chance = np.where(np.arange(3) == best, 0.8, 0.1)
        arm = rng.choice(3, size, p=chance)
        reward = (arm == 2) + rng.standard_normal(size)
        rows.append((arm, reward, np.tile(chance, (size, 1)), np.full(size, batch)))
        sums = np.bincount(arm, reward, minlength=3)
        best = int(np.argmax(sums / np.maximum(np.bincount(arm, minlength=3), 1)))
    arms, rewards, chances, batches = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return AdaptiveLog(arm=arms, reward=rewards, propensity=chances, batch=batches)


def test_allotted_values_have_no_bias_with_several_arms() -> None:
    found = [adaptive_values(steered_by_arms(seed)) for seed in range(1_500)]
    truth = {"arms": [0.0, 0.0, 1.0], "contrast": [0.0, 1.0], "batched": [0.0, 1.0]}
    for name, values in truth.items():
        for place, true in enumerate(values):
            off = np.array([getattr(each, name)[place].value for each in found]) - true
            assert abs(off.mean()) < 3.5 * off.std() / np.sqrt(len(off)), (name, place)


def test_what_a_batch_is_allotted_does_not_depend_on_later_ones() -> None:
    log = thompson(0.2, 1)
    chance = log.propensity.copy()
    chance[log.batch >= 10] = 0.5
    other = AdaptiveLog(arm=log.arm, reward=log.reward, propensity=chance, batch=log.batch)
    precision = log.propensity.prod(axis=1), chance.prod(axis=1)
    one, two = (
        _row_weights(each, own, 2, "allotted")
        for each, own in zip((log, other), precision, strict=True)
    )
    before = log.batch < 10
    assert one[before] == pytest.approx(two[before], rel=1e-12)
    assert not np.allclose(one[~before], two[~before])
    assert (one.sum(), two.sum()) == pytest.approx((1.0, 1.0))


def test_a_batch_without_an_arm_leaves_its_weight_to_the_later_ones() -> None:
    arm = np.repeat([0, 1, 0, 0, 0, 1, 0, 1], 2)
    reward = np.repeat([0.0, 1.0, 9.0, 9.0, 0.0, 2.0, 0.0, 3.0], 2)
    log = AdaptiveLog(
        arm=arm, reward=reward, propensity=np.full((16, 2), 0.5), batch=np.arange(16) // 4
    )
    # Precision 1 each; the even split's is 1/4 a decision, later ones count a sixth of it.
    first = 1 / (1 + 12 / 24)
    third = (1 - first) / (1 + 4 / 24)
    weights = np.array([first, third, 1 - first - third])
    found = adaptive_values(log).batched[0].value
    assert found == pytest.approx(weights @ [1.0, 2.0, 3.0])


def test_scores_use_the_past_alone() -> None:
    log = thompson(0.2, 1)
    later = log.reward.copy()
    later[log.batch >= 10] += 100.0
    changed = AdaptiveLog(arm=log.arm, reward=later, propensity=log.propensity, batch=log.batch)
    before = log.batch < 10
    assert (aipw_scores(log)[before] == aipw_scores(changed)[before]).all()
    first = log.batch == 0
    taken = (log.arm == 1) / log.propensity[:, 1] * log.reward
    assert aipw_scores(log)[first, 1] == pytest.approx(taken[first])


def test_naive_difference_carries_its_warning() -> None:
    assert "biased" in adaptive_values(thompson(0.0, 2)).warning


def test_anytime_bounds_hold_under_a_learning_policy() -> None:
    missed = 0
    for seed in range(100):
        log = thompson(0.2, seed)
        binary = AdaptiveLog(
            arm=log.arm,
            reward=(log.reward > 0).astype(float),
            propensity=log.propensity,
            batch=log.batch,
        )
        low, high = anytime_value(binary, 1, low=0.0, high=1.0)
        truth = float(ndtr(0.2))
        missed += bool(((low > truth) | (high < truth)).any())
    assert missed <= stats.binom.ppf(0.999, 100, 0.05)
    assert high[-1] - low[-1] < 0.6


def test_logs_that_break_the_contract_are_refused() -> None:
    ones, half = np.ones(2), np.full((2, 2), 0.5)
    arm = np.array([0, 1])
    with pytest.raises(SchemaError, match="positive propensity"):
        AdaptiveLog(arm=arm, reward=ones, propensity=half * [0, 2], batch=arm)
    with pytest.raises(SchemaError, match="in order"):
        AdaptiveLog(arm=arm, reward=ones, propensity=half, batch=arm[::-1])
    with pytest.raises(SchemaError, match="one length"):
        AdaptiveLog(arm=arm, reward=np.ones(3), propensity=half, batch=arm)
    log = AdaptiveLog(arm=arm, reward=ones * 2, propensity=half, batch=arm)
    with pytest.raises(ConfigError, match="rewards in"):
        anytime_value(log, 1, low=0, high=1)
    assert np.isnan(adaptive_values(log).batched[0].value)
