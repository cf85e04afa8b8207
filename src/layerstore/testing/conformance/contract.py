"""What the interface promises to the core beside trees: recipes are data, and an error says what happened to what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from layerstore.driver import Layer, Mount, State, StorageDriver
from layerstore.errors import FULL, DriverNotSupported, LayerstoreError
from layerstore.kernel.files import filesystem_type
from layerstore.testing import trees
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.filesystems import FILESYSTEMS, Filesystems
from layerstore.testing.remains import paths_below
from layerstore.testing.tars import file
from layerstore.testing.workbench import Workbench, key

_SMALL = {"ext4": 48 << 20, "xfs": 300 << 20, "btrfs": 256 << 20, "tmpfs": 48 << 20}
"""A filesystem that is quickly full, by its kind."""

_CRUMBS = 2000
"""Files that are made at most where there is no room for a large one any more."""


class Contract(Subject):
    """What holds for every method."""

    @pytest.fixture
    def small(self, filesystems: Filesystems, home: Path) -> Iterator[Path]:
        """A home on a small filesystem of its own, of the kind that `home` is on."""
        kind = filesystem_type(home.parent)
        if kind not in FILESYSTEMS:
            pytest.skip(f"no {kind} can be made for a test")
        place = filesystems.make(kind, size=_SMALL[kind])
        yield place / home.name
        filesystems.drop(place)

    def test_a_recipe_is_data(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        """Whoever asks for it makes and alters nothing, be it before the first mount or after it."""
        box, staged = bench.container(image), bench.staged(image)
        asked = [(image[0], [], True), (staged, image, True), (box, image, True), (box, image, False)]
        for _ in range(2):
            before = [trees.listing(folder) for folder in (bench.driver.home, bench.driver.staging)]
            for layer, parents, read_only in asked:
                recipe = bench.driver.mounts(layer, parents, read_only=read_only)
                assert recipe
                assert all(isinstance(mount, Mount) for mount in recipe)
                assert recipe[-1].target is None, "the last is the tree itself"
                assert recipe[-1].read_only == read_only
            after = [trees.listing(folder) for folder in (bench.driver.home, bench.driver.staging)]
            for was, now in zip(before, after, strict=True):
                trees.assert_same(was, now)
            with bench.mount(box, image) as root:
                (root / "new").touch()

    def test_preparing_may_be_repeated(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        """A mount may have failed after it, and those who look do so while others write."""
        box = bench.container(image)
        for _ in range(2):
            bench.driver.prepare(box, image, read_only=False)
            bench.driver.prepare(box, image, read_only=True)
        assert bench.driver.mountpoint(box).is_dir()
        with bench.mount(box, image) as root:
            (root / "new").touch()
            bench.driver.prepare(box, image, read_only=True)
            assert (root / "new").exists()
        assert list(map(str, bench.changes(box, image))) == ["A /new"]

    def test_a_size_that_cannot_be_kept_is_refused(self, bench: Workbench[StorageDriver], image: list[Layer]) -> None:
        driver = bench.driver
        if driver.probe(driver.home, driver.settings).quota:
            pytest.skip("it can limit a container's size here")
        before = paths_below(driver.home), bench.keys()

        with pytest.raises(DriverNotSupported) as caught:
            bench.container(image, size=64 << 20)

        assert caught.value.remedy, "what the user could do"
        assert (paths_below(driver.home), bench.keys()) == before

    def test_a_full_disk_is_told_as_one(self, driver: type[StorageDriver], small: Path, options: Any) -> None:
        """Each deed is done or refused: with the layer, the reason, the remedy, and the path or the driver's name.

        What is refused leaves the home as it was. Removing needs no room.
        """
        with Workbench.of(driver, small, options) as bench:
            large = file(b"large", os.urandom(2 << 20))
            image = bench.stack([*BASE, large])
            box, gone = bench.container(image), bench.container(image)
            with bench.mount(box, image) as root:
                (root / "one").unlink()
                (root / "new").write_bytes(os.urandom(1 << 20))
                os.sync()
            filled = bench.staged(image, file(b"top", b"x"))
            os.sync()
            before = bench.keys()
            # Where something can be made and not filled, and where nothing can be made.
            for fill in (_leave_little, _fill_up):
                fill(small.parent)
                for state in (State.WRITABLE, State.STAGED):
                    made = Layer(key(), state)
                    if self._is_done(bench, made, partial(bench.create, made, image)) and not made.is_staged:
                        before = sorted([*before, made.key])
                    assert bench.keys() == before
            for layer in (box, filled):
                if not self._is_done(bench, layer, partial(bench.seal_only, layer, image)):
                    assert bench.keys() == before
                before = bench.keys()
            self._is_done(bench, box, lambda: bench.changes(box, image))
            bench.remove(gone)
            assert bench.keys() == [one for one in before if one != gone.key]

            for path in small.parent.glob("full*"):
                path.unlink()
            last = bench.seal_only(box, image)
            with bench.look(last, image) as root:
                assert not (root / "one").exists()
                assert (root / "new").stat().st_size == 1 << 20
                assert (root / "large").read_bytes() == large.content

    def _is_done(self, bench: Workbench[StorageDriver], layer: Layer, deed: Callable[[], object]) -> bool:
        refused: LayerstoreError | None = None
        try:
            deed()
        except LayerstoreError as error:
            refused = error
        if refused is None:
            return True
        assert refused.errno in FULL, f"it is not said that the disk is full: {refused!r}"
        assert refused.remedy, "what the user could do"
        assert refused.layer == layer.key
        assert bench.driver.name in str(refused) or refused.path, "neither the driver nor the path is said"
        return False


def _leave_little(folder: Path) -> None:
    free = os.statvfs(folder)
    with (folder / "full").open("wb") as target:
        os.posix_fallocate(target.fileno(), 0, free.f_bavail * free.f_frsize - (1 << 20))


def _fill_up(folder: Path) -> None:
    """Until nothing can be written any more."""
    with (folder / "full-up").open("wb", buffering=0) as target, suppress(OSError):
        while target.write(bytes(1 << 16)):
            pass
    with suppress(OSError):
        for number in range(_CRUMBS):
            (folder / f"full{number}").write_bytes(bytes(4096))
