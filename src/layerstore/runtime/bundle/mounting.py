"""What is mounted, in order (runtime-spec config.md, "Mounts"): docker's defaults, then what was asked for."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from layerstore import ConfigError
from layerstore.runtime.bundle.host import HostFacts
from layerstore.runtime.bundle.values import Bind, Place
from layerstore.runtime.options import MountOption, RunOptions

__all__ = ["INIT", "listed"]

INIT = "/dev/init"
"""Where the program of `--init` is seen: /dev is the container's own, so nothing of it stays in a layer."""

_SHM = 64 << 20
"""docker's /dev/shm."""

_FLAGS = {
    "exec": "noexec",
    "suid": "nosuid",
    "dev": "nodev",
    "rw": "ro",
    "atime": "noatime",
    "diratime": "nodiratime",
    "sync": "async",
}
_PAIRS = _FLAGS | {no: yes for yes, no in _FLAGS.items()}
"""Of two that exclude each other, the last counts."""

_WORDS = frozenset(_PAIRS) | {
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "dirsync",
    "remount",
    "defaults",
}
_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})
_PROPAGATIONS = frozenset({"private", "slave", "shared", "unbindable"})


def listed(
    options: RunOptions, host: HostFacts, place: Place, binds: Sequence[Bind], *, files: Iterable[str]
) -> list[dict[str, Any]]:
    """All mounts; `files` are the names in `place.files` that take the place of those in /etc.

    What a user mounts takes the place of a default there. A mount comes after those that it lies in.
    """
    asked = {_clean(bind.target): _bind(bind) for bind in binds}
    for mount in options.mounts:
        if mount.kind == "tmpfs":
            asked[_clean(mount.target)] = _tmpfs(mount)
    if "/" in asked:
        raise ConfigError(
            "invalid mount config: destination can't be '/'", remedy="Name a folder of the container to mount at."
        )
    usual = [mount for mount in _usual(options, host, place) if not _within(mount["destination"], asked)]
    access = "ro" if options.read_only else "rw"
    etc = [
        _mount(f"/etc/{name}", "bind", f"{place.files}/{name}", ["bind", "rprivate", access])
        for name in files
        if f"/etc/{name}" not in asked
    ]
    ordered = sorted([*etc, *asked.values()], key=lambda mount: mount["destination"].count("/"))
    init = []
    if options.init and host.init is not None and "/dev" not in asked:
        init = [_mount(INIT, "bind", host.init, ["bind", "rprivate", "ro"])]
    return [*usual, *ordered, *init]


def _within(path: str, asked: Mapping[str, object]) -> bool:
    """Does the user mount something there, or at a folder of /dev's mounts above it?"""
    return path in asked or (path.startswith("/dev/") and "/dev" in asked)


def _usual(options: RunOptions, host: HostFacts, place: Place) -> Iterator[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    access = "rw" if options.privileged else "ro"
    yield _mount("/proc", "proc", "proc", quiet)
    yield _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"])
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    yield _mount("/dev/pts", "devpts", "devpts", terminals)
    yield _mount("/sys", "sysfs", "sysfs", [*quiet, access])
    if host.cgroup:
        yield _mount("/sys/fs/cgroup", "cgroup", "cgroup", [access, *quiet])
    yield _mount("/dev/mqueue", "mqueue", "mqueue", quiet)
    if options.ipc == "none":
        return
    if place.namespaces.get("ipc") == "" or place.shm:
        yield _mount("/dev/shm", "bind", place.shm or "/dev/shm", ["rbind", "rprivate", *quiet])
    else:
        size = _SHM if options.shm_size is None else options.shm_size
        if size <= 0:
            raise ConfigError("SHM size can not be less than 0", remedy="Give --shm-size more than that.")
        yield _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={size}"])


def _mount(target: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _bind(bind: Bind) -> dict[str, Any]:
    propagation = bind.propagation or "rprivate"
    if propagation.removeprefix("r") not in _PROPAGATIONS:
        raise ConfigError(
            f"invalid propagation mode: {propagation}",
            remedy="It is private, slave or shared, each with r before it or not.",
        )
    options = ["rbind" if bind.recursive else "bind", propagation, "ro" if bind.read_only else "rw"]
    return _mount(_clean(bind.target), "bind", bind.source, options)


def _tmpfs(mount: MountOption) -> dict[str, Any]:
    """A tmpfs; docker's flags are beneath those that were given."""
    kept: list[str] = []
    for option in ("noexec", "nosuid", "nodev", "ro" if mount.read_only else "rw", *mount.options):
        name, separator, _ = option.partition("=")
        if not (name in _VALUES if separator else name in _WORDS):
            raise ConfigError(f"invalid tmpfs option {option!r}", remedy="mount(8) lists those of tmpfs.")
        if separator:
            kept = [other for other in kept if other.partition("=")[0] != name]
        else:
            kept = [other for other in kept if other not in (name, _PAIRS.get(name))]
        kept.append(option)
    return _mount(_clean(mount.target), "tmpfs", "tmpfs", kept)


def _clean(target: str) -> str:
    """The path without what means nothing; it has to be absolute."""
    if not target.startswith("/"):
        raise ConfigError(f"invalid mount path: '{target}' mount path must be absolute", remedy="Begin it with a /.")
    return posixpath.normpath("/" + target.lstrip("/"))
