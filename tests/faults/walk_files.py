"""kernel/files under faults: listing a folder, copying data, removing a tree."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.kernel.files import copy_data, lists_types
from support.faults import Faults, Kind


def test_a_folder_that_cannot_be_listed_is_an_error(faults: Faults, tmp_path: Path) -> None:
    for kind, number in ((Kind.LISTING, errno.EIO), (Kind.MEMORY, errno.ENOMEM)):
        assert faults.walk(kind, number, lambda: tmp_path, lists_types) > 0


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_an_interrupted_copy_goes_on(faults: Faults, backing: Callable[[str], Path], size: int) -> None:
    folder = backing("ext4")
    content = bytes(range(256)) * (size // 256) + b"end"
    (folder / "from").write_bytes(content)

    def copy(path: Path) -> int:
        with open(folder / "from", "rb") as source, open(path, "wb") as target:
            return copy_data(source.fileno(), target.fileno())

    met = 0
    for outcome in faults.outcomes(Kind.DATA, errno.EINTR, lambda: folder / "to", copy):
        met += 1
        assert outcome.error is None
        assert outcome.case.read_bytes() == content
    assert met > 0
