"""The name of a data-root may be any bytes: nothing of it is taken for text on the way to a mount and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore import Store
from support import images as make

pytestmark = pytest.mark.root

DRIVERS = ("overlay2", "vfs", "aufs", "btrfs")
NAME = os.fsdecode(b"\xff\xfe store \xc3\x28")


@pytest.fixture(params=DRIVERS)
def config(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> layerstore.Config:
    folder = backing("btrfs" if request.param == "btrfs" else "ext4") / NAME
    return layerstore.Config(data_root=folder / "data", exec_root=folder / "exec", storage_driver=request.param)


@pytest.fixture
def opened(config: layerstore.Config, tmp_path: Path) -> Iterator[Store]:
    archive = make.docker_archive(tmp_path / "a.tar", [make.layer(make.file("etc/name", "base"))], ("base:1",))
    with layerstore.open(config=config) as store:
        store.load(archive)
        yield store


def test_container_lives_its_whole_life(opened: Store) -> None:
    box = opened.create_container("base:1", name="box")
    mounted = box.mount(persistent=True)
    assert mounted.path == box.mountpoint
    assert [place for _, place in opened.mounted()] == [mounted.path]
    (mounted.path / "new").write_text("new")
    with opened.image("base:1").mount() as root:
        assert (root / "etc/name").read_text() == "base"
    assert "/new" in [str(change.path) for change in box.changes()]
    box.commit("mounted:1")
    assert box.unmount()
    image = box.commit("made:1")
    assert len(image.layers) == 2
    assert os.fspath(opened.info().data_root).endswith(NAME + "/data")
    box.remove()
    assert opened.check(content=True) == []


def test_dead_process_leaves_no_mount_behind(opened: Store, config: layerstore.Config) -> None:
    opened.create_container("base:1", name="box")
    opened.close()
    program = (
        "import os, sys, layerstore; from pathlib import Path\n"
        "root = Path(sys.argv[1])\n"
        "config = layerstore.Config(data_root=root / 'data', exec_root=root / 'exec', storage_driver=sys.argv[2])\n"
        "store = layerstore.open(config=config)\n"
        "store.container('box').mount()\n"
        "image = store.image('base:1').mount(); image.__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, config.data_root.parent, str(config.storage_driver)], check=False)
    with layerstore.open(config=config) as store:
        assert store.mounted() == []
        assert list((config.exec_root / "images").iterdir()) == []


def test_commands_print_it(opened: Store, config: layerstore.Config, tmp_path: Path) -> None:
    opened.close()

    def run(*args: str) -> bytes:
        command = [sys.executable, "-m", "layerstore.cli", "--root", config.data_root, "--config", settings, *args]
        return subprocess.run(command, check=True, capture_output=True).stdout

    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"exec-root": str(tmp_path / "exec"), "storage-driver": config.storage_driver}))
    run("create", "--name", "box", "base:1")
    place = run("mount", "box").rstrip(b"\n")
    assert Path(os.fsdecode(place), "etc/name").read_text() == "base"
    assert place in run("mount")
    assert b"base:1" in run("ps", "-a")
    for ref in ("box", "base:1"):
        [facts] = json.loads(run("inspect", ref, "--format", "json"))
        assert facts["Id"]
    assert run("diff", "box") == b""
    assert b"overlay2" in run("info") or config.storage_driver != "overlay2"
    run("umount", "box")
    run("rm", "box")
    run("rmi", "base:1")
