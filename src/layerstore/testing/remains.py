"""What a driver has about it, to be compared with later: what it leaves behind is then known by its name.

Everything that can leak: paths of its home and of its staging folder, mounts, loop devices, quota groups, and this
process's open descriptors.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from attrs import fields

from layerstore.driver import StorageDriver
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.btrfs import QuotaState
from layerstore.kernel.files import filesystem_type
from layerstore.testing.filesystems import loop_devices, mountpoints
from layerstore.values import frozen

__all__ = ["Remains", "descriptors", "paths_below"]

_FLEETING = ("socket:", "pipe:", "anon_inode:", "/proc/", "/dev/")
"""Descriptors of the test run itself come and go."""


@frozen
class Remains:
    """What there is at one moment."""

    home: tuple[str, ...]
    staging: tuple[str, ...]
    mounts: tuple[str, ...]
    loops: tuple[str, ...]
    groups: tuple[int, ...]
    descriptors: tuple[str, ...]

    @classmethod
    def of(cls, driver: StorageDriver) -> Remains:
        """What this driver, in this process, has now."""
        root = driver.home.parent
        return cls(
            home=tuple(paths_below(driver.home)),
            staging=tuple(sorted(os.listdir(driver.staging))),
            mounts=tuple(name for name in mountpoints() if Path(name).is_relative_to(root)),
            loops=tuple(loop_devices(root)),
            groups=_groups(driver.home),
            descriptors=tuple(descriptors()),
        )

    def more_than(self, before: Remains, *, ignoring: Collection[str] = ()) -> list[str]:
        """What there is now and was not then, one line each. `ignoring`: names of parts, as `home`."""
        lines = []
        for one in fields(Remains):
            if one.name not in ignoring:
                new = Counter(getattr(self, one.name)) - Counter(getattr(before, one.name))
                lines += [f"{one.name}: {item}" for item in new.elements()]
        return lines


def paths_below(folder: Path) -> list[str]:
    """All paths in a folder, for what must not grow."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def descriptors() -> list[str]:
    """What this process has open: files, by their paths."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
        if not target.startswith(_FLEETING):
            found.append(target)
    return sorted(found)


def _groups(home: Path) -> tuple[int, ...]:
    """Quota groups of a whole btrfs: tests beside this one have others."""
    try:
        if filesystem_type(home) != "btrfs" or btrfs.quota_state(home) is QuotaState.OFF:
            return ()
        return tuple(btrfs.groups(home))
    except KernelError:
        return ()
