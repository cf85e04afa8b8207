"""Folders: made plain, given another's attributes, moved out of the way, removed with all that is in them.

What `os` and `shutil` cannot do, or do by names that another process could change meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from layerstore.errors import FULL, KernelError, named
from layerstore.kernel._shim import lib
from layerstore.kernel.files.descriptors import FOLDER, opened
from layerstore.kernel.files.failure import kernel_error, new_failure

__all__ = [
    "PRIVATE_XATTRS",
    "clear_mountpoint",
    "copy_root_attributes",
    "first_in",
    "make_plain",
    "make_plain_folder",
    "move_away",
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
    with opened(source, FOLDER) as old, opened(target, FOLDER) as new:
        try:
            _copy_attributes(old, new)
        except OSError as error:
            raise KernelError("setting attributes of", error.errno or errno.EIO, path=target) from None


def _copy_attributes(old: int, new: int) -> None:
    facts, made = os.fstat(old), os.fstat(new)
    # Each change is a transaction of the filesystem.
    if (facts.st_uid, facts.st_gid) != (made.st_uid, made.st_gid):
        os.fchown(new, facts.st_uid, facts.st_gid)
        made = os.fstat(new)  # which has cleared setuid and setgid
    if facts.st_mode != made.st_mode:
        os.fchmod(new, stat.S_IMODE(facts.st_mode))
    marks = _MARKS[lib.ls_within()]
    escaped = f"{marks}overlay."  # a program's own, as overlay stores it
    private = (marks, *PRIVATE_XATTRS[1:])
    wanted = [name for name in os.listxattr(old) if name.startswith(escaped) or not name.startswith(private)]
    for name in os.listxattr(new):
        if name in _ACLS and name not in wanted:
            os.removexattr(new, name)
    for name in wanted:
        os.setxattr(new, name, os.getxattr(old, name))
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))


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
