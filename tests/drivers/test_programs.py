"""Programs that are given a container's tree, under every driver: all see one tree, and nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore import InUse
from layerstore.store import Store
from layerstore.testing.filesystems import mountpoints
from support import programs

pytestmark = pytest.mark.root

FORMS = {
    "overlay2, volatile": ("ext4", "overlay2.volatile=true"),
    "btrfs": ("btrfs",),
    "vfs": ("xfs",),
    "erofs": ("ext4",),
    "aufs, copied": ("xfs", "aufs.mode=copy"),
    "aufs, by fuse": ("ext4", "aufs.mode=fuse"),
}


@pytest.fixture(params=FORMS)
def any_store(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> Iterator[Store]:
    """A store under each driver."""
    filesystem, *options = FORMS[request.param]
    folder = backing(filesystem)
    driver = request.param.partition(",")[0]
    settings = layerstore.Config(
        data_root=folder / "store", exec_root=folder / "exec", storage_driver=driver, storage_opts=tuple(options)
    )
    with layerstore.open(config=settings) as store:
        yield store


@pytest.mark.tools("fuse-overlayfs")
def test_all_see_one_tree_and_nothing_is_left(any_store: Store, tmp_path: Path) -> None:
    [image] = any_store.load(programs.archive(tmp_path / "image.tar"))
    box = any_store.create_container(image)
    place = tmp_path / "place"
    place.mkdir()
    before = mountpoints()

    started = box.start(["sh", "-c", "echo 1 >/tmp/started; exec sleep 100"])
    launched = box.launch(["sh", "-c", f"echo 2 >{place}/tmp/launched; exec sleep 100"], root=place)
    with box.mount() as root:
        (root / "tmp/mounted").write_text("3\n")
        names = ["launched", "mounted", "started"]
        deadline = time.monotonic() + 20
        while sorted(os.listdir(root / "tmp")) != names or not (root / "tmp/launched").read_text():
            assert time.monotonic() < deadline, os.listdir(root / "tmp")
        seen = Path(f"/proc/{started.pid}/root/tmp")
        assert "".join((seen / name).read_text() for name in names) == "2\n3\n1\n"
        late = box.start(["cat", "/tmp/launched", "/tmp/mounted"], stdout=subprocess.DEVNULL)
        assert late.wait() == 0
    with pytest.raises(InUse, match="is running"):
        box.remove()
    made = box.commit("made")
    started.kill()
    launched.kill()
    assert (started.wait(), launched.wait(), box.status) == (-9, -9, "unmounted")
    wanted = ["C /tmp", "A /tmp/launched", "A /tmp/mounted", "A /tmp/started"]
    assert [str(change) for change in box.changes() if "/tmp" in str(change)] == wanted
    with made.mount() as root:
        assert sorted(os.listdir(root / "tmp")) == names
    assert mountpoints() == before
    box.remove()
    any_store.remove_image("made")
    assert any_store.check() == []
