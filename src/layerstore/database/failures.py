"""What SQLite's errors mean, in words. It names the call that failed, rarely why: then the kernel is asked."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from layerstore.errors import FULL, Damaged, KernelError, LayerstoreError

LONGEST = 504
"""The bytes that the path of a database may have, as SQLite is built everywhere (MAX_PATHNAME, and what it appends)."""

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TOLD = {
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_IOERR_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_CANTOPEN_ISDIR: errno.EISDIR,
    sqlite3.SQLITE_IOERR_CORRUPTFS: errno.EUCLEAN,
    sqlite3.SQLITE_READONLY_DBMOVED: errno.ENOENT,
}
"""The codes that leave no question."""

_WRITING = (
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
)
"""I/O errors that a full disk or a quota may be behind: SQLite tells these apart in a plain write only."""


def code_of(error: sqlite3.Error) -> int:
    """The extended result code; 0 if Python's module itself raised it."""
    return int(getattr(error, "sqlite_errorcode", 0))


def is_busy(error: sqlite3.Error) -> bool:
    """Was another connection in the way?"""
    return code_of(error) & 0xFF in BUSY


def explained(error: sqlite3.Error, path: Path, *, patience: float) -> LayerstoreError:
    """The error to raise for one of SQLite, about the database `path`. `patience`: the seconds that were waited."""
    code = code_of(error)
    kind = code & 0xFF
    if kind in _DAMAGED:
        return Damaged(
            f"the database {path} is damaged: {error}",
            remedy="`layerstore rescue` makes it anew of what lies beside the layers.",
            path=path,
        )
    if kind in BUSY:
        detail = f"another process has been writing for {patience:.0f} s"
        remedy = "Wait until it has ended, and try again."
        return KernelError("sqlite", errno.EBUSY, path=path, detail=detail, remedy=remedy)
    number, way = _reason(code, path)
    if number is None:
        return LayerstoreError(f"the database {path} cannot be used: {error}", remedy=way, path=path)
    name = str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")
    detail = f"{error}, {name}" if name else str(error)
    return KernelError("sqlite", number, path=path, detail=detail, remedy=way)


def refused(error: OSError, path: Path) -> KernelError:
    """The error to raise when the kernel did not open the database's file."""
    number = error.errno or errno.EIO
    return KernelError("open", number, path=path, remedy=_remedy(number, path))


def _reason(code: int, path: Path) -> tuple[int | None, str | None]:
    """The kernel's number for a result code, and what can be done."""
    number = _TOLD.get(code)
    if number is None:
        match code & 0xFF:
            case sqlite3.SQLITE_FULL:
                number = _of_writing(path) or errno.ENOSPC
            case sqlite3.SQLITE_IOERR:
                number = (_of_writing(path) if code in _WRITING else None) or errno.EIO
            case sqlite3.SQLITE_CANTOPEN:
                if path.is_dir():
                    return errno.EISDIR, None
                resolved = len(os.fsencode(os.path.realpath(path)))
                if resolved > LONGEST:
                    return errno.ENAMETOOLONG, (
                        f"It has {resolved} bytes, and SQLite names at most {LONGEST}: "
                        "choose a data-root with a shorter path, or bind this one to a shorter one (mount --bind)."
                    )
                number = _of_opening(path) or _of_writing(path)
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                number = _of_opening(path) or _of_writing(path) or errno.EROFS
    return number, None if number is None else _remedy(number, path)


def _of_opening(path: Path) -> int | None:
    """What the kernel says to opening the database, and the files that SQLite keeps beside it, for writing."""
    for place in (path.parent, path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        try:
            # By name alone: to close a descriptor that was opened for reading would drop SQLite's locks.
            os.close(os.open(place, os.O_PATH | os.O_CLOEXEC))
        except FileNotFoundError:
            if place in (path.parent, path):
                return errno.ENOENT
            continue
        except OSError as error:
            return error.errno
        if not os.access(place, os.R_OK | os.W_OK, effective_ids=True):
            return errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    return None


def _of_writing(path: Path) -> int | None:
    """What the kernel says to a new file with a page in it, which nobody ever sees."""
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(os.sysconf("SC_PAGE_SIZE")))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR) else _by_count(path)
    return None


def _by_count(path: Path) -> int | None:
    left = os.statvfs(path.parent)
    return errno.ENOSPC if left.f_bavail == 0 or 0 == left.f_favail < left.f_files else None


def _remedy(number: int, path: Path) -> str | None:
    """What can be done about the number, where it is more than can be said of it anywhere."""
    if number in FULL:
        cause = "Free some space on the filesystem of the data-root" if number == errno.ENOSPC else "Raise the quota"
        return f"{cause}: `layerstore rm`, `layerstore rmi` and `layerstore prune` need none themselves."
    match number:
        case errno.EACCES | errno.EPERM:
            return _about_owner(path)
        case errno.ENOENT:
            return "Somebody removed or renamed it: open the store again."
        case _:
            return None


def _about_owner(path: Path) -> str | None:
    """Who may use it, if that is somebody else."""
    for place in (path, path.parent):
        try:
            owner = os.stat(place).st_uid
        except OSError:
            continue
        if owner != os.geteuid():
            return f"It belongs to the user with the ID {owner}: run as that user."
    return "Its permissions, or those of a folder on its way, forbid it: see `namei -l` of its path."
