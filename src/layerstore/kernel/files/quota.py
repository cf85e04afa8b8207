"""Project quotas: limits on what folders hold, on ext4 and xfs.

A project is a number that a folder has and gives to all that is made in it. The filesystem counts and limits by
project.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import FOLDER, opened

__all__ = ["QuotaState", "limit", "project_of", "set_project", "state", "usage"]


class QuotaState(Enum):
    """What a filesystem does about projects."""

    OFF = "off"
    COUNTED = "counted, not limited"
    ENFORCED = "limited"


_STATES = {
    lib.LS_QUOTA_OFF: QuotaState.OFF,
    lib.LS_QUOTA_COUNTED: QuotaState.COUNTED,
    lib.LS_QUOTA_ENFORCED: QuotaState.ENFORCED,
}


def state(folder: Path) -> QuotaState:
    """What the filesystem of `folder` does about projects. `KernelError` (ENOSYS, ESRCH): it has no quotas at all."""
    with opened(folder, FOLDER) as fd:
        return _STATES[_checked("quotactl_fd", lib.ls_project_quota_state(fd), folder)]


def set_project(folder: Path, project: int) -> None:
    """Put an empty folder, and all that will be made in it, into a project."""
    with opened(folder, FOLDER) as fd:
        _checked("ioctl(FS_IOC_FSSETXATTR)", lib.ls_set_project(fd, project), folder)


def project_of(folder: Path) -> int:
    """The project that a folder is in; 0: none."""
    project = ffi.new("uint32_t *")
    with opened(folder, FOLDER) as fd:
        _checked("ioctl(FS_IOC_FSGETXATTR)", lib.ls_project_of(fd, project), folder)
    return int(project[0])


def limit(folder: Path, project: int, size: int) -> None:
    """Limit a project on the filesystem of `folder` to `size` bytes; 0 lifts the limit."""
    with opened(folder, FOLDER) as fd:
        _checked("quotactl_fd", lib.ls_limit_project(fd, project, size), folder)


def usage(folder: Path, project: int) -> tuple[int, int]:
    """Bytes that a project occupies, and its limit; (0, 0) for one that does not exist."""
    used, most = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    with opened(folder, FOLDER) as fd:
        _checked("quotactl_fd", lib.ls_project_usage(fd, project, used, most), folder)
    return int(used[0]), int(most[0])


def _checked(call: str, answer: int, path: Path) -> int:
    if answer < 0:
        raise KernelError(call, -answer, path=path)
    return answer
