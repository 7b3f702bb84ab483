"""Every example in a docstring gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import recoup

MODULES = sorted(one.name for one in pkgutil.walk_packages(recoup.__path__, "recoup."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
