"""What copy-on-write really copies: bytes used on disk after small changes to a large file of an image.

    python -m benchmarks.copy_on_write [--drivers overlay2,btrfs,aufs,vfs] [--filesystems ext4,xfs,btrfs]

Bytes are those that the filesystem has fewer of afterwards (statvfs, after a sync), for `st_blocks` counts what is
shared as if it were not. Each driver gets a fresh filesystem. The table that this prints is in docs/copy-on-write.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

import layerstore
from layerstore.kernel.files import syncfs
from layerstore.testing.filesystems import Filesystems, enter_private_namespace

MIB = 1 << 20
SIZE = 64 * MIB
HOME = 1 << 30

FORMS = {
    "overlay2": (),
    "overlay2, metacopy": ("overlay2.metacopy=true",),
    "btrfs": (),
    "aufs, fuse": ("aufs.mode=fuse",),
    "aufs, copy": ("aufs.mode=copy",),
    "vfs": (),
}


@frozen
class Spent:
    """Bytes used on disk by each step. `whole`: the image and a sibling container read the same as before."""

    container: int
    write: int
    chmod: int
    whole: bool


def image_with(content: bytes, store: layerstore.Store) -> layerstore.Image:
    """An image of one layer with two files of the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("data/large", "data/other"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return store.import_tar(buffer, "large:1")


def measure(folder: Path, driver: str, options: Sequence[str] = ()) -> Spent:
    """Use a container as programs do, in a store in `folder`, which nobody else writes to."""
    content = random.Random(1).randbytes(SIZE)
    settings = layerstore.Config(
        data_root=folder / "store", exec_root=folder / "exec", storage_driver=driver, storage_opts=tuple(options)
    )
    with layerstore.open(config=settings) as store:
        image = image_with(content, store)
        sibling = store.create_container(image)
        before = used(folder)
        box = store.create_container(image)
        created = used(folder)
        with box.mount() as root, open(root / "data/large", "r+b") as file:
            file.seek(SIZE // 2)
            file.write(b"!")
        written = used(folder)
        with box.mount() as root:
            os.chmod(root / "data/other", 0o600)
        changed = used(folder)
        assert [str(change) for change in box.changes()] == ["C /data", "C /data/large", "C /data/other"]
        expected = hashlib.sha256(content).digest()
        with image.mount() as root:
            whole = hashlib.sha256((root / "data/large").read_bytes()).digest() == expected
        with sibling.mount() as root:
            whole = whole and hashlib.sha256((root / "data/large").read_bytes()).digest() == expected
    return Spent(created - before, written - created, changed - written, whole)


def used(folder: Path) -> int:
    """Bytes in use on the filesystem, when all that is dirty has been written."""
    syncfs(folder)
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def shown(count: int) -> str:
    """As the table has it: in MiB, and what is less than a quarter of one in KiB."""
    return f"{max(count, 0) / 1024:.0f} KiB" if count < MIB // 4 else f"{count / MIB:.1f} MiB"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copy_on_write")
    parser.add_argument("--drivers", default="overlay2,btrfs,aufs,vfs")
    parser.add_argument("--filesystems", default="ext4,xfs,btrfs")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the loop images lie meanwhile")
    chosen = parser.parse_args(arguments)
    enter_private_namespace()
    tempfile.tempdir = str(chosen.folder)
    filesystems = Filesystems()
    print("| driver | filesystem | a new container | 1 byte written into 64 MiB | chmod of another 64 MiB |")
    print("| --- | --- | --- | --- | --- |")
    try:
        for form, options in FORMS.items():
            driver = form.partition(",")[0]
            for kind in chosen.filesystems.split(","):
                if driver in chosen.drivers.split(",") and (driver != "btrfs" or kind == "btrfs"):
                    place = filesystems.make(kind, size=HOME)
                    spent = measure(place, driver, options)
                    assert spent.whole, "an image or a sibling container has changed"
                    columns = (form, kind, *map(shown, (spent.container, spent.write, spent.chmod)))
                    print("|", " | ".join(columns), "|", flush=True)
                    filesystems.drop(place)
    finally:
        filesystems.close()


if __name__ == "__main__":
    main(sys.argv[1:])
