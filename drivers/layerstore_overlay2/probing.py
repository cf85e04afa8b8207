"""Can overlay2 work in this folder, and how well? Found out by doing it: a real mount, removed again.

A home that is in use keeps the answer for this boot, so that opening a store costs one small file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from attrs import asdict

from layerstore.driver import Backing, CopyOnWrite, Mount
from layerstore.errors import Damaged, DriverNotSupported, KernelError
from layerstore.kernel import files
from layerstore.kernel.files import quota
from layerstore.kernel.files.descriptors import read_own
from layerstore.kernel.mounts import boot_id, detached
from layerstore.kernel.mounts.trial import nearest_folder, remember, trial_folder
from layerstore.kernel.namespaces import is_within
from layerstore_overlay2.settings import MAX_DEPTH, Settings

ANSWER = ".backing"

_UNFIT = frozenset({"overlayfs", "aufs", "ecryptfs", "nfs", "cifs", "smb2", "9p", "vfat", "exfat", "proc", "sysfs"})
"""Filesystems whose directories overlay refuses as upper, or which cannot store its marks."""

_DOCKER_NAMES = {"ext4": "extfs", "overlayfs": "overlayfs", "fuse": "fuseblk"}

_PRIVILEGE = (
    "Storing layers needs root (CAP_SYS_ADMIN), at least in a user namespace: call layerstore.unshare() first, "
    "or use `layerstore unshare`, sudo, or a privileged container."
)


@cache
def knows_volatile() -> bool:
    """Has this kernel the mount option `volatile`, which came with Linux 5.10?"""
    version = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return version is not None and (int(version[1]), int(version[2])) >= (5, 10)


def probe(home: Path, options: Settings) -> Backing:
    """See `StorageDriver.probe`."""
    folder = nearest_folder(home)
    question = json.dumps([boot_id(), os.stat(folder).st_dev, asdict(options)])
    require_possible(options)
    known = _known(home, question)
    if known is not None:
        return known
    backing = _tried(folder, options)
    if folder == home and os.path.isdir(home / ".empty"):
        _remember(home, question, backing)
    return backing


def require_possible(options: Settings) -> None:
    """Raise `DriverNotSupported` for options with which overlay mounts nothing in a user namespace.

    There its marks are `user.overlay.*`, which anybody could write, so it follows none that lead to other files
    (kernel: filesystems/overlayfs.rst, "User xattr").
    """
    refused = "metacopy" if options.metacopy else "redirect_dir" if options.redirect_dir else None
    if refused is not None and is_within():
        raise DriverNotSupported(
            f"overlay2.{refused} is not possible without root: the kernel refuses it in a user namespace",
            remedy="Leave the option out.",
        )


def _tried(folder: Path, options: Settings) -> Backing:
    filesystem = files.filesystem_type(folder)
    if filesystem in _UNFIT:
        raise DriverNotSupported(
            f"overlay cannot write to {filesystem} ({folder})",
            remedy="Put the data-root on ext4, xfs, btrfs or tmpfs.",
        )
    limited = False
    if options.size is not None:
        refusal = quota.refusal(folder)
        if refusal is not None:
            raise DriverNotSupported(f"overlay2.size: {refusal[0]} ({folder})", remedy=refusal[1])
        limited = True
    with ExitStack() as after:
        try:
            place = after.enter_context(trial_folder(folder))
        except OSError as error:
            raise DriverNotSupported(
                f"cannot write to {folder}: {os.strerror(error.errno or errno.EIO)}",
                remedy=_PRIVILEGE if os.geteuid() != 0 else None,
            ) from None
        _try_overlay(place, options)
        types = files.lists_types(place)
        shared = files.can_reflink(place)
    if not types:
        raise DriverNotSupported(
            f"{filesystem} ({folder}) does not list the types of its entries (d_type)",
            remedy="On xfs: make the filesystem with `mkfs.xfs -n ftype=1`.",
        )
    return Backing(
        filesystem=filesystem,
        copy_on_write=CopyOnWrite.BLOCK if shared else CopyOnWrite.FILE,
        quota=limited or quota.refusal(folder) is None,
        notes=(
            ("Backing Filesystem", _DOCKER_NAMES.get(filesystem, filesystem)),
            ("Supports d_type", "true"),
            ("Using metacopy", str(options.metacopy).lower()),
            ("Native Overlay Diff", "true"),
            ("userxattr", str(is_within()).lower()),
            ("Copy-up", "reflink" if shared else "full"),
            ("Max depth", str(MAX_DEPTH)),
        ),
    )


def _try_overlay(place: Path, options: Settings) -> None:
    """A writable mount with the options of real ones, in which a file of the lower layer is removed."""
    import xattr  # once a boot: not worth 2 ms of every start

    lower, upper, work = (place / name for name in ("lower", "upper", "work"))
    for part in (lower, upper, work):
        part.mkdir()
    (lower / "file").touch()
    try:
        xattr.setxattr(os.fspath(lower), f"{'user' if is_within() else 'trusted'}.overlay.opaque", b"y")
        os.mknod(place / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
        # Unmounting a writable overlay syncs the whole filesystem, unless it is volatile (since Linux 5.10).
        try:
            _remove_one(_mount(lower, upper, work, (*_own(options), ("volatile", None))))
        except KernelError as error:
            if error.errno != errno.EINVAL or options.volatile:
                raise
            _remove_one(_mount(lower, upper, work, _own(options)))
        whiteout = os.lstat(upper / "file")
    except KernelError as error:
        raise DriverNotSupported(
            f"overlay does not work in {place.parent}: {error.message}", remedy=error.remedy, errno=error.errno
        ) from None
    except OSError as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise DriverNotSupported(
            f"the filesystem of {place.parent} refuses overlay's marks: {error.strerror}",
            remedy=_PRIVILEGE if denied else None,
            errno=error.errno,
        ) from None
    if not stat.S_ISCHR(whiteout.st_mode):
        raise DriverNotSupported(f"overlay in {place.parent} makes whiteouts that layerstore does not know")


def _own(options: Settings) -> tuple[tuple[str, str | None], ...]:
    metacopy, redirect = options.metacopy, options.metacopy or options.redirect_dir
    return (*features(metacopy=metacopy, redirect=redirect), *options.mountopt)


def features(*, metacopy: bool, redirect: bool, borrowed: bool = False) -> tuple[tuple[str, str | None], ...]:
    """What is always said, so that the defaults of the host's overlay module never matter.

    `borrowed`: of layers that another program wrote, whose mounts may have renamed folders by directions; these are
    followed, and none are made. In a user namespace the kernel follows none.
    """
    followed = "follow" if borrowed and not is_within() else "nofollow"
    return (
        *((("userxattr", None),) if is_within() else ()),
        ("index", "off"),
        ("metacopy", "on" if metacopy else "off"),
        ("redirect_dir", "on" if redirect else followed),
    )


def _mount(lower: Path, upper: Path, work: Path, options: Sequence[tuple[str, str | None]]) -> Mount:
    folders = (("lowerdir+", str(lower)), ("upperdir", str(upper)), ("workdir", str(work)))
    return Mount("overlay", "overlay", (*folders, *options))


def _remove_one(mount: Mount) -> None:
    with detached([mount]) as tree:
        os.unlink("file", dir_fd=tree)


def _known(home: Path, question: str) -> Backing | None:
    try:
        text = read_own(home / ANSWER)
        asked, answer = json.loads(text)
    except (OSError, ValueError, Damaged):
        return None
    if asked != question:
        return None
    return Backing(
        filesystem=answer["filesystem"],
        copy_on_write=CopyOnWrite(answer["copy_on_write"]),
        quota=answer["quota"],
        notes=tuple((name, value) for name, value in answer["notes"]),
    )


def _remember(home: Path, question: str, backing: Backing) -> None:
    answer: dict[str, Any] = {**asdict(backing), "copy_on_write": backing.copy_on_write.value}
    remember(home / ANSWER, [question, answer])
