"""In which of its modes can aufs work in this folder? Found out by doing it: a real stack, changed and removed again.

A home that is in use keeps the answer for this boot, so that opening a store costs one small file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from layerstore.changes.linked import link_stack
from layerstore.driver import Backing, CopyOnWrite, Mount
from layerstore.errors import Damaged, DriverNotSupported, KernelError
from layerstore.kernel import files
from layerstore.kernel.files.descriptors import read_own
from layerstore.kernel.mounts import AUFS, FUSE_OVERLAYFS, boot_id, detached, fuse
from layerstore.kernel.mounts.trial import nearest_folder, remember, trial_folder
from layerstore_aufs.settings import ATTRIBUTES, AUTO, Mode, Settings

ANSWER = ".backing"

XINO = "/dev/shm/aufs.xino"
"""Where aufs keeps its inode numbers: xfs cannot hold them. docker's place; several mounts may name the same."""

_NOT_BELOW_AUFS = frozenset({"btrfs", "aufs", "ecryptfs"})
"""Filesystems that the kernel's aufs does not stack, as docker had found."""

_UNFIT = frozenset({"nfs", "cifs", "smb2", "9p", "vfat", "exfat", "proc", "sysfs"})
"""Filesystems without owners, links or xattrs such as layers need."""

_DOCKER_NAMES = {"ext4": "extfs", "fuse": "fuseblk"}

_PRIVILEGE = "Storing layers needs root (CAP_SYS_ADMIN): use sudo, or a privileged container."

_MODES = {
    Mode.KERNEL: "the kernel's aufs",
    Mode.FUSE: "fuse-overlayfs",
    Mode.COPY: "a copy of each container's files",
}


_NOT_FUSE = "fuse-overlayfs alters times, modes and links of files: it is taken by word only (aufs.mode=fuse)"


@frozen
class Found:
    """The mode that is taken, what it works on, and why no better one is: (mode, reason, remedy)."""

    mode: Mode
    backing: Backing
    refusals: tuple[tuple[Mode, str, str | None], ...] = ()


def find(home: Path, options: Settings) -> Found:
    """The best mode that works in `home` (or will: it need not exist yet). Raises `DriverNotSupported`."""
    folder = nearest_folder(home)
    tried = [mode.value for mode in _candidates(options)]
    question = json.dumps(
        [boot_id(), os.stat(folder).st_dev, str(folder), _plain(options), tried, _has_aufs(), fuse.program()]
    )
    known = _known(home, question)
    if known is not None:
        return known
    found = _tried(folder, options)
    if folder == home and (home / "diff").is_dir():
        _remember(home, question, found)
    return found


def recipe(mode: Mode, layers: tuple[str, ...], upper: str | None, work: str | None, options: Settings) -> Mount:
    """The mount of a stack in one of the two modes that mount: `layers` are read only, the topmost first."""
    folders = [("lowerdir+", layer) for layer in layers]
    if upper is not None:
        folders.append(("upperdir", upper))
    more = tuple(options.mountopt)
    if mode is Mode.KERNEL:
        # Without pseudo-links (`noplink`) a copy-up parts hard links, as with overlay, and no `auplink` is to be run.
        kernel = (*folders, ("dio", None), ("noplink", None), ("xino", XINO), *more)
        return Mount(AUFS, "none", kernel, read_only=upper is None)
    if work is not None:
        folders.append(("workdir", work))
    return Mount(FUSE_OVERLAYFS, fuse.PROGRAM, (*folders, *more), read_only=upper is None)


def attributes(options: Settings) -> tuple[tuple[str, str | None], ...]:
    """What of `mountopt` is for any mount."""
    return tuple((key, value) for key, value in options.mountopt if key in ATTRIBUTES and value is None)


def refusal(mode: Mode, folder: Path) -> tuple[str, str | None] | None:
    """Why a mode cannot work in `folder`, as far as that can be told without trying; and the remedy."""
    path = os.path.realpath(folder)
    if mode is Mode.KERNEL:
        if not _has_aufs():
            return "this kernel has no aufs (/proc/filesystems)", "Use a kernel with aufs, or aufs.mode=fuse."
        filesystem = files.filesystem_type(folder)
        if filesystem in _NOT_BELOW_AUFS:
            return (
                f"aufs is not supported over {filesystem}",
                "Put the data-root on ext4 or xfs, or use aufs.mode=fuse.",
            )
        if any(mark in path for mark in ":,="):
            return f"aufs cannot take the name {path}", "Use a data-root without colon, comma and equals sign."
    if mode is Mode.FUSE:
        if fuse.program() is None:
            return "fuse-overlayfs is not installed", "Install fuse-overlayfs, or use aufs.mode=copy."
        try:
            fuse.check_device()
        except KernelError as error:
            return f"there is no FUSE: {error.message}", "Load it with `modprobe fuse`, or use aufs.mode=copy."
        if ":" in path:
            return f"fuse-overlayfs cannot take the name {path}", "Use a data-root without a colon, or aufs.mode=copy."
    return None


# ---- trying


