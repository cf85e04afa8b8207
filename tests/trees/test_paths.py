"""What a path means in a tree: links stay within, whatever they say, and what is wrong is told in words."""

from __future__ import annotations

import errno
import io
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.adding import Adder
from layerstore import Damaged, KernelError, NotFound, Store, Tree
from layerstore.kernel.files.descriptors import open_beneath
from layerstore.testing.trees import assert_same, browsed
from support import images as make
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

LONG = "n" * 255
LAYER = make.layer(
    make.folder("etc/"),
    make.file("etc/hosts", "in the image\n"),
    make.symlink("absolute", "/etc/hosts"),
    make.symlink("out", "../../../../../../etc/hosts"),
    make.symlink("kernel", "/proc/self/root/etc/hosts"),
    make.symlink("folder", "etc"),
    make.symlink("round", "about"),
    make.symlink("about", "round"),
    make.symlink("nowhere", "/gone"),
    make.symlink("deep", "folder/../folder/hosts"),
    make.symlink("slash", "etc/hosts/"),
    make.symlink("dot", "folder/."),
    make.symlink("top", "/"),
    make.file(LONG, "long"),
    make.file("line\nfeed\x1b[31m", "odd"),
    make.fifo("pipe"),
)


@pytest.fixture
def tree(store: Store) -> Iterator[Tree]:
    Adder(store)(LAYER, name="app")
    with store.browse("app") as opened:
        yield opened


@pytest.mark.parametrize(
    "path",
    ["etc/hosts", "/etc/hosts", "//etc//./hosts", "../../etc/hosts", "absolute", "out", "folder/hosts", "deep"],
)
def test_links_and_dots_stay_in_the_image(tree: Tree, path: str) -> None:
    assert tree.read(path) == b"in the image\n"
    assert tree.find(path).path == "etc/hosts"


def test_a_link_is_itself_where_it_is_not_followed(tree: Tree) -> None:
    assert tree.find("out", follow=False).target() == "../../../../../../etc/hosts"
    assert tree.find("folder", follow=False).is_symlink
    assert tree.find("folder/", follow=False).path == "etc"
    assert tree.find("folder/.", follow=False).path == "etc"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("round", errno.ELOOP),
        ("etc/hosts/x", errno.ENOTDIR),
        ("etc/hosts/..", errno.ENOTDIR),
        ("etc/hosts/", errno.ENOTDIR),
        ("etc/hosts/.", errno.ENOTDIR),
        ("slash", errno.ENOTDIR),
        ("etc", errno.EISDIR),
        ("pipe", errno.EINVAL),
    ],
)
def test_what_cannot_be_opened_says_why(tree: Tree, path: str, number: int) -> None:
    with pytest.raises(KernelError, match="/") as raised:
        tree.open(path)
    assert raised.value.errno == number


@pytest.mark.parametrize("path", ["gone", "nowhere", "kernel", "x" * 300, "a\0b", "etc/hosts\0", "\udcff", ".wh.etc"])
def test_what_is_not_there_is_not_found(tree: Tree, path: str) -> None:
    with pytest.raises(NotFound, match="there is no /"):
        tree.find(path)


def test_names_of_any_bytes_are_found_as_they_are_listed(tree: Tree) -> None:
    names = [one.name for one in tree.children(tree.root)]
    assert sorted(names) == names
    assert {LONG, "line\nfeed\x1b[31m"} < set(names)
    assert all(tree.find(name, follow=False).name == name for name in names)
    assert [one.path for one in tree.walk("folder")] == ["etc", "etc/hosts"]


def test_any_path_leads_where_the_kernel_goes(store: Store) -> None:
    """To what is there, or to its error: as openat2(2) with RESOLVE_IN_ROOT has it."""
    chance = random.Random(7)
    words = [
        ".",
        "..",
        "",
        "etc",
        "hosts",
        "folder",
        "top",
        "dot",
        "slash",
        "out",
        "round",
        "deep",
        "gone",
        LONG,
        "pipe",
    ]
    image = Adder(store)(LAYER)
    with image.open_tree() as root, image.browse() as tree:
        for _ in range(20_000 if NIGHTLY else 1000):
            path = "/".join(chance.choices(words, k=chance.randrange(1, 6)))
            follow = chance.random() < 0.5
            assert ours(tree, path, follow=follow) == kernels(root, path, follow=follow), (path, follow)


