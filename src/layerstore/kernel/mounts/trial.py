"""Folders to try something out in: what a filesystem can do, whether a mount works. Gone when the trial is over.

A process that is killed meanwhile leaves its folder, which the next trial beside it removes, or `sweep`. A trial locks
its folder with flock, and the kernel drops the lock with the process: what can be locked belongs to the dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore.errors import DriverNotSupported, KernelError
from layerstore.kernel.files import remove_tree
from layerstore.kernel.files.descriptors import write_private
from layerstore.kernel.mounts.mounting import unmount
from layerstore.kernel.mounts.table import mounts_below

__all__ = ["nearest_folder", "remember", "sweep", "trial_folder"]

_PREFIX = ".layerstore-probe-"


def nearest_folder(home: Path) -> Path:
    """`home`, or the nearest folder above it that there is: where what goes for it is tried."""
    for folder in (home, *home.parents):
        if os.path.isdir(folder):  # which is false, too, where one may not look
            return folder
    raise DriverNotSupported(f"{home}: no such directory, nor any above it")


def remember(file: Path, answer: object) -> None:
    """Write down what a trial has found, as JSON, whole or not at all: what cannot be is asked again."""
    try:
        with trial_folder(file.parent) as fresh:
            write_private(fresh / file.name, json.dumps(answer))
            (fresh / file.name).replace(file)
    except (OSError, KernelError):
        # Then the next trial removes what is left of this one.
        with suppress(OSError):
            file.unlink(missing_ok=True)


@contextmanager
def trial_folder(parent: Path) -> Iterator[Path]:
    """An empty folder, for as long as the context lasts. Raises `OSError` if `parent` cannot be written to."""
    from tempfile import mkdtemp

    sweep(parent)
    while True:
        place = Path(mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # swept before it was locked
        try:
            with suppress(OSError):  # a filesystem without locks: then nobody sweeps there
                fcntl.flock(fd, fcntl.LOCK_EX)
            if place.exists():
                break
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    try:
        yield place
    finally:
        try:
            remove_tree(place)
        finally:
            os.close(fd)


def sweep(parent: Path) -> None:
    """Remove what the dead left of their trials in `parent`. What cannot be removed stays, and is no error."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
    except OSError:
        return
    for name in names:
        with suppress(OSError, KernelError):
            _sweep_one(parent / name)


def _sweep_one(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) != 0o700:
            return  # where others may write, too, anything may have this name
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for _, mountpoint in reversed(mounts_below(place)):
            unmount(mountpoint, lazy=True)
        remove_tree(place)
    finally:
        os.close(fd)
