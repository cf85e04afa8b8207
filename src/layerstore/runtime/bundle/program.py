"""Is there the program that a container is to execute? Engines tell it late, and on the container's own streams.

Only what surely cannot be executed is told. What somebody has mounted, or a link that leads nowhere yet, may have it:
that is the engine's to find.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final

from layerstore import KernelError, open_beneath

__all__ = ["unfit"]

_USUAL: Final = frozenset(
    {
        *("/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/dev/init"),
        *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"),
    }
)
"""What is mounted in every container."""
_COVERED: Final = ("/proc", "/sys", "/dev")
"""Folders of which the tree does not say what the container sees there."""

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)
_NOTHING: Final = 0
_FOLDERS: Final = 32
_DEPTH: Final = 16
"""The most folders of PATH, and the longest names, that are looked at: an image may say as many as it likes."""


def unfit(tree: int, config: Mapping[str, Any]) -> str | None:
    """What docker says of a program that the tree, a descriptor, does not have, or that nobody may execute.

    None if it may be there. `config` is a bundle's.
    """
    process = config["process"]
    name, cwd = process["args"][0], process["cwd"]
    if any(mount["destination"] not in _USUAL for mount in config.get("mounts", ())):
        return None
    if "/" in name:
        mode = _mode(tree, posixpath.join(cwd, name))
        if mode == _NOTHING:
            return f'exec: "{name}": stat {name}: no such file or directory'
        if mode is None or (stat.S_ISREG(mode) and mode & 0o111):
            return None
        return f'exec: "{name}": {"is a directory" if stat.S_ISDIR(mode) else "permission denied"}'
    path = next((entry[5:] for entry in process["env"] if entry.startswith("PATH=")), None)
    if path is None:  # engines have their own for that
        return None
    places = list(dict.fromkeys(posixpath.join(cwd, folder, name) for folder in path.split(":")))
    if len(places) > _FOLDERS or any(_mode(tree, place) != _NOTHING for place in places):
        return None
    return f'exec: "{name}": executable file not found in $PATH'


def _mode(tree: int, path: str) -> int | None:
    """The mode of what is at a path, or `_NOTHING`; None if that depends on what is mounted."""
    if path.count("/") > _DEPTH:
        return None
    try:
        facts = _found(tree, path)
        if facts is not None and stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o111:
            return facts.st_mode  # wherever it lies: it is not refused
        covered = [one for folder in _COVERED if (one := _found(tree, folder)) is not None]
        for above in _above(path):
            seen = _found(tree, above)
            if seen is None and _found(tree, above, follow=False) is not None:
                return None  # a link that leads to nothing that the tree has
            if seen is not None and any(os.path.samestat(seen, other) for other in covered):
                return None
        if facts is None and _found(tree, path, follow=False) is not None:
            return None
    except KernelError:
        return None
    return _NOTHING if facts is None else facts.st_mode


def _above(path: str) -> Iterator[str]:
    """The folders on the way to a path, the lowest first."""
    parts = path.split("/")
    for count in range(len(parts) - 1, 0, -1):
        yield "/".join(parts[:count]) or "/"


def _found(tree: int, path: str, *, follow: bool = True) -> os.stat_result | None:
    """What is at a path of the tree; None if nothing is. Raises `KernelError`."""
    try:
        fd = open_beneath(tree, path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except KernelError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
