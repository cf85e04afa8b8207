"""A sealed layer is its changes and nothing else: on its own parents, on others, and for whoever writes later."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import pytest

from layerstore.driver import Dialect, Layer, StorageDriver
from layerstore.errors import LayerstoreError
from layerstore.kernel import btrfs
from layerstore.kernel.files import filesystem_type
from layerstore.testing import edits as make
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE, EDITS, EMPTIED, OTHER
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.editing import ModelTree
from layerstore.testing.edits import Edit, apply_all
from layerstore.testing.remains import paths_below
from layerstore.testing.tars import Entry, file
from layerstore.testing.workbench import Workbench

Bench = Workbench[StorageDriver]

LAYERED: Sequence[Sequence[Edit]] = (
    [make.rmtree(b"data"), make.mkdir(b"data"), make.mkdir(b"data/deep"), make.write(b"data/deep/new", b"x")],
    [make.rmtree(b"data"), make.mkdir(b"data"), make.mkdir(b"data/deep"), make.mkdir(b"data/deep/deeper")],
    [make.rmtree(b"data"), make.write(b"data", b"x")],
    [make.unlink(b"one"), make.mkdir(b"one"), make.write(b"one/inner", b"x")],
    [make.rmtree(b"etc"), make.mkdir(b"etc", 0o700)],
    [make.unlink(b"etc/passwd"), make.unlink(b"etc/empty"), make.rmdir(b"hollow"), make.mkdir(b"hollow")],
    [make.mkdir(b"hollow/new"), make.write(b"hollow/new/file", b"x"), make.chmod(b"etc", 0o711)],
    [make.rename(b"data/deep/big", b"hollow/big"), make.link(b"data/passwd", b"etc/passwd")],
)
"""Edits that leave marks of every kind, some in each other."""


class Sealing(Subject):
    """What a seal makes."""

    @pytest.mark.parametrize("number", range(len(LAYERED)))
    def test_a_sealed_layer_means_the_same_on_any_parents(self, bench: Bench, number: int) -> None:
        """On its own, on others, on none; and where nobody has what it removes."""
        image = bench.stack(BASE)
        sealed, entries = _committed(bench, image, LAYERED[number])
        assert_tree(_applied(BASE, entries), bench.listing(sealed, image))
        if bench.driver.capabilities.dialect is Dialect.MERGED:
            return
        for below in (OTHER, EMPTIED):
            parents = bench.stack(below)
            _assert_fits(below, entries, bench.listing(sealed, parents))
            above = bench.container([sealed, *parents])
            with bench.mount(above, [sealed, *parents]) as root:
                _assert_fits(below, entries, trees.listing(root))
            assert len(bench.changes(above, [sealed, *parents])) == 0
        _assert_fits((), entries, bench.listing(sealed))

    @pytest.mark.parametrize("program", list(EDITS))
    def test_a_sealed_layer_fits_on_others(self, bench: Bench, program: str) -> None:
        if bench.driver.capabilities.dialect is Dialect.MERGED:
            pytest.skip("its layers depend on their parents")
        image = bench.stack(BASE)
        sealed, entries = _committed(bench, image, EDITS[program])
        parents = bench.stack(OTHER)
        _assert_fits(OTHER, entries, bench.listing(sealed, parents))
        _assert_fits((), entries, bench.listing(sealed))

    def test_what_was_only_opened_is_not_in_the_layer(self, bench: Bench) -> None:
        image = bench.stack(BASE)
        box = bench.container(image)
        with bench.edit(box, image) as hand:
            hand.touch_unaltered(b"etc/tool")
            hand.touch_unaltered(b"data/deep/big")
            hand.chmod(b"data/deep", 0o700)
            hand.chmod(b"data/deep", BASE[6].mode)
            hand.write(b"new", b"x")
        assert list(map(str, bench.changes(box, image))) == ["A /new"]
        sealed = bench.seal(box, image)
        assert list(map(str, bench.changes(sealed, image))) == ["A /new"]
        if bench.driver.capabilities.dialect is not Dialect.MERGED:
            assert [*trees.listing(bench.tree(sealed))] == ["", "new"]
            parents = bench.stack(OTHER)
            with bench.look(sealed, parents) as seen:
                assert not (seen / "etc/tool").exists()

    def test_a_folder_of_the_image_that_was_renamed(self, bench: Bench) -> None:
        """Where that can be done at all, the layer has what is in it, and needs no name of another layer for it."""
        image = bench.stack(BASE)
        box = bench.container(image)
        with bench.mount(box, image) as root:
            try:
                (root / "data/deep").rename(root / "moved")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                pytest.skip("it does not rename folders of an image, as programs have to expect")
        found = bench.changes(box, image)
        assert list(map(str, found)) == ["C /data", "D /data/deep", "A /moved", "A /moved/big"]
        if not found.sealable:
            return
        seen = bench.listing(box, image)
        sealed = bench.seal(box, image)
        trees.assert_same(seen, bench.listing(sealed, image), ignoring=["mtime_ns"])
        if bench.driver.capabilities.dialect is not Dialect.MERGED:
            fresh = bench.listing(sealed, bench.stack(OTHER))
            assert [path for path in fresh if path.startswith("moved")] == ["moved", "moved/big"]
            assert fresh["moved/big"].sha256 == seen["moved/big"].sha256

    def test_a_committed_layer_is_not_written_any_more(self, bench: Bench) -> None:
        """By its path, where a filesystem forbids that; by what was open before, where a seal makes another object."""
        image = bench.stack(BASE)
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "new").write_text("sealed")
        held = os.open(bench.tree(box) / "new", os.O_WRONLY) if (bench.tree(box) / "new").exists() else None
        try:
            sealed = bench.seal_only(box, image)
            if sealed.key != box.key and held is not None:
                os.pwrite(held, b"SEALED", 0)
        finally:
            if held is not None:
                os.close(held)
        with bench.look(sealed, image) as seen:
            assert (seen / "new").read_text() == "sealed"
        for layer in (*image, sealed):
            self._assert_protected(bench, layer)

    def _assert_protected(self, bench: Bench, layer: Layer) -> None:
        tree = bench.tree(layer)
        if filesystem_type(tree) != "btrfs" or not btrfs.is_subvolume(tree):
            return
        with pytest.raises(OSError, match=r"Read-only") as caught:
            (tree / "written").touch()
        assert caught.value.errno == errno.EROFS
        assert btrfs.is_read_only(tree)

    def test_a_container_goes_on_after_a_seal_that_came_to_nothing(self, bench: Bench) -> None:
        """The process died before the row was written: it is a container, and written to, measured and sealed again."""
        image = bench.stack([file(b"below", b"1")])
        box = bench.container(image)
        with bench.mount(box, image) as root:
            (root / "early").write_text("e")
        sealed = bench.seal_only(box, image)
        other = bench.again()
        if sealed.key != box.key:  # that has no row, and goes with the next open
            other.remove(sealed)

        with other.mount(box, image) as root:
            (root / "later").write_bytes(os.urandom(1 << 20))
            (root / "early").unlink()
        os.sync()

        assert other.usage(box, image).size >= 1 << 20, "nothing that the first seal noted counts"
        assert list(map(str, other.changes(box, image))) == ["A /later"]
        again = other.seal(box, image)
        assert other.listing(again, image).keys() == {"", "below", "later"}
        assert other.usage(again, image).size >= 1 << 20

    def test_a_subvolume_in_a_container_is_not_lost_in_silence(self, bench: Bench) -> None:
        """On btrfs a program can make one. It is in the layer, or there is none."""
        for image in ([], bench.stack(BASE)):
            self._try_subvolume(bench, image)

    def _try_subvolume(self, bench: Bench, image: list[Layer]) -> None:
        box = bench.container(image)
        with bench.mount(box, image) as root:
            if filesystem_type(root) != "btrfs":
                pytest.skip("nothing of the kind can be made there")
            btrfs.create(root / "inner")
            (root / "inner/file").write_text("x")
        found = bench.changes(box, image)
        assert list(map(str, found)) == ["A /inner", "A /inner/file"]
        if found.sealable:
            sealed = bench.seal(box, image)
            with bench.look(sealed, image) as seen:
                assert (seen / "inner/file").read_text() == "x"
            bench.remove(sealed)
        else:
            with pytest.raises(LayerstoreError):
                bench.seal_only(box, image)
            bench.remove(box)
        assert [path for path in paths_below(bench.driver.home) if box.key in path] == []
        bench.empty_staging()


def _committed(bench: Bench, image: list[Layer], edits: Sequence[Edit]) -> tuple[Layer, list[Entry]]:
    """A container with these edits, committed as the core does it; and its layer, as entries."""
    below = model_of(BASE)
    with bench.look(image[0]) as root:
        below.learn(trees.listing(root, content=False))
    model = below.branch()
    box = bench.container(image)
    with bench.edit(box, image) as hand:
        apply_all(edits, hand)
    apply_all(edits, model)
    model.learn(bench.listing(box, image))
    entries = model.entries(below)
    if bench.changes(box, image).sealable:
        return bench.seal(box, image), entries
    bench.remove(box)
    return bench.layer(image, *entries), entries


def _assert_fits(below: Sequence[Entry], entries: Sequence[Entry], seen: trees.Tree) -> None:
    """On other parents. A root that the layer does not list is the core's to see to, as when it is unpacked."""
    model = _applied(below, entries)
    root = seen[""]
    model.root.mode, model.root.uid, model.root.gid = root.mode, root.uid, root.gid
    model.root.xattrs = {os.fsencode(name): value for name, value in root.xattrs}
    assert_tree(model, seen)


def _applied(below: Sequence[Entry], entries: Sequence[Entry]) -> ModelTree:
    model = ModelTree()
    if below:
        model.apply(below)
    model.apply(entries)
    model.root.mtime = None
    return model
