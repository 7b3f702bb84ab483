import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from recoup.causal import uplift
from recoup.causal.uplift import Experiment, Learner, judge_targeting, learn_uplift
from recoup.causal.uplift_curves import curve, mean_uplift, uplift_area, uplift_at
from recoup.cli import evaluate_causal
from recoup.errors import ConfigError, SchemaError

FEATURES = ["recency", "history", "mens", "womens", "newbie", "zip_code", "channel"]


def test_curves_equal_the_reference(reference_dir: Path) -> None:
    folder = reference_dir / "uplift"
    want: dict[str, Any] = json.loads((folder / "expected.json").read_text())["scikit-uplift 0.5.1"]
    table = pl.read_csv(folder / "data.csv")
    y, t = table["y"].to_numpy().astype(float), table["t"].to_numpy()
    score = table["score"].to_numpy()
    assert uplift_area(y, t, score, "qini") == pytest.approx(want["qini_auc_score"], abs=1e-12)
    assert uplift_area(y, t, score, "uplift") == pytest.approx(want["uplift_auc_score"], abs=1e-12)
    for share in (0.1, 0.2, 0.3, 0.5):
        together, apart = want[f"uplift_at_{share}_overall"], want[f"uplift_at_{share}_by_group"]
        assert uplift_at(y, t, score, share) == pytest.approx(together, abs=1e-12)
        assert uplift_at(y, t, score, share, by_group=True) == pytest.approx(apart, abs=1e-12)
    weighted = want["weighted_average_uplift_overall_10"]
    assert mean_uplift(y, t, score) == pytest.approx(weighted, abs=1e-12)
    for kind in ("qini", "uplift"):
        found, points = curve(y, t, score, kind), want[f"{kind}_curve"]
        assert len(found.rows) == points["n_points"]
        assert found.gain[points["x"]] == pytest.approx(np.array(points["y"]), abs=1e-9)


def test_ties_in_the_score_are_one_point() -> None:
    y, t = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 0, 0, 1])
    assert curve(y, t, np.array([1.0, 1.0, 0.0, 0.0])).rows.tolist() == [0, 2, 4]
    assert curve(y, t, np.zeros(4)).area_above_line == 0.0


def test_unequal_propensities_are_weighed_out() -> None:
    data, effect = draw(100_000, 5)
    given = (data.outcome, data.treated, effect + np.linspace(0, 0.1, len(effect)))
    fair, plain = uplift_at(*given, 0.4, propensity=data.propensity), uplift_at(*given, 0.4)
    assert abs(fair - 1) < 0.08  # 5 standard errors
    assert plain < 0.5  # the arms differ in more than the act
    gain = curve(*given, propensity=data.propensity).gain[-1] / data.treated.sum()
    assert abs(gain - 0.5) < 0.08
    alike = np.full(len(effect), 0.3)
    assert uplift_at(*given, 0.4, propensity=alike) == plain


def test_the_best_order_scores_one_and_its_reverse_below_zero() -> None:
    rng = np.random.default_rng(1)
    y, t = (rng.random(2_000) < 0.3).astype(float), rng.integers(0, 2, 2_000)
    best = y * t - y * (1 - t)
    assert uplift_area(y, t, best) == pytest.approx(1.0)
    assert uplift_area(y, t, -best) < 0


