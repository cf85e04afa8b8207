"""A mount as data: what a driver says and the core does."""

from __future__ import annotations

import os
from contextlib import suppress

from layerstore.kernel.namespaces import IdMap
from layerstore.values import frozen

__all__ = ["AUFS", "EROFS", "FUSE_OVERLAYFS", "PAGE", "Mount", "OldKernel", "words_of"]

FUSE_OVERLAYFS = "fuse.fuse-overlayfs"
AUFS = "aufs"
EROFS = "erofs"

PAGE = 4096
"""Of options, for mount(2), its last byte a NUL; and of the kernel's words."""


@frozen
class Mount:
    """One filesystem to mount: `type`, `source`, and options in the kernel's words, in order.

    `lowerdir+` is given once a layer, topmost first, as in the kernel's new mount interface. The type `bind` shows the
    directory `source` a second time; `fuse.fuse-overlayfs` and `aufs` take their layers as overlay does (`upperdir`
    being aufs' writable branch); `erofs` takes a file as its source, and as each `device`. The options `noatime`,
    `nodev`, `nosuid`, `noexec` and `nodiratime` are those of the mount, for every type. `target` is None for the mount
    that becomes the tree itself, the last of its recipe; the absolute path of a folder for one that a later mount of
    the same recipe stands on. That one is seen there while the recipe is mounted and at no other time, and where the
    kernel allows it (by mount(2) it does not), by nobody else.
    `ids`: owners are shown as a user namespace with this map has them outside, and kept as within; of `overlay` and
    `bind` alone (`mapped`).
    """

    type: str
    source: str
    options: tuple[tuple[str, str | None], ...] = ()
    read_only: bool = False
    target: str | None = None
    ids: IdMap | None = None


class OldKernel(Exception):
    """The new mount interface cannot do it on this kernel."""


def words_of(context: int) -> str:
    """What the kernel wrote into the context's log: lines with a letter for their level in front."""
    lines = []
    with suppress(OSError):  # ENODATA: no more lines
        while True:
            lines.append(os.read(context, PAGE).decode(errors="replace").strip()[2:])
    return "; ".join(lines)
