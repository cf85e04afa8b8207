"""Can btrfs work in this folder? Found out by doing it: subvolumes are made, asked about and destroyed again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerstore.driver import Backing, CopyOnWrite
from layerstore.errors import DriverNotSupported, KernelError
from layerstore.kernel import btrfs, files
from layerstore.kernel.mounts.trial import nearest_folder, trial_folder
from layerstore_btrfs.settings import Settings

SUBVOLUMES = "subvolumes"
"""In the home: the layers, as docker has them."""

_HOW = (
    "Make one: `mkfs.btrfs` on a disk, or on a file (`truncate -s 100G layers.img`, `mkfs.btrfs layers.img`, "
    "`mount -o loop layers.img DIR`); and put the data-root there."
)
_PRIVILEGE = "Reading the trees of a btrfs needs root (CAP_SYS_ADMIN), not that of a user namespace: use sudo."


def probe(home: Path, options: Settings) -> Backing:
    """See `StorageDriver.probe`."""
    folder = nearest_folder(home)
    filesystem = files.filesystem_type(folder)
    if filesystem != "btrfs":
        raise DriverNotSupported(f"{folder} is on {filesystem}, not on a btrfs", remedy=_HOW)
    if (home / SUBVOLUMES).is_dir():
        # There are layers: what is left to be found out is whether this process may ask.
        with _explained(home):
            return _backing(btrfs.quota_state(home))
    with ExitStack() as after:
        try:
            place = after.enter_context(trial_folder(folder))
        except OSError as error:
            raise DriverNotSupported(
                f"cannot write to {folder}: {os.strerror(error.errno or errno.EIO)}",
                remedy=_PRIVILEGE if os.geteuid() != 0 else None,
                errno=error.errno,
            ) from None
        with _explained(folder):
            btrfs.create(place / "made")
            state = btrfs.quota_state(place)
            btrfs.snapshot(place / "made", place / "shot", read_only=True)
    return _backing(state)


def _backing(state: btrfs.QuotaState) -> Backing:
    return Backing(
        filesystem="btrfs",
        copy_on_write=CopyOnWrite.BLOCK,
        quota=True,
        notes=(
            ("Backing Filesystem", "btrfs"),
            ("Supports d_type", "true"),
            ("Native Diff", "true"),
            ("Quota", state.value),
        ),
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except KernelError as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise DriverNotSupported(
            f"btrfs cannot be used in {folder}: {error.message}",
            remedy=_PRIVILEGE if denied else error.remedy,
            errno=error.errno,
        ) from None
