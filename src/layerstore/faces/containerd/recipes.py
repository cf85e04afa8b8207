"""Which mounts can be left to containerd, and how it is told of them; all others are made here, and lent as a bind.

containerd mounts by mount(2): one mount, whose options are one string that has to fit in a page, and in which overlay
takes colons for what is between two layers. It joins options with commas. So one mount of overlay, or one bind, of
paths without these signs, is what everybody who takes containerd's mounts can do, docker and runc's shim among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from layerstore.driver import Mount
from layerstore.values import frozen

__all__ = ["Plain", "bind", "plain"]

_ROOM: Final = 4096 - 512
"""Of a page, what options may take: containerd adds flags of its own, and leaves as much."""
_FLAGS: Final = frozenset({"noatime", "nodev", "nosuid", "noexec", "nodiratime"})


@frozen
class Plain:
    """A mount as containerd has it: options as in fstab."""

    type: str
    source: str
    options: tuple[str, ...]


def bind(path: Path | str, *, read_only: bool) -> Plain:
    """What shows a folder a second time, with all that is mounted in it."""
    return Plain("bind", str(path), ("rbind", "ro" if read_only else "rw"))


def plain(mounts: Sequence[Mount]) -> Plain | None:
    """The one mount that containerd can make of a recipe; None if it cannot."""
    if len(mounts) != 1 or mounts[0].ids is not None:
        return None
    [mount] = mounts
    if mount.type == "bind" and all(name in _FLAGS and value is None for name, value in mount.options):
        made = bind(mount.source, read_only=mount.read_only)
        return Plain(made.type, made.source, (*made.options, *(name for name, _ in mount.options)))
    return _overlay(mount) if mount.type == "overlay" else None


def _overlay(mount: Mount) -> Plain | None:
    lowers = [value for name, value in mount.options if name == "lowerdir+" and value is not None]
    others = [(name, value) for name, value in mount.options if name != "lowerdir+"]
    texts = [*lowers, *(value for _, value in others if value is not None)]
    if not lowers or any(sign in text for text in texts for sign in ",:\\"):
        return None
    options = (
        *(("ro",) if mount.read_only else ()),
        f"lowerdir={':'.join(lowers)}",
        *(name if value is None else f"{name}={value}" for name, value in others),
    )
    return Plain("overlay", "overlay", options) if len(",".join(options).encode()) < _ROOM else None
