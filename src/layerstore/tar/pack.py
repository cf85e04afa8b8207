"""Changes become a layer's tar, and with it a DiffID and a skeleton; a stored layer becomes its tar again; is it whole?

Per layer in Python, per file in C (pack.c, export.c, verify.c).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from typing import Any

from layerstore.changes import Changes, compare_trees
from layerstore.digest import DiffID, Digest
from layerstore.driver import Dialect
from layerstore.errors import Damaged
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.engine import MEND, failure_of, memory_told, no_memory, notices, opened_if_there, taken
from layerstore.tar.skeleton import SkeletonReader, SkeletonWriter, shadow_of
from layerstore.tar.unpack import DIALECTS
from layerstore.values import frozen

Write = Callable[[memoryview], object]
"""Takes the next bytes of a tar, which are valid only until it returns. What it raises goes through to the caller."""

_PIECE = 1 << 18
_TAKE = 1 << 18


@frozen
class Packed:
    """A tar that was made.

    `diff_id` is its digest and `size` its length in bytes. `entries` is the number of entries, whiteouts among them.
    `notices` are things of the tree that could not be put into it, each as "what: /path".
    """

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
    """One thing of a layer that is not as it was stored.

    `path` is absolute within the layer; it is empty for the skeleton. `what` says in words what is wrong, with those of
    the kernel in brackets where a call failed.
    """

    path: str
    what: str


def pack(
    changes: Changes,
    root: int,
    *,
    skeleton: Path | None = None,
    write: Write | None = None,
    latest: int | None = None,
) -> Packed:
    """Make the tar of `changes`, read through `root`, a directory descriptor of the merged tree.

    It is deterministic PAX: sorted, times in nanoseconds, all xattrs but the host's own. `write` is given the tar as it
    is made; without it, only the digest is worked out. `skeleton` is a new file, written when the tree that is read is
    to be kept as the layer; it is whole or not there. `latest`, in ns since the epoch: what was modified later has this
    time in the tar.

    Raises `CannotRepresent` for a name that begins with `.wh.` and for a device 0/0, `KernelError` when a file cannot
    be read or becomes shorter meanwhile, and when there is no memory. What was written until then is worthless.
    """
    with memory_told(), ExitStack() as undo:
        packer = lib.ls_pack_new(root, ffi.from_buffer(changes.raw), len(changes.raw))
        if packer == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_pack_free, packer)
        if latest is not None:
            lib.ls_pack_clamp(packer, *divmod(latest, 10**9))
        out = None if skeleton is None else undo.enter_context(SkeletonWriter(skeleton))
        return _pack(packer, out, write)


def _pack(packer: Any, skeleton: SkeletonWriter | None, write: Write | None) -> Packed:
    digest = hashlib.sha256()
    buffer = ffi.new("uint8_t[]", _PIECE)
    view = memoryview(ffi.buffer(buffer))
    size = 0
    while got := lib.ls_pack_read(packer, buffer, _PIECE):
        if got < 0:
            raise failure_of(lib.ls_pack_failure, packer)
        piece = view[:got]
        digest.update(piece)
        size += got
        if write is not None:
            write(piece)
        _take(packer, skeleton, _TAKE)
    _take(packer, skeleton, 0)
    facts = ffi.new("struct ls_pack_result *")
    lib.ls_pack_facts(packer, facts)
    packed = Packed(
        diff_id=DiffID("sha256:" + digest.hexdigest()),
        size=size,
        entries=facts.entries,
        notices=notices(taken(lib.ls_pack_notices, packer)),
    )
    if skeleton is not None:
        skeleton.close(taken(lib.ls_pack_index, packer))
    return packed


def _take(packer: Any, skeleton: SkeletonWriter | None, least: int) -> None:
    data = ffi.new("uint8_t **")
    length = lib.ls_pack_skeleton(packer, data)
    if length < least:
        return
    if skeleton is not None:
        skeleton.add(ffi.buffer(data[0], length))
    lib.ls_pack_taken(packer)


def pack_tree(root: int, write: Write) -> Packed:
    """Write the whole tree below the directory descriptor `root` as one tar, as `docker export` does.

    It is given to `write` and raises as `pack` does.
    """
    return pack(compare_trees(root, None), root, write=write)


def export(
    skeleton: Path,
    tree: Path | int,
    write: Write,
    *,
    expected: DiffID | None,
    index: bytes | None = None,
    shadow: Path | None = None,
) -> DiffID:
    """Write the layer's tar, bit for bit as it came in; its digest.

    `tree` is the folder of its files, or a directory descriptor of a tree that shows them; `expected` is the digest
    that the tar must have, if that is known. `index` and `shadow` take the places of the skeleton's index and of the
    folder beside it. Raises `Damaged`, with the path within the layer of the first file that is not as it was, and
    `KernelError` when a file cannot be read, or there is no memory. What was written until then is worthless.
    """
    with memory_told(), ExitStack() as undo:
        reader = undo.enter_context(SkeletonReader(skeleton))
        tree_fd = undo.enter_context(opened_if_there(tree))
        shadow_fd = undo.enter_context(opened_if_there(shadow or shadow_of(skeleton)))
        index = reader.index() if index is None else index
        exporter = lib.ls_export_new(tree_fd, shadow_fd, ffi.from_buffer(index), len(index))
        if exporter == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_export_free, exporter)
        digest = hashlib.sha256()
        for piece in _tar_of(exporter, reader, tree_fd, expected):
            digest.update(piece)
            write(piece)
        if lib.ls_export_finish(exporter):
            raise failure_of(lib.ls_export_failure, exporter, expected)
        found = DiffID(Digest(f"sha256:{digest.hexdigest()}"))
        if expected is not None and found != expected:
            raise Damaged(f"layer {expected}: the skeleton is damaged", remedy=MEND, layer=expected)
        return found


def _tar_of(exporter: Any, reader: SkeletonReader, tree: int, layer: DiffID | None) -> Iterator[memoryview]:
    """The pieces of the tar, each valid until the next one."""
    buffer = ffi.new("uint8_t[]", _PIECE)
    view = memoryview(ffi.buffer(buffer))
    for piece in reader.stream():
        if lib.ls_export_feed(exporter, ffi.from_buffer(piece), len(piece)):
            raise failure_of(lib.ls_export_failure, exporter, layer)
        while got := lib.ls_export_read(exporter, buffer, _PIECE):
            if got < 0:
                error = failure_of(lib.ls_export_failure, exporter, layer)
                if isinstance(error, Damaged) and tree < 0:
                    about = "" if layer is None else f"layer {layer}: "
                    raise Damaged(f"{about}the layer's folder is missing", remedy=MEND, layer=layer)
                raise error
            yield view[:got]


def verify(skeleton: Path, tree: Path | int, *, dialect: Dialect, level: Level) -> Iterator[Damage]:
    """What of a stored layer is not as it was when it was stored, by its skeleton's index.

    `tree` is the folder of its files in the form `dialect`, or a directory descriptor. With `MERGED`, it shows the
    layer on its parents, and only the layer's own entries are looked at.

    Raises `KernelError` when that cannot be found out: a folder that cannot be listed, a path that cannot be reached,
    too little memory or too few descriptors. What was found until then is true; of the rest nothing is known.
    """
    try:
        with memory_told(), SkeletonReader(skeleton) as reader:
            index = reader.index()
    except Damaged as damaged:
        yield Damage("", damaged.message)
        return
    with memory_told(), ExitStack() as undo:
        tree_fd = undo.enter_context(opened_if_there(tree))
        if tree_fd < 0:
            yield Damage("/", "the layer's folder is missing")
            return
        verifier = lib.ls_verify_new(tree_fd, DIALECTS[dialect], int(level), ffi.from_buffer(index), len(index))
        if verifier == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_verify_free, verifier)
        found = ffi.new("struct ls_damage *")
        while (more := lib.ls_verify_next(verifier, found)) > 0:
            words = ffi.string(found.what).decode()
            if found.code:
                words += f" ({os.strerror(found.code)})"
            yield Damage("/" + os.fsdecode(ffi.string(found.path)), words)
        if more < 0:
            raise failure_of(lib.ls_verify_failure, verifier)
