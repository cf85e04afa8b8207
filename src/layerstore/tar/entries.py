"""What a layer says of each name in its tree, by its skeleton alone: nothing is mounted, no file is read."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from layerstore.errors import Damaged
from layerstore.kernel._shim import ffi, lib
from layerstore.tar.engine import MEND, memory_told
from layerstore.tar.skeleton import SkeletonReader
from layerstore.values import frozen

_RECORD = struct.Struct("=4Q2q10I")  # struct ls_record
_LAID = struct.Struct("=Q2q")  # struct ls_laid
_ROOM = 1024
_STATED, _IMPLIED, _OPAQUE, _WHITEOUT, _HOLLOW = 1, 2, 8, 16, 1024  # of model.h


class EntryKind(Enum):
    """What a layer has under a name. The values are those of index.h."""

    REMOVAL = 0
    """Nothing: the layer hides what those below it have there."""
    FILE = 1
    HARD_LINK = 2
    SYMLINK = 3
    CHARACTER_DEVICE = 4
    BLOCK_DEVICE = 5
    FOLDER = 6
    FIFO = 7


_KINDS = {kind.value: kind for kind in EntryKind}


@frozen
class LayerEntry:
    """What one layer says of one name. Facts of a hard link are those of the file that it names."""

    path: bytes
    """Within the tree, without a leading slash; b"" is the root directory."""
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    """Since 1970."""
    size: int
    """Bytes that can be read of a file; 0 of all else but a symlink, whose target has so many."""
    stored: int
    """Bytes that the tar has of a file: less than `size` if there are holes in it; 0 of all else, hard links too."""
    content: int
    """XXH64 of a file's bytes, or of a symlink's target. It tells what changed, and is no proof against malice."""
    attributes: int
    """XXH64 of the extended attributes."""
    target: bytes
    """Of a hard link: the path of the file in this layer."""
    device: tuple[int, int]
    """Major and minor number of a device."""
    opaque: bool
    """A folder that hides all that the layers below have in it."""
    covers: bool
    """The tar removes the name in the layers below; with a kind other than REMOVAL, it has another thing there."""
    implied: bool
    """A folder that the tar needs and does not list: its attributes are those that it has below.

    Where layers are kept as whole trees, one that is below is not told.
    """
    inherits: bool
    """One of these that may have them from below: what the layer itself has removed there is gone with its looks."""
    hollow: bool
    """One of these that is there for removals alone: it is no folder where the layers below have none."""


def entries(skeleton: Path) -> Iterator[LayerEntry]:
    """The entries of a layer, parents before what is in them. Raises `Damaged`, `KernelError`.

    The skeleton is read whole before the first of them is given; the file may go then.
    """
    with memory_told(), SkeletonReader(skeleton) as reader:
        index = reader.index()
    return _entries(skeleton, index)


def entries_and_rest(skeleton: Path) -> tuple[list[LayerEntry], bytes]:
    """The same, and what follows them in the index: of a listing, the places."""
    with memory_told(), SkeletonReader(skeleton) as reader:
        index = reader.index()
    state = ffi.new("struct ls_entries *")
    found = list(_entries(skeleton, index, state))
    return found, index[state.at :]


def laid_in(listing: Path, least: int) -> list[tuple[int, int, int]]:
    """Of each payload with so many bytes, in the order of the tar: its XXH64, its size, and where in the tar it begins.

    All of it is only told: nothing is proved. Raises `Damaged`, `KernelError`.
    """
    with memory_told(), SkeletonReader(listing) as reader:
        index = reader.index()
        data = ffi.from_buffer(index)
        count = lib.ls_laid_in(data, len(index), least, ffi.NULL, 0)
        if count < 0:
            raise _damaged(listing)
        laid = ffi.new("struct ls_laid[]", count)
        lib.ls_laid_in(data, len(index), least, laid, count)
        return list(_LAID.iter_unpack(ffi.buffer(laid)))


def _entries(skeleton: Path, index: bytes, state: Any = None) -> Iterator[LayerEntry]:
    state = state or ffi.new("struct ls_entries *")
    source = ffi.from_buffer(index)  # keeps the index
    if lib.ls_entries_begin(state, source, len(index)):
        raise _damaged(skeleton)
    sparse = {
        index[record[0] : record[0] + record[6]]: record[4]
        for record in _records(lib.ls_entries_sparse, state, skeleton)
    }
    for record in _records(lib.ls_entries_next, state, skeleton):
        path, target, content, attributes, size, seconds, length, target_length, number, flags = record[:10]
        mode, uid, gid, fraction, major, minor = record[10:]
        kind = _KINDS.get(number)
        if kind is None:
            raise _damaged(skeleton)
        name = index[path : path + length]
        yield LayerEntry(
            name,
            kind,
            mode,
            uid,
            gid,
            seconds * 1_000_000_000 + fraction,
            size,
            sparse.get(name, size) if kind is EntryKind.FILE else 0,
            content,
            attributes,
            index[target : target + target_length],
            (major, minor),
            bool(flags & _OPAQUE),
            bool(flags & _WHITEOUT),
            kind is EntryKind.FOLDER and not flags & _STATED,
            bool(flags & _IMPLIED) and not flags & _STATED,
            bool(flags & _HOLLOW),
        )


def _records(fill: Any, state: Any, skeleton: Path) -> Iterator[tuple[int, ...]]:
    """What `fill` fills records with, until there is no more."""
    records = ffi.new("struct ls_record[]", _ROOM)
    data = ffi.buffer(records)
    while count := fill(state, records, _ROOM):
        if count < 0:
            raise _damaged(skeleton)
        yield from _RECORD.iter_unpack(data[: count * _RECORD.size])


def _damaged(skeleton: Path) -> Damaged:
    return Damaged(f"the skeleton {skeleton.name} is damaged", remedy=MEND, path=skeleton)
