"""What is read of the cgroups of a host, and of processes in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from layerstore import CannotRun
from layerstore.runtime.engine import cgroups


def folder(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir()
        (root / name / "cgroup.procs").touch()


def test_one_hierarchy_is_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    assert cgroups.hierarchy(tmp_path) == cgroups.Hierarchy(2, (), ("cpu", "memory"))


def test_several_are_version_1(tmp_path: Path) -> None:
    folder(tmp_path, "cpu", "freezer", "systemd", "unified")
    (tmp_path / "unified/cgroup.controllers").write_text("\n")
    assert cgroups.hierarchy(tmp_path) == cgroups.Hierarchy(1, (), ("cpu", "freezer"))


def test_a_hybrid_with_controllers_is_to_be_hidden(tmp_path: Path) -> None:
    folder(tmp_path, "cpu", "unified")
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    assert cgroups.hierarchy(tmp_path).hidden == (tmp_path / "unified",)


def test_no_cgroups_are_version_0(tmp_path: Path) -> None:
    assert cgroups.hierarchy(tmp_path).version == 0
    assert cgroups.hierarchy(tmp_path / "none").version == 0


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process in a cgroup of its own."""
    found = cgroups.hierarchy()
    base = Path("/sys/fs/cgroup") / ("freezer" if found.version == 1 else "")
    if not found.version or (found.version == 1 and "freezer" not in found.controllers):
        pytest.skip("needs a cgroup that can be frozen")
    cgroup = base / f"layerstore-test-{uuid4().hex}"
    cgroup.mkdir()
    process = subprocess.Popen(["sleep", "60"])
    (cgroup / "cgroup.procs").write_text(str(process.pid))
    yield process, cgroup
    if (cgroup / "freezer.state").exists():
        (cgroup / "freezer.state").write_text("THAWED")
    process.kill()
    process.wait()
    cgroup.rmdir()


@pytest.mark.root
def test_a_cgroup_is_found_frozen_and_let_go(sleeper: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, cgroup = sleeper
    assert cgroups.of_process(process.pid, "freezer", within=cgroup.name) == cgroup
    assert cgroups.of_process(process.pid, "freezer", within="another") is None
    assert cgroups.processes_in(cgroup) == [process.pid]
    assert not cgroups.is_frozen(cgroup)
    with cgroups.frozen_while(cgroup):
        assert cgroups.is_frozen(cgroup)
        with cgroups.frozen_while(cgroup):  # as one that is paused already
            assert cgroups.is_frozen(cgroup)
        assert cgroups.is_frozen(cgroup)
    assert not cgroups.is_frozen(cgroup)


def test_a_cgroup_that_does_not_freeze_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_PATIENCE", 0.01)
    (tmp_path / "freezer.state").write_text("THAWED")
    monkeypatch.setattr(cgroups, "is_frozen", lambda _: False)
    with pytest.raises(CannotRun, match="does not freeze"):
        cgroups.freeze(tmp_path)
    assert (tmp_path / "freezer.state").read_text() == "THAWED"


def test_a_process_that_is_gone_has_no_cgroup() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert cgroups.of_process(process.pid, "freezer", within="") is None
    assert os.path.exists("/proc/self/cgroup")
