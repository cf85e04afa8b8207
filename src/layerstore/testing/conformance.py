"""`DriverConformance`: what every storage driver has to do, as a class of tests to subclass.

::

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def driver(self):
            return MyDriver

`home` is a folder on ext4 unless the subclass has a fixture of that name, `options` an instance of the driver's options
class. What a driver's `Capabilities` do not claim is not asked of it. The behaviours are those of moby's graphtest, of
containerd's suite for snapshotters, and of this project; trees and changes are compared with `ModelTree`, to the last
attribute. Only the interface is used: a driver is known by what it does.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, LayerKey, StorageDriver
from layerstore.errors import DepthExceeded, DriverNotSupported, LayerstoreError
from layerstore.testing import edits as make
from layerstore.testing import trees
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit, apply_all
from layerstore.testing.tars import Entry, char, fifo, file, folder, hardlink, opaque, symlink, whiteout
from layerstore.testing.workbench import Workbench, key

__all__ = ["BASE", "EDITS", "STACKS", "DriverConformance"]

BASE: Sequence[Entry] = (
    folder(b".", mode=0o750, uid=7, gid=8, xattrs={b"trusted.root": b"kept"}),
    folder(b"etc", mode=0o750, uid=3, gid=4, mtime=10**18 + 1, xattrs={b"user.note": b"a\0b"}),
    file(b"etc/passwd", b"root:x:0:0\n", mode=0o640, mtime=10**18 + 999_999_999),
    file(b"etc/tool", b"#!/bin/sh\n", mode=0o4755, uid=1000, xattrs={b"user.mime": b"text", b"trusted.own": b""}),
    file(b"etc/empty"),
    folder(b"data"),
    folder(b"data/deep"),
    file(b"data/deep/big", b"0123456789abcdef" * 4096),
    file(b"data/\xff\xfe", b"no UTF-8"),
    file(b"data/" + b"n" * 251, b"as long as a name may be that a whiteout in a tar can remove"),
    symlink(b"data/link", b"../etc/passwd", uid=5),
    fifo(b"data/pipe", mode=0o600),
    char(b"data/null", 1, 3, mode=0o666),
    folder(b"hollow", mode=0o1777),
    folder(b"shared", mode=0o2775, gid=4),
    file(b"one", b"same file"),
    hardlink(b"two", b"one"),
)
"""A layer with something of everything."""

STACKS: Mapping[str, Sequence[Sequence[Entry]]] = {
    "one layer": [BASE],
    "the topmost file is seen": [BASE, [file(b"one", b"new"), file(b"three", b"")], [file(b"three", b"newer")]],
    "a file is removed": [BASE, [folder(b"etc", mtime=1), whiteout(b"etc/passwd")]],
    "a directory is removed": [BASE, [whiteout(b"data")]],
    "what was removed comes back": [BASE, [whiteout(b"one")], [file(b"one", b"again")]],
    "a directory is emptied": [BASE, [folder(b"data", mtime=2), opaque(b"data")]],
    "a directory is emptied and filled": [BASE, [folder(b"data", mtime=2), opaque(b"data"), file(b"data/new", b"x")]],
    "a removed directory comes back without what it had": [BASE, [whiteout(b"data")], [folder(b"data", mode=0o700)]],
    "a file becomes a directory": [BASE, [folder(b"one"), file(b"one/inner", b"x")]],
    "a directory becomes a file": [BASE, [file(b"data", b"x")]],
    "a file becomes a directory and a file again": [BASE, [folder(b"one"), file(b"one/in")], [file(b"one", b"file")]],
    "a directory becomes a link to another": [BASE, [symlink(b"data", b"etc")]],
    "attributes of a directory change": [BASE, [folder(b"data", mode=0o711, uid=9, gid=9, mtime=7)]],
    "attributes of the root change": [BASE, [folder(b".", mode=0o711, uid=9, xattrs={b"user.new": b"1"})]],
    "links within a layer": [
        BASE, [file(b"x", b"1"), hardlink(b"y", b"x"), folder(b"hollow"), hardlink(b"hollow/z", b"x")],
    ],
}  # fmt: skip
"""Layers on each other, bottom to top, as tars have them."""

EDITS: Mapping[str, Sequence[Edit]] = {
    "nothing": [],
    "a new file": [make.write(b"new", b"x")],
    "a new file in a directory of the image": [make.write(b"data/deep/new", b"x")],
    "a file is written over": [make.write(b"etc/passwd", b"other")],
    "a file is written over with what it had": [make.write(b"etc/passwd", b"root:x:0:0\n")],
    "one byte more": [make.append(b"data/deep/big", b"!")],
    "a file is cut": [make.truncate(b"data/deep/big", 5)],
    "a file is lengthened": [make.truncate(b"etc/empty", 100_000)],
    "other bytes, the same size and time": [
        make.write(b"etc/passwd", b"ROOT:x:0:0\n"),
        make.utimes(b"etc/passwd", 10**18 + 999_999_999),
    ],
    "a time that was there already": [make.utimes(b"etc/passwd", 10**18 + 999_999_999)],
    "a time that differs by a nanosecond": [make.utimes(b"etc/passwd", 10**18 + 999_999_998)],
    "a mode": [make.chmod(b"etc/tool", 0o6711)],
    "a mode that was there already": [make.chmod(b"etc/passwd", 0o640)],
    "a mode and back": [make.chmod(b"etc/passwd", 0), make.chmod(b"etc/passwd", 0o640)],
    "the mode of a directory": [make.chmod(b"data/deep", 0o1700)],
    "an owner takes setuid away": [make.chown(b"etc/tool", 1, 2)],
    "the owner of a link": [make.chown(b"data/link", 70_000, 2**31 + 1)],
    "the owner of a directory": [make.chown(b"data", 1000, 1000)],
    "attributes of the root": [make.chmod(b"", 0o711), make.setxattr(b"", b"user.x", b"1")],
    "an xattr": [make.setxattr(b"etc/tool", b"user.new", bytes(range(256)))],
    "another value of an xattr": [make.setxattr(b"etc/tool", b"user.mime", b"image")],
    "an xattr less": [make.removexattr(b"etc/tool", b"trusted.own")],
    "an xattr of a directory": [make.setxattr(b"etc", b"trusted.new", b"")],
    "xattrs with overlay's names": [
        make.setxattr(b"data", b"trusted.overlay.opaque", b"y"),
        make.setxattr(b"etc/empty", b"trusted.overlay.metacopy", b""),
    ],
    "a file is removed": [make.unlink(b"data/deep/big")],
    "an empty directory is removed": [make.rmdir(b"hollow")],
    "a directory is removed": [make.rmtree(b"data")],
    "a directory is removed and comes back": [make.rmtree(b"data"), make.mkdir(b"data"), make.write(b"data/new", b"x")],
    "a file comes and goes": [make.write(b"etc/new", b"x"), make.unlink(b"etc/new")],
    "a file is removed and comes back": [make.unlink(b"etc/passwd"), make.write(b"etc/passwd", b"back")],
    "a file becomes a directory": [make.unlink(b"etc/empty"), make.mkdir(b"etc/empty"), make.write(b"etc/empty/x")],
    "a directory becomes a file": [make.rmtree(b"data"), make.write(b"data", b"x")],
    "a file becomes a directory and a file again": [
        make.unlink(b"etc/empty"), make.mkdir(b"etc/empty"), make.rmdir(b"etc/empty"), make.write(b"etc/empty", b"x"),
    ],
    "a directory becomes a link": [make.rmtree(b"data"), make.symlink(b"data", b"etc")],
    "a file is renamed": [make.rename(b"data/deep/big", b"data/small")],
    "a file is renamed over another": [make.rename(b"data/deep/big", b"etc/passwd")],
    "a file is renamed and back": [make.rename(b"etc/passwd", b"x"), make.rename(b"x", b"etc/passwd")],
    "a new directory is renamed": [make.mkdir(b"a"), make.write(b"a/f", b"x"), make.rename(b"a", b"data/b")],
    "a new directory is renamed over one of the image": [
        make.mkdir(b"a", 0o700), make.write(b"a/f", b"x"), make.rename(b"a", b"hollow"),
    ],
    "a new directory gets files of the image": [make.mkdir(b"a"), make.rename(b"etc/passwd", b"a/passwd")],
    "a new link to a file of the image": [make.link(b"data/passwd", b"etc/passwd")],
    "a link replaces the file": [make.link(b"x", b"etc/passwd"), make.unlink(b"etc/passwd")],
    "new links": [make.write(b"a", b"x"), make.link(b"b", b"a"), make.link(b"data/c", b"b"), make.append(b"b", b"y")],
    "one name of two is removed": [make.unlink(b"one")],
    "both names of a file are removed": [make.unlink(b"one"), make.unlink(b"two")],
    "symbolic links": [make.symlink(b"new", b"/etc"), make.unlink(b"data/link"), make.symlink(b"data/link", b"x")],
    "names of any bytes": [
        make.write(b"data/\xff\xfe", b"x"), make.write(b"new\nline", b"x"), make.write(b"\x80" * 251, b"x"),
    ],
    "new files belong to the group of their directory": [
        make.write(b"shared/file", b"x"), make.mkdir(b"shared/folder"), make.write(b"shared/folder/file", b"x"),
    ],
    "special files go and change": [make.unlink(b"data/pipe"), make.chmod(b"data/null", 0o600)],
    "all is removed": [
        make.rmtree(b"data"), make.rmtree(b"etc"), make.rmdir(b"hollow"), make.unlink(b"two"),
        make.rmdir(b"shared"),
    ],
}  # fmt: skip
"""What a program does in a container on `BASE`."""


def _model(*layers: Sequence[Entry]) -> ModelTree:
    model = ModelTree()
    for entries in layers:
        model.apply(entries)
    return model.branch()


def _assert_tree(model: ModelTree, seen: trees.Tree) -> None:
    model.learn(seen)
    trees.assert_same(model.listing(seen), seen)


def _below(folder: Path) -> list[str]:
    """All paths in a folder, for what must not grow."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


