"""The drivers that the kit is run on, in each mode and on each filesystem that it works on."""

from __future__ import annotations

from attrs import frozen

from layerstore import plugins
from layerstore.testing import Limits
from layerstore.testing.limits import NO_LIMITS
from layerstore.testing.tars import Kind

_ALL = {
    "overlay2": [((), ("ext4", "xfs", "btrfs"))],
    "vfs": [((), ("ext4", "xfs", "btrfs"))],
    "btrfs": [((), ("btrfs",))],
    "erofs": [((), ("ext4", "xfs", "btrfs"))],
    "aufs": [(("aufs.mode=fuse",), ("ext4", "xfs")), (("aufs.mode=copy",), ("ext4", "btrfs"))],
}

FUSE_OVERLAYFS = Limits(
    # A copy-up loses setuid and setgid.
    mode_bits=0o1777,
    # These it keeps to itself.
    hidden_xattrs=(b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."),
    # It opens a device to remove it, and cannot if there is none such (ENXIO).
    devices=False,
    # It cannot copy devices and FIFOs (EIO), and loses the owner and the time of a symbolic link.
    copied_up=frozenset({Kind.FILE, Kind.FOLDER}),
    # A copy-up alters the directory.
    keeps_folder_times=False,
    # The kernel tells the time of the writing, the program keeps that of its own write.
    keeps_written_times=False,
    # What is written to one of several names may land in another.
    links_copied_up=False,
    # What was in a directory that was removed and made again can be found in it, until the next mount.
    sees_at_once=False,
)
"""What fuse-overlayfs 1.10 does otherwise than overlay. Nothing that a driver could mend; see docs/format.md."""


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

    @property
    def is_first(self) -> bool:
        """Is it the first of its driver and mode, and made by the kernel alone?"""
        return not self.is_fuse and self.filesystem == dict(_ALL[self.driver]).get(self.options, ("",))[0]

    @property
    def limits(self) -> Limits:
        """What is not asked of it."""
        return FUSE_OVERLAYFS if self.is_fuse else NO_LIMITS

    def __str__(self) -> str:
        return "-".join([self.driver, *map(_word, self.options), self.filesystem])


def _word(option: str) -> str:
    name, _, value = option.partition("=")
    return name.partition(".")[2] if value == "true" else value


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

VARIANTS = [
    Case("overlay2", ("overlay2.metacopy=true",), "ext4"),
    Case("overlay2", ("overlay2.redirect_dir=true",), "ext4"),
]
"""Options under which containers are written in another way. They are tried with what concerns containers alone."""
