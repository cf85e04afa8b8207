"""Volumes in containers that run: what one writes another reads; a device is mounted by each for itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from layerstore import NotFound
from layerstore.runtime import Runtime
from layerstore.runtime.options import MountOption
from layerstore.runtime.streams import Streams
from layerstore.testing.filesystems import mountpoints
from runtime.life.conftest import Make

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]


def said(make: Make, runtime: Runtime, script: str, **options: Any) -> str:
    """What a container writes that is run once; with its exit code, if that is not 0."""
    box = make("sh", "-c", script, remove=True, **options)
    fd = os.memfd_create("written")
    code = runtime.run(box, Streams(stdin=None, stdout=fd, stderr=fd))
    with os.fdopen(fd) as file:
        file.seek(0)
        return file.read() + (f"exit {code}" if code else "")


def test_what_one_container_writes_another_reads(make: Make, runtime: Runtime) -> None:
    mounts = (MountOption("volume", "/data", "shared"),)
    assert said(make, runtime, "echo one > /data/file", mounts=mounts) == ""
    assert said(make, runtime, "cat /data/file", mounts=mounts) == "one\n"
    (use,) = (MountOption("volume", "/elsewhere", "shared", read_only=True),)
    assert said(make, runtime, "cat /elsewhere/file; echo x > /elsewhere/file", mounts=(use,)).startswith("one\n")
    assert (runtime.store.volumes.get("shared").mountpoint / "file").read_text() == "one\n"
    assert runtime.store.containers() == []


def test_a_volume_that_is_a_folder_of_the_host(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    options = {"type": "none", "o": "bind", "device": str(tmp_path)}
    runtime.store.volumes.create("host", options=options)
    runtime.store.volumes.create("fixed", options={**options, "o": "bind,ro"})
    mounts = (MountOption("volume", "/data", "host"), MountOption("volume", "/fixed", "fixed"))
    script = "cat /data/file /fixed/file; echo more > /data/more; touch /fixed/x 2>/dev/null || echo read-only"
    assert said(make, runtime, script, mounts=mounts) == "hosthostread-only\n"
    assert (tmp_path / "more").read_text() == "more\n"
    assert os.listdir(runtime.store.volumes.get("host").mountpoint) == []


def test_a_volume_of_memory_is_each_container_s_own(make: Make, runtime: Runtime) -> None:
    options = {"type": "tmpfs", "o": "size=1m,mode=0750", "device": "tmpfs"}
    runtime.store.volumes.create("memory", options=options)
    mounts = (MountOption("volume", "/data", "memory"),)
    before = mountpoints()
    script = "grep ' /data ' /proc/mounts; ls /data; touch /data/x"
    for _ in range(2):
        told = said(make, runtime, script, mounts=mounts)
        assert told.startswith("tmpfs /data tmpfs rw")
        assert "size=1024k,mode=750" in told
        assert told.count("\n") == 1
    assert mountpoints() == before


def test_a_folder_of_the_host_that_is_gone_is_told(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    runtime.store.volumes.create("host", options={"type": "none", "o": "bind", "device": str(gone)})
    box = make("true", mounts=(MountOption("volume", "/data", "host"),))
    with pytest.raises(NotFound, match=f"volume host cannot be mounted: there is no {gone}"):
        runtime.start(box)
    gone.mkdir()
    runtime.start(box)
    assert runtime.wait(box) == 0
