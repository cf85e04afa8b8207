"""An epoch: the life of a filesystem between mount and unmount, in which times of change (ctime) can be believed.

Within it the kernel gives a file a new time at each write, also at one through memory; on some filesystems only, which
are named here. Across its end there may have been a power cut, after which a file has its new bytes and its old times.
What a program notes about times is true in the epoch of the note, and nowhere else.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import UUID

from layerstore.errors import named
from layerstore.kernel.files import filesystem_type
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.mounts.table import boot_id

__all__ = ["epoch_of"]

_KEEPERS = ("ext4", "xfs", "btrfs")
"""Filesystems that are told of each page that is about to be written. tmpfs is not: a page that was read through
memory is then written to without a new time. overlayfs and fuse are as what they lie on, nfs as its server."""

_FS_INFO = 0x8400941F  # BTRFS_IOC_FS_INFO; linux/btrfs.h
_FS_INFO_SIZE = 1024
_FS_INFO_FSID = slice(16, 32)


def epoch_of(folder: Path) -> str | None:
    """The epoch of the filesystem that a folder lies on, one word; None where times tell nothing.

    It is the same in every mount namespace. sysfs has a folder for each filesystem that is mounted, made with it and
    gone with it, and no number of one is used twice in a boot. Without sysfs nothing is known.
    """
    kind = filesystem_type(folder)
    if kind not in _KEEPERS:
        return None
    try:
        place = f"/sys/fs/{kind}/{_name_of(folder, kind)}"
        return f"{boot_id()}.{os.stat(place).st_ino}"
    except FileNotFoundError:
        return None


def _name_of(folder: Path, kind: str) -> str:
    if kind == "btrfs":  # whose device numbers are those of its subvolumes
        facts = bytearray(_FS_INFO_SIZE)
        with opened(folder, FOLDER) as fd, named("ioctl(BTRFS_IOC_FS_INFO)", folder):
            fcntl.ioctl(fd, _FS_INFO, facts)
        return str(UUID(bytes=bytes(facts[_FS_INFO_FSID])))
    device = os.stat(folder).st_dev
    return os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
