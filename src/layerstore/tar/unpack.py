"""A layer's tar becomes files, its DiffID and its skeleton, in one pass.

The stream is hashed and parsed in the calling thread and files are written in others; all that is done per entry is C
(engine.h). Nothing is synced here, and nothing of the tar can act outside `tree`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from layerstore.digest import DiffID
from layerstore.driver import Dialect
from layerstore.errors import CannotRepresent, DigestMismatch, InvalidArchive, KernelError, LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.skeleton import SkeletonWriter

DIALECTS = {
    Dialect.OVERLAY: lib.LS_DIALECT_OVERLAY,
    Dialect.AUFS: lib.LS_DIALECT_AUFS,
    Dialect.MERGED: lib.LS_DIALECT_MERGED,
}
_TAKE = 1 << 18
_REMEDIES = {
    errno.ENOSPC: "Free some space on the filesystem of the data-root, then try again.",
    errno.EDQUOT: "The quota of the data-root is used up: raise it or free some space.",
    errno.EPERM: "Run as root: files of other owners and devices cannot be made otherwise.",
    errno.EOPNOTSUPP: "The filesystem of the data-root cannot keep extended attributes: use ext4, xfs or btrfs.",
}

# ext4 says that there is no space when the xattrs of one file do not fit into its block.
_TOO_LARGE = (errno.ENOSPC, errno.E2BIG, errno.ERANGE)
_LARGE_XATTR = (
    "Unless the disk is full: the extended attributes of this file are larger than the filesystem of the data-root "
    "keeps (ext4: 4 KiB a file). Use xfs or btrfs."
)


class Readable(Protocol):
    """Where a tar comes from: `io.RawIOBase.readinto`. 0 is the end."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


@frozen
class Unpacked:
    """What unpacking a layer's tar found out.

    `implied` are the directories that the tar needs but does not list: their mode, owner and times are those of the
    layers below. See implied.py.
    `needs_parents`: a hard link leads to what no earlier entry has made, so this has to be unpacked again with `below`,
    or as `bottom`. `notices` are things of the tar that no filesystem can hold.
    """

    diff_id: DiffID
    size: int
    entries: int
    root_opaque: bool
    implied: tuple[str, ...]
    needs_parents: bool
    notices: tuple[str, ...]


def unpack(
    stream: Readable,
    tree: Path | int,
    *,
    dialect: Dialect,
    skeleton: Path,
    expected: DiffID | None = None,
    below: int | None = None,
    bottom: bool = False,
    threads: int = 2,
    progress: Callable[[int], object] | None = None,
) -> Unpacked:
    """Unpack the tar that `stream` gives into `tree`, and write its skeleton to the new file `skeleton`.

    `tree` is a folder, or a directory fd: with `MERGED`, that of a writable mount, which then changes as if a program
    had changed it.

    `below` is a directory fd of the parents' merged tree. It may be left out for drivers with independent layers; for
    `MERGED` it is the tree itself (and left out for a bottom layer). `bottom` says that there are no parents. Files
    that the tar replaces by later entries of the same name go to `<skeleton>.shadowed/`. `progress` is told the bytes
    of the tar as they come.

    Raises `InvalidArchive` (malformed, cut short, leads outside), `DigestMismatch` (not `expected`), `CannotRepresent`
    (a mark that the dialect has no room for), `KernelError` (no space, no permission). What was made until then is
    left for the caller to discard.
    """
    tree_fd = os.dup(tree) if isinstance(tree, int) else os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    unpacker = ffi.NULL
    writers: list[threading.Thread] = []
    try:
        nothing = lib.LS_BELOW_NOTHING if bottom else lib.LS_BELOW_UNKNOWN
        unpacker = lib.ls_unpack_new(
            tree_fd, nothing if below is None else below, DIALECTS[dialect], os.fsencode(skeleton) + b".shadowed"
        )
        if unpacker == ffi.NULL:
            raise MemoryError
        for _ in range(max(threads, 1)):
            writer = threading.Thread(target=lib.ls_unpack_write_files, args=(unpacker,))
            writer.start()
            writers.append(writer)
        with SkeletonWriter(skeleton) as out:
            diff_id, size = _feed(stream, unpacker, out, progress)
            if expected is not None and diff_id != expected:
                raise DigestMismatch("the layer", expected=expected, actual=diff_id, layer=expected)
            if lib.ls_unpack_finish(unpacker):
                raise _failure(unpacker)
            out.add(_taken(lib.ls_unpack_skeleton, unpacker))
            out.close(_taken(lib.ls_unpack_index, unpacker))
        facts = ffi.new("struct ls_unpack_result *")
        lib.ls_unpack_facts(unpacker, facts)
        return Unpacked(
            diff_id=diff_id,
            size=size,
            entries=facts.entries,
            root_opaque=bool(facts.root_opaque),
            implied=_strings(_taken(lib.ls_unpack_implied, unpacker)),
            needs_parents=bool(facts.needs_parents),
            notices=_pairs(_strings(_taken(lib.ls_unpack_notices, unpacker))),
        )
    finally:
        if unpacker != ffi.NULL:
            lib.ls_unpack_stop(unpacker)
            for writer in writers:
                writer.join()
            lib.ls_unpack_free(unpacker)
        os.close(tree_fd)


