"""`changes` misses nothing: one attribute of one file, one byte in a large one."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence

import pytest

from layerstore.driver import Layer, StorageDriver
from layerstore.testing import edits as make
from layerstore.testing.conformance.examples import BASE
from layerstore.testing.conformance.subject import Subject, model_of
from layerstore.testing.edits import Edit
from layerstore.testing.tars import EPOCH, SECOND, Entry, Kind, file, folder, symlink
from layerstore.testing.trees import listing
from layerstore.testing.workbench import Workbench

Bench = Workbench[StorageDriver]

TARGETS: Mapping[str, bytes] = {
    "root": b"",
    "folder": b"etc",
    "file": b"etc/passwd",
    "empty file": b"etc/empty",
    "symlink": b"data/link",
    "fifo": b"data/pipe",
    "device": b"data/null",
}
"""One of each type."""

SIZES = (1, 200 * 1024 + 1, 3 * 1024 * 1024 + 1)
"""Of files that are read in one piece, in some, and in many."""


def _one_attribute(path: bytes) -> list[Edit]:
    """Edits, each of which changes one attribute and nothing else."""
    model = model_of(BASE)
    inode = model.find(path)
    assert inode is not None
    found = [
        make.chown(path, inode.uid + 1, inode.gid),
        make.chown(path, inode.uid, inode.gid + 1),
        make.setxattr(path, b"trusted.new", b"x"),
        make.setxattr(path, b"trusted.empty", b""),
    ]
    if inode.kind is not Kind.SYMLINK:
        found.append(make.chmod(path, inode.mode ^ 0o001))
        found.append(make.chmod(path, inode.mode ^ 0o1000))
    if path:
        found.append(make.utimes(path, (inode.mtime or 0) + 1))
        found.append(make.utimes(path, (inode.mtime or 0) + 10**9))
    for name, value in inode.xattrs.items():
        found.append(make.removexattr(path, name))
        found.append(make.setxattr(path, name, bytes(reversed(value)) + b"."))
        found.append(make.setxattr(path, name, value[:-1]))
        found.append(make.setxattr(path, name, value[:-1] + b"~"))
    return found


class Finding(Subject):
    """Small changes."""

    @pytest.mark.parametrize("target", list(TARGETS))
    def test_one_attribute_alone_is_a_change(self, bench: Bench, image: list[Layer], target: str) -> None:
        for edit in _one_attribute(TARGETS[target]):
            below = model_of(BASE)
            with bench.look(image[0]) as root:
                below.learn(listing(root))
            model = below.branch()
            edit.apply(model)
            box = bench.container(image)
            with bench.edit(box, image) as hand:
                edit.apply(hand)
                found = list(map(str, bench.changes(box, image)))
            assert found == list(map(str, model.changes(below))), f"mounted, after {edit}"
            assert list(map(str, bench.changes(box, image))) == found, f"unmounted, after {edit}"
            bench.remove(box)

    def test_the_root_of_a_container_without_an_image(self, bench: Bench) -> None:
        for edit in (make.chmod(b"", 0o700), make.chown(b"", 0, 1), make.setxattr(b"", b"user.new", b"")):
            box = bench.container()
            assert list(map(str, bench.changes(box))) == []
            with bench.edit(box) as hand:
                edit.apply(hand)
            assert list(map(str, bench.changes(box))) == ["C /"], f"after {edit}"
            bench.remove(box)

    def test_folders_that_change_places_are_found(self, bench: Bench) -> None:
        """The files in them are not touched by that: neither their bytes nor any of their times."""
        image = bench.stack([folder(b"a"), file(b"a/file", b"1"), folder(b"b"), file(b"b/file", b"2")])
        box = bench.container(image)
        with bench.mount(box, image) as root:
            try:
                (root / "a").rename(root / "c")
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                pytest.skip("it does not rename folders of an image, as programs have to expect")
            (root / "b").rename(root / "a")
            (root / "c").rename(root / "b")
        assert list(map(str, bench.changes(box, image))) == ["C /a", "C /a/file", "C /b", "C /b/file"]

    @pytest.mark.parametrize("size", SIZES)
    def test_one_byte_alone_is_a_change(self, bench: Bench, size: int) -> None:
        """At the beginning, in the middle and at the end, size and time being what they were."""
        content = bytes(range(251)) * (size // 251 + 1)
        image = bench.stack([file(b"large", content[:size]), file(b"other", b"x")])
        for at in sorted({0, size // 2, size - 1}):
            box = bench.container(image)
            with bench.edit(box, image) as hand:
                hand.overwrite(b"large", at, b"\xff")
            assert list(map(str, bench.changes(box, image))) == ["C /large"], f"at {at}"
            sealed = bench.seal(box, image)
            assert list(map(str, bench.changes(sealed, image))) == ["C /large"], f"at {at}, sealed"
            bench.remove(sealed)

    def test_another_target_of_a_link_is_a_change(self, bench: Bench) -> None:
        """Of the same length, and with the same time."""
        image = bench.stack([symlink(b"link", b"one"), file(b"one", b"x")])
        box = bench.container(image)
        with bench.edit(box, image) as hand:
            hand.unlink(b"link")
            hand.symlink(b"link", b"two")
            hand.utimes(b"link", EPOCH * SECOND)
        assert list(map(str, bench.changes(box, image))) == ["C /link"]

    def test_the_same_bytes_again_are_no_change(self, bench: Bench) -> None:
        image = bench.stack([file(b"large", b"x" * SIZES[1])])
        box = bench.container(image)
        with bench.edit(box, image) as hand:
            hand.overwrite(b"large", 0, b"x" * SIZES[1])
        assert list(map(str, bench.changes(box, image))) == []

    def test_what_differs_far_below_is_found(self, bench: Bench) -> None:
        """In a directory of many, and deep."""
        names = [b"d%03d" % number for number in range(120)]
        deep = b"/".join([b"deep"] * 40)
        image = bench.stack([*_folders(names, deep), *(file(name + b"/file", b"x") for name in names)])
        box = bench.container(image)
        with bench.edit(box, image) as hand:
            hand.write(names[70] + b"/file", b"y")
            hand.write(deep + b"/new", b"")
        expected = ["C /d070", "C /d070/file", *(f"C /{'/'.join(['deep'] * n)}" for n in range(1, 41))]
        assert list(map(str, bench.changes(box, image))) == [*expected, f"A /{deep.decode()}/new"]


def _folders(names: Sequence[bytes], deep: bytes) -> list[Entry]:
    parts = deep.split(b"/")
    return [*map(folder, names), *(folder(b"/".join(parts[: n + 1])) for n in range(len(parts)))]