def ours(tree: Tree, path: str, *, follow: bool) -> tuple[int, int] | int:
    try:
        found = tree.find(path, follow=follow)
    except NotFound:
        return errno.ENOENT
    except KernelError as error:
        return error.errno or 0
    return found.mode, found.size


def kernels(root: int, path: str, *, follow: bool) -> tuple[int, int] | int:
    try:
        fd = open_beneath(root, path or ".", os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except KernelError as error:
        return error.errno or 0
    facts = os.fstat(fd)
    os.close(fd)
    return facts.st_mode, 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size


def test_what_was_opened_outlives_its_tree_and_its_image(store: Store) -> None:
    image = Adder(store)(LAYER)
    with image.browse() as tree:
        file = tree.open("etc/hosts")
    image.remove()
    with file:
        assert (file.seek(3), file.read(3), file.seek(-2, io.SEEK_END), file.read()) == (3, b"the", 11, b"e\n")


def test_what_goes_while_a_container_is_read_is_passed_over(store: Store) -> None:
    with store.create_container(Adder(store)(LAYER)).mount() as root:
        for name in ("gone", "file", "link", "stays"):
            (root / "new" / name).mkdir(parents=True)
        with store.containers()[0].browse() as tree:
            walk = tree.walk("new")
            assert next(walk).path == "new"
            assert next(walk).path == "new/file"
            for name in ("gone", "file", "link"):
                (root / "new" / name).rmdir()
            (root / "new/file").write_text("")
            (root / "new/link").symlink_to("/etc")
            assert [entry.path for entry in walk] == ["new/gone", "new/link", "new/stays"]


def test_while_it_is_read_an_image_stays(store: Store) -> None:
    image = Adder(store)(LAYER, name="app")
    with image.browse() as tree:
        with pytest.raises(Exception, match="it is being read"):
            image.remove()
        assert tree.find("etc").is_folder
    image.remove()


def test_an_image_without_layers_is_an_empty_folder(store: Store) -> None:
    with Adder(store)().browse() as tree:
        assert list(tree.walk()) == [tree.root]
        assert (tree.root.mode & 0o7777, dict(tree.root.xattrs())) == (0o755, {})


def test_a_layer_that_is_gone_is_told(store: Store, data_root: Path) -> None:
    image = Adder(store)(LAYER)
    [layer] = [path for path in (data_root / "overlay2").iterdir() if not path.name.startswith(".")]
    (layer / "diff").rename(layer / "away")
    with pytest.raises(Damaged, match="missing"), image.browse():
        pass
    (layer / "away").rename(layer / "diff")


def test_paths_longer_than_the_kernel_takes_are_read(store: Store) -> None:
    box = store.create_container()
    with box.mount() as root, pytest.MonkeyPatch.context() as patch:
        for _ in range(20):
            patch.chdir(root if _ == 0 else ".")
            Path("d" * 250).mkdir()
            patch.chdir("d" * 250)
        Path("end").write_text("deep")
    with box.browse() as tree:
        assert tree.read("/".join(["d" * 250] * 20) + "/end") == b"deep"
        assert len(list(tree.walk())) == 22


def test_a_running_change_is_seen(store: Store) -> None:
    box = store.create_container(Adder(store)(LAYER))
    with box.mount() as root, box.browse() as tree:
        (root / "etc/hosts").unlink()
        (root / "etc/new").write_text("new")
        assert [one.name for one in tree.children(tree.find("etc"))] == ["new"]
    with box.browse() as tree, box.open_tree():
        assert_same(browsed(tree), browsed(tree))
