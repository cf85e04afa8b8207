"""All that runs in a container stands still: its own program, those of `exec`, and those that are run beside them.

Each engine puts what it starts into cgroups, which are frozen. An engine itself, and conmon, have the host's root and
write nothing in the container, but may be about to start something: then that is waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerstore import CannotRun, Container
from layerstore.runtime.engine import cgroups
from layerstore.runtime.errors import NotRunning

__all__ = ["frozen"]

_PATIENCE = 5.0
"""Seconds that an engine may take to start what it was told to."""


@contextmanager
def frozen(container: Container) -> Iterator[None]:
    """`Runtime.frozen`."""
    with ExitStack() as all_of_them:
        for cgroup in _groups(container):
            all_of_them.enter_context(cgroups.frozen_while(cgroup))
        yield


def _groups(container: Container) -> set[Path]:
    """The cgroups of all programs of a container. Raises `NotRunning` if one has none, `CannotRun`."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found: set[Path] = set()
        waits = False
        for process in container.processes():
            cgroup = _group(process.pid, container)
            if cgroup is not None:
                found.add(cgroup)
            elif _is_of_the_host(process.pid):
                below = [group for pid in _children(process.pid) if (group := _group(pid, container)) is not None]
                found.update(below)
                waits = waits or not below
            elif process.is_alive:
                raise NotRunning(
                    f"a program of container {container.name} (process {process.pid}) has no cgroup, so it cannot be "
                    "frozen",
                    remedy="Wait for its end, or run it with isolation 'full'.",
                )
        if not waits:
            return found
        if time.monotonic() > deadline:
            raise CannotRun(f"what is being started in container {container.name} takes more than {_PATIENCE:.0f} s")
        time.sleep(0.002)


def _group(pid: int, container: Container) -> Path | None:
    return cgroups.of_process(pid, "freezer", within=container.id)


def _is_of_the_host(pid: int) -> bool:
    """Has it our own root, as an engine or conmon? One that has ended is no other's."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root/"), os.stat("/"))
    except OSError:
        return not os.path.exists(f"/proc/{pid}/ns/mnt")


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
