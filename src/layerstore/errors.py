"""Every error that a caller can meet.

One sentence says what failed, on which layer and path; a second, `remedy`, says what to do. Each derives from
`LayerstoreError`, so one `except` is enough, and keeps the `errno` where the kernel gave one. They are built where the
facts are known and never logged on the way up.
"""

from __future__ import annotations

import errno as numbers
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class LayerstoreError(Exception):
    """Something that layerstore could not do.

    `remedy` is what the user can do about it, `layer` and `path` what it happened to, `errno` the kernel's number.
    """

    usual_remedy: str | None = None
    """The remedy where whoever raises it names none."""

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        layer: str | None = None,
        path: str | bytes | os.PathLike[str] | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = self.usual_remedy if remedy is None else remedy
        self.layer = layer
        self.path = None if path is None else os.fsdecode(path)
        self.errno = errno

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n{self.remedy}"


class ConfigError(LayerstoreError):
    """daemon.json, an option or an argument has a value that cannot be used."""


class InvalidDigest(LayerstoreError):
    """A string that should be a digest is none."""

    def __init__(self, text: object) -> None:
        super().__init__(f"not a sha256 digest: {text!r}", remedy="A digest is sha256: and 64 hex digits.")


class InvalidReference(LayerstoreError):
    """A string that should name an image (`[host/]name[:tag]`) does not."""


FULL = (numbers.ENOSPC, numbers.EDQUOT)
"""What a call fails with for want of room."""

_ROOM = (
    "In a data-root, `layerstore prune --all` removes all that is not in use, `layerstore rm` and `layerstore rmi` "
    "what you name."
)
_REMEDIES = {
    numbers.ENOSPC: f"Free some space there, or inodes (df -i). {_ROOM}",
    numbers.EDQUOT: f"The quota there is used up: raise it, or free some space. {_ROOM}",
    numbers.EROFS: "The filesystem is mounted read-only: mount it writable, or see in the kernel's log why it is not.",
    numbers.EMFILE: "Too many files are open in this process: raise the limit (ulimit -n).",
    numbers.ENFILE: "Too many files are open on this machine: raise the sysctl fs.file-max.",
    numbers.ENAMETOOLONG: "A name may have 255 bytes, and a path 4095: take a shorter one.",
    numbers.ENOENT: "Look whether the path is right.",
    numbers.ENOTDIR: "Look whether the path is right: what is before its last / has to be a folder.",
    numbers.EISDIR: "It is a folder: name a file.",
    numbers.EEXIST: "Something else has that name: move it away, or take another name.",
    numbers.ENOTEMPTY: "The folder is not empty: move away what is in it, or take another name.",
    numbers.ELOOP: "Its symbolic links lead nowhere: name what they should lead to.",
    numbers.EXDEV: "The two are on different filesystems: name places on one.",
    numbers.EBADF: "It is not open for that: redirect it to something that is.",
    numbers.EFBIG: "The file would be larger than its limit (ulimit -f), or than the filesystem allows.",
    numbers.EIO: "The disk, or what stands for it, has failed: see the kernel's log (dmesg).",
    numbers.ENOMEM: "Memory ran out: free some, or raise the limit of this process or cgroup.",
    numbers.EBUSY: "Somebody uses it: see who (fuser -vm, or lsof), and try again.",
    numbers.ETXTBSY: "It is being executed: end that, and try again.",
    numbers.EAGAIN: "It is not ready: try again.",
    numbers.ESTALE: "The network filesystem has lost it: mount that again.",
    numbers.ENODEV: "The kernel or the filesystem there cannot do that: use ext4, xfs or btrfs on Linux 5.6 or later.",
    numbers.ENOSYS: "The kernel cannot do that: use Linux 5.6 or later.",
    numbers.EOPNOTSUPP: "The filesystem there cannot do that: use ext4, xfs or btrfs.",
}
_STORE = "layerstore.db"
_MISSING = "It belongs to a store, and is gone: `layerstore check` finds what else is missing, and what can be done."
_UNKNOWN = "The kernel's log (dmesg) may say more."
_REFUSED = "Run as the user to whom it belongs, usually root."
_ROOT_REFUSED = "root is refused, too: look for a flag (lsattr), a security module (dmesg), or a lack of capabilities."


