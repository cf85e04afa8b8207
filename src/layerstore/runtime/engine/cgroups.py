"""The cgroups of containers, as the kernel has them: of which version, which are a process's, frozen or not.

Engines make and remove them. What is asked here is asked of /proc and /sys/fs/cgroup: cgroup(7), and the kernel's
admin-guide, cgroup-v1/freezer-subsystem and cgroup-v2, "Core Interface Files".
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from signal import SIGKILL

from layerstore import CannotRun
from layerstore.values import frozen

__all__ = [
    "Hierarchy",
    "folders_of",
    "freeze",
    "frozen_while",
    "hierarchy",
    "hierarchy_of",
    "is_frozen",
    "is_within",
    "of_process",
    "processes_in",
    "remove",
    "thaw",
]

_MOUNT = Path("/sys/fs/cgroup")
_PATIENCE = 5.0
"""Seconds for which a cgroup may take to freeze: a process in a system call that cannot be interrupted holds it up."""


@frozen
class Hierarchy:
    """`version`: 1 or 2, 0 without cgroups. `hidden`: mounts that crun refuses to work beside (a hybrid's unified)."""

    version: int
    hidden: tuple[Path, ...] = ()
    controllers: tuple[str, ...] = ()


@cache
def hierarchy(mount: Path = _MOUNT) -> Hierarchy:
    """What is mounted at /sys/fs/cgroup; looked at once.

    crun takes a cgroup2 with controllers beside the old hierarchies for a mistake, and does not start: it is to be
    hidden in the mount namespace that a container is started in.
    """
    try:
        return Hierarchy(2, (), tuple(_text(f"{mount}/cgroup.controllers").split()))
    except FileNotFoundError:
        pass
    try:
        names = sorted(name for name in os.listdir(mount) if os.path.exists(f"{mount}/{name}/cgroup.procs"))
    except FileNotFoundError:
        return Hierarchy(0)
    try:
        is_hybrid = bool(_text(f"{mount}/unified/cgroup.controllers").strip())
    except FileNotFoundError:
        is_hybrid = False
    controllers = tuple(name for name in names if name not in ("unified", "systemd"))
    return Hierarchy(1 if controllers else 0, (mount / "unified",) if is_hybrid else (), controllers)


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


def of_process(pid: int, controller: str, *, within: str) -> Path | None:
    """The folder of the cgroup that a process is in, under `controller` (version 1) or in the one tree (version 2).

    `within`: a part that its path must have, lest a container without a cgroup is taken for whoever started it.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    only = None
    for line in lines:
        _, names, path = line.split(":", 2)
        if within not in path:
            continue
        if controller in names.split(","):
            return _MOUNT / names / path.lstrip("/")
        if not names:
            only = _MOUNT / path.lstrip("/")
    return only


def is_within(pid: int, name: str) -> bool:
    """Is a process in a cgroup whose path has this name? Where there are no cgroups, that cannot be told: True."""
    if not hierarchy().version:
        return True
    try:
        return name in _text(f"/proc/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_in(cgroup: Path) -> list[int]:
    """All processes in a cgroup and in those below it."""
    found: set[int] = set()
    for folder, _, files in os.walk(cgroup):
        if "cgroup.procs" in files:
            try:
                found.update(int(line) for line in (Path(folder) / "cgroup.procs").read_text().split())
            except OSError:
                continue  # a cgroup that went meanwhile, or is threaded
    return sorted(found)


def remove(path: str, *, within: str) -> None:
    """End what runs in the cgroups at `path` (`cgroupsPath` of a bundle), in each hierarchy, and remove them.

    `within`: a part that the path must have. For what an engine left that was killed over its work.
    """
    for cgroup in folders_of(path, within=within):
        thaw(cgroup)
        deadline = time.monotonic() + _PATIENCE
        while (left := processes_in(cgroup)) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
            time.sleep(0.005)
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def folders_of(path: str, *, within: str) -> list[Path]:
    """The folders of the cgroups at `path`, one for each hierarchy; none if the path has not the part `within`."""
    if within not in path or ":" in path or ".." in path.split("/"):
        return []  # systemd's, or not a container's own
    version = hierarchy().version
    tops = ("",) if version == 2 else sorted(os.listdir(_MOUNT)) if version else ()
    names = (f"{_MOUNT}/{top}/{path.lstrip('/')}" for top in tops)
    return [Path(name) for name in names if os.path.exists(name)]


def hierarchy_of(folder: Path) -> str:
    """A controller of the hierarchy of version 1 that a cgroup is in: the first that its mount has the name of."""
    return folder.relative_to(_MOUNT).parts[0].partition(",")[0]


def is_frozen(cgroup: Path) -> bool:
    """Is all of it frozen? False if it is gone."""
    try:
        if (cgroup / "freezer.state").exists():
            return (cgroup / "freezer.state").read_text().strip() == "FROZEN"
        return "frozen 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def freeze(cgroup: Path) -> None:
    """Stop all of it, and return when it stands still. Raises `CannotRun`, and lets it go on, if it does not."""
    _write_state(cgroup, frozen=True)
    deadline = time.monotonic() + _PATIENCE
    pause = 0.0001
    while not is_frozen(cgroup):
        if time.monotonic() > deadline:
            thaw(cgroup)
            raise CannotRun(
                f"the cgroup {cgroup} does not freeze",
                remedy="A process in it waits for a device, or for a filesystem that does not answer: see dmesg.",
            )
        time.sleep(pause)
        pause = min(pause * 2, 0.01)
        if (cgroup / "freezer.state").exists():
            _write_state(cgroup, frozen=True)  # version 1 does not go on by itself with who was forked meanwhile


def thaw(cgroup: Path) -> None:
    """Let it go on. No error if it is gone, or cannot be frozen."""
    with suppress(FileNotFoundError):
        _write_state(cgroup, frozen=False)


@contextmanager
def frozen_while(cgroup: Path) -> Iterator[None]:
    """While inside, none of its processes runs; as it was before, afterwards."""
    if is_frozen(cgroup):
        yield
        return
    freeze(cgroup)
    try:
        yield
    finally:
        thaw(cgroup)


def _write_state(cgroup: Path, *, frozen: bool) -> None:
    old = cgroup / "freezer.state"
    if old.exists():
        old.write_text("FROZEN" if frozen else "THAWED")
    else:
        with open(cgroup / "cgroup.freeze", "r+b", buffering=0) as file:
            file.write(b"1" if frozen else b"0")
