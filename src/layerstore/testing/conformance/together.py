"""Several threads and processes use one home."""

from __future__ import annotations

import os
import threading

from layerstore.driver import Layer, StorageDriver
from layerstore.errors import LayerstoreError
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.tars import file
from layerstore.testing.workbench import Workbench, keys_of


class Together(Subject):
    """Several at once."""

    def test_threads_do_not_get_in_each_others_way(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        made: list[Layer] = []
        failed: list[BaseException] = []

        begin = threading.Barrier(4)

        def work() -> None:
            try:
                for _ in range(5):
                    begin.wait(timeout=60)
                    box = bench.container(image)
                    made.append(bench.layer((), file(b"file", b"x")))
                    bench.remove(box)
            except (LayerstoreError, OSError, threading.BrokenBarrierError) as error:
                failed.append(error)
                begin.abort()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert not failed
        assert bench.keys() == keys_of(*image, *made)

    def test_what_another_process_made_can_be_used(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
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
