"""The life of a model: card, reliability, slices, versions that serve, inputs watched at work."""

import json
from pathlib import Path

import numpy as np
import pytest

from recoup.errors import ModelError, SnapshotError
from recoup.features import FeatureStore, standard_features
from recoup.friction.intent_rows import Period, collect_rows
from recoup.friction.watch import InputWatch, reference_of
from recoup.models.card import Fingerprint, ModelCard, reliability_of, slices_of, wilson
from recoup.report.model_card import card_in_words
from recoup.runners.lifecycle import Witness, keep_model, load_model, promote, roll_back, standings
from recoup.stores import Registry
from recoup.testing import random_batch

DATA = Fingerprint("shop", 3, None, None, "ab")


def card(name: str = "intent", **more: object) -> ModelCard:
    return ModelCard(name=name, hash="h", purpose="P.", inputs="i", fingerprint=DATA, **more)  # type: ignore[arg-type]


def test_reliability_is_on_the_line_where_predictions_are_right() -> None:
    rng = np.random.default_rng(1)
    p = rng.beta(1, 8, 60_000)
    bins = reliability_of(rng.random(len(p)) < p, p)
    assert sum(b.rows for b in bins) == len(p)
    assert sum(b.low <= b.predicted <= b.high for b in bins) >= 13
    off = reliability_of(rng.random(len(p)) < p / 2, p)
    assert sum(b.low <= b.predicted <= b.high for b in off) <= 1


def test_wilson_covers() -> None:
    rng = np.random.default_rng(2)
    hits = rng.binomial(80, 0.07, 4_000)
    held = [low <= 0.07 <= high for low, high in (wilson(int(k), 80) for k in hits)]
    assert 0.93 < np.mean(held) < 0.98


def test_the_slice_that_the_model_knows_least_about_is_the_worst() -> None:
    rng = np.random.default_rng(3)
    chance = rng.beta(1, 3, 20_000)
    mobile = rng.random(20_000) < 0.4
    y = rng.random(20_000) < chance
    said = np.where(mobile, chance.mean(), chance)
    device = np.where(mobile, "mobile", "desktop").tolist()
    rare = ["", *["AD"] * 100, *["SE"] * 19_899]
    found = slices_of(y, said, {"device": device, "country": rare})
    assert {(each.attribute, each.value) for each in found} == {
        ("device", "desktop"), ("device", "mobile"), ("country", "SE"),
    }  # fmt: skip
    worst = card(slices=found).worst
    assert worst is not None
    assert worst.value == "mobile"
    assert worst.skill == pytest.approx(0.0, abs=0.02)
    assert worst.bias == pytest.approx(1.0, abs=0.05)


def test_a_strangers_strings_do_not_break_the_card() -> None:
    y, said = np.arange(1_000) % 2 == 0, np.full(1_000, 0.5)
    found = slices_of(y, said, {"device": ["a|b<script>[x](y)\n"] * 1_000})
    text = card_in_words(card(slices=found, limits=("L.",)), 1, None)
    line = next(line for line in text.splitlines() if line.startswith("| device"))
    assert line.replace("\\|", "").count("|") == 8
    assert "<script>" not in text


def test_versions_are_promoted_and_rolled_back(tmp_path: Path) -> None:
    for artefact in (b"one", b"two", b"three"):
        keep_model(tmp_path, artefact, card(), {})
    assert load_model(tmp_path, "intent", serving=True).artefact == b"three"
    promote(tmp_path, "intent", 1)
    promote(tmp_path, "intent", 2)
    assert load_model(tmp_path, "intent", serving=True).artefact == b"two"
    assert load_model(tmp_path, "intent").artefact == b"three"
    assert roll_back(tmp_path, "intent") == 1
    assert [each.serves for each in standings(tmp_path)] == [True, False, False]
    with pytest.raises(ModelError, match="served before"):
        roll_back(tmp_path, "intent")
    promote(tmp_path, "intent", 2)
    with pytest.raises(ModelError, match="promote, got 9"):
        promote(tmp_path, "intent", 9)
    with Registry(tmp_path) as models:
        models.promote("intent", 2, at="2026-01-01T00:00:00Z")
        assert [each.number for each in models.promotions("intent")] == [1, 2, 1, 2, 2]


def test_rolling_back_twice_goes_two_versions_back_not_to_the_bad_one(tmp_path: Path) -> None:
    for number, artefact in enumerate((b"one", b"two", b"three"), 1):
        keep_model(tmp_path, artefact, card(), {})
        promote(tmp_path, "intent", number)
    assert [roll_back(tmp_path, "intent") for _ in range(2)] == [2, 1]
    promote(tmp_path, "intent", 3)
    assert roll_back(tmp_path, "intent") == 1


