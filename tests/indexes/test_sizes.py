"""Many names, many layers, and a disk that is full."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from indexes import listings
from indexes.engine import Stack, erofs, unpacked
from indexes.listings import FOLDER, Node, Payload
from layerstore.errors import KernelError
from layerstore.indexes import Part, Written, write_index
from layerstore.kernel.mounts import detached
from layerstore.testing import tars, trees
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.tars import archive, file, sparse
from support.properties import NIGHTLY
from tar.bounds import bounded

pytestmark = pytest.mark.root

MANY = 1_000_000 if NIGHTLY else 100_000


def test_a_wide_folder(folder: Path) -> None:
    """Of names of many lengths; each is listed once, and is found by its name."""
    names = [b"%d-%s" % (number, b"x" * (number % 90)) for number in range(MANY)]
    content = listings.index(
        [Node(b"", FOLDER, mode=0o755), Node(b"d", FOLDER, mode=0o755)]
        + [Node(b"d/" + name, mode=0o600 + number % 64, size=7, source=1) for number, name in enumerate(names)],
        [Payload(512, 7)],
    )
    tar, index = folder / "tar", folder / "index"
    tar.write_bytes(bytes(512) + b"content" + bytes(505))
    part = Part(listings.write(folder / "listing", content), tar)
    written = bounded(lambda: write_index([part], index), memory=128 * len(content) // 32 + (64 << 20))
    assert written.inodes == MANY + 2
    with detached([erofs(index, [tar])]) as root:
        assert sorted(os.listdir(f"/proc/self/fd/{root}/d".encode())) == sorted(names)
        for number in range(0, MANY, 97):
            assert os.stat(b"d/" + names[number], dir_fd=root).st_mode & 0o777 == 0o600 + number % 64
        for missing in (b"", b"x", names[0][:-1] + b"!", b"\xff", b"\x01", b"500-"):
            with pytest.raises(FileNotFoundError):
                os.stat(b"d/0" + missing + b"?", dir_fd=root)
        assert Path(f"/proc/self/fd/{root}/d/{os.fsdecode(names[-1])}").read_bytes() == b"content"


def test_500_layers_are_one_tree(stack: Stack, folder: Path) -> None:
    layers = []
    for number in range(500):
        name = b"%d" % number
        entries = [tars.folder(b"d", mtime=number), file(b"d/" + name, name * 100), file(b"last", name)]
        if number % 3 == 2:
            entries.append(tars.whiteout(b"d/%d" % (number - 1)))
        if number % 7 == 6:
            entries.append(sparse(b"holes", 5000 + number, (number, name)))
        if number == 250:
            entries.append(tars.opaque(b"d"))
        layers.append(archive(*entries))
        stack.push(layers[-1])
    trees.assert_same(unpacked(layers, folder / "tree"), stack.listing())


def test_a_stack_has_one_index_whenever_it_is_made(stack: Stack) -> None:
    """Byte for byte: nothing in it is of the time or the place where it was made."""
    stack.push(archive(*(file(b"d%d/%d" % (number % 7, number), b"x" * number) for number in range(300))))
    stack.push(archive(sparse(b"s", 10_000, (5, b"y")), tars.whiteout(b"d3")))
    assert stack.write()[0].read_bytes() == stack.write()[0].read_bytes()


def test_a_target_that_is_there_is_left(stack: Stack) -> None:
    target = stack.folder / "there"
    target.write_text("of somebody else")
    with pytest.raises(KernelError) as caught:
        write_index((), target)
    assert (caught.value.errno, caught.value.path) == (errno.EEXIST, str(target))
    assert target.read_text() == "of somebody else"


def test_an_index_belongs_to_its_maker_alone(stack: Stack) -> None:
    before = os.umask(0)
    try:
        index, _ = stack.write()
    finally:
        os.umask(before)
    assert index.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["names", "data"])
def test_a_full_disk(what: str, stack: Stack, filesystems: Filesystems) -> None:
    """Where what is written first fits, and where not: the error names the index, of which nothing is left."""
    entries = [file(b"%d" % number) for number in range(20_000)]
    if what == "data":
        entries = [sparse(b"s", 8 << 20, (1, b"x" * (4 << 20)))]
    stack.push(archive(*entries))
    small = filesystems.make("tmpfs", size=1 << 20)
    try:
        with pytest.raises(KernelError) as caught:
            write_index(stack.parts, small / "index")
        assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, str(small / "index"))
        assert os.listdir(small) == []
    finally:
        filesystems.drop(small)


def test_more_layers_than_descriptors(stack: Stack) -> None:
    """A tar is open only while something of it is copied, and one at a time."""
    for number in range(60):
        stack.push(archive(sparse(b"%d" % number, 9000, (number, b"x" * 600))))
    index = stack.folder / "index"

    def write() -> Written:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, 4096))
        return write_index(tuple(reversed(stack.parts)), index)

    assert bounded(write).inodes == 61
    with detached([erofs(index, [part.tar for part in stack.parts])]) as root:
        for number in range(60):
            data = Path(f"/proc/self/fd/{root}/{number}").read_bytes()
            assert data == bytes(number) + b"x" * 600 + bytes(8400 - number)
