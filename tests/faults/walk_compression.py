"""compression/ under faults: a stream of deflate without memory."""

from __future__ import annotations

import errno

import pytest

from compressing.samples import mixed
from layerstore.compression.goflate import Deflate
from support.faults import Faults, Kind

DATA = mixed(1, 300_000)


@pytest.mark.parametrize("level", [1, 6])
def test_deflating_without_memory(faults: Faults, level: int) -> None:
    def deflate(data: bytes) -> bytes:
        stream = Deflate(level)
        return stream.feed(data) + stream.finish()

    assert faults.walk(Kind.MEMORY, errno.ENOMEM, lambda: DATA, deflate) >= 3
