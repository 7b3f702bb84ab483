import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models import TreeEnsemble
from recoup.models.nodes import parse_model

CATEGORICAL = (2, 3)


def make_rows(seed: int, rows: int) -> NDArray[np.float64]:
    """Make rows with missing values, zeros, ties and categories up to 70."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(rows, 5)).round(1)
    table[:, 2] = rng.integers(-1, 70, rows)
    table[:, 3] = rng.integers(0, 4, rows)
    table[rng.random(table.shape) < 0.15] = np.nan
    table[rng.random(table.shape) < 0.15] = 0.0
    return table


def strange_rows(width: int) -> NDArray[np.float64]:
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36, 1e12, -0.5, 2.9, 1e300, 69.0, -3.0]
    return np.array([[value] * width for value in values])


def train(seed: int, rows: int = 300, rounds: int = 8, **more: object) -> lgb.Booster:
    table = make_rows(seed, rows)
    told = np.nan_to_num(table)
    target = told[:, 0] + told[:, 1] * told[:, 4] + (told[:, 2] % 3 == 0) > 0.5
    chosen: dict[str, object] = {
        "objective": "binary",
        "verbose": -1,
        "min_data_in_leaf": 3,
        "num_threads": 1,
        "min_data_per_group": 5,
        "seed": seed,
        **more,
    }
    label = table[:, 4] if chosen["objective"] == "regression" else target
    data = lgb.Dataset(table, np.nan_to_num(label), categorical_feature=list(CATEGORICAL))
    return lgb.train(chosen, data, rounds)


def predicted(
    booster: lgb.Booster, rows: NDArray[np.float64], *, raw: bool = False
) -> NDArray[np.float64]:
    return np.asarray(booster.predict(rows, raw_score=raw, num_threads=1), np.float64)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    leaves=st.sampled_from([2, 7, 31, 62, 63, 120]),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
    objective=st.sampled_from(["binary", "regression", "cross_entropy"]),
)
def test_scores_equal_lightgbm_bit_for_bit(
    *, seed: int, leaves: int, zero_as_missing: bool, use_missing: bool, objective: str
) -> None:
    booster = train(
        seed,
        num_leaves=leaves,
        zero_as_missing=zero_as_missing,
        use_missing=use_missing,
        objective=objective,
    )
    ensemble = TreeEnsemble.from_lightgbm(booster)
    rows = np.concatenate([make_rows(seed + 1, 60), strange_rows(5)])
    raw = predicted(booster, rows, raw=True)
    np.testing.assert_array_equal(ensemble.predict_raw(rows), raw)
    expected = predicted(booster, rows)
    np.testing.assert_allclose(ensemble.predict(rows), expected, rtol=0, atol=1e-12)
    ones = np.array([ensemble.predict_one(row) for row in np.ascontiguousarray(rows)])
    np.testing.assert_allclose(ones, expected, rtol=0, atol=1e-12)


def test_narrow_and_wide_trees_are_scored_by_different_kernels() -> None:
    assert TreeEnsemble.from_lightgbm(train(1, num_leaves=62)).tables is not None
    assert TreeEnsemble.from_lightgbm(train(1, rows=2_000, num_leaves=120)).tables is None


def test_a_random_forest_averages_its_trees() -> None:
    booster = train(3, boosting="rf", bagging_freq=1, bagging_fraction=0.6)
    rows = make_rows(4, 50)
    ours = TreeEnsemble.from_lightgbm(booster).predict(rows)
    np.testing.assert_allclose(ours, predicted(booster, rows), rtol=0, atol=1e-12)


def test_a_tree_that_is_one_leaf() -> None:
    table = np.arange(50.0)[:, None]
    data = lgb.Dataset(table, (table[:, 0] > 48).astype(float))
    booster = lgb.train(
        {"objective": "binary", "verbose": -1, "min_data_in_leaf": 40, "num_threads": 1}, data, 1
    )
    ensemble = TreeEnsemble.from_lightgbm(booster)
    np.testing.assert_allclose(ensemble.predict(table), predicted(booster, table), atol=1e-12)


def test_bytes_hold_the_ensemble() -> None:
    ensemble = TreeEnsemble.from_lightgbm(train(5))
    again = TreeEnsemble.from_bytes(ensemble.to_bytes())
    rows = make_rows(6, 40)
    assert again.hash == ensemble.hash
    assert again.to_bytes() == ensemble.to_bytes()
    np.testing.assert_array_equal(again.predict(rows), ensemble.predict(rows))
    assert TreeEnsemble.from_lightgbm(train(7)).hash != ensemble.hash


@settings(max_examples=10)
@given(seed=st.integers(0, 1_000), leaves=st.sampled_from([5, 31, 100]))
def test_the_mean_of_ensembles_is_the_mean_of_their_raw_scores(seed: int, leaves: int) -> None:
    members = [TreeEnsemble.from_lightgbm(train(seed + k, num_leaves=leaves)) for k in range(3)]
    rows = np.concatenate([make_rows(seed, 40), strange_rows(5)])
    expected = np.mean([member.predict_raw(rows) for member in members], axis=0)
    joined = TreeEnsemble.mean_of(members)
    assert joined.n_trees == sum(member.n_trees for member in members)
    np.testing.assert_allclose(joined.predict_raw(rows), expected, rtol=1e-12, atol=1e-12)
    again = TreeEnsemble.mean_of([joined]) if joined.nodes.divisor == 1.0 else joined
    np.testing.assert_array_equal(again.predict_raw(rows), joined.predict_raw(rows))


def test_what_cannot_be_scored_is_refused() -> None:
    table = np.arange(60.0)[:, None]
    several = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1},
        lgb.Dataset(table, table[:, 0] % 3),
        2,
    )
    with pytest.raises(ModelError, match="several classes"):
        TreeEnsemble.from_lightgbm(several)
    with pytest.raises(ModelError, match="objectives"):
        TreeEnsemble.from_lightgbm(train(1, objective="poisson"))
    with pytest.raises(ModelError, match="text of a LightGBM model"):
        parse_model("something else")
    linear = lgb.train(
        {"objective": "regression", "linear_tree": True, "verbose": -1, "num_threads": 1},
        lgb.Dataset(table, table[:, 0]),
        2,
    )
    with pytest.raises(ModelError, match="linear"):
        TreeEnsemble.from_lightgbm(linear)
    with pytest.raises(ModelError, match="artefact"):
        TreeEnsemble.from_bytes(b"nonsense")


def test_rows_of_another_width_are_refused() -> None:
    ensemble = TreeEnsemble.from_lightgbm(train(1))
    with pytest.raises(ModelError, match="5 features"):
        ensemble.predict(np.zeros((2, 4)))
    with pytest.raises(ModelError, match="5 features"):
        ensemble.predict_one(np.zeros(4))
    members = [ensemble, TreeEnsemble.from_lightgbm(train(1, objective="regression"))]
    with pytest.raises(ModelError, match="one width and link"):
        TreeEnsemble.mean_of(members)
