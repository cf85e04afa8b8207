"""The data of a file: shared with another, copied, or written in place."""

from __future__ import annotations

import errno

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib

__all__ = ["clone_file", "copy_data", "share_data", "share_range", "write_in_place"]


_CANNOT = (-errno.EOPNOTSUPP, -errno.EXDEV, -errno.EINVAL, -errno.ENOTTY, -errno.ENOSYS)
"""What filesystems answer that share no blocks, or not of these two files."""


def write_in_place(fd: int) -> bool:
    """Let an empty file be written to in place: on btrfs, without copy on write. False where there is no choice."""
    answer = lib.ls_write_in_place(fd)
    return bool(answer == 0)


def clone_file(source: int, target: int) -> bool:
    """Let one file share all blocks of another (FICLONE). False where the filesystem cannot."""
    answer = lib.ls_clone_file(source, target)
    if answer in _CANNOT:
        return False
    if answer < 0:
        raise KernelError("ioctl(FICLONE)", -answer)
    return True


def share_data(source: int, target: int) -> int | None:
    """Let a file have the blocks of another in place of its own, where both hold the same bytes (FIDEDUPERANGE).

    The kernel compares them, and neither changes. Returns the bytes that are shared; None where the filesystem cannot.
    """
    answer: int = lib.ls_share_data(source, target)
    if answer in _CANNOT:
        return None
    if answer < 0:
        raise KernelError("ioctl(FIDEDUPERANGE)", -answer)
    return answer


def share_range(source: int, begin: int, target: int, at: int, length: int) -> int:
    """Have a range of whole blocks kept once, if both files have the same bytes there, which the kernel looks at.

    Returns how many bytes were the same (FIDEDUPERANGE, ioctl_fideduperange(2)); 0 where they differ.
    """
    answer: int = lib.ls_share_range(source, begin, target, at, length)
    if answer < 0:
        raise KernelError("ioctl(FIDEDUPERANGE)", -answer)
    return answer


def copy_data(source: int, target: int) -> int:
    """Copy all data into an empty file, sharing blocks where that is possible; holes stay holes. Returns the size."""
    answer: int = lib.ls_copy_data(source, target)
    if answer < 0:
        raise KernelError("copy_file_range", -answer)
    return answer
