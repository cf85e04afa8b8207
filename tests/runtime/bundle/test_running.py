"""Bundles as crun and runc run them: what a program sees in there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.runtime import bundle
from layerstore.runtime.options import RunOptions

from .conftest import Run, check

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc", "busybox")]


def lines_of(run: Run, place: bundle.Place, options: RunOptions) -> list[str]:
    config = bundle.make({}, options, bundle.read_host(), place)
    check(config)
    done = run(config)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_program_runs_and_sees_only_its_own_processes(run: Run, place: bundle.Place) -> None:
    assert lines_of(run, place, RunOptions(args=("true",))) == []
    listed = lines_of(run, place, RunOptions(args=("ps", "-o", "pid,comm")))
    assert [line.split() for line in listed] == [["PID", "COMMAND"], ["1", "ps"]]


def test_a_program_has_docker_s_capabilities_and_a_filter(run: Run, place: bundle.Place) -> None:
    status = lines_of(
        run, place, RunOptions(args=("grep", "-E", "^(CapEff|CapBnd|CapInh|Seccomp):", "/proc/self/status"))
    )
    assert [line.split()[1] for line in status] == ["0" * 16, "00000000a80425fb", "00000000a80425fb", "2"]


def test_files_in_etc_are_mounted(run: Run, place: bundle.Place, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    options = RunOptions(args=("cat", "/etc/hostname", "/etc/hosts"), hostname="web1", network="none")
    network = bundle.Network(namespace="")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    bundle.write(fd, bundle.texts(options, bundle.read_host(), place.id, network))
    os.close(fd)
    seen = lines_of(run, evolve(place, files=str(folder), network=network), options)
    assert seen[0] == "web1"
    assert seen[-1] == "127.0.1.1\tweb1"
