"""Makes store_v1.tar.gz beside this file: a store of the first version of the database's schema, as it lies on a disk.

Run once, as root, by the code of that version (commit f26de53), whose sources are on the path:

    PYTHONPATH=<checkout>/src:<checkout>/tests:<checkout>/drivers python tests/data/make_store_v1.py

With tar --xattrs, for overlay's marks are attributes and devices.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import layerstore
from support import images as make

TARGET = Path(__file__).with_name("store_v1.tar.gz")


def layers() -> list[bytes]:
    """What the image in it is made of."""
    return [
        make.layer(
            make.folder("etc/", mode=0o750, uid=3),
            make.file("etc/passwd", "root:x:0:0\n"),
            make.file("etc/gone", "gone"),
            make.file("bin/tool", b"#!/bin/sh\n", mode=0o4755),
            make.symlink("bin/link", "tool"),
        ),
        make.layer(
            make.whiteout("etc/gone"),
            make.file("etc/passwd", "root:x:0:0\nme:x:1:1\n"),
            make.opaque("bin"),
            make.file("bin/other", b"other", xattrs={"user.note": b"kept"}),
        ),
    ]


def main() -> None:
    """Make it."""
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as folder:
        data_root = Path(folder) / "store"
        config = layerstore.Config(data_root=data_root, exec_root=Path(folder) / "exec", storage_driver="overlay2")
        archive = make.docker_archive(Path(folder) / "image.tar", layers(), ("old:1", "old:second"))
        with layerstore.open(config=config) as store:
            store.load(archive)
            box = store.create_container("old:1", name="changed")
            with box.mount() as root:
                (root / "etc/passwd").unlink()
                (root / "new").write_text("written in version 1")
            store.create_container("old:1", name="untouched")
        command = ["tar", "--create", "--gzip", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]
        subprocess.run([*command, f"--file={TARGET}", f"--directory={folder}", "store"], check=True)


if __name__ == "__main__":
    main()
