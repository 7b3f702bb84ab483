"""Kernels made for one feature set do what the common kernel does."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config
from numpy.typing import NDArray

from recoup.errors import ConfigError
from recoup.features import FeatureSet, FeatureStore, count, distinct, max_, mean, specialise
from recoup.features.partial import specialise as write
from recoup.features.pointers import Words, compiled_apart, compiled_seldom

S = 1_000_000
SMALL = FeatureSet(
    "specialised",
    1,
    (
        count("views_5m", events=("view_item",), window="5m"),
        mean("price", "price", window="1h"),
        max_("price_max", "price", by="session"),
        distinct("items", "item", window="1h"),
        count("by_item_tile_1h", by="item", window="2h", tile="1h"),
    ),
)


@compiled_apart
def _heaviest(values: Words, count: int) -> int:
    best = 0
    for place in range(count):
        best = max(best, values[place])
    return best


def _weigh(table: Words, values: Words, count: int) -> int:
    """Weigh values by rows of (word, weight, least); the last row that fails ends it."""
    total, at = 0, table[1]
    limit = _heaviest(values, count)
    for _ in range(table[0]):
        word, weight, least = table[at], table[at + 1], table[at + 2]
        value = values[word]
        if least < 0 and value == limit:
            return -1
        while value > least >= 0:
            value -= least + 1
        total += weight * value if value > 0 or weight == 7 else 1
        at += 3
    return total


TABLE = np.array([3, 2, 0, 3, 2, 2, 7, -1, 1, 1, 0], np.int64)


def _load(text: str, folder: Path, name: str) -> object:
    path = folder / f"{name}.py"
    path.write_text(text)
    return specialise._load(name, path).KERNELS[0]  # noqa: SLF001 - what a store does


@pytest.fixture(scope="module")
def weigh(tmp_path_factory: pytest.TempPathFactory) -> object:
    text = write(compiled_apart(_weigh), TABLE, [{"table": TABLE}])
    assert "table[" not in text
    assert "for " not in text.split("def _weigh")[1]
    return _load(text, tmp_path_factory.mktemp("kernels"), "recoup_weigh")


@given(st.lists(st.integers(-9, 9), min_size=3, max_size=3))
def test_what_is_left_of_a_kernel_computes_the_same(weigh: object, values: list[int]) -> None:
    given = np.array(values, np.int64)
    assert callable(weigh)
    assert weigh(TABLE, given, 3) == _weigh(TABLE, given, 3)


@compiled_seldom
def seldom(table: Words, place: int) -> int:
    """Add to a word of the table."""
    return table[place] + 1


def _often(table: Words, place: int) -> int:
    return seldom(table, place)


def test_kernels_that_few_events_need_get_the_table_itself() -> None:
    text = write(_often, TABLE, [{"table": TABLE}])
    assert "return seldom(as_words(TABLE), place)" in text


@compiled_apart
def _above(words: Words, place: int) -> int:
    return words[0] + place


def _both(table: Words, values: Words, place: int) -> int:
    return 100 * _above(table, place) + _above(values, place)


def test_a_kernel_is_called_as_it_is_beside_its_specialised_self(tmp_path: Path) -> None:
    text = write(_both, TABLE, [{"table": TABLE}])
    both = _load(text, tmp_path, "recoup_both")
    assert callable(both)
    assert both(TABLE, np.array([7]), 1) == 408


def _columns(store: FeatureStore, events: int) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(5)
    columns: dict[str, NDArray[np.generic]] = {
        name: rng.integers(1, 40, events) for name in store.columns
    }
    late = rng.integers(0, 50, events) * 60 * S * (rng.random(events) < 0.1)
    columns["ts"] = 10**12 + np.arange(events) * 20 * S - late
    columns["key"] = rng.permutation(events)
    columns["session"] = np.zeros(events, np.int64)
    columns["visitor"] = rng.integers(0, 9, events)
    return columns


def test_a_set_of_several_keys_gets_the_same_rows_and_state() -> None:
    plain, special = FeatureStore(SMALL), FeatureStore(SMALL, specialised=True)
    columns = _columns(plain, 2000)
    for start in range(0, 2000, 300):
        part = {name: column[start : start + 300] for name, column in columns.items()}
        expected, got = plain.step(part), special.step(part)
        np.testing.assert_array_equal(got.values, expected.values)
        np.testing.assert_array_equal(got.status, expected.status)
    assert set(expected.status.tolist()) == {0, 1}
    assert special.snapshot() == plain.snapshot()


def test_a_set_is_written_once_into_the_first_folder_that_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, usable = tmp_path / "blocked", tmp_path / "usable"
    blocked.write_text("a file stands where the folder should")
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(specialise, "_folders", lambda: iter([blocked, usable]))
    features = FeatureSet("once", 1, (count("n_7m", window="7m"),))
    FeatureStore(features, specialised=True)
    (written,) = usable.glob("*.py")
    before = written.stat().st_mtime_ns
    del sys.modules[written.stem]
    FeatureStore(features, specialised=True)
    assert [path.stat().st_mtime_ns for path in usable.glob("*.py")] == [before]
    FeatureStore(FeatureSet("other", 1, (count("n_8m", window="8m"),)), specialised=True)
    assert len(list(usable.glob("*.py"))) == 2


def test_without_a_folder_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specialise, "_folders", lambda: iter([]))
    features = FeatureSet("nowhere", 1, (count("n_9m", window="9m"),))
    with pytest.raises(ConfigError, match="folder"):
        FeatureStore(features, specialised=True)
