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
        self.remedy = remedy
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


_FULL = {
    numbers.ENOSPC: "Free some space on the filesystem of the data-root.",
    numbers.EDQUOT: "A quota of the data-root's filesystem is used up: raise it or free some space.",
}
"""What to do where whoever builds the error knows nothing better: any call that writes may end so."""


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
        remedy = _FULL.get(errno) if remedy is None else remedy
        super().__init__(f"{call}{where}: {words}", remedy=remedy, layer=layer, path=path, errno=errno)
        self.call = call


@contextmanager
def named(call: str, path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """While inside, an `OSError` of Python becomes a `KernelError` that says which call it was, and on what."""
    try:
        yield
    except OSError as error:
        number = error.errno or numbers.EIO
        remedy = None
        if number in (numbers.EACCES, numbers.EPERM) and os.geteuid() != 0:
            remedy = "A data-root belongs to whoever made it, usually root: run as that user."
        raise KernelError(call, number, path=error.filename or path, remedy=remedy) from error


class DriverNotFound(LayerstoreError):
    """No storage driver of that name is installed, or it cannot be imported."""


class DriverNotSupported(LayerstoreError):
    """A storage driver cannot work here: wrong filesystem, missing kernel feature, no permission."""


class DriverMismatch(LayerstoreError):
    """The store was made with another driver than the one that was asked for."""


class DepthExceeded(LayerstoreError):
    """A stack would be deeper than the driver can mount."""


class NotFound(LayerstoreError):
    """No image, container or layer of that name."""


class Ambiguous(LayerstoreError):
    """A short ID fits more than one object."""


class NameInUse(LayerstoreError):
    """The container name is taken."""


class InUse(LayerstoreError):
    """What is referenced cannot be removed. `holders` says by whom, `remedy` which commands would free it."""

    def __init__(self, message: str, *, holders: Sequence[str], remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.holders = tuple(holders)


class InvalidArchive(LayerstoreError):
    """An archive, or a layer's tar, is damaged, cut short, malformed, or reaches outside its root."""


class DigestMismatch(InvalidArchive):
    """Content does not have the digest that it was announced with."""

    def __init__(self, what: str, *, expected: str, actual: str, layer: str | None = None) -> None:
        super().__init__(
            f"{what} has digest {actual}, not {expected} as announced",
            remedy="The archive is damaged or was altered: get it again.",
            layer=layer,
        )
        self.expected, self.actual = expected, actual


class UnsupportedMediaType(InvalidArchive):
    """A manifest names a kind of blob that layerstore does not know."""


class Damaged(LayerstoreError):
    """What is stored is no longer what was stored. `layer` and `path` say where."""


class CannotRepresent(LayerstoreError):
    """A file of a container cannot be put into a layer's tar (a socket, a name beginning with `.wh.`).

    Or an entry of a tar cannot be kept in the driver's form (in aufs', the whiteout of a name of more than 251 bytes).
    """


class CannotCopy(LayerstoreError):
    """A copy cannot land where it should: a folder on a file, a file in a folder that is not there."""


class StoreClosed(LayerstoreError):
    """The store was used after `close`."""
