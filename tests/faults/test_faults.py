"""Every fault in turn: the walks of this folder, in a process in which the extension's calls can be made to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import faults

WALKS = sorted(path.name for path in Path(__file__).parent.glob("walk_*.py"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.build(tmp_path_factory.mktemp("faults"))


@pytest.mark.root
@pytest.mark.tools("gcc")
@pytest.mark.parametrize("module", WALKS)
def test_no_fault_is_taken_for_nothing(library: Path, module: str) -> None:
    done = faults.run(library, str(Path(__file__).with_name(module)))
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
