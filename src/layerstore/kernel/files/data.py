"""The data of a file: shared with another, copied, or written in place."""

from __future__ import annotations

import errno

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib

__all__ = ["clone_file", "copy_data", "write_in_place"]


def write_in_place(fd: int) -> bool:
    """Let an empty file be written to in place: on btrfs, without copy on write. False where there is no choice."""
    answer = lib.ls_write_in_place(fd)
    return bool(answer == 0)


def clone_file(source: int, target: int) -> bool:
    """Let one file share all blocks of another (FICLONE). False where the filesystem cannot."""
    answer = lib.ls_clone_file(source, target)
    if answer in (-errno.EOPNOTSUPP, -errno.EXDEV, -errno.EINVAL, -errno.ENOTTY, -errno.ENOSYS):
        return False
    if answer < 0:
        raise KernelError("ioctl(FICLONE)", -answer)
    return True


def copy_data(source: int, target: int) -> int:
    """Copy all data into an empty file, sharing blocks where that is possible; holes stay holes. Returns the size."""
    answer: int = lib.ls_copy_data(source, target)
    if answer < 0:
        raise KernelError("copy_file_range", -answer)
    return answer
