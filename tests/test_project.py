"""What holds for the project as a whole: sizes of files, the lock, the words in it."""

import re
import tomllib
from pathlib import Path

import pytest

import recoup

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tests", "benchmarks", "docs", "examples", "typings", ".ci")
TEXT = {".py", ".pyi", ".md", ".toml", ".lock", ".j2", ".json", ".cfg", ""}
LONGEST_FILE = 500


def _files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [*inside, *ROOT.glob("*")]
    return [p for p in found if p.is_file() and p.suffix in TEXT and "__pycache__" not in p.parts]


PYTHON = [path for path in _files() if path.suffix in {".py", ".pyi"}]


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_one_can_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def test_every_locked_requirement_has_a_hash_and_none_names_a_host() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    requirements = re.findall(r"^[a-z0-9][^\n]*==[^\n]*\\\n(.*(?:\n    .*)*)", lock, re.MULTILINE)
    assert len(requirements) == len(re.findall(r"^[a-z0-9].*==", lock, re.MULTILINE)) > 20
    assert all("--hash=sha256:" in hashes for hashes in requirements)
    assert "http" not in lock
    assert "index-url" not in lock


def test_no_package_index_is_named_anywhere() -> None:
    hosts = re.compile(
        "|".join((r"pypi\." + "org", "python" + "hosted", r"files\.python" + "hosted"))
    )
    named = [p for p in _files() if hosts.search(p.read_text(encoding="utf-8", errors="replace"))]
    assert not named


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == recoup.__version__
    assert f"## {recoup.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    reasons = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").lower()
    names = [re.split(r"[<>=~ ]", need)[0] for need in project["dependencies"]]
    assert [name for name in names if f"| {name} |" not in reasons] == []