def remedy_for(
    errno: int | None, *, elsewhere: bool = False, path: str | bytes | os.PathLike[str] | None = None
) -> str:
    """What can be done about an error of the kernel where whoever meets it knows nothing better.

    `path`: what it tells of. `elsewhere`: it came from what is written for the user, which has nothing to do with a
    data-root.
    """
    if errno == numbers.ENOENT and path is not None and not elsewhere and _is_in_store(os.fsdecode(path)):
        return _MISSING
    if elsewhere and errno in FULL:
        return "Free some space there, or write elsewhere."
    if errno in (numbers.EACCES, numbers.EPERM):
        return _ROOT_REFUSED if os.geteuid() == 0 else _REFUSED
    return _UNKNOWN if errno is None else _REMEDIES.get(errno, _UNKNOWN)


def _is_in_store(path: str) -> bool:
    """Does it lie in a data-root? Those are known by their database."""
    folder = os.path.dirname(path)
    while os.path.isabs(folder) and "\0" not in folder:
        if os.path.lexists(os.path.join(folder, _STORE)):
            return True
        if (above := os.path.dirname(folder)) == folder:
            break
        folder = above
    return False


class KernelError(LayerstoreError):
    """A system call failed. `call` is its name, `errno` its number; the message has path and the kernel's words."""

    def __init__(
        self,
        call: str,
        errno: int,
        *,
        path: str | bytes | os.PathLike[str] | None = None,
        detail: str | None = None,
        remedy: str | None = None,
        layer: str | None = None,
    ) -> None:
        where = "" if path is None else f" {os.fsdecode(path)}"
        words = os.strerror(errno) if detail is None else f"{os.strerror(errno)} ({detail})"
        remedy = remedy_for(errno, path=path) if remedy is None else remedy
        super().__init__(f"{call}{where}: {words}", remedy=remedy, layer=layer, path=path, errno=errno)
        self.call = call