def test_nothing_to_roll_back_to(tmp_path: Path) -> None:
    keep_model(tmp_path, b"one", card(), {})
    promote(tmp_path, "intent", 1)
    with pytest.raises(ModelError, match="served before"):
        roll_back(tmp_path, "intent")


def test_a_card_lies_beside_the_version(tmp_path: Path) -> None:
    p = np.linspace(0.01, 0.99, 1_000)
    bins = reliability_of(np.random.default_rng(4).random(1_000) < p, p)
    keep_model(tmp_path, b"one", card(metrics={"rows": 5, "auc": 0.8}, reliability=bins), {})
    folder = tmp_path / "cards"
    assert {path.name for path in folder.iterdir()} == {
        "intent-1.md", "intent-1.json", "intent-1.svg",
    }  # fmt: skip
    assert "| AUC | 0.8000 |" in (folder / "intent-1.md").read_text()
    assert json.loads((folder / "intent-1.json").read_text())["metrics"]["rows"] == 5


def test_a_version_without_a_card_is_refused_in_words(tmp_path: Path) -> None:
    with Registry(tmp_path) as models:
        models.save("intent", b"old", {"auc": 0.9})
    with pytest.raises(ModelError, match="train it again"):
        load_model(tmp_path, "intent")


def test_the_fingerprint_is_of_the_events_not_of_the_batches() -> None:
    batch = random_batch(300, seed=5)
    whole, parts, other = Witness("s"), Witness("s"), Witness("s")
    cut = [type(batch)(batch.events[i : i + 100], batch.items.clear()) for i in (0, 100, 200)]
    assert sum(len(each) for each in whole.watch([batch])) == 300
    assert len(list(parts.watch(cut))) == 3
    assert len(list(other.watch([random_batch(300, seed=6)]))) == 1
    assert whole.fingerprint() == parts.fingerprint()
    assert other.fingerprint().events == 300
    assert other.fingerprint().sha256 != whole.fingerprint().sha256


def test_what_lies_behind_the_period_is_not_in_the_fingerprint() -> None:
    batch = random_batch(300, seed=5)
    ts = batch.events["ts"].to_physical().to_numpy()
    until = int(np.quantile(ts, 0.5))
    early = type(batch)(batch.events.filter(ts < until), batch.items.clear())
    cut, own = Witness("s", until), Witness("s")
    assert len(list(cut.watch([batch]))) == len(list(own.watch([early]))) == 1
    assert cut.fingerprint() == own.fingerprint()
    assert 100 < cut.fingerprint().events < 200


def test_moved_inputs_are_seen_and_still_ones_are_not() -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(4_000, 3))
    rows[::3, 2] = np.nan
    watch = InputWatch(reference_of(rows, ("a", "b", "c")), ("c", "x", "b", "a"))
    for _ in range(4):
        new = rng.normal(size=(1_000, 3))
        watch.step(np.column_stack([new[:, 2], new[:, 0], new[:, 1] + 1.0, new[:, 0]]))
    assert {each.feature for each in watch.drifted()} == {"b", "c"}
    assert watch.rows == 4_000
    again = InputWatch(reference_of(rows, ("a", "b", "c")), ("c", "x", "b", "a"))
    again.restore(watch.snapshot())
    assert again.drift() == watch.drift()
    other = InputWatch(reference_of(rows, ("a", "b")), ("a", "b"))
    with pytest.raises(SnapshotError):
        other.restore(watch.snapshot())
    with pytest.raises(ModelError, match="none called c"):
        InputWatch(reference_of(rows, ("a", "b", "c")), ("a", "b"))


@pytest.mark.parametrize("cut", [50, 1_000])
def test_a_long_log_is_sampled_by_visitor_and_its_rows_are_those_of_the_whole(cut: int) -> None:
    batch = random_batch(2_000, seed=8, visitors=200)
    batches = [
        type(batch)(batch.events[i : i + cut], batch.items.clear()) for i in range(0, 2_000, cut)
    ]
    whole = collect_rows(batches, FeatureStore(standard_features()), Period())
    sample = collect_rows(batches, FeatureStore(standard_features()), Period(), most_rows=700)
    assert 100 < len(sample) <= 700
    chosen = np.isin(whole.visitor, np.unique(sample.visitor))
    same = whole.where(chosen)
    assert np.array_equal(same.values, sample.values, equal_nan=True)
    assert np.array_equal(same.positive, sample.positive)
    assert np.array_equal(same.session, sample.session)
