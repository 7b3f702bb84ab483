"""The model registry: artefacts by name and version, identified by the hash of their bytes."""

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import msgspec

from recoup.errors import ConfigError, ModelError
from recoup.stores.sqlite import connect, immediate, translated

APPLICATION_ID: Final = 0x52435247
"""Marks a SQLite file as a registry of ours ("RCRG")."""

VERSION: Final = 2
FILE_NAME: Final = "registry.db"

_SCHEMA: Final = """
CREATE TABLE artefacts (hash TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE versions (
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    hash TEXT NOT NULL REFERENCES artefacts (hash),
    metadata BLOB NOT NULL,
    PRIMARY KEY (name, number)
);
CREATE TABLE promotions (
    step INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    number INTEGER NOT NULL,
    at TEXT NOT NULL,
    FOREIGN KEY (name, number) REFERENCES versions (name, number)
)
"""


class Version(msgspec.Struct, frozen=True):
    """One version of a named model.

    Parameters
    ----------
    number
        From 1, growing by one with each version of the name.
    hash
        SHA-256 of the artefact's bytes, in hexadecimal.
    """

    number: int
    hash: str


class Promotion(msgspec.Struct, frozen=True):
    """From a time on, the version that served."""

    number: int
    at: str


class Registry:
    """Models by name and version, in one SQLite file of a folder.

    An artefact is kept once however many versions name it, and checked against its hash when it is
    loaded. Saving is atomic: a version is there with its artefact and metadata, or not at all.

    Parameters
    ----------
    folder
        Holds ``registry.db``; made where it is absent.
    read_only
        Open without the right to save; the registry must exist.

    Raises
    ------
    JournalError
        If the file is corrupt, foreign, full, or cannot be opened.
    ModelError
        If it is opened read-only and is not there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     registry = Registry(folder)
    ...     saved = registry.save("intent", b"a model", {"auc": 0.89})
    ...     artefact, metadata = registry.load("intent")
    ...     registry.close()
    >>> saved.number, saved.hash[:8], artefact, metadata
    (1, '97ff8a35', b'a model', {'auc': 0.89})
    """

    def __init__(self, folder: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(folder) / FILE_NAME
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        elif not self.path.exists():
            raise ModelError(
                f"Expected a registry in {folder}, got no {FILE_NAME}",
                hint="train a model into it first: `recoup train --help` says how",
            )
        self._lock = threading.Lock()
        self._connection = connect(
            self.path,
            application_id=APPLICATION_ID,
            schema=_SCHEMA,
            version=VERSION,
            synchronous="FULL",
            read_only=read_only,
        )

    def save(self, name: str, artefact: bytes, metadata: dict[str, object]) -> Version:
        """Keep an artefact as the name's next version.

        Raises
        ------
        ConfigError
            If the name is empty, or the metadata cannot be written as JSON.
        """
        if not name:
            raise ConfigError("Expected a model's name, got an empty string")
        digest = hashlib.sha256(artefact).hexdigest()
        described = _to_json(metadata)
        with self._lock, translated(self.path), immediate(self._connection):
            run = self._connection.execute
            run("INSERT OR IGNORE INTO artefacts VALUES (?, ?)", (digest, artefact))
            query = "SELECT coalesce(max(number), 0) + 1 FROM versions WHERE name = ?"
            (number,) = run(query, (name,)).fetchone()
            run("INSERT INTO versions VALUES (?, ?, ?, ?)", (name, number, digest, described))
        return Version(number, digest)

    def load(self, name: str, version: int | None = None) -> tuple[bytes, dict[str, object]]:
        """Give a version's artefact and metadata; the latest where no version is named.

        Raises
        ------
        ModelError
            If there is no such model or version, or its bytes do not match their hash.
        """
        query = """
            SELECT number, hash, metadata, data FROM versions JOIN artefacts USING (hash)
            WHERE name = ? AND number = coalesce(?, number) ORDER BY number DESC LIMIT 1
        """
        rows = self._fetch(query, name, version)
        if not rows:
            raise ModelError(
                f"Expected model `{name}`{'' if version is None else f' version {version}'} "
                f"in {self.path}, got none",
                hint=self._offer(name),
            )
        number, digest, metadata, data = rows[0]
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelError(
                f"Expected model `{name}` version {number} to match its hash, got other bytes",
                hint="the registry is damaged: restore a copy, or train the model again",
            )
        return data, msgspec.json.decode(metadata)

    def promote(self, name: str, number: int, *, at: str) -> None:
        """Let a version serve; what served before is remembered.

        Parameters
        ----------
        at
            When, ISO 8601 UTC: kept beside it.

        Raises
        ------
        ModelError
            If there is no such version.
        """
        if number not in {version.number for version in self.versions(name)}:
            raise ModelError(
                f"Expected a version of model `{name}` to promote, got {number}",
                hint=self._offer(name),
            )
        with self._lock, translated(self.path), immediate(self._connection):
            query = "INSERT INTO promotions (name, number, at) VALUES (?, ?, ?)"
            self._connection.execute(query, (name, number, at))

    def roll_back(self, name: str, *, at: str) -> int:
        """Let the version serve that served before the present one, and give its number.

        What was rolled back from never serves by this again: doing it twice goes two versions back.

        Raises
        ------
        ModelError
            If no other version served before.
        """
        standing = _standing(promotion.number for promotion in self.promotions(name))
        if len(standing) < 2:  # noqa: PLR2004 - the present one, and one before
            raise ModelError(
                f"Expected a version of model `{name}` that served before, got none",
                hint="promote one by its number",
            )
        self.promote(name, standing[-2], at=at)
        return standing[-2]

    def promoted(self, name: str) -> int | None:
        """Give the number of the version that serves; None where none was ever promoted."""
        history = self.promotions(name)
        return history[-1].number if history else None

    def promotions(self, name: str) -> list["Promotion"]:
        """Give the versions that served, oldest first."""
        query = "SELECT number, at FROM promotions WHERE name = ? ORDER BY step"
        return [Promotion(number, at) for number, at in self._fetch(query, name)]

    def versions(self, name: str) -> list[Version]:
        """Give a name's versions, oldest first; none where the name is unknown."""
        rows = self._fetch("SELECT number, hash FROM versions WHERE name = ? ORDER BY number", name)
        return [Version(number, digest) for number, digest in rows]

    def names(self) -> list[str]:
        """Give the names that have a version, in alphabetical order."""
        return [name for (name,) in self._fetch("SELECT DISTINCT name FROM versions ORDER BY name")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    def _offer(self, name: str) -> str:
        numbers = [str(version.number) for version in self.versions(name)]
        if numbers:
            return f"it has versions {', '.join(numbers)}"
        return f"it holds {', '.join(self.names()) or 'no model yet'}"

    def _fetch(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._lock, translated(self.path):
            return self._connection.execute(query, values).fetchall()


def _to_json(metadata: dict[str, object]) -> bytes:
    try:
        return msgspec.json.encode(metadata)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Expected metadata that JSON can hold, got {error}") from error


def _standing(history: Iterable[int]) -> list[int]:
    """Give the versions that served and were not rolled back from; the last one serves.

    Going back to the version before takes the present one off, by a rollback or by its number.

    >>> _standing([1, 2, 3, 2]), _standing([1, 2, 2, 1, 3])
    ([1, 2], [1, 3])
    """
    standing: list[int] = []
    for number in history:
        if standing[-2:-1] == [number]:
            standing.pop()
        elif standing[-1:] != [number]:
            standing.append(number)
    return standing