def _tried(folder: Path, options: Settings) -> Found:
    filesystem = files.filesystem_type(folder)
    if filesystem in _UNFIT:
        raise DriverNotSupported(
            f"aufs cannot keep layers on {filesystem} ({folder})",
            remedy="Put the data-root on ext4, xfs, btrfs or tmpfs.",
        )
    with ExitStack() as after:
        try:
            place = after.enter_context(trial_folder(folder))
        except OSError as error:
            raise DriverNotSupported(
                f"cannot write to {folder}: {os.strerror(error.errno or errno.EIO)}",
                remedy=_PRIVILEGE if os.geteuid() != 0 else None,
            ) from None
        mode, refusals = _first_that_works(place, folder, options)
        shared = files.can_reflink(place)
    whole = CopyOnWrite.NONE if mode is Mode.COPY else CopyOnWrite.FILE
    block = shared and mode is not Mode.KERNEL
    notes = [
        ("Backing Filesystem", _DOCKER_NAMES.get(filesystem, filesystem)),
        ("Mode", f"{mode.value} ({_MODES[mode]})"),
        *((f"Not {refused.value}", reason) for refused, reason, _ in refusals),
        *([("Not fuse", _NOT_FUSE)] if options.mode is None and mode is Mode.COPY else []),
        ("Copy-up" if mode is not Mode.COPY else "Copies", "reflink" if block else "full"),
    ]
    backing = Backing(filesystem, CopyOnWrite.BLOCK if block else whole, quota=False, notes=tuple(notes))
    return Found(mode, backing, refusals)


def _first_that_works(
    place: Path, folder: Path, options: Settings
) -> tuple[Mode, tuple[tuple[Mode, str, str | None], ...]]:
    refusals: list[tuple[Mode, str, str | None]] = []
    for mode in _candidates(options):
        reason = refusal(mode, folder) or _failure(mode, place / mode.value, options)
        if reason is None:
            return mode, tuple(refusals)
        refusals.append((mode, *reason))
    (_, reason_text, remedy) = refusals[-1]
    forced = "" if options.mode is None else f" with aufs.mode={options.mode.value}"
    raise DriverNotSupported(f"aufs does not work{forced} in {folder}: {reason_text}", remedy=remedy)


def _failure(mode: Mode, place: Path, options: Settings) -> tuple[str, str | None] | None:
    """Why a small stack does not become a tree in this mode; None if it does."""
    lower, upper, work = (place / name for name in ("lower", "upper", "work"))
    try:
        for part in (lower, upper, work):
            part.mkdir(parents=True)
        (lower / "file").touch()
        _TRIALS[mode](lower, upper, work, options)
    except KernelError as error:
        return error.message, error.remedy
    except OSError as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        return str(error), _PRIVILEGE if denied else None
    return None


def _try_kernel(lower: Path, upper: Path, work: Path, options: Settings) -> None:
    with detached([recipe(Mode.KERNEL, (str(lower),), str(upper), None, options)]) as tree:
        os.unlink("file", dir_fd=tree)
    if not stat.S_ISREG(os.lstat(upper / ".wh.file").st_mode):
        raise KernelError("mount", errno.EINVAL, path=upper, detail="it makes whiteouts that layerstore does not know")


def _try_fuse(lower: Path, upper: Path, work: Path, options: Settings) -> None:
    with detached([recipe(Mode.FUSE, (str(lower),), str(upper), str(work), options)]) as tree:
        os.unlink("file", dir_fd=tree)
        os.mkdir("folder", dir_fd=tree)
        if os.listdir(tree) != ["folder"]:
            raise KernelError("fuse-overlayfs", errno.EIO, path=upper, detail="what was removed is still there")
    if not any(os.path.lexists(upper / name) for name in ("file", ".wh.file")):
        raise KernelError("fuse-overlayfs", errno.EIO, path=upper, detail="it makes no whiteouts")


def _try_copy(lower: Path, upper: Path, work: Path, options: Settings) -> None:
    # A device and an owner: what an ordinary user cannot make.
    os.mknod(lower / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown(lower / "file", 1, 1)
    (upper / ".wh.file").touch()
    link_stack([upper, lower], work)
    if os.listdir(work) != ["device"]:
        raise KernelError("linkat", errno.EIO, path=work, detail="what was removed is still there")


_TRIALS: dict[Mode, Callable[[Path, Path, Path, Settings], None]] = {
    Mode.KERNEL: _try_kernel,
    Mode.FUSE: _try_fuse,
    Mode.COPY: _try_copy,
}


def _has_aufs() -> bool:
    with open("/proc/filesystems") as names:
        return any(line.split()[-1] == "aufs" for line in names if line.strip())


# ---- remembering


def _candidates(options: Settings) -> tuple[Mode, ...]:
    return AUTO if options.mode is None else (options.mode,)


def _plain(options: Settings) -> dict[str, Any]:
    return {**asdict(options), "mode": options.mode and options.mode.value}


def _known(home: Path, question: str) -> Found | None:
    try:
        asked, answer = json.loads(read_own(home / ANSWER))
    except (OSError, ValueError, Damaged):
        return None
    if asked != question:
        return None
    return Found(
        mode=Mode(answer["mode"]),
        backing=Backing(
            filesystem=answer["filesystem"],
            copy_on_write=CopyOnWrite(answer["copy_on_write"]),
            quota=False,
            notes=tuple((name, value) for name, value in answer["notes"]),
        ),
        refusals=tuple((Mode(mode), reason, remedy) for mode, reason, remedy in answer["refusals"]),
    )


def _remember(home: Path, question: str, found: Found) -> None:
    backing = found.backing
    answer = {
        "mode": found.mode.value,
        "filesystem": backing.filesystem,
        "copy_on_write": backing.copy_on_write.value,
        "notes": backing.notes,
        "refusals": [(mode.value, reason, remedy) for mode, reason, remedy in found.refusals],
    }
    remember(home / ANSWER, [question, answer])
