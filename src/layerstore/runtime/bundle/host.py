"""What a bundle has to know of the host: read once, and handed on as values."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cache

from attrs import evolve

from layerstore.values import frozen

__all__ = ["HostFacts", "Node", "find_nodes", "read"]

_INITS = ("docker-init", "catatonit", "tini", "tini-static")
"""What `--init` looks for, in this order. Each takes `--` and the command."""

_LIBEXEC = ("/usr/libexec/docker", "/usr/libexec/podman", "/usr/lib/podman")
"""Where packages of docker and podman have them."""

_NOT_DEVICES = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"})
"""What of /dev a container has of its own (moby, pkg devices)."""


@frozen
class Node:
    """A device of the host: `kind` is `c` or `b`, `mode` its permissions."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


def find_nodes(path: str) -> tuple[Node, ...]:
    """The device at `path`, or those in that folder and below it; none if there is nothing of the kind."""
    return tuple(_nodes(path))


def _nodes(path: str) -> Iterator[Node]:
    try:
        facts = os.stat(path)
    except OSError:
        return
    if stat.S_ISDIR(facts.st_mode):
        try:
            names = sorted(os.listdir(path))
        except OSError:
            return
        for name in names:
            inner = f"{path.rstrip('/')}/{name}"
            if name not in _NOT_DEVICES and not os.path.islink(inner):
                yield from _nodes(inner)
    elif stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
        yield Node(
            path=path,
            kind="c" if stat.S_ISCHR(facts.st_mode) else "b",
            major=os.major(facts.st_rdev),
            minor=os.minor(facts.st_rdev),
            mode=stat.S_IMODE(facts.st_mode),
            uid=facts.st_uid,
            gid=facts.st_gid,
        )


@frozen
class HostFacts:
    """A host, as far as a bundle depends on it."""

    name: str = "localhost"
    architecture: str = "x86_64"
    """As uname(2) has it."""
    kernel: tuple[int, int] = (5, 6)
    cpus: int = 1
    last_capability: int = 40
    """The number of the last capability that the kernel knows."""
    bounding: int = -1
    """The bits of those that this process can give to others."""
    seccomp: bool = True
    apparmor: bool = False
    cgroup: int = 1
    """The version of the cgroups that have the controllers; 0: there are none."""
    swap_limits: bool = True
    """Swap of a cgroup can be limited."""
    hosts: str = ""
    resolv_conf: str = ""
    stub_resolv_conf: str = ""
    """What systemd-resolved asks, where /etc/resolv.conf names it alone: for who cannot reach it on loopback."""
    init: str | None = None
    """The program of `--init`."""
    nodes: Callable[[str], tuple[Node, ...]] = find_nodes


def read(cgroup: int | None = None, *, init: bool = True) -> HostFacts:
    """The facts of this host. `cgroup`: the version, from who knows it already. `init`: look for one.

    What people alter while a process runs is read each time; the kernel's own facts once.
    """
    cgroups = _cgroups() if cgroup is None else cgroup
    return evolve(
        _of_kernel(),
        name=os.uname().nodename,
        cgroup=cgroups,
        swap_limits=cgroups == 2 or os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
        hosts=_text("/etc/hosts"),
        resolv_conf=_text("/etc/resolv.conf"),
        stub_resolv_conf=_text("/run/systemd/resolve/resolv.conf"),
        init=_init() if init else None,
    )


@cache
def _of_kernel() -> HostFacts:
    """What stays as it is for as long as this process lives, which does not give up what it may give to others."""
    names = os.uname()
    status = _text("/proc/self/status")
    version = re.match(r"(\d+)\.(\d+)", names.release)
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    return HostFacts(
        architecture=names.machine,
        kernel=(int(version[1]), int(version[2])) if version else (0, 0),
        cpus=os.cpu_count() or 1,
        last_capability=int(_text("/proc/sys/kernel/cap_last_cap").strip() or 40),
        bounding=int(bounding[1], 16) if bounding else -1,
        seccomp=re.search(r"^Seccomp:", status, re.MULTILINE) is not None,
        apparmor=_text("/sys/module/apparmor/parameters/enabled").startswith("Y"),
    )


def _cgroups() -> int:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return 2
    return 1 if os.path.isdir("/sys/fs/cgroup/memory") or os.path.isdir("/sys/fs/cgroup/pids") else 0


def _init() -> str | None:
    folders = (*os.environ.get("PATH", os.defpath).split(os.pathsep), *_LIBEXEC)
    for name in _INITS:
        for folder in folders:
            path = f"{folder}/{name}"
            if folder.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
