"""Listings of tars that stay as they are, under faults: of memory, and of what is read of the layers below."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from layerstore.errors import KernelError
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.tar import Unpacked, take_listing
from layerstore.testing import tars
from layerstore.testing.tars import archive, file, hardlink, opaque, sparse, whiteout
from support.faults import Faults, Kind, Outcome

LAYER = archive(
    file(b"d/implied/f", b"in a directory that is not listed"),
    file(b"way/g", b"by way of a link of the parents", xattrs={b"user.x": b"y", b"user.z": b"w" * 300}),
    hardlink(b"again", b"d/implied/f"),
    hardlink(b"early", b"late"),
    hardlink(b"copied", b"below"),
    hardlink(b"copied-link", b"below-link"),
    file(b"twice", b"first"),
    hardlink(b"kept", b"twice"),
    hardlink(b"kept-again", b"twice"),
    file(b"twice", b"second"),
    file(b"late", b"late"),
    whiteout(b"below"),
    whiteout(b"hollow/nothing"),
    opaque(b"d"),
    sparse(b"s", 100_000, *((at * 4096 + 7, b"z" * 512) for at in range(24)), form=tars.Sparse.GNU),
    tars.char(b"c", 1, 3, xattrs={b"trusted.overlay.kept": b"2"}),
)


@frozen
class Case:
    """The layer is listed on its parents, here."""

    below: Path
    listing: Path

    def take(self) -> Unpacked:
        with opened(self.below, FOLDER) as below:
            return take_listing(io.BytesIO(LAYER), self.listing, below=below)


@pytest.fixture
def prepare(backing: Callable[[str], Path]) -> Callable[[], Case]:
    """Parents that are there, and no listing yet."""
    place = backing("ext4")
    case = Case(place / "below", place / "listing")
    (case.below / "d").mkdir(parents=True)
    (case.below / "way").symlink_to("d")
    (case.below / "below").write_bytes(b"of the parents" * 50)
    (case.below / "below-link").symlink_to("somewhere")

    def new() -> Case:
        case.listing.unlink(missing_ok=True)
        return case

    return new


def left_nothing(outcome: Outcome[Case]) -> None:
    assert not outcome.case.listing.exists(), "a listing is left that nobody may believe"


@pytest.mark.parametrize("lasting", [False, True])
def test_a_listing_without_memory(faults: Faults, prepare: Callable[[], Case], *, lasting: bool) -> None:
    met = faults.walk(Kind.MEMORY, errno.ENOMEM, prepare, Case.take, left_nothing, lasting=lasting)
    assert met > 50


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.CALL])
def test_a_listing_of_parents_that_cannot_be_read(faults: Faults, prepare: Callable[[], Case], kind: Kind) -> None:
    def told(outcome: Outcome[Case]) -> None:
        left_nothing(outcome)
        assert isinstance(outcome.error, KernelError)
        assert outcome.error.path is not None
        assert outcome.call is None or outcome.error.call == outcome.call

    assert faults.walk(kind, errno.EIO, prepare, Case.take, told) > 0


def test_a_listing_that_is_interrupted_goes_on(faults: Faults, prepare: Callable[[], Case]) -> None:
    plain = prepare()
    done, content = plain.take(), plain.listing.read_bytes()
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, prepare, Case.take):
        assert outcome.error is None
        assert outcome.result == done
        assert outcome.case.listing.read_bytes() == content