def draw(rows: int, seed: int) -> tuple[Experiment, np.ndarray]:
    """Draw a trial with unequal propensities; effects are 1 where x0 > 0, else 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    chance = np.where(x[:, 1] > 0, 0.3, 0.6)
    treated = (rng.random(rows) < chance).astype(np.int64)
    effect = (x[:, 0] > 0).astype(float)
    outcome = 2 * x[:, 1] + treated * effect + rng.normal(size=rows)
    made = Experiment(features=x, treated=treated, outcome=outcome, propensity=chance)
    return made, effect


@pytest.mark.parametrize("learner", ["t", "dr", "r"])
def test_learners_rank_by_the_true_effect(learner: Learner) -> None:
    data, effect = draw(8_000, 3)
    found = learn_uplift(data, learner=learner)
    assert np.corrcoef(found.effect, effect)[0, 1] > 0.75
    assert found.groups[0].low > 0.7
    assert found.groups[-1].high < 0.3
    assert sum(group.rows for group in found.groups) == 8_000
    assert found.average.low < effect.mean() < found.average.high


def test_calibration_is_one_for_the_truth_and_zero_for_noise() -> None:
    data, effect = draw(20_000, 4)
    score = learn_uplift(data).score
    right = uplift._slope(effect, score, 0.99)  # noqa: SLF001 - on effects that no learner gave
    wrong = uplift._slope(np.random.default_rng(0).normal(size=20_000), score, 0.99)  # noqa: SLF001
    assert right.low < 1 < right.high
    assert right.low > 0.8
    assert wrong.low < 0 < wrong.high


@pytest.mark.slow
def test_intervals_cover_average_and_targeting() -> None:
    reps, covered = 200, np.zeros(3)
    for seed in range(reps):
        data, effect = draw(2_000, seed)
        found = learn_uplift(data)
        covered[0] += found.average.low <= 0.5 <= found.average.high
        truth, group = effect[found.group == 0].mean(), found.groups[0]
        covered[1] += group.low <= truth <= group.high
        other = judge_targeting(data, cost=-1.0)  # everyone is acted on; each act gains 1.5
        covered[2] += other.over_none.low <= 1.5 <= other.over_none.high
    for count in covered.tolist():
        interval = stats.binomtest(int(count), reps).proportion_ci(1 - 0.01 / 3)
        assert interval.low <= 0.95 <= interval.high, covered / reps


def hillstrom(data_dir: Path, email: str) -> pl.DataFrame:
    table = pl.read_parquet(data_dir / "hillstrom" / "*.parquet")
    kept = table.filter(pl.col("segment").is_in([email, "No E-Mail"]))
    return kept.with_columns(treated=(pl.col("segment") == email).cast(pl.Int64))


def test_hillstrom_says_whom_to_write_to(data_dir: Path) -> None:
    # The women's e-mail helps buyers of women's wear; at a cost of 5 visits in 100 e-mails, writing
    # to half of them beats writing to all and to none. The men's e-mail helps all alike.
    found = {}
    for email in ("Womens E-Mail", "Mens E-Mail"):
        table = hillstrom(data_dir, email)
        data = evaluate_causal.read_experiment(table, "treated", "visit", FEATURES, None)
        found[email] = (learn_uplift(data), judge_targeting(data, cost=0.05))
    women, targeted = found["Womens E-Mail"]
    assert women.groups[0].low > women.groups[-1].high
    assert women.calibration.low > 0.3
    assert targeted.over_none.low > 0
    assert targeted.over_all.low > 0
    men, everyone = found["Mens E-Mail"]
    assert men.average.low > women.average.high
    assert everyone.share > 0.8
    assert everyone.over_all.low < 0 < everyone.over_all.high


def test_misuse_is_refused() -> None:
    y, t, score = np.array([1.0, 0.0]), np.array([1, 0]), np.array([0.0, 1.0])
    with pytest.raises(SchemaError, match="0 and 1"):
        curve(y, np.array([1, 1]), score)
    with pytest.raises(SchemaError, match="one length"):
        curve(y, t, score[:1])
    with pytest.raises(SchemaError, match="both arms"):
        uplift_at(y, t, score, 0.5)
    with pytest.raises(SchemaError, match="normalised area"):
        uplift_area(y * 2, t, score)
    data, _ = draw(100, 0)
    with pytest.raises(ConfigError, match="two folds"):
        learn_uplift(data, folds=1)
    with pytest.raises(SchemaError, match="propensities"):
        Experiment(features=np.zeros((2, 1)), treated=t, outcome=y, propensity=np.ones(2))
    with pytest.raises(SchemaError, match="one length"):
        Experiment(features=np.zeros((1, 1)), treated=t, outcome=y, propensity=np.ones(2))


def test_rows_of_one_visitor_count_once() -> None:
    once, _ = draw(2_000, 3)
    copies = np.repeat(np.arange(2_000), 4)
    shared: dict[str, Any] = {
        "features": once.features[copies],
        "treated": once.treated[copies],
        "outcome": once.outcome[copies],
        "propensity": once.propensity[copies],
    }
    alone, told = learn_uplift(once), learn_uplift(Experiment(**shared, cluster=copies))
    assert told.average.se == pytest.approx(alone.average.se, rel=0.05)
    assert told.groups[0].se == pytest.approx(alone.groups[0].se, rel=0.2)
    assert told.calibration.se == pytest.approx(alone.calibration.se, rel=0.3)
    assert learn_uplift(Experiment(**shared)).average.se < 0.6 * alone.average.se  # as if strangers
    judged = judge_targeting(Experiment(**shared, cluster=copies), cost=0.5)
    assert judged.over_none.se == pytest.approx(
        judge_targeting(once, cost=0.5).over_none.se, rel=0.2
    )


def test_too_few_rows_are_refused() -> None:
    data, _ = draw(40, 1)
    with pytest.raises(SchemaError, match="rows in every fold"):
        learn_uplift(data, folds=20)
    in_turn = msgspec.structs.replace(data, treated=np.arange(40) % 2)
    with pytest.raises(SchemaError, match="both arms in every part"):
        learn_uplift(in_turn)
    with pytest.raises(ConfigError, match="finite cost"):
        judge_targeting(data, cost=float("nan"))


def test_command_prints_one_object(tmp_path: Path) -> None:
    data, _ = draw(3_000, 7)
    table = pl.DataFrame(data.features, schema=["a", "b", "c"]).with_columns(
        t=data.treated, y=data.outcome, p=data.propensity, word=pl.lit("x")
    )
    table.write_parquet(tmp_path / "trial.parquet")
    app = typer.Typer()
    app.callback()(lambda: None)
    evaluate_causal.register(app)
    options = "--treatment t --outcome y --feature a --feature b --feature word --propensity p"
    arguments = ["uplift", str(tmp_path / "trial.parquet"), *options.split(), "--cost", "0.5"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["average"]["low"] < 0.5 < found["average"]["high"]
    assert len(found["groups"]) == 5
    assert found["qini"] is None
    assert found["qini_area"] > 0
    assert found["uplift_at"].keys() == {"0.1", "0.2", "0.3", "0.5"}
    assert 0.7 < found["uplift_at"]["0.5"] < 1.3
    assert 0.3 < found["targeting"]["share"] < 0.7
    assert "calibration" in CliRunner().invoke(app, arguments).stdout
    visitors = table.with_columns(visitor=pl.int_range(pl.len()) // 3)
    visitors.write_parquet(tmp_path / "trial.parquet")
    result = CliRunner().invoke(app, [*arguments, "--cluster", "visitor", "--json"])
    assert json.loads(result.stdout)["clusters"] == 1_000
    result = CliRunner().invoke(app, [*arguments, "--feature", "y"])
    assert isinstance(result.exception, ConfigError)
    table.with_columns(t=pl.col("t") / 2).write_parquet(tmp_path / "trial.parquet")
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SchemaError)
