"""Files of a container's tree, read such that nothing in it leads to the host's files or does anything."""

from __future__ import annotations

import errno
import os
import stat

from layerstore import KernelError, open_beneath

__all__ = ["text"]

_LARGEST = 16 << 20
"""More than any file of /etc has; a hostile image shall not fill the memory."""

_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def text(tree: int, path: str) -> str:
    """What a file says; "" if there is none, or something else. Raises `KernelError`."""
    try:
        handle = open_beneath(tree, path, os.O_PATH)
    except KernelError as error:
        if error.errno in _NOTHING_THERE:
            return ""
        raise
    try:
        # Looked at before it is opened, so that no device of an image does anything.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        with open(f"/proc/self/fd/{handle}", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise KernelError("read", error.errno or errno.EIO, path=path) from None
    finally:
        os.close(handle)
