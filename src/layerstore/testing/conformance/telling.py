"""What a driver tells: its keys, what a layer occupies, lines for people."""

from __future__ import annotations

import os

from layerstore.driver import LayerKey, StorageDriver
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.workbench import Workbench


class Telling(Subject):
    """What it tells."""

    def test_layers_are_told_exactly(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        boxes = [bench.container(image), bench.container()]
        top = bench.layer(image, file="x")
        bench.staged(image)

        found = bench.keys()

        assert sorted(found) == sorted([*image, *boxes, top])
        assert sorted(bench.again().keys()) == sorted(found)

    def test_usage_grows_with_what_is_written(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        before = bench.usage(box, image)
        with bench.mount(box, image) as root:
            for number in range(4):
                (root / f"new{number}").write_bytes(os.urandom(1 << 20))
        os.sync()

        after = bench.usage(box, image)

        assert 4 << 20 <= after.size - before.size < 5 << 20
        assert after.inodes >= before.inodes

    def test_inspect_and_info_are_told_strings(self, bench: Workbench[StorageDriver], image: list[LayerKey]) -> None:
        box = bench.container(image)
        with bench.mount(box, image):
            data = bench.graph_data(box, image)

            assert all(isinstance(word, str) for pair in data.items() for word in pair)
            paths = [path for value in data.values() for path in value.split(":") if path.startswith("/")]
            assert paths
            assert [path for path in paths if not os.path.exists(path)] == []
        assert all(isinstance(word, str) for pair in bench.graph_data(image[0], []).items() for word in pair)
        assert all(isinstance(word, str) for line in bench.driver.status() for word in line)
