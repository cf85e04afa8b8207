"""A filesystem that can lose its power: what it has not written by then is gone.

It lies in a file behind a loop device. What is in that file at a moment is what a disk would hold; a copy of it,
mounted in the place of the first, is what is found when the power is back. So it is the same for ext4, xfs and btrfs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from layerstore.kernel.files import clone_file
from layerstore.testing.filesystems import Filesystems, format_image, source_of

__all__ = ["CUTTABLE", "LONG", "Disk", "copy_image"]

CUTTABLE = {"ext4": 64 << 20, "xfs": 300 << 20, "btrfs": 256 << 20}
"""Journalled filesystems in a file, and how large they have to be."""

LONG = {"ext4": ("commit=300",), "btrfs": ("commit=300",)}
"""Nothing is written because it is time to: it would hide that nobody asked for it."""


class Disk:
    """One such filesystem, mounted at `mountpoint`. A context manager.

    `size`: its bytes, as few as it can have if none are given. `options`: for mount, instead of those that let nothing
    be written but what is asked for. `below`: where its image lies. It is found as it was at one moment if nothing
    writes to the disk then, or if that is on xfs or btrfs, where a file is copied at once.
    """

    def __init__(
        self,
        filesystems: Filesystems,
        kind: str,
        *,
        size: int | None = None,
        options: Sequence[str] | None = None,
        below: Path | None = None,
    ) -> None:
        self.kind = kind
        self._options = LONG.get(kind, ()) if options is None else options
        self.folder = Path(tempfile.mkdtemp(prefix=f"disk-{kind}-", dir=below or filesystems.folder))
        self.mountpoint = self.folder / "mnt"
        self.mountpoint.mkdir()
        self._image = self.folder / "image"
        format_image(kind, self._image, size or CUTTABLE[kind])
        self._plug_in()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._unplug()
        self._image.unlink()
        self.mountpoint.rmdir()
        self.folder.rmdir()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """The power fails when this is entered; it is back afterwards. Inside, all that is open has to be closed."""
        found = self.folder / f"found-{os.urandom(4).hex()}"
        copy_image(self._image, found)
        yield
        self._unplug()
        self._image.unlink()
        self._image = found
        self._plug_in()

    def _plug_in(self) -> None:
        options = ",".join(("loop", *self._options))
        subprocess.run(["mount", "-t", self.kind, "-o", options, self._image, self.mountpoint], check=True)

    def _unplug(self) -> None:
        device = source_of(self.mountpoint)
        held = os.open(device, os.O_RDONLY)  # or it would go with the mount
        try:
            subprocess.run(["umount", self.mountpoint], check=True)
            if self.kind == "btrfs":
                # Or the kernel takes the copy for an older state of the same disk, which it is.
                subprocess.run(["btrfs", "device", "scan", "--forget", device], check=True)
        finally:
            os.close(held)


def copy_image(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("wb") as new:
        if clone_file(old.fileno(), new.fileno()):
            return
        size = os.fstat(old.fileno()).st_size
        at = 0
        with suppress(OSError):  # ENXIO: no more data
            while at < size:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
                end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    copied = os.copy_file_range(old.fileno(), new.fileno(), end - at, at, at)
                    assert copied
                    at += copied
        new.truncate(size)
