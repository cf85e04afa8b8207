"""Images that are made to reach the host: an engine that is run on them writes nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerstore import CannotRun, Store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.options import Isolation
from support import images, programs

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc", "conmon")]


@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_devices_are_not_made_where_a_link_of_the_image_leads(
    store: Store, tmp_path: Path, cgroup_parent: str, engine: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = images.folder(str(outside).strip("/"))  # else crun finds nothing to mount on, and stops before
    layers = [programs.layer(), images.layer(images.whiteout("dev"), images.symlink("dev", str(outside)), inside)]
    store.load(images.docker_archive(tmp_path / "image.tar", layers, ["hostile:latest"]))
    runtime = Runtime(store)
    options = RunOptions(args=("sh", "-c", "exit 3"), runtime=engine, cgroup_parent=cgroup_parent)
    container = runtime.create("hostile", options)
    for start in (runtime.start, runtime.run):
        with pytest.raises(CannotRun, match="/dev is a symbolic link") as refusal:
            start(container)
        assert refusal.value.remedy
        assert list(outside.iterdir()) == []
    runtime.remove(container)
    own = runtime.create("hostile", RunOptions(args=("sh", "-c", "exit 3"), isolation=Isolation.PROCESS))
    assert runtime.run(own) == 3
    assert list(outside.iterdir()) == []
    runtime.remove(own)
