"""Files and filesystems: opening within a root, syncing, copying, removing trees.

What `os` and `shutil` cannot do, or do by names that another process could change meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Self

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.descriptors import FOLDER, HANDLE, open_path, opened

__all__ = [
    "Writeback",
    "can_reflink",
    "clear_mountpoint",
    "clone_file",
    "copy_data",
    "copy_root_attributes",
    "filesystem_type",
    "fsync_folder",
    "lists_types",
    "make_plain",
    "make_plain_folder",
    "move_away",
    "open_beneath",
    "open_tree_root",
    "remove_tree",
    "syncfs",
]

# linux/magic.h, and fs/*/ for those that are not in it.
_FILESYSTEMS = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlayfs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0xF15F: "ecryptfs",
    0x61756673: "aufs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
    0xF2F52010: "f2fs",
    0x00C36400: "ceph",
    0x01021997: "9p",
    0x47504653: "gpfs",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x858458F6: "ramfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x52654973: "reiserfs",
    0x3153464A: "jfs",
}

_HERE = -100  # AT_FDCWD
_PRIVATE_XATTRS = ("trusted.overlay.", "trusted.SGI_ACL_", "security.selinux")
_ESCAPED_XATTRS = "trusted.overlay.overlay."  # a program's own `trusted.overlay.`, as overlay stores it
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def open_tree_root(path: Path) -> int:
    """A descriptor to open files beneath with `open_beneath`; it can do nothing else."""
    return open_path(path, HANDLE)


def open_beneath(root: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as if `root` were the root directory: no `..`, symlink or link of /proc leads out of it."""
    fd: int = lib.ls_open_in_root(root, os.fsencode(path), flags, mode)
    if fd == -errno.ENOSYS:
        raise KernelError("openat2", errno.ENOSYS, remedy="This needs Linux 5.6 or later.")
    if fd < 0:
        raise KernelError("openat2", -fd, path=path)
    return fd


def syncfs(what: Path | int) -> None:
    """Write all that is dirty on the filesystem of a path or descriptor to the disk."""
    if isinstance(what, int):
        answer = lib.ls_sync_filesystem(what)
        if answer < 0:
            raise KernelError("syncfs", -answer)
        return
    with opened(what, os.O_RDONLY) as fd:
        answer = lib.ls_sync_filesystem(fd)
    if answer < 0:
        raise KernelError("syncfs", -answer, path=what)


def fsync_folder(path: Path) -> None:
    """Make what was renamed, made or removed in a folder survive a power cut."""
    with opened(path, FOLDER) as fd:
        try:
            os.fsync(fd)
        except OSError as error:
            raise KernelError("fsync", error.errno or errno.EIO, path=path) from None


class Writeback:
    """While it is entered, a thread keeps writing a filesystem's dirty data to the disk.

    The disk then works while files are still being made, and the sync at the end, which is not done here, is short.
    Only on ext4 and xfs: on btrfs each early sync costs a commit and makes the whole slower.
    """

    INTERVAL = 0.2

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        fd = open_path(self._path, FOLDER)
        if _type_of(fd) not in ("ext4", "xfs"):
            os.close(fd)
            return self
        self._over.clear()
        self._thread = threading.Thread(target=self._run, args=(fd,), name="layerstore-writeback", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, fd: int) -> None:
        try:
            while not self._over.wait(self.INTERVAL):
                # A failure is for the final sync to report: the kernel tells each descriptor of it once.
                lib.ls_sync_filesystem(fd)
        finally:
            os.close(fd)


def remove_tree(path: Path, *, threads: int = 2) -> None:
    """Remove a file or a folder with all that is in it.

    No symlink is followed, no mount entered; depth, modes and immutable flags are no obstacle. What is not there is
    fine. What cannot be removed is named in the error; all else is gone then.
    """
    place = ffi.new("char[]", 4096)
    answer = lib.ls_remove_tree(os.fsencode(path), threads, place, len(place))
    if answer == 0:
        return
    where = os.fsencode(path)
    inner = ffi.string(place).rstrip(b"/")
    if inner:
        where += b"/" + inner
    detail = remedy = None
    if answer == -errno.EBUSY:
        detail, remedy = "something is mounted there", "Unmount it first."
    elif answer in (-errno.EPERM, -errno.EACCES) and os.geteuid() != 0:
        remedy = "Removing what others own needs root."
    raise KernelError("unlinkat", -answer, path=where, detail=detail, remedy=remedy)


def move_away(path: Path | str, target: Path | str) -> bool:
    """Rename a folder that is to go, whatever flags (`chattr +i`) a program has given it. False if it is not there."""
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return False
    except PermissionError:
        if not lib.ls_free_of_flags(_HERE, os.fsencode(path)):
            raise
        os.rename(path, target)
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


def filesystem_type(path: Path) -> str:
    """The kernel's name for the filesystem that `path` lies on; `0x…` if it is a rare one. ext2 and ext3 are ext4."""
    with opened(path, os.O_PATH) as fd:
        return _type_of(fd)


def lists_types(folder: Path) -> bool:
    """Does the filesystem list its entries with their types (d_type)? Overlay needs it."""
    with opened(folder, FOLDER) as fd:
        answer = lib.ls_lists_types(fd)
    if answer < 0:
        raise KernelError("getdents64", -answer, path=folder)
    return bool(answer)


def clone_file(source: int, target: int) -> bool:
    """Let one file share all blocks of another (FICLONE). False where the filesystem cannot."""
    answer = lib.ls_clone_file(source, target)
    if answer in (-errno.EOPNOTSUPP, -errno.EXDEV, -errno.EINVAL, -errno.ENOTTY, -errno.ENOSYS):
        return False
    if answer < 0:
        raise KernelError("ioctl(FICLONE)", -answer)
    return True


def copy_data(source: int, target: int) -> int:
    """Copy all data into an empty file, sharing blocks where that is possible; holes stay holes. Returns the size."""
    answer: int = lib.ls_copy_data(source, target)
    if answer < 0:
        raise KernelError("copy_file_range", -answer)
    return answer


def can_reflink(folder: Path) -> bool:
    """Can files in `folder` share blocks? Tried with two nameless files: nothing is left."""
    nameless = os.O_TMPFILE | os.O_RDWR
    try:
        with opened(folder, nameless) as source, opened(folder, nameless) as target:
            os.write(source, bytes(4096))
            return clone_file(source, target)
    except (OSError, KernelError):
        return False


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
    wanted = [
        name for name in os.listxattr(old) if name.startswith(_ESCAPED_XATTRS) or not name.startswith(_PRIVATE_XATTRS)
    ]
    for name in os.listxattr(new):
        if name in _ACLS and name not in wanted:
            os.removexattr(new, name)
    for name in wanted:
        os.setxattr(new, name, os.getxattr(old, name))
    os.utime(new, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _type_of(fd: int) -> str:
    magic: int = lib.ls_filesystem_magic(fd)
    if magic < 0:
        raise KernelError("fstatfs", -magic)
    return _FILESYSTEMS.get(magic, f"{magic:#x}")
