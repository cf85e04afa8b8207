"""The snapshotter is killed at any point of what it does: containerd asks again, and in the end nothing is left.

Each point is a call that a child makes, which ends itself there by SIGKILL. What was asked for is then done or not at
all; containerd, which has had no answer, removes what it does not know, and tries it once more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.faces.containerd import rows
from layerstore.faces.containerd.differ import Differ
from layerstore.faces.containerd.snapshotter import Snapshotter
from layerstore.manifests.media_types import LAYER_TYPE as KIND
from layerstore.testing.filesystems import mountpoints
from support import images
from support.moments import KILLED_AT

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

# Dies at the N-th audited event that touches files or the database, counted from when the deed begins.
CHILD = KILLED_AT + textwrap.dedent(
    """
    import layerstore
    from pathlib import Path
    from layerstore.faces.containerd.differ import Differ
    from layerstore.faces.containerd.snapshotter import Snapshotter

    root, driver, deed, point = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    KIND, BLOB = sys.argv[5:7]

    config = layerstore.Config(data_root=root + "/store", exec_root=root + "/exec", storage_driver=driver)
    with layerstore.open(config=config) as store:
        snapshotter = Snapshotter(store, "layerstore")
        if deed in ("apply", "commit layer", "mounts of layer"):
            mounts = [snapshotter.mounts("active")]
            differ = Differ(store, Path(root) / "containerd")
        if deed in ("commit layer", "mounts of layer"):
            differ.apply(KIND, BLOB, mounts)
        armed = True
        if deed == "prepare":
            snapshotter.prepare("new", "base", {})
        elif deed == "view":
            snapshotter.view("new", "base", {})
        elif deed in ("commit", "commit layer"):
            snapshotter.commit("new", "active", {})
        elif deed == "apply":
            differ.apply(KIND, BLOB, mounts)
        elif deed == "mounts of layer":
            snapshotter.mounts("active")
        elif deed == "remove":
            snapshotter.remove("active")
        armed = False
        print(count, flush=True)
    """
)
BASE, TAR = (images.layer(images.file(name, name * 100)) for name in ("base", "new"))
LAYERED = ("apply", "commit layer", "mounts of layer")
BEFORE = {"base", "active"}
DEEDS = {
    "prepare": BEFORE | {"new"},
    "view": BEFORE | {"new"},
    "commit": {"base", "new"},
    "remove": {"base"},
    "apply": BEFORE,
    "commit layer": {"base", "new"},
    "mounts of layer": BEFORE,
}
"""Each deed, and the keys that there are afterwards."""


def died(root: Path, driver: str, deed: str, point: int) -> int | None:
    """Let a child do it, and die; None if it did, else how many points there are."""
    command = [sys.executable, "-c", CHILD, str(root), driver, deed, str(point), KIND, images.digest(TAR)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def begin(store: Store) -> None:
    """A committed snapshot, which is a layer, and an active one on it; and another layer in containerd's content."""
    snapshotter = Snapshotter(store, "layerstore")
    root = store.data_root.parent / "containerd"
    content = root / "io.containerd.content.v1.content/blobs/sha256"
    content.mkdir(parents=True)
    for tar in (BASE, TAR):
        (content / images.digest(tar)[7:]).write_bytes(tar)
    Differ(store, root).apply(KIND, images.digest(BASE), [snapshotter.prepare("first", "", {})])
    snapshotter.commit("base", "first", {})
    snapshotter.prepare("active", "base", {})


@pytest.mark.parametrize(
    ("driver", "deed"),
    [
        (driver, deed)
        for driver in ("overlay2", "btrfs", "vfs", "erofs", "aufs")
        for deed in DEEDS
        if NIGHTLY
        or (driver, deed) in (("overlay2", "commit"), ("btrfs", "commit"), ("erofs", "remove"), ("overlay2", "apply"))
    ],
)
def test_killed_anywhere_it_goes_on(driver: str, deed: str, open_store: Callable[..., Store]) -> None:
    with open_store(driver) as store:
        begin(store)
        root = store.data_root.parent
    points = died(root, driver, deed, 0)
    assert points is not None
    assert points > 3
    again(driver, deed, open_store, is_done=True)
    # By day the last point, after which there is no answer, and one in the middle.
    for point in range(1, points + 1) if NIGHTLY else (points // 2, points):
        died(root, driver, deed, point)
        again(driver, deed, open_store, is_done=False)
    with open_store(driver) as store:
        snapshotter = Snapshotter(store, "layerstore")
        for key in ("active", "base"):
            snapshotter.remove(key)
        store.wait()
        Differ(store).end_leases()
        assert (store.containers(), store.snapshots.all(), store.check(), store.layers()) == ([], [], [], [])
    assert not [name for name in mountpoints() if name.startswith(str(root) + "/")]


def again(driver: str, deed: str, open_store: Callable[..., Store], *, is_done: bool) -> None:
    """As containerd goes on: what was asked for is there, or not at all; then all is as before the deed."""
    with open_store(driver) as store:
        assert store.check(content=True) == []
        snapshotter = Snapshotter(store, "layerstore")
        keys = {row.key for row in snapshotter.walk([])}
        assert keys == DEEDS[deed] or (keys == BEFORE and not is_done)
        if "new" in keys:
            snapshotter.remove("new")
        if "active" in keys and deed in LAYERED:
            # Whatever was done: what was asked for can be asked for again, and is what it has to be.
            with store.tables(rows.TABLES).read() as tx:
                row = rows.find(tx, "layerstore", "active")
                layer = rows.unpacked(tx, row)
            assert layer is not None or row.container is not None
            if layer is not None:
                snapshotter.commit("done", "active", {})
                with store.snapshots.all()[-1].open_tree() as tree:
                    assert sorted(os.listdir(tree)) == ["base", "new"]
                snapshotter.remove("done")
            else:
                snapshotter.remove("active")
            keys.remove("active")
        if "active" not in keys:
            snapshotter.prepare("active", "base", {})
        snapshotter.mounts("active")
