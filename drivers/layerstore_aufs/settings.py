"""The storage-opts of `aufs`."""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen

MAX_BRANCHES = 127
"""Of one mount of the kernel's aufs, the writable one counted, unless it was built for more (AUFS_BRANCH_MAX_127)."""

ATTRIBUTES = frozenset({"noatime", "nodev", "nosuid", "noexec", "nodiratime"})
"""Options of any mount. All others are for the kernel's aufs or for fuse-overlayfs alone."""

_OWN = frozenset({"br", "append", "lowerdir", "lowerdir+", "upperdir", "workdir", "xino", "dio", "noplink", "plink"})


class Mode(Enum):
    """How a stack becomes a tree."""

    KERNEL = "kernel"
    FUSE = "fuse"
    COPY = "copy"


AUTO = (Mode.KERNEL, Mode.COPY)
"""What is tried where no mode is named: what gives each layer the digest that every other driver gives it."""


def _mode(value: str | Mode | None) -> Mode | None:
    if value is None or isinstance(value, Mode):
        return value
    text = value.strip().lower()
    if text == "auto":
        return None
    if text not in [mode.value for mode in Mode]:
        raise ValueError("auto, kernel, fuse or copy")
    return Mode(text)


def _mount_options(value: str | tuple[tuple[str, str | None], ...]) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, tuple):
        return value
    chosen: list[tuple[str, str | None]] = []
    for part in value.split(","):
        key, has_value, text = part.strip().partition("=")
        if not key or key.partition(":")[0] in _OWN:
            raise ValueError(f"options of the mount such as nodev,dirperm1; not {key!r}, which the driver sets itself")
        chosen.append((key, text if has_value else None))
    return tuple(chosen)


@frozen
class Settings:
    """`aufs.mode=fuse` and so on.

    `mode`: `kernel`, `fuse` or `copy`; `auto` (None) takes the kernel's aufs where there is one, else copies.
    `mountopt`: more options, as for mount(8), such as aufs' `dirperm1`.
    """

    mode: Mode | None = field(default=None, converter=_mode)
    mountopt: tuple[tuple[str, str | None], ...] = field(default=(), converter=_mount_options)