def _feed(
    stream: Readable, unpacker: Any, out: SkeletonWriter, progress: Callable[[int], object] | None
) -> tuple[DiffID, int]:
    """Read, hash and parse to the end of the stream."""
    digest = hashlib.sha256()
    size = 0
    last = False
    while not last:
        chunk = lib.ls_unpack_chunk(unpacker)
        if chunk == ffi.NULL:
            raise _failure(unpacker)
        view = memoryview(ffi.buffer(chunk, lib.LS_CHUNK))
        filled = _fill(stream, view)
        last = filled < lib.LS_CHUNK
        digest.update(view[:filled])
        size += filled
        if lib.ls_unpack_feed(unpacker, filled, last):
            raise _failure(unpacker)
        if lib.ls_unpack_skeleton(unpacker, ffi.new("uint8_t **")) >= _TAKE:
            out.add(_taken(lib.ls_unpack_skeleton, unpacker))
            lib.ls_unpack_taken(unpacker)
        if progress is not None:
            progress(filled)
    return DiffID("sha256:" + digest.hexdigest()), size


def _fill(stream: Readable, view: memoryview) -> int:
    """Fill `view`; less only at the end of the stream."""
    filled = 0
    while filled < len(view):
        got = stream.readinto(view[filled:])
        if not got:
            break
        filled += got
    return filled


def _taken(take: Any, unpacker: Any) -> bytes:
    data = ffi.new("uint8_t **")
    length = take(unpacker, data)
    return bytes(ffi.buffer(data[0], length)) if length else b""


def _strings(text: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(one) for one in text.split(b"\0")[:-1])


def _pairs(strings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{kind}: /{path}" for kind, path in zip(strings[::2], strings[1::2], strict=True))


def _failure(unpacker: Any) -> LayerstoreError:
    failure = ffi.new("struct ls_failure *")
    lib.ls_unpack_failure(unpacker, failure)
    if failure.kind == 0:
        return InvalidArchive("unpacking was stopped")
    what, path = ffi.string(failure.what).decode(), ffi.string(failure.path)
    if failure.kind == lib.LS_FAIL_ARCHIVE:
        where = f"entry {os.fsdecode(path)!r}: " if path else ""
        return InvalidArchive(
            f"{where}{what}", remedy="The archive is damaged or malicious: get it from its source again.", path=path
        )
    if failure.kind == lib.LS_FAIL_DIALECT:
        return CannotRepresent(
            f"/{os.fsdecode(path)}: {what}", remedy="Use a store with another storage driver.", path=b"/" + path
        )
    too_large = what == "setxattr" and failure.code in _TOO_LARGE
    return KernelError(
        what, failure.code, path=b"/" + path, remedy=_LARGE_XATTR if too_large else _REMEDIES.get(failure.code)
    )
