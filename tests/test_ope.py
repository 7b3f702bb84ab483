import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

from recoup.causal import off_policy, shrinkage
from recoup.causal.estimate import IntervalKind
from recoup.causal.logged_decisions import LoggedDecisions
from recoup.causal.off_policy import OffPolicy, evaluate_off_policy
from recoup.causal.shrinkage import Shrinkage
from recoup.cli import evaluate_causal
from recoup.errors import ConfigError, SchemaError, SourceError

CASES = (
    "obd_all_random_to_bts",
    "obd_all_bts_to_random",
    "obd_men_random_to_bts",
    "obd_men_bts_to_random",
    "obd_women_random_to_bts",
    "obd_women_bts_to_random",
    "digits_multiclass",
    "synthetic_lr",
    "synthetic_random",
)
NAMES = {
    "dm": "dm",
    "ipw": "ips",
    "snipw": "snips",
    "dr": "dr",
    "sndr": "sndr",
    "ipw_clip10": "clipped_ips",
    "dr_clip10": "clipped_dr",
    "sg-ipw_lam0.05": "sg_ips",
    "sg-dr_lam0.05": "sg_dr",
    "switch-dr_tau1": "switch_dr",
    "dr-os_lam1": "dr_os",
}
NAMES_WIDE = {"switch-dr_tau5": "switch_dr", "dr-os_lam100": "dr_os"}
# The CSV rounded weights that were 1 exactly; the boundary of the switch moves with them.
TIED = ("obd_men_bts_to_random", "obd_women_bts_to_random", "obd_all_bts_to_random")


def expected(reference_dir: Path, case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((reference_dir / "obp" / "expected.json").read_text())[case]
    return found


def table(reference_dir: Path, case: str) -> pl.DataFrame:
    return pl.read_csv(reference_dir / "obp" / f"{case}_log.csv")


def run(log: pl.DataFrame, *, interval: IntervalKind = "analytic", **options: float) -> OffPolicy:
    limits: dict[str, Any] = {"clip": 10.0, "switch": 1.0, "optimistic": 1.0, "sub_gaussian": 0.05}
    return evaluate_off_policy(
        log,
        reward="reward",
        propensity="pscore",
        target="pi_e",
        model="q_hat_logged",
        model_value="v_hat_eval",
        interval=interval,
        **(limits | options),
    )


@pytest.mark.parametrize("case", CASES)
def test_estimates_equal_the_reference(reference_dir: Path, case: str) -> None:
    want, log = expected(reference_dir, case), table(reference_dir, case)
    tau = 1 - 1e-9 if case in TIED[:2] else 1.0
    found, wide = run(log, switch=tau), run(log, switch=5.0, optimistic=100.0)
    for name, ours in NAMES.items():
        assert found.estimates[ours].value == pytest.approx(want["estimates"][name], abs=1e-9), name
    for name, ours in NAMES_WIDE.items():
        assert wide.estimates[ours].value == pytest.approx(want["estimates"][name], abs=1e-9), name
    assert found.effective_sample_size == pytest.approx(want["ess"], rel=1e-9)
    assert found.largest_weight == pytest.approx(want["max_w"], rel=1e-9)
    assert found.mean_weight == pytest.approx(want["mean_w"], rel=1e-9)
    assert found.estimates["ips"].se == pytest.approx(want["se_iid"]["ipw"], rel=1e-9)
    assert found.estimates["dr"].se == pytest.approx(want["se_iid"]["dr"], rel=1e-9)


@pytest.mark.parametrize("case", ["obd_all_random_to_bts", "digits_multiclass"])
def test_bootstrap_intervals_equal_the_reference(reference_dir: Path, case: str) -> None:
    want = expected(reference_dir, case)["bootstrap_95"]
    found = run(table(reference_dir, case), interval="bootstrap")
    for name, ours in NAMES.items():
        ends = (want[name]["95.0% CI (lower)"], want[name]["95.0% CI (upper)"])
        assert (found.estimates[ours].low, found.estimates[ours].high) == pytest.approx(
            ends, abs=1e-9
        ), name


@pytest.mark.parametrize("case", TIED)
def test_bootstrap_intervals_with_ties_come_near(reference_dir: Path, case: str) -> None:
    want = expected(reference_dir, case)["bootstrap_95"]["switch-dr_tau1"]
    found = run(table(reference_dir, case), interval="bootstrap", switch=1 - 1e-9)
    interval = found.estimates["switch_dr"]
    assert interval.low == pytest.approx(want["95.0% CI (lower)"], rel=0.02)
    assert interval.high == pytest.approx(want["95.0% CI (upper)"], rel=0.02)


@pytest.mark.parametrize("case", CASES)
def test_only_the_log_that_cannot_answer_is_refused(reference_dir: Path, case: str) -> None:
    found = run(table(reference_dir, case))
    assert (found.refused is not None) == (case == "obd_women_bts_to_random")


def draw(seed: int, rows: int) -> LoggedDecisions:
    rng = np.random.default_rng(seed)
    propensity, target = rng.uniform(0.1, 1, rows), rng.uniform(0, 1, rows)
    quality = rng.normal(1e6, 1, rows)
    return LoggedDecisions(
        reward=quality + rng.normal(0, 3, rows),
        propensity=propensity,
        target=target,
        quality=quality,
        value=quality + rng.normal(0, 0.1, rows),
        cluster=np.arange(rows),
    )


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 400))
def test_one_pass_equals_the_formulas_row_by_row(seed: int, rows: int) -> None:
    # Every row its own cluster: the clustered interval is then the analytic one, by another way.
    log = draw(seed, rows)
    limits = Shrinkage(clip=2.0, switch=1.5, optimistic=3.0, sub_gaussian=0.2)
    fast = off_policy.off_policy(log, shrinkage=limits).estimates
    slow = off_policy.off_policy(log, shrinkage=limits, interval="cluster").estimates
    assert fast.keys() == slow.keys()
    for name, one in fast.items():
        assert one.value == pytest.approx(slow[name].value, rel=1e-10), name
        assert one.se == pytest.approx(slow[name].se, rel=1e-5, abs=1e-5), name


