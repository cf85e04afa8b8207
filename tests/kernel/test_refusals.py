"""Why the kernel refused a mount: what cannot be brought about in a test without harm to this machine."""

from __future__ import annotations

import errno

import pytest

from layerstore.kernel.mounts import Mount, refusals


@pytest.mark.parametrize(("call", "remedy"), [("move_mount", "fs.mount-max"), ("fsconfig", "Free some space")])
def test_no_space_means_mounts_where_nothing_is_written(call: str, remedy: str) -> None:
    error = refusals.of_mount(call, Mount("bind", "/a"), errno.ENOSPC, "/a", "")
    assert remedy in (error.remedy or "")
