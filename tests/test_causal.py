import doctest
import types
from pathlib import Path

from recoup import causal

PAGE = Path(__file__).parent.parent / "docs" / "causal.md"


def test_the_page_says_what_the_code_does() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 20


def test_everything_exported_is_listed() -> None:
    public = {
        name
        for name, value in vars(causal).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(causal.__all__)
