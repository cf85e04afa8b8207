"""The storage-opts of `overlay2`, and its one limit."""

from __future__ import annotations

import re

from attrs import field, frozen

from layerstore import options

MAX_DEPTH = 500
"""Lower directories of one overlay mount (OVL_MAX_STACK of the kernel)."""

_PART = re.compile(r'(?:[^,"]|"[^"]*")+')
"""Between commas, except those in quotes: SELinux labels have some."""

_OWN = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "index", "metacopy", "redirect_dir", "volatile")


def _mount_options(value: str | tuple[tuple[str, str | None], ...]) -> tuple[tuple[str, str | None], ...]:
    if isinstance(value, tuple):
        return value
    chosen: list[tuple[str, str | None]] = []
    for part in _PART.findall(value):
        key, has_value, text = part.strip().replace('"', "").partition("=")
        if key in _OWN:
            raise ValueError(f"options of the mount such as nodev,noatime; not {key}, which the driver sets itself")
        chosen.append((key, text if has_value else None))
    return tuple(chosen)


@frozen
class Settings:
    """`overlay2.size=10G` and so on.

    `size`: the most that a container may write (needs project quotas). `metacopy`: chmod and chown copy no data.
    `redirect_dir`: directories of lower layers can be renamed. `volatile`: what a container wrote is not synced when it
    is unmounted; after a crash of the machine it cannot be mounted again. `mountopt`: more options, as for mount(8).
    """

    size: int | None = field(default=None, converter=options.size)
    metacopy: bool = field(default=False, converter=options.switch)
    redirect_dir: bool = field(default=False, converter=options.switch)
    volatile: bool = field(default=False, converter=options.switch)
    mountopt: tuple[tuple[str, str | None], ...] = field(default=(), converter=_mount_options)
