"""What this machine can run containers with, and what does not work here: for `info`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

from layerstore import Config, LayerstoreError
from layerstore.runtime import bundle
from layerstore.runtime.engine import conmon
from layerstore.runtime.engine.cgroups import Hierarchy, hierarchy
from layerstore.runtime.engine.engines import Engine, all_of, find, version_of
from layerstore.runtime.network import Kind
from layerstore.runtime.network.usable import refusal
from layerstore.values import frozen

__all__ = ["Means", "probe"]

_LIMITS = {"memory": "memory", "pids": "pids", "cpu": "CPU", "cpuset": "cpuset"}
"""Controllers, and what cannot be limited without them."""


@frozen
class Means:
    """What there is to run containers. `engines` are with what they say of their version."""

    engines: tuple[tuple[Engine, str], ...]
    default: str
    """The name of the engine that is taken if none is named; "" if none can be."""
    conmon: str
    """The version of what holds containers that go on by themselves; "" without."""
    init: str
    """The program of `--init`."""
    criu: str
    """The version of what saves processes; "" without."""
    cgroups: Hierarchy
    cgroup_driver: str
    """`cgroupfs`, or `none`: engines make the cgroups themselves; systemd is not asked."""
    security: tuple[str, ...]
    """docker's: `name=seccomp,profile=builtin`, `name=apparmor`."""
    swap_limits: bool
    """Swap can be limited beside memory."""
    networks: tuple[str, ...]
    """What `--network` can be."""
    warnings: tuple[str, ...]
    """What does not work here, and why: a sentence each."""

    @property
    def cgroup_version(self) -> str:
        """docker's word: 1 or 2; "" without."""
        return str(self.cgroups.version or "")

    @property
    def is_hybrid(self) -> bool:
        """Are there cgroups of both versions?"""
        return self.cgroups.version == 1 and bool(self.cgroups.hidden)


def probe(config: Config) -> Means:
    """Ask this machine. Nothing is started but `--version` of each program."""
    engines = tuple((engine, version_of(engine)) for engine in all_of(config))
    host, groups, held = bundle.read_host(), hierarchy(), _conmon()
    warnings: list[str] = []
    default = ""
    try:
        default = find(config).name
    except LayerstoreError as error:
        warnings.append(f"No container can be run: {error.message}")
    warnings += [
        f"{engine.path} does not say its version: is it an OCI runtime?" for engine, said in engines if not said
    ]
    if not held:
        warnings.append("No container can be run in the background: conmon is not installed")
    warnings += _lacking(groups, host)
    refused = {kind: refusal(kind) for kind in Kind}
    own = [kind for kind in Kind if kind.is_own]
    if not any(refused[kind] is None for kind in own):
        reasons = "; ".join(reason[0] for kind in own if (reason := refused[kind]) is not None)
        warnings.append(f"No ports of containers can be published: {reasons}")
    security = {"name=seccomp,profile=builtin": host.seccomp, "name=apparmor": host.apparmor}
    return Means(
        engines=engines,
        default=default,
        conmon=held,
        init=os.path.basename(host.init or ""),
        criu=_version("criu"),
        cgroups=groups,
        cgroup_driver="cgroupfs" if groups.version else "none",
        security=tuple(name for name, is_there in security.items() if is_there),
        swap_limits=host.swap_limits and "memory" in groups.controllers,
        networks=tuple(kind.value for kind in Kind if refused[kind] is None),
        warnings=tuple(warnings),
    )


def _lacking(groups: Hierarchy, host: bundle.HostFacts) -> Iterator[str]:
    if os.geteuid() != 0:
        yield "Containers are run by root only: their trees are mounted"
    if not groups.version:
        yield "No cgroups are mounted at /sys/fs/cgroup: nothing can be limited, paused or counted"
    else:
        for controller, what in _LIMITS.items():
            if controller not in groups.controllers:
                yield f"No {what} limit support"
        if "memory" in groups.controllers and not host.swap_limits:
            yield "No swap limit support"
    if not host.seccomp:
        yield "No seccomp support: system calls of containers are not filtered"


def _conmon() -> str:
    try:
        return _version(os.fspath(conmon.find()))
    except LayerstoreError:
        return ""


def _version(program: str) -> str:
    """The first number of the form 1.2 that a program says with --version; "" if it is not there."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        return ""
    try:
        done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = re.search(r"\d+(\.\d+)+", done.stdout.decode(errors="replace"))
    return text[0] if text else ""
