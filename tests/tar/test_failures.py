"""What goes wrong on the host is told as what it is: the call, its number, the path. See tests/faults for the rest."""

from __future__ import annotations

import errno
import io
import os
import random
from pathlib import Path

import pytest

from layerstore.driver import Dialect
from layerstore.errors import Damaged, KernelError
from layerstore.tar import Level, adopt_implied, implied_digest, unpack
from layerstore.tar.skeleton import SkeletonReader, SkeletonWriter
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.tars import archive, file, sparse
from tar.engine import Stack

pytestmark = pytest.mark.root


def closed() -> int:
    """The number of a descriptor that is not open, and that nothing gets that is opened next."""
    return 900_000


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
def test_parents_that_cannot_be_read_are_not_told_as_want_of_memory(dialect: Dialect, folder: Path) -> None:
    tree = folder / "tree"
    tree.mkdir()
    with pytest.raises(KernelError) as caught:
        unpack(io.BytesIO(archive()), tree, dialect=dialect, skeleton=folder / "skeleton", below=closed())
    assert (caught.value.call, caught.value.errno, caught.value.path) == ("fstat", errno.EBADF, "/")


def test_a_tree_that_is_not_there_is_an_error_of_the_library(folder: Path) -> None:
    missing = folder / "missing"
    with pytest.raises(KernelError) as caught:
        unpack(io.BytesIO(archive()), missing, dialect=Dialect.OVERLAY, skeleton=folder / "skeleton")
    assert (caught.value.errno, caught.value.path) == (errno.ENOENT, str(missing))
    with pytest.raises(KernelError):
        adopt_implied(missing, ("d",), None, Dialect.OVERLAY)
    assert os.listdir(folder) == []


def test_the_looks_of_a_directory_name_the_call_that_failed(folder: Path) -> None:
    with pytest.raises(KernelError) as caught:
        implied_digest(("some/path",), closed())
    assert (caught.value.call, caught.value.path) == ("openat2", "/some/path")


def test_a_directory_that_cannot_be_adopted_names_the_call_that_failed(folder: Path) -> None:
    (folder / "parents" / "d").mkdir(parents=True)
    (folder / "tree").mkdir()
    below = os.open(folder / "parents", os.O_RDONLY)
    try:
        with pytest.raises(KernelError) as caught:
            adopt_implied(folder / "tree", ("d",), below, Dialect.OVERLAY)
    finally:
        os.close(below)
    assert (caught.value.call, caught.value.errno, caught.value.path) == ("openat2", errno.ENOENT, "/d")


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_stream_that_does_not_block_has_not_ended(folder: Path) -> None:
    class Impatient(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> None:  # type: ignore[override]  # it never has anything
            return None

    with pytest.raises(KernelError) as caught:
        unpack(Impatient(), _made(folder / "tree"), dialect=Dialect.OVERLAY, skeleton=folder / "skeleton")
    assert caught.value.errno == errno.EAGAIN


def test_memory_that_python_cannot_get_is_told_in_words(folder: Path) -> None:
    """As what has to be copied out of C, the index of a large layer say, may be too much."""

    class Greedy(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer is one here
            raise MemoryError

    with pytest.raises(KernelError, match=os.strerror(errno.ENOMEM)) as caught:
        unpack(Greedy(), _made(folder / "tree"), dialect=Dialect.OVERLAY, skeleton=folder / "skeleton")
    assert caught.value.errno == errno.ENOMEM
    assert caught.value.remedy


# --- skeletons -------------------------------------------------------------------------------------------------------


def test_a_skeleton_is_whole_or_not_there(filesystems: Filesystems) -> None:
    """A disk that fills up takes a part of a piece first, which is a success to who does not look."""
    room = filesystems.make("tmpfs", size=1 << 20)
    chance = random.Random(5)
    noise = chance.randbytes(400_000)
    path = room / "skeleton"
    try:
        with SkeletonWriter(path) as writer:
            writer.add(noise)
            writer.close(noise)
        assert len(list(room.iterdir())) == 1
        path.unlink()
        with SkeletonWriter(path) as writer, pytest.raises(KernelError) as caught:
            writer.add(chance.randbytes(2 << 20))
        assert (caught.value.errno, caught.value.path) == (errno.ENOSPC, str(path))
        assert list(room.iterdir()) == []
    finally:
        filesystems.drop(room)


def test_no_skeleton_is_left_of_a_tar_that_is_refused(folder: Path) -> None:
    with pytest.raises(KernelError):
        unpack(
            io.BytesIO(archive(sparse(b"f", 2**60, (2**60 - 512, b"x" * 512)))),
            _made(folder / "tree"),
            dialect=Dialect.OVERLAY,
            skeleton=folder / "skeleton",
        )
    assert os.listdir(folder) == ["tree"]


def test_a_skeleton_cut_within_its_index_is_damaged(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    stored = stack.push(archive(*(file(b"f%d" % number, b"x") for number in range(50))))
    with SkeletonReader(stored.skeleton) as reader:
        stream, index = b"".join(reader.stream()), reader.index()
    for length in range(0, len(index), 97):
        stored.skeleton.unlink()
        with SkeletonWriter(stored.skeleton) as writer:
            writer.add(stream)
            writer.close(index[:length])
        assert stack.damage(stored, Level.SIZES)


def test_an_index_that_says_of_a_file_that_it_has_endless_pieces_is_damaged(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    stored = stack.push(archive(sparse(b"s", 9000, (5000, b"x" * 600))))
    with SkeletonReader(stored.skeleton) as reader:
        stream, index = b"".join(reader.stream()), reader.index()
    offset, length = 5000, 600
    piece = bytes([1, offset & 0x7F | 0x80, offset >> 7, length & 0x7F | 0x80, length >> 7])
    assert index.count(piece) == 1
    endless = b"\xff" * 8 + b"\x7f"
    stored.skeleton.unlink()
    with SkeletonWriter(stored.skeleton) as writer:
        writer.add(stream)
        writer.close(index.replace(piece, endless + piece[1:]))
    with pytest.raises(Damaged):
        stack.exported(stored)