@contextmanager
def named(call: str, path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """While inside, an `OSError` of Python becomes a `KernelError` that says which call it was, and on what."""
    try:
        yield
    except OSError as error:
        number = error.errno or numbers.EIO
        raise KernelError(call, number, path=file_of(error) or path) from error


def file_of(error: OSError) -> str | bytes | None:
    """The path that an `OSError` tells of, if it does: of a call on a descriptor, Python gives its number."""
    path: object = error.filename
    return os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else None


class DriverNotFound(LayerstoreError):
    """No storage driver of that name is installed, or it cannot be imported."""

    usual_remedy = "`pip list` shows what is installed: mend that package, or choose another driver."


class DriverNotSupported(LayerstoreError):
    """A storage driver cannot work here: wrong filesystem, missing kernel feature, no permission."""


class DriverFailed(LayerstoreError):
    """A storage driver did something that no driver should: its own defect, or a program of its that failed."""


class DriverMismatch(LayerstoreError):
    """The store was made with another driver than the one that was asked for."""


class DepthExceeded(LayerstoreError):
    """A stack would be deeper than the driver can mount."""


class NotFound(LayerstoreError):
    """No image, container or layer of that name."""

    usual_remedy = "`layerstore images` and `layerstore ps -a` show what there is."


class Ambiguous(LayerstoreError):
    """A short ID fits more than one object."""

    usual_remedy = "Give more digits."


class NameInUse(LayerstoreError):
    """The container name is taken."""


class InUse(LayerstoreError):
    """What is referenced cannot be removed. `holders` says by whom, `remedy` which commands would free it."""

    def __init__(self, message: str, *, holders: Sequence[str], remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.holders = tuple(holders)


class InvalidArchive(LayerstoreError):
    """An archive, or a layer's tar, is damaged, cut short, malformed, or reaches outside its root."""

    usual_remedy = "It is damaged, or was not made as such archives are: get it, or make it, again."


class DigestMismatch(InvalidArchive):
    """Content does not have the digest that it was announced with."""

    usual_remedy = "The archive is damaged or was altered: get it again."

    def __init__(
        self, what: str, *, expected: str, actual: str, layer: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(f"{what} has digest {actual}, not {expected} as announced", remedy=remedy, layer=layer)
        self.expected, self.actual = expected, actual


class LimitExceeded(InvalidArchive):
    """What comes in is larger than the configuration allows.

    `setting` is the key of daemon.json, `limit` what it says, `met` what was found; None where it is more, and nobody
    can say how much.
    """

    def __init__(self, what: str, *, setting: str, limit: int, met: int | None, unit: str = "bytes") -> None:
        found = f"more than {limit:,} {unit}" if met is None else f"{met:,} {unit}"
        super().__init__(
            f"{what} has {found}: {setting} is {limit:,}",
            remedy=f"If you trust where it comes from, raise {setting} in daemon.json; 0 is no limit.",
        )
        self.setting, self.limit, self.met = setting, limit, met


class UnsupportedMediaType(InvalidArchive):
    """A manifest names a kind of blob that layerstore does not know."""


class Damaged(LayerstoreError):
    """What is stored is no longer what was stored. `layer` and `path` say where."""

    usual_remedy = "`layerstore check` tells what is damaged; a layer is mended by loading its image again."


class CannotRepresent(LayerstoreError):
    """A file of a container cannot be put into a layer's tar (a socket, a name beginning with `.wh.`).

    Or an entry of a tar cannot be kept in the driver's form (in aufs', the whiteout of a name of more than 251 bytes).
    """


class CannotCopy(LayerstoreError):
    """A copy cannot land where it should: a folder on a file, a file in a folder that is not there."""


class ReadOnlyStore(LayerstoreError):
    """The data-root cannot be written to, and what was asked for would alter it."""


class StoreClosed(LayerstoreError):
    """The store was used after `close`."""

    usual_remedy = "Open it again."


class CannotRun(LayerstoreError):
    """A program cannot be started in a container. `code`: docker's exit code for it.

    125: what runs containers failed. 126: the program cannot be executed. 127: it is not there. `is_told`: what runs
    containers has said why on the standard error that the program was to have.
    """

    def __init__(self, message: str, *, code: int = 125, remedy: str | None = None, is_told: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.is_told = is_told


class CannotStart(CannotRun):
    """A program is not there (`code` 127), or cannot be executed (126): what execve(2) said."""

    def __init__(self, program: str, errno: int) -> None:
        missing = errno in (numbers.ENOENT, numbers.ENOTDIR)
        remedy = (
            "Look whether the program, and what its first line (#!) or its loader names, are there and in PATH."
            if missing
            else "Give it less: as a file, or on standard input."
            if errno == numbers.E2BIG
            else "Look whether it may be executed (chmod +x), and is made for this machine."
        )
        super().__init__(f"cannot execute {program}: {os.strerror(errno)}", code=127 if missing else 126, remedy=remedy)
        self.errno = errno


class RegistryError(LayerstoreError):
    """A registry, or what stands before it, did not do what was asked. `status`: HTTP's, if it answered."""

    def __init__(self, message: str, *, remedy: str | None = None, status: int | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Unauthorized(RegistryError):
    """A registry wants to know who asks, or does not know the name and password that it was told."""


class Denied(RegistryError):
    """A registry knows who asks, and does not allow it."""


class RateLimited(RegistryError):
    """A registry answers no more requests for now. `until`: when it will again, as Unix time, if it said so."""

    def __init__(
        self, message: str, *, until: float | None = None, remedy: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message, remedy=remedy, status=status)
        self.until = until


class Unreachable(RegistryError):
    """A registry cannot be reached, is silent, or breaks off."""


class CertificateError(Unreachable):
    """A registry cannot prove who it is, or wants a certificate of us."""
