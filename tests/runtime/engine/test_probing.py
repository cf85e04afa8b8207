"""What is told of a machine: what it can run containers with, and what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerstore import Config
from layerstore.runtime.engine import probing
from layerstore.runtime.engine.cgroups import Hierarchy


def found(monkeypatch: pytest.MonkeyPatch, hierarchy: Hierarchy, *, root: bool = True) -> probing.Means:
    monkeypatch.setattr(probing, "hierarchy", lambda: hierarchy)
    monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
    return probing.probe(Config())


@pytest.mark.tools("crun", "runc", "conmon")
def test_a_machine_that_has_it_all_has_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = Hierarchy(1, (Path("/sys/fs/cgroup/unified"),), ("cpu", "cpuset", "memory", "pids"))
    means = found(monkeypatch, everything)
    assert [warning for warning in means.warnings if "swap" not in warning] == []
    assert (means.cgroup_version, means.is_hybrid, means.cgroup_driver) == ("1", True, "cgroupfs")
    assert means.default == "crun"
    assert not found(monkeypatch, Hierarchy(2, (), ("cpu", "cpuset", "memory", "pids"))).is_hybrid


def test_what_cannot_be_limited_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = found(monkeypatch, Hierarchy(2, (), ("cpu", "memory"))).warnings
    assert {"No pids limit support", "No cpuset limit support"} <= set(warnings)
    assert "No memory limit support" not in warnings


def test_without_cgroups_and_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    means = found(monkeypatch, Hierarchy(0), root=False)
    assert (means.cgroup_version, means.cgroup_driver, means.swap_limits) == ("", "none", False)
    assert any("nothing can be limited, paused or counted" in warning for warning in means.warnings)
    assert any("by root only" in warning for warning in means.warnings)


@pytest.mark.parametrize("mode", [0o755, 0o644])
def test_a_program_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int) -> None:
    mute = tmp_path / "crun"
    mute.write_text("#!/bin/sh\nexit 3\n")
    mute.chmod(mode)
    monkeypatch.setattr("layerstore.runtime.engine.engines._SEARCH", str(tmp_path))
    means = probing.probe(Config())
    if mode == 0o755:
        assert (means.default, means.engines[0][1]) == ("crun", "")
        assert any("crun does not say its version" in warning for warning in means.warnings)
    else:
        assert means.default == ""
        assert any("No container can be run: no OCI runtime" in warning for warning in means.warnings)
