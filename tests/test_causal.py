import doctest
import types
from pathlib import Path

import pytest

from recoup import causal

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "examples"), [("causal.md", 20), ("experiments.md", 15)])
def test_the_page_says_what_the_code_does(page: str, examples: int) -> None:
    found = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > examples


@pytest.mark.slow
def test_worked_questions_are_answered() -> None:
    found = doctest.testfile(str(DOCS / "questions.md"), module_relative=False, encoding="utf-8")
    assert found.failed == 0
    assert found.attempted > 60


def test_everything_exported_is_listed() -> None:
    public = {
        name
        for name, value in vars(causal).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public == set(causal.__all__)
