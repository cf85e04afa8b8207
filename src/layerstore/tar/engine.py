"""What unpacking, packing, exporting and verifying share on their way into C and back (unpack.h): the trees that they
are given, what a job has to hand out, and the error that says why it failed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from layerstore.digest import DiffID
from layerstore.errors import CannotRepresent, Damaged, InvalidArchive, KernelError, LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.descriptors import FOLDER, opened

MEND = "Load an image that has this layer again: what is damaged is unpacked anew."
"""The remedy for a damaged layer."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

_REMEDIES = {
    errno.EPERM: "Run as root: files of other owners and devices cannot be made otherwise.",
    errno.EOPNOTSUPP: "The filesystem of the data-root cannot keep extended attributes: use ext4, xfs or btrfs.",
}

# ext4 says that there is no space when the xattrs of one file do not fit into its block.
_TOO_LARGE = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_LARGE_XATTR = (
    "Unless the disk is full: the extended attributes of this file are larger than the filesystem of the data-root "
    "keeps (ext4: 4 KiB a file). Use xfs or btrfs."
)


@contextmanager
def opened_tree(tree: Path | int) -> Iterator[int]:
    """A directory descriptor for a folder, or the descriptor itself, which stays open."""
    if isinstance(tree, int):
        yield tree
        return
    with opened(tree, FOLDER | os.O_NOFOLLOW) as descriptor:
        yield descriptor


@contextmanager
def opened_if_there(tree: Path | int) -> Iterator[int]:
    """The same; -1 where there is no such folder."""
    with ExitStack() as undo:
        try:
            descriptor = undo.enter_context(opened_tree(tree))
        except KernelError as error:
            if error.errno not in _ABSENT:
                raise
            descriptor = -1
        yield descriptor


def taken(take: Any, job: Any) -> bytes:
    """A copy of what `take` (`lib.ls_unpack_index` and its like) has of `job`."""
    data = ffi.new("uint8_t **")
    length = take(job, data)
    return bytes(ffi.buffer(data[0], length)) if length else b""


def strings(text: bytes) -> list[bytes]:
    """The strings of a list in which each ends with NUL."""
    return text.split(b"\0")[:-1]


def notices(text: bytes) -> tuple[str, ...]:
    """Pairs of such strings, a kind and a path within the layer, as `Unpacked` and `Packed` have them."""
    pairs = strings(text)
    return tuple(f"{kind.decode()}: /{os.fsdecode(path)}" for kind, path in zip(pairs[::2], pairs[1::2], strict=True))


def failure_of(tell: Any, job: Any, layer: DiffID | None = None) -> LayerstoreError:
    """The error that `tell` (`lib.ls_unpack_failure` and its like) has of `job`; `layer` is what it was about."""
    noted = ffi.new("struct ls_failure *")
    tell(job, noted)
    if noted.kind == 0:
        return LayerstoreError("the work on a layer's tar was stopped", layer=layer)
    error = _error(noted.kind, noted.code, ffi.string(noted.what).decode(), ffi.string(noted.path))
    if layer is not None:
        error.layer = layer
        error.message = f"layer {layer}: {error.message}"
    return error


def no_memory() -> KernelError:
    """The error for a job that could not begin."""
    return call_failed("malloc", errno.ENOMEM)


@contextmanager
def memory_told() -> Iterator[None]:
    """While inside, memory that Python itself cannot get is told as that which C cannot get, in words."""
    try:
        yield
    except MemoryError:
        raise no_memory() from None


def call_failed(call: str, number: int, path: str | bytes | os.PathLike[str] | None = None) -> KernelError:
    """The error for a system call that failed on `path`, with what can be done about it."""
    too_large = call == "setxattr" and number in _TOO_LARGE
    return KernelError(call, number, path=path, remedy=_LARGE_XATTR if too_large else _REMEDIES.get(number))


def _error(kind: int, number: int, words: str, path: bytes) -> LayerstoreError:
    absolute = path if path.startswith(b"/") else b"/" + path
    shown = os.fsdecode(absolute)
    if kind == lib.LS_FAIL_ARCHIVE:
        where = f"entry {os.fsdecode(path)!r}: " if path else ""
        remedy = "The archive is damaged or malicious: get it from its source again."
        return InvalidArchive(f"{where}{words}", remedy=remedy, path=path)
    if kind == lib.LS_FAIL_DIALECT:
        remedy = "Use a store with another storage driver."
        return CannotRepresent(f"{shown}: {words}", remedy=remedy, path=absolute)
    if kind == lib.LS_FAIL_TAR:
        remedy = "Rename or remove it in the container."
        return CannotRepresent(f"{shown}: {words}", remedy=remedy, path=absolute)
    if kind == lib.LS_FAIL_DAMAGED:
        where = f"{shown}: " if path else ""
        return Damaged(f"{where}{words}", remedy=MEND, path=absolute)
    return call_failed(words, number, absolute if path or words != "malloc" else None)
