"""Debian's containerd, with `ctr`, on our snapshotter: what it imports, pulls, runs, commits and removes.

`ctr` of 1.6 does not say which layer it is going to unpack; what CRI and nerdctl say is said by a client of
containerd's own service in its place.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from containerd.client import Error, mounted
from containerd.daemon import Daemon
from layerstore import Store
from layerstore.faces.containerd.api import snapshots_pb2 as api
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing
from layerstore.testing.filesystems import mountpoints
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("containerd", "ctr", "runc", "busybox")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
IMAGE = "docker.io/library/small:1"
ROOT = "containerd.io/gc.root"
"""The label of what is kept though nothing refers to it: CRI keeps a lease instead."""
LAYERS = [
    images.layer(
        images.folder("bin"),
        images.file("bin/busybox", Path(str(shutil.which("busybox") or os.devnull)).read_bytes(), mode=0o755),
        *(images.symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "ls", "sleep", "echo", "touch")),
        images.folder("etc"),
        images.file("etc/gone", "gone"),
        *(images.folder(name) for name in ("proc", "sys", "dev", "run", "tmp")),
    ),
    images.layer(images.whiteout("etc/gone"), images.file("etc/issue", "hello\n")),
]


@pytest.fixture
def start(open_store: Callable[..., Store]) -> Iterator[Callable[[str], tuple[Daemon, Store]]]:
    """`start("btrfs")`: containerd on a store with this driver, and the store, opened a second time here."""
    with ExitStack() as running:

        def begin(driver: str) -> tuple[Daemon, Store]:
            store = open_store(driver)
            return running.enter_context(Daemon(store.config)), store

        yield begin


def require_nothing(daemon: Daemon, store: Store) -> None:
    """containerd has collected its garbage, and nothing of it is left in the store."""
    assert daemon("snapshots", "--snapshotter", "layerstore", "ls").splitlines()[1:] == []
    assert (store.containers(), store.snapshots.all(), store.check()) == ([], [], [])
    home = f"{store.data_root}/"
    assert not [name for name in mountpoints() if name.startswith(home)]


@pytest.mark.parametrize("driver", ["overlay2", *(("btrfs", "vfs", "erofs", "aufs") if NIGHTLY else ())])
def test_a_life(driver: str, start: Callable[[str], tuple[Daemon, Store]], tmp_path: Path) -> None:
    daemon, store = start(driver)
    images.docker_archive(tmp_path / "small.tar", LAYERS, ["small:1"])
    daemon("images", "import", "--snapshotter", "layerstore", tmp_path / "small.tar")
    assert daemon.run(IMAGE, "one", "sh", "-c", "cat /etc/issue; ls /etc; touch /new").split() == ["hello", "issue"]

    # It runs on, whichever of the two is killed.
    daemon.run(IMAGE, "two", "sleep", "1000", detach=True)
    daemon("tasks", "exec", "--exec-id", "a", "two", "sh", "-c", "echo kept >/etc/kept")
    daemon.kill_snapshotter()
    daemon.start_snapshotter()
    daemon.meet()
    assert daemon("tasks", "exec", "--exec-id", "b", "two", "cat", "/etc/kept") == "kept\n"
    daemon.kill_containerd()
    daemon.start_containerd()
    assert daemon("tasks", "exec", "--exec-id", "c", "two", "cat", "/etc/kept") == "kept\n"

    # What it has written is committed, and another one stands on that.
    daemon("tasks", "kill", "--signal", "SIGKILL", "two")
    daemon("tasks", "rm", "--force", "two")
    # A snapshot that nothing refers to is garbage to containerd as soon as it looks, unless it says that it is none.
    daemon("snapshots", "--snapshotter", "layerstore", "label", "two", "containerd.io/gc.root=yes")
    daemon("containers", "rm", "--keep-snapshot", "two")
    daemon("snapshots", "--snapshotter", "layerstore", "commit", "kept", "two")
    daemon("snapshots", "--snapshotter", "layerstore", "prepare", "three", "kept")
    with mounted(daemon.snapshots().mounts("three"), tmp_path / "at") as root:
        assert (root / "etc/kept").read_text() == "kept\n"

    for key in ("three", "kept"):
        daemon("snapshots", "--snapshotter", "layerstore", "rm", key)
    daemon("images", "rm", "--sync", IMAGE)
    require_nothing(daemon, store)


def test_it_pulls_and_sixteen_run_at_once(start: Callable[[str], tuple[Daemon, Store]], tmp_path: Path) -> None:
    daemon, store = start("overlay2")
    images.docker_archive(tmp_path / "small.tar", LAYERS, ["team/small:1"])
    [loaded] = store.load(tmp_path / "small.tar")
    with Server("127.0.0.1", 0, Registry(store, read_only=True), timing=Timing(tick=0.02), threads=4) as server:
        name = f"127.0.0.1:{server.port}/team/small:1"
        daemon("images", "pull", "--plain-http", "--snapshotter", "layerstore", name)
    with ThreadPoolExecutor(16) as pool:
        programs = [f"echo {number}; >/tmp/{number}; ls /tmp" for number in range(16)]
        runs = [pool.submit(daemon.run, name, f"n{at}", "sh", "-c", does) for at, does in enumerate(programs)]
        said = [run.result() for run in runs]
    assert said == [f"{number}\n{number}\n" for number in range(16)]
    daemon("images", "rm", "--sync", name)
    store.remove_image(loaded.id, force=True)
    require_nothing(daemon, store)


@pytest.mark.parametrize("driver", ["erofs", *(("overlay2", "btrfs", "vfs", "aufs") if NIGHTLY else ())])
def test_an_image_of_the_store_starts_without_an_unpack(
    driver: str, start: Callable[[str], tuple[Daemon, Store]], tmp_path: Path
) -> None:
    daemon, store = start(driver)
    images.docker_archive(tmp_path / "small.tar", LAYERS, ["small:1"])
    [image] = store.load(tmp_path / "small.tar")
    with daemon.snapshots() as client:
        for parent, chain in zip(("", *image.chain_ids), image.chain_ids, strict=False):
            with pytest.raises(Error, match="ALREADY_EXISTS"):
                client.prepare(f"extract {chain}", parent, {"containerd.io/snapshot.ref": chain, ROOT: "now"})
            assert client.stat(chain).parent == parent
        daemon("images", "import", "--snapshotter", "layerstore", tmp_path / "small.tar")
        for chain in image.chain_ids:
            client("Update", info=api.Info(name=chain), update_mask={"paths": [f"labels.{ROOT}"]})
    assert daemon.run(IMAGE, "one", "cat", "/etc/issue") == "hello\n"
    assert all(snapshot.is_layer for snapshot in store.snapshots.all()), "nothing was unpacked"
    store.remove_image("small:1")
    assert daemon.run(IMAGE, "two", "cat", "/etc/issue") == "hello\n"
    daemon("images", "rm", "--sync", IMAGE)
    require_nothing(daemon, store)


@pytest.mark.skipif(not NIGHTLY, reason="by night")
@pytest.mark.parametrize("driver", ["overlay2", "btrfs"])
@pytest.mark.parametrize("side", ["snapshotter", "containerd"])
def test_killed_during_an_import_it_is_done_again(
    side: str, driver: str, start: Callable[[str], tuple[Daemon, Store]], tmp_path: Path
) -> None:
    daemon, store = start(driver)
    many = [*LAYERS, *(images.layer(images.file(f"f{number}", "x" * 1000)) for number in range(10))]
    images.docker_archive(tmp_path / "small.tar", many, ["small:1"])
    words = ("images", "import", "--snapshotter", "layerstore", tmp_path / "small.tar")
    begun = time.monotonic()
    daemon(*words)
    whole, rounds = time.monotonic() - begun, 15
    for number in range(rounds):
        daemon("images", "rm", "--sync", IMAGE)
        with daemon.begun(*words) as unpacking:
            time.sleep(whole * number / rounds)  # somewhere within: whichever point that is, the end is the same
            getattr(daemon, f"kill_{side}")()
            getattr(daemon, f"start_{side}")()
            unpacking.wait(60)
        daemon.meet()
        daemon(*words)
        assert daemon.run(IMAGE, f"n{number}", "cat", "/etc/issue", "/f9") == "hello\n" + "x" * 1000
    daemon("images", "rm", "--sync", IMAGE)
    for lease in daemon("leases", "ls", "--quiet").split():  # of those that were cut off, for a day
        daemon("leases", "rm", "--sync", lease)
    require_nothing(daemon, store)