class DriverConformance:
    """The tests. A subclass has a fixture `driver`, the class to be tested; `home` and `options` if it wants."""

    @pytest.fixture
    def keeps_times(self) -> bool:
        """False for a driver that leaves mounting to a program which changes times on its own, as fuse-overlayfs does.

        Times in a container are then taken from what is seen. Those of committed layers still have to stay.
        """
        return True

    # --- what the subclass says --------------------------------------------------------------------------------------

    @pytest.fixture
    def driver(self) -> type[StorageDriver]:
        """The class that is tested."""
        raise pytest.UsageError("A subclass of DriverConformance needs a fixture `driver`: the class to be tested")

    @pytest.fixture
    def home(self, backing: Callable[[str], Path]) -> Path:
        """Where the driver may keep its layers. Does not exist yet; its parent is empty."""
        return backing("ext4") / "home"

    @pytest.fixture
    def options(self, driver: type[StorageDriver]) -> Any:
        """An instance of the driver's options class."""
        return driver.options()

    @pytest.fixture
    def bench(self, driver: type[StorageDriver], home: Path, options: Any) -> Iterator[Workbench[StorageDriver]]:
        """The driver at work."""
        driver.probe(home, options)
        with Workbench.of(driver, home, options) as bench:
            yield bench

    @pytest.fixture
    def image(self, bench: Workbench[StorageDriver]) -> list[LayerKey]:
        """A committed layer, as the parents of what stands on it."""
        return bench.stack(BASE)

    # --- what it is --------------------------------------------------------------------------------------------------

    def test_it_says_what_it_is(self, driver: type[StorageDriver], options: Any) -> None:
        assert driver.name
        assert driver.name == driver.name.strip().lower(), "as in daemon.json"
        assert isinstance(driver.capabilities, Capabilities)
        assert isinstance(driver.capabilities.dialect, Dialect)
        assert isinstance(driver.capabilities.copy_on_write, CopyOnWrite)
        assert driver.capabilities.max_depth is None or driver.capabilities.max_depth > 0
        assert attrs.has(driver.options), "options is an attrs class"
        assert isinstance(driver.options(), driver.options), "each option has a default"
        if driver.capabilities.dialect is Dialect.MERGED:
            assert not driver.capabilities.independent_layers, "a whole tree depends on what was below it"

    # --- probing -----------------------------------------------------------------------------------------------------

    def test_a_probe_says_what_it_found_and_leaves_nothing(
        self, driver: type[StorageDriver], home: Path, options: Any
    ) -> None:
        before = os.listdir(home.parent)

        found = driver.probe(home, options)

        assert isinstance(found, Backing)
        assert found.filesystem
        assert isinstance(found.copy_on_write, CopyOnWrite)
        assert all(isinstance(word, str) for note in found.notes for word in note)
        assert os.listdir(home.parent) == before, "a home that does not exist is not made by a probe"
        home.mkdir()
        assert driver.probe(home, options) == found
        assert os.listdir(home) == []

    def test_a_probe_of_a_home_in_use_leaves_nothing(self, bench: Workbench[StorageDriver]) -> None:
        driver = bench.driver
        bench.layer(file="x")
        driver.probe(driver.home, driver.settings)  # the first may note what it found
        before = _below(driver.home)

        driver.probe(driver.home, driver.settings)

        assert _below(driver.home) == before

    def test_a_refusal_has_a_reason_and_a_remedy(self, driver: type[StorageDriver], options: Any) -> None:
        """Nothing can be kept in /proc."""
        with pytest.raises(DriverNotSupported) as caught:
            driver.probe(Path("/proc/self/home"), options)

        assert len(str(caught.value).split()) > 2, "the reason, in words"
        assert caught.value.remedy, "what the user could do"

    # --- committed layers --------------------------------------------------------------------------------------------

    def test_a_staged_layer_is_seen_by_nobody(self, bench: Workbench[StorageDriver]) -> None:
        bench.layer(file="x")
        before = _below(bench.driver.home), list(bench.driver.layers())

        made = bench.staged((), file(b"other", b"y"))

        assert (_below(bench.driver.home), list(bench.driver.layers())) == before
        assert list(bench.again().driver.layers()) == before[1]
        assert bench.driver.tree(made).is_dir()

    def test_a_staged_layer_that_is_left_alone_is_no_layer(self, bench: Workbench[StorageDriver]) -> None:
        """Its process died. The core empties the staging folder."""
        made = bench.staged((), file(b"file", b"x"))
        bench.driver.remove(made)
        assert list(bench.driver.layers()) == []

    def test_the_root_of_a_staged_layer_is_plain(self, bench: Workbench[StorageDriver]) -> None:
        previous = os.umask(0o077)
        try:
            layer = bench.layer()
        finally:
            os.umask(previous)

        root = bench.listing(layer)[""]
        assert (root.mode, root.uid, root.gid, root.xattrs) == (0o755, 0, 0, ())

    def test_a_sealed_layer_keeps_its_content_and_its_name(self, bench: Workbench[StorageDriver]) -> None:
        made = bench.staged((), *BASE)
        before = trees.listing(bench.driver.tree(made))

        sealed = bench.seal(made)

        assert sealed.startswith(made), "the key itself, or the key with a suffix"
        assert list(bench.driver.layers()) == [sealed]
        trees.assert_same(before, trees.listing(bench.driver.tree(sealed)))

    @pytest.mark.parametrize("stack", list(STACKS))
    def test_a_stack_shows_what_the_model_says(self, bench: Workbench[StorageDriver], stack: str) -> None:
        layers = STACKS[stack]

        keys = bench.stack(*layers)

        _assert_tree(_model(*layers), bench.listing(keys[0], keys[1:]))
        for number in range(1, len(layers)):
            below = keys[-number:]
            _assert_tree(_model(*layers[:number]), bench.listing(below[0], below[1:]))

    def test_a_read_only_tree_cannot_be_written(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        attempts: list[Callable[[Path], object]] = [
            lambda root: (root / "new").touch(),
            lambda root: (root / "one").write_text("x"),
            lambda root: (root / "one").unlink(),
            lambda root: (root / "data").chmod(0o777),
            lambda root: os.setxattr(root / "one", "user.x", b"x"),
            lambda root: os.utime(root / "one", ns=(0, 0)),
        ]
        for layer, parents in ((image[0], []), (bench.container(image), image)):
            with bench.look(layer, parents) as root:
                for attempt in attempts:
                    with pytest.raises(OSError, match="Read-only") as caught:
                        attempt(root)
                    assert caught.value.errno == errno.EROFS

    def test_many_layers_are_one_tree(self, bench: Workbench[StorageDriver]) -> None:
        """128 layers, or as many as it can."""
        depth = min(bench.driver.capabilities.max_depth or 128, 128)
        keys: list[LayerKey] = []
        for number in range(depth):
            entries = [file(b"same", b"%d" % number), file(b"f%d" % number, b"")]
            entries += [whiteout(b"f%d" % (number - 1))] if number % 10 == 9 else []
            keys.insert(0, bench.layer(keys, *entries))
        box = bench.container(keys)

        with bench.mount(box, keys) as root:
            assert (root / "same").read_text() == str(depth - 1)
            gone = {f"f{number - 1}" for number in range(depth) if number % 10 == 9}
            assert {*os.listdir(root)} == {"same", *(f"f{number}" for number in range(depth))} - gone
            (root / "f0").unlink()
            (root / "same").write_text("new")

        assert list(map(str, bench.changes(box, keys))) == ["D /f0", "C /same"]

    def test_too_many_layers_are_refused_before_anything_is_made(self, bench: Workbench[StorageDriver]) -> None:
        limit = bench.driver.capabilities.max_depth
        if limit is None:
            pytest.skip("it has no limit")
        layer = bench.layer(file="x")
        before = _below(bench.driver.home)

        with pytest.raises(DepthExceeded):
            bench.container([layer] * (limit + 1))

        assert _below(bench.driver.home) == before

    def test_independent_layers_fit_on_any_parents(self, bench: Workbench[StorageDriver]) -> None:
        if not bench.driver.capabilities.independent_layers:
            pytest.skip("its layers depend on their parents")
        first, second = bench.layer(file="1", a=""), bench.layer(file="2", b="")
        top = bench.layer((), whiteout(b"file"), file(b"top", b""))

        for below, names in ((first, {"a", "top"}), (second, {"b", "top"})):
            with bench.look(top, [below]) as root:
                assert {*os.listdir(root)} == names

    def test_dependent_layers_begin_as_their_parents(self, bench: Workbench[StorageDriver]) -> None:
        if bench.driver.capabilities.independent_layers:
            pytest.skip("its layers are independent")
        image = bench.stack(BASE)

        made = bench.staged(image)

        _assert_tree(_model(BASE), trees.listing(bench.driver.tree(made)))

    # --- containers --------------------------------------------------------------------------------------------------

    def test_a_container_is_whole_when_it_is_made(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        """Its process may die at once: another one finds it and can use it."""
        box = bench.container(image)

        assert sorted(bench.driver.layers()) == sorted([*image, box])
        other = bench.again()
        with other.mount(box, image) as root:
            (root / "new").touch()
            _ = os.listdir(root)
        assert list(map(str, bench.changes(box, image))) == ["A /new"]

    def test_a_container_begins_as_its_image(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)

        with bench.mount(box, image) as root:
            seen = trees.listing(root)
        _assert_tree(_model(BASE), seen)
        assert seen[""].mtime_ns == BASE[0].mtime, "the root is that of the parent, its time too"
        assert len(bench.changes(box, image)) == 0

    def test_a_container_without_an_image_is_empty(self, bench: Workbench[StorageDriver]) -> None:
        box = bench.container()

        with bench.mount(box) as root:
            assert os.listdir(root) == []
            facts = root.stat()
            assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o755, 0, 0)
            (root / "file").write_text("x")

        assert list(map(str, bench.changes(box))) == ["A /file"]

    @pytest.mark.parametrize("program", list(EDITS))
    def test_edits_are_seen_found_and_kept(
        self, bench: Workbench[StorageDriver], image: list[LayerKey], program: str, *, keeps_times: bool
    ) -> None:
        """The whole life of a container: edited, unmounted, mounted again, sealed, built on."""
        below = _model(BASE)
        box = bench.container(image)
        with bench.look(image[0]) as root:
            below.learn(trees.listing(root))
        model = below.branch()

        def compare(seen: trees.Tree) -> None:
            if not keeps_times:
                model.forget_times()
            _assert_tree(model, seen)

        with bench.mount(box, image) as root:
            with make.MountedTree(root) as hand:
                apply_all(EDITS[program], hand)
            apply_all(EDITS[program], model)
            compare(trees.listing(root))
            self._assert_changes(model, below, bench, box, image)
            compare(bench.listing(box, image))
        compare(bench.listing(box, image))
        self._assert_changes(model, below, bench, box, image)
        with bench.mount(box, image) as root:
            compare(trees.listing(root))

        sealed = bench.seal(box, image)
        committed = model.commit(below)
        _assert_tree(committed, bench.listing(sealed, image))
        self._assert_changes(committed, below, bench, sealed, image)
        above = bench.container([sealed, *image])
        with bench.mount(above, [sealed, *image]) as root:
            _assert_tree(committed, trees.listing(root))
        assert len(bench.changes(above, [sealed, *image])) == 0
        _assert_tree(below, bench.listing(image[0]))

    def _assert_changes(
        self,
        model: ModelTree,
        below: ModelTree,
        bench: Workbench[StorageDriver],
        layer: LayerKey,
        parents: Sequence[LayerKey],
    ) -> None:
        found = bench.changes(layer, parents)
        assert list(map(str, found)) == list(map(str, model.changes(below)))

    def test_reading_changes_nothing(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            trees.listing(root)
            for path in ("one", "etc/tool", "data/deep/big"):
                os.close(os.open(root / path, os.O_RDWR))  # even opened for writing

        assert len(bench.changes(box, image)) == 0

    def test_changes_are_those_of_now(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        """Asked again, after more was written, a driver looks again."""
        box = bench.container(image)
        with bench.mount(box, image) as root:
            for number in range(3):
                (root / f"new{number}").touch()
                assert len(bench.changes(box, image)) == number + 1
            (root / "new1").unlink()
            assert list(map(str, bench.changes(box, image))) == ["A /new0", "A /new2"]

    def test_containers_and_images_do_not_see_each_other(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        """Nothing that one container does reaches the image or a sibling, mounted at the same time."""
        first, second = bench.container(image), bench.container(image)
        with bench.mount(first, image) as one, bench.mount(second, image) as other:
            with make.MountedTree(one) as hand:
                for edits in (
                    [make.append(b"data/deep/big", b"!"), make.write(b"one", b"x"), make.chmod(b"etc", 0o700)],
                    [make.setxattr(b"etc/tool", b"user.x", b""), make.truncate(b"etc/tool", 1)],
                    [make.chown(b"data", 1, 1), make.rename(b"data/link", b"etc/empty")],
                    [make.unlink(b"etc/passwd"), make.write(b"new", b"x"), make.rmdir(b"hollow")],
                ):  # fmt: skip
                    apply_all(edits, hand)
            _assert_tree(_model(BASE), trees.listing(other))
        _assert_tree(_model(BASE), bench.listing(image[0]))
        assert len(bench.changes(second, image)) == 0
        assert len(bench.changes(first, image)) > 0

    def test_a_mounted_container_can_be_looked_at(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "new").write_text("x")
            (root / "one").unlink()
            with bench.look(box, image) as seen:
                assert (seen / "new").read_text() == "x"
                assert not (seen / "one").exists()
            (root / "more").touch()
            assert [str(change) for change in bench.changes(box, image)] == ["A /more", "A /new", "D /one"]

    def test_the_tree_has_the_marks_of_its_dialect(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "one").unlink()
        sealed = bench.seal(box, image)

        tree = bench.driver.tree(sealed)
        match bench.driver.capabilities.dialect:
            case Dialect.MERGED:
                assert not os.path.lexists(tree / "one")
                assert (tree / "two").exists()
            case Dialect.AUFS:
                assert (tree / ".wh.one").is_file()
                assert not (tree / "two").exists()
            case Dialect.OVERLAY:
                facts = os.lstat(tree / "one")
                assert (stat.S_IFMT(facts.st_mode), facts.st_rdev) == (stat.S_IFCHR, 0)
                assert not (tree / "two").exists()

    def test_a_container_is_usable_until_its_row_is_written(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        """The machine goes down after `seal`: the database still says that it is a container."""
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "new").write_text("x")

        sealed = bench.driver.seal(box, image)

        other = bench.again()
        assert {box, sealed} <= {*other.driver.layers()}
        assert list(map(str, other.changes(box, image))) == ["A /new"]
        with other.mount(box, image) as root:
            assert (root / "new").read_text() == "x"

    def test_a_size_is_kept(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        driver = bench.driver
        if not driver.capabilities.quota or not driver.probe(driver.home, driver.settings).quota:
            pytest.skip("it cannot limit a container's size here")
        box = bench.container(image, size=4 << 20)

        with bench.mount(box, image) as root:
            (root / "fits").write_bytes(bytes(1 << 20))
            with pytest.raises(OSError, match=r"space|quota") as caught:
                self._fill_up(root / "large", 16 << 20)
            assert caught.value.errno in {errno.ENOSPC, errno.EDQUOT}

    def _fill_up(self, path: Path, size: int) -> None:
        with path.open("wb", buffering=0) as target:
            for _ in range(size >> 20):
                target.write(os.urandom(1 << 20))
                os.fsync(target.fileno())

    # --- away --------------------------------------------------------------------------------------------------------

    def test_removal_is_one_step_and_may_be_repeated(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        box = bench.container(image)

        for layer in (box, box, key()):
            bench.driver.remove(layer)

        assert list(bench.driver.layers()) == image
        assert list(bench.again().driver.layers()) == image
        _assert_tree(_model(BASE), bench.listing(image[0]))

    def test_layers_go_in_any_order(self, bench: Workbench[StorageDriver]) -> None:
        for order in (1, -1):
            keys = bench.stack(BASE, [file(b"new", b"x")], [whiteout(b"new")])
            box = bench.container(keys)
            for layer in [box, *keys][::order]:
                bench.driver.remove(layer)
            assert list(bench.driver.layers()) == []

    def test_layers_that_are_gone_leave_nothing(self, bench: Workbench[StorageDriver]) -> None:
        """After any number of layers there is no more in the home than after the first.

        A driver may put a part of its removal off until the filesystem can do it, but not beyond a `close` then.
        """

        def live_once() -> int:
            keys = bench.stack([file(b"file", b"x")], [whiteout(b"file")])
            box = bench.container(keys)
            with bench.mount(box, keys) as root:
                (root / "new").touch()
            bench.changes(box, keys)
            sealed = bench.seal(box, keys)
            for layer in (sealed, *keys):
                bench.driver.remove(layer)
            os.sync()
            return len(_below(bench.driver.home))

        first = live_once()
        for _ in range(3):
            live_once()

        other = bench.again()
        deadline = time.monotonic() + 90
        while len(_below(bench.driver.home)) > first:
            assert time.monotonic() < deadline, f"still there: {_below(bench.driver.home)}"
            time.sleep(0.5)  # btrfs frees subvolumes, and with them their quota groups, every 30 s
            other.driver.close()
        assert list(bench.driver.layers()) == []

    def test_a_layer_that_cannot_be_made_leaves_nothing(self, bench: Workbench[StorageDriver]) -> None:
        layer = bench.layer(file="x")
        before = _below(bench.driver.home)

        with pytest.raises(Exception, match=r"."):  # an error of any kind, but not in silence
            bench.container([key()])

        assert _below(bench.driver.home) == before
        assert list(bench.driver.layers()) == [layer]

    # --- what it tells -----------------------------------------------------------------------------------------------

    def test_layers_are_told_exactly(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        boxes = [bench.container(image), bench.container()]
        top = bench.layer(image, file="x")
        bench.staged(image)

        found = list(bench.driver.layers())

        assert sorted(found) == sorted([*image, *boxes, top])
        assert sorted(bench.again().driver.layers()) == sorted(found)

    def test_usage_grows_with_what_is_written(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        before = bench.driver.usage(box, image)
        with bench.mount(box, image) as root:
            for number in range(4):
                (root / f"new{number}").write_bytes(os.urandom(1 << 20))
        os.sync()

        after = bench.driver.usage(box, image)

        assert 4 << 20 <= after.size - before.size < 5 << 20
        assert after.inodes >= before.inodes

    def test_inspect_and_info_are_told_strings(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        with bench.mount(box, image):
            data = bench.driver.graph_data(box, image)

            assert all(isinstance(word, str) for pair in data.items() for word in pair)
            paths = [path for value in data.values() for path in value.split(":") if path.startswith("/")]
            assert paths
            assert [path for path in paths if not os.path.exists(path)] == []
        assert all(isinstance(word, str) for pair in bench.driver.graph_data(image[0], []).items() for word in pair)
        assert all(isinstance(word, str) for line in bench.driver.status() for word in line)

    # --- together ----------------------------------------------------------------------------------------------------

    def test_threads_do_not_get_in_each_others_way(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        made: list[LayerKey] = []
        failed: list[BaseException] = []

        begin = threading.Barrier(4)

        def work() -> None:
            try:
                for _ in range(5):
                    begin.wait(timeout=60)
                    box = bench.container(image)
                    made.append(bench.layer((), file(b"file", b"x")))
                    bench.driver.remove(box)
            except (LayerstoreError, OSError, threading.BrokenBarrierError) as error:
                failed.append(error)
                begin.abort()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failed
        assert sorted(bench.driver.layers()) == sorted([*image, *made])

    def test_what_another_process_made_can_be_used(
        self, bench: Workbench[StorageDriver], image: list[LayerKey]
    ) -> None:
        other = bench.again()
        box = other.container(image)
        with bench.mount(box, image) as root:
            (root / "new").touch()
        sealed = other.seal(box, image)

        with bench.look(sealed, image) as root:
            assert (root / "new").exists()
        top = bench.layer([sealed, *image], top="")
        with other.look(top, [sealed, *image]) as root:
            assert {"new", "top", "one"} <= {*os.listdir(root)}
