"""indexes/ under faults: of memory, of the bytes that are copied and written, and of every other call."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from layerstore.errors import KernelError
from layerstore.indexes import Part, Written, write_index
from layerstore.tar import take_listing
from layerstore.testing.tars import archive, char, file, folder, hardlink, opaque, sparse, symlink, whiteout
from support.faults import Faults, Kind, Outcome

LAYERS = [
    archive(
        folder(b"d", mode=0o700, xattrs={b"user.old": b"1"}),
        file(b"d/old", b"old"),
        *(file(b"many/%d" % number, b"x", xattrs={b"user.same": b"value" * 20}) for number in range(3000)),
        sparse(b"holes", 1 << 30, (5, b"x" * 600_000), (1 << 29, b"y")),
        file(b".wh..wh.plnk/1.2", b"of aufs"),
        hardlink(b"plinked", b".wh..wh.plnk/1.2"),
        hardlink(b"plinked-again", b".wh..wh.plnk/1.2"),
    ),
    archive(
        opaque(b"d"),
        file(b"d/new", b"new"),
        hardlink(b"d/again", b"d/new"),
        whiteout(b"many/5"),
        symlink(b"l", b"words" * 200),
        char(b"c", 1, 3),
        sparse(b"other", 9000, (5, b"x")),
    ),
]


@frozen
class Case:
    parts: list[Part]
    index: Path

    def write(self) -> Written:
        return write_index(self.parts[::-1], self.index)


@pytest.fixture
def prepare(backing: Callable[[str], Path]) -> Callable[[], Case]:
    place = backing("ext4")
    parts = []
    for number, tar in enumerate(LAYERS):
        part = Part(place / f"listing{number}", place / f"tar{number}")
        part.tar.write_bytes(tar)
        take_listing(io.BytesIO(tar), part.listing, bottom=not number)
        parts.append(part)

    def new() -> Case:
        (place / "index").unlink(missing_ok=True)
        return Case(parts, place / "index")

    return new


def left_nothing(outcome: Outcome[Case]) -> None:
    assert not outcome.case.index.exists(), "an index is left that nobody may mount"


def named(outcome: Outcome[Case]) -> None:
    """The error has the name of what was read or written."""
    left_nothing(outcome)
    assert isinstance(outcome.error, KernelError)
    tar = outcome.error.call in {"pread", "open"}
    assert outcome.error.path in ([str(part.tar) for part in outcome.case.parts] if tar else [str(outcome.case.index)])


@pytest.mark.parametrize("lasting", [False, True])
def test_an_index_without_memory(faults: Faults, prepare: Callable[[], Case], *, lasting: bool) -> None:
    met = faults.walk(Kind.MEMORY, errno.ENOMEM, prepare, Case.write, left_nothing, lasting=lasting)
    assert met > 20


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_index_that_cannot_be_written(faults: Faults, prepare: Callable[[], Case], number: int) -> None:
    assert faults.walk(Kind.DATA, number, prepare, Case.write, named) > 8


def beginning(index: Path) -> bytes:
    """All but the holes of the copied chunks."""
    with index.open("rb") as file:
        return file.read(4 << 20)


def test_an_index_that_is_interrupted_goes_on(faults: Faults, prepare: Callable[[], Case]) -> None:
    plain = prepare()
    written = plain.write()
    index = beginning(plain.index)
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, prepare, Case.write):
        assert outcome.error is None
        assert outcome.result == written
        assert beginning(outcome.case.index) == index


def test_an_index_where_any_other_call_fails(faults: Faults, prepare: Callable[[], Case]) -> None:
    def told(outcome: Outcome[Case]) -> None:
        named(outcome)
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.call == outcome.call

    assert faults.walk(Kind.CALL, errno.EIO, prepare, Case.write, told) >= 3
