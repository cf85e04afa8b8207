"""Committed layers, and stacks of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.driver import Dialect, Layer, StorageDriver
from layerstore.errors import DepthExceeded
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE, STACKS
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.remains import paths_below
from layerstore.testing.tars import file, whiteout
from layerstore.testing.workbench import Workbench


class Layers(Subject):
    """Layers that are filled, sealed, and read as one tree."""

    def test_a_staged_layer_is_seen_by_nobody(self, bench: Workbench[StorageDriver]) -> None:
        bench.layer(file="x")
        before = paths_below(bench.driver.home), bench.keys()

        made = bench.staged((), file(b"other", b"y"))

        assert (paths_below(bench.driver.home), bench.keys()) == before
        assert bench.again().keys() == before[1]
        assert bench.tree(made).is_dir()

    def test_a_staged_layer_that_is_left_alone_is_no_layer(self, bench: Workbench[StorageDriver]) -> None:
        """Its process died. The core empties the staging folder."""
        made = bench.staged((), file(b"file", b"x"))
        bench.remove(made)
        assert bench.keys() == []

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
        before = trees.listing(bench.tree(made))

        sealed = bench.seal(made)

        assert sealed.key.startswith(made.key), "the key itself, or the key with a suffix"
        assert bench.keys() == [sealed.key]
        trees.assert_same(before, trees.listing(bench.tree(sealed)))

    @pytest.mark.parametrize("stack", list(STACKS))
    def test_a_stack_shows_what_the_model_says(self, bench: Workbench[StorageDriver], stack: str) -> None:
        layers = STACKS[stack]

        keys = bench.stack(*layers)

        assert_tree(model_of(*layers), bench.listing(keys[0], keys[1:]))
        for number in range(1, len(layers)):
            below = keys[-number:]
            assert_tree(model_of(*layers[:number]), bench.listing(below[0], below[1:]))

    def test_a_read_only_tree_cannot_be_written(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
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
        keys: list[Layer] = []
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

    def test_as_many_layers_as_it_can_are_one_tree(self, bench: Workbench[StorageDriver]) -> None:
        """At the limit itself: read, written, compared and sealed."""
        limit = bench.driver.capabilities.max_depth
        if limit is None:
            pytest.skip("it has no limit")
        keys: list[Layer] = []
        for number in range(limit):
            keys.insert(0, bench.layer(keys[:1], file(b"f%d" % number, b"")))
        for depth in (limit - 1, limit):
            box = bench.container(keys[-depth:])
            with bench.mount(box, keys[-depth:]) as root:
                assert len(os.listdir(root)) == depth
                (root / "f0").unlink()
                with bench.look(box, keys[-depth:]) as seen:
                    assert len(os.listdir(seen)) == depth - 1
            assert list(map(str, bench.changes(box, keys[-depth:]))) == ["D /f0"]
        assert len(bench.listing(keys[0], keys[1:])) == limit + 1
        with pytest.raises(DepthExceeded):
            bench.container([*keys, bench.layer(file="x")])

    def test_too_many_layers_are_refused_before_anything_is_made(self, bench: Workbench[StorageDriver]) -> None:
        limit = bench.driver.capabilities.max_depth
        if limit is None:
            pytest.skip("it has no limit")
        layer = bench.layer(file="x")
        before = paths_below(bench.driver.home)

        with pytest.raises(DepthExceeded):
            bench.container([layer] * (limit + 1))

        assert paths_below(bench.driver.home) == before

    def test_independent_layers_fit_on_any_parents(self, bench: Workbench[StorageDriver]) -> None:
        if bench.driver.capabilities.dialect is Dialect.MERGED:
            pytest.skip("its layers depend on their parents")
        first, second = bench.layer(file="1", a=""), bench.layer(file="2", b="")
        top = bench.layer((), whiteout(b"file"), file(b"top", b""))

        for below, names in ((first, {"a", "top"}), (second, {"b", "top"})):
            with bench.look(top, [below]) as root:
                assert {*os.listdir(root)} == names

    def test_dependent_layers_begin_as_their_parents(self, bench: Workbench[StorageDriver]) -> None:
        if bench.driver.capabilities.dialect is not Dialect.MERGED:
            pytest.skip("its layers are independent")
        image = bench.stack(BASE)

        made = bench.staged(image)

        assert_tree(model_of(BASE), trees.listing(bench.tree(made)))
