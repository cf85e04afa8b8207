"""podman finds the images of a store, mounts them, and saves them to the bit, from the store's own layers."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore import Image, Store
from layerstore.errors import ConfigError, DriverNotSupported, NotFound
from layerstore.faces import podman
from layerstore.faces.podman import exposing
from layerstore.testing import tars, trees
from support import images as make

pytestmark = [pytest.mark.root, pytest.mark.tools("podman")]

LOWER = make.layer(
    make.folder("etc", mode=0o750, uid=3, gid=4),
    make.file("etc/passwd", "root:x:0:0\n", xattrs={"user.note": b"lower"}),
    make.file("etc/gone", "removed above"),
    make.folder("opt/tree"),
    make.file("opt/tree/old", "hidden above"),
    make.hard_link("opt/link", "etc/passwd"),
    make.file("big", b"0123456789abcdef" * 100_000),
)
MIDDLE = make.layer(
    make.whiteout("etc/gone"),
    make.folder("opt/tree"),
    make.opaque("opt/tree"),
    make.file("opt/tree/new", "new"),
    make.file("etc/ä\n", "an odd name"),
)
# A name that comes twice, one that a folder's link leads away, and a root that hides all that is below.
UPPER = (
    b"".join(
        tars.encode(entry)
        for entry in (
            tars.file(b"etc/twice", b"one"),
            tars.file(b"etc/twice", b"two"),
            tars.sparse(b"etc/sparse", 100_000, (4096, b"data")),
            tars.file(b"etc/" + b"n" * 200, b"a long name"),
        )
    )
    + tars.END
)
ALONE = make.layer(make.opaque(""), make.file("only", "this"))


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def ask(backing: Callable[[str], Path], shared: Path) -> Iterator[Callable[..., str]]:
    """podman, with a storage of its own, and `shared` as an additional one."""
    with tempfile.TemporaryDirectory(prefix="p-") as run_root:
        command = ["podman", "--root", str(backing("ext4")), "--runroot", run_root, "--storage-driver", "overlay"]
        command += ["--storage-opt", f"overlay.imagestore={shared}"]

        def asked(*arguments: str | Path) -> str:
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield asked
        asked("umount", "--all", "--force")


def tree_of(ask: Callable[..., str], image: str) -> Path:
    """The tree of a container that podman makes on an image. (Images of such stores it mounts for containers alone.)"""
    return Path(ask("mount", ask("create", "--network", "none", image, "program").strip()).strip())


@pytest.fixture
def image(store: Store) -> Image:
    return Adder(store)(LOWER, MIDDLE, UPPER, name="team/app:1")


def test_podman_has_the_tree(store: Store, image: Image, shared: Path, ask: Callable[..., str]) -> None:
    done = podman.expose(store, shared)

    assert dict(done.images) == {"team/app:1": image.id[7:]}
    [facts] = json.loads(ask("image", "inspect", "team/app:1"))
    assert facts["Id"] == image.id[7:]
    assert facts["RootFS"]["Layers"] == [*image.layers]
    with image.mount() as tree:
        found, expected = trees.listing(tree_of(ask, "team/app:1")), trees.listing(tree)
    assert evolve(found.pop(""), mtime_ns=0) == evolve(expected.pop(""), mtime_ns=0)  # the container's own folder
    assert found == expected


def test_podman_saves_it_to_the_bit(
    store: Store, image: Image, shared: Path, ask: Callable[..., str], tmp_path: Path
) -> None:
    podman.expose(store, shared)
    ask("save", "-q", "-o", tmp_path / "saved.tar", "team/app:1")

    store.remove_image("team/app:1")
    [again] = store.load(tmp_path / "saved.tar")
    assert again.id == image.id


def test_without_reading_layers_it_can_be_mounted_alone(
    store: Store, image: Image, shared: Path, ask: Callable[..., str]
) -> None:
    podman.expose(store, shared, exact=False)
    assert not list((shared / "overlay-layers").glob("*.gz"))
    assert (tree_of(ask, "team/app:1") / "etc/twice").read_bytes() == b"two"
    ask("rm", "--all", "--force")

    podman.expose(store, shared)
    assert len(list((shared / "overlay-layers").glob("*.gz"))) == 3


def test_a_root_that_hides_what_is_below(store: Store, shared: Path, ask: Callable[..., str]) -> None:
    Adder(store)(LOWER, ALONE, name="alone")
    podman.expose(store, shared)

    assert os.listdir(tree_of(ask, "alone")) == ["only"]


def test_a_layer_that_is_there_twice(store: Store, shared: Path, ask: Callable[..., str]) -> None:
    Adder(store)(LOWER, MIDDLE, LOWER, name="twice")
    podman.expose(store, shared)

    assert (tree_of(ask, "twice") / "etc/gone").read_text() == "removed above"


def test_what_is_exposed_stays_and_goes_with_the_next_call(
    store: Store, image: Image, shared: Path, ask: Callable[..., str]
) -> None:
    podman.expose(store, shared)
    store.remove_image("team/app:1")
    store.wait()
    assert (tree_of(ask, "team/app:1") / "etc/twice").read_bytes() == b"two"
    ask("rm", "--all", "--force")

    other = Adder(store)(ALONE, name="other")
    podman.expose(store, shared)
    assert ask("images", "-q", "--no-trunc").split() == [other.id]
    assert sorted(os.listdir(shared / "overlay")) == sorted(["l", other.chain_ids[0][7:]])
    assert [path.is_dir() for path in store.image("other").folders.values()] == [True]
    assert len(os.listdir(store.data_root / "overlay2")) == 2  # one layer, and `.empty`

    podman.withdraw(store, shared)
    assert ask("images", "-q") == ""
    assert not any(store.leases(owner) for owner in (f"podman {shared}",))


def test_one_image_of_several(store: Store, image: Image, shared: Path) -> None:
    Adder(store)(ALONE, name="other")

    assert list(podman.expose(store, shared, only=["other"]).images) == ["other:latest"]
    with pytest.raises(NotFound):
        podman.expose(store, shared, only=["neither"])


def test_folders_of_others_are_left_alone(store: Store, image: Image, shared: Path, tmp_path: Path) -> None:
    shared.mkdir()
    (shared / "overlay").mkdir()
    with pytest.raises(ConfigError, match="not empty"):
        podman.expose(store, shared)
    with pytest.raises(NotFound):
        podman.withdraw(store, shared)

    mine = tmp_path / "mine"
    podman.expose(store, mine)
    (mine / ".layerstore").write_text("another\n")
    with pytest.raises(ConfigError, match="another store"):
        podman.expose(store, mine)


def test_layers_of_another_form_are_refused(data_root: Path, shared: Path) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="vfs")
    with layerstore.open(config=config) as store, pytest.raises(DriverNotSupported, match="of vfs"):
        podman.expose(store, shared)
    assert not shared.exists()


def test_files_whose_data_a_container_left_below(data_root: Path, shared: Path, ask: Callable[..., str]) -> None:
    # podman mounts without `metacopy`: it would show such a file without its data.
    config = layerstore.Config(
        data_root=data_root,
        exec_root=data_root.with_name("exec"),
        storage_driver="overlay2",
        storage_opts=("overlay2.metacopy=true",),
    )
    with layerstore.open(config=config) as store:
        box = store.create_container(Adder(store)(LOWER, name="base"), name="web")
        with box.mount() as tree:
            (tree / "big").chmod(0o600)
        box.commit("made")
        podman.expose(store, shared)
        assert (tree_of(ask, "made") / "big").stat().st_mode & 0o7777 == 0o600
        assert (tree_of(ask, "made") / "big").read_bytes() == b"0123456789abcdef" * 100_000


ODD = {
    "created": "yesterday",
    "Created": "2024-01-01",
    "config": {"Env": "A=1"},
    "history": [{"created": "", "empty_layer": True}],
}
READ = {
    "created": "2024-01-01T00:00:00.5+01:00",
    "author": None,
    "config": {"Shell": "sh", "Labels": {"a": None}},
    "x": [1],
}


def test_what_podman_cannot_read_is_left_out(store: Store, shared: Path, ask: Callable[..., str]) -> None:
    # It would list and run none of its images.
    config = json.loads(make.config([LOWER]))
    for number, (field, value) in enumerate(ODD.items()):
        Adder(store)(LOWER, name=f"odd:{number}", config=json.dumps(config | {field: value}).encode())
    Adder(store)(LOWER, name="twice:1", config=json.dumps(config)[:-1].encode() + b', "created": 1, "created": null}')
    Adder(store)(LOWER, name="read:1", config=json.dumps(config | READ).encode())
    Adder(store)(name="empty:1", config=make.config([]))

    done = podman.expose(store, shared)
    assert sorted(done.left_out) == [*(f"odd:{number}" for number in range(len(ODD))), "twice:1"]
    assert sorted(ask("images", "--format", "{{.Repository}}").split()) == [
        "docker.io/library/empty",
        "docker.io/library/read",
    ]


def test_podman_does_not_wait_for_layers_that_are_read(
    store: Store, image: Image, shared: Path, ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    podman.expose(store, shared)
    Adder(store)(ALONE, name="other")
    seen = []
    monkeypatch.setattr(exposing, "write_split", lambda *_: seen.append(ask("images", "-q", "--no-trunc").split()))
    podman.expose(store, shared)
    assert seen == [[image.id]]


def test_who_was_killed_left_nothing_in_the_way(store: Store, image: Image, tmp_path: Path) -> None:
    shared = tmp_path / os.fsdecode(b"\xff a folder")
    for left in ("..layerstore.new", "overlay-layers/.gone.new"):
        (shared / left).parent.mkdir(parents=True, exist_ok=True)
        (shared / left).write_text("")
        assert podman.expose(store, shared).images
    assert not list(shared.rglob("*.new"))
    podman.withdraw(store, shared)


@pytest.mark.parametrize("what", ["file", "skeleton"])
def test_a_damaged_image_is_left_out(store: Store, image: Image, shared: Path, what: str) -> None:
    Adder(store)(ALONE, name="other")
    folder = image.folders[image.chain_ids[0]]
    if what == "file":
        (folder / "big").write_bytes(b"")
    else:
        skeleton = store.data_root / "skeletons" / folder.parent.name
        skeleton.write_bytes(b"")

    done = podman.expose(store, shared)
    assert [*done.images] == ["other:latest"]
    assert [*done.left_out] == ["team/app:1"]
    assert len(os.listdir(shared / "overlay/l")) == 1
    assert len(store.leases(f"podman {shared}")) == 1
