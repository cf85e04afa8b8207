"""Containers: what programs do in them is seen, found and kept."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore.driver import Dialect, Layer, StorageDriver
from layerstore.errors import LayerstoreError
from layerstore.kernel.mounts import mounting
from layerstore.testing import edits as make
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE, EDITS
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import apply_all
from layerstore.testing.filesystems import mountpoints
from layerstore.testing.without_root import skipping
from layerstore.testing.workbench import Workbench, keys_of


class Containers(Subject):
    """Writable layers."""

    def test_a_container_is_whole_when_it_is_made(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        """Its process may die at once: another one finds it and can use it."""
        box = bench.container(image)

        assert bench.keys() == keys_of(*image, box)
        other = bench.again()
        with other.mount(box, image) as root:
            (root / "new").touch()
            _ = os.listdir(root)
        assert list(map(str, bench.changes(box, image))) == ["A /new"]

    def test_a_container_begins_as_its_image(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)

        with bench.mount(box, image) as root:
            seen = trees.listing(root)
        assert_tree(model_of(BASE), seen)
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
        self, bench: Workbench[StorageDriver], image: list[Layer], program: str, *, keeps_times: bool
    ) -> None:
        """The whole life of a container: edited, unmounted, mounted again, sealed, built on."""
        below = model_of(BASE)
        box = bench.container(image)
        with bench.look(image[0]) as root:
            below.learn(trees.listing(root))
        model = below.branch()

        def compare(seen: trees.Tree) -> None:
            if not keeps_times:
                model.forget_times()
            assert_tree(model, seen)

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

        committed = model.commit(below)
        if bench.changes(box, image).sealable:
            sealed = bench.seal(box, image)
        else:  # the core copies what changed
            sealed = bench.layer(image, *model.entries(below))
        assert_tree(committed, bench.listing(sealed, image))
        self._assert_changes(committed, below, bench, sealed, image)
        above = bench.container([sealed, *image])
        with bench.mount(above, [sealed, *image]) as root:
            assert_tree(committed, trees.listing(root))
        assert len(bench.changes(above, [sealed, *image])) == 0
        assert_tree(below, bench.listing(image[0]))

    def _assert_changes(
        self,
        model: ModelTree,
        below: ModelTree,
        bench: Workbench[StorageDriver],
        layer: Layer,
        parents: Sequence[Layer],
    ) -> None:
        found = bench.changes(layer, parents)
        assert list(map(str, found)) == list(map(str, model.changes(below)))

    def test_reading_changes_nothing(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            trees.listing(root)
            for path in ("one", "etc/tool", "data/deep/big"):
                os.close(os.open(root / path, os.O_RDWR))  # even opened for writing

        assert len(bench.changes(box, image)) == 0

    def test_changes_are_those_of_now(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        """Asked again, after more was written, a driver looks again."""
        box = bench.container(image)
        with bench.mount(box, image) as root:
            for number in range(3):
                (root / f"new{number}").touch()
                assert len(bench.changes(box, image)) == number + 1
            (root / "new1").unlink()
            assert list(map(str, bench.changes(box, image))) == ["A /new0", "A /new2"]

    def test_containers_and_images_do_not_see_each_other(
        self, bench: Workbench[StorageDriver], image: list[Layer]
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
            assert_tree(model_of(BASE), trees.listing(other))
        assert_tree(model_of(BASE), bench.listing(image[0]))
        assert len(bench.changes(second, image)) == 0
        assert len(bench.changes(first, image)) > 0

    def test_a_mounted_container_can_be_looked_at(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "new").write_text("x")
            (root / "one").unlink()
            with bench.look(box, image) as seen:
                assert (seen / "new").read_text() == "x"
                assert not (seen / "one").exists()
            (root / "more").touch()
            assert [str(change) for change in bench.changes(box, image)] == ["A /more", "A /new", "D /one"]

    def test_the_tree_has_the_marks_of_its_dialect(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "one").unlink()
        sealed = bench.seal(box, image)

        tree = bench.tree(sealed)
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
        self, bench: Workbench[StorageDriver], image: list[Layer]
    ) -> None:
        """The machine goes down after `seal`: the database still says that it is a container."""
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "new").write_text("x")

        sealed = bench.seal_only(box, image)

        other = bench.again()
        assert {*keys_of(box, sealed)} <= {*other.keys()}
        assert list(map(str, other.changes(box, image))) == ["A /new"]
        with other.mount(box, image) as root:
            assert (root / "new").read_text() == "x"
            (root / "more").touch()

    def test_a_size_is_kept(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        driver = bench.driver
        if not driver.probe(driver.home, driver.settings).quota:
            pytest.skip("it cannot limit a container's size here")
        box = bench.container(image, size=4 << 20)

        with bench.mount(box, image) as root:
            (root / "fits").write_bytes(bytes(1 << 20))
            with pytest.raises(OSError, match=r"space|quota") as caught:
                self._fill_up(root / "large", 16 << 20)
            assert caught.value.errno in {errno.ENOSPC, errno.EDQUOT}

    def test_what_is_in_use_is_not_unmounted(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            place = str(root)
            with (root / "one").open(), pytest.raises(LayerstoreError):
                mounting.unmount(root)
            assert place in mountpoints()
            (root / "new").touch()
        assert place not in mountpoints()

    def test_a_mount_that_came_up_read_only_is_an_error(
        self, bench: Workbench[StorageDriver], image: list[Layer]
    ) -> None:
        """Overlay does that, without a word, where it cannot write to its work directory."""
        box = bench.container(image)
        bench.driver.prepare(box, image, read_only=False)
        work = bench.work_folder(box, image)
        if work is None:
            pytest.skip("no mount of it has a work directory")
        with immutable(work), pytest.raises(LayerstoreError), bench.mount(box, image) as root:
            (root / "new").touch()
        assert str(bench.driver.mountpoint(box)) not in mountpoints()

    def _fill_up(self, path: Path, size: int) -> None:
        with path.open("wb", buffering=0) as target:
            for _ in range(size >> 20):
                target.write(os.urandom(1 << 20))
                os.fsync(target.fileno())


_SET_FLAGS, _IMMUTABLE = 0x40086602, 0x10  # linux/fs.h


@contextmanager
def immutable(folder: Path) -> Iterator[None]:
    """Nothing can be made in it, not even by root."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with skipping("what nobody may alter"):
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", _IMMUTABLE))
        try:
            yield
        finally:
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", 0))
    finally:
        os.close(fd)
