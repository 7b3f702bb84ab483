import sqlite3
import threading
from pathlib import Path

import pytest

from recoup.errors import ConfigError, JournalError, ModelError
from recoup.stores import Registry, Version


def test_versions_grow_by_one_for_each_name(tmp_path: Path) -> None:
    with Registry(tmp_path / "models") as registry:
        numbers = [registry.save("intent", bytes([n]), {"n": n}).number for n in range(3)]
        assert registry.save("other", b"x", {}).number == 1
        assert numbers == [1, 2, 3]
        assert [version.number for version in registry.versions("intent")] == numbers
        assert registry.versions("unknown") == []
        assert registry.names() == ["intent", "other"]


def test_the_latest_or_a_named_version_is_loaded(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        registry.save("intent", b"first", {"auc": 0.8, "note": None})
        registry.save("intent", b"second", {"auc": 0.9})
    with Registry(tmp_path) as registry:
        assert registry.load("intent") == (b"second", {"auc": 0.9})
        assert registry.load("intent", 1) == (b"first", {"auc": 0.8, "note": None})


def test_the_hash_names_the_bytes_and_they_are_kept_once(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        artefact = b"model" * 100_000
        saved = [registry.save(name, artefact, {}) for name in ("a", "a", "b")]
        assert len({version.hash for version in saved}) == 1
        assert saved[0] == Version(1, registry.versions("b")[0].hash)
    assert (tmp_path / "registry.db").stat().st_size < 2 * len(artefact)


def test_absent_models_and_versions_are_named_with_what_there_is(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        with pytest.raises(ModelError, match="no model yet"):
            registry.load("intent")
        registry.save("intent", b"x", {})
        with pytest.raises(ModelError, match="it holds intent"):
            registry.load("intend")
        with pytest.raises(ModelError, match=r"version 7(.|\n)*versions 1"):
            registry.load("intent", 7)


def test_bytes_that_do_not_match_their_hash_are_refused(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        registry.save("intent", b"model", {})
    damaged = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    damaged.execute("UPDATE artefacts SET data = x'00'")
    damaged.close()
    with Registry(tmp_path) as registry, pytest.raises(ModelError, match="match its hash"):
        registry.load("intent")


def test_a_failed_save_leaves_no_version(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        with pytest.raises(ConfigError, match="JSON"):
            registry.save("intent", b"model", {"what": object()})
        with pytest.raises(ConfigError, match="name"):
            registry.save("", b"model", {})
        assert registry.names() == []


def test_writers_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    Registry(tmp_path).close()

    def save_some() -> None:
        with Registry(tmp_path) as registry:
            for number in range(10):
                registry.save("intent", bytes([number]), {})

    threads = [threading.Thread(target=save_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Registry(tmp_path) as registry:
        assert [version.number for version in registry.versions("intent")] == list(range(1, 41))


def test_reading_needs_a_registry_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="recoup train"):
        Registry(tmp_path / "absent", read_only=True)
    assert not (tmp_path / "absent").exists()
    with Registry(tmp_path) as registry:
        registry.save("intent", b"model", {})
    with Registry(tmp_path, read_only=True) as registry:
        assert registry.load("intent")[0] == b"model"
        with pytest.raises(JournalError, match="readonly"):
            registry.save("intent", b"other", {})
