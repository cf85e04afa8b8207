"""Folders: made plain, given another's attributes, moved out of the way, removed with all that is in them.

What `os` and `shutil` cannot do, or do by names that another process could change meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from layerstore.errors import FULL, KernelError, named
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.files.failure import kernel_error, new_failure
from layerstore.values import frozen

__all__ = [
    "PRIVATE_XATTRS",
    "Attributes",
    "clear_mountpoint",
    "copy_root_attributes",
    "first_in",
    "give_root_attributes",
    "make_plain",
    "make_plain_folder",
    "move_away",
    "names_in",
    "remove_tree",
]

PRIVATE_XATTRS = ("trusted.overlay.", "trusted.SGI_ACL_", "security.selinux")
"""How extended attributes begin that are the host's or the kernel's, and no part of a file."""

_MARKS = ("trusted.overlay.", "user.overlay.")
"""Overlay's own: as the machine's root mounts it, and within a user namespace."""

_HERE = -100  # AT_FDCWD
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def first_in(folder: Path) -> str | None:
    """A name that is in a folder; None if it is empty, or there is no such folder."""
    with named("open", folder):
        try:
            with os.scandir(folder) as entries:
                return next((entry.name for entry in entries), None)
        except (FileNotFoundError, NotADirectoryError):
            return None


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none if there is no such folder. Raises `KernelError`."""
    with named("open", folder):
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []


def make_plain_folder(path: Path | str) -> None:
    """Make a folder of mode 0755, whatever the umask is, and whatever ACLs and group its parent gives on."""
    os.mkdir(path)
    make_plain(path)


def make_plain(path: Path | str) -> None:
    """Give a new folder mode 0755, no ACLs, and this process's group."""
    for name in _ACLS:
        try:
            os.removexattr(path, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise
    if os.stat(path).st_gid != os.getegid():
        os.chown(path, -1, os.getegid())
    os.chmod(path, 0o755)


def copy_root_attributes(source: Path | str, target: Path | str) -> None:
    """Give the directory `target` the owner, mode, times and xattrs of the directory `source`, and no others.

    Not copied is what the kernel keeps for itself (overlay's marks, xfs's copies of ACLs) and the SELinux label, which
    the policy gives. ACLs that `target` inherited when it was made go.
    """
    with opened(source, FOLDER) as old, _told(target):
        facts, names = os.fstat(old), os.listxattr(old)
        xattrs = {name: os.getxattr(old, name) for name in _of_a_file(names)}
        times = (facts.st_atime_ns, facts.st_mtime_ns)
        _give(target, Attributes(facts.st_mode, facts.st_uid, facts.st_gid, times, xattrs))


@frozen
class Attributes:
    """A directory's mode, owner, times of access and change in ns, and xattrs by the names they are stored under."""

    mode: int
    uid: int
    gid: int
    times: tuple[int, int]
    xattrs: Mapping[str, bytes]


def give_root_attributes(given: Attributes, target: Path | str) -> None:
    """`copy_root_attributes`, of what is known of a directory."""
    with _told(target):
        _give(target, evolve(given, xattrs={name: given.xattrs[name] for name in _of_a_file(given.xattrs)}))


@contextmanager
def _told(target: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError("setting attributes of", error.errno or errno.EIO, path=target) from None


def _of_a_file(names: Iterable[str]) -> list[str]:
    """Those of the names of xattrs that are the file's own."""
    marks = _MARKS[lib.ls_within()]
    escaped = f"{marks}overlay."  # a program's own, as overlay stores it
    private = (marks, *PRIVATE_XATTRS[1:])
    return [name for name in names if name.startswith(escaped) or not name.startswith(private)]


def _give(target: Path | str, given: Attributes) -> None:
    with opened(target, FOLDER) as new:
        made = os.fstat(new)
        # Each change is a transaction of the filesystem.
        if (given.uid, given.gid) != (made.st_uid, made.st_gid):
            os.fchown(new, given.uid, given.gid)
            made = os.fstat(new)  # which has cleared setuid and setgid
        if stat.S_IMODE(given.mode) != stat.S_IMODE(made.st_mode):
            os.fchmod(new, stat.S_IMODE(given.mode))
        for name in os.listxattr(new):
            if name in _ACLS and name not in given.xattrs:
                os.removexattr(new, name)
        for name, value in given.xattrs.items():
            os.setxattr(new, name, value)
        os.utime(new, ns=given.times)


def move_away(path: Path | str, target: Path | str) -> bool:
    """Rename what is to go, whatever flags (`chattr +i`) a program has given it. False if it is not there.

    Where there is no room for the new name, it is removed where it is: on a full disk, to free room must need none.
    """
    try:
        try:
            os.rename(path, target)
        except PermissionError:
            if not lib.ls_free_of_flags(_HERE, os.fsencode(path)):
                raise
            os.rename(path, target)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in FULL:
            raise
        remove_tree(Path(path))
    return True


def clear_mountpoint(path: Path | str, target: Path | str) -> None:
    """Remove the folder that something was mounted on; what was written there while nothing was becomes `target`.

    EBUSY while something is mounted. It may not be there.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EPERM):
            raise
        move_away(path, target)


def remove_tree(path: Path, *, threads: int = 2) -> None:
    """Remove a file or a folder with all that is in it.

    No symlink is followed, no mount entered; depth, modes and immutable flags are no obstacle. What is not there is
    fine. What cannot be removed is named in the error; all else is gone then.
    """
    failure = new_failure()
    answer = lib.ls_remove_tree(os.fsencode(path), threads, failure)
    if answer == 0:
        return
    detail = remedy = None
    if answer == -errno.EBUSY:
        detail, remedy = "something is mounted there", "Unmount it first."
    elif answer in (-errno.EPERM, -errno.EACCES) and os.geteuid() != 0:
        remedy = "Removing what others own needs root."
    raise kernel_error(failure, path, detail=detail, remedy=remedy)
