"""Can vfs work in this folder, and does its filesystem share blocks? Tried with a nameless file: nothing is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from layerstore.driver import Backing, CopyOnWrite
from layerstore.errors import DriverNotSupported
from layerstore.kernel import files
from layerstore.kernel.mounts.trial import nearest_folder, trial_folder
from layerstore.kernel.namespaces import is_within
from layerstore_vfs.settings import Copy, Settings

_DOCKER_NAMES = {"ext4": "extfs", "fuse": "fuseblk"}

_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)

# CAP_NET_RAW, as a file capability of version 2 (linux/capability.h).
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

_SHARED = "reflink: a child shares its blocks with its parent until they are written; what it costs at once is inodes"
_FULL = "copy_file_range: each layer and container occupies as much as its whole tree"
_APART = "read and write, as vfs.copy says: each layer and container occupies as much as its whole tree"


def probe(home: Path, options: Settings) -> Backing:
    """See `StorageDriver.probe`."""
    folder = nearest_folder(home)
    filesystem = files.filesystem_type(folder)
    _try_attributes(folder, filesystem)
    shared = files.can_reflink(folder)
    if options.copy is Copy.REFLINK and not shared:
        raise DriverNotSupported(
            f"vfs.copy=reflink: files on {filesystem} ({folder}) cannot share blocks",
            remedy="Put the data-root on btrfs, or on xfs made with `mkfs.xfs -m reflink=1`; or leave vfs.copy out.",
        )
    shared = shared and options.copy is not Copy.COPY
    return Backing(
        filesystem=filesystem,
        copy_on_write=CopyOnWrite.BLOCK if shared else CopyOnWrite.NONE,
        quota=False,
        notes=(
            ("Backing Filesystem", _DOCKER_NAMES.get(filesystem, filesystem)),
            ("Copy", _SHARED if shared else _APART if options.copy is Copy.COPY else _FULL),
            ("Copy threads", str(options.threads)),
        ),
    )


def _try_attributes(folder: Path, filesystem: str) -> None:
    """Whatever a layer's file may have: an owner, a time, xattrs of root's; or, in a user namespace, notes of them."""
    try:
        fd = _nameless(folder)
        try:
            if is_within():
                os.setxattr(fd, "user.layerstore.trusted.layerstore", b"y")
            else:
                os.fchown(fd, 1, 1)
                os.setxattr(fd, "trusted.layerstore", b"y")
            os.setxattr(fd, "security.capability", _CAPABILITY)
        finally:
            os.close(fd)
    except OSError as error:
        number = error.errno or errno.EIO
        remedy: str | None
        if number in (errno.EPERM, errno.EACCES):
            reason = f"vfs has to keep owners and capabilities of files, and may not in {folder}"
            remedy = (
                "Storing layers needs root (CAP_SYS_ADMIN), at least in a user namespace: call layerstore.unshare() "
                "first, or use `layerstore unshare`, sudo, or a privileged container."
            )
        elif number == errno.EOPNOTSUPP:
            reason = f"{filesystem} ({folder}) keeps no extended attributes of root's"
            remedy = "Put the data-root on ext4, xfs or btrfs."
        else:
            reason = f"cannot write to {folder}: {os.strerror(number)}"
            remedy = "Free some space there." if number in (errno.ENOSPC, errno.EDQUOT) else None
        raise DriverNotSupported(reason, remedy=remedy, errno=number) from None


def _nameless(folder: Path) -> int:
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    with trial_folder(folder) as place:
        return os.open(place / "file", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
