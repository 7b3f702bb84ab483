"""Memory that is kept for the next array: never seen by two, never more than the bound."""

import mmap

import numpy as np
import pytest
from numpy.typing import NDArray

from recoup.features import FeatureSet, FeatureStore, arena, count, held, memory

WORDS = 1 << 19


@pytest.fixture(autouse=True)
def _nothing_kept() -> None:
    arena.give_back()


def _address(array: NDArray[np.generic]) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_one_array_leaves_behind_the_next_one_gets() -> None:
    first = arena.matrix(WORDS, 2)
    place = _address(first)
    first[:] = 7.0
    del first
    assert arena.kept_bytes() == 16 * WORDS
    second = arena.matrix(WORDS, 2)
    assert _address(second) == place
    assert arena.kept_bytes() == 0


def test_memory_is_kept_from_others_while_a_view_of_it_lives() -> None:
    first = arena.matrix(WORDS, 2)
    first[:] = 7.0
    view = first[5:9, 1].view(np.int64)
    del first
    other = arena.matrix(WORDS, 2)
    other[:] = 9.0
    assert view.view(np.float64).tolist() == [7.0] * 4


def test_what_grows_and_what_does_not_are_kept_apart() -> None:
    words = arena.room(WORDS)
    words[0] = WORDS
    place = _address(words)
    del words
    matrix = arena.matrix(WORDS, 1)
    assert _address(matrix) != place
    assert _address(arena.room(WORDS)) == place


def test_what_grows_gets_the_pages_most_written_and_a_matrix_the_fewest() -> None:
    grown = [arena.room(WORDS) for _ in range(2)]
    matrices = [arena.matrix(WORDS, columns) for columns in (2, 1)]
    for words, written in zip(grown, (2 * WORDS, WORDS), strict=True):
        words[0] = written
    most, fewest = _address(grown[0]), _address(matrices[1])
    grown.clear()
    del words
    matrices.clear()
    assert _address(arena.room(WORDS)) == most
    assert _address(arena.matrix(WORDS // 2, 1)) == fewest


def test_no_more_is_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena, "KEPT_BYTES", 20 * WORDS)
    arrays = [arena.matrix(WORDS, 1) for _ in range(4)]
    arrays.append(arena.matrix(WORDS, 4))
    arrays.clear()
    assert arena.kept_bytes() == 16 * WORDS


def test_small_arrays_are_left_to_numpy() -> None:
    assert arena.matrix(10, 3).shape == (10, 3)
    assert arena.kept_bytes() == 0


def test_where_nothing_is_mapped_numpy_gives_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert arena.room(WORDS).shape == (WORDS,)
    assert arena.matrix(WORDS, 2).shape == (WORDS, 2)


def _columns(store: FeatureStore, events: int) -> dict[str, NDArray[np.int64]]:
    columns = {name: np.zeros(events, np.int64) for name in store.columns}
    number = np.arange(events)
    return columns | {"ts": number * 1000, "key": number, "visitor": number % 900 + 1}


@pytest.mark.parametrize("granted", [True, False])
def test_a_store_grows_with_and_without_addresses_to_spare(
    monkeypatch: pytest.MonkeyPatch, *, granted: bool
) -> None:
    if not granted:
        monkeypatch.setattr(arena, "_take", lambda *_, **__: None)
    store = FeatureStore(FeatureSet("n", 1, (count("n"),)))
    columns = _columns(store, 30_000)
    for start in range(0, 30_000, 5000):
        part = {name: column[start : start + 5000] for name, column in columns.items()}
        values = store.step(part).values[:, 0]
        np.testing.assert_array_equal(values, np.arange(start, start + 5000) // 900 + 1)


def test_reserved_memory_is_found_at_once_and_changes_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = FeatureSet("n", 1, (count("n"),))
    plain, reserved = FeatureStore(features), FeatureStore(features)
    columns = _columns(plain, 20_000)
    found: list[NDArray[np.int64]] = []
    monkeypatch.setattr(held, "touch", found.append)
    reserved.reserve(8_000_000)
    assert [words.nbytes for words in found] == [8_000_000]
    arena.touch(found.pop())
    np.testing.assert_array_equal(reserved.step(columns).values, plain.step(columns).values)
    assert reserved.snapshot() == plain.snapshot()


@pytest.mark.parametrize("events", [1_000, 30_000])
def test_rows_that_are_held_are_never_written_again(events: int) -> None:
    features = FeatureSet("n", 1, tuple(count(f"n_{m}m", window=f"{m}m") for m in range(1, 16)))
    store = FeatureStore(features)
    columns = _columns(store, events)
    first = store.step(columns).values[:, :3]
    kept = first.copy()
    second = store.step(columns | {"ts": columns["ts"] + 1, "key": columns["key"] + events})
    assert not np.array_equal(second.values[:, :3], kept)
    np.testing.assert_array_equal(first, kept)


def test_what_memory_held_before_is_in_no_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = FeatureSet("tiles", 1, (count("n_3h_tile_1h", by="item", window="3h", tile="1h"),))

    def events(store: FeatureStore, *minutes: int) -> dict[str, NDArray[np.generic]]:
        number = np.arange(*minutes)
        columns: dict[str, NDArray[np.generic]] = {
            name: np.zeros(len(number), np.int64) for name in store.columns
        }
        return columns | {"ts": number * 60_000_000, "key": number, "item": 1 + number % 97}

    def ends(rubbish: int) -> list[bytes]:
        monkeypatch.setattr(memory, "room", lambda least: np.full(4 * least, rubbish))
        store, resumed = FeatureStore(tiles), FeatureStore(tiles)
        store.step(events(store, 1_000, 3_000))
        resumed.restore(store.snapshot())
        for each in (store, resumed):
            each.step(events(each, 3_000, 3_200))
        return [store.snapshot(), resumed.snapshot()]

    assert len({*ends(5), *ends(7)}) == 1