def test_copied_rows_in_one_cluster_add_nothing() -> None:
    log = draw(3, 200)
    limits = Shrinkage()
    twice = LoggedDecisions(
        reward=np.repeat(log.reward, 2),
        propensity=np.repeat(log.propensity, 2),
        target=np.repeat(log.target, 2),
        cluster=np.repeat(np.arange(200), 2),
    )
    once = off_policy.off_policy(log, shrinkage=limits).estimates["ips"]
    found = off_policy.off_policy(twice, shrinkage=limits, interval="cluster").estimates["ips"]
    assert found.se == pytest.approx(once.se, rel=1e-9)
    naive = off_policy.off_policy(twice, shrinkage=limits).estimates["ips"]
    assert naive.se < 0.72 * once.se


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    # Two actions, one context: the target's value is 0.7 * 0.5 + 0.3 * 0.2.
    rng = np.random.default_rng(20_240_612)
    truth, repetitions, rows = 0.41, 2_000, 1_000
    names = ("ips", "snips", "dr", "sndr")
    covered = dict.fromkeys(names, 0)
    for _ in range(repetitions):
        action = rng.random(rows) < 0.25
        log = LoggedDecisions(
            reward=(rng.random(rows) < np.where(action, 0.5, 0.2)).astype(float),
            propensity=np.where(action, 0.25, 0.75),
            target=np.where(action, 0.7, 0.3),
            quality=np.where(action, 0.45, 0.25),
            value=np.full(rows, 0.39),
        )
        found = off_policy.off_policy(log, shrinkage=Shrinkage()).estimates
        for name in names:
            covered[name] += found[name].low <= truth <= found[name].high
    for name, count in covered.items():
        # Four estimators, 99 % together: 0.0025 on either side of each, 3.02 standard errors.
        assert abs(count / repetitions - 0.95) < 3.02 * math.sqrt(0.95 * 0.05 / repetitions), name


def test_unsupported_mass_is_what_the_log_never_does() -> None:
    # The target plays a third action, which was never logged, half of the time.
    log = pl.DataFrame({"a": [0, 1] * 500, "r": [0.0, 1.0] * 500})
    log = log.with_columns(pl.lit(0.5).alias("p"), pl.lit(0.25).alias("pi"))
    found = evaluate_off_policy(log, reward="r", propensity="p", target="pi", action="a")
    assert found.unsupported_mass.value == pytest.approx(0.5)
    assert found.by_action[0] == {
        "action": 0,
        "rows": 500,
        "target_share": 0.25,
        "largest_weight": 0.5,
    }
    assert found.overlap == {-1: 1000}
    assert found.refused == "at least 50% of what is asked about was never logged"
    assert "dr" not in found.estimates


def test_tuning_holds_back_a_wild_weight_only() -> None:
    rng = np.random.default_rng(5)
    propensity = np.full(2_000, 0.5)
    propensity[:3] = 1e-4
    log = LoggedDecisions(
        reward=rng.normal(1, 1, 2_000), propensity=propensity, target=np.full(2_000, 0.5)
    )
    assert shrinkage.tune(log).clip < 5_000
    tame = LoggedDecisions(
        reward=log.reward, propensity=np.full(2_000, 0.5), target=rng.uniform(0, 1, 2_000)
    )
    found = off_policy.off_policy(tame)
    assert found.tuned == ["clip", "switch", "optimistic", "sub_gaussian"]
    gap = abs(found.estimates["clipped_ips"].value - found.estimates["ips"].value)
    assert gap < found.estimates["ips"].se


