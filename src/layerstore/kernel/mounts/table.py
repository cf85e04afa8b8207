"""The mount table: what is mounted where, in this namespace and in others.

A mount is known by its ID, which Linux never uses twice in one boot (since 6.8). It answers "is this mount still there"
for the price of one stat; a list of all is read only where it is wanted.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from layerstore.errors import KernelError, named
from layerstore.kernel._shim import ffi, lib

__all__ = [
    "boot_id",
    "facts_of",
    "id_of",
    "mount_id",
    "mount_namespace",
    "mountinfo",
    "mounts_below",
    "namespace_holds",
    "processes",
    "processes_with",
    "unescape",
]

_HERE = -100  # AT_FDCWD
_LONGEST = 4 * 4096  # of a mountpoint's name, bytes
_NOT_TO_BE_SEEN = (errno.ENOENT, errno.EPERM, errno.EACCES, errno.EOVERFLOW)
"""A mount that went away meanwhile, that is out of reach, or whose name no call takes."""


def mount_id(path: Path | str) -> int | None:
    """The ID of the mount whose root `path` is; None if nothing is mounted there, or `path` does not exist.

    Since Linux 6.8 no ID is ever used twice in one boot. Before, it may be, after an unmount. Raises `KernelError`
    where a disk that fails keeps that from being known.
    """
    facts = facts_of(path, certain=True)
    return int(facts.id) if facts is not None and facts.is_root else None


def mounts_below(folder: Path) -> list[tuple[int, Path]]:
    """ID and place of each mount below `folder` in this mount namespace, the latest last: unmount in reverse."""
    real = os.path.realpath(folder)
    facts = facts_of(real)
    if facts is None:
        return []
    prefix = os.fsencode(real).rstrip(b"/") + b"/"
    listed = _listed(facts.id) if facts.unique else None
    if listed is None:
        listed = _from_mountinfo()
    return [(number, Path(os.fsdecode(place))) for number, place in listed if place.startswith(prefix)]


@cache
def boot_id() -> str:
    """The kernel's name for this boot. What was mounted in another one is not mounted now."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def mount_namespace() -> int:
    """The number of this process's mount namespace. Raises `KernelError`."""
    with named("stat", "/proc/self/ns/mnt"):
        return os.stat("/proc/self/ns/mnt").st_ino


def namespace_holds(namespace: int, mountpoint: Path) -> int | None:
    """A process of that mount namespace, if there is one and something is mounted at `mountpoint` there."""
    wanted = os.fsencode(mountpoint)
    for process in processes():
        with suppress(OSError):
            if os.stat(f"/proc/{process}/ns/mnt").st_ino == namespace and any(
                place == wanted for _, _, place in mountinfo(process)
            ):
                return process
    return None


def processes() -> Iterator[int]:
    """All processes that can be seen."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def processes_with(file: Path) -> list[int]:
    """The processes that have a file open, of those that can be looked into."""
    wanted = os.path.realpath(file)
    found = []
    for process in processes():
        with suppress(OSError):
            folder = f"/proc/{process}/fd"
            if any(os.readlink(f"{folder}/{number}") == wanted for number in os.listdir(folder)):
                found.append(process)
    return found


def mountinfo(process: int | str = "self") -> Iterator[tuple[int, bytes, bytes]]:
    """Old ID, device and mountpoint of each mount that a process sees."""
    with open(f"/proc/{process}/mountinfo", "rb") as lines:
        for line in lines:
            fields = line.split(b" ", 5)
            yield int(fields[0]), fields[2], unescape(fields[4])


def facts_of(
    path: Path | str | bytes, *, follow: bool = False, old_id: bool = False, certain: bool = False
) -> Any | None:
    """`struct ls_mount_facts` of what `path` names; None if it does not exist, or is not to be seen.

    `certain`: what cannot be read is not taken for that; among the mounts of others there may be any.
    """
    facts = ffi.new("struct ls_mount_facts *")
    flags = (lib.LS_FOLLOW if follow else 0) | (lib.LS_OLD_ID if old_id else 0)
    answer = lib.ls_mount_of(_HERE, os.fsencode(path), flags, facts)
    if answer == -errno.EOPNOTSUPP:
        raise KernelError("statx", -answer, path=path, remedy="This needs Linux 5.8 or later.")
    if answer == -errno.ENOMEM or (certain and answer == -errno.EIO):  # which says nothing of what is there
        raise KernelError("statx", -answer, path=path)
    return facts if answer >= 0 else None


def id_of(fd: int) -> int:
    """The ID of the mount that a descriptor lies on."""
    facts = ffi.new("struct ls_mount_facts *")
    answer = lib.ls_mount_of(fd, b"", 0, facts)
    if answer < 0:
        raise KernelError("statx", -answer)
    return int(facts.id)


def _listed(under: int) -> list[tuple[int, bytes]] | None:
    """ID and place of all mounts below a mount, in the order of their making; None where there is no listmount."""
    room = 512
    ids = ffi.new("uint64_t[]", room)
    place = ffi.new("char[]", _LONGEST)
    found: list[tuple[int, bytes]] = []
    after = 0
    while True:
        count = lib.ls_mounts_under(under, after, ids, room)
        if count < 0:
            return None
        for position in range(count):
            number = int(ids[position])
            length = lib.ls_mountpoint(number, place, len(place))
            if length > 0:
                found.append((number, ffi.buffer(place, length)[:]))
            elif length < 0 and -length not in _NOT_TO_BE_SEEN:
                raise KernelError("statmount", -length)
        if count < room:
            return found
        after = int(ids[room - 1])


def _from_mountinfo() -> list[tuple[int, bytes]]:
    found = []
    for old_id, _, place in mountinfo():
        facts = facts_of(place)
        found.append((int(facts.id) if facts is not None and facts.is_root else old_id, place))
    return found


def unescape(text: bytes) -> bytes:
    """A name as mountinfo writes it: space, tab, newline and backslash are octal there."""
    if b"\\" not in text:
        return text
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)
