"""The drivers that the kit is run on, in each mode and on each filesystem that it works on."""

from __future__ import annotations

from attrs import frozen

from layerstore import plugins

_ALL = {
    "overlay2": [((), ("ext4", "xfs", "btrfs"))],
    "vfs": [((), ("ext4", "xfs", "btrfs"))],
    "btrfs": [((), ("btrfs",))],
    "aufs": [(("aufs.mode=fuse",), ("ext4", "xfs")), (("aufs.mode=copy",), ("ext4", "btrfs"))],
}


@frozen
class Case:
    """A driver, its storage-opts, and where its home lies."""

    driver: str
    options: tuple[str, ...]
    filesystem: str

    @property
    def is_fuse(self) -> bool:
        """Are its trees made by a program, fuse-overlayfs, which does some things otherwise than the kernel?"""
        return "aufs.mode=fuse" in self.options

    def __str__(self) -> str:
        return "-".join([self.driver, *(option.partition("=")[2] for option in self.options), self.filesystem])


def _installed() -> list[Case]:
    there = plugins.names()
    return [
        Case(driver, options, filesystem)
        for driver, modes in _ALL.items()
        if driver in there
        for options, filesystems in modes
        for filesystem in filesystems
    ]


CASES = _installed()
