"""Changes become a layer's tar, and with it a DiffID and a skeleton; a stored layer becomes its tar again; is it whole?

Per layer in Python, per file in C (pack.c, export.c, verify.c).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

from attrs import frozen

from layerstore.changes import Changes, compare_trees
from layerstore.digest import DiffID
from layerstore.driver import Dialect
from layerstore.errors import CannotRepresent, Damaged, KernelError, LayerstoreError
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.skeleton import SkeletonReader, SkeletonWriter
from layerstore.tar.unpack import DIALECTS

Write = Callable[[memoryview], object]
"""Takes the next bytes of a tar; they are valid only until it returns."""

_PIECE = 1 << 18
_TAKE = 1 << 18


@frozen
class Packed:
    """A tar that was made: its identity, its size, its entries, and what could not be put into it."""

    diff_id: DiffID
    size: int
    entries: int
    notices: tuple[str, ...]


class Level(IntEnum):
    """How closely `verify` looks; each level does what those before it do."""

    SIZES = lib.LS_VERIFY_SIZES
    """Type, size and time of each file: a few microseconds each."""
    ATTRIBUTES = lib.LS_VERIFY_ATTRIBUTES
    """Mode, owner, xattrs, links, marks, and that nothing else is there."""
    CONTENT = lib.LS_VERIFY_CONTENT
    """Every byte."""


@frozen
class Damage:
    """One path of a layer that is not as it was stored. `path` is absolute within the layer."""

    path: str
    what: str


def pack(changes: Changes, root: int, *, skeleton: Path | None = None, write: Write | None = None) -> Packed:
    """Make the tar of `changes`, read through `root`, a directory fd of the merged tree.

    Deterministic PAX: sorted, times in nanoseconds, all xattrs but the host's own. `skeleton` is written when the tree
    that is read is to be kept as the layer. Raises `CannotRepresent` for a name that begins with `.wh.` and for a
    device 0/0, `KernelError` when a file cannot be read or becomes shorter meanwhile.
    """
    raw = ffi.from_buffer(changes.raw)
    packer = lib.ls_pack_new(root, raw, len(changes.raw))
    if packer == ffi.NULL:
        raise MemoryError
    try:
        if skeleton is None:
            return _pack(packer, None, write)
        with SkeletonWriter(skeleton) as out:
            return _pack(packer, out, write)
    finally:
        lib.ls_pack_free(packer)


def _pack(packer: Any, skeleton: SkeletonWriter | None, write: Write | None) -> Packed:
    digest = hashlib.sha256()
    buffer = ffi.new("uint8_t[]", _PIECE)
    view = memoryview(ffi.buffer(buffer))
    size = 0
    while got := lib.ls_pack_read(packer, buffer, _PIECE):
        if got < 0:
            raise _pack_failure(packer)
        piece = view[:got]
        digest.update(piece)
        size += got
        if write is not None:
            write(piece)
        _take(packer, skeleton, _TAKE)
    _take(packer, skeleton, 0)
    if skeleton is not None:
        skeleton.close(_bytes(lib.ls_pack_index, packer))
    facts = ffi.new("struct ls_pack_result *")
    lib.ls_pack_facts(packer, facts)
    notices = _bytes(lib.ls_pack_notices, packer).split(b"\0")[:-1]
    return Packed(
        diff_id=DiffID("sha256:" + digest.hexdigest()),
        size=size,
        entries=facts.entries,
        notices=tuple(
            f"{kind.decode()}: /{os.fsdecode(path)}" for kind, path in zip(notices[::2], notices[1::2], strict=True)
        ),
    )


def _take(packer: Any, skeleton: SkeletonWriter | None, least: int) -> None:
    data = ffi.new("uint8_t **")
    length = lib.ls_pack_skeleton(packer, data)
    if length < least:
        return
    if skeleton is not None:
        skeleton.add(ffi.buffer(data[0], length))
    lib.ls_pack_taken(packer)


def _bytes(take: Any, owner: Any) -> bytes:
    data = ffi.new("uint8_t **")
    length = take(owner, data)
    return bytes(ffi.buffer(data[0], length)) if length else b""


def _pack_failure(packer: Any) -> LayerstoreError:
    failure = ffi.new("struct ls_failure *")
    lib.ls_pack_failure(packer, failure)
    what, path = ffi.string(failure.what).decode(), b"/" + ffi.string(failure.path)
    if failure.kind == lib.LS_FAIL_ARCHIVE:
        return CannotRepresent(
            f"{os.fsdecode(path)}: {what}", remedy="Rename or remove it in the container.", path=path
        )
    return KernelError(what, failure.code, path=path)


def pack_tree(root: int, write: Write) -> Packed:
    """Write the whole tree below the directory fd `root` as one tar, as `docker export` does."""
    return pack(compare_trees(root, None), root, write=write)


def export(skeleton: Path, tree: Path | int, write: Write, *, expected: DiffID) -> None:
    """Write the layer's tar, bit for bit as it came in.

    `tree` is the folder of its files, or a directory fd of a tree that shows them. Raises `Damaged`, with the path of
    the first file that is not as it was; what was written until then is worthless.
    """
    digest = hashlib.sha256()
    with SkeletonReader(skeleton) as reader, _Opened(tree) as tree_fd, _Opened(shadow_of(skeleton)) as shadow_fd:
        index = reader.index()
        exporter = lib.ls_export_new(tree_fd, shadow_fd, ffi.from_buffer(index), len(index))
        if exporter == ffi.NULL:
            raise MemoryError
        try:
            buffer = ffi.new("uint8_t[]", _PIECE)
            view = memoryview(ffi.buffer(buffer))
            for piece in reader.stream():
                if lib.ls_export_feed(exporter, ffi.from_buffer(piece), len(piece)):
                    raise MemoryError
                while got := lib.ls_export_read(exporter, buffer, _PIECE):
                    if got < 0 and tree_fd < 0:
                        raise Damaged(f"layer {expected}: the layer's folder is missing", remedy=_MEND, layer=expected)
                    if got < 0:
                        raise _export_failure(exporter, expected)
                    digest.update(view[:got])
                    write(view[:got])
            actual = DiffID("sha256:" + digest.hexdigest())
            if not lib.ls_export_complete(exporter) or actual != expected:
                raise Damaged(f"layer {expected}: the skeleton is damaged", remedy=_MEND, layer=expected)
        finally:
            lib.ls_export_free(exporter)


_MEND = "Load an image that has this layer again: what is damaged is unpacked anew."


def _export_failure(exporter: Any, layer: DiffID) -> LayerstoreError:
    failure = ffi.new("struct ls_failure *")
    lib.ls_export_failure(exporter, failure)
    what, path = ffi.string(failure.what).decode(), b"/" + ffi.string(failure.path)
    if failure.kind == lib.LS_FAIL_DAMAGED:
        return Damaged(f"layer {layer}: {os.fsdecode(path)}: {what}", remedy=_MEND, layer=layer, path=path)
    return KernelError(what, failure.code, path=path, layer=layer)


def verify(skeleton: Path, tree: Path | int, *, dialect: Dialect, level: Level) -> Iterator[Damage]:
    """What of a stored layer is not as it was when it was stored, by its skeleton's index.

    With `MERGED`, `tree` shows the layer on its parents, and only the layer's own entries are looked at.
    """
    try:
        with SkeletonReader(skeleton) as reader:
            index = reader.index()
    except Damaged as damaged:
        yield Damage("", damaged.message)
        return
    with _Opened(tree) as tree_fd:
        if tree_fd < 0:
            yield Damage("/", "the layer's folder is missing")
            return
        verifier = lib.ls_verify_new(tree_fd, DIALECTS[dialect], int(level), ffi.from_buffer(index), len(index))
        if verifier == ffi.NULL:
            raise MemoryError
        try:
            path, what, code = ffi.new("char **"), ffi.new("char **"), ffi.new("int *")
            while (found := lib.ls_verify_next(verifier, path, what, code)) > 0:
                words = ffi.string(what[0]).decode()
                if code[0]:
                    words += f" ({os.strerror(code[0])})"
                yield Damage("/" + os.fsdecode(ffi.string(path[0])), words)
            if found < 0:
                raise KernelError(ffi.string(what[0]).decode(), code[0], path=b"/" + ffi.string(path[0]))
        finally:
            lib.ls_verify_free(verifier)


def shadow_of(skeleton: Path) -> Path:
    """The folder beside a skeleton, for files that the tar itself replaces. Most layers have none."""
    return skeleton.with_name(skeleton.name + ".shadowed")


class _Opened:
    """A directory fd for a path, or the fd itself; -1 when there is no such directory."""

    def __init__(self, where: Path | int) -> None:
        self._where = where
        self._fd = -1

    def __enter__(self) -> int:
        if isinstance(self._where, int):
            return self._where
        try:
            self._fd = os.open(self._where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise KernelError("open", error.errno or errno.EIO, path=self._where) from None
        return self._fd

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
