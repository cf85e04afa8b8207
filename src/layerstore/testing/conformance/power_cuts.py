"""What is on the disk when the power fails right after a call has returned.

The driver alone: nothing of the core's, whose own commit would write the same journal and hide what was forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from layerstore.driver import Layer, State, StorageDriver
from layerstore.kernel.files import filesystem_type
from layerstore.testing import trees
from layerstore.testing.calls import SYNCING, Call, CannotWatch, run_watched
from layerstore.testing.conformance.breaking import EDITED
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.edits import apply_all
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import CUTTABLE, Disk
from layerstore.testing.tars import file, folder
from layerstore.testing.workbench import Workbench, key, keys_of

Bench = Workbench[StorageDriver]


class PowerCuts(Subject):
    """The power fails."""

    @pytest.fixture
    def disk(self, home: Path, filesystems: Filesystems) -> Iterator[Disk]:
        """A filesystem of the kind that `home` is on."""
        kind = filesystem_type(home.parent)
        if kind not in CUTTABLE:
            pytest.skip(f"nobody can cut the power of {kind}")
        with Disk(filesystems, kind) as disk:
            yield disk

    @pytest.fixture
    def plugged(
        self, driver: type[StorageDriver], disk: Disk, home: Path, options: Any
    ) -> Iterator[Callable[[], Bench]]:
        """The driver at work on that disk. Called again: the power fails, and the next process opens the home."""
        place = disk.mountpoint / home.name
        benches: list[Bench] = []

        def opened() -> Bench:
            if benches:
                with disk.cut():
                    benches.pop().driver.close()
                for left in disk.mountpoint.glob("staging*"):
                    assert left.is_dir()
            benches.append(Workbench.of(driver, place, options))
            benches[-1].empty_staging()
            return benches[-1]

        driver.probe(place, options)
        yield opened
        for bench in benches:
            bench.close()

    def test_a_sealed_layer_is_on_the_disk(self, plugged: Callable[[], Bench]) -> None:
        bench = plugged()
        image = bench.stack(BASE, [folder(b"data", mtime=7), file(b"data/new", bytes(300_000))])
        expected = [trees.listing(bench.tree(layer)) for layer in image]
        shown = bench.listing(image[0], image[1:])

        bench = plugged()

        assert bench.keys() == keys_of(*image)
        for layer, tree in zip(image, expected, strict=True):
            trees.assert_same(tree, trees.listing(bench.tree(layer)))
        trees.assert_same(shown, bench.listing(image[0], image[1:]))

    def test_a_sealed_container_is_on_the_disk(self, plugged: Callable[[], Bench]) -> None:
        bench = plugged()
        image = bench.stack(BASE)
        box = bench.container(image)
        with bench.edit(box, image) as hand:
            apply_all(EDITED, hand)
            hand.touch_unaltered(b"two")
        changes = bench.changes(box, image)
        sealed = bench.seal_only(box, image)
        expected, shown = trees.listing(bench.tree(sealed)), bench.listing(sealed, image)

        bench = plugged()

        assert bench.has(sealed)
        trees.assert_same(expected, trees.listing(bench.tree(sealed)))
        trees.assert_same(shown, bench.listing(sealed, image))
        assert bench.changes(sealed, image) == changes

    def test_a_new_container_is_whole_or_not_there(self, plugged: Callable[[], Bench]) -> None:
        """What is synced when it is made is meant to stay: such a container is there."""
        bench = plugged()
        image = bench.stack(BASE)
        box = Layer(key(), State.WRITABLE)
        try:
            run = run_watched(partial(bench.create, box, image), _allow, names=sorted(SYNCING))
        except CannotWatch as error:
            pytest.skip(str(error))
        assert run.failure is None

        bench = plugged()

        is_there = bench.has(box) and os.path.lexists(bench.tree(box))
        assert is_there or not run.calls, "it was synced, but not its name"
        if is_there:
            assert_tree(model_of(BASE), bench.listing(box, image))
            assert len(bench.changes(box, image)) == 0
            with bench.mount(box, image) as root:
                (root / "new").touch()


def _allow(_: int, call: Call) -> None:
    """Every call."""
