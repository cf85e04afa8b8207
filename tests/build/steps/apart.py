"""A process of its own that builds, to be killed: see `building`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import layerstore
from layerstore.build import Export, Secret, Ssh, build
from layerstore.build.steps import guarding

TESTS = Path(__file__).parents[2]


@contextmanager
def building(
    config: layerstore.Config, context: Path, *, environment: dict[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """While inside: a process that builds `context`, which nobody puts in order when it is killed but with `guarded`.

    `ssh` are paths of keys; `secrets` are pairs of an ID and a value, `outputs` of a kind and a place.
    """
    command = [sys.executable, __file__, str(config.data_root), str(config.exec_root), str(context)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), **(environment or {})}
    with subprocess.Popen(
        [*command, json.dumps(options)], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def awaited(found: Callable[[], Any], process: subprocess.Popen[str] | None = None, *, seconds: float = 60) -> Any:
    """What `found` finds, as soon as it finds anything; `process` has to live until then."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert process is None or process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return answer


def long_and_ours() -> str:
    """A number of seconds that is long, and that no other process of the machine sleeps."""
    return f"4321.{os.getpid()}{time.monotonic_ns()}"


def running(*words: str) -> list[int]:
    """The processes whose command lines have all of these words."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if {os.fsencode(word) for word in words} <= set(line):
            found.append(int(pid))
    return found


if __name__ == "__main__":
    data_root, exec_root, context, text = sys.argv[1:]
    options = json.loads(text)
    if "ssh" in options:
        options["ssh"] = [Ssh("default", tuple(options["ssh"]))]
    options["secrets"] = [Secret(id, value=value.encode()) for id, value in options.get("secrets", ())]
    options["outputs"] = [Export(*output) for output in options.get("outputs", ())] or [Export()]
    guarding.LATER = 0.1 if options.pop("guarded", False) else 600.0
    settings = layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")
    with layerstore.open(config=settings) as opened:
        build(opened, context, **options)
