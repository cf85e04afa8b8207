"""What a driver tells: its keys, what a layer occupies, lines for people."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from layerstore.driver import Dialect, Layer, StorageDriver
from layerstore.kernel.files import remove_tree
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE, EDITS
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.edits import apply_all
from layerstore.testing.tars import file, folder, symlink
from layerstore.testing.workbench import Workbench, keys_of
from layerstore.trees import open_slices


def _counts_itself(bench: Workbench[StorageDriver]) -> bool:
    """Of a whole tree the base class counts all; who counts otherwise means what the layer has by itself."""
    return (
        bench.driver.capabilities.dialect is not Dialect.MERGED or type(bench.driver).usage is not StorageDriver.usage
    )


class Telling(Subject):
    """What it tells."""

    def test_layers_are_told_exactly(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        boxes = [bench.container(image), bench.container()]
        top = bench.layer(image, file="x")
        bench.staged(image)

        found = bench.keys()

        assert found == keys_of(*image, *boxes, top)
        assert bench.again().keys() == found

    def test_what_is_read_without_a_mount_is_what_the_mount_shows(
        self, bench: Workbench[StorageDriver], image: list[Layer]
    ) -> None:
        """`slices`: of layers and of containers, mounted or not."""

        def assert_alike(layer: Layer, parents: Sequence[Layer]) -> None:
            with open_slices(bench.driver.slices(layer, parents)) as tree:
                trees.assert_same(bench.listing(layer, parents), trees.browsed(tree))

        assert_alike(image[0], image[1:])
        box = bench.container(image)
        assert_alike(box, image)
        with bench.edit(box, image) as root:
            apply_all(EDITS["a directory is removed and comes back"], root)
            apply_all(EDITS["names of any bytes"], root)
        assert_alike(box, image)
        sealed = bench.seal(box, image)
        assert_alike(sealed, image)
        top = bench.container([sealed, *image])
        with bench.edit(top, [sealed, *image]) as root:
            apply_all(EDITS["all is removed"], root)
        assert_alike(top, [sealed, *image])

    def test_usage_grows_with_what_is_written(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        before = bench.usage(box, image)
        with bench.mount(box, image) as root:
            for number in range(4):
                (root / f"new{number}").write_bytes(os.urandom(1 << 20))
        os.sync()

        after = bench.usage(box, image)

        assert 4 << 20 <= after.size - before.size < 5 << 20
        assert after.inodes >= before.inodes

    def test_usage_is_what_is_on_the_disk(self, bench: Workbench[StorageDriver]) -> None:
        """Each file once, whatever names it has; blocks, not sizes; and nothing of what links lead to."""
        outside = bench.driver.home.parent / "outside"
        (outside / "deep").mkdir(parents=True)
        (outside / "deep/large").write_bytes(os.urandom(4 << 20))
        for below in ([], bench.stack(BASE)) if _counts_itself(bench) else ([],):
            made = bench.staged(below, folder(b"d"), symlink(b"out", os.fsencode(outside)), symlink(b"d/up", b".."))
            tree = bench.tree(made)
            (tree / "d/large").write_bytes(os.urandom(1 << 20))
            for name in ("second", "d/third", "d/fourth"):
                os.link(tree / "d/large", tree / name)
            with (tree / "sparse").open("wb") as sparse:
                sparse.truncate(1 << 30)
            layer = bench.seal(made, below)
            os.sync()

            usage = bench.usage(layer, below)

            assert 1 << 20 <= usage.size < 5 << 18
            assert usage.inodes in (5, 6), "d, large, sparse, out, up; and the root, where it is the layer's own"
        remove_tree(outside)

    def test_usage_of_a_container_is_what_it_wrote(self, bench: Workbench[StorageDriver]) -> None:
        if not _counts_itself(bench):
            pytest.skip("it leaves that to the base class, which walks the tree")
        image = bench.stack([file(b"large", os.urandom(3 << 20)), file(b"small", b"x")])
        box = bench.container(image)
        os.sync()
        assert bench.usage(box, image).size < 1 << 18
        with bench.mount(box, image) as root:
            (root / "small").write_bytes(os.urandom(1 << 20))
            (root / "again").hardlink_to(root / "small")
            assert 1 << 20 <= bench.usage(box, image).size < 5 << 18, "what is not on the disk yet counts"
        os.sync()
        assert 1 << 20 <= bench.usage(box, image).size < 5 << 18

    def test_inspect_tells_the_parents_in_order(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        """The nearest first, as overlay takes them, and as docker shows them."""
        keys = [bench.layer(image, file(b"upper", b"x")), *image]
        keys.insert(0, bench.layer(keys, file(b"upper", b"y")))
        box = bench.container(keys)

        data = bench.graph_data(box, keys)

        assert data["MergedDir"] == str(bench.driver.mountpoint(box))
        for name, value in data.items():
            if name == "LowerDir":
                assert value.split(":") == [str(bench.tree(layer)) for layer in keys]
            if name == "UpperDir":
                assert value == str(bench.tree(box))
            assert not any(layer.key in value for layer in keys if name != "LowerDir")

    def test_info_has_nothing_of_what_is_gone(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        before = sorted(bench.notes())
        for _ in range(2):
            box = bench.container(image)
            with bench.mount(box, image) as root:
                (root / "new").touch()
            bench.changes(box, image)
            bench.remove(bench.seal(box, image))
            bench.remove(bench.layer((), file(b"file", b"x")))

        assert sorted(bench.notes()) == before, "what was removed and not deleted yet"
        bench.empty_staging()
        assert sorted(bench.notes()) == before
        assert sorted(bench.again().notes()) == before

    def test_inspect_and_info_are_told_strings(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image):
            data = bench.graph_data(box, image)

            assert all(isinstance(word, str) for pair in data.items() for word in pair)
            paths = [path for value in data.values() for path in value.split(":") if path.startswith("/")]
            assert paths
            assert [path for path in paths if not os.path.exists(path)] == []
        assert all(isinstance(word, str) for pair in bench.graph_data(image[0], []).items() for word in pair)
        notes = bench.driver.probe(bench.driver.home, bench.driver.settings).notes
        assert all(isinstance(word, str) for line in notes for word in line)
