"""Kernels compiled for one feature set: what the plan decides is decided once, not at each event.

They are written as a module, beside numba's compiled code or in the user's cache, so that the next
process only loads them. The module's name tells the plan and the sources it was written from.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from numba import config

from recoup.errors import ConfigError
from recoup.features.kernel import fold_arranged
from recoup.features.partial import specialise
from recoup.features.plan import Plan
from recoup.features.pointers import SOURCES

Fold = Callable[..., int]
"""A kernel with the parameters of :func:`recoup.features.kernel.fold_arranged`."""


def specialised_folds(plan: Plan) -> tuple[Fold, ...]:
    """Give a kernel for each group of a plan; each is compiled when it is first called."""
    table = plan.table.tobytes()
    digest = hashlib.sha256(repr((SOURCES, sys.version_info)).encode() + table).hexdigest()
    name = f"recoup_kernels_{digest[:24]}"
    module = sys.modules.get(name) or _load(name, _find(name) or _write(name, plan))
    kernels: tuple[Fold, ...] = module.KERNELS
    return kernels


def _find(name: str) -> Path | None:
    paths = (folder / f"{name}.py" for folder in _folders())
    return next((path for path in paths if path.is_file()), None)


def _write(name: str, plan: Plan) -> Path:
    """Write the module into the first folder that can be written to."""
    groups = range(len(plan.groups))
    variants = [{"table": plan.table, "number": number} for number in groups]
    text = specialise(fold_arranged, plan.table, variants)
    refused: OSError | None = None
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.py"
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        except OSError as error:
            refused = error
        else:
            return path
    raise ConfigError(
        "Expected a folder for compiled kernels that can be written to, got none",
        hint="set NUMBA_CACHE_DIR, or do without `specialised`",
    ) from refused


def _folders() -> Iterator[Path]:
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recoup"


def _load(name: str, path: Path) -> ModuleType:
    """Import the module; numba finds it by its name when it loads what it compiled."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


__all__ = ["specialised_folds"]
