"""Project quotas, where there are any; the refusals, where there are none."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.errors import KernelError
from layerstore.kernel.files import quota
from layerstore.kernel.files.quota import ProjectQuota

pytestmark = pytest.mark.root

PROJECT = 0x40001234
MEBIBYTE = 1 << 20


@pytest.fixture(params=["ext4", "xfs"])
def limited(request: pytest.FixtureRequest, own_filesystem: Callable[..., Path]) -> Path:
    """A filesystem that limits projects. Many kernels have been built without."""
    mkfs = ("-O", "quota,project", "-E", "quotatype=prjquota") if request.param == "ext4" else ()
    try:
        folder = own_filesystem(request.param, mkfs=mkfs, options="prjquota")
    except subprocess.CalledProcessError:
        pytest.skip(f"this kernel has no project quotas for {request.param}")
    try:
        if quota.state(folder) is not ProjectQuota.ENFORCED:
            pytest.skip(f"this kernel has no project quotas for {request.param}")
    except KernelError:
        pytest.skip(f"this kernel has no project quotas for {request.param}")
    return folder


def fill(path: Path, size: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size, MEBIBYTE):
            file.write(bytes(MEBIBYTE))
            os.fsync(file)


def test_a_limited_project_cannot_grow(limited: Path) -> None:
    folder = limited / "folder"
    folder.mkdir()
    quota.set_project(folder, PROJECT)
    quota.limit(limited, PROJECT, 4 * MEBIBYTE)
    (folder / "inner").mkdir()

    with pytest.raises(OSError, match=r"quota|space"):
        fill(folder / "inner" / "file", 8 * MEBIBYTE)

    used, limit = quota.usage(limited, PROJECT)
    assert limit == 4 * MEBIBYTE
    assert 0 < used <= limit
    quota.limit(limited, PROJECT, 0)
    (folder / "inner" / "more").write_bytes(bytes(5 * MEBIBYTE))


def test_a_project_that_nobody_has_used_is_empty(limited: Path) -> None:
    assert quota.usage(limited, PROJECT) == (0, 0)


def test_a_folder_is_in_its_project_and_gives_it_on(backing: Callable[[str], Path]) -> None:
    folder = backing("xfs") / "folder"
    folder.mkdir()
    assert quota.project_of(folder) == 0

    quota.set_project(folder, PROJECT)
    (folder / "inner").mkdir()

    assert quota.project_of(folder) == PROJECT
    assert quota.project_of(folder / "inner") == PROJECT


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_without_quotas_says_so(backing: Callable[[str], Path], kind: str) -> None:
    folder = backing(kind)

    for ask in (quota.state, lambda where: quota.limit(where, PROJECT, MEBIBYTE), lambda where: quota.usage(where, 1)):
        with pytest.raises(KernelError, match="quotactl_fd") as caught:
            ask(folder)
        assert caught.value.errno in (errno.ENOSYS, errno.ESRCH, errno.EOPNOTSUPP)
        assert caught.value.path == str(folder)


def test_projects_on_a_filesystem_without_them_are_refused(backing: Callable[[str], Path]) -> None:
    with pytest.raises(KernelError, match=r"FSSETXATTR|FSGETXATTR"):
        quota.set_project(backing("ext4"), PROJECT)
