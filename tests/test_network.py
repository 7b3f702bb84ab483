import numpy as np
import pytest
from numpy.typing import NDArray

from recoup.errors import ModelError
from recoup.models import network
from recoup.models.linear import fit_linear, linear_rows
from recoup.models.network import (
    NetworkModel,
    NetworkSettings,
    Reals,
    fit_network,
    network_one,
    network_rows,
    no_network,
)

QUICK = NetworkSettings(units=16, members=1, epochs=12)
LONG = NetworkSettings(units=32, members=1, epochs=25, rate=1e-2)


def sample(seed: int, rows: int = 8_000) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make rows with unknown values, and the true log-odds: a joint effect no line can follow."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    truth = -1.0 + 2.0 * x[:, 0] * x[:, 1] + x[:, 2]
    x[rng.random(rows) < 0.2, 2] = np.nan
    truth = np.where(np.isnan(x[:, 2]), -2.0, truth)
    return x, truth


def labels(truth: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    chance = np.random.default_rng(seed).random(len(truth))
    return np.asarray(chance < 1.0 / (1.0 + np.exp(-truth)))


def loss(y: NDArray[np.bool_], raw: NDArray[np.float64]) -> float:
    return float(np.mean(np.logaddexp(0.0, raw) - y * raw))


def by_hand(x: NDArray[np.float64], model: NetworkModel) -> NDArray[np.float64]:
    missing = np.isnan(x)
    squashed = np.sign(x) * np.log1p(np.abs(x))
    z = np.clip((squashed - model.center) / model.spread, -4.0, 4.0)
    v = np.column_stack([np.where(missing, 0.0, z), missing])
    hidden = np.maximum(v @ model.first + model.bias, 0.0)
    return np.asarray(model.level[0] + v @ model.direct + hidden @ model.second)


def told_of(
    table: NDArray[np.floating], label: NDArray[np.generic], weight: NDArray[np.float64]
) -> "network._Told":
    every, single = np.arange(table.shape[1]), np.float32
    shares = np.array([1.0, 0.5], single)[: label.shape[1]]
    rows = table.astype(single), label.astype(single), weight.astype(single)
    return network._Told(*rows, every, every, shares)  # noqa: SLF001


def test_joint_effects_are_found_that_a_line_cannot_follow() -> None:
    x, truth = sample(1)
    y, weight = labels(truth, 2), np.ones(len(truth))
    later, known = sample(3)
    bought = labels(known, 4)
    joint = loss(bought, network_rows(later, fit_network(x, y, weight, LONG)))
    line = loss(bought, linear_rows(later, fit_linear(x, y, weight, l2=1e-4)))
    assert loss(bought, known) < joint < loss(bought, known) + 0.5 * (line - loss(bought, known))


def test_rows_score_as_the_formula_says_alone_and_together() -> None:
    x, truth = sample(5, 2_000)
    model = fit_network(x, labels(truth, 6), np.ones(len(x)), QUICK)
    strange = np.array([[np.nan] * 4, [1e300, -1e300, 0.0, -0.0]])
    rows = np.concatenate([x[:200], strange])
    many = network_rows(rows, model)
    np.testing.assert_allclose(many, by_hand(rows, model), rtol=0, atol=1e-5)
    hidden = np.empty(len(model.bias), np.float32)
    assert [network_one(row, model, hidden) for row in rows] == many.tolist()


def test_equal_input_gives_equal_weights_and_members_are_averaged() -> None:
    x, truth = sample(7, 1_500)
    y, weight = labels(truth, 8), np.random.default_rng(9).random(len(x))
    two = NetworkSettings(units=8, members=2, epochs=2)
    first, again = fit_network(x, y, weight, two), fit_network(x, y, weight, two)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    alone = fit_network(x, y, weight, NetworkSettings(units=8, members=1, epochs=2))
    np.testing.assert_array_equal(first.first[:, :8], alone.first)
    np.testing.assert_array_equal(2.0 * first.second[:8], alone.second)


def test_rows_without_weight_are_not_learned_from() -> None:
    x, truth = sample(10, 3_000)
    y = labels(truth, 11)
    known = np.arange(len(x)) < 2_000
    weight = known.astype(np.float64)
    told, turned = (fit_network(x, each, weight, QUICK) for each in (y, np.where(known, y, ~y)))
    for one, other in zip(told, turned, strict=True):
        np.testing.assert_array_equal(one, other)


def test_that_a_value_is_unknown_is_learned_from() -> None:
    rng = np.random.default_rng(12)
    x = rng.normal(size=(4_000, 1))
    x[::2] = np.nan
    y = rng.random(4_000) < np.where(np.isnan(x[:, 0]), 0.8, 0.2)
    raw = network_rows(x, fit_network(x, y, np.ones(4_000), LONG))
    assert raw[::2].mean() == pytest.approx(np.log(4.0), abs=0.4)
    assert raw[1::2].mean() == pytest.approx(-np.log(4.0), abs=0.4)


def test_steps_follow_the_slope_of_the_weighted_loss() -> None:
    rng = np.random.default_rng(13)
    table = rng.normal(size=(50, 3)).astype(np.float32)
    table[rng.random(table.shape) < 0.2] = np.nan
    label, weight = rng.random((50, 2)) < 0.3, rng.random(50) * 2.0
    told = told_of(table, label, weight)
    parts = network._first_weights(6, 4, rng, told.rates())  # noqa: SLF001
    mask = network._kept((50, 4), 0.3, rng)  # noqa: SLF001
    assert set(np.unique(mask)) == {0.0, np.float32(1.0 / 0.7)}
    found = network._slopes(told, np.arange(50), parts, mask)  # noqa: SLF001

    def mean_loss() -> float:
        first, bias, second, direct, level = (part.astype(np.float64) for part in parts)
        v = np.column_stack([np.nan_to_num(table, nan=0.0), np.isnan(table)])
        raw = (np.maximum(v @ first + bias, 0.0) * mask) @ second + v @ direct + level
        losses = weight[:, None] * (np.logaddexp(0.0, raw) - label * raw)
        return float(np.mean(losses @ [1.0, 0.5]))

    for part, slope in zip(parts, found, strict=True):
        for at in np.ndindex(part.shape):
            kept, losses = part[at], []
            for moved in (kept + 1e-3, kept - 1e-3):
                part[at] = moved
                losses.append(mean_loss())
            part[at] = kept
            assert slope[at] == pytest.approx((losses[0] - losses[1]) / 2e-3, abs=2e-3)


def test_steps_shorten_along_half_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def slopes(
        _told: object, chosen: NDArray[np.int64], parts: list[Reals], _kept: Reals
    ) -> list[Reals]:
        assert len(chosen) == 4
        seen.append((float(parts[4][0]), float(parts[3][0, 0])))
        return [np.ones_like(part) for part in parts]

    monkeypatch.setattr(network, "_slopes", slopes)
    settings = NetworkSettings(units=2, epochs=3, batch=4, rate=0.1, decay=0.5)
    told = told_of(np.zeros((9, 1)), np.ones((9, 1)), np.ones(9))
    parts = network._fit_member(told, settings, np.random.default_rng(1))  # noqa: SLF001
    seen.append((float(parts[4][0]), float(parts[3][0, 0])))
    # Slopes that never change make each step as long as the plan says; the level does not decay.
    lengths = 0.05 * (1.0 + np.cos(np.pi * np.arange(6) / 6))
    level, direct = np.array(seen).T
    np.testing.assert_allclose(-np.diff(level), lengths, rtol=0, atol=1e-6)
    np.testing.assert_allclose(-np.diff(direct), lengths * (1.0 + 0.5 * direct[:-1]), atol=1e-6)


def test_decay_keeps_weights_small() -> None:
    x, truth = sample(14, 2_000)
    y, weight = labels(truth, 15), np.ones(len(x))
    free, held = (
        fit_network(x, y, weight, NetworkSettings(units=8, members=1, epochs=8, decay=decay))
        for decay in (0.0, 5.0)
    )
    assert np.abs(held.first).sum() < 0.9 * np.abs(free.first).sum()


def test_few_rows_do_and_labels_of_one_kind_are_refused() -> None:
    x = np.array([[0.0, np.nan, 5.0], [1.0, np.nan, 5.0], [2.0, np.nan, 5.0]])
    model = fit_network(x, np.array([False, True, True]), np.ones(3), QUICK)
    assert np.isfinite(network_rows(x, model)).all()
    with pytest.raises(ModelError, match="one kind"):
        fit_network(x, np.zeros(3, bool), np.ones(3), QUICK)
    assert network_rows(x, no_network(3)).tolist() == [0.0, 0.0, 0.0]


def test_labels_beside_teach_the_units_and_an_input_that_never_varied_has_no_weight() -> None:
    x, truth = sample(16, 6_000)
    x = np.column_stack([x, np.full(len(x), 3.0)])
    often = labels(truth, 17)
    rare = often & (np.random.default_rng(18).random(len(x)) < 0.02)
    later, known = sample(19)
    later = np.column_stack([later, np.full(len(later), 3.0)])
    weight = np.ones(len(x))
    alone = fit_network(x, rare, weight, LONG)
    taught = fit_network(x, rare, weight, LONG, np.column_stack([often, np.zeros(len(x), bool)]))
    match = [np.corrcoef(known, network_rows(later, each))[0, 1] for each in (alone, taught)]
    assert match[1] > match[0] + 0.05
    changed = later.copy()
    changed[:, 4] = 50.0
    np.testing.assert_array_equal(network_rows(changed, taught), network_rows(later, taught))
