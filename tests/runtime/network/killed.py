"""A process that connects a container, and is killed at one line: see test_killed_connecting.py.

Its arguments: data-root, exec-root, cgroup, network, and the number of the line among those that connect containers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import layerstore
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.options import Port
from runtime.life import life
from support.lines import Lines

ROOMS = ("/network/link.py", "/network/slirp4netns.py", "/network/pasta.py", "/life/connecting.py")

if __name__ == "__main__":
    data_root, exec_root, parent, network, number = sys.argv[1:]
    lines = Lines(ROOMS, int(number))
    with layerstore.open(config=life.settings(Path(data_root), Path(exec_root))) as opened:
        runtime = Runtime(opened)
        ports = (Port(80, None, "127.0.0.1"),)
        options = RunOptions(args=("sleep", "60"), cgroup_parent=parent, network=network, ports=ports)
        box = runtime.create("debian", options)
        with lines.counted():
            runtime.start(box)
        runtime.remove(box, force=True)
    print(lines.count)
