"""Mounts of the kernel's aufs, which is no part of the kernel's own tree: some distributions added it.

It takes its branches by mount(2) alone, a page of options at a time: what does not fit is appended by remounts, one
branch each. What to call is decided by `calls`, a pure function; nothing here has ever met a kernel with aufs.
"""

from __future__ import annotations

import errno
import os

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.mounts.recipe import Mount

__all__ = ["REMOUNT", "calls", "mount_branches"]

REMOUNT = 32
"""MS_REMOUNT."""

_PAGE = 4096
"""Of options for one mount(2), the last byte a NUL."""

_MARKS = b":,="
"""What aufs reads in a list of branches as its own. It knows no escape."""

_ATTRIBUTES = frozenset({"noatime", "nodev", "nosuid", "noexec", "nodiratime"})


def calls(mount: Mount) -> list[tuple[int, bytes]]:
    """Flags and options of each mount(2), in order.

    `upperdir` is the writable branch. The others are `ro+wh`: read-only, with whiteouts that count.
    """
    branches: list[bytes] = []
    others: list[bytes] = []
    for key, value in mount.options:
        if key in ("upperdir", "lowerdir+") and value is not None:
            name = os.fsencode(value)
            if any(mark in _MARKS for mark in name):
                raise KernelError(
                    "mount",
                    errno.EINVAL,
                    path=value,
                    detail="aufs takes no branch with a colon, comma or equals sign in its name",
                    remedy="Put the layers into a folder without one.",
                )
            if key == "upperdir":
                branches.insert(0, name + b"=rw")
            else:
                branches.append(name + b"=ro+wh")
        elif value is not None:
            others.append(os.fsencode(f"{key}={value}"))
        elif key not in _ATTRIBUTES:
            others.append(key.encode())
    room = _PAGE - 1 - sum(len(part) + 1 for part in others)
    first = b"br:" + branches[0]
    at = 1
    while at < len(branches) and len(first) + 1 + len(branches[at]) <= room:
        first += b":" + branches[at]
        at += 1
    return [(0, b",".join([first, *others])), *((REMOUNT, b"append:" + branch) for branch in branches[at:])]


def mount_branches(mount: Mount, target: bytes, attributes: int) -> int:
    """Mount it at `target`. 0, or -errno of the call that failed; then nothing is mounted."""
    answer = 0
    for number, (flags, data) in enumerate(calls(mount)):
        if flags & REMOUNT:
            answer = lib.ls_remount(target, b"aufs", attributes, data)
        else:
            answer = lib.ls_mount(os.fsencode(mount.source), target, b"aufs", attributes, data)
        if answer < 0:
            if number:
                lib.ls_unmount(target, True)
            break
    return int(answer)
