"""Tests compiled once for all workers of pytest-xdist, each of which would rewrite the asserts of all of them.

Every worker collects every test, all at the same time: none finds what another has compiled. So each begins with a
share of the modules; pytest keeps what it makes of them beside them, and the others find it there.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest

TESTS = Path(__file__).parents[1]


def rewrite_our_share(config: pytest.Config) -> None:
    """Have pytest compile the share of this worker, whose number and whose number of colleagues `config` knows."""
    if sys.dont_write_bytecode:
        return
    worker: dict[str, str] = getattr(config, "workerinput", {})
    if not worker:
        return
    number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
    loader = cast(Loader, config.pluginmanager.rewrite_hook)
    for path in _modules()[number::count]:
        module = _without_imports(path, loader)
        with suppress(ImportError, SyntaxError):  # which will be told when it is collected
            loader.exec_module(module)


def _modules() -> list[Path]:
    """All that pytest rewrites of ours, so that shares are about as large as each other."""
    found = [Path(folder, name) for folder, _, names in os.walk(TESTS) for name in names if _is_rewritten(name)]
    return sorted(found, key=lambda path: (path.stat().st_size, path))


def _is_rewritten(name: str) -> bool:
    return name == "conftest.py" or (name.startswith("test_") and name.endswith(".py"))


def _without_imports(path: Path, loader: Loader) -> ModuleType:
    """A module that ends with its first statement, an import that pytest puts there: it is compiled, and not run."""
    name = f"share.{path.stem}"
    module = ModuleType(name)
    module.__spec__ = importlib.util.spec_from_file_location(name, path, loader=loader)
    module.__dict__["__builtins__"] = {}
    return module
