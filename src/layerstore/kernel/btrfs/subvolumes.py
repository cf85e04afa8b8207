"""btrfs: subvolumes, snapshots, quota groups, and what its trees tell.

By ioctl; no program of btrfs-progs is run. Making and asking is free to all, the rest needs CAP_SYS_ADMIN in the
initial user namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.values import frozen

__all__ = [
    "QuotaState",
    "Subvolume",
    "create",
    "destroy",
    "enable_quota",
    "groups",
    "info",
    "is_read_only",
    "is_subvolume",
    "limit",
    "nested",
    "quota_state",
    "remove_group",
    "set_read_only",
    "snapshot",
    "written",
]

_TRIES = 8
"""How often a subvolume is found to hold others, when those are destroyed, before somebody must be making them."""


class QuotaState(Enum):
    """What a filesystem does about quotas."""

    OFF = "off"
    SIMPLE = "simple"
    """Each subvolume is counted what it wrote itself. Linux 6.7."""
    FULL = "qgroups"
    """Each is counted what it shares with no other. Snapshots take ten times as long."""


_STATES = {
    lib.LS_BTRFS_QUOTA_OFF: QuotaState.OFF,
    lib.LS_BTRFS_QUOTA_SIMPLE: QuotaState.SIMPLE,
    lib.LS_BTRFS_QUOTA_FULL: QuotaState.FULL,
}


@frozen
class Subvolume:
    """One subvolume. `created` is the transaction in which it was made, `changed` the last in which its tree was.

    `id` is never used again; `parent` is the UUID of what it is a snapshot of, None if it is none.
    """

    id: int
    created: int
    changed: int
    uuid: bytes
    parent: bytes | None


def create(path: Path | str) -> None:
    """Make an empty subvolume. Not durable by itself."""
    folder, name = _split(path)
    with opened(folder, FOLDER) as fd:
        _checked("ioctl(BTRFS_IOC_SUBVOL_CREATE_V2)", lib.ls_btrfs_create(fd, name.encode()), path)


def snapshot(source: Path | str, path: Path | str, *, read_only: bool = False, group: int = 0) -> None:
    """Make `path` a snapshot of the subvolume `source`: whole and on disk when this returns, whatever is dirty.

    `group` is the quota group of a higher level that it joins; 0: none.
    """
    folder, name = _split(path)
    with opened(source, FOLDER) as from_fd, opened(folder, FOLDER) as to_fd:
        answer = lib.ls_btrfs_snapshot(from_fd, to_fd, name.encode(), read_only, group)
        _checked("ioctl(BTRFS_IOC_SNAP_CREATE_V2)", answer, path)


def destroy(path: Path | str) -> bool:
    """Destroy a subvolume and those in it, at once; the space comes back later. False: there is nothing of that name.

    Neither open files nor the read-only flag are in the way. Not durable by itself.
    """
    folder, name = _split(path)
    with opened(folder, FOLDER) as fd:
        answer = lib.ls_btrfs_destroy(fd, name.encode())
        for _ in range(_TRIES):
            if answer != -errno.ENOTEMPTY:
                break
            with opened(path, FOLDER) as own:
                _destroy_inner(own, path)
            answer = lib.ls_btrfs_destroy(fd, name.encode())
    if answer == -errno.ENOENT:
        return False
    _checked("ioctl(BTRFS_IOC_SNAP_DESTROY_V2)", answer, path)
    return True


def info(folder: Path | str | int) -> Subvolume:
    """The subvolume that a folder lies in."""
    facts = ffi.new("struct ls_btrfs_subvolume *")
    _ask("ioctl(BTRFS_IOC_GET_SUBVOL_INFO)", lib.ls_btrfs_subvolume, folder, facts)
    parent = bytes(facts.parent_uuid)
    return Subvolume(facts.id, facts.created, facts.changed, bytes(facts.uuid), parent if any(parent) else None)


def is_read_only(subvolume: Path | str) -> bool:
    """Does the flag of a subvolume forbid to write in it?"""
    return bool(_ask("ioctl(BTRFS_IOC_SUBVOL_GETFLAGS)", lib.ls_btrfs_is_read_only, subvolume))


def is_subvolume(folder: Path | str) -> bool:
    """Is a folder of a btrfs a subvolume itself?"""
    with opened(folder, FOLDER) as fd:
        return bool(os.fstat(fd).st_ino == lib.LS_BTRFS_ROOT_INODE)


def set_read_only(subvolume: Path | str, *, to: bool = True) -> None:
    """Forbid to write in a subvolume; who has a file open writes on. Commits, but without data that is dirty.

    `to=False`: allow it.
    """
    _ask("ioctl(BTRFS_IOC_SUBVOL_SETFLAGS)", lib.ls_btrfs_set_read_only, subvolume, to)


def nested(folder: Path | str | int, subvolume: int | None = None) -> list[int]:
    """The IDs of the subvolumes that lie in one, by default in that of `folder`."""
    wanted = info(folder).id if subvolume is None else subvolume
    return _numbers(lib.ls_btrfs_nested, folder, wanted)


def written(subvolume: Path | str, since: int) -> tuple[int, int]:
    """How many inodes of a subvolume changed after the transaction `since`, and the bytes of new blocks in them.

    With 0 these are all its inodes and all their bytes. Data that is still dirty has no blocks.
    """
    inodes, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    _ask("ioctl(BTRFS_IOC_TREE_SEARCH_V2)", lib.ls_btrfs_written, subvolume, since, inodes, size)
    return int(inodes[0]), int(size[0])


# ---- quotas


def quota_state(folder: Path | str) -> QuotaState:
    """What the filesystem of `folder` does about quotas."""
    return _STATES[_ask("ioctl(BTRFS_IOC_TREE_SEARCH_V2)", lib.ls_btrfs_quota_state, folder)]


def enable_quota(folder: Path | str) -> QuotaState:
    """Switch quotas on for the whole filesystem of `folder`: simple ones where the kernel has them.

    It stays so; and a filesystem with simple quotas is no longer mounted by kernels before 6.7.
    """
    with opened(folder, FOLDER) as fd:
        answer = lib.ls_btrfs_quota_enable(fd, True)
        if answer == -errno.EINVAL:
            answer = lib.ls_btrfs_quota_enable(fd, False)
        if answer != -errno.EEXIST:  # another process was faster
            _checked("ioctl(BTRFS_IOC_QUOTA_CTL)", answer, folder)
    return quota_state(folder)


def limit(subvolume: Path | str, size: int) -> None:
    """Limit what a subvolume may write for itself; 0: no limit. The filesystem has its quotas on."""
    _ask("ioctl(BTRFS_IOC_QGROUP_LIMIT)", lib.ls_btrfs_group_limit, subvolume, info(subvolume).id, size)


def groups(folder: Path | str) -> list[int]:
    """The quota groups of single subvolumes, by the IDs of these, which may be gone."""
    return _numbers(lib.ls_btrfs_groups, folder)


def remove_group(folder: Path | str, group: int) -> bool:
    """Remove a quota group. False while its subvolume, or data that was counted for it, is there."""
    with opened(folder, FOLDER) as fd:
        answer = lib.ls_btrfs_group_remove(fd, group)
    if answer == -errno.EBUSY:
        return False
    if answer not in (-errno.ENOENT, -errno.ENOTCONN):  # it is gone; quotas are off
        _checked("ioctl(BTRFS_IOC_QGROUP_CREATE)", answer, folder)
    return True


# ---- private


def _split(path: Path | str) -> tuple[str, str]:
    folder, name = os.path.split(path)
    return folder or ".", name


def _destroy_inner(fd: int, path: Path | str) -> None:
    """Those in the subvolume `fd`, which programs in a container may have put into each other as deep as they liked."""
    found = nested(fd)
    for subvolume in found:
        found += nested(fd, subvolume)
    for subvolume in reversed(found):
        answer = lib.ls_btrfs_destroy_id(fd, subvolume)
        if answer not in (-errno.ENOENT, -errno.ENOTEMPTY):  # gone meanwhile; more came meanwhile: it is tried again
            _checked("ioctl(BTRFS_IOC_SNAP_DESTROY_V2)", answer, path)


def _ask(call: str, function: Callable[..., int], folder: Path | str | int, *arguments: Any) -> int:
    if isinstance(folder, int):
        return _checked(call, function(folder, *arguments), None)
    with opened(folder, FOLDER) as fd:
        return _checked(call, function(fd, *arguments), folder)


def _numbers(function: Callable[..., int], folder: Path | str | int, *arguments: int) -> list[int]:
    room = 64
    while True:
        found = ffi.new("uint64_t[]", room)
        count = _ask("ioctl(BTRFS_IOC_TREE_SEARCH_V2)", function, folder, *arguments, found, room)
        if count <= room:
            return list(found[0:count])
        room = count * 2


def _checked(call: str, answer: int, path: Path | str | None) -> int:
    if answer >= 0:
        return answer
    remedy = None
    if answer == -errno.EPERM:
        remedy = "This needs root (CAP_SYS_ADMIN), not that of a user namespace."
    elif answer in (-errno.ENOTTY, -errno.EINVAL):
        remedy = "Is this a subvolume of a btrfs?"
    elif answer == -errno.EDQUOT:
        remedy = "The quota of a subvolume is used up: free some of it, or raise the limit."
    raise KernelError(call, -answer, path=path, remedy=remedy)