def test_estimates_without_the_model_have_limits_of_their_own() -> None:
    # A good model leaves nothing to cut off; the rewards it explains are all of the value.
    rng = np.random.default_rng(8)
    acted = rng.random(4_000) < 0.3
    level = rng.normal(3, 1, 4_000) + acted
    log = pl.DataFrame(
        {
            "y": level + rng.normal(0, 1, 4_000),
            "p": np.where(acted, 0.3, 0.7),
            "pi": np.where(acted, 0.6, 0.4),
            "q": level,
            "v": level - acted + 0.6,
        }
    )
    names: dict[str, Any] = {"reward": "y", "propensity": "p", "target": "pi"}
    alone = evaluate_off_policy(log, **names).estimates
    both = evaluate_off_policy(log, **names, model="q", model_value="v")
    for name in ("clipped_ips", "sg_ips"):
        assert both.estimates[name].value == pytest.approx(alone[name].value, rel=1e-9)
    assert both.estimates["clipped_ips"].value == pytest.approx(3.6, abs=0.2)
    assert (both.parameters.clip_ips or 0.0) > both.parameters.clip
    stated = evaluate_off_policy(log, **names, model="q", model_value="v", clip=1.0)
    assert stated.parameters.clip_ips is None


def test_few_clusters_widen_intervals_and_one_large_cluster_is_refused() -> None:
    rng = np.random.default_rng(9)
    log = pl.DataFrame({"y": rng.normal(size=600), "p": 0.5, "pi": 0.5})
    log = log.with_columns(ten=pl.int_range(600) % 10, three=pl.int_range(600) % 3)
    names: dict[str, Any] = {
        "reward": "y",
        "propensity": "p",
        "target": "pi",
        "interval": "cluster",
    }
    found = evaluate_off_policy(log, **names, cluster="ten")
    each = found.estimates["ips"]
    assert found.refused is None
    assert (each.high - each.value) / each.se > stats.t.ppf(0.975, 9) - 1e-9
    refused = evaluate_off_policy(log, **names, cluster="three").refused
    assert refused == "one cluster carries 33% of all weight, above 20%"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": 0.0}, r"p\[1\]"),
        ({"p": 1.5}, r"p\[1\]"),
        ({"pi": -0.1}, r"pi\[1\]"),
        ({"r": float("nan")}, r"r\[1\]"),
        ({"r": "one"}, "Expected numbers"),
    ],
)
def test_bad_rows_are_told_with_their_place(change: dict[str, Any], message: str) -> None:
    good: dict[str, list[Any]] = {"r": [1.0, 0.0], "p": [0.5, 0.5], "pi": [0.5, 0.5]}
    for name, value in change.items():
        good[name] = [value if isinstance(value, str) else 0.5, value]
    with pytest.raises(SchemaError, match=message):
        evaluate_off_policy(pl.DataFrame(good), reward="r", propensity="p", target="pi")


def test_misuse_is_refused() -> None:
    log = pl.DataFrame({"r": [1.0], "p": [0.5], "pi": [0.5], "q": [1.0]})
    with pytest.raises(SchemaError, match="Expected columns"):
        evaluate_off_policy(log, reward="r", propensity="p", target="absent")
    with pytest.raises(SchemaError, match="at least one row"):
        evaluate_off_policy(log.head(0), reward="r", propensity="p", target="pi")
    with pytest.raises(ConfigError, match="got one"):
        evaluate_off_policy(log, reward="r", propensity="p", target="pi", model="q")
    with pytest.raises(ConfigError, match="cluster column"):
        evaluate_off_policy(log, reward="r", propensity="p", target="pi", interval="cluster")
    with pytest.raises(ConfigError, match="confidence level"):
        evaluate_off_policy(log, reward="r", propensity="p", target="pi", level=1.0)
    with pytest.raises(ConfigError, match="positive limits"):
        Shrinkage(clip=0.0)
    with pytest.raises(ConfigError, match="sub_gaussian"):
        Shrinkage(sub_gaussian=2.0)


def command() -> typer.Typer:
    app = typer.Typer()
    app.callback()(lambda: None)
    evaluate_causal.register(app)
    return app


def test_command_prints_the_fixed_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    log = pl.DataFrame({"a": rng.integers(0, 2, 300), "r": rng.random(300)})
    log = log.with_columns(p=pl.lit(0.5), pi=pl.lit(0.5), q=pl.lit(0.5), v=pl.lit(0.5))
    log.write_csv(tmp_path / "log.csv")
    options = "--action a --reward r --propensity p --target pi --model q --model-value v"
    arguments = ["ope", str(tmp_path / "log.csv"), *options.split()]
    result = CliRunner().invoke(command(), [*arguments, "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    keys = {"ips", "snips", "dm", "dr", "sndr", "switch_dr", "dr_os", "sg_dr", "clipped_ips"}
    assert keys <= found["estimates"].keys()
    assert found["estimates"]["ips"].keys() == {"value", "low", "high", "se"}
    assert found["estimates"]["ips"]["value"] == pytest.approx(log["r"].mean())
    assert found["effective_sample_size"] == pytest.approx(300)
    assert (found["largest_weight"], found["mean_weight"], found["refused"]) == (1, 1, None)
    for_people = CliRunner().invoke(command(), arguments)
    assert "clipped_ips" in for_people.stdout


@pytest.mark.parametrize("name", ["absent.csv", "log.txt", "broken.parquet"])
def test_command_tells_what_it_cannot_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    options = "--reward r --propensity p --target pi"
    result = CliRunner().invoke(command(), ["ope", str(tmp_path / name), *options.split()])
    assert result.exit_code == 1
    assert isinstance(result.exception, SourceError)
