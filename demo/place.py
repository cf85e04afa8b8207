"""Where a demo's stores lie: a folder of its own, on a filesystem that the driver can use."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = {"ext4": ["mkfs.ext4", "-q", "-F"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
"""What makes a filesystem."""


@contextmanager
def folder(kind: str | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards. `kind`: a filesystem of its own in a file; None: only if the disk's cannot hold
    the upper directory of an overlay."""
    with tempfile.TemporaryDirectory(prefix="layerstore-demo-") as name:
        place = Path(name)
        disk = place / "disk"
        disk.mkdir()
        if kind is None and not holds_overlays(place):
            print("The disk's filesystem cannot hold what overlay writes, so the demo makes one of its own in a file.")
            kind = "ext4"
        if kind is not None:
            with (place / "image").open("wb") as image:
                image.truncate(4 << 30)
            subprocess.run([*NAMES[kind], place / "image"], check=True)
            subprocess.run(["mount", "-o", "loop", place / "image", disk], check=True)
            (place / "image").unlink()  # the mount keeps it, and nothing else does
        try:
            yield disk
        finally:
            with open("/proc/self/mountinfo") as mounts:
                points = [line.split(" ")[4] for line in mounts]
            for point in reversed(points):
                if place in Path(point).parents:
                    subprocess.run(["umount", point], check=False)


def holds_overlays(place: Path) -> bool:
    """Try it."""
    with tempfile.TemporaryDirectory(dir=place) as name:
        for part in ("lower", "upper", "work", "merged"):
            Path(name, part).mkdir()
        options = "lowerdir=lower,upperdir=upper,workdir=work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, "merged"]
        if subprocess.run(mount, cwd=name, capture_output=True, check=False).returncode != 0:
            return False
        writable = os.access(Path(name, "merged"), os.W_OK)
        subprocess.run(["umount", "merged"], cwd=name, check=True)
        return writable
