"""What a layer says of one of its files on disk, by a descriptor of it: shown.h."""

from __future__ import annotations

import errno
import os

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.failure import kernel_error, new_failure
from layerstore.kernel.files.numbers import number_in
from layerstore.values import frozen

__all__ = ["Shown", "redirect_of", "shown", "xattrs_in", "xattrs_of"]

_PATH_MAX = 4096
_ROOM = 1 << 16
_NONE = (errno.ENODATA, errno.EOPNOTSUPP)


@frozen
class Shown:
    """What a layer says of a file, and the marks of overlay that it has."""

    mode: int
    """With its type."""
    uid: int
    gid: int
    size: int
    mtime_ns: int
    device: tuple[int, int]
    inode: int
    whiteout: bool
    """It is nothing, and hides what the layers below have there."""
    opaque: bool
    """A folder that hides what the layers below have in it."""
    whiteouts: bool
    """A folder in which empty files with an xattr may be whiteouts."""
    metacopy: bool
    """A file of which only the attributes are here, and the bytes in a layer below."""


def shown(fd: int, *, overlay: bool, path: str) -> Shown:
    """What `fd` names (O_PATH too). `overlay`: with overlay's marks. `path` is for the error, a `KernelError`."""
    found, failure = ffi.new("struct ls_shown *"), new_failure()
    if lib.ls_shown_facts(fd, overlay, found, failure):
        raise kernel_error(failure, os.fsencode(path))
    marks: int = found.marks
    return Shown(
        found.mode,
        found.uid,
        found.gid,
        found.size,
        found.mtime * 1_000_000_000 + found.mtime_ns,
        (found.major, found.minor),
        found.inode,
        bool(marks & lib.LS_SHOWN_WHITEOUT),
        bool(marks & lib.LS_SHOWN_OPAQUE),
        bool(marks & lib.LS_SHOWN_WHITEOUTS),
        bool(marks & lib.LS_SHOWN_METACOPY),
    )


def redirect_of(fd: int, *, path: str) -> bytes | None:
    """By which name the layers below have what overlay has renamed: one without a slash is in the same folder."""
    text = ffi.new("uint8_t[]", _PATH_MAX)
    size = lib.ls_shown_redirect(fd, text, _PATH_MAX)
    if size < 0:
        if -size in _NONE:
            return None
        raise KernelError("getxattr", -size, path=path)
    return bytes(ffi.buffer(text, size))


def xattrs_of(fd: int, *, overlay: bool, path: str) -> dict[str, bytes]:
    """The extended attributes, by their names in the layer. `overlay`: they lie there as overlay escapes them."""
    room = _ROOM
    while True:
        text, failure = ffi.new("uint8_t[]", room), new_failure()
        size = lib.ls_shown_xattrs(fd, overlay, text, room, failure)
        if size < 0:
            raise kernel_error(failure, os.fsencode(path))
        if size <= room:
            return xattrs_in(bytes(ffi.buffer(text, size)))
        room = size


def xattrs_in(text: bytes) -> dict[str, bytes]:
    """The extended attributes in the form in which C has them: see xattrs.h."""
    found, at = {}, 0
    while at < len(text):
        name_length, at = number_in(text, at)
        value_length, at = number_in(text, at)
        end = at + name_length
        found[os.fsdecode(text[at:end])] = text[end : end + value_length]
        at = end + value_length
    return found
