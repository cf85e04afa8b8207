"""A download that is read along by another."""

from __future__ import annotations

import pytest

from blobs.conftest import GZIPPED, name_of
from layerstore.blobs import Blobs

pytestmark = pytest.mark.root

BLOB = name_of(GZIPPED)


def test_what_is_being_downloaded_is_read_along_and_nobody_is_in_the_way(blobs: Blobs) -> None:
    assert blobs.growing(BLOB) is None
    buffer = memoryview(bytearray(100))
    with blobs.partial(BLOB) as partial, blobs.growing(BLOB) as growing:
        assert growing.readinto(buffer, 0) == 0
        partial.append(GZIPPED[:150])
        assert (growing.readinto(buffer, 0), growing.readinto(buffer, 100)) == (100, 50)
        assert bytes(buffer[:50]) == GZIPPED[100:150]
        partial.close()
        with blobs.partial(BLOB) as again:  # whoever reads holds no lock
            again.append(GZIPPED[150:200])
            assert growing.size == 200


def test_whether_more_can_come_is_told(blobs: Blobs) -> None:
    with blobs.partial(BLOB) as partial, blobs.growing(BLOB) as growing:
        partial.append(GZIPPED[:150])
        assert not growing.is_given_up
        partial.discard()
        assert growing.is_given_up
        assert growing.readinto(memoryview(bytearray(200)), 0) == 150


def test_what_becomes_a_kept_blob_is_read_to_its_end(blobs: Blobs) -> None:
    with blobs.partial(BLOB) as partial, blobs.growing(BLOB) as growing:
        partial.append(GZIPPED)
        blobs.put_partial(partial, BLOB)
        assert not growing.is_given_up
        assert growing.size == len(GZIPPED)
