import os
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent

# No test is timed: machines are noisy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{variable} names no folder and {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return _folder("RECOUP_DATA", "data")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    return _folder("RECOUP_REFERENCE", "reference")
