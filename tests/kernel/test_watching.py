"""Files whose data come when they are read: readers wait, are answered by range, and outlive the listener."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore.errors import DriverNotSupported
from layerstore.kernel import watching
from layerstore.kernel.watching import Waiting, Watch

pytestmark = pytest.mark.root

SIZE = 1 << 20
READER = """
import os, sys
try:
    fd = os.open(sys.argv[1], os.O_RDONLY)
    sys.stdout.buffer.write(os.pread(fd, int(sys.argv[3]), int(sys.argv[2])))
except OSError as error:
    print(os.strerror(error.errno), end="")
"""


@pytest.fixture
def sparse(backing: Callable[[str], Path]) -> Path:
    place = backing("ext4")
    try:
        watching.require(place)
    except DriverNotSupported as refused:
        pytest.skip(refused.message)
    path = place / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def held(sparse: Path) -> Iterator[tuple[Watch, int]]:
    """A watch of the file, and a descriptor from before it was marked."""
    with Watch() as watch:
        fd = os.open(sparse, os.O_RDWR | os.O_CLOEXEC)
        watch.mark(fd)
        yield watch, fd
        os.close(fd)


def reader(path: Path, offset: int, count: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-c", READER, str(path), str(offset), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def first(watch: Watch) -> Waiting:
    assert select.select([watch], [], [], 30)[0]
    [waiting] = watch.waiting()
    return waiting


def said(process: subprocess.Popen[bytes]) -> bytes:
    return process.communicate(timeout=30)[0]


def test_a_reader_waits_until_its_range_is_there(sparse: Path, held: tuple[Watch, int]) -> None:
    watch, fd = held
    process = reader(sparse, 8192, 5)

    waiting = first(watch)
    assert waiting.offset <= 8192 < waiting.offset + waiting.length
    assert waiting.pid == process.pid
    assert os.fstat(waiting.file).st_ino == os.stat(sparse).st_ino
    assert process.poll() is None
    assert os.pwrite(fd, b"there", 8192) == 5  # who has had it open does not wait for itself
    watch.answer(waiting)

    assert said(process) == b"there"
    assert watch.waiting() == []


def test_a_read_that_cannot_be_answered_fails(sparse: Path, held: tuple[Watch, int]) -> None:
    watch, _ = held
    process = reader(sparse, 0, 5)

    watch.answer(first(watch), errno.EIO)

    assert said(process) == os.strerror(errno.EIO).encode()


def test_who_is_not_watched_any_more_reads_at_once(sparse: Path, held: tuple[Watch, int]) -> None:
    watch, fd = held
    watch.unmark(fd)
    watch.unmark(fd)

    assert said(reader(sparse, 0, 3)) == bytes(3)


def test_a_reader_survives_the_listener_that_has_its_number(sparse: Path, held: tuple[Watch, int]) -> None:
    """While another process has the descriptor, what the dead one was given waits on, and is answered by its number."""
    watch, _ = held
    given, told = os.pipe()
    child = os.fork()
    if child == 0:
        waiting = first(watch)
        os.write(told, waiting.file.to_bytes(4, "little"))
        signal.pause()
        os._exit(0)
    process = reader(sparse, 4096, 4)
    number = int.from_bytes(os.read(given, 4), "little")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(given)
    os.close(told)

    assert process.poll() is None
    assert watch.waiting() == []
    assert not watch.answer_number(number + 1000, errno.EIO)
    assert watch.answer_number(number, errno.EIO)
    assert said(process) == os.strerror(errno.EIO).encode()


def test_without_any_listener_holes_are_zeros(sparse: Path) -> None:
    """What the kernel does then, and why a lazy layer is never mounted without one."""
    with Watch() as watch:
        fd = os.open(sparse, os.O_RDWR)
        watch.mark(fd)
        process = reader(sparse, 0, 4)
        assert select.select([watch], [], [], 30)[0]
        os.close(fd)

    assert said(process) == bytes(4)
