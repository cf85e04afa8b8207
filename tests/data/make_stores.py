"""Makes stores of the later versions of the database's schema beside this file, as they lie on a disk.

Each by the last code of its version, run once, as root, with that version's sources on the path:

    PYTHONPATH=<checkout>/src:<checkout>/drivers:<checkout>/tests:tests python tests/data/make_stores.py DRIVER

What is in one is what its version had to keep: an image and a container that was written in; then volumes, checkpoints,
leases, snapshots. `make_store_v1.py` made the first.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import layerstore
from data.make_store_v1 import layers
from support import images as make

HERE = Path(__file__).parent
COMMITS = {
    2: "6c9597c",
    3: "2faa365",
    5: "277ce2f",
    6: "fd21ec7",
    7: "3ae6ec8",
    8: "6dc017d",
    9: "f00629f",
    10: "beb6238",
    11: "9ba5563",
}
"""The last commit of each version."""
NEVER_KEPT = 4
"""It lasted for minutes within one piece of work, and its step was altered in the next: no store has it."""
VOLUMES, CHECKPOINTS, LEASES, SNAPSHOTS = 3, 5, 6, 10
"""Since which version there are some."""


def archive(version: int, driver: str) -> Path:
    """The store of a version, by a driver."""
    return HERE / f"store_v{version}{'' if driver == 'overlay2' else '_' + driver}.tar.gz"


def schema(data_root: Path) -> int:
    """The version of a store's database."""
    with closing(sqlite3.connect(data_root / "layerstore.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def fill(store: Any, folder: Path, version: int) -> None:
    """Put in what the version can keep. `Any`: a store of that time's library, not of this one."""
    store.load(make.docker_archive(folder / "image.tar", layers(), ("old:1", "old:second")))
    box = store.create_container("old:1", name="changed")
    with box.mount() as root:
        (root / "etc/passwd").unlink()
        (root / "new").write_text(f"written in version {version}")
    store.create_container("old:1", name="untouched")
    if version >= VOLUMES:
        volume = store.volumes.create("data")
        (volume.mountpoint / "kept").write_text("in a volume")
    if version >= CHECKPOINTS:
        forked = store.create_container("old:1", name="kept")
        with forked.mount() as root:
            (root / "first").write_text("before")
        forked.checkpoint("before")
        with forked.mount() as root:
            (root / "first").write_text("after")
    if version >= LEASES:
        store.lease(None, store.image("old:1").chain_ids[0], owner="somebody", name="lowest")
    if version >= SNAPSHOTS:
        ended = store.create_container("old:1", name="ended")
        with ended.mount() as root:
            (root / "left").write_text("in a snapshot")
        ended.end(lambda tx, id: None)


def main(driver: str) -> None:
    """Make it."""
    with tempfile.TemporaryDirectory(dir=HERE) as scratch:
        folder = Path(scratch)
        data_root = folder / "store"
        config = layerstore.Config(data_root=data_root, exec_root=folder / "exec", storage_driver=driver)
        layerstore.open(config=config).close()
        version = schema(data_root)
        with layerstore.open(config=config) as store:
            fill(store, folder, version)
        command = ["tar", "--create", "--gzip", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]
        subprocess.run([*command, f"--file={archive(version, driver)}", f"--directory={folder}", "store"], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
