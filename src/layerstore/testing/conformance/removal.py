"""What is removed is gone, and leaves nothing."""

from __future__ import annotations

import os
import time

import pytest

from layerstore.driver import Layer, StorageDriver
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.conformance.subject import Subject, assert_tree, model_of
from layerstore.testing.remains import paths_below
from layerstore.testing.tars import file, whiteout
from layerstore.testing.workbench import Workbench, key, keys_of


class Removal(Subject):
    """Away."""

    def test_removal_is_one_step_and_may_be_repeated(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        box = bench.container(image)

        for layer in (box, box, Layer(key())):
            bench.remove(layer)

        assert bench.keys() == keys_of(*image)
        assert bench.again().keys() == keys_of(*image)
        assert_tree(model_of(BASE), bench.listing(image[0]))

    def test_layers_go_in_any_order(self, bench: Workbench[StorageDriver]) -> None:
        for order in (1, -1):
            keys = bench.stack(BASE, [file(b"new", b"x")], [whiteout(b"new")])
            box = bench.container(keys)
            for layer in [box, *keys][::order]:
                bench.remove(layer)
            assert bench.keys() == []

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
                bench.remove(layer)
            os.sync()
            return len(paths_below(bench.driver.home))

        first = live_once()
        for _ in range(3):
            live_once()

        other = bench.again()
        deadline = time.monotonic() + 90
        while len(paths_below(bench.driver.home)) > first:
            assert time.monotonic() < deadline, f"still there: {paths_below(bench.driver.home)}"
            time.sleep(0.5)  # btrfs frees subvolumes, and with them their quota groups, every 30 s
            other.driver.close()
        assert bench.keys() == []

    def test_a_layer_that_cannot_be_made_leaves_nothing(self, bench: Workbench[StorageDriver]) -> None:
        layer = bench.layer(file="x")
        before = paths_below(bench.driver.home)

        with pytest.raises(Exception, match=r"."):  # an error of any kind, but not in silence
            bench.container([Layer(key())])

        assert paths_below(bench.driver.home) == before
        assert bench.keys() == [layer.key]
