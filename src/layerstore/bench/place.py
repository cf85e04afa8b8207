"""The folder that a run works in: claimed for it alone, and empty again afterwards, whatever happens.

A file in it, locked for as long as the process lives, says whose it is. So a folder without that file is never
touched, one whose file is locked belongs to a run that goes on, and one whose file is not locked is what a killed run
left: it is cleaned. Only the file and the folder `work` beside it are ever removed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from layerstore.errors import ConfigError, KernelError, LayerstoreError, named
from layerstore.kernel.files import remove_tree, syncfs
from layerstore.kernel.mounts import mounts_below, unmount
from layerstore.values import frozen

__all__ = ["Place", "can_drop_caches", "claimed", "default_folder", "drop_caches", "require_room"]

_MARK: Final = "layerstore-bench.json"
_WORK: Final = "work"
_DATABASE: Final = "layerstore.db"
_DROP: Final = "/proc/sys/vm/drop_caches"


@frozen
class Place:
    """A claimed folder. `work` is for the run."""

    folder: Path
    work: Path
    swept: bool
    """Was something of a killed run cleaned away?"""

    def used(self) -> int:
        """Bytes that are taken on the whole filesystem, with all that was written on the disk."""
        syncfs(self.work)
        facts = os.statvfs(self.work)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def default_folder(data_root: Path) -> Path:
    """A new folder on the disk of a data-root, beside it."""
    parent = data_root.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent / "layerstore-bench"


@contextmanager
def claimed(folder: Path, clean_stores: Callable[[Path], None]) -> Iterator[Place]:
    """Claim a folder that is new or empty. Raises `ConfigError` for any other.

    `clean_stores` gets a folder with the stores of a run, and removes what only their drivers can.
    """
    folder = Path(os.path.realpath(folder))
    _refuse_stores(folder)
    with named("mkdir", folder):
        made = not folder.exists()
        if made:
            folder.mkdir(mode=0o700)
    try:
        lock, swept, made_before = _locked(folder, clean_stores)
        made = made or made_before
    except BaseException:
        if made:
            folder.rmdir()
        raise
    try:
        os.write(lock, json.dumps({"process": os.getpid(), "made": made}).encode())
        work = folder / _WORK
        with named("mkdir", work):
            work.mkdir(mode=0o700)
        try:
            yield Place(folder, work, swept)
        finally:
            _sweep(work, clean_stores)
            (folder / _MARK).unlink()
    finally:
        os.close(lock)
        if made:
            with suppress(OSError):  # somebody put something in it: that stays
                folder.rmdir()


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raise `ConfigError` unless so many bytes are free."""
    facts = os.statvfs(folder)
    free = facts.f_bavail * facts.f_frsize
    if free < needed:
        raise ConfigError(
            f"{folder} has {free / 1e9:.1f} GB free, and {what} needs about {needed / 1e9:.1f} GB",
            remedy="Free some space, name a folder on another disk, or take a smaller --scale or fewer --drivers.",
            path=folder,
        )


def can_drop_caches() -> bool:
    """May this process make the kernel forget what it has read?"""
    return os.access(_DROP, os.W_OK)


def drop_caches() -> None:
    """Make the kernel forget all files, names and inodes that are not in use, on the whole machine."""
    with named("write", _DROP), open(_DROP, "w", encoding="ascii") as file:
        file.write("3\n")


# ---- claiming


def _refuse_stores(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if (place / _DATABASE).exists():
            raise ConfigError(
                f"{place} is a store, and the bench works in a folder of its own",
                remedy="Name a new or an empty folder on the disk that is to be measured.",
                path=folder,
            )


def _locked(folder: Path, clean_stores: Callable[[Path], None]) -> tuple[int, bool, bool]:
    """The locked mark, whether a killed run was cleaned up, and whether that run had made the folder."""
    mark = folder / _MARK
    # A disk's own folder has lost+found.
    others = {entry.name for entry in folder.iterdir()} - {"lost+found"}
    if others and _MARK not in others:
        raise ConfigError(
            f"{folder} is not empty, and the bench works in a folder of its own",
            remedy="Name a new or an empty folder.",
            path=folder,
        )
    with named("open", mark):
        lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another `layerstore bench` is at work in {folder}",
                remedy="Wait for it: two at once would measure each other.",
                path=folder,
            ) from None
        if not mark.exists() or os.stat(mark).st_ino != os.fstat(lock).st_ino:
            raise ConfigError(f"another `layerstore bench` has just ended in {folder}", remedy="Try again.")
        work = folder / _WORK
        left = work.exists()
        for path in (mark, work) if left else (mark,):
            # What a stranger could have put here is neither opened as a store nor deleted.
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                raise ConfigError(f"{path} is not of a bench that you ran", remedy="Name another folder.", path=path)
        if left:
            _sweep(work, clean_stores)
        made = b'"made": true' in os.read(lock, 4096)
        os.ftruncate(lock, 0)
        os.lseek(lock, 0, os.SEEK_SET)
    except BaseException:
        if not others:
            mark.unlink(missing_ok=True)
        os.close(lock)
        raise
    return lock, left, made


def _sweep(work: Path, clean_stores: Callable[[Path], None]) -> None:
    """Remove all that a run made, mounts first."""
    problem: LayerstoreError | None = None
    try:
        clean_stores(work)
    except LayerstoreError as error:
        problem = error
    for _, mountpoint in reversed(mounts_below(work)):
        unmount(mountpoint, lazy=True)
    try:
        remove_tree(work)
    except KernelError as error:
        raise ConfigError(
            f"not all of {work} could be removed: {problem or error}",
            remedy="Remove it by hand, or run the bench there again, which tries once more.",
            path=work,
        ) from error
