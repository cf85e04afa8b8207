"""What a filesystem is, and what it can do."""

from __future__ import annotations

import os
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.files.data import clone_file
from layerstore.kernel.files.descriptors import FOLDER, opened

__all__ = ["can_reflink", "filesystem_type", "lists_types", "type_of"]

# linux/magic.h, and fs/*/ for those that are not in it.
_FILESYSTEMS = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0xF15F: "ecryptfs",
    0x61756673: "aufs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x00C36400: "ceph",
    0x01021997: "9p",
    0x47504653: "gpfs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x858458F6: "ramfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x52654973: "reiserfs",
    0x3153464A: "jfs",
}


def filesystem_type(path: Path) -> str:
    """The kernel's name for the filesystem that `path` lies on; `0x…` if it is a rare one. ext2 and ext3 are ext4."""
    with opened(path, os.O_PATH) as fd:
        return type_of(fd)


def lists_types(folder: Path) -> bool:
    """Does the filesystem list its entries with their types (d_type)? Overlay needs it."""
    with opened(folder, FOLDER) as fd:
        answer = lib.ls_lists_types(fd)
    if answer < 0:
        raise KernelError("getdents64", -answer, path=folder)
    return bool(answer)


def can_reflink(folder: Path) -> bool:
    """Can files in `folder` share blocks? Tried with two nameless files: nothing is left."""
    nameless = os.O_TMPFILE | os.O_RDWR
    try:
        with opened(folder, nameless) as source, opened(folder, nameless) as target:
            os.write(source, bytes(4096))
            return clone_file(source, target)
    except (OSError, KernelError):
        return False


def type_of(fd: int) -> str:
    """`filesystem_type`, of what a descriptor is open on."""
    magic: int = lib.ls_filesystem_magic(fd)
    if magic < 0:
        raise KernelError("fstatfs", -magic)
    return _FILESYSTEMS.get(magic, f"{magic:#x}")
