"""Can erofs work in this folder? Found out by doing it: an empty index, and overlay on it, mounted and gone again."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from layerstore.driver import Backing, CopyOnWrite, Mount
from layerstore.errors import DriverNotSupported, KernelError
from layerstore.indexes import write_index
from layerstore.kernel import files
from layerstore.kernel.files import quota
from layerstore.kernel.mounts import detached
from layerstore.kernel.mounts.trial import nearest_folder, trial_folder
from layerstore.kernel.namespaces import is_within
from layerstore_erofs.settings import MAX_DEPTH, Settings

_OTHER = "Use the driver overlay2."
_NEWER = f"It needs Linux 6.12 or later, with CONFIG_EROFS_FS, EROFS_FS_XATTR and EROFS_FS_BACKED_BY_FILE. {_OTHER}"


def probe(home: Path, options: Settings) -> Backing:
    """See `StorageDriver.probe`."""
    folder = nearest_folder(home)
    if is_within() or os.geteuid() != 0:
        raise DriverNotSupported("erofs cannot be mounted without root", remedy=_OTHER)
    refusal = quota.refusal(folder)
    if options.size is not None and refusal is not None:
        raise DriverNotSupported(f"erofs.size: {refusal[0]} ({folder})", remedy=refusal[1])
    try:
        with trial_folder(folder) as place:
            _try(place)
            shared = files.can_reflink(place)
    except OSError as error:
        raise DriverNotSupported(
            f"cannot write to {folder}: {os.strerror(error.errno or errno.EIO)}",
            remedy="Put the data-root on ext4, xfs or btrfs, where root may write.",
            errno=error.errno,
        ) from None
    kind = files.filesystem_type(folder)
    if options.dedup and (why := _no_sharing(kind, shared=shared)) is not None:
        raise DriverNotSupported(
            f"erofs.dedup: {why} ({folder})", remedy="Put the data-root on xfs, or leave the option out."
        )
    return Backing(
        filesystem=kind,
        copy_on_write=CopyOnWrite.FILE,
        quota=refusal is None,
        notes=(
            ("Backing Filesystem", kind),
            ("Layers", "tars, mounted by an index"),
            ("Reflinks", str(shared).lower()),
            ("Dedup", str(options.dedup).lower()),
            ("Max depth", str(MAX_DEPTH)),
        ),
    )


def _no_sharing(kind: str, *, shared: bool) -> str | None:
    """Why nothing is gained by content that is kept once; None if something is."""
    if not shared:
        return f"{kind} shares no blocks between files"
    if kind == "btrfs":
        return "btrfs keeps an extent whole while any block of it is used, so hardly anything is given back"
    return None


def _try(place: Path) -> None:
    index, low, upper, work = (place / name for name in ("index", "low", "upper", "work"))
    for part in (low, upper, work):
        part.mkdir()
    write_index((), index)
    below = Mount("erofs", str(index), (), read_only=True, target=str(low))
    try:
        with detached([Mount("erofs", str(index), (), read_only=True)]):
            pass
    except KernelError as error:
        raise DriverNotSupported(
            f"this kernel mounts no file as erofs: {error.message}", remedy=_NEWER, errno=error.errno
        ) from None
    folders = (("lowerdir+", str(low)), ("upperdir", str(upper)), ("workdir", str(work)))
    try:
        with detached([below, Mount("overlay", "overlay", (*folders, ("index", "off"), ("volatile", None)))]) as tree:
            os.mknod("file", stat.S_IFREG | 0o600, dir_fd=tree)
    except (KernelError, OSError) as error:
        raise DriverNotSupported(
            f"overlay does not work on erofs in {place.parent}: {error}", remedy=_OTHER, errno=error.errno
        ) from None
