"""Containers for other IDs: shown with other owners than their layers have, and with nothing copied."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import layerstore
from layerstore import Container, IdMap, IdRange, Store
from layerstore.cli.front import front
from layerstore.errors import CannotRun, ConfigError, DriverNotSupported, KernelError
from layerstore.kernel.mounts import Mount, mounting
from layerstore.kernel.mounts.mapped import Mapped
from support import images
from support.images import file, folder, symlink

pytestmark = pytest.mark.root

BASE = 200_000
RANGES = (IdRange(0, BASE, 65_536),)
IDS = IdMap(RANGES, RANGES)

LAYER = images.layer(
    folder("etc"),
    file("etc/shadow", "secret", mode=0o640, gid=42),
    folder("home", uid=33, gid=33),
    file("home/far", "far", uid=70_000),
    symlink("link", "etc/shadow", uid=5),
)

EDIT = """
import atexit, os, sys
from layerstore import IdMap
from layerstore.kernel.namespaces import keeping
tree, ids = sys.argv[1:]
tree = os.open(tree, os.O_RDONLY)
if ids:
    keeper = keeping.start(IdMap.parsed(ids), 0, 0)
    atexit.register(os.kill, keeper.pid, 9)
    keeping.enter(keeper)
os.umask(0o022)
os.fchdir(tree)
with open("new", "w") as new:
    new.write("x")
os.chown("new", 33, 34)
os.chmod("etc/shadow", 0o600)
os.unlink("link")
os.mkdir("home/mine")
os.chown("home/mine", 1000, 1000)
for name in ("new", "etc/shadow", "etc", "home/mine", "home", "."):
    os.utime(name, (5, 5))
"""


def edit(container: Container, ids: IdMap | None) -> Path:
    """By the root of a namespace with these IDs, in a process of its own."""
    with container.mount() as tree:
        subprocess.run([sys.executable, "-c", EDIT, tree, "" if ids is None else str(ids)], check=True)
    return tree


@pytest.fixture(
    params=[("overlay2", "ext4"), ("btrfs", "btrfs"), ("vfs", "xfs"), ("erofs", "ext4")], ids=lambda case: case[0]
)
def any_store(request: pytest.FixtureRequest, backing: Callable[[str], Path], tmp_path: Path) -> Iterator[Store]:
    driver, filesystem = request.param
    place = backing(filesystem)
    images.docker_archive(tmp_path / "image.tar", [LAYER])
    store = layerstore.open(config=layerstore.Config(place / "store", place / "run", storage_driver=driver))
    with store:
        store.load(tmp_path / "image.tar")
        yield store


def test_edits_in_a_namespace_mean_what_they_mean_without(any_store: Store) -> None:
    plain, mapped = any_store.create_container("test"), any_store.create_container("test", idmap=IDS)
    with mapped.mount() as tree:
        assert [os.lstat(tree / name).st_uid for name in ("etc", "home", "link")] == [BASE, BASE + 33, BASE + 5]
        assert (tree / "etc/shadow").stat().st_gid == BASE + 42
        assert (tree / "home/far").stat().st_uid == 65_534  # which the namespace lacks
    edit(plain, None)
    edit(mapped, IDS)

    with mapped.mount() as tree:
        assert (tree / "new").stat().st_uid == BASE + 33
    assert list(map(str, mapped.changes())) == list(map(str, plain.changes()))
    assert mapped.commit().layers == plain.commit().layers
    assert any_store.check(content=True) == []


def test_a_checkpoint_a_fork_and_another_process_know_the_ids(store: Store, tmp_path: Path) -> None:
    store.load(images.docker_archive(tmp_path / "image.tar", [LAYER]))
    made = store.create_container("test", idmap=IDS)
    [fork] = made.fork()
    checkpoint = made.checkpoint("begin")
    made.rollback(checkpoint)
    for container in (made, fork, store.container(made.name)):
        with container.mount() as tree:
            assert (tree / "home").stat().st_uid == BASE + 33


def test_the_command_creates_one(store: Store, tmp_path: Path) -> None:
    store.load(images.docker_archive(tmp_path / "image.tar", [LAYER]))
    root = ["--root", str(store.data_root)]

    created = CliRunner().invoke(front, [*root, "create", "--name", "box", f"--userns=0:{BASE}:65536", "test", "sh"])
    refused = CliRunner().invoke(front, [*root, "run", f"--userns=0:{BASE}:65536", "test", "sh"])

    assert created.exit_code == 0, created.output
    with store.container("box").mount() as tree:
        assert (tree / "home").stat().st_uid == BASE + 33
    assert refused.exit_code == 125
    assert "no program is run in a container for other IDs" in refused.output
    assert len(store.containers()) == 1


def test_no_program_is_started_in_one(store: Store) -> None:
    made = store.create_container(idmap=IDS)
    with pytest.raises(CannotRun, match="would not be in their user namespace"):
        made.start(["true"])


def test_a_kernel_that_cannot_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "_by_descriptor", False)
    made = store.create_container(idmap=IDS)
    with pytest.raises(DriverNotSupported, match="with other owners"):
        made.mount()


def test_a_filesystem_that_cannot_says_so(tmp_path: Path) -> None:
    mount = Mount("bind", "/proc/self", ids=IDS)
    with pytest.raises(DriverNotSupported, match="cannot show other owners"):
        mounting.new_tree([mount])


def test_a_map_without_root_is_refused(store: Store) -> None:
    some = (IdRange(1, BASE, 10),)
    with pytest.raises(ConfigError, match="needs a map that has 0 within"):
        store.create_container(idmap=IdMap(some, some))
    assert store.containers() == []


def test_a_folder_that_has_gone_is_an_error_in_words(backing: Callable[[str], Path]) -> None:
    with Mapped(IDS) as mapped, pytest.raises(KernelError, match="upper"):
        mapped.ls_fsconfig_folder(-1, b"upperdir", os.fsencode(backing("ext4") / "upper"))
