"""Project quotas: limits on what folders hold, on ext4 and xfs.

A project is a number that a folder has and gives to all that is made in it. The filesystem counts and limits by
project.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from enum import Enum
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.files.filesystems import filesystem_type

__all__ = ["ProjectQuota", "lift", "limit", "limit_new", "project_of", "refusal", "set_project", "state", "usage"]

_PROJECTS = 1 << 30
"""Projects from here on are ours: those of others on the same filesystem are small numbers."""


class ProjectQuota(Enum):
    """What a filesystem does about projects."""

    OFF = "off"
    COUNTED = "counted, not limited"
    ENFORCED = "limited"


_STATES = {
    lib.LS_QUOTA_OFF: ProjectQuota.OFF,
    lib.LS_QUOTA_COUNTED: ProjectQuota.COUNTED,
    lib.LS_QUOTA_ENFORCED: ProjectQuota.ENFORCED,
}


def state(folder: Path) -> ProjectQuota:
    """What the filesystem of `folder` does about projects. `KernelError` (ENOSYS, ESRCH): it has no quotas at all."""
    with opened(folder, FOLDER) as fd:
        return _STATES[_checked("quotactl_fd", lib.ls_project_quota_state(fd), folder)]


def refusal(folder: Path) -> tuple[str, str] | None:
    """Why a size cannot be limited on the filesystem of `folder`, and the remedy; None if it can."""
    filesystem = filesystem_type(folder)
    match filesystem:
        case "ext4":
            remedy = "Make it with `mkfs.ext4 -O quota,project -E quotatype=prjquota` and mount it with `-o prjquota`."
        case "xfs":
            remedy = "Mount it with `-o prjquota` (for the root filesystem: `rootflags=prjquota` for the kernel)."
        case _:
            return f"{filesystem} has no project quotas", "Use ext4 or xfs with project quotas, or leave `size` out."
    try:
        found = state(folder)
    except KernelError as error:
        if error.errno == errno.ENOSYS:
            return f"this kernel has no project quotas for {filesystem}, or is older than Linux 5.14", remedy
        return f"{filesystem} is mounted without project quotas", remedy
    if found is not ProjectQuota.ENFORCED:
        return f"{filesystem} has its project quotas {found.value}", remedy
    return None


def limit_new(folder: Path, size: int) -> None:
    """Limit an empty folder, with all that will be made in it, to `size` bytes: in a project that nobody has."""
    project = _PROJECTS | int.from_bytes(os.urandom(4)) % _PROJECTS
    while usage(folder, project) != (0, 0):
        project = _PROJECTS | (project + 1) % _PROJECTS
    set_project(folder, project)
    limit(folder, project, size)


def lift(folder: Path, filesystem: Path) -> None:
    """Give up the limit of a folder that is to go, if it has one. `filesystem`: a folder that stays."""
    with suppress(KernelError):  # the filesystem is mounted without quotas now, or the folder is not there
        if (project := project_of(folder)) != 0:
            limit(filesystem, project, 0)


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
