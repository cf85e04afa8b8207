"""A data-root that cannot be written to: all that reads works, whatever would alter it is refused in a sentence."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import layerstore
from layerstore import Store
from layerstore.errors import ReadOnlyStore
from support import images as make

pytestmark = pytest.mark.root

LAYERS = [make.layer(make.folder("etc/"), make.file(f"etc/{n}", f"{n}" * 100)) for n in range(2)]


@pytest.fixture(params=["overlay2", "vfs", "btrfs"])
def config(request: pytest.FixtureRequest, backing: Callable[[str], Path], tmp_path: Path) -> layerstore.Config:
    root = backing("btrfs" if request.param == "btrfs" else "ext4")
    return layerstore.Config(data_root=root / "store", exec_root=tmp_path / "exec", storage_driver=request.param)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make.docker_archive(tmp_path / "image.tar", LAYERS, ("base:1",))


@pytest.fixture
def frozen(config: layerstore.Config, archive: Path) -> Iterator[layerstore.Config]:
    """A store with an image and a changed container, seen through a mount that cannot be written to."""
    with layerstore.open(config=config) as store:
        store.load(archive)
        with store.create_container("base:1", name="box").mount() as root:
            (root / "new").write_text("new")
    root = config.data_root
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
    yield config
    subprocess.run(["umount", root], check=True)


def test_everything_is_seen(frozen: layerstore.Config, tmp_path: Path) -> None:
    before = sorted(str(path) for path in frozen.data_root.rglob("*"))
    with layerstore.open(config=frozen) as store:
        [image] = store.images()
        assert image.tags == ("base:1",)
        assert [box.name for box in store.containers()] == ["box"]
        assert store.info().images == 1
        assert store.check(content=True) == []
        with image.mount() as root:
            assert (root / "etc/1").read_text() == "1" * 100
        box = store.container("box")
        assert "/new" in [str(change.path) for change in box.changes()]
        exported = io.BytesIO()
        box.export(exported.write)
        with tarfile.open(fileobj=io.BytesIO(exported.getvalue())) as tree:
            assert "new" in tree.getnames()
        store.save("base:1", tmp_path / "saved.tar")
    assert sorted(str(path) for path in frozen.data_root.rglob("*")) == before
    with tarfile.open(tmp_path / "saved.tar") as saved:
        files = [saved.extractfile(member) for member in saved if member.isfile()]
        assert set(LAYERS) <= {file.read() for file in files if file is not None}
    assert [path.name for path in (frozen.exec_root / "read-only").iterdir()] == [".spare"]
    assert list((frozen.exec_root / "images").iterdir()) == []


def test_whatever_alters_it_is_refused(frozen: layerstore.Config, archive: Path) -> None:
    deeds: dict[str, Callable[[Store], object]] = {
        "load": lambda store: store.load(archive),
        "import": lambda store: store.import_tar(io.BytesIO(LAYERS[0])),
        "tag": lambda store: store.tag("base:1", "other:1"),
        "rmi": lambda store: store.remove_image("base:1"),
        "create": lambda store: store.create_container("base:1"),
        "mount": lambda store: store.container("box").mount(),
        "commit": lambda store: store.container("box").commit("made:1"),
        "rename": lambda store: store.container("box").rename("crate"),
        "rm": lambda store: store.container("box").remove(),
        "prune": lambda store: store.prune(),
    }
    with layerstore.open(config=frozen) as store:
        for name, deed in deeds.items():
            with pytest.raises(ReadOnlyStore, match="can only be read"):
                pytest.fail(f"{name}: {deed(store)}")
        assert store.check() == []
    to = "vfs" if frozen.storage_driver == "overlay2" else "overlay2"
    with pytest.raises(ReadOnlyStore):
        layerstore.migrate(to, config=frozen)


def test_damage_is_told_though_it_cannot_be_noted(config: layerstore.Config, archive: Path) -> None:
    with layerstore.open(config=config) as store:
        store.load(archive)
    for skeleton in (config.data_root / "skeletons").iterdir():
        skeleton.write_bytes(skeleton.read_bytes()[:-9])
    subprocess.run(["mount", "--bind", config.data_root, config.data_root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", config.data_root], check=True)
        with layerstore.open(config=config) as store:
            assert {problem.kind for problem in store.check()} == {"damaged layer"}
    finally:
        subprocess.run(["umount", config.data_root], check=True)


def test_commands_say_so(frozen: layerstore.Config, tmp_path: Path) -> None:
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"data-root": str(frozen.data_root), "exec-root": str(frozen.exec_root)}))

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "layerstore.cli", "--config", settings, *args]
        return subprocess.run(command, capture_output=True, text=True)

    for args in (["images"], ["ps", "-a"], ["inspect", "box"], ["history", "base:1"], ["info"], ["diff", "box"]):
        done = run(*args)
        assert (done.returncode, done.stderr) == (0, "")
    done = run("rm", "box")
    assert done.returncode == 1
    assert "can only be read: its filesystem is mounted read-only" in done.stderr


def test_what_is_still_in_the_log_is_seen(config: layerstore.Config, archive: Path) -> None:
    """The copy is taken while another process, which sees the same files writable, has committed and lives on."""
    with layerstore.open(config=config) as writer:
        writer.load(archive)
        root = config.data_root
        view = root.with_name("view")
        view.mkdir()
        subprocess.run(["mount", "--bind", root, view], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
            seen = layerstore.Config(data_root=view, exec_root=config.exec_root)
            with closing(layerstore.open(config=seen)) as reader:
                assert [image.tags for image in reader.images()] == [("base:1",)]
                writer.tag("base:1", "later:1")
                assert reader.check() == []
            with closing(layerstore.open(config=seen)) as reader:
                assert [image.tags for image in reader.images()] == [("base:1", "later:1")]
        finally:
            subprocess.run(["umount", view], check=True)


def test_dead_reader_leaves_nothing(frozen: layerstore.Config) -> None:
    program = (
        "import os, sys, layerstore; from pathlib import Path\n"
        "store = layerstore.open(config=layerstore.Config(data_root=Path(sys.argv[1]), exec_root=Path(sys.argv[2])))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, frozen.data_root, frozen.exec_root], check=False)
    assert len(list((frozen.exec_root / "read-only").iterdir())) == 1
    layerstore.open(config=frozen).close()
    assert [path.name for path in (frozen.exec_root / "read-only").iterdir()] == [".spare"]
