"""A process that makes, runs and removes containers, and is killed at one line of the source: see test_killed.py.

Its arguments: data-root, exec-root, cgroup, and the number of the line, counted over all that it executes of what runs
containers; 0 is none: then it writes how many there are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import layerstore
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.options import MountOption
from layerstore.runtime.streams import Streams
from support.lines import Lines

ROOMS = ("/runtime/life/", "/runtime/engine/")


def settings(data_root: Path, exec_root: Path) -> layerstore.Config:
    """The store's configuration."""
    return layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")


def live(store: layerstore.Store, cgroup: str) -> None:
    """All that can happen to containers."""
    runtime = Runtime(store)
    mounts = (MountOption("volume", "/data"), MountOption("bind", "/deep/in", "/etc"))
    held = RunOptions(args=("sleep", "60"), cgroup_parent=cgroup, mounts=mounts)
    box = runtime.create("debian", held, name="held")
    runtime.start(box)
    runtime.pause(box)
    runtime.unpause(box)
    runtime.stop(box, 0)
    assert runtime.wait(box) == 137
    runtime.start(box)
    runtime.remove(box, force=True, volumes=True)
    quick = RunOptions(args=("touch", "/tmp/x"), cgroup_parent=cgroup, remove=True)
    assert runtime.run(runtime.create("debian", quick, name="quick"), Streams(None, None, None)) == 0
    again = RunOptions(args=("false",), cgroup_parent=cgroup, mounts=mounts[1:])
    box = runtime.create("debian", again, name="again")
    assert runtime.run(box, Streams(None, None, None)) == 1
    runtime.remove(box)


if __name__ == "__main__":
    data_root, exec_root, parent, number = sys.argv[1:]
    lines = Lines(ROOMS, int(number))
    with layerstore.open(config=settings(Path(data_root), Path(exec_root))) as opened, lines.counted():
        live(opened, parent)
    print(lines.count)
